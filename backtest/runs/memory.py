"""How much memory a run may take, and what it holds at once so that it does."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backtest.errors import ConfigError

PARTS = 3
"""Of histories, in memory at once: the one before, of which tasks are under way, this one, and the next."""


@dataclass(frozen=True)
class Budget:
    """What a run holds at once.

    Attributes
    ----------
    most_bars : int
        Of a history, its windows' reach included.
    table_bytes : int
        Of tables that are added up.
    """

    most_bars: int
    table_bytes: int


def make_budget(memory: int, workers: int) -> Budget:
    """What so many bytes are used for: half of what is free for tables, half for bars."""
    free = max(0, memory - BASE_BYTES - workers * BYTES_PER_WORKER)
    return Budget(free // 2 // PARTS // BYTES_PER_HELD_BAR, free // 2)


def memory_bytes() -> int | None:
    """Memory this process may use: the machine's, or less where the container's limit is lower."""
    found: list[int] = []
    with suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=None)


def memory_allowed(asked: str | None) -> int:
    """Bytes that a run may take: as asked, else a quarter of this machine's, and 2 GiB where that is not known."""
    if asked is not None:
        return parse_memory(asked)
    machine = memory_bytes()
    return 2 << 30 if machine is None else machine // 4


def parse_memory(text: str) -> int:
    """Bytes of ``"2GiB"``, ``"800MiB"``, ``"16 GB"``.

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


START_S = 1.7
"""Of the interpreter and its libraries, the kernels compiled."""
READ_S_PER_BAR = 6.2e-07
"""Of all that is done once per bar: reading it, and sweeping windows over it."""
COUNT_S = 3e-09
"""Per entry, horizon and pass: a pass is a maintenance rule, side and funding."""
FOLLOW_S = 4.5e-07
"""Per entry, horizon, leverage and scenario: outcomes and policies."""
WRITE_S_PER_ROW = 3e-05
"""Of counts and rates."""
TABLE_S_PER_ROW = 3e-06
"""Of that, at the end, when all is counted."""

BASE_BYTES = 304 << 20
"""Of the interpreter and its libraries, the kernels compiled."""
BYTES_PER_HELD_BAR = 111
"""Of a stretch of a history, laid on its grid."""
BYTES_PER_WORKER = 32 << 20
"""Scratch arrays of a task, and the tables of those that are done before their turn."""
DISK_BYTES_PER_CELL = 0.45
"""Of counts by calendar block, compressed."""
DISK_BYTES_PER_ROW = 55
"""Of the tables of rates."""


def entry_seconds(horizons: int, leverages: int, scenarios: int, labels: int, *, followed: bool) -> float:
    """Of one core, per entry, for a group of scenarios that are counted together.

    labels : ways in which entries are counted apart, by the calendar and by regimes
    followed : whether positions are, to what became of them
    """
    return horizons * (COUNT_S * labels + (scenarios * leverages * FOLLOW_S if followed else 0.0))
