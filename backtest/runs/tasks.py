"""What a run is made of: per symbol, or portfolio, its work, its scenarios, and how a block of them is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import numpy as np

from backtest.config.models import Config
from backtest.config.portfolio_scenarios import PortfolioScenario, expand_portfolios, group_portfolios
from backtest.config.scenarios import Scenario, expand_scenarios, group_scenarios, scenarios_at
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Work
from backtest.engine.count_by_threshold import count_block
from backtest.engine.count_portfolio import cross_block
from backtest.engine.outcomes import count_with_outcomes
from backtest.engine.portfolio import prepare_portfolio
from backtest.engine.prepare import prepare_entries
from backtest.engine.regime_labels import label_entries
from backtest.errors import DataError
from backtest.runs.chunked_input import open_chunked
from backtest.runs.inputs import HistorySource, read_grid, read_portfolio_grids
from backtest.runs.memory import work_seconds
from backtest.stats.binomial_interval import trial_bars
from backtest.stats.survival_table import COUNTS, OUTCOMES, Tables
from backtest.units import MS_PER_UNIT, duration_ms

CELLS_PER_TASK = 4_000_000
"""Scenarios × horizons × leverages × blocks that are merged in memory at once; more scenarios make more tasks."""

Labels = dict[str, str | float | None]


@dataclass(frozen=True)
class Task:
    """A group of scenarios and a chunk of entries of a part of a job.

    Attributes
    ----------
    job : str
        Its name.
    part : int
        Its number.
    members : tuple of int
        Scenarios of the job that are counted together; none where nothing is to be counted.
    chunk : slice
        Of the entries of the part.
    seen : dict of str to str
        What was read of each symbol, where the task is sent to another process.
    """

    job: str
    part: int
    members: tuple[int, ...]
    chunk: slice
    seen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobPart:
    """A stretch of a job's entries, or all of them, with the bars that their windows reach.

    Attributes
    ----------
    work : Work
    count : callable
        Of a group and a chunk of entries: their tables, by calendar block and by each regime. Those of disjoint
        chunks add up.
    grids : tuple of Grid
        What was read.
    own_bars : int
        Bars of the grid up to where the next part begins.
    cut : dict of str to (int, int)
        Bars of each symbol of a portfolio before and after the span that all of them have.
    """

    work: Work
    count: Callable[[Sequence[int], slice], Tables]
    grids: tuple[Grid, ...]
    own_bars: int
    cut: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """The scenarios of one symbol or portfolio.

    Attributes
    ----------
    symbol : str
        As in the results.
    scenarios : list of dict
        Scenario columns, in the order of the rows.
    groups : list of list of int
        Scenarios that are counted together, cut so that their tables fit `CELLS_PER_TASK`.
    parts : int
        How many there are; one, where the history is read whole.
    part : callable
        Of a part's number, from 0: reads it.
    extents : list of (int, int)
        Of the calendar and of each regime, the first of the columns that tables may have, and their number.
    cells : int
        Numbers in the tables of a scenario.
    entries : int
        About how many there are.
    weights : list of float
        Expected seconds of one worker per entry, of each group.
    """

    symbol: str
    scenarios: list[Labels]
    groups: list[list[int]]
    parts: int
    part: Callable[[int], JobPart]
    extents: list[tuple[int, int]]
    cells: int
    entries: int
    weights: list[float]

    def cost(self, group: int, chunk: slice) -> float:
        """About how long a chunk of entries takes, seconds of a core."""
        return self.weights[group] * int(chunk.stop - chunk.start)


def wants_outcomes(config: Config) -> bool:
    """Whether positions are followed to what became of them in money."""
    return config.statistics.outcomes or bool(config.sweep.policy)


def run_scenarios(config: Config) -> Sequence[Scenario | PortfolioScenario]:
    """The scenarios of a configuration, of symbols or of portfolios; impossible ones are refused."""
    return expand_portfolios(config) if config.sweep.portfolio else expand_scenarios(config)


def make_jobs(
    config: Config,
    scenarios: Sequence[Scenario | PortfolioScenario],
    sources: Sequence[HistorySource],
    most_bars: int | None = None,
) -> list[tuple[str, Callable[[], Job]]]:
    """Name of each job and how to begin it; histories are read when their turn comes, and held no longer.

    most_bars : of a history that are held at once; None: all of them
    """
    crossed = [s for s in scenarios if isinstance(s, PortfolioScenario)]
    if crossed:
        portfolios = groupby(crossed, key=lambda s: s.portfolio)
        return [(p.label, partial(_of_portfolio, config, sources, list(own))) for p, own in portfolios]
    single = [s for s in scenarios if isinstance(s, Scenario)]
    return [(source.symbol, partial(_of_symbol, config, source, single, most_bars)) for source in sources]


def _of_symbol(config: Config, source: HistorySource, scenarios: list[Scenario], most_bars: int | None) -> Job:
    own = scenarios_at(scenarios, source.symbol)
    stream, groups = open_chunked(config, source, own, most_bars), list(group_scenarios(own))
    if stream is None:
        grid = read_grid(config, source, own)
        return _whole(config, own, groups, _part(config, own, grid, grid.n_bars))

    def part(number: int) -> JobPart:
        stretch = stream.stretches[number]
        own_bars = (stretch.end_ms - stretch.start_ms) // source.interval_ms
        return _part(config, own, stream.grid(stretch), own_bars)

    block_ms = duration_ms(config.statistics.block)
    first, last = (ms // block_ms for ms in (stream.stretches[0].start_ms, stream.stretches[-1].end_ms - 1))
    every = max(source.interval_ms, duration_ms(config.entries.every) if config.entries.every else 0)
    entries = (stream.stretches[-1].end_ms - stream.stretches[0].start_ms) // every
    return _job(config, source.symbol, own, groups, len(stream.stretches), part, [(first, last + 1 - first)], entries)


def _part(config: Config, own: Sequence[Scenario], grid: Grid, own_bars: int) -> JobPart:
    work, outcomes = prepare_entries(config, grid), wants_outcomes(config)
    work = _with_regimes(config, replace(work, bars=work.bars[: np.searchsorted(work.bars, own_bars)]))

    def count(members: Sequence[int], chunk: slice) -> Tables:
        group = [own[i] for i in members]
        if outcomes:
            return count_with_outcomes(work, group, chunk, config.statistics.bankroll_fraction)
        return count_block(work, group, chunk)

    return JobPart(work, count, (grid,), own_bars)


def _of_portfolio(config: Config, sources: Sequence[HistorySource], own: list[PortfolioScenario]) -> Job:
    crossed = prepare_portfolio(config, read_portfolio_grids(config, sources, own), own)
    crossed = replace(crossed, base=_with_regimes(config, crossed.base))
    work = crossed.base

    def count(members: Sequence[int], chunk: slice) -> Tables:
        return cross_block(crossed, [own[i] for i in members], chunk)

    part = JobPart(work, count, crossed.legs, work.grid.n_bars, crossed.cut)
    return _whole(config, own, list(group_portfolios(own)), part)


def _whole(config: Config, own: Sequence[Scenario | PortfolioScenario], groups: list[list[int]], part: JobPart) -> Job:
    """A job of one part."""
    work = part.work
    first, last = work.blocks(np.array([0, work.grid.n_bars - 1])).tolist()
    extents = [(first, last + 1 - first), *((0, cells.block.size) for cells in work.regimes)]
    first_of = own[0]
    name = first_of.portfolio.label if isinstance(first_of, PortfolioScenario) else work.grid.symbol
    if not work.bars.size:
        raise no_entries(config, name)
    return _job(config, name, own, groups, 1, lambda number: part, extents, work.bars.size)


def _job(
    config: Config,
    name: str,
    own: Sequence[Scenario | PortfolioScenario],
    groups: list[list[int]],
    parts: int,
    part: Callable[[int], JobPart],
    extents: list[tuple[int, int]],
    entries: int,
) -> Job:
    """A job, its groups cut so that the tables of each fit `CELLS_PER_TASK`."""
    cells = table_cells(config, [n for _, n in extents])
    cut, sweep = cut_groups(groups, cells), config.sweep
    per_entry = work_seconds(1, 1, len(sweep.horizon), len(sweep.leverage), 1, followed=wants_outcomes(config))
    weights = [per_entry * len(members) for members in cut]
    return Job(name, [s.columns() for s in own], cut, parts, part, extents, cells, entries, weights)


def cut_groups(groups: Sequence[list[int]], cells: int) -> list[list[int]]:
    """Groups of scenarios cut so that the tables of each fit `CELLS_PER_TASK`, given the cells of one scenario."""
    size = max(1, CELLS_PER_TASK // cells)
    return [members[i : i + size] for members in groups for i in range(0, len(members), size)]


def table_cells(config: Config, columns: Sequence[int]) -> int:
    """Numbers in the tables of one scenario; `columns` are the labels of the calendar, then those of each regime."""
    outcomes = columns[0] * len(OUTCOMES) * wants_outcomes(config)
    return len(config.sweep.horizon) * len(config.sweep.leverage) * (sum(columns) * len(COUNTS) + outcomes)


def no_entries(config: Config, name: str) -> DataError:
    """What is said where nothing can be entered."""
    if config.sweep.portfolio:
        return DataError(f"{name}: no bar is an entry in all of its symbols")
    which = config.entries.file or f"entries.every is {config.entries.every}"
    return DataError(f"{name}: no bar is an entry; {which}")


def _with_regimes(config: Config, work: Work) -> Work:
    """The work, its entries labelled."""
    regimes = config.statistics.regimes
    if not regimes or not work.bars.size:
        return work
    grid = work.grid
    trials = [trial_bars(horizon, MS_PER_UNIT["d"] / grid.interval_ms) for horizon in work.horizons]
    block = work.blocks(work.bars)
    return replace(work, regimes=tuple(label_entries(regime, grid, work.bars, block, trials) for regime in regimes))
