"""The scenarios of portfolios on one wallet (cross margin, docs/semantics.md §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from backtest.config.models import Config, Funding, Size
from backtest.config.scenarios import Maintenance, resolve_maintenance
from backtest.errors import ConfigError
from backtest.units import number_text

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
class PortfolioScenario:
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
        legs = [tuple(rule.of_symbol(symbol) for symbol in portfolio.symbols) for rule in rules]
        axes = product([portfolio], legs, sweep.open_fee, sweep.funding, sizes, VERDICTS)
        scenarios += [PortfolioScenario(*point) for point in axes]
    return scenarios


def group_portfolios(scenarios: Sequence[PortfolioScenario]) -> list[list[int]]:
    """Indices of scenarios that `cross_block` counts together: they differ in fee and size alone."""
    found: dict[tuple[object, ...], list[int]] = {}
    for i, s in enumerate(scenarios):
        key = (s.portfolio, s.maintenance[0].label, s.funding.scale, s.funding.shift, s.verdict)
        found.setdefault(key, []).append(i)
    return list(found.values())
