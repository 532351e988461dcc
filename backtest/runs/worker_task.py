"""Counting in other processes, which read the histories themselves, and what they must find for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

from backtest.config.models import Config, with_base
from backtest.data.dataset import list_series
from backtest.data.parquet import SeriesName
from backtest.engine.bars import Grid, fingerprint
from backtest.errors import BacktestError, ConfigError, DataError
from backtest.runs.inputs import list_sources
from backtest.runs.plan import code_version, files_named
from backtest.runs.tasks import Job, JobPart, Task, make_jobs, run_scenarios
from backtest.stats.survival_table import Tables
from backtest.units import instant_text

HELD, MOST_HELD = 3, 8
"""Parts that a process holds: the one before, of which tasks are under way, this one, and the next; more if short."""


@dataclass(frozen=True)
class Counting:
    """Counts a task wherever it is called: in another process its part is read again.

    Attributes
    ----------
    code : str
        `backtest.runs.plan.code_version`.
    config : bytes
        The configuration, pickled with absolute paths; read where the code is the same.
    most_bars : int, optional
        As of `backtest.runs.tasks.make_jobs`.
    files : dict of str to str
        The files that the configuration names, as they are here.
    parts : dict
        Of a job's name and a part's number, those that are at hand; not sent.
    """

    code: str
    config: bytes
    most_bars: int | None
    files: dict[str, str]
    parts: dict[tuple[str, int], JobPart] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[type[Counting], tuple[str, bytes, int | None, dict[str, str]]]:
        return Counting, (self.code, self.config, self.most_bars, self.files)

    def __call__(self, task: Task) -> Tables:
        if not task.members:
            return ()
        part = self.parts.get((task.job, task.part)) or self._again(task)
        return part.count(task.members, task.chunk)

    def reading(self, name: str, number: int) -> Callable[[], object]:
        """What another process may do ahead: read a part, and hold it."""
        return partial(_held, self.code, self.config, self.most_bars, name, number)

    def _again(self, task: Task) -> JobPart:
        """The part in another process; where what it holds differs, the data are read once more."""
        for anew in (False, True):
            part, seen = _held(self.code, self.config, self.most_bars, task.job, task.part, anew)
            differing = differing_in(seen, self.files | task.seen)
            if differing is None:
                return part
        raise DataError(f"a worker read other data: {differing}; data must not change during a run")


def counting(config: Config, most_bars: int | None = None) -> Counting:
    """What counts the tasks of a run, here or in another process."""
    return Counting(code_version(), _sent(config), most_bars, _files(with_base(config, Path.cwd())))


def describe_data(part: JobPart) -> dict[str, str]:
    """What was read of each symbol, in words."""
    return {grid.symbol: _told(grid) for grid in part.grids}


def _told(grid: Grid) -> str:
    return (
        f"{grid.n_bars:,} bars from {instant_text(grid.start_ms)} and {grid.charge_bar.size:,} funding charges, "
        f"fingerprint {fingerprint(grid)}"
    )


_jobs: dict[tuple[bytes, str], Job] = {}
_holding: dict[tuple[bytes, str, int], tuple[JobPart, dict[str, str]]] = {}
_one_at_a_time = Lock()


def _held(
    code: str, pickled: bytes, most_bars: int | None, name: str, number: int, anew: bool = False
) -> tuple[JobPart, dict[str, str]]:
    """A part of a job and what was read for it; a process holds a few, and the last job."""
    if (there := code_version()) != code:
        raise ConfigError(f"a worker has code {there}; expected {code}; install the same versions everywhere")
    key = pickled, name, number
    if not anew and (held := _holding.get(key)) is not None:  # without waiting for another part to be read
        return held
    with _one_at_a_time:
        if anew:
            _holding.clear()
            _jobs.clear()
        if key not in _holding:
            while _is_full(most_bars):
                del _holding[next(iter(_holding))]
            if key[:2] not in _jobs:
                _jobs.clear()
                _jobs[key[:2]] = _begins(pickled, most_bars)[name]()
            part = _jobs[key[:2]].part(number)
            config: Config = pickle.loads(pickled)
            _holding[key] = part, _files(config) | describe_data(part)
        return _holding[key]


def _is_full(most_bars: int | None) -> bool:
    """Whether one more part would take more room than `HELD` of the longest do."""
    bars = sum(grid.n_bars for part, _ in _holding.values() for grid in part.grids)
    fits = most_bars is not None and bars <= (HELD - 1) * most_bars
    return len(_holding) >= (MOST_HELD if fits else HELD)


@dataclass(frozen=True)
class Readable:
    """Calling it refuses a process that does not find what a run reads.

    Attributes
    ----------
    config : bytes
        The configuration, pickled with absolute paths.
    series : list of SeriesName
        Expected in the dataset.
    files : dict of str to str
        The other files that the configuration names.
    """

    config: bytes
    series: list[SeriesName]
    files: dict[str, str]

    def __call__(self) -> None:
        config: Config = pickle.loads(self.config)
        path = config.data.path or ""
        try:
            series, files = list_series(path), _files(config)
        except (BacktestError, OSError) as error:
            raise ConfigError(f"{error}; every worker must see it, on a shared disk or in an object store") from None
        if missing := [one for one in self.series if one not in series]:
            raise ConfigError(f"{path}: {missing[0].symbol} at {missing[0].interval} is expected, and is not there")
        if differing := differing_in(files, self.files):
            raise ConfigError(differing)


def readable(config: Config) -> Readable:
    """What other processes must find before a run begins there."""
    return Readable(_sent(config), list_series(config.data.path or ""), _files(with_base(config, Path.cwd())))


def _sent(config: Config) -> bytes:
    """A configuration for processes that run in other folders."""
    return pickle.dumps(with_base(config, Path.cwd()))


@lru_cache(maxsize=2)
def _begins(pickled: bytes, most_bars: int | None) -> dict[str, Callable[[], Job]]:
    """How each job of a configuration is begun."""
    config: Config = pickle.loads(pickled)
    return dict(make_jobs(config, run_scenarios(config), list_sources(config.data.path or "", config), most_bars))


def _files(config: Config) -> dict[str, str]:
    """Files that a configuration names beside its dataset, and what is in them."""
    return {file: f"contents of digest {digest[:32]}" for file, digest in files_named(config).items()}


def differing_in(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """The first difference in words."""
    for name, wanted in expected.items():
        if found.get(name) != wanted:
            return f"{name}: found {found.get(name, 'nothing')}; expected {wanted}"
    return None
