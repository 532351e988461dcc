"""Positions as arrays under static rules: liquidation, bankruptcy and fill price, and what was left at the end.

`Positions` are of one scenario and leverage, amounts per unit of entry notional in the currency of the margin.
`close_positions` follows them from their first crossings to their exits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import ChunkSeries, held_cost
from backtest.engine.cohorts import Population
from backtest.engine.crossings import Crossings
from backtest.engine.thresholds import TIE
from backtest.margin.liquidation import liquidation_prices
from backtest.margin.spot import loans, owed_and_owned, prices_at_ltv


@dataclass(frozen=True)
class Positions:
    """Opened at `entry_price` : (n,) with `leverage` : (n,), each entry's own.

    Attributes
    ----------
    fee : float
        Share of the notional taken from the margin at entry.
    """

    scenario: Scenario
    leverage: Float
    fee: float
    entry_price: Float

    def growth(self, price: Float) -> Float:
        """Notional at a price over that at entry."""
        return self.scenario.unit_value(price) / self.scenario.unit_value(self.entry_price)

    @property
    def notional(self) -> Float:
        """(n,) at entry, quote or coin; 1 where the scenario has no size."""
        return self.scenario.notionals(self.leverage, self.entry_price)

    @property
    def margin(self) -> Float:
        """(n,) what stands against losses: the posted margin, and wallet balance beside it."""
        extra = self.scenario.counted_extra
        return 1 / self.leverage + (extra / self.notional if extra else 0.0)

    def equity(self, price: Float, cost: Float) -> Float:
        """Margin balance at a price; `cost` is the funding paid since entry per unit of quantity."""
        entry = self.scenario.unit_value(self.entry_price)
        gain = self.scenario.lean * (self.scenario.unit_value(price) - entry) - self.scenario.sign * cost
        return self.margin - self.fee + gain / entry

    def liquidation_price(self, cost: Float, when_ms: Int, scale: Float) -> Float:
        """Price at which equity equals maintenance, the tier being the one at that price; ≤ 0 where there is none.

        Parameters
        ----------
        cost : (n,)
            Funding since entry per unit of quantity.
        when_ms : (n,)
            Open time of the bar whose tier table is in force.
        scale : (n,)
            Multiplier of the maintenance margin in that bar.
        """
        rule = self.scenario.maintenance
        dates = [-np.inf if dated.effective_from_ms is None else dated.effective_from_ms for dated in rule.tables]
        place = np.maximum(0, np.searchsorted(dates, when_ms, side="right") - 1) if dates else np.zeros(cost.size, int)
        entry, notional = self.scenario.unit_value(self.entry_price), self.notional
        price = np.empty(cost.size)
        for k in np.unique(place):
            who = place == k
            if not dates:
                mmr, deduction = np.array([[rule.flat]]), np.zeros((1, 1))
            elif (table := rule.tables[k].table).deduction is not None:
                mmr, deduction = table.mmr[:, None], table.deduction[:, None]
            else:
                mmr, deduction = table.mmr[table.tier_index(notional[who])][None], np.zeros((1, 1))
            left = (self.margin - self.fee - self.scenario.sign * cost / entry) * notional
            price[who] = liquidation_prices(
                self.scenario.side,
                self.entry_price[who],
                (notional / entry)[who],
                left[who],
                (scale[who] * mmr, scale[who] * deduction),
                contract="inverse" if self.scenario.inverse else "linear",
                basis=rule.basis,
                close_reserve=rule.close_reserve,
                slope=rule.slope * scale[who],
            )
        level = np.isfinite(price) & (price > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Rounding leaves a value of 1e-17 of that at entry where there is none.
            level &= self.scenario.unit_value(price) > 1e-12 * entry
        return np.where(level, price, -1.0)

    def bankruptcy_price(self) -> Float:
        """Price at which the margin is gone, fees and funding aside; not within (0, ∞) where there is none."""
        with np.errstate(divide="ignore"):
            return self.scenario.unit_value(
                self.scenario.unit_value(self.entry_price) * (1 - self.scenario.lean * self.margin)
            )


@dataclass(frozen=True)
class Loans(Positions):
    """Spot margin: what was borrowed, against what it bought; `cost` is the growth of the debt since entry."""

    @property
    def _loan(self) -> tuple[Float, Float]:
        """Debt and assets per unit of notional: a quantity of 1/p."""
        ones = np.ones(self.leverage.size)
        return loans(self.scenario.side, 1 / self.entry_price, ones, 1 / self.leverage, self.fee * ones)

    def equity(self, price: Float, cost: Float) -> Float:
        """Assets less debt at a price."""
        owed, owned = owed_and_owned(self.scenario.side, price, *self._loan, cost)
        return owned - owed

    def liquidation_price(self, cost: Float, when_ms: Int, scale: Float) -> Float:
        """Price at which the loan to value reaches that of liquidation; ≤ 0 where there is none."""
        spot = self.scenario.maintenance.spot
        assert spot is not None
        price = prices_at_ltv(self.scenario.side, *self._loan, spot.liquidation_ltv, cost)
        return np.where(price > 0, price, -1.0)

    def bankruptcy_price(self) -> Float:
        """Price at which debt equals assets, interest aside; 0 where there is none."""
        return prices_at_ltv(self.scenario.side, *self._loan, 1.0)


def make_positions(scenario: Scenario, leverage: Float, fee: float, entry_price: Float) -> Positions:
    """Positions under the scenario's contract."""
    kind = Positions if scenario.maintenance.spot is None else Loans
    return kind(scenario, leverage, fee, entry_price)


def fill_price(price: Float, trigger_open: Float, sign: float, slippage: float) -> Float:
    """The worse of the liquidation price and the bar's open (a gap is not filled at the level), then slipped."""
    level = np.where(price > 0, price, np.nan)
    worse = np.fmin(level, trigger_open) if sign > 0 else np.fmax(level, trigger_open)
    return worse * (1 - sign * slippage)


@dataclass(frozen=True)
class Window:
    """The cohort of one horizon in a chunk; arrays of (n,).

    Attributes
    ----------
    horizon : int
        Index into the configuration's horizons.
    bars : int
        Its length.
    entry_bar, last : int64
        Bars of the grid: of the entry, and the last at risk.
    kept, place : int64
        Indices of the entries in the chunk, and among all of the symbol.
    entry_price : float64
    """

    horizon: int
    bars: int
    entry_bar: Int
    last: Int
    kept: Int
    place: Int
    entry_price: Float

    def cost(self, series: ChunkSeries, until: Int) -> Float:
        """What holding has cost up to these bars: funding, or the growth of a debt."""
        return held_cost(series, self.entry_bar - series.start, until - series.start)

    def take(self, who: Int) -> Window:
        """Some of its entries, by their places."""
        names = ("entry_bar", "last", "kept", "place", "entry_price")
        return replace(self, **{name: getattr(self, name)[who] for name in names})


def entry_windows(population: Population, chunk: slice, weight: Float) -> Iterator[Window]:
    """The cohorts of a chunk, in the order of the horizons; `weight` is NaN where a position is not entered."""
    members = population.members(chunk, weight)
    price, until = population.entry_price(chunk), population.until(chunk)
    for h, horizon in enumerate(population.horizons):
        kept = np.flatnonzero(members.inside[members.axis.index(h)])
        bar = population.bars[chunk][kept]
        last = np.minimum(bar + horizon, until[kept])
        yield Window(h, horizon, bar, last, kept, kept + chunk.start, price[kept])


@dataclass(frozen=True)
class Exits:
    """Positions as they ended; arrays of (n,), amounts as fractions of the margin.

    Attributes
    ----------
    rejected, recovered : bool
    margin_call, liquidation : int64
        Bars from the entry, 0 where it did not happen.
    liquidation_price, bankruptcy_price, fill_price : float64
        Not within (0, ∞), or NaN, where there is none.
    left : float64
        Equity at the fill less the fee of closing, NaN where it is not known.
    residual, insurance : float64
        What the trader and what the insurance fund gets of it (below 0: pays).
    equity : float64
        At the end: of survivors at the last known close, of the liquidated what is left to the trader.
    fees : float64
        Of opening, and of the liquidation.
    """

    rejected: Bool
    margin_call: Int
    liquidation: Int
    liquidation_price: Float
    bankruptcy_price: Float
    fill_price: Float
    left: Float
    residual: Float
    insurance: Float
    recovered: Bool
    equity: Float
    fees: Float


def close_positions(
    population: Population, scenario: Scenario, found: Crossings, window: Window, leverage: int
) -> Exits:
    """Follow the crossings of one leverage to their prices (docs/semantics.md §6)."""
    grid, terms, bar, kept = population.grid, population.terms, window.entry_bar, window.kept
    call, dead = (hits[kept, leverage].astype(np.int64) for hits in (found.margin_call, found.liquidation))
    call, dead = np.where(call > window.bars, 0, call), np.where(dead > window.bars, 0, dead)
    died = dead > 0
    fee = scenario.open_fee if terms.fees_from_margin else 0.0
    own = float(population.leverages[leverage]) * found.series.weight[kept]
    position = make_positions(scenario, own, fee, window.entry_price)
    end = np.where(died, bar + dead, window.last)
    scale = np.ones(end.size) if grid.scale is None else grid.scale[end]
    cost = window.cost(found.series, end)
    price = position.liquidation_price(cost, grid.start_ms + end * grid.interval_ms, scale)
    fill = fill_price(price, grid.open[bar + dead], scenario.sign, terms.liquidation_slippage)
    charge = terms.liquidation_fee * position.growth(fill)
    left = (position.equity(fill, cost) - charge) / position.margin
    # An isolated position never loses more than its margin.
    residual, insurance = np.maximum(0.0, left), np.minimum(0.0, left)
    if terms.surplus == "fund":
        residual, insurance = np.where(np.isnan(left), np.nan, 0.0), left
    known, held = _held(population, found.series, window, position)
    standing = np.where(known, held, position.equity(window.entry_price, window.cost(found.series, window.last)))
    return Exits(
        found.rejected[kept, leverage],
        call,
        dead,
        price,
        position.bankruptcy_price(),
        fill,
        left,
        residual,
        insurance,
        died & known & (held > position.margin * (1 + TIE)),
        np.where(died, residual, standing / position.margin),
        (fee + np.where(died, charge, 0.0)) / position.margin,
    )


def _held(population: Population, series: ChunkSeries, window: Window, position: Positions) -> tuple[Bool, Float]:
    """Whether there is a close after the entry, and the equity at the latest in the window, had it been held."""
    bar, last = window.entry_bar, population.grid.latest_close[window.last]
    return last > bar, position.equity(population.grid.close[last], window.cost(series, np.maximum(last, bar)))


def recovered_mask(
    population: Population, scenario: Scenario, series: ChunkSeries, window: Window, leverage: float
) -> Bool:
    """`Exits.recovered` of a window in which every position was liquidated."""
    fee = scenario.open_fee if population.terms.fees_from_margin else 0.0
    position = make_positions(scenario, leverage * series.weight[window.kept], fee, window.entry_price)
    known, held = _held(population, series, window, position)
    return known & (held > position.margin * (1 + TIE))
