"""Run a sweep: configuration → histories → jobs → counts → run directory → result."""

from __future__ import annotations

import json
import platform
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from backtest.config.models import Config, Data, Entries, Margin, Statistics, Sweep
from backtest.config.resolve import Histories, has_own_leverage, resolve_config
from backtest.errors import ConfigError
from backtest.filesystem import writing
from backtest.logs import tell
from backtest.progress import Progress, run_progress
from backtest.runs.checkpoint import RATES, RunFiles
from backtest.runs.count_files import RunCounts
from backtest.runs.executors import Executor, is_remote, make_executor, worker_count
from backtest.runs.memory import TABLE_S_PER_ROW, Budget, make_budget, memory_allowed
from backtest.runs.plan import differences, make_plan
from backtest.runs.result import Result, load
from backtest.runs.run_directory import Destination, refuse_existing
from backtest.runs.scheduler import Background, CountedGroup, Scheduler, groups_at_once, summarise_data
from backtest.runs.tables import outcome_rows, rate_rows
from backtest.runs.tasks import RunInputs, wants_outcomes
from backtest.runs.worker_task import make_counter, worker_check
from backtest.stats.binomial_interval import check_confidence
from backtest.stats.schema import outcome_schema, survival_schema

TABLES = "writing tables"
WAITING = 64
"""Finished groups that wait to be written, at most; 0: none is counted meanwhile."""


def run(
    source: Histories,
    sweep: Sweep | None = None,
    *,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    statistics: Statistics | None = None,
    out: str | Path | None = None,
    workers: int | str | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Result:
    """Sweep every scenario over every entry of every symbol.

    Parameters
    ----------
    source : path of a TOML file, or PriceHistory, or several, or path of a dataset
        A TOML file is a whole configuration; the other arguments up to `out` are then refused.
    sweep : Sweep
        The axes.
    data, entries, margin, statistics : optional
        As the tables of the configuration file.
    out : path, optional
        Run directory, local or at a URI; it appears whole or not at all. Default: a temporary one that lives as long as
        the result.
    workers : int or str, optional
        Threads, or ``"dask:N"`` for N processes of this machine; default: a thread per core. Results do not depend on
        it.
    scheduler : str, optional
        Address of a scheduler of dask.distributed, whose workers read the dataset themselves.
    memory : str, optional
        What this process may take, such as ``"2GiB"``; default: a quarter of the machine's. Longer histories are read
        in parts. Results do not depend on it.
    overwrite : bool
        Replace `out` where it exists, and what is kept of an unfinished run.
    resume : bool
        Go on with an unfinished run of the same configuration in `out`: finished parts are taken as they are.

    Returns
    -------
    Result

    Raises
    ------
    ConfigError, RuleError, DataError
        With key, rule and value.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> price = 100 + np.sin(np.arange(500.0))
    >>> bars = {"high": price + 1, "low": price - 1, "close": price}
    >>> history = bt.PriceHistory("WAVE", 3_600_000, 0, bars)
    >>> result = bt.run(history, bt.Sweep(leverage=[10, 25, 50], horizon=["1d"], maintenance=[0.005], side=["long"]))
    >>> result.survival()["1d"].round(3).tolist()
    [1.0, 1.0, 0.334]
    """
    config = resolve_config(source, sweep, data, entries, margin, statistics)
    check_confidence(config.statistics.confidence)
    workforce = make_executor(workers, scheduler)
    budget = make_budget(memory_allowed(memory), worker_count(workers))
    remote = is_remote(workers, scheduler)
    destination = Destination.at(out)
    _refuse_request(config, destination, remote=remote, resume=resume, overwrite=overwrite)
    with destination.taken():
        inputs = RunInputs.of(source, config)
        plan = make_plan(config, list(inputs.symbols_read))
        if resume and destination.finished:
            return confirm_same_run(load(destination.there), plan, inputs, budget)
        journal = destination.begin(plan, resume=resume, overwrite=overwrite)
        with destination.filled(journal), workforce as executor:
            if remote:
                executor.require(worker_check(config))
            files = RunFiles(journal, inputs, describe_run(plan, inputs))
            with run_progress(files.expected(), {TABLES: _table_seconds(files, executor.workers)}) as progress:
                spent = count_jobs(files, executor, budget, progress, remote=remote)
                info = write_run(files, spent, progress)
    return Result(destination.target, info, destination.keep, destination.remote)


def _refuse_request(config: Config, destination: Destination, *, remote: bool, resume: bool, overwrite: bool) -> None:
    """Refuse what cannot work, before anything is read."""
    if remote and config.data.path is None:
        raise ConfigError(
            "a history in memory is not sent to other processes; put it into a dataset that all of them see "
            "(backtest.write_history), or leave out scheduler and dask"
        )
    if resume and not destination.lasting:
        raise ConfigError("resume goes with a run directory, beside which an unfinished run is kept; name one with out")
    if destination.there.exists() and not resume:
        refuse_existing(destination.there, overwrite)


def confirm_same_run(done: Result, plan: dict[str, Any], inputs: RunInputs, budget: Budget) -> Result:
    """A finished run that is resumed: itself, if configuration, code and data are the same."""
    found = differences({key: done.info.get(key, value) for key, value in plan.items()}, plan)
    known = done.info.get("stamps", {})
    for name, begin in () if found else inputs.jobs(budget.most_bars):
        if any(stamp is None or stamp != known.get(symbol) for symbol, stamp in inputs.stamps(name).items()):
            read = summarise_data(begin()).prints()
            found += differences(
                {"data": {symbol: done.info["fingerprint"].get(symbol) for symbol in read}}, {"data": read}
            )
    if found:
        raise ConfigError(
            f"{done.place}: is a finished run that differs in {'; '.join(found)}: begin anew with --overwrite and "
            "without --resume, or choose another directory"
        )
    return done


def describe_run(plan: dict[str, Any], inputs: RunInputs) -> dict[str, Any]:
    """What run.json says of a run before anything is counted."""
    names = ("liquidation-backtest", "numpy", "numba", "pyarrow", "scipy")
    return {
        **plan,
        "interval_ms": inputs.interval_ms,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "own_leverage": has_own_leverage(inputs.config),
    }


def _table_seconds(files: RunFiles, workers: int) -> float:
    """About how long the tables take at the end, in seconds of all workers."""
    rows: int = len(files.done) * len(files.inputs.scenarios) * files.axes.num_rows
    return rows * TABLE_S_PER_ROW * workers


def count_jobs(
    files: RunFiles, executor: Executor, budget: Budget, progress: Progress, *, remote: bool
) -> dict[str, float]:
    """Count the jobs that are not kept, and keep their survival tables; return when this began, and the workers."""
    spent = {"wall": time.perf_counter(), "cpu": time.process_time(), "workers": executor.workers}
    jobs = files.inputs.jobs(budget.most_bars)
    left = [(name, begin) for name, begin in jobs if files.done[name] is None]
    sizes = {"symbols": len(jobs), "symbols_kept": len(jobs) - len(left), "scenarios": len(files.inputs.scenarios)}
    tell("run begun", {**sizes, "workers": executor.workers, "out": str(files.journal.folder)})
    files.refuse_unfit(left)
    counter = make_counter(files.config, budget.most_bars)
    scheduler = Scheduler(executor, counter, files.left, budget.table_bytes, progress, remote)
    with Background() as background:
        for counted in scheduler.counted(left):
            job = counted.running.job if isinstance(counted, CountedGroup) else counted.job
            background.do(partial(files.keep, counted), min(WAITING, groups_at_once(job, budget.table_bytes)))
        background.finish()
    return spent


def write_run(files: RunFiles, spent: dict[str, float], progress: Progress) -> dict[str, Any]:
    """Write the tables that follow from the counts, and run.json; return it."""
    progress.begin(TABLES, TABLES, _table_seconds(files, int(spent["workers"])))
    with writing(files.journal.folder):
        info = files.joined()
        write_tables(files, info)
        kept = [task for task in info["tasks"] if task["kept"]]
        wall = time.perf_counter() - spent["wall"] + sum(task["seconds"] for task in kept)
        cpu = time.process_time() - spent["cpu"] + sum(task["cpu_seconds"] for task in kept)
        info |= {"wall_seconds": round(wall, 3), "cpu_seconds": round(cpu, 3), "workers": int(spent["workers"])}
        info["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (files.journal.run / "run.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    tell("run finished", {name: info[name] for name in ("verdicts", "wall_seconds", "cpu_seconds")})
    return info


def write_tables(files: RunFiles, info: dict[str, Any]) -> None:
    """Write the tables that follow from the counts."""
    folder, labels = files.journal.run, files.inputs.scenarios[0].columns()
    counts = RunCounts(folder, info)
    with pq.ParquetWriter(folder / "survival.parquet", survival_schema(labels), compression="zstd") as writer:
        for rows in rate_rows(counts, files.journal.folder / RATES):
            writer.write_table(rows)
    if wants_outcomes(files.config):
        with pq.ParquetWriter(folder / "outcomes.parquet", outcome_schema(labels), compression="zstd") as writer:
            for batch in outcome_rows(counts):
                writer.write_batch(batch)
