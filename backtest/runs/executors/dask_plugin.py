"""What runs in a worker's process of dask.distributed."""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from backtest.runs.executors.thread_pool import keep_memory

T = TypeVar("T")
R = TypeVar("R")


def dask_setup(worker: object) -> None:
    """What a process of a local cluster begins with: Ctrl-C reaches all of a terminal, and the run answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()  # before there are threads


def once(pickled: bytes) -> None:
    """Where a worker works: do something whose result stays there."""
    _function(pickled)()


def each(pickled: bytes, items: list[T]) -> tuple[list[R], float]:
    """Where a worker works: the results of a batch, and the seconds they took."""
    function, begun = _function(pickled), time.perf_counter()
    results: list[R] = [function(item) for item in items]
    return results, time.perf_counter() - begun


@lru_cache(maxsize=8)
def _function(pickled: bytes) -> Callable[..., R]:
    keep_memory()  # dask's nannies forbid it: a sweep would take three times as long
    try:
        function: Callable[..., R] = pickle.loads(pickled)
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
    return function
