"""A scheduler of dask.distributed and its workers at 127.0.0.1, and a moment in a run at which to kill some."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import distributed

ROOT = Path(__file__).parents[1]


class Processes:
    """A scheduler and its workers, each a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"tcp://127.0.0.1:{self.port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.scheduler = self._start("scheduler", "--port", self.port, "--dashboard-address", "127.0.0.1:0")

    def start_workers(self, count: int, cwd: Path = ROOT) -> None:
        """Start some, and wait until they have joined."""
        for _ in range(count):
            self.start_worker(cwd)
        with distributed.Client(self.address, timeout=20, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=30)

    def start_worker(self, cwd: Path = ROOT) -> None:
        """Start one, which joins a second or two later."""
        words = [self.address, "--no-nanny", "--nthreads", 1, "--local-directory", self.folder]
        self.workers.append(self._start("worker", *words, cwd=cwd))

    def kill_workers(self) -> None:
        for worker in self.workers:
            end(worker)
        self.workers.clear()

    def close(self) -> None:
        self.kill_workers()
        end(self.scheduler)

    def _start(self, what: str, *words: object, cwd: Path = ROOT) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1", "--no-dashboard"]
        return subprocess.Popen(
            [*command, *map(str, words)], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


class After(logging.Handler):
    """Do something once, when the first group of a run is finished."""

    def __init__(self, deed: Callable[[], None]) -> None:
        super().__init__()
        self.deed: Callable[[], None] | None = deed

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") == "task finished" and self.deed is not None:
            deed, self.deed = self.deed, None
            deed()

    def __enter__(self) -> After:
        logger = logging.getLogger("backtest")
        logger.addHandler(self)
        self.level_before = logger.level
        logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *exc: object) -> None:
        logger = logging.getLogger("backtest")
        logger.removeHandler(self)
        logger.setLevel(self.level_before)
        assert self.deed is None, "the run never came so far"
