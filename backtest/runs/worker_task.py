"""Counting in other processes: they read the histories themselves, and are refused where they find other data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

from backtest.config.models import Config, with_base
from backtest.data.dataset import list_series
from backtest.data.files import SeriesName
from backtest.engine.bars import Grid, fingerprint
from backtest.errors import BacktestError, ConfigError, DataError
from backtest.runs.plan import code_version, files_named
from backtest.runs.tasks import Job, JobPart, RunInputs, Task
from backtest.stats.survival_table import Tables
from backtest.units import instant_text

HELD, MOST_HELD = 3, 8
"""Parts that a process holds: the last one, whose tasks may still run, this one and the next; more short ones."""


@dataclass(frozen=True)
class TaskCounter:
    """Counts a task wherever it is called; another process reads the part itself.

    Attributes
    ----------
    run : RemoteRun
    files : dict of str to str
        The files that the configuration names, as they are here.
    parts : dict
        By a job's name and a part's number, the parts in memory; not sent.
    """

    run: RemoteRun
    files: dict[str, str]
    parts: dict[tuple[str, int], JobPart] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[type[TaskCounter], tuple[RemoteRun, dict[str, str]]]:
        return TaskCounter, (self.run, self.files)

    def __call__(self, task: Task) -> Tables:
        if not task.members:
            return ()
        part = self.parts.get((task.job, task.part)) or self._again(task)
        return part.count(task.members, task.chunk)

    def reading(self, job: str, number: int) -> Callable[[], object]:
        """A function with which another process reads a part ahead."""
        return partial(hold_part, self.run, job, number)

    def _again(self, task: Task) -> JobPart:
        """The part as another process holds it; if the data differ, it reads them once more."""
        for anew in (False, True):
            part, read = HELD_PARTS.get(self.run, task.job, task.part, anew)
            differing = differing_in(read, self.files | task.seen)
            if differing is None:
                return part
        raise DataError(f"a worker read other data: {differing}; data must not change during a run")


def make_counter(config: Config, most_bars: int | None = None) -> TaskCounter:
    """What counts the tasks of a run, here or in another process."""
    return TaskCounter(RemoteRun(code_version(), _pickled(config), most_bars), _files(with_base(config, Path.cwd())))


def describe_data(part: JobPart) -> dict[str, str]:
    """Description of the data read of each symbol, to compare and to show."""
    return {grid.symbol: _told(grid) for grid in part.grids}


def _told(grid: Grid) -> str:
    return (
        f"{grid.n_bars:,} bars from {instant_text(grid.start_ms)} and {grid.charge_bar.size:,} funding charges, "
        f"fingerprint {fingerprint(grid)}"
    )


@dataclass(frozen=True)
class RemoteRun:
    """What another process needs to begin the jobs of a run.

    Attributes
    ----------
    code : str
        `backtest.runs.plan.code_version`; the rest is read where the code is the same.
    config : bytes
        The configuration, pickled with absolute paths.
    most_bars : int, optional
        As of `backtest.runs.tasks.RunInputs.jobs`.
    """

    code: str
    config: bytes
    most_bars: int | None

    def begin(self, job: str) -> Job:
        """Begin one of its jobs."""
        return dict(_inputs(self.config).jobs(self.most_bars))[job]()


@lru_cache(maxsize=2)
def _inputs(pickled: bytes) -> RunInputs:
    config: Config = pickle.loads(pickled)
    return RunInputs.of(config.data.path or "", config)


class HeldParts:
    """The parts that a worker process holds, each with the description of its data, and its current job."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Release everything that was read."""
        _inputs.cache_clear()
        self._job: tuple[RemoteRun, str] | None = None
        self._begun: Job | None = None
        self._parts: dict[tuple[RemoteRun, str, int], tuple[JobPart, dict[str, str]]] = {}

    def get(self, run: RemoteRun, job: str, number: int, anew: bool = False) -> tuple[JobPart, dict[str, str]]:
        """A part and the description of its data; reads it if it is not held, or `anew`."""
        if (there := code_version()) != run.code:
            raise ConfigError(f"a worker has code {there}; expected {run.code}; install the same versions everywhere")
        key = run, job, number
        if not anew and (held := self._parts.get(key)) is not None:  # without waiting for another part to be read
            return held
        with self._lock:
            if anew:
                self.clear()
            if key not in self._parts:
                while self._is_full(run.most_bars):
                    del self._parts[next(iter(self._parts))]
                if self._job != (run, job) or self._begun is None:
                    self._job, self._begun = (run, job), run.begin(job)
                part = self._begun.part(number)
                self._parts[key] = part, _files(pickle.loads(run.config)) | describe_data(part)
            return self._parts[key]

    def _is_full(self, most_bars: int | None) -> bool:
        """Whether one more part would take more memory than `HELD` parts of the longest."""
        bars = sum(grid.n_bars for part, _ in list(self._parts.values()) for grid in part.grids)
        fits = most_bars is not None and bars <= (HELD - 1) * most_bars
        return len(self._parts) >= (MOST_HELD if fits else HELD)


HELD_PARTS = HeldParts()
"""The parts of this process."""


def hold_part(run: RemoteRun, job: str, number: int) -> None:
    """Read a part in this process before a task needs it."""
    HELD_PARTS.get(run, job, number)


@dataclass(frozen=True)
class WorkerCheck:
    """Call it in a worker: it refuses a process that does not see the data of the run.

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


def worker_check(config: Config) -> WorkerCheck:
    """The check that each worker must pass before a run begins."""
    return WorkerCheck(_pickled(config), list_series(config.data.path or ""), _files(with_base(config, Path.cwd())))


def _pickled(config: Config) -> bytes:
    """A configuration for processes that run in other folders."""
    return pickle.dumps(with_base(config, Path.cwd()))


def _files(config: Config) -> dict[str, str]:
    """Files that a configuration names beside its dataset, with the digest of each."""
    return {file: f"contents of digest {digest[:32]}" for file, digest in files_named(config).items()}


def differing_in(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """The first difference in words."""
    for name, wanted in expected.items():
        if found.get(name) != wanted:
            return f"{name}: found {found.get(name, 'nothing')}; expected {wanted}"
    return None
