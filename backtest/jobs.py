"""What a run is made of: per symbol, or portfolio, its work, its scenarios, and how a block of them is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from backtest.config import Config
from backtest.cross import cross_block
from backtest.engine import count_block
from backtest.errors import DataError
from backtest.history import Grid
from backtest.outcomes import count_with_outcomes
from backtest.portfolio import (
    CrossScenario,
    cross_grids_of,
    cross_groups_of,
    cross_scenarios_of,
    cross_work_of,
)
from backtest.sources import Source, grid_for, work_of
from backtest.survival import COUNTS, OUTCOMES, SurvivalTable
from backtest.sweep import Scenario, groups_of, scenarios_at, scenarios_of
from backtest.work import Work

CELLS_PER_TASK = 2_000_000
"""Scenarios × horizons × leverages × blocks that are merged in memory at once; more scenarios make more tasks."""

Labels = dict[str, str | float | None]


@dataclass(frozen=True)
class Job:
    """The scenarios of one symbol or portfolio.

    Attributes
    ----------
    symbol : str
        As in the results.
    work : Work
    scenarios : list of dict
        Scenario columns, in the order of the rows.
    groups : list of list of int
        Scenarios that are counted together, cut so that their tables fit `CELLS_PER_TASK`.
    count : callable
        Of a group and a chunk of entries: their table. Tables of disjoint chunks add up.
    grids : tuple of Grid
        What was read.
    cut : dict of str to (int, int)
        Bars of each symbol of a portfolio before and after the span that all of them have.
    """

    symbol: str
    work: Work
    scenarios: list[Labels]
    groups: list[list[int]]
    count: Callable[[Sequence[int], slice], SurvivalTable]
    grids: tuple[Grid, ...]
    cut: dict[str, tuple[int, int]] = field(default_factory=dict)


def wants_outcomes(config: Config) -> bool:
    """Whether positions are followed to what became of them in money."""
    return config.statistics.outcomes or bool(config.sweep.policy)


def scenarios_of_run(config: Config) -> Sequence[Scenario | CrossScenario]:
    """The scenarios of a configuration, of symbols or of portfolios; impossible ones are refused."""
    return cross_scenarios_of(config) if config.sweep.portfolio else scenarios_of(config)


def jobs_of(
    config: Config, scenarios: Sequence[Scenario | CrossScenario], sources: Sequence[Source]
) -> list[tuple[str, Callable[[], Job]]]:
    """Name of each job and how to begin it; one's histories are read when its turn comes, and held no longer."""
    crossed = [s for s in scenarios if isinstance(s, CrossScenario)]
    if crossed:
        portfolios = groupby(crossed, key=lambda s: s.portfolio)
        return [(p.label, partial(_of_portfolio, config, sources, list(own))) for p, own in portfolios]
    single = [s for s in scenarios if isinstance(s, Scenario)]
    return [(source.symbol, partial(_of_symbol, config, source, single)) for source in sources]


def _of_symbol(config: Config, source: Source, scenarios: list[Scenario]) -> Job:
    own = scenarios_at(scenarios, source.symbol)
    grid = grid_for(config, source, own)
    work = work_of(config, grid)
    if not work.bars.size:
        which = config.entries.file or f"entries.every is {config.entries.every}"
        raise DataError(f"{grid.symbol}: no bar is an entry; {which}")
    outcomes = wants_outcomes(config)

    def count(members: Sequence[int], chunk: slice) -> SurvivalTable:
        group = [own[i] for i in members]
        return count_with_outcomes(work, group, chunk) if outcomes else count_block(work, group, chunk)

    groups = list(_cut(groups_of(own), work))
    return Job(grid.symbol, work, [s.columns() for s in own], groups, count, (grid,))


def _of_portfolio(config: Config, sources: Sequence[Source], own: list[CrossScenario]) -> Job:
    crossed = cross_work_of(config, cross_grids_of(config, sources, own), own)
    work = crossed.base
    if not work.bars.size:
        raise DataError(f"{own[0].portfolio.label}: no bar is an entry in all of its symbols")

    def count(members: Sequence[int], chunk: slice) -> SurvivalTable:
        return cross_block(crossed, [own[i] for i in members], chunk)

    groups = list(_cut(cross_groups_of(own), work))
    labels = [s.columns() for s in own]
    return Job(own[0].portfolio.label, work, labels, groups, count, crossed.legs, crossed.cut)


def _cut(groups: Sequence[list[int]] | Iterator[list[int]], work: Work) -> Iterator[list[int]]:
    """Groups, cut so that the tables of each fit `CELLS_PER_TASK`."""
    bars = work.bars
    n_blocks = int(work.blocks(bars[-1:])[0] - work.blocks(bars[:1])[0]) + 1
    cells = len(work.horizons) * work.leverages.size * n_blocks * (len(COUNTS) + len(OUTCOMES))
    size = max(1, CELLS_PER_TASK // cells)
    for members in groups:
        for i in range(0, len(members), size):
            yield members[i : i + size]
