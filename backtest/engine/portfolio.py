"""The common grid of the symbols of a portfolio on one wallet (cross margin, docs/semantics.md §8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from backtest.arrays import Bool, Float
from backtest.config.models import Config
from backtest.config.portfolio_scenarios import PortfolioScenario
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Population
from backtest.engine.prepare import prepare_entries, refuse_before_tables
from backtest.errors import DataError
from backtest.units import instant_text


@dataclass(frozen=True)
class PortfolioPopulation:
    """The entries of one portfolio on the common grid of its symbols.

    Attributes
    ----------
    base : Population
        Over the common grid: its bars have prices where every leg has, its entries can be entered in every leg.
    legs : tuple of Grid
        Cut to the common grid.
    cut : dict of str to (int, int)
        Bars of each symbol's own grid before and after the common one.
    """

    base: Population
    legs: tuple[Grid, ...]
    cut: dict[str, tuple[int, int]]

    def chunks(self, size: int | None = None) -> list[slice]:
        """As `Population.chunks`."""
        return self.base.chunks(size)


def prepare_portfolio(
    config: Config, grids: Mapping[str, Grid], scenarios: Sequence[PortfolioScenario]
) -> PortfolioPopulation:
    """Entries of one portfolio on the common grid of its symbols.

    The common grid runs from the latest first bar to the earliest last bar.

    Raises
    ------
    DataError
        If the symbols have no common span.
    RuleError
        If the common grid starts before the first date of a leg's tier tables.
    """
    chosen = [grids[symbol] for symbol in scenarios[0].portfolio.symbols]
    step = chosen[0].interval_ms
    start = max(grid.start_ms for grid in chosen)
    end = min(grid.start_ms + grid.n_bars * step for grid in chosen)
    if end <= start:
        spans = (
            f"{g.symbol} {instant_text(g.start_ms)} … {instant_text(g.start_ms + (g.n_bars - 1) * step)}"
            for g in chosen
        )
        raise DataError(f"the symbols of a portfolio have no common span: {', '.join(spans)}")
    cuts = [slice((start - g.start_ms) // step, (end - g.start_ms) // step) for g in chosen]
    legs = tuple(_cut(grid, part) for grid, part in zip(chosen, cuts, strict=True))
    for rule, grid in ((m, g) for s in scenarios for m, g in zip(s.maintenance, legs, strict=True)):
        refuse_before_tables(grid.symbol, "the portfolio", grid.start_ms, rule)
    cut = {g.symbol: (part.start, g.n_bars - part.stop) for g, part in zip(chosen, cuts, strict=True)}
    base = prepare_entries(config, _common(legs))
    return PortfolioPopulation(base, legs, cut)


def _cut(grid: Grid, part: slice) -> Grid:
    """Bars of a grid; a charge in the first of them falls on no position."""
    charged = slice(*np.searchsorted(grid.charge_bar, [part.start + 1, part.stop]))
    bars: dict[str, Any] = {
        field.name: values[part]
        for field in fields(grid)
        if isinstance(values := getattr(grid, field.name), np.ndarray) and not field.name.startswith("charge_")
    }
    return replace(
        grid,
        start_ms=grid.start_ms + part.start * grid.interval_ms,
        charge_bar=grid.charge_bar[charged] - part.start,
        charge_rate=grid.charge_rate[charged],
        charge_price=grid.charge_price[charged],
        **bars,
    )


def _common(legs: Sequence[Grid]) -> Grid:
    """The first leg's grid, less the bars and entry prices that another leg lacks; it stands for all of them."""
    missing = ~np.logical_and.reduce([leg.has_trigger for leg in legs])
    closed = np.logical_or.reduce([np.isnan(leg.entry_price) for leg in legs])

    def less(values: Float, lacking: Bool) -> Float:
        return np.where(lacking, np.nan, values)

    first = legs[0]
    name = " ".join(leg.symbol for leg in legs)
    high, low, entry = less(first.high, missing), less(first.low, missing), less(first.entry_price, closed)
    return replace(first, symbol=name, high=high, low=low, entry_price=entry)
