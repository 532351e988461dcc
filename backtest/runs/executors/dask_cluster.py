"""Worker processes through dask.distributed, on this machine or many. They read the data themselves."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import pickle
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Generic, TypeVar

from backtest.errors import BacktestError, ConfigError, DataError
from backtest.logs import LOG
from backtest.runs.executors import dask_plugin
from backtest.runs.executors.thread_pool import keep_memory
from backtest.runs.plan import code_version

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

ANSWER_S = 10.0
"""A scheduler that does not answer within it counts as absent."""
PATIENCE_S = 300.0
"""Time to wait for new workers, or a new scheduler, when all are lost."""
AHEAD = 3
"""Batches in work per worker: enough that none waits, few enough to bound memory."""
POLL_S = 1.0
"""How often scheduler and workers are checked."""
BATCH_S = 0.5
"""Aim for the length of a batch: sending one costs some hundredths of a second."""
SCHEDULED_S = 0.01
"""Time this process needs per batch; with many workers batches are longer, so that it keeps up."""
MOST_PER_BATCH = 64
GO_ON = "finished tasks of a local run directory are kept; go on with --resume"


class Lost(Exception):
    """The scheduler no longer answers, or is another one."""


@contextmanager
def scheduler_at(address: str) -> Iterator[Cluster]:
    """The workers of a running scheduler."""
    keep_memory()
    with quiet():
        cluster = Cluster(address)
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def local_cluster(count: int) -> Iterator[Cluster]:
    """Worker processes of this machine, one item at a time each; one that dies is started again."""
    import dask
    from distributed import LocalCluster

    settings: dict[str, object] = {
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.worker.profile.enabled": False,  # nobody reads its output, and it takes a twentieth of a core
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.worker.memory.monitor-interval": "1s",
        "distributed.client.direct-to-workers": True,  # results do not pass through the scheduler
    }
    with quiet(), dask.config.set(settings):
        try:
            processes = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                host="127.0.0.1",
                memory_limit=1 / count,  # of the machine's; dask would give each its share of the cores
                dashboard_address="127.0.0.1:0",  # None would take a port that others use
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
                preload=[dask_plugin.__name__],
            )
        except RuntimeError as error:
            raise ConfigError(
                f"dask:{count}: the processes did not start ({error}); in a script, backtest.run is called below "
                'if __name__ == "__main__", as each process reads the script'
            ) from None
        with processes, scheduler_at(processes.scheduler_address) as cluster:
            yield cluster


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the many messages of dask about lost connections; one line is logged here instead."""
    import distributed  # sets the levels of its loggers

    loggers = [logging.getLogger(f"{distributed.__name__}{part}") for part in ("", ".client", ".gc")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@dataclass
class Batch(Generic[T]):
    """Items that are sent together; `future` is None until they are, and again when their scheduler is lost."""

    items: list[T]
    future: Future | None = None


class Cluster:
    """The executor of a scheduler's workers.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    ConfigError
        If nobody answers there, there are no workers, or somebody has other code.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        if not re.fullmatch(r"((tcp|tls|wss?|ucx)://)?[^/\s]+:\d+/?", address):
            raise ConfigError(f"scheduler must be an address such as tcp://10.0.0.1:8786; got {address!r}")
        self._seen = (-POLL_S, 0)  # when the workers were counted, and how many they were
        self._ahead: deque[list[Future]] = deque(maxlen=2)
        try:
            self._client = self._joined()
        except Lost as error:
            raise ConfigError(
                f"{address}: a scheduler of dask.distributed is expected there, and none answers within "
                f"{ANSWER_S:g} s ({error}); start one with `dask scheduler`, or take --workers dask:N"
            ) from None
        try:
            if not self.workers:
                raise ConfigError(
                    f"{address}: the scheduler has 0 workers, at least 1 is expected; start some with "
                    f"`dask worker {address}`"
                )
            self._check_code()
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Threads of all workers; counted again each second while the scheduler answers."""
        with suppress(Lost):
            return self._counted()
        return self._seen[1]

    def _counted(self) -> int:
        when, count = self._seen
        if time.monotonic() - when >= POLL_S:
            with self._asking():
                count = sum(self._client.nthreads().values())
            self._seen = (time.monotonic(), count)
        return count

    def require(self, condition: Callable[[], None]) -> None:
        """Call a check on every worker; an error there is raised here with the name of the worker.

        Workers that join later are not asked: functions check what they need themselves.
        """
        for name, found in self._run_everywhere(condition).items():
            if isinstance(found, BacktestError):
                raise type(found)(f"worker {name}: {found}")
            if isinstance(found, Exception) and not _is_gone(found):
                raise found

    def ahead(self, action: Callable[[], object]) -> None:
        """Let each worker prepare its next items, without waiting; a failure there is ignored."""
        pickled = pickle.dumps(action)
        with suppress(Lost), self._asking():
            workers = self._client.nthreads()
            self._ahead.append(
                [self._client.submit(dask_plugin.once, pickled, workers=[name], pure=False) for name in workers]
            )

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the order of the items.

        Function and items are pickled. A batch whose worker is lost is worked on by another; one whose scheduler is
        lost is sent to the next. A result is that of one call, however often it was begun.

        Raises
        ------
        DataError
            If there is no worker, or no scheduler, for `PATIENCE_S`.
        """
        pickled, rest, size = pickle.dumps(function), iter(items), 1
        batches: deque[Batch[T]] = deque()
        while True:
            try:
                while len(batches) < AHEAD * max(1, self._counted()) and (some := list(islice(rest, size))):
                    batches.append(Batch(some))
                for batch in batches:
                    if batch.future is None:
                        with self._asking():
                            batch.future = self._client.submit(dask_plugin.each, pickled, batch.items, pure=False)
                if not batches:
                    return
                results: list[R]
                results, seconds = self._result(batches[0].future)
            except Lost:
                for batch in batches:
                    batch.future = None
                self._rejoin()
                continue
            wanted_s = max(BATCH_S, SCHEDULED_S * self._seen[1])
            size = max(1, min(MOST_PER_BATCH, int(wanted_s * len(results) / max(seconds, 1e-6))))
            batches.popleft()
            yield from results

    def close(self) -> None:
        """Leave the scheduler; work in progress is dropped."""
        with suppress(OSError, TimeoutError, CancelledError, RuntimeError):
            self._client.close(timeout=ANSWER_S)

    def _joined(self) -> Client:
        """Connect to the scheduler; another program at that address may answer nothing, or nonsense."""
        made: list[Client] = []
        failed: list[Exception] = []

        def join() -> None:
            import dask
            from distributed import Client

            class Joined(Client):  # type: ignore[misc]
                def __del__(self) -> None:
                    """One that was never connected would wait to be closed."""

            try:
                with dask.config.set({"distributed.comm.timeouts.connect": ANSWER_S}):
                    made.append(Joined(self.address, timeout=ANSWER_S, set_as_default=False))
            except (OSError, ValueError, TypeError, MemoryError) as error:
                failed.append(error)

        thread = Thread(target=join, daemon=True)
        thread.start()
        thread.join(2 * ANSWER_S)
        if made:
            return made[0]
        raise Lost(str(failed[0]).strip().split("\n")[0] if failed else "what listens there says nothing")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of a scheduler that goes away into `Lost`."""
        if self._client.status != "running":
            raise Lost
        try:
            yield
        except (OSError, CancelledError) as error:
            raise Lost(str(error)) from None
        except (RuntimeError, AttributeError):  # of a client that was closed when its scheduler went
            if self._client.status == "running":
                raise
            raise Lost from None

    def _run_everywhere(self, function: Callable[[], object]) -> dict[str, object]:
        """The result or the error of a function on each current worker."""
        while True:
            try:
                with self._asking():
                    return dict(self._client.run(function, on_error="return"))
            except Lost:
                self._rejoin()

    def _check_code(self) -> None:
        expected = code_version()
        found = self._run_everywhere(code_version)
        try:
            found["scheduler"] = self._client.run_on_scheduler(code_version)
        except Exception as error:  # whatever its Python says of a package it does not have
            found["scheduler"] = error
        for place, there in found.items():
            if there != expected and not _is_gone(there):
                what = f"cannot load the package ({there})" if isinstance(there, Exception) else f"has {there}"
                where = place if place == "scheduler" else f"worker {place}"
                raise ConfigError(
                    f"{self.address}: {where} {what}; expected {expected}; install the same versions of "
                    "liquidation-backtest, numpy, numba, scipy and pyarrow everywhere"
                )

    def _result(self, future: Future) -> tuple[list[R], float]:
        """The result of a batch; waits for workers if there are none."""
        alone_since, client = None, self._client
        gathering: concurrent.futures.Future[tuple[list[R], float]] | None = None
        while True:
            if client.status != "running" or future.status in ("cancelled", "lost"):
                raise Lost
            if gathering is None:  # beside this thread, which looks meanwhile whether anybody is there
                asked = client.gather(future, asynchronous=True)
                gathering = asyncio.run_coroutine_threadsafe(asked, client.loop.asyncio_loop)
            concurrent.futures.wait([gathering], POLL_S)
            if gathering.done():
                error = CancelledError() if gathering.cancelled() else gathering.exception()
                if error is None:
                    return gathering.result()
                if future.status == "error":
                    self._complain(error)
                gathering = None  # a connection broke
                time.sleep(POLL_S)
            alone_since = self._patience(alone_since)

    def _patience(self, alone_since: float | None) -> float | None:
        """Since when there are no workers; raises after `PATIENCE_S`."""
        if self._counted():
            return None
        if alone_since is None:
            LOG.warning(f"{self.address}: all workers are lost; waiting up to {PATIENCE_S:g} s for new ones")
            return time.monotonic()
        if time.monotonic() - alone_since > PATIENCE_S:
            raise DataError(f"{self.address}: no worker came within {PATIENCE_S:g} s; start some; {GO_ON}")
        return alone_since

    def _rejoin(self) -> None:
        """Wait for a scheduler to answer at the address again."""
        LOG.warning(f"{self.address}: the scheduler is lost; waiting up to {PATIENCE_S:g} s for one to answer there")
        until = time.monotonic() + PATIENCE_S
        self.close()
        self._seen = (-POLL_S, 0)
        while time.monotonic() < until:
            try:
                self._client = self._joined()
            except Lost:
                time.sleep(POLL_S)
            else:
                LOG.warning(f"{self.address}: a scheduler answers again")
                return
        raise DataError(f"{self.address}: no scheduler answered within {PATIENCE_S:g} s; start one; {GO_ON}")

    def _complain(self, error: BaseException) -> None:
        """Raise the error of a batch."""
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            raise DataError(
                f"{self.address}: one piece of work took several workers down, one after the other (most likely out "
                f"of memory); give each worker more memory, or fewer threads; {GO_ON}"
            ) from None
        if isinstance(error, ImportError | AttributeError | pickle.UnpicklingError):
            raise ConfigError(
                f"{self.address}: a worker cannot load the package ({error}); install the same version everywhere; "
                f"{GO_ON}"
            ) from None
        raise error


def _is_gone(found: object) -> bool:
    """Whether a worker left while it was asked; other workers do its work."""
    return isinstance(found, OSError)
