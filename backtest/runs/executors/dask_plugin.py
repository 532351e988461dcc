"""Functions that run in a worker process of dask.distributed."""

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
    """Setup of a local worker process: it ignores Ctrl-C, which the run itself answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()  # before there are threads


def once(pickled: bytes) -> None:
    """Call a pickled function; its result stays in the worker."""
    _function(pickled)()


def each(pickled: bytes, items: list[T]) -> tuple[list[R], float]:
    """The results of a batch of items, and the seconds they took."""
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
