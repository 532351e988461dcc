"""§8 of docs/semantics.md: positions of several symbols on one wallet, cross margin, walked bar by bar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tests.oracles.history import Grid
from tests.oracles.position import TIE, Dated, Tier, lines_of, tier_holding

Maintenance = float | tuple[Tier, ...] | Dated
Prices = list[float]  # one per leg


@dataclass(frozen=True)
class CrossScenario:
    """§8: the terms of a portfolio; linear contracts of one quote currency, one weight and maintenance per symbol.

    notional is the gross entry notional L·W, margin the wallet W; without either any size will do for flat rates.
    """

    weights: tuple[float, ...]
    leverage: float
    maintenance: tuple[Maintenance, ...]
    basis: str = "mark"
    close_reserve: float = 0.0
    open_fee: float = 0.0
    fees_from_margin: bool = True
    funding_scale: float = 1.0
    funding_shift: float = 0.0
    notional: float | None = None
    margin: float | None = None
    margin_call_ratio: float = 0.8

    def __post_init__(self) -> None:
        """Refuse what is no portfolio: Σ|w_k| = 1, no leg of weight 0, and maintenance for every leg."""
        if not all(math.isfinite(w) and w for w in self.weights) or abs(sum(map(abs, self.weights)) - 1) > TIE:
            raise ValueError(f"weights are signed, none of them 0, and Σ|w| = 1: {self.weights}")
        if len(self.maintenance) != len(self.weights):
            raise ValueError(f"{len(self.maintenance)} maintenances for {len(self.weights)} weights")
        if self.basis not in ("mark", "entry"):
            raise ValueError(f"basis {self.basis!r}")
        if self.notional is not None and self.margin is not None:
            raise ValueError("size is notional or margin, not both")
        if (
            self.notional is None
            and self.margin is None
            and any(isinstance(m, tuple | Dated) for m in self.maintenance)
        ):
            raise ValueError("a tier table needs a size")

    def gross(self) -> float:
        """§8: Σ N_k = L·W, the configured number where it is one."""
        if self.margin is not None:
            return self.margin * self.leverage
        return 1.0 if self.notional is None else self.notional

    def wallet(self) -> float:
        """§8: W."""
        return self.gross() / self.leverage if self.margin is None else self.margin


@dataclass(frozen=True)
class CrossVerdict:
    """What became of one entry of the whole portfolio; bars are indices of the common grid."""

    entry_bar: int
    rejected: bool
    margin_call_bar: int | None = None
    liquidation_bar: int | None = None


@dataclass(frozen=True)
class Leg:
    """§8: one position of the portfolio: side s, entry price p, quantity q, entry notional N = |w|·L·W."""

    s: int
    p: float
    q: float
    N: float


def common(grids: Sequence[Grid]) -> list[Grid]:
    """§8: every grid cut to the common one, from the latest first bar to the earliest last bar."""
    if len({grid.interval_ms for grid in grids}) != 1:
        raise ValueError("the grids of one portfolio have one interval")
    first = max(grid.open_time_ms[0] for grid in grids)
    last = min(grid.open_time_ms[-1] for grid in grids)
    if first > last:
        raise ValueError("the grids have no bar in common")
    cut = []
    for grid in grids:
        a, b = grid.open_time_ms.index(first), grid.open_time_ms.index(last)
        whole = [(field.name, getattr(grid, field.name)) for field in fields(grid)]
        columns: dict[str, Any] = {name: column[a : b + 1] for name, column in whole if isinstance(column, list)}
        # §1: a charge in the first bar of the (now common) grid falls on no position and is not read.
        columns["funding_rate"] = [None, *columns["funding_rate"][1:]]
        columns["funding_price"] = [None, *columns["funding_price"][1:]]
        cut.append(replace(grid, **columns))
    return cut


def check(grids: Sequence[Grid], scenario: CrossScenario) -> None:
    """§8, §5: one grid per weight, all of them the common one, and none that starts before its first table."""
    if len(grids) != len(scenario.weights):
        raise ValueError(f"{len(grids)} grids for {len(scenario.weights)} weights")
    if any((grid.interval_ms, grid.open_time_ms) != (grids[0].interval_ms, grids[0].open_time_ms) for grid in grids):
        raise ValueError("the grids are not the same bars; cut them with common()")
    for grid, rule in zip(grids, scenario.maintenance, strict=True):
        if isinstance(rule, Dated):
            rule.at(grid.open_time_ms[0])


# ---------------------------------------------------------------- the portfolio in a bar


def is_entry(grids: Sequence[Grid], t: int) -> bool:
    """§8: every leg can be entered."""
    return all(grid.is_entry(t) for grid in grids)


def prices_at(grids: Sequence[Grid], legs: Sequence[Leg], t: int, verdict: str) -> Prices | None:
    """§8: worst: every leg's own worst trigger price; close: every trigger close. None: the bar cannot trigger."""
    if not all(grid.has_trigger(t) for grid in grids):
        return None
    prices: Prices = []
    for grid, leg in zip(grids, legs, strict=True):
        if verdict == "close":
            price = grid.trigger_close[t]
        else:
            price = grid.trigger_low[t] if leg.s > 0 else grid.trigger_high[t]
        if price is None:
            return None
        prices.append(price)
    return prices


def table_at(maintenance: Maintenance, time_ms: int) -> float | tuple[Tier, ...]:
    """§5: the rate or table of the bar with this open time."""
    return maintenance.at(time_ms) if isinstance(maintenance, Dated) else maintenance


def charge(grid: Grid, scenario: CrossScenario, t: int) -> float:
    """§2: what bar t adds to C of one leg: (scale·rate + shift)·F, the shift once per charged bar."""
    rate, price = grid.funding_rate[t], grid.funding_price[t]
    if rate is None or price is None:
        return 0.0
    return (scenario.funding_scale * rate + scenario.funding_shift) * price


def open_legs(grids: Sequence[Grid], scenario: CrossScenario, i: int) -> list[Leg]:
    """§8: N_k = |w_k|·L·W and q_k = N_k/p_k at the entry prices of bar i."""
    legs = []
    for grid, weight in zip(grids, scenario.weights, strict=True):
        p = grid.entry_price[i]
        if p is None or not grid.is_entry(i):
            raise ValueError(f"bar {i} is no entry of every leg")
        n = abs(weight) * scenario.gross()
        legs.append(Leg(1 if weight > 0 else -1, p, n / p, n))
    return legs


def equity(scenario: CrossScenario, legs: Sequence[Leg], prices: Prices, paid: Sequence[float]) -> float:
    """§8: E = W − Σ fee_k·N_k + Σ s_k·q_k·(P_k − p_k) − Σ s_k·q_k·(C_k,t − C_k,i)."""
    e = scenario.wallet()
    for leg, price, c in zip(legs, prices, paid, strict=True):
        if scenario.fees_from_margin:
            e -= scenario.open_fee * leg.N
        e += leg.s * leg.q * (price - leg.p) - leg.s * leg.q * c
    return e


def maintenance(
    grids: Sequence[Grid], scenario: CrossScenario, legs: Sequence[Leg], sizes: Sequence[float], t: int
) -> float:
    """§8, §2: MM = Σ MM_k in bar t, each leg with its own table and scale, at the notionals in `sizes`."""
    total = 0.0
    for grid, rule, leg, n in zip(grids, scenario.maintenance, legs, sizes, strict=True):
        lines = lines_of(table_at(rule, grid.open_time_ms[t]), leg.N)
        total += grid.scale[t] * max(mmr * n - d for mmr, d in lines) + scenario.close_reserve * n
    return total


def is_rejected(grids: Sequence[Grid], scenario: CrossScenario, legs: Sequence[Leg], i: int) -> bool:
    """§8, §2: any leg above the maximum leverage of its tier or its last cap, or all under water at entry."""
    for grid, rule, leg in zip(grids, scenario.maintenance, legs, strict=True):
        table = table_at(rule, grid.open_time_ms[i])
        if not isinstance(table, tuple):
            continue
        if scenario.leverage > tier_holding(table, leg.N).max_leverage or table[-1].cap * (1 + TIE) < leg.N:
            return True
    # At entry n is N itself, on both bases.
    balance = equity(scenario, legs, [leg.p for leg in legs], [0.0] * len(legs))
    return balance - maintenance(grids, scenario, legs, [leg.N for leg in legs], i) <= TIE * scenario.wallet()


# ---------------------------------------------------------------- the walk


def walk_cross_one(
    grids: Sequence[Grid], scenario: CrossScenario, entry_bar: int, horizon_bars: int, verdict: str = "worst"
) -> CrossVerdict:
    """§8, §2: all legs opened at the close of bar i, at risk in bars i+1 … i+h, liquidated together."""
    if verdict not in ("worst", "close"):
        raise ValueError(f"verdict {verdict!r}")
    check(grids, scenario)
    i, bars = entry_bar, len(grids[0].open_time_ms)
    if horizon_bars < 1 or i + horizon_bars > bars - 1:
        raise ValueError(f"the window of bar {i} reaches past the grid")
    legs = open_legs(grids, scenario, i)
    if is_rejected(grids, scenario, legs, i):
        return CrossVerdict(i, rejected=True)

    paid = [0.0] * len(legs)  # C_k,t − C_k,i
    called: int | None = None
    for t in range(i + 1, i + horizon_bars + 1):
        # Funding first, also in a bar in which another leg has no prices.
        paid = [c + charge(grid, scenario, t) for c, grid in zip(paid, grids, strict=True)]
        prices = prices_at(grids, legs, t, verdict)
        if prices is None:
            continue
        sizes = [leg.q * price if scenario.basis == "mark" else leg.N for leg, price in zip(legs, prices, strict=True)]
        balance = equity(scenario, legs, prices, paid)
        needed = maintenance(grids, scenario, legs, sizes, t)
        if called is None and balance - needed / scenario.margin_call_ratio <= TIE * scenario.wallet():
            called = t
        if balance - needed <= TIE * scenario.wallet():
            return CrossVerdict(i, False, called, t)
    return CrossVerdict(i, False, called)


def walk_cross(
    grids: Sequence[Grid],
    scenario: CrossScenario,
    horizon_bars: int,
    verdict: str = "worst",
    every_ms: int | None = None,
) -> list[CrossVerdict]:
    """§8, §9: the verdicts of one horizon's cohort on the common grid, rejected ones included."""
    check(grids, scenario)
    verdicts = []
    for i, time in enumerate(grids[0].open_time_ms):
        if every_ms is not None and time % every_ms:
            continue
        if is_entry(grids, i) and i + horizon_bars <= len(grids[0].open_time_ms) - 1:
            verdicts.append(walk_cross_one(grids, scenario, i, horizon_bars, verdict))
    return verdicts
