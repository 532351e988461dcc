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
    """What there is to know of the data of a job, part by part."""

    def __init__(self) -> None:
        self.bars = self.present = self.charges = self.entries = self.longest_gap = self.start_ms = self.interval_ms = 0
        self.trigger = ""
        self.cut: dict[str, tuple[int, int]] = {}
        self.regimes: tuple[RegimeLabels, ...] = ()
        self._prints: dict[str, Fingerprint] = {}
        self._latest: int | None = None

    def add(self, part: JobPart) -> None:
        """Take the part that follows those that were taken."""
        grid = part.work.grid
        if not self.bars:
            self.start_ms, self.interval_ms, self.trigger = grid.start_ms, grid.interval_ms, grid.trigger
            self.cut, self.regimes = part.cut, part.work.regimes
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
        self.entries += int(part.work.bars.size)

    def prints(self) -> dict[str, str]:
        """Fingerprint of what was read of each symbol."""
        return {symbol: found.hexdigest() for symbol, found in self._prints.items()}


def summarise_data(job: Job) -> DataSummary:
    """All parts of a job, read for what they are alone."""
    seen = DataSummary()
    for number in range(job.parts):
        seen.add(job.part(number))
    return seen


@dataclass
class ActiveJob:
    """A job under way: which of its groups are to be counted, and what was seen of its data."""

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
    """The tables of a group of scenarios, whole; who has done with them lets go of their memory."""

    running: ActiveJob
    number: int
    tables: Tables
    let_go: Callable[[], None]
    seconds: float
    cpu_seconds: float


class Sent(NamedTuple):
    """What a task that was sent belongs to; `group` None: no further task of the part."""

    load: LoadedPart
    group: int | None
    chunk: slice


class Clock:
    """Seconds that passed while tasks of each group came in: on the clock, and of this process."""

    def __init__(self) -> None:
        self._spent: dict[int, tuple[float, float]] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def add(self, group: int) -> None:
        """Give a group the time since the last call."""
        wall, cpu = self._spent.get(group, (0.0, 0.0))
        self._spent[group] = wall + time.perf_counter() - self._wall, cpu + time.process_time() - self._cpu
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def started(self) -> list[int]:
        """Groups that were given time and not taken."""
        return list(self._spent)

    def taken(self, group: int) -> tuple[float, float]:
        """The time of a group, which is whole."""
        return self._spent.pop(group)


class Sums:
    """Tables that are being added up, in memory that is used again."""

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
        """The sum, over the columns that anything was added to, and how its memory is let go of."""
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
        """Zeros, which are those of float64 too."""
        free = self._free.get(int(np.prod(shape)))
        if not free:
            self._free.clear()  # of a history of another length
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
                    whole = [group] if load.last and chunk.stop == load.part.work.bars.size else []
                for one in whole:
                    yield CountedGroup(load.running, one, *sums.taken(one), *clock.taken(one))
                if group is None and load.final:
                    yield load.running
        if failed:
            raise failed[0]

    def _tasks(
        self, jobs: Sequence[tuple[str, Callable[[], Job]]], sent: deque[Sent], failed: list[Exception]
    ) -> Generator[Task, None, None]:
        """The tasks of all jobs; what each belongs to is noted in `sent`, and why there are no more in `failed`."""
        with closing(one_ahead(self._loads(jobs))) as loads:
            while True:
                try:
                    load = next(loads, None)
                except Exception as error:
                    failed.append(error)
                    return
                if load is None:
                    return
                job, chunks = load.running.job, load.part.work.chunks()
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
    """Groups that are counted in one reading of a job's parts: all, where they are read once for all."""
    if job.parts == 1 or not left:
        return [left]
    turns = -(-len(left) // groups_at_once(job, table_bytes))
    size = -(-len(left) // turns)
    return [left[i : i + size] for i in range(0, len(left), size)]


def groups_at_once(job: Job, table_bytes: int) -> int:
    """Groups that are added up while as many are written."""
    return max(1, table_bytes // (2 * 8 * job.cells * max(map(len, job.groups))))


class Background:
    """A thread that does what is given to it, one after the other; what it raises is raised to who comes next."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def do(self, action: Callable[[], None], most: int) -> None:
        """Give it something to do, and wait until no more than `most` are left to do; 0: do it here."""
        if not most:
            action()
            return
        self._waiting.append(self._pool.submit(action))
        while len(self._waiting) > most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all is done."""
        while self._waiting:
            self._waiting.popleft().result()


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, the next one being made by another thread while one is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lambda: list(islice(items, 1)))
        while item := coming.result():
            coming = pool.submit(lambda: list(islice(items, 1)))
            yield item.pop()
