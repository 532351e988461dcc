"""The literal bar-by-bar walk of docs/semantics.md: linear and inverse contracts, isolated margin, dated tables.

Contract "spot" is judged by spot.py; trades of the user's own are entered by trades.py, weights made by volatility.py.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from tests.oracles import spot
from tests.oracles.history import Grid, Rows, grid_of
from tests.oracles.liquidation import bankruptcy_price, fill_of, liquidation_price
from tests.oracles.position import (
    TIE,
    Dated,
    Position,
    Scenario,
    Tier,
    is_rejected,
    lines_of,
    open_position,
    refuse_early,
    tier_holding,
    under_table,
)
from tests.oracles.verdict import Verdict, shares_of

__all__ = [
    "TIE",
    "Dated",
    "Grid",
    "Position",
    "Rows",
    "Scenario",
    "Tier",
    "Verdict",
    "bankruptcy_price",
    "charge",
    "fill_of",
    "follow",
    "grid_of",
    "has_recovered",
    "is_rejected",
    "judge",
    "lines_of",
    "liquidation_price",
    "longest_gap",
    "open_position",
    "tier_holding",
    "walk",
    "walk_one",
]


def charge(grid: Grid, scenario: Scenario, t: int) -> float:
    """§2, §4: what bar t adds to C: (scale·rate + shift)·F, inverse /F; the shift once per charged bar."""
    rate, price = grid.funding_rate[t], grid.funding_price[t]
    if rate is None or price is None:
        return 0.0
    charged = scenario.funding_scale * rate + scenario.funding_shift
    return charged / price if scenario.contract == "inverse" else charged * price


def has_recovered(grid: Grid, scenario: Scenario, position: Position, i: int, horizon_bars: int) -> bool:
    """§6: E at the last known trigger close of the window, had the position been held, is above M, ties aside."""
    paid = 0.0
    balance: float | None = None
    for t in range(i + 1, i + horizon_bars + 1):
        paid += charge(grid, scenario, t)
        close = grid.trigger_close[t]
        if close is not None:
            balance = position.equity(close, paid)  # funding up to that bar
    return balance is not None and balance > position.M * (1 + TIE)


def follow(grid: Grid, scenario: Scenario, position: Position, i: int, end: int) -> Verdict:
    """§2, §6: a position opened at the close of bar i and not rejected, at risk in bars i+1 … end."""
    paid = 0.0  # C_t − C_i
    g = grid.scale[i]
    called: int | None = None
    liquidated: int | None = None
    for t in range(i + 1, end + 1):
        paid += charge(grid, scenario, t)  # funding first, then the bar's extreme
        g = grid.scale[t]
        position = under_table(scenario, position, grid.open_time_ms[t])
        worst = grid.trigger_low[t] if scenario.side > 0 else grid.trigger_high[t]
        if worst is None or not grid.has_trigger(t):
            continue
        if called is None and position.is_called(worst, paid, g, scenario.margin_call_ratio):
            called = t
        if position.is_liquidated(worst, paid, g):
            liquidated = t
            break

    # Funding, g and the table are those of the liquidation bar, for a survivor those of its last bar.
    level = liquidation_price(position, paid, g)
    entry_time = grid.open_time_ms[i] + grid.interval_ms
    verdict = Verdict(i, entry_time, position.p, False, called, liquidated, level, bankruptcy_price(position))
    if liquidated is None:
        return verdict
    verdict = replace(verdict, recovered=has_recovered(grid, scenario, position, i, end - i))
    fill = fill_of(scenario, level, grid.trigger_open[liquidated])
    if fill is None:
        return verdict
    left = position.equity(fill, paid) - scenario.liquidation_fee * position.notional(fill)
    residual, insurance = shares_of(scenario, left, position.M)
    return replace(verdict, fill_price=fill, residual=residual, insurance=insurance)


def judge(grid: Grid, scenario: Scenario, i: int, end: int, p: float, weight: float | None) -> Verdict:
    """§2: a position opened at price p at the close of bar i, at risk in bars i+1 … end.

    §2: a weight w makes the leverage L·w, and its comparison with the tier's maximum one with a slack.
    """
    slack = 0.0
    if weight is not None:
        if not 0 < weight < math.inf:
            raise ValueError(f"weight {weight} in bar {i}")
        scenario = replace(scenario, leverage=scenario.leverage * weight)
        slack = TIE
    if scenario.contract == "spot":
        return spot.judge(grid, scenario, i, end, p)
    position = open_position(scenario, p, grid.open_time_ms[i])
    if is_rejected(scenario, position, grid.scale[i], grid.open_time_ms[i], slack):
        return Verdict(i, grid.open_time_ms[i] + grid.interval_ms, p, rejected=True)
    return follow(grid, scenario, position, i, end)


def walk_one(grid: Grid, scenario: Scenario, entry_bar: int, horizon_bars: int, weight: float | None = None) -> Verdict:
    """§2: open at the close of bar i, at risk in bars i+1 … i+h; without a weight leverage is compared exactly."""
    p = grid.entry_price[entry_bar]
    if p is None or not grid.is_entry(entry_bar):
        raise ValueError(f"bar {entry_bar} is no entry")
    end = grid.last_bar(entry_bar, horizon_bars)
    if horizon_bars < 1 or end is None:
        raise ValueError(f"the window of bar {entry_bar} reaches past the grid")
    refuse_early(grid, scenario)
    return judge(grid, scenario, entry_bar, end, p, weight)


def longest_gap(grid: Grid, entry_bar: int, horizon_bars: int) -> int:
    """§1: the longest run of bars without trigger prices inside the window i+1 … i+h."""
    longest = run = 0
    for t in range(entry_bar + 1, entry_bar + horizon_bars + 1):
        run = 0 if grid.has_trigger(t) else run + 1
        longest = max(longest, run)
    return longest


def walk(
    grid: Grid,
    scenario: Scenario,
    horizon_bars: int,
    *,
    every_ms: int | None = None,
    entries: Sequence[int] | None = None,
    max_gap_bars: int | None = None,
    weights: Sequence[float | None] | None = None,
) -> tuple[list[Verdict], int]:
    """§9: the verdicts of one horizon's cohort, rejected ones included, and how many max_gap excluded.

    §2: weights are one per bar of the grid; a bar without one is no entry, and in no count.
    """
    if every_ms is not None and entries is not None:
        raise ValueError("every_ms or entries, not both")
    if weights is not None and len(weights) != len(grid.open_time_ms):
        raise ValueError("weights are one per bar")
    refuse_early(grid, scenario)
    bars = range(len(grid.open_time_ms)) if entries is None else entries
    verdicts: list[Verdict] = []
    excluded = 0
    for i in bars:
        if every_ms is not None and grid.open_time_ms[i] % every_ms:
            continue
        end = grid.last_bar(i, horizon_bars)
        if not grid.is_entry(i) or end is None:
            continue
        weight = None if weights is None else weights[i]
        if weights is not None and weight is None:
            continue
        # An excluded entry is in no other count, so a rejected one is excluded as well.
        if max_gap_bars is not None and longest_gap(grid, i, end - i) > max_gap_bars:
            excluded += 1
            continue
        verdicts.append(walk_one(grid, scenario, i, horizon_bars, weight))
    return verdicts, excluded
