"""Portfolios for the tests: their tier tables, their walks by the oracle, their counts by the package."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import backtest as bt
from backtest.config.models import Config
from backtest.config.portfolio_scenarios import PortfolioScenario, expand_portfolios, group_portfolios
from backtest.engine.count import count_entries
from backtest.engine.portfolio import PortfolioPopulation, prepare_portfolio
from backtest.runs.inputs import checked_sources, read_portfolio_grids
from backtest.stats.survival_table import COUNTS, SurvivalTable
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of
from tests._support.tiers import oracle_tiers
from tests.oracles import cross as oracle
from tests.oracles.history import Grid, Rows, grid_of

COUNTED = ["entries", "rejected", "excluded", "margin_calls", "liquidations"]


def oracle_scenario(scenario: PortfolioScenario, leverage: float, margin: bt.Margin) -> oracle.CrossScenario:
    return oracle.CrossScenario(
        weights=scenario.portfolio.weights,
        leverage=leverage,
        maintenance=tuple(oracle_tiers(rule.label) for rule in scenario.maintenance),
        basis=margin.basis,
        close_reserve=margin.close_reserve,
        open_fee=scenario.open_fee,
        fees_from_margin=margin.fees_from_margin,
        funding_scale=scenario.funding.scale,
        funding_shift=scenario.funding.shift,
        notional=scenario.size.notional if scenario.size else None,
        margin=scenario.size.margin if scenario.size else None,
        margin_call_ratio=margin.margin_call_ratio,
    )


def past_gap(grids: list[Grid], bar: int, horizon: int, most: int | None) -> bool:
    """Whether more than `most` bars in a row of the window lack the trigger prices of some leg."""
    run = 0
    for t in range(bar + 1, bar + horizon + 1):
        run = 0 if all(grid.has_trigger(t) for grid in grids) else run + 1
        if most is not None and run > most:
            return True
    return False


def walked(
    grids: list[Grid], scenario: PortfolioScenario, config: Config, leverage: float, horizon: int, shorter: int | None
) -> dict[str, dict[int, int]]:
    """The counts of one row of the results, per calendar block."""
    every = duration_ms(config.entries.every) if config.entries.every else None
    gap = duration_ms(config.data.max_gap) // HOUR if config.data.max_gap else None
    terms = oracle_scenario(scenario, leverage, config.margin)
    out: dict[str, dict[int, int]] = {name: {} for name in COUNTS}
    for v in oracle.walk_cross(grids, terms, horizon, verdict=scenario.verdict, every_ms=every):
        block = grids[0].open_time_ms[v.entry_bar] // duration_ms(config.statistics.block)
        dead = v.liquidation_bar is not None
        if past_gap(grids, v.entry_bar, horizon, gap):
            names = ["excluded"]
        elif v.rejected:
            names = ["rejected"]
        else:
            names = ["entries", *["margin_calls"] * (v.margin_call_bar is not None), *["liquidations"] * dead]
            if shorter is not None and dead and v.liquidation_bar <= v.entry_bar + shorter:
                names.append("prior_liquidations")
            called = v.margin_call_bar
            if shorter is not None and called is not None and called <= v.entry_bar + shorter:
                names.append("prior_margin_calls")
        for name in names:
            out[name][block] = out[name].get(block, 0) + 1
    return out


def works(
    histories: list[bt.PriceHistory], config: Config
) -> list[tuple[PortfolioPopulation, list[PortfolioScenario]]]:
    """The work of each portfolio, with its scenarios."""
    scenarios = expand_portfolios(config)
    grids = read_portfolio_grids(config, checked_sources(histories, config), scenarios)
    portfolios = dict.fromkeys(s.portfolio for s in scenarios)
    parts = [[s for s in scenarios if s.portfolio == portfolio] for portfolio in portfolios]
    return [(prepare_portfolio(config, grids, members), members) for members in parts]


def count_all(
    work: PortfolioPopulation, scenarios: list[PortfolioScenario], size: int | None = None
) -> list[tuple[PortfolioScenario, SurvivalTable, int]]:
    """Each scenario with the table of its group and its place in it, counted in chunks of `size` bars."""
    out = []
    for members in group_portfolios(scenarios):
        group = [scenarios[i] for i in members]
        table = reduce(add, [count_entries(work, group, chunk)[0] for chunk in work.chunks(size)])
        out += [(scenario, table, i) for i, scenario in enumerate(group)]
    return out


def assert_matches_walk(made: list[Rows], config: Config, size: int | None = None) -> None:
    """Every count of every scenario, horizon, leverage and block against the walk."""
    bars = [duration_ms(h) // HOUR for h in config.sweep.horizon]
    for work, members in works([history_of(each, f"S{k}") for k, each in enumerate(made)], config):
        own = [grid_of(made[int(symbol[1:])], trigger=config.data.trigger) for symbol in members[0].portfolio.symbols]
        grids = oracle.common(own)
        if not work.base.bars.size:
            assert not any(oracle.is_entry(grids, t) for t in range(len(grids[0].open_time_ms))) or config.entries.every
            continue
        for scenario, table, i in count_all(work, members, size):
            for k, horizon in enumerate(bars):
                shorter = max((h for h in bars if h < horizon), default=None)
                for j, leverage in enumerate(config.sweep.leverage):
                    want = walked(grids, scenario, config, leverage, horizon, shorter)
                    for name in COUNTS:
                        got = table[name][i, k, j]
                        found = {b + table.first_block: int(n) for b, n in enumerate(got) if n}
                        assert found == want[name], (name, scenario.columns(), horizon, leverage)


def shifted(made: Rows, hours: int) -> Rows:
    return replace(made, open_time_ms=[t + hours * HOUR for t in made.open_time_ms])


def table_of(histories: list[bt.PriceHistory], config: Config) -> dict[tuple[object, ...], list[int]]:
    """Counts of every row, by portfolio, scenario, horizon and leverage."""
    out = {}
    for work, members in works(histories, config):
        for scenario, table, i in count_all(work, members):
            for k, horizon in enumerate(config.sweep.horizon):
                for j, leverage in enumerate(config.sweep.leverage):
                    key = (scenario.portfolio.label, *scenario.columns().values(), horizon, leverage)
                    out[key] = [int(table[name][i, k, j].sum()) for name in COUNTED]
    return out
