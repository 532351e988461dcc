"""A small market, an undisturbed run of it, and runs that are stopped where one wants."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import backtest as bt
from backtest.runs import checkpoint
from backtest.runs import run as runner
from backtest.runs import tasks as jobs
from tests._support.histories import history_of, random_rows
from tests._support.kills import content
from tests.cli.conftest import typed

CONFIG = """\
[data]
path = "data"

[sweep]
leverage = { from = 1, to = 40 }
horizon = ["1h", "1d", "7d"]
maintenance = [0.004, 0.02]
open_fee = [0.0, 0.0005]

[statistics]
regimes = ["month"]
"""
SYMBOLS = ("AAA", "BBB", "CCC")
TASKS = 24
"""Three symbols × two sides × two maintenances × two fees, a task per scenario."""
SMALL = CONFIG.replace('"data"', '"data"\nsymbols = ["AAA"]').replace(", 0.02]", "]").replace(", 0.0005]", "]")


@pytest.fixture(scope="module")
def market() -> Iterator[Path]:
    """A folder with ``data``, ``sweep.toml`` and ``whole``, an undisturbed run; a disk in memory if there is one."""
    quick = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(dir=quick) as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "CELLS_PER_TASK", 2_000)
        for seed, symbol in enumerate(SYMBOLS):
            bt.write_history(history_of(random_rows(seed, 3_000), symbol), "data")
        Path("sweep.toml").write_text(CONFIG)
        bt.run("sweep.toml", out="whole")
        yield Path(folder)


@pytest.fixture
def place(market: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own beside it, the current one."""
    with TemporaryDirectory(dir=market) as folder:
        for name in ("data", "sweep.toml"):
            (shutil.copytree if name == "data" else shutil.copy2)(market / name, Path(folder) / name)
        monkeypatch.setattr(jobs, "CELLS_PER_TASK", 2_000)
        monkeypatch.setattr(runner, "WAITING", 0)  # so that one knows how many are kept
        monkeypatch.chdir(folder)
        yield Path(folder)


def run(*words: object, out: str = "out") -> tuple[int, str]:
    """Exit code of ``backtest run``, and what it says on standard error."""
    done = typed("run", "sweep.toml", "--out", out, *words)
    assert done.code or not done.err
    assert "Traceback" not in done.err
    return done.code, done.err


def info(out: str = "out") -> dict:
    return json.loads((Path(out) / "run.json").read_text())


def kept() -> int:
    """Tasks that the finished run took over from the attempts before."""
    return sum(task["kept"] for task in info()["tasks"])


def finishes(market: Path, expected: int, *words: object) -> None:
    """The run goes on to its end, takes over so many tasks, and is that of an undisturbed one."""
    assert run("--resume", *words) == (0, "")
    assert content(Path("out")) == content(market / "whole")
    assert (len(info()["tasks"]), kept()) == (TASKS, expected)
    assert [name for name in os.listdir() if name.startswith(".")] == []


def failing(monkeypatch: pytest.MonkeyPatch, after: int, fault: Callable[[], object]) -> None:
    """Have something happen when so many tasks are kept."""
    keep, seen = checkpoint.Journal.keep, []

    def keeping(self: checkpoint.Journal, name: str, *rest: object) -> None:
        keep(self, name, *rest)
        seen.append(name)
        if sum(one.startswith("tasks/") for one in seen) == after and name.startswith("tasks/"):
            fault()

    monkeypatch.setattr(checkpoint.Journal, "keep", keeping)


def stopped(monkeypatch: pytest.MonkeyPatch, after: int, *words: object) -> None:
    """A run that is interrupted when so many tasks are kept."""
    with monkeypatch.context() as patch:
        failing(patch, after, lambda: signal.raise_signal(signal.SIGINT))
        assert run(*words) == (130, "\ninterrupted\n")
