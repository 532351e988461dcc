"""What the parts of a run cost, for plans and for the time left; fitted by ``benchmarks/scaling.py``."""

from __future__ import annotations

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
