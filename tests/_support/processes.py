"""A scheduler of dask.distributed and its workers at 127.0.0.1, and a moment in a run at which to kill some.

Nothing here takes a fixed time: what must have happened is waited for.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import distributed

ROOT = Path(__file__).parents[2]
LONG_S = 120.0
DOOMS = "BACKTEST_TEST_DOOMS"
"""In the environment of a worker: the folder of files, each of which is the death of one worker."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    end_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end_s, f"{what} is not so after {LONG_S:g} s"
        time.sleep(0.02)


class Processes:
    """A scheduler and its workers, each a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.begun = folder, 0, 0
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.dooms = folder / "dooms"
        self.dooms.mkdir()
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """At the address of the one before, if there was one."""
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        words = ["--port", self.port, "--dashboard-address", "127.0.0.1:0", "--scheduler-file", file]
        self.scheduler = self._start("scheduler", *words)

        def answers() -> bool:
            with suppress(OSError, ValueError):
                self.address = json.loads(file.read_text())["address"]
            return hasattr(self, "address") and file.exists()

        until(answers, "the scheduler is there")
        self.port = int(self.address.rpartition(":")[2])

    def have_workers(self, count: int, **place: Path) -> None:
        """Start what is missing, and wait until the scheduler knows these and no dead ones."""
        self.workers = {name: one for name, one in self.workers.items() if one.poll() is None}
        for _ in range(count - len(self.workers)):
            self.start_worker(**place)
        with distributed.Client(self.address, timeout=LONG_S, set_as_default=False) as client:

            def known() -> set[str]:
                return {one["name"] for one in client.scheduler_info(n_workers=-1)["workers"].values()}

            until(lambda: known() == set(self.workers), f"{count} workers have joined")

    def start_worker(self, cwd: Path = ROOT, packages: Path | None = None) -> None:
        """Start one, which joins a second or two later; it finds packages in these folders first."""
        self.begun += 1
        name = f"worker-{self.begun}"
        words = ["--no-nanny", "--nthreads", 1, "--local-directory", self.folder, "--name", name]
        if cwd == ROOT and packages is None:
            words += ["--preload", "tests._support.processes"]
        env = {**os.environ, DOOMS: str(self.dooms)}
        if packages is not None:
            env["PYTHONPATH"] = f"{packages}{os.pathsep}{ROOT}"
        self.workers[name] = self._start("worker", self.address, *words, cwd=cwd, env=env)

    def doom(self, count: int) -> None:
        """Kill so many workers, each in the middle of what it works on next."""
        for number in range(count):
            (self.dooms / f"{number}").touch()

    def killed(self) -> int:
        """Workers that were there, and are no more."""
        return sum(one.poll() == -signal.SIGKILL for one in self.workers.values())

    def kill_workers(self) -> None:
        for one in self.workers.values():
            end(one)
        self.workers.clear()

    def close(self) -> None:
        self.kill_workers()
        end(self.scheduler)

    def _start(self, what: str, *words: object, cwd: Path = ROOT, **more: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1", "--no-dashboard"]
        null = subprocess.DEVNULL
        return subprocess.Popen([*command, *map(str, words)], cwd=cwd, stdout=null, stderr=null, **more)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def dask_setup(worker: object) -> None:
    """In a worker: die with the results of a piece of work in hand, where a doom can be taken."""
    from backtest.runs.executors import dask_plugin as there

    each, dooms = there.each, Path(os.environ[DOOMS])

    def mortal(pickled: bytes, items: list) -> object:
        results = each(pickled, items)
        for doom in dooms.iterdir():
            with suppress(FileNotFoundError):  # another took it
                doom.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return results

    there.each = mortal


class After(logging.Handler):
    """Do something once, when the first group of a run is finished; the run waits for it."""

    def __init__(self, deed: Callable[[], object]) -> None:
        super().__init__()
        self.deed: Callable[[], object] | None = deed

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
