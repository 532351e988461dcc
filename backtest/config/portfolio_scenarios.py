"""The scenario grid of portfolios on one wallet (cross margin, docs/semantics.md §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from backtest.config.labels import write_label
from backtest.config.models import Config, Funding, Size
from backtest.config.scenarios import Maintenance, group_equal, resolve_maintenance, scenario_columns
from backtest.errors import ConfigError

Verdict = Literal["worst", "close"]
VERDICTS: tuple[Verdict, ...] = ("worst", "close")
"""Worst: every leg at its worst price of the bar at once, an upper bound of risk. Close: a lower bound."""


@dataclass(frozen=True)
class Portfolio:
    """Signed shares of the gross notional, in the configuration's order."""

    symbols: tuple[str, ...]
    weights: tuple[float, ...]

    @property
    def label(self) -> str:
        """As in the results: ``BTCUSDT=0.6 ETHUSDT=-0.4``."""
        return write_label(dict(zip(self.symbols, self.weights, strict=True)))


@dataclass(frozen=True)
class PortfolioScenario:
    """One point of the grid of a portfolio, for all horizons and leverages; `maintenance` has a rule per leg."""

    portfolio: Portfolio
    maintenance: tuple[Maintenance, ...]
    open_fee: float
    funding: Funding
    size: Size | None
    verdict: Verdict

    def columns(self) -> dict[str, str | float | None]:
        """The scenario columns of the results, in their order; the symbol is the portfolio's label."""
        columns = scenario_columns(None, self.maintenance[0], self.open_fee, self.funding, self.size)
        return {**columns, "verdict": self.verdict}

    def gross(self, leverage: float) -> float:
        """Gross entry notional, quote; 1 where no size is given (flat rates do not depend on it)."""
        return 1.0 if self.size is None else float(self.size.entry_notional(np.asarray(leverage)))


def expand_portfolios(config: Config) -> list[PortfolioScenario]:
    """The product of the axes but horizon and leverage, portfolios first, verdicts last.

    Raises
    ------
    ConfigError, RuleError
        If an axis has no meaning for a portfolio, or no tier table is packaged for one of its symbols.
    """
    sweep = config.sweep
    rules = resolve_maintenance(config)
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
        legs = [tuple(rule.for_symbol(symbol) for symbol in portfolio.symbols) for rule in rules]
        axes = product([portfolio], legs, sweep.open_fee, sweep.funding, sizes, VERDICTS)
        scenarios += [PortfolioScenario(*point) for point in axes]
    return scenarios


def group_portfolios(scenarios: Sequence[PortfolioScenario]) -> list[list[int]]:
    """Indices of scenarios that are counted together: they differ in fee and size only."""
    return group_equal(
        (s.portfolio, s.maintenance[0].label, s.funding.scale, s.funding.shift, s.verdict) for s in scenarios
    )
