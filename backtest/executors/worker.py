"""What runs in a worker's process of dask.distributed."""

from __future__ import annotations

import ctypes
import pickle
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST_KEPT = 64 << 20
"""Bytes of freed memory; where glibc's own adjustment ends."""


def dask_setup(worker: object) -> None:
    """What a process of a local cluster begins with: Ctrl-C reaches all of a terminal, and the run answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
    keep_freed_memory()
    try:
        function: Callable[..., R] = pickle.loads(pickled)
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
    return function


def keep_freed_memory() -> None:
    """Let the C library of Linux use freed arrays again, as it does by itself where dask's nannies do not forbid it.

    They have it give every array back to the system (MALLOC_TRIM_THRESHOLD_): a sweep then takes three times as long.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MOST_KEPT // 2)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
