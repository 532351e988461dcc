"""Count the entries of a chunk: the one place that chooses among the four exact ways."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from backtest.config.portfolio_scenarios import PortfolioScenario
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import split_by_table
from backtest.engine.cohorts import Population
from backtest.engine.count_by_entry import count_by_entry, differs_by_entry
from backtest.engine.count_by_threshold import count_by_threshold
from backtest.engine.count_portfolio import count_portfolio
from backtest.engine.outcomes import count_outcomes
from backtest.engine.portfolio import PortfolioPopulation
from backtest.stats.survival_table import Tables, merged


def count_entries(
    population: Population | PortfolioPopulation,
    scenarios: Sequence[Scenario | PortfolioScenario],
    chunk: slice,
    bankroll_fraction: float | None = None,
) -> Tables:
    """Count entries, rejections, margin calls and liquidations of a chunk of entries.

    Parameters
    ----------
    scenarios : sequence of Scenario or PortfolioScenario
        Of one side, maintenance rule and funding (`group_scenarios`, `group_portfolios`); they differ in fee and size.
    chunk : slice
        Of ``population.bars``; every entry's window is followed beyond it.
    bankroll_fraction : float, optional
        With outcomes: the share of a bankroll that is posted as margin. Policies need it.

    Returns
    -------
    tuple of SurvivalTable
        By calendar block, then by each regime. Tables of disjoint chunks add up to that of all entries.
    """
    single = [s for s in scenarios if isinstance(s, Scenario)]
    if isinstance(population, PortfolioPopulation):
        return count_portfolio(population, [s for s in scenarios if isinstance(s, PortfolioScenario)], chunk)
    if bankroll_fraction is None:
        return _count_static(population, single, chunk)
    tables = count_outcomes(population, single, chunk, bankroll_fraction)
    static = [i for i, scenario in enumerate(single) if scenario.policy is None]
    if static:
        counted = _count_static(population, [single[i] for i in static], chunk)
        for table, found in zip(tables, counted, strict=True):
            table.counts[:, static] = found.counts
    return tables


def _count_static(population: Population, scenarios: Sequence[Scenario], chunk: slice) -> Tables:
    """Rules under which nothing happens to a position between its entry and its end."""
    parts = split_by_table(population, scenarios[0].maintenance, chunk)
    if len(parts) > 1:
        return reduce(merged, (_count_static(population, scenarios, part) for part in parts))
    if any(differs_by_entry(population, scenario) for scenario in scenarios):
        return count_by_entry(population, scenarios, chunk)
    return count_by_threshold(population, scenarios, chunk)
