"""What became of the positions of a chunk at one leverage and horizon, in prices and money: static rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import ChunkSeries, held_cost
from backtest.engine.cohorts import Work
from backtest.engine.count_by_entry import Crossings, cohort_members
from backtest.engine.positions import Positions, fill_price, positions_of
from backtest.engine.thresholds import TIE


@dataclass(frozen=True)
class Window:
    """The cohort of one horizon in a chunk; arrays of (n,).

    Attributes
    ----------
    horizon : int
        Which one of the work.
    bars : int
        Its length.
    entry_bar, last : int64
        Bars of the grid: of the entry, and the last at risk.
    kept, place : int64
        Where the entries stand in the chunk, and among all of the symbol.
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

    def of(self, who: Int) -> Window:
        """Some of its entries, by their places."""
        names = ("entry_bar", "last", "kept", "place", "entry_price")
        return replace(self, **{name: getattr(self, name)[who] for name in names})


def entry_windows(work: Work, chunk: slice, weight: Float) -> Iterator[Window]:
    """The cohorts of a chunk, in the order of the horizons; `weight` is NaN where a position is not entered."""
    members = cohort_members(work, chunk, weight)
    price, until = work.entry_price(chunk), work.until(chunk)
    for h, horizon in enumerate(work.horizons):
        kept = np.flatnonzero(members.inside[members.axis.index(h)])
        bar = work.bars[chunk][kept]
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


def close_positions(work: Work, scenario: Scenario, found: Crossings, window: Window, leverage: int) -> Exits:
    """Follow the crossings of one leverage to their prices (docs/semantics.md §6)."""
    grid, terms, bar, kept = work.grid, work.terms, window.entry_bar, window.kept
    call, dead = (hits[kept, leverage].astype(np.int64) for hits in (found.margin_call, found.liquidation))
    call, dead = np.where(call > window.bars, 0, call), np.where(dead > window.bars, 0, dead)
    died = dead > 0
    fee = scenario.open_fee if terms.fees_from_margin else 0.0
    own = float(work.leverages[leverage]) * found.series.weight[kept]
    position = positions_of(scenario, own, fee, window.entry_price)
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
    known, held = _held(work, found.series, window, position)
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


def _held(work: Work, series: ChunkSeries, window: Window, position: Positions) -> tuple[Bool, Float]:
    """Whether there is a close after the entry, and the equity at the latest in the window, had it been held."""
    bar, last = window.entry_bar, work.grid.latest_close[window.last]
    return last > bar, position.equity(work.grid.close[last], window.cost(series, np.maximum(last, bar)))


def recovered_mask(work: Work, scenario: Scenario, series: ChunkSeries, window: Window, leverage: float) -> Bool:
    """`Exits.recovered` of a window in which every position was liquidated."""
    fee = scenario.open_fee if work.terms.fees_from_margin else 0.0
    position = positions_of(scenario, leverage * series.weight[window.kept], fee, window.entry_price)
    known, held = _held(work, series, window, position)
    return known & (held > position.margin * (1 + TIE))
