"""Threads of this process. Kernels release the GIL, so many small tasks keep every core busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Tasks in flight per worker: enough that none waits for the merge, few enough to bound memory."""


def map_ordered(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results of `function` in the order of `items`, at most ``AHEAD · workers`` of them under way."""
    if workers == 1:
        yield from map(function, items)
        return
    # A shorter switch interval of the interpreter changed nothing; the kernels run without its lock.
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Threads:
    """The executor of this process."""

    workers: int

    def require(self, condition: Callable[[], None]) -> None:
        """What this process needs it has found out."""

    def ahead(self, action: Callable[[], object]) -> None:
        """What the items need is done here before they come."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """As `map_ordered`."""
        return map_ordered(function, items, self.workers)
