"""What a run is made of: its inputs, a job per symbol or portfolio, and how a chunk of entries is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import NamedTuple

import numpy as np

from backtest.config.models import Config
from backtest.config.portfolio_scenarios import PortfolioScenario, expand_portfolios, group_portfolios
from backtest.config.resolve import Histories
from backtest.config.scenarios import Scenario, expand_scenarios, group_scenarios, horizon_bars, scenarios_at
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Population
from backtest.engine.count import count_entries
from backtest.engine.portfolio import prepare_portfolio
from backtest.engine.prepare import prepare_entries
from backtest.engine.regime_labels import label_entries
from backtest.errors import DataError
from backtest.runs.chunked_input import open_chunked
from backtest.runs.inputs import HistorySource, list_sources, read_grid, read_portfolio_grids
from backtest.runs.memory import work_seconds
from backtest.stats.binomial_interval import trial_bars
from backtest.stats.survival_table import COUNTS, OUTCOMES, Tables
from backtest.units import MS_PER_UNIT, duration_ms

CELLS_PER_TASK = 4_000_000
"""Most scenarios × horizons × leverages × blocks of a task; a larger group becomes several tasks."""

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
    """All entries of a job or a part of them, with the bars that their windows reach.

    Attributes
    ----------
    population : Population
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

    population: Population
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
        """Expected seconds of one core for a chunk of entries."""
        return self.weights[group] * int(chunk.stop - chunk.start)


def wants_outcomes(config: Config) -> bool:
    """Whether outcomes in money are counted too."""
    return config.statistics.outcomes or bool(config.sweep.policy)


@dataclass(frozen=True)
class RunInputs:
    """What a run is made of: its configuration, the scenarios it spans, and the histories they are counted on."""

    config: Config
    scenarios: Sequence[Scenario | PortfolioScenario]
    sources: Sequence[HistorySource]

    @classmethod
    def of(cls, source: Histories, config: Config) -> RunInputs:
        """Expand the scenarios and list the histories; nothing is read yet.

        Raises
        ------
        ConfigError, RuleError
            If a scenario is impossible, a symbol is missing, or a horizon is no multiple of the bar length.
        """
        inputs = cls(config, run_scenarios(config), list_sources(source, config))
        horizon_bars(config.sweep, inputs.interval_ms)
        return inputs

    @property
    def interval_ms(self) -> int:
        """Length of the bars of all histories."""
        return self.sources[0].interval_ms

    @cached_property
    def symbols_read(self) -> dict[str, tuple[str, ...]]:
        """The symbols that each job reads, by its name: its own, or the legs of a portfolio."""
        legs = {s.portfolio.label: s.portfolio.symbols for s in self.scenarios if isinstance(s, PortfolioScenario)}
        return legs or {source.symbol: (source.symbol,) for source in self.sources}

    def stamps(self, job: str) -> dict[str, str | None]:
        """The stamps of the files of each symbol of a job."""
        symbols = self.symbols_read[job]
        found = {source.symbol: source.stamp() for source in self.sources if source.symbol in symbols}
        return {symbol: found.get(symbol) for symbol in symbols}

    def jobs(self, most_bars: int | None = None) -> list[tuple[str, Callable[[], Job]]]:
        """Name of each job and a function that begins it; its history is read then, and released after it.

        most_bars : most bars of a history in memory at once; None: all
        """
        portfolios = [s for s in self.scenarios if isinstance(s, PortfolioScenario)]
        if portfolios:
            grouped = groupby(portfolios, key=lambda s: s.portfolio)
            return [(p.label, partial(_of_portfolio, self.config, self.sources, list(own))) for p, own in grouped]
        single = [s for s in self.scenarios if isinstance(s, Scenario)]
        return [(source.symbol, partial(_of_symbol, self.config, source, single, most_bars)) for source in self.sources]


def run_scenarios(config: Config) -> Sequence[Scenario | PortfolioScenario]:
    """The scenarios of a configuration, of single symbols or of portfolios."""
    return expand_portfolios(config) if config.sweep.portfolio else expand_scenarios(config)


class Parts(NamedTuple):
    """The parts of a job, and what is known of them before they are read."""

    number: int
    read: Callable[[int], JobPart]
    extents: list[tuple[int, int]]
    entries: int


def _of_symbol(config: Config, source: HistorySource, scenarios: list[Scenario], most_bars: int | None) -> Job:
    own = scenarios_at(scenarios, source.symbol)
    chunked, groups = open_chunked(config, source, own, most_bars), list(group_scenarios(own))
    if chunked is None:
        grid = read_grid(config, source, own)
        return _job(config, source.symbol, own, groups, _whole(config, source.symbol, _part(config, own, grid)))
    chunks, read_chunk = chunked.parts, chunked.grid

    def read(number: int) -> JobPart:
        own_bars = (chunks[number].end_ms - chunks[number].start_ms) // source.interval_ms
        return _part(config, own, read_chunk(chunks[number]), own_bars)

    block_ms = duration_ms(config.statistics.block)
    first, last = (ms // block_ms for ms in (chunks[0].start_ms, chunks[-1].end_ms - 1))
    every = max(source.interval_ms, duration_ms(config.entries.every) if config.entries.every else 0)
    entries = (chunks[-1].end_ms - chunks[0].start_ms) // every
    parts = Parts(len(chunks), read, [(first, last + 1 - first)], entries)
    return _job(config, source.symbol, own, groups, parts)


def _part(config: Config, own: Sequence[Scenario], grid: Grid, own_bars: int | None = None) -> JobPart:
    """The entries of the first `own_bars` bars of a grid (None: of all), and the function that counts a chunk."""
    population = prepare_entries(config, grid)
    bankroll = config.statistics.bankroll_fraction if wants_outcomes(config) else None
    own_bars = grid.n_bars if own_bars is None else own_bars
    population = _with_regimes(
        config, replace(population, bars=population.bars[: np.searchsorted(population.bars, own_bars)])
    )

    def count(members: Sequence[int], chunk: slice) -> Tables:
        return count_entries(population, [own[i] for i in members], chunk, bankroll)

    return JobPart(population, count, (grid,), own_bars)


def _of_portfolio(config: Config, sources: Sequence[HistorySource], own: list[PortfolioScenario]) -> Job:
    crossed = prepare_portfolio(config, read_portfolio_grids(config, sources, own), own)
    crossed = replace(crossed, base=_with_regimes(config, crossed.base))
    population, name = crossed.base, own[0].portfolio.label

    def count(members: Sequence[int], chunk: slice) -> Tables:
        return count_entries(crossed, [own[i] for i in members], chunk)

    part = JobPart(population, count, crossed.legs, population.grid.n_bars, crossed.cut)
    return _job(config, name, own, list(group_portfolios(own)), _whole(config, name, part))


def _whole(config: Config, name: str, part: JobPart) -> Parts:
    """The only part of a job."""
    population = part.population
    if not population.bars.size:
        raise no_entries(config, name)
    first, last = population.blocks(np.array([0, population.grid.n_bars - 1])).tolist()
    extents = [(first, last + 1 - first), *((0, cells.block.size) for cells in population.regimes)]
    return Parts(1, lambda number: part, extents, population.bars.size)


def _job(
    config: Config,
    name: str,
    own: Sequence[Scenario | PortfolioScenario],
    groups: list[list[int]],
    parts: Parts,
) -> Job:
    """A job whose groups are cut so that the tables of each fit `CELLS_PER_TASK`."""
    cells = table_cells(config, [n for _, n in parts.extents])
    cut, sweep = cut_groups(groups, cells), config.sweep
    per_entry = work_seconds(1, 1, len(sweep.horizon), len(sweep.leverage), 1, followed=wants_outcomes(config))
    weights = [per_entry * len(members) for members in cut]
    return Job(
        name, [s.columns() for s in own], cut, parts.number, parts.read, parts.extents, cells, parts.entries, weights
    )


def cut_groups(groups: Sequence[list[int]], cells: int) -> list[list[int]]:
    """Groups of scenarios cut so that the tables of each fit `CELLS_PER_TASK`, given the cells of one scenario."""
    size = max(1, CELLS_PER_TASK // cells)
    return [members[i : i + size] for members in groups for i in range(0, len(members), size)]


def table_cells(config: Config, columns: Sequence[int]) -> int:
    """Numbers in the tables of one scenario; `columns` are the labels of the calendar, then those of each regime."""
    outcomes = columns[0] * len(OUTCOMES) * wants_outcomes(config)
    return len(config.sweep.horizon) * len(config.sweep.leverage) * (sum(columns) * len(COUNTS) + outcomes)


def no_entries(config: Config, name: str) -> DataError:
    """The error of a job without entries."""
    if config.sweep.portfolio:
        return DataError(f"{name}: no bar is an entry in all of its symbols")
    which = config.entries.file or f"entries.every is {config.entries.every}"
    return DataError(f"{name}: no bar is an entry; {which}")


def _with_regimes(config: Config, population: Population) -> Population:
    """The same with regime labels on its entries."""
    regimes = config.statistics.regimes
    if not regimes or not population.bars.size:
        return population
    grid = population.grid
    trials = [trial_bars(horizon, MS_PER_UNIT["d"] / grid.interval_ms) for horizon in population.horizons]
    block = population.blocks(population.bars)
    return replace(
        population, regimes=tuple(label_entries(regime, grid, population.bars, block, trials) for regime in regimes)
    )
