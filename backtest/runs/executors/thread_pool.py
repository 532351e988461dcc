"""Threads of this process. Kernels release the GIL, so many small tasks keep every core busy."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 12
"""Tasks in work per thread: enough that none waits while tables are written, few enough to bound memory."""


def keep_memory() -> None:
    """Have glibc's malloc keep what is freed, for all threads in one place.

    It would give large arrays back to the system each time, to be mapped, faulted in and cleared anew for the next: a
    third of the time of one thread, more of several. Other systems are left as they are.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            libc.mallopt(parameter, value)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's ``malloc.h``."""


def map_ordered(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results of `function` in the order of `items`; at most ``AHEAD · workers`` are in work."""
    with threads(workers) as executor:
        yield from executor.map(function, items)


@contextmanager
def threads(workers: int) -> Iterator[Threads]:
    """Threads that end when the context is left: each completes its item, waiting items are dropped."""
    # A shorter switch interval of the interpreter changed nothing; the kernels run without its lock.
    keep_memory()
    pool = ThreadPoolExecutor(workers)
    try:
        yield Threads(workers, pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Threads:
    """The executor of this process."""

    workers: int
    pool: ThreadPoolExecutor

    def require(self, condition: Callable[[], None]) -> None:
        """Nothing to check: the run has read the data in this process."""

    def ahead(self, action: Callable[[], object]) -> None:
        """Nothing to prepare: the items carry what they need."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """As `map_ordered`."""
        if self.workers == 1:
            yield from map(function, items)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(self.pool.submit(function, item))
                if len(waiting) >= AHEAD * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
