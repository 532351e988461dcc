"""Executors: threads of this process, or processes through dask.distributed. None of them knows a formula."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Protocol, TypeVar

from backtest.errors import ConfigError
from backtest.runs.executors.thread_pool import threads

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Calls a function on many items, in this process or in others."""

    @property
    def workers(self) -> int:
        """Number of items in work at one time."""

    def require(self, condition: Callable[[], None]) -> None:
        """Call a check in each worker process; an error there is raised here."""

    def ahead(self, action: Callable[[], object]) -> None:
        """Let each worker process prepare its next items, without waiting; a failure there is ignored."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the order of the items; a bounded number is in work."""


def make_executor(workers: int | str | None = None, scheduler: str | None = None) -> AbstractContextManager[Executor]:
    """The requested executor; entering it starts or joins its workers, leaving it releases them.

    Parameters
    ----------
    workers : int or str, optional
        Threads, or ``"dask:N"`` for N processes of this machine with a scheduler of their own; default: a thread per
        core.
    scheduler : str, optional
        Address of a scheduler of dask.distributed that has workers.

    Raises
    ------
    ConfigError
        If the words name none, or dask.distributed is not installed. On entering: if nobody answers at the address,
        there are no workers, or they have other code.

    Examples
    --------
    >>> with make_executor(2) as executor:
    ...     list(executor.map(abs, [-3, 2, -1]))
    [3, 2, 1]
    """
    if is_remote(workers, scheduler):
        if find_spec("distributed") is None:
            raise ConfigError("dask.distributed is not installed; pip install 'liquidation-backtest[dask]'")
        from backtest.runs.executors.dask_cluster import local_cluster, scheduler_at

        if scheduler is not None:
            if workers is not None:
                raise ConfigError(f"a scheduler has workers of its own; leave out workers, or scheduler; got {workers}")
            return scheduler_at(scheduler)
        found = re.fullmatch(r"dask:([1-9]\d{0,3})", str(workers))
        if found is None:
            raise ConfigError(
                f"workers must be a number of threads, or 'dask:N' with 1 to 9999 processes; got {workers!r}"
            )
        return local_cluster(int(found[1]))
    count = workers if isinstance(workers, int) else os.cpu_count() or 1
    if count < 1:
        raise ConfigError(f"workers must be ≥ 1; got {count}")
    return threads(count)


def worker_count(workers: int | str | None) -> int:
    """Requested threads, or processes of this machine."""
    return int(str(workers).removeprefix("dask:")) if workers is not None else os.cpu_count() or 1


def is_remote(workers: int | str | None, scheduler: str | None) -> bool:
    """Whether other processes count; they read the histories themselves."""
    return scheduler is not None or isinstance(workers, str)
