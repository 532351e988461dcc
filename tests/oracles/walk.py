"""The literal bar-by-bar walk of semantics.md: linear contracts, isolated margin, static rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.oracles.history import Grid, Rows, grid_of

__all__ = [
    "Grid",
    "Position",
    "Rows",
    "Scenario",
    "Tier",
    "Verdict",
    "grid_of",
    "open_position",
    "walk",
    "walk_one",
]

TIE = 1e-9  # §2: share of the margin within which a comparison counts as reached; also the slack on caps


# ---------------------------------------------------------------- §2 a position, §5 maintenance rules


@dataclass(frozen=True)
class Tier:
    """§2, §5: one row of a tier table; deduction None in every row makes a table without deductions."""

    floor: float
    cap: float
    mmr: float
    deduction: float | None
    max_leverage: float


@dataclass(frozen=True)
class Scenario:
    """§2: the terms under which positions are opened."""

    side: int
    leverage: float
    maintenance: float | tuple[Tier, ...]
    basis: str = "mark"
    close_reserve: float = 0.0
    open_fee: float = 0.0
    fees_from_margin: bool = True
    funding_scale: float = 1.0
    funding_shift: float = 0.0
    notional: float | None = None
    margin: float | None = None
    margin_call_ratio: float = 0.8
    liquidation_slippage: float = 0.0
    liquidation_fee: float = 0.0


@dataclass(frozen=True)
class Position:
    """§2: side s, entry price p, quantity q, entry notional N, posted margin M, the lines (mmr_k, D_k)."""

    s: int
    p: float
    q: float
    N: float
    M: float
    fee: float
    lines: tuple[tuple[float, float], ...]
    basis: str
    close_reserve: float

    def equity(self, price: float, paid: float) -> float:
        """§2: the margin balance E at a price, with paid = C_t − C_i."""
        return self.M - self.fee + self.s * self.q * (price - self.p) - self.s * self.q * paid

    def size(self, price: float) -> float:
        """§2: n, the notional that maintenance is taken of."""
        return self.q * price if self.basis == "mark" else self.N

    def maintenance_of(self, n: float, g: float) -> float:
        """§2: MM at size n: g times the largest of the tiers' lines, plus the close reserve."""
        return g * max(mmr * n - d for mmr, d in self.lines) + self.close_reserve * n

    def maintenance(self, price: float, g: float) -> float:
        """§2: MM at a trigger price."""
        return self.maintenance_of(self.size(price), g)


def tier_holding(tiers: Sequence[Tier], notional: float) -> Tier:
    """§2: the tier with floor < N ≤ cap, caps read with the slack; beyond the last cap the last tier."""
    for tier in tiers:
        if notional <= tier.cap * (1 + TIE):
            return tier
    return tiers[-1]


def lines_of(maintenance: float | tuple[Tier, ...], notional: float) -> tuple[tuple[float, float], ...]:
    """§5: the lines mmr·n − D in force: all tiers with deductions, or the one tier of the size at entry."""
    if not isinstance(maintenance, tuple):
        return ((maintenance, 0.0),)
    without = [tier.deduction is None for tier in maintenance]
    if all(without):
        return ((tier_holding(maintenance, notional).mmr, 0.0),)
    if any(without):
        raise ValueError("a tier table has deductions in every row or in none")
    return tuple((tier.mmr, tier.deduction or 0.0) for tier in maintenance)


def open_position(scenario: Scenario, p: float) -> Position:
    """§2: N is the configured number or M·L, never recomputed from q."""
    leverage = scenario.leverage
    if scenario.basis not in ("mark", "entry") or scenario.side not in (1, -1):
        raise ValueError(f"basis {scenario.basis!r}, side {scenario.side!r}")
    if scenario.notional is not None and scenario.margin is not None:
        raise ValueError("size is notional or margin, not both")
    if scenario.notional is not None:
        notional, margin = scenario.notional, scenario.notional / leverage
    elif scenario.margin is not None:
        notional, margin = scenario.margin * leverage, scenario.margin
    elif isinstance(scenario.maintenance, tuple):
        raise ValueError("a tier table needs a size")
    else:  # any size: flat verdicts do not depend on it
        notional, margin = p, p / leverage
    return Position(
        s=scenario.side,
        p=p,
        q=notional / p,
        N=notional,
        M=margin,
        fee=scenario.open_fee * notional if scenario.fees_from_margin else 0.0,
        lines=lines_of(scenario.maintenance, notional),
        basis=scenario.basis,
        close_reserve=scenario.close_reserve,
    )


def is_rejected(scenario: Scenario, position: Position, g: float) -> bool:
    """§2: leverage above its tier's maximum, N above a finite last cap, or under water at p with g_i."""
    if isinstance(scenario.maintenance, tuple):
        if scenario.leverage > tier_holding(scenario.maintenance, position.N).max_leverage:
            return True
        if scenario.maintenance[-1].cap * (1 + TIE) < position.N:
            return True
    # At entry n is N itself, on both bases.
    balance = position.equity(position.p, 0.0)
    return balance - position.maintenance_of(position.N, g) <= TIE * position.M


def charge(grid: Grid, scenario: Scenario, t: int) -> float:
    """§2: what bar t adds to C: (scale·rate + shift)·F, the shift once per charged bar."""
    rate, price = grid.funding_rate[t], grid.funding_price[t]
    if rate is None or price is None:
        return 0.0
    return (scenario.funding_scale * rate + scenario.funding_shift) * price


# ---------------------------------------------------------------- §6 what happens at liquidation


def liquidation_price(position: Position, paid: float, g: float) -> float | None:
    """§6: the P at which E = MM, the tier being the one at that price; None where there is none above 0."""
    s, q, p, reserve = position.s, position.q, position.p, position.close_reserve
    if position.basis == "entry":  # MM does not move with P
        needed = position.maintenance_of(position.N, g)
        price = p + paid + (needed - position.M + position.fee) / (s * q)
        return price if price > 0 else None
    roots: list[float] = []
    for mmr, deduction in position.lines:
        # M − fee + s·q·(P − p) − s·q·paid = g·(mmr·q·P − D) + reserve·q·P
        slope = q * (g * mmr + reserve - s)
        if slope == 0:
            continue
        price = (position.M - position.fee - s * q * p - s * q * paid + g * deduction) / slope
        if price <= 0:
            continue
        own = g * (mmr * q * price - deduction) + reserve * q * price
        if position.maintenance(price, g) - own <= 1e-12 * (position.N + q * price):
            roots.append(price)
    # Several only where two tiers meet, or where a tier's g·mmr + reserve exceeds 1 for a long: the lower one
    # is then the level that a falling price meets.
    return min(roots) if roots else None


def bankruptcy_price(scenario: Scenario, p: float) -> float | None:
    """§6: p·(1 − s/L), fees and funding aside; None outside (0, ∞)."""
    price = p * (1 - scenario.side / scenario.leverage)
    return price if 0 < price < math.inf else None


def fill_of(scenario: Scenario, level: float | None, trigger_open: float | None) -> float | None:
    """§6: the worse of the liquidation price and the bar's trigger open, then slipped."""
    # With no level above 0 (any price liquidates) the open is all there is; a null open leaves the level.
    known = [price for price in (level, trigger_open) if price is not None]
    if not known:
        return None
    worse = min(known) if scenario.side > 0 else max(known)
    return worse * (1 - scenario.side * scenario.liquidation_slippage)


# ---------------------------------------------------------------- the walk


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
    entry_time = grid.open_time_ms[i] + grid.interval_ms
    position = open_position(scenario, p)
    if is_rejected(scenario, position, grid.scale[i]):
        return Verdict(i, entry_time, p, rejected=True)

    paid = 0.0  # C_t − C_i
    g = grid.scale[i]
    called: int | None = None
    liquidated: int | None = None
    for t in range(i + 1, i + horizon_bars + 1):
        paid += charge(grid, scenario, t)  # funding first, then the bar's extreme
        g = grid.scale[t]
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

    # Funding and g are those of the liquidation bar, for a survivor those of its last bar.
    level = liquidation_price(position, paid, g)
    bankrupt = bankruptcy_price(scenario, p)
    if liquidated is None:
        return Verdict(i, entry_time, p, False, called, None, level, bankrupt)
    fill = fill_of(scenario, level, grid.trigger_open[liquidated])
    residual: float | None = None
    if fill is not None:
        left = position.equity(fill, paid) - scenario.liquidation_fee * position.q * fill
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
