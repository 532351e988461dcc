"""Positions one by one: the counts of §9 tallied literally, and the records that survival packages take."""

from collections.abc import Sequence
from typing import NamedTuple

LIQUIDATED, STOPPED, TOOK_PROFIT = 1, 2, 3


class Position(NamedTuple):
    """In horizons of the grid, counted from 1."""

    window: int  # horizons in whose cohort it is: the first so many
    end: int  # the first horizon by which it has ended; 0 for never
    cause: int  # how; 0 for not at all
    called: int  # the first horizon by which it had a margin call; 0 for never


def ended_by(horizon: int, event: int) -> bool:
    return 0 < event <= horizon


def tally(positions: Sequence[Position], n_horizons: int) -> dict[str, list[int]]:
    """§9: counts over each horizon's cohort, and `prior_…` of that cohort by the next shorter horizon."""
    causes = {"liquidations": LIQUIDATED, "stopped": STOPPED, "took_profit": TOOK_PROFIT}
    out: dict[str, list[int]] = {"entries": []}
    for k in range(1, n_horizons + 1):
        cohort = [position for position in positions if position.window >= k]
        out["entries"].append(len(cohort))
        for prefix, horizon in (("", k), ("prior_", k - 1)):
            for name, cause in causes.items():
                count = sum(p.cause == cause and ended_by(horizon, p.end) for p in cohort)
                out.setdefault(prefix + name, []).append(count)
            out.setdefault(f"{prefix}margin_calls", []).append(sum(ended_by(horizon, p.called) for p in cohort))
    return out


class Record(NamedTuple):
    duration: float
    event: int  # 0: right-censored


def records(positions: Sequence[Position], horizons: Sequence[float], causes: Sequence[int]) -> list[Record]:
    """What was seen of each: its end if it came within the window, else alive at the end of the window.

    causes : those that count as ends; positions that ended otherwise are followed to the end of their window
    """
    out = []
    for p in positions:
        if p.window == 0:
            continue
        seen = p.cause in causes and ended_by(p.window, p.end)
        out.append(Record(horizons[(p.end if seen else p.window) - 1], p.cause if seen else 0))
    return out


def call_records(positions: Sequence[Position], horizons: Sequence[float]) -> list[Record]:
    """The same for margin calls, whatever else ended the position."""
    return records([Position(p.window, p.called, int(p.called > 0), 0) for p in positions], horizons, [1])
