"""§4 of docs/semantics.md, spot margin: a position bought or sold with borrowed funds, judged by its loan-to-value."""

import math
from dataclasses import dataclass, replace

from tests.oracles.history import Grid
from tests.oracles.liquidation import fill_of
from tests.oracles.position import TIE, Scenario, check
from tests.oracles.verdict import Verdict, shares_of

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class SpotPosition:
    """Side s, entry price p, q base worth N at p, own funds W; a long owes debt in quote, a short in base."""

    s: int
    p: float
    q: float
    N: float
    W: float
    debt: float  # long: quote borrowed
    assets: float  # short: quote held, own funds and what the sale brought

    def reaches(self, ltv: float, price: float, growth: float) -> bool:
        """§4: the loan-to-value with the debt grown G_t/G_i times is at or above the level, 1e-9 below it counting."""
        if self.s > 0:  # without a debt there is nothing to liquidate
            return self.debt > 0 and self.debt * growth >= ltv * (self.q * price) * (1 - TIE)
        return self.q * growth * price >= ltv * self.assets * (1 - TIE)

    def is_rejected(self, ltv: float) -> bool:
        """§4: the liquidation test at p, where the position is worth N, not recomputed from q."""
        if self.s > 0:
            return self.debt > 0 and self.debt >= ltv * self.N * (1 - TIE)
        return ltv * self.assets * (1 - TIE) <= self.N

    def equity(self, price: float, growth: float) -> float:
        """§4: E in quote."""
        if self.s > 0:
            return self.q * price - self.debt * growth
        return self.assets - self.q * growth * price

    def price_at(self, ltv: float, growth: float) -> float | None:
        """§4: the price at which the loan-to-value is that level; None outside (0, ∞)."""
        price = self.debt * growth / (ltv * self.q) if self.s > 0 else ltv * self.assets / (self.q * growth)
        return price if 0 < price < math.inf else None


def open_spot(scenario: Scenario, p: float) -> SpotPosition:
    """§4: own funds W, a position of L·W; the opening fee is paid from own funds."""
    check(scenario)
    futures = scenario.posted_fee or scenario.slope or scenario.extra or scenario.initial_rate is not None
    if scenario.liquidation_ltv is None or futures:
        raise ValueError("spot margin has a liquidation_ltv, and no fee to close, slope, initial rate or extra margin")
    if scenario.margin is not None:
        own, n = scenario.margin, scenario.margin * scenario.leverage
    else:  # without a size any will do: the verdict does not depend on it
        n = p if scenario.notional is None else scenario.notional
        own = n / scenario.leverage
    fee = scenario.open_fee * n if scenario.fees_from_margin else 0.0
    return SpotPosition(s=scenario.side, p=p, q=n / p, N=n, W=own, debt=n - own + fee, assets=own + n - fee)


def hours_in(grid: Grid, t: int) -> int:
    """§4: how many full hours (UTC) open inside bar t, its own open included and its end not."""
    hour = -(-grid.open_time_ms[t] // HOUR_MS) * HOUR_MS  # the first full hour that is not before the open
    hours = 0
    while hour < grid.open_time_ms[t] + grid.interval_ms:
        hours += 1
        hour += HOUR_MS
    return hours


def growth_after(scenario: Scenario, hours: int) -> float:
    """§4: G_t/G_i, one factor for each hour begun since the close of the entry bar."""
    return (1 + scenario.borrow_rate) ** hours


def has_recovered(grid: Grid, scenario: Scenario, position: SpotPosition, i: int, end: int) -> bool:
    """§6: E at the last known trigger close of the window, had the position been held, is above W."""
    hours = 0
    balance: float | None = None
    for t in range(i + 1, end + 1):
        hours += hours_in(grid, t)
        close = grid.trigger_close[t]
        if close is not None:
            balance = position.equity(close, growth_after(scenario, hours))
    return balance is not None and balance > position.W * (1 + TIE)


def judge(grid: Grid, scenario: Scenario, i: int, end: int, p: float) -> Verdict:
    """§4: opened at price p at the close of bar i, at risk in bars i+1 … end; no funding, no tiers."""
    position = open_spot(scenario, p)
    ltv, call_ltv = scenario.liquidation_ltv, scenario.margin_call_ltv
    assert ltv is not None  # open_spot refuses it
    entry_time = grid.open_time_ms[i] + grid.interval_ms
    if position.is_rejected(ltv):
        return Verdict(i, entry_time, p, rejected=True)

    hours = 0
    called: int | None = None
    liquidated: int | None = None
    for t in range(i + 1, end + 1):
        hours += hours_in(grid, t)  # interest first, then the bar's extreme
        worst = grid.trigger_low[t] if scenario.side > 0 else grid.trigger_high[t]
        if worst is None or not grid.has_trigger(t):
            continue
        growth = growth_after(scenario, hours)
        if called is None and call_ltv is not None and position.reaches(call_ltv, worst, growth):
            called = t
        if position.reaches(ltv, worst, growth):
            liquidated = t
            break

    growth = growth_after(scenario, hours)  # of the liquidation bar, for a survivor of its last bar
    level, bankrupt = position.price_at(ltv, growth), position.price_at(1.0, 1.0)
    verdict = Verdict(i, entry_time, p, False, called, liquidated, level, bankrupt)
    if liquidated is None:
        return verdict
    verdict = replace(verdict, recovered=has_recovered(grid, scenario, position, i, end))
    fill = fill_of(scenario, level, grid.trigger_open[liquidated])
    if fill is None:
        return verdict
    left = position.equity(fill, growth) - scenario.liquidation_fee * position.q * fill
    residual, insurance = shares_of(scenario, left, position.W)
    return replace(verdict, fill_price=fill, residual=residual, insurance=insurance)
