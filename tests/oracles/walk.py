"""The literal bar-by-bar walk of semantics.md: linear and inverse contracts, isolated margin, dated tables."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    "grid_of",
    "has_recovered",
    "is_rejected",
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


@dataclass(frozen=True)
class Verdict:
    """What became of one entry; bars are grid indices, residual is a fraction of the posted margin."""

    entry_bar: int
    entry_time_ms: int
    entry_price: float
    rejected: bool
    margin_call_bar: int | None = None
    liquidation_bar: int | None = None
    liquidation_price: float | None = None
    bankruptcy_price: float | None = None
    fill_price: float | None = None
    residual: float | None = None
    recovered: bool = False


def has_recovered(grid: Grid, scenario: Scenario, position: Position, i: int, horizon_bars: int) -> bool:
    """§6: E at the last known trigger close of the window, had the position been held, is above M."""
    paid = 0.0
    balance: float | None = None
    for t in range(i + 1, i + horizon_bars + 1):
        paid += charge(grid, scenario, t)
        close = grid.trigger_close[t]
        if close is not None:
            balance = position.equity(close, paid)  # funding up to that bar
    return balance is not None and balance > position.M


def walk_one(grid: Grid, scenario: Scenario, entry_bar: int, horizon_bars: int) -> Verdict:
    """§2: open at the close of bar i, at risk in bars i+1 … i+h."""
    i = entry_bar
    p = grid.entry_price[i]
    if p is None or not grid.is_entry(i):
        raise ValueError(f"bar {i} is no entry")
    if horizon_bars < 1 or i + horizon_bars > len(grid.open_time_ms) - 1:
        raise ValueError(f"the window of bar {i} reaches past the grid")
    refuse_early(grid, scenario)
    entry_time = grid.open_time_ms[i] + grid.interval_ms
    position = open_position(scenario, p, grid.open_time_ms[i])
    if is_rejected(scenario, position, grid.scale[i], grid.open_time_ms[i]):
        return Verdict(i, entry_time, p, rejected=True)

    paid = 0.0  # C_t − C_i
    g = grid.scale[i]
    called: int | None = None
    liquidated: int | None = None
    for t in range(i + 1, i + horizon_bars + 1):
        paid += charge(grid, scenario, t)  # funding first, then the bar's extreme
        g = grid.scale[t]
        position = under_table(scenario, position, grid.open_time_ms[t])
        worst = grid.trigger_low[t] if scenario.side > 0 else grid.trigger_high[t]
        if worst is None or not grid.has_trigger(t):
            continue
        balance = position.equity(worst, paid)
        needed = position.maintenance(worst, g)
        if called is None and balance - needed / scenario.margin_call_ratio <= TIE * position.M:
            called = t
        if balance - needed <= TIE * position.M:
            liquidated = t
            break

    # Funding, g and the table are those of the liquidation bar, for a survivor those of its last bar.
    level = liquidation_price(position, paid, g)
    bankrupt = bankruptcy_price(scenario, p)
    if liquidated is None:
        return Verdict(i, entry_time, p, False, called, None, level, bankrupt)
    fill = fill_of(scenario, level, grid.trigger_open[liquidated])
    residual: float | None = None
    if fill is not None:
        left = position.equity(fill, paid) - scenario.liquidation_fee * position.notional(fill)
        residual = max(0.0, left) / position.M
    recovered = has_recovered(grid, scenario, position, i, horizon_bars)
    return Verdict(i, entry_time, p, False, called, liquidated, level, bankrupt, fill, residual, recovered)


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
) -> tuple[list[Verdict], int]:
    """§9: the verdicts of one horizon's cohort, rejected ones included, and how many max_gap excluded."""
    if every_ms is not None and entries is not None:
        raise ValueError("every_ms or entries, not both")
    refuse_early(grid, scenario)
    bars = range(len(grid.open_time_ms)) if entries is None else entries
    verdicts: list[Verdict] = []
    excluded = 0
    for i in bars:
        if every_ms is not None and grid.open_time_ms[i] % every_ms:
            continue
        if not grid.is_entry(i) or i + horizon_bars > len(grid.open_time_ms) - 1:
            continue
        # An excluded entry is in no other count, so a rejected one is excluded as well.
        if max_gap_bars is not None and longest_gap(grid, i, horizon_bars) > max_gap_bars:
            excluded += 1
            continue
        verdicts.append(walk_one(grid, scenario, i, horizon_bars))
    return verdicts, excluded
