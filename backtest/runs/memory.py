"""The memory a run may take, and the constants of a plan: bytes and seconds per unit of work."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backtest.errors import ConfigError

PARTS = 3
"""Parts of histories in memory at once: one whose last tasks still run, the current one, and the next one."""
BASE_BYTES = 304 << 20
"""Memory of the interpreter, its libraries and the compiled kernels."""
BYTES_PER_HELD_BAR = 111
"""Memory of a bar of a history in memory."""
BYTES_PER_WORKER = 32 << 20
"""Memory of a worker: scratch arrays of a task, and tables of tasks that completed before their turn."""
STEP_S = 1.5e-08
"""Seconds of one worker per step, as measured in docs/scaling.md: see `work_seconds`."""
TABLE_S_PER_ROW = 200 * STEP_S
"""Seconds per row of the final tables, on one thread."""
FOLLOWED_STEPS = 25
"""Steps that one followed position takes: its path is simulated bar by bar."""


@dataclass(frozen=True)
class Budget:
    """What a run holds in memory at once.

    Attributes
    ----------
    most_bars : int
        Bars of a part of a history, with the bars that the windows of its last entries reach.
    table_bytes : int
        Bytes of the tables of counts that are summed.
    """

    most_bars: int
    table_bytes: int


def make_budget(memory: int, workers: int) -> Budget:
    """Divide the free memory in halves: one for tables of counts, one for bars."""
    free = max(0, memory - BASE_BYTES - workers * BYTES_PER_WORKER)
    return Budget(free // 2 // PARTS // BYTES_PER_HELD_BAR, free // 2)


def memory_bytes() -> int | None:
    """Memory this process may use: the machine's, or the limit of its container if that is lower; None: unknown."""
    found: list[int] = []
    with suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=None)


def memory_allowed(asked: str | None) -> int:
    """Bytes a run may take: as asked, else a quarter of the machine's memory, or 2 GiB if that is unknown."""
    if asked is not None:
        return parse_memory(asked)
    machine = memory_bytes()
    return 2 << 30 if machine is None else machine // 4


def parse_memory(text: str) -> int:
    """Parse a size in bytes, such as ``"2GiB"``, ``"800MiB"``, ``"16 GB"``.

    Examples
    --------
    >>> parse_memory("2GiB")
    2147483648
    """
    units = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(k|m|g|ki|mi|gi|)b?\s*", text.lower())
    if match is None or not float(match[1]):
        raise ConfigError(f"memory is a number and a unit, such as 2GiB or 800MB; got {text!r}")
    return int(float(match[1]) * units[match[2]])


def peak_bytes(workers: int, held_bars: int, table_bytes: int) -> int:
    """Peak memory of a run that holds so many bars of histories and bytes of tables."""
    return BASE_BYTES + workers * BYTES_PER_WORKER + held_bars * BYTES_PER_HELD_BAR + table_bytes


def work_seconds(bars: int, entries: int, horizons: int, leverages: int, scenarios: int, *, followed: bool) -> float:
    """Seconds of one worker that counts scenarios over a history.

    A step is one bar, or one entry × horizon, of one scenario; all leverages are answered in the same step. Where
    positions are followed (outcomes, policies), each leverage takes `FOLLOWED_STEPS` steps.
    """
    return STEP_S * scenarios * (bars + entries * horizons * (leverages * FOLLOWED_STEPS if followed else 1))
