"""Portfolios on one wallet (cross margin, semantics.md §8): their scenarios, and the common grid of their symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backtest.config import Config, Funding, Size
from backtest.errors import ConfigError, DataError, RuleError
from backtest.grids import Grid, grid_of
from backtest.sources import Source, refuse_lacking, work_of
from backtest.sweep import Maintenance, maintenance_of
from backtest.units import instant_ms, instant_text, number_text
from backtest.work import Work

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Verdict = Literal["worst", "close"]
VERDICTS: tuple[Verdict, ...] = ("worst", "close")
"""Every leg at its own worst price at once, an upper bound of risk; all at the close, a lower bound."""


@dataclass(frozen=True)
class Portfolio:
    """Signed shares of the gross notional, in the configuration's order."""

    symbols: tuple[str, ...]
    weights: tuple[float, ...]

    @property
    def label(self) -> str:
        """As in the results: ``BTCUSDT=0.6 ETHUSDT=-0.4``."""
        return " ".join(f"{s}={number_text(w)}" for s, w in zip(self.symbols, self.weights, strict=True))


@dataclass(frozen=True)
class CrossScenario:
    """One point of the grid of a portfolio, horizons and leverages left open; `maintenance` has a rule per leg."""

    portfolio: Portfolio
    maintenance: tuple[Maintenance, ...]
    open_fee: float
    funding: Funding
    size: Size | None
    verdict: Verdict

    def columns(self) -> dict[str, str | float | None]:
        """The scenario columns of the results, in their order; the portfolio stands for the symbol."""
        return {
            "side": None,
            "maintenance": self.maintenance[0].label,
            "open_fee": self.open_fee,
            "funding_scale": self.funding.scale,
            "funding_shift": self.funding.shift,
            "size": self.size.label if self.size else None,
            "verdict": self.verdict,
        }

    def gross(self, leverage: float) -> float:
        """Gross entry notional, quote; 1 where no size is given (flat rates do not depend on it)."""
        if self.size is None:
            return 1.0
        return self.size.notional if self.size.notional is not None else (self.size.margin or 0) * leverage


def cross_scenarios_of(config: Config) -> list[CrossScenario]:
    """The product of the axes but horizon and leverage, portfolios first, verdicts last.

    Raises
    ------
    ConfigError, RuleError
        If an axis has no meaning for a portfolio, or no tier table is packaged for one of its symbols.
    """
    sweep = config.sweep
    rules = maintenance_of(config)
    for rule in rules:
        if rule.contract != "linear":
            raise ConfigError(
                f"sweep.maintenance: {rule.label!r} is for {rule.contract} contracts; a portfolio is margined in one "
                "quote currency and takes linear ones"
            )
        if rule.slope:
            raise ConfigError(f"sweep.maintenance: {rule.label!r} slopes with size, which a portfolio does not take")
    sizes: Sequence[Size | None] = sweep.size or (None,)
    scenarios = []
    for weights in sweep.portfolio:
        portfolio = Portfolio(tuple(weights), tuple(weights.values()))
        legs = [tuple(rule.of_symbol(symbol) for symbol in portfolio.symbols) for rule in rules]
        axes = product([portfolio], legs, sweep.open_fee, sweep.funding, sizes, VERDICTS)
        scenarios += [CrossScenario(*point) for point in axes]
    return scenarios


def cross_groups_of(scenarios: Sequence[CrossScenario]) -> list[list[int]]:
    """Indices of scenarios that `cross_block` counts together: they differ in fee and size alone."""
    found: dict[tuple[object, ...], list[int]] = {}
    for i, s in enumerate(scenarios):
        key = (s.portfolio, s.maintenance[0].label, s.funding.scale, s.funding.shift, s.verdict)
        found.setdefault(key, []).append(i)
    return list(found.values())


def cross_grids_of(config: Config, sources: Sequence[Source], scenarios: Sequence[CrossScenario]) -> dict[str, Grid]:
    """The grids of all symbols of some portfolios, each read once.

    Raises
    ------
    ConfigError
        If a symbol is not among the sources.
    """
    there = {source.symbol: source for source in sources}
    data, grids = config.data, {}
    start, end = (instant_ms(at) if at else None for at in (data.start, data.end))
    for symbol in dict.fromkeys(symbol for s in scenarios for symbol in s.portfolio.symbols):
        if symbol not in there:
            raise ConfigError(f"sweep.portfolio: there is no {symbol!r}; there are {', '.join(there)}")
        history = there[symbol].read()
        refuse_lacking(config, history)
        grids[symbol] = grid_of(history, data.trigger, start, end)
    return grids


@dataclass(frozen=True)
class CrossWork:
    """What the blocks of work of one portfolio share.

    Attributes
    ----------
    base : Work
        Over the common grid: its bars have prices where every leg has, its entries can be entered in every leg.
    legs : tuple of Grid
        Cut to the common grid.
    cut : dict of str to (int, int)
        Bars of each symbol's own grid before and after the common one.
    """

    base: Work
    legs: tuple[Grid, ...]
    cut: dict[str, tuple[int, int]]

    def chunks(self, size: int | None = None) -> list[slice]:
        """Stretches of the entries, as `Work.chunks`."""
        return self.base.chunks(size)


def cross_work_of(config: Config, grids: Mapping[str, Grid], scenarios: Sequence[CrossScenario]) -> CrossWork:
    """Work of the scenarios of one portfolio on the common grid of its symbols.

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
        since = rule.tables[0].effective_from_ms if rule.tables else None
        if since is not None and grid.start_ms < since:
            raise RuleError(
                f"{grid.symbol}: the portfolio starts at {instant_text(grid.start_ms)}, before the first date of the "
                f"tier table {rule.label!r}, {instant_text(since)}; cut it with data.start or add an earlier table"
            )
    cut = {g.symbol: (part.start, g.n_bars - part.stop) for g, part in zip(chosen, cuts, strict=True)}
    base = work_of(config, _common(legs))
    return CrossWork(base, legs, cut)


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
