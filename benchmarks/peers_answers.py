"""What passes between `peers.py` and the programs it compares with, each a process in an environment of its own.

Needs NumPy only: it is imported there too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """Which long positions, opened at a close, see the price at their liquidation level within the horizon.

    The level is ``close · (1 − distance)``: maintenance is a share of the notional at entry, there is neither fee nor
    funding, and the trigger is the traded price.
    """

    open: NDArray[np.float64]  # (n_bars,) one-minute bars without gaps
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    start_ms: int  # open time of bar 0
    horizon: int  # bars at risk
    leverage: NDArray[np.int64]  # (n_leverages,) ascending
    distance: NDArray[np.float64]  # (n_leverages,) descending

    def save(self, file: Path) -> None:
        """For `question`."""
        np.savez(file, **vars(self))


def question(file: str) -> Question:
    """As saved."""
    with np.load(file) as found:
        numbers = {name: int(found[name]) for name in ("start_ms", "horizon")}
        return Question(**{name: found[name] for name in found.files if name not in numbers}, **numbers)


@dataclass(frozen=True)
class Answer:
    """Verdicts of one way to ask."""

    what: str
    seconds: float
    entries: NDArray[np.int64]  # (n_entries,) bars at whose close positions were opened
    columns: NDArray[np.int64]  # (n_columns,) which of the leverages
    found: NDArray[np.int32] | NDArray[np.bool_]  # (n_entries, n_columns) bars to the liquidation, 0: none; or whether


def save(file: str, answers: list[Answer], packages: list[str]) -> None:
    """For `answers`, with the versions of the packages that gave them."""
    arrays = {f"{i} {name}": value for i, one in enumerate(answers) for name, value in vars(one).items()}
    np.savez(file, versions=versions(packages), **arrays)


def answers(file: Path) -> tuple[list[Answer], str]:
    """As saved, and the versions."""
    with np.load(file) as found:
        names = [field for field in Answer.__dataclass_fields__ if field not in ("what", "seconds")]
        rows = [
            Answer(str(found[f"{i} what"]), float(found[f"{i} seconds"]), *(found[f"{i} {name}"] for name in names))
            for i in range(len(found.files) // len(Answer.__dataclass_fields__))
        ]
        return rows, str(found["versions"])


def versions(packages: list[str]) -> str:
    """Such as ``numpy 2.4.6, numba 0.68.1``."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def timed(function: Callable[[], T], repeat: int = 1) -> tuple[float, T]:
    """Seconds of the quickest of some calls of what is warm already, and what the last of them gave.

    They are those of the processor, of all threads together: all programs are kept to one, and on a machine that others
    use too the clock measures the others.
    """
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        out = function()
        seconds.append(time.process_time() - start)
    return min(seconds), out
