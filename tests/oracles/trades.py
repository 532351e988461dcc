"""§2 of docs/semantics.md: positions at the user's own times, in place of one per bar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.oracles.history import Grid
from tests.oracles.position import Scenario, refuse_early
from tests.oracles.walk import Verdict, judge, longest_gap


@dataclass(frozen=True)
class Trade:
    """§2: one trade; None for a side or a leverage takes the scenario's, for a price the bar's."""

    entry_time_ms: int
    exit_time_ms: int | None = None
    side: int | None = None
    leverage: float | None = None
    entry_price: float | None = None


def entry_bar_of(grid: Grid, trade: Trade) -> int:
    """§2: the bar with open_time < entry_time ≤ open_time + Δ; an error names the trade."""
    for t, time in enumerate(grid.open_time_ms):
        if time < trade.entry_time_ms <= time + grid.interval_ms:
            # §1: a bar without an entry price or without trigger prices is no entry; an own price needs neither.
            if trade.entry_price is None and not grid.is_entry(t):
                raise ValueError(f"{trade} enters in a bar that is no entry")
            return t
    raise ValueError(f"{trade} enters outside the grid")


def end_of(grid: Grid, trade: Trade, i: int, horizon_bars: int) -> int | None:
    """§2: the last bar at risk, at most i+h, that opens before the exit; None where it is censored."""
    bars = horizon_bars
    if trade.exit_time_ms is not None:
        held = 0  # the bars after i that open before the exit, the grid's end aside
        while held < horizon_bars and grid.open_time_ms[i] + (held + 1) * grid.interval_ms < trade.exit_time_ms:
            held += 1
        if held == 0:
            raise ValueError(f"{trade} leaves no bar at risk")
        bars = held
    return grid.last_bar(i, bars)


def walk_trades(
    grid: Grid, scenario: Scenario, trades: Sequence[Trade], horizon_bars: int, *, max_gap_bars: int | None = None
) -> tuple[list[Verdict], int]:
    """§2: the verdicts of the trades whose cut window lies inside the grid, in their order; and the excluded.

    A trade counts as weighted entry (its leverage is compared with a slack), whether it names a leverage or not.
    """
    if horizon_bars < 1:
        raise ValueError(f"a horizon of {horizon_bars} bars")
    refuse_early(grid, scenario)
    verdicts: list[Verdict] = []
    excluded = 0
    for trade in trades:
        i = entry_bar_of(grid, trade)
        end = end_of(grid, trade, i, horizon_bars)
        if end is None:
            continue
        p = grid.entry_price[i] if trade.entry_price is None else trade.entry_price
        if p is None or not 0 < p < math.inf:
            raise ValueError(f"{trade} enters at {p}")
        if max_gap_bars is not None and longest_gap(grid, i, end - i) > max_gap_bars:
            excluded += 1
            continue
        own = replace(
            scenario,
            side=scenario.side if trade.side is None else trade.side,
            leverage=scenario.leverage if trade.leverage is None else trade.leverage,
        )
        verdicts.append(judge(grid, own, i, end, p, 1.0))
    return verdicts, excluded
