"""All jobs of a run as one stream of tasks: parts are read ahead, tables are added up, groups come out whole.

Workers never wait for a symbol to end: while the tables of one are written, they count the next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, Self, TypeVar

import numpy as np

from backtest.arrays import Int
from backtest.engine.bars import Fingerprint
from backtest.engine.regime_labels import RegimeLabels
from backtest.progress import Progress
from backtest.runs.executors import Executor
from backtest.runs.tasks import Job, JobPart, Task
from backtest.runs.worker_task import TaskCounter, describe_data
from backtest.stats.survival_table import SurvivalTable, Tables

T = TypeVar("T")


class DataSummary:
    """What run.json says of the data of a job, collected part by part."""

    def __init__(self) -> None:
        self.bars = self.present = self.charges = self.entries = self.longest_gap = self.start_ms = self.interval_ms = 0
        self.trigger = ""
        self.cut: dict[str, tuple[int, int]] = {}
        self.regimes: tuple[RegimeLabels, ...] = ()
        self._prints: dict[str, Fingerprint] = {}
        self._latest: int | None = None

    def add(self, part: JobPart) -> None:
        """Add the next part."""
        grid = part.population.grid
        if not self.bars:
            self.start_ms, self.interval_ms, self.trigger = grid.start_ms, grid.interval_ms, grid.trigger
            self.cut, self.regimes = part.cut, part.population.regimes
        for one in part.grids:
            own = min(part.own_bars, one.n_bars)
            self._prints.setdefault(one.symbol, Fingerprint()).add(one, own)
            self.charges += int(np.searchsorted(one.charge_bar, own))
        present = np.flatnonzero(grid.has_trigger[: part.own_bars]) + self.bars
        if present.size:
            apart = np.diff(present, prepend=present[0] - 1 if self._latest is None else self._latest)
            self.longest_gap = max(self.longest_gap, int(apart.max()) - 1)
            self._latest = int(present[-1])
        self.bars += part.own_bars
        self.present += present.size
        self.entries += int(part.population.bars.size)

    def prints(self) -> dict[str, str]:
        """Fingerprint of what was read of each symbol."""
        return {symbol: found.hexdigest() for symbol, found in self._prints.items()}


def summarise_data(job: Job) -> DataSummary:
    """Read all parts of a job for their summary; nothing is counted."""
    seen = DataSummary()
    for number in range(job.parts):
        seen.add(job.part(number))
    return seen


@dataclass
class ActiveJob:
    """A job that is being counted: the groups that are left, and the summary of its data so far."""

    job: Job
    seen: DataSummary
    label: str
    left: Sequence[int] = ()


@dataclass(frozen=True)
class LoadedPart:
    """A part in memory, and the groups that are counted on it."""

    running: ActiveJob
    number: int
    part: JobPart
    batch: Sequence[int]
    last: bool  # no further part of these groups
    final: bool  # no further part of this job


@dataclass(frozen=True)
class CountedGroup:
    """The complete tables of a group of scenarios. Call `let_go` when they are written: their memory is used again."""

    running: ActiveJob
    number: int
    tables: Tables
    let_go: Callable[[], None]
    seconds: float
    cpu_seconds: float


class Sent(NamedTuple):
    """Where a sent task belongs; `group` None marks the end of a part."""

    load: LoadedPart
    group: int | None
    chunk: slice


class Clock:
    """Wall and CPU seconds spent on each group."""

    def __init__(self) -> None:
        self._spent: dict[int, tuple[float, float]] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def add(self, group: int) -> None:
        """Charge the time since the last call to a group."""
        wall, cpu = self._spent.get(group, (0.0, 0.0))
        self._spent[group] = wall + time.perf_counter() - self._wall, cpu + time.process_time() - self._cpu
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def started(self) -> list[int]:
        """Groups with time charged that are not taken."""
        return list(self._spent)

    def taken(self, group: int) -> tuple[float, float]:
        """The seconds of a group that is complete."""
        return self._spent.pop(group)


class Sums:
    """Running sums of tables; their memory is used again."""

    def __init__(self) -> None:
        self._free: dict[int, list[Int]] = {}
        self._under_way: dict[int, list[tuple[SurvivalTable, list[int]]]] = {}

    def add(self, group: int, extents: Sequence[tuple[int, int]], tables: Tables) -> None:
        """Add the tables of a chunk to those of its group."""
        if group not in self._under_way:
            self._under_way[group] = [
                (self._zeros(table, *extent), []) for table, extent in zip(tables, extents, strict=True)
            ]
        for (total, seen), table in zip(self._under_way[group], tables, strict=True):
            total.take(table)
            seen += [table.first_block, table.last_block]

    def taken(self, group: int) -> tuple[Tables, Callable[[], None]]:
        """The sum of a group, cut to the columns that were added to, and a function that frees its memory."""
        made = self._under_way.pop(group)
        return tuple(total.cut(min(seen), max(seen)) for total, seen in made), partial(self._let_go, made)

    def _let_go(self, made: list[tuple[SurvivalTable, list[int]]]) -> None:
        for total, _ in made:
            for values in (total.counts, total.outcomes):
                if values is not None:
                    self._free.setdefault(values.size, []).append(values.reshape(-1).view(np.int64))

    def _zeros(self, like: SurvivalTable, first: int, size: int) -> SurvivalTable:
        counts = self._cleared((*like.counts.shape[:-1], size))
        if like.outcomes is None:
            return SurvivalTable(counts, first)
        return SurvivalTable(counts, first, self._cleared((*like.outcomes.shape[:-1], size)).view(np.float64))

    def _cleared(self, shape: tuple[int, ...]) -> Int:
        """Zeros; their bits are zeros of float64 too."""
        free = self._free.get(int(np.prod(shape)))
        if not free:
            self._free.clear()  # sizes of an earlier history
            return np.zeros(shape, np.int64)
        values = free.pop().reshape(shape)
        values.fill(0)
        return values


@dataclass(frozen=True)
class Scheduler:
    """Counts jobs in one stream of tasks.

    Attributes
    ----------
    executor : Executor
    count : TaskCounter
    left : callable
        Which groups of a job are to be counted. A job of one part has been read when it is called.
    table_bytes : int
        Of tables of a job that are added up at once, where its parts are read one after the other.
    progress : Progress
    remote : bool
        Whether other processes count, which must have read the same data.
    """

    executor: Executor
    count: TaskCounter
    left: Callable[[ActiveJob], Sequence[int]]
    table_bytes: int
    progress: Progress
    remote: bool = False

    def counted(self, jobs: Sequence[tuple[str, Callable[[], Job]]]) -> Iterator[CountedGroup | ActiveJob]:
        """Each group of scenarios when its table is whole, and each job when all its groups are.

        Where a part cannot be read, the tasks before it complete and their groups are yielded before the error is
        raised.
        """
        sent: deque[Sent] = deque()
        failed: list[Exception] = []
        sums, clock = Sums(), Clock()
        with closing(self._tasks(jobs, sent, failed)) as tasks:
            for tables in self.executor.map(self.count, tasks):
                load, group, chunk = sent.popleft()
                job = load.running.job
                if group is None:
                    del self.count.parts[job.symbol, load.number]
                    whole = clock.started() if load.last else []  # groups without entries in the last part
                else:
                    sums.add(group, job.extents, tables)
                    clock.add(group)
                    self.progress.advance(job.cost(group, chunk))
                    whole = [group] if load.last and chunk.stop == load.part.population.bars.size else []
                for one in whole:
                    yield CountedGroup(load.running, one, *sums.taken(one), *clock.taken(one))
                if group is None and load.final:
                    yield load.running
        if failed:
            raise failed[0]

    def _tasks(
        self, jobs: Sequence[tuple[str, Callable[[], Job]]], sent: deque[Sent], failed: list[Exception]
    ) -> Generator[Task, None, None]:
        """The tasks of all jobs; notes where each belongs in `sent`, and an error of reading in `failed`."""
        with closing(one_ahead(self._loads(jobs))) as loads:
            while True:
                try:
                    load = next(loads, None)
                except Exception as error:
                    failed.append(error)
                    return
                if load is None:
                    return
                job, chunks = load.running.job, load.part.population.chunks()
                self.count.parts[job.symbol, load.number] = load.part
                read = describe_data(load.part) if self.remote else {}
                for group in load.batch:
                    for chunk in chunks:
                        sent.append(Sent(load, group, chunk))
                        yield Task(job.symbol, load.number, tuple(job.groups[group]), chunk, read)
                sent.append(Sent(load, None, slice(0)))
                yield Task(job.symbol, load.number, (), slice(0))

    def _loads(self, jobs: Sequence[tuple[str, Callable[[], Job]]]) -> Iterator[LoadedPart]:
        """The parts of each job in order, once for each batch of groups whose tables fit."""
        for place, (name, begin) in enumerate(jobs):
            label = f"{name} ({place + 1}/{len(jobs)})" if len(jobs) > 1 else name
            self.executor.ahead(self.count.reading(name, 0))  # while it is read here
            running = ActiveJob(begin(), DataSummary(), label)
            job = running.job
            if job.parts == 1:
                running.seen.add(job.part(0))
            running.left = self.left(running)
            left_s = sum(job.weights[n] for n in running.left) * job.entries
            self.progress.begin(name, f"sweeping {label}", sum(job.weights) * job.entries, left_s)
            batches = _batches(job, running.left, self.table_bytes)
            for turn, batch in enumerate(batches):
                for number in range(job.parts):
                    if turn or number:
                        self.executor.ahead(self.count.reading(name, number))
                    part, last = job.part(number), number + 1 == job.parts
                    if turn == 0 and job.parts > 1:
                        running.seen.add(part)
                    yield LoadedPart(running, number, part, batch, last, last and turn + 1 == len(batches))
                    del part


def _batches(job: Job, left: Sequence[int], table_bytes: int) -> list[Sequence[int]]:
    """Split the groups of a job so that the tables of each batch fit; each batch reads the parts once more."""
    if job.parts == 1 or not left:
        return [left]
    turns = -(-len(left) // groups_at_once(job, table_bytes))
    size = -(-len(left) // turns)
    return [left[i : i + size] for i in range(0, len(left), size)]


def groups_at_once(job: Job, table_bytes: int) -> int:
    """How many groups are summed at once, while as many are being written."""
    return max(1, table_bytes // (2 * 8 * job.cells * max(map(len, job.groups))))


class Background:
    """A thread that runs actions in order; an error in one is raised at the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def do(self, action: Callable[[], None], most: int) -> None:
        """Queue an action, and wait until at most `most` are queued; with 0 run it in this thread."""
        if not most:
            action()
            return
        self._waiting.append(self._pool.submit(action))
        while len(self._waiting) > most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all actions are done."""
        while self._waiting:
            self._waiting.popleft().result()


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items in order; another thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lambda: list(islice(items, 1)))
        while item := coming.result():
            coming = pool.submit(lambda: list(islice(items, 1)))
            yield item.pop()
