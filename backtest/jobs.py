"""What a run is made of: per symbol, or portfolio, its work, its scenarios, and how a block of them is counted."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from threading import Lock

import numpy as np

from backtest.cells import cells_of
from backtest.config import Config, with_base
from backtest.cross import cross_block
from backtest.engine import count_block
from backtest.errors import BacktestError, ConfigError, DataError
from backtest.history import Grid
from backtest.intervals import trial_bars
from backtest.journal import code_version, plan_of
from backtest.outcomes import count_with_outcomes
from backtest.portfolio import (
    CrossScenario,
    cross_grids_of,
    cross_groups_of,
    cross_scenarios_of,
    cross_work_of,
)
from backtest.sources import Source, grid_for, sources_named, work_of
from backtest.store import Series, series_of
from backtest.survival import COUNTS, OUTCOMES, Tables
from backtest.sweep import Scenario, groups_of, scenarios_at, scenarios_of
from backtest.units import MS_PER_UNIT, instant_text
from backtest.work import Work

Task = tuple[Sequence[int], slice]
"""A group of scenarios and a chunk of entries."""
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
        Of a group and a chunk of entries: their tables, by calendar block and by each regime. Those of disjoint
        chunks add up.
    grids : tuple of Grid
        What was read.
    cut : dict of str to (int, int)
        Bars of each symbol of a portfolio before and after the span that all of them have.
    """

    symbol: str
    work: Work
    scenarios: list[Labels]
    groups: list[list[int]]
    count: Callable[[Sequence[int], slice], Tables]
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
    work, outcomes = _with_regimes(config, work), wants_outcomes(config)

    def count(members: Sequence[int], chunk: slice) -> Tables:
        group = [own[i] for i in members]
        if outcomes:
            return count_with_outcomes(work, group, chunk, config.statistics.bankroll_fraction)
        return count_block(work, group, chunk)

    groups = list(_cut(groups_of(own), work))
    return Job(grid.symbol, work, [s.columns() for s in own], groups, count, (grid,))


def _of_portfolio(config: Config, sources: Sequence[Source], own: list[CrossScenario]) -> Job:
    crossed = cross_work_of(config, cross_grids_of(config, sources, own), own)
    work = crossed.base
    if not work.bars.size:
        raise DataError(f"{own[0].portfolio.label}: no bar is an entry in all of its symbols")
    work = _with_regimes(config, work)
    crossed = replace(crossed, base=work)

    def count(members: Sequence[int], chunk: slice) -> Tables:
        return cross_block(crossed, [own[i] for i in members], chunk)

    groups = list(_cut(cross_groups_of(own), work))
    labels = [s.columns() for s in own]
    return Job(own[0].portfolio.label, work, labels, groups, count, crossed.legs, crossed.cut)


def _with_regimes(config: Config, work: Work) -> Work:
    """The work, its entries labelled."""
    grid = work.grid
    trials = [trial_bars(horizon, MS_PER_UNIT["d"] / grid.interval_ms) for horizon in work.horizons]
    block = work.blocks(work.bars)
    regimes = config.statistics.regimes
    return replace(work, regimes=tuple(cells_of(regime, grid, work.bars, block, trials) for regime in regimes))


def _cut(groups: Sequence[list[int]] | Iterator[list[int]], work: Work) -> Iterator[list[int]]:
    """Groups, cut so that the tables of each fit `CELLS_PER_TASK`."""
    bars = work.bars
    n_blocks = int(work.blocks(bars[-1:])[0] - work.blocks(bars[:1])[0]) + 1
    n_cells = n_blocks * (len(COUNTS) + len(OUTCOMES)) + len(COUNTS) * sum(r.block.size for r in work.regimes)
    size = max(1, CELLS_PER_TASK // (len(work.horizons) * work.leverages.size * n_cells))
    for members in groups:
        for i in range(0, len(members), size):
            yield members[i : i + size]


def fingerprint(grid: Grid) -> str:
    """Digest of every number of a grid that a verdict can depend on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{grid.symbol} {grid.interval_ms} {grid.start_ms} {grid.trigger}".encode())
    arrays: Iterable[np.ndarray] = (
        grid.entry_price, grid.open, grid.high, grid.low, grid.close,
        grid.charge_bar, grid.charge_rate, grid.charge_price,
        *(() if grid.scale is None else (grid.scale,)), grid.last_open, grid.last_high, grid.last_low,
    )  # fmt: skip
    for values in arrays:
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Counting:
    """`Job.count` wherever it is called: in another process the job is built again, from histories read there.

    Attributes
    ----------
    code : str
        `backtest.journal.code_version`.
    config : bytes
        The configuration, pickled with absolute paths; read where the code is the same.
    name : str
        Of the job.
    seen : dict of str to str
        What was read here, of each symbol and each file that the configuration names.
    job : Job, optional
        Not sent.
    """

    code: str
    config: bytes
    name: str
    seen: dict[str, str]
    job: Job | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[type[Counting], tuple[str, bytes, str, dict[str, str]]]:
        return Counting, (self.code, self.config, self.name, self.seen)

    def __call__(self, task: Task) -> Tables:
        members, chunk = task
        job = self.job if self.job is not None else self._again()
        return job.count(members, chunk)

    def _again(self) -> Job:
        """The job in another process; where what it holds differs, the data are read once more."""
        for anew in (False, True):
            job, seen = _held(self.code, self.config, self.name, anew)
            differing = _differing(seen, self.seen)
            if differing is None:
                return job
        raise DataError(f"a worker read other data: {differing}; data must not change during a run")


def counting(config: Config, job: Job, prints: Mapping[str, str]) -> Counting:
    """What counts a job, here or in another process.

    prints : `fingerprint` of each of the job's grids, by symbol.
    """
    return Counting(code_version(), _sent(config), job.symbol, _seen(config, job, prints), job)


def reading(config: Config, name: str) -> Callable[[], object]:
    """What another process may do ahead: read the histories of a job of this name, and hold it."""
    return partial(_held, code_version(), _sent(config), name)


_holding: dict[tuple[bytes, str], tuple[Job, dict[str, str]]] = {}
_one_at_a_time = Lock()


def _held(code: str, pickled: bytes, name: str, anew: bool = False) -> tuple[Job, dict[str, str]]:
    """A job and what was read for it; a process holds one at a time."""
    if (there := code_version()) != code:
        raise ConfigError(f"a worker has code {there}; expected {code}; install the same versions everywhere")
    with _one_at_a_time:
        if anew or (pickled, name) not in _holding:
            _holding.clear()
            config: Config = pickle.loads(pickled)
            job = _begins(pickled)[name]()
            prints = {grid.symbol: fingerprint(grid) for grid in job.grids}
            _holding[pickled, name] = job, _seen(config, job, prints)
        return _holding[pickled, name]


@dataclass(frozen=True)
class Readable:
    """Calling it refuses a process that does not find what a run reads.

    Attributes
    ----------
    config : bytes
        The configuration, pickled with absolute paths.
    series : list of Series
        Expected in the dataset.
    files : dict of str to str
        The other files that the configuration names.
    """

    config: bytes
    series: list[Series]
    files: dict[str, str]

    def __call__(self) -> None:
        config: Config = pickle.loads(self.config)
        path = config.data.path or ""
        try:
            series, files = series_of(path), _files(config)
        except (BacktestError, OSError) as error:
            raise ConfigError(f"{error}; every worker must see it, on a shared disk or in an object store") from None
        if missing := [one for one in self.series if one not in series]:
            raise ConfigError(f"{path}: {missing[0].symbol} at {missing[0].interval} is expected, and is not there")
        if differing := _differing(files, self.files):
            raise ConfigError(differing)


def readable(config: Config) -> Readable:
    """What other processes must find before a run begins there."""
    return Readable(_sent(config), series_of(config.data.path or ""), _files(with_base(config, Path.cwd())))


def _sent(config: Config) -> bytes:
    """A configuration for processes that run in other folders."""
    return pickle.dumps(with_base(config, Path.cwd()))


@lru_cache(maxsize=2)
def _begins(pickled: bytes) -> dict[str, Callable[[], Job]]:
    """How each job of a configuration is begun."""
    config: Config = pickle.loads(pickled)
    return dict(jobs_of(config, scenarios_of_run(config), sources_named(config.data.path or "", config)))


def _seen(config: Config, job: Job, prints: Mapping[str, str]) -> dict[str, str]:
    """What a job depends on beside its configuration, in words."""
    return _files(with_base(config, Path.cwd())) | {
        grid.symbol: f"{grid.n_bars:,} bars from {instant_text(grid.start_ms)} and {grid.charge_bar.size:,} funding "
        f"charges, fingerprint {prints[grid.symbol]}"
        for grid in job.grids
    }


def _files(config: Config) -> dict[str, str]:
    """Files that a configuration names beside its dataset, and what is in them."""
    return {file: f"contents of digest {digest[:32]}" for file, digest in plan_of(config, ())["files"].items()}


def _differing(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """The first difference in words."""
    for name, wanted in expected.items():
        if found.get(name) != wanted:
            return f"{name}: found {found.get(name, 'nothing')}; expected {wanted}"
    return None
