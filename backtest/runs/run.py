"""Blocks of work → executor → merged tables → run directory."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from backtest.config.models import Config, Data, Entries, Margin, Statistics, Sweep
from backtest.config.portfolio_scenarios import PortfolioScenario
from backtest.config.resolve import has_own_leverage, resolve_config
from backtest.config.scenarios import Scenario, horizon_bars
from backtest.data.history import PriceHistory
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Place, Remote, to_place, writing
from backtest.logs import tell
from backtest.progress import run_progress
from backtest.runs.checkpoint import FIT, RATES, JobFiles, Journal, Stamps
from backtest.runs.executors import Executor, is_remote, make_executor, worker_count
from backtest.runs.inputs import HistorySource, list_sources, refuse_unfit
from backtest.runs.memory import TABLE_S_PER_ROW, Budget, make_budget, memory_allowed
from backtest.runs.plan import differences, make_plan
from backtest.runs.result import Result, load
from backtest.runs.run_directory import Destination, refuse_existing
from backtest.runs.scheduler import ActiveJob, Background, CountedGroup, groups_at_once, groups_counted, summarise_data
from backtest.runs.tables import outcome_rows, point_axes, rate_rows
from backtest.runs.tasks import Job, Labels, make_jobs, run_scenarios, wants_outcomes
from backtest.runs.worker_task import counting, readable
from backtest.stats.schema import outcome_schema, survival_schema

TABLES = "writing tables"
WAITING = 64
"""Finished groups that wait to be written, at most; 0: none is counted meanwhile."""


def run(
    source: str | Path | PriceHistory | Sequence[PriceHistory],
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
        in stretches. Results do not depend on it.
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
    place = None if out is None else to_place(out)
    if isinstance(place, Path) and not place.name:  # "." has no neighbours
        place = place.absolute()
    keep = None if isinstance(place, Path) else TemporaryDirectory(prefix="backtest-")
    target = Path(keep.name) / "run" if keep else Path(str(place))
    to = Destination(target if place is None else place, target, lasting=place is not None)
    executing = make_executor(workers, scheduler)
    elsewhere = is_remote(workers, scheduler)
    budget = make_budget(memory_allowed(memory), worker_count(workers))
    if elsewhere and config.data.path is None:
        raise ConfigError(
            "a history in memory is not sent to other processes; put it into a dataset that all of them see "
            "(backtest.write_history), or leave out scheduler and dask"
        )
    if resume and place is None:
        raise ConfigError("resume goes with a run directory, beside which an unfinished run is kept; name one with out")
    if to.there.exists() and not resume:
        refuse_existing(to.there, overwrite)
    with to.taken():
        scenarios, sources = run_scenarios(config), list_sources(source, config)
        plan = make_plan(config, list(_read_by(scenarios, sources)))
        if resume and to.there.exists() and not to.kept:
            return _finished(to.there, config, plan, scenarios, sources, budget.most_bars)
        journal = to.begin(plan, resume=resume, overwrite=overwrite)
        with to.filled(journal), executing as executor:
            if elsewhere:
                executor.require(readable(config))
            info = _write(journal, config, plan, scenarios, sources, executor, budget, elsewhere=elsewhere)
    return Result(target, info, keep, place if isinstance(place, Remote) else None)


def _finished(
    there: Place,
    config: Config,
    plan: dict[str, Any],
    scenarios: Sequence[Scenario | PortfolioScenario],
    sources: Sequence[HistorySource],
    most_bars: int,
) -> Result:
    """A run that is resumed when it is done: itself, if it is the one that is meant."""
    done = load(there)
    found = differences({key: done.info.get(key, value) for key, value in plan.items()}, plan)
    stamps = _stamps(scenarios, sources)
    for name, begin in () if found else make_jobs(config, scenarios, sources, most_bars):
        known = done.info.get("stamps", {})
        if any(stamp is None or stamp != known.get(symbol) for symbol, stamp in stamps[name].items()):
            read = summarise_data(begin()).prints()
            found += differences(
                {"data": {symbol: done.info["fingerprint"].get(symbol) for symbol in read}}, {"data": read}
            )
    if found:
        raise ConfigError(
            f"{there}: is a finished run that differs in {'; '.join(found)}: begin anew with --overwrite and without "
            "--resume, or choose another directory"
        )
    return done


def _write(
    journal: Journal,
    config: Config,
    plan: dict[str, Any],
    scenarios: Sequence[Scenario | PortfolioScenario],
    sources: Sequence[HistorySource],
    executor: Executor,
    budget: Budget,
    *,
    elsewhere: bool,
) -> dict[str, Any]:
    """Do the work and fill a run directory; return what stands in its run.json."""
    from backtest.stats.binomial_interval import check_confidence

    check_confidence(config.statistics.confidence)
    horizon_bars(config.sweep, sources[0].interval_ms)
    wall, cpu = time.perf_counter(), time.process_time()
    info: dict[str, Any] = {
        **plan,
        "interval_ms": sources[0].interval_ms,
        "versions": _versions(),
        "own_leverage": has_own_leverage(config),
    }
    jobs, stamps = make_jobs(config, scenarios, sources, budget.most_bars), _stamps(scenarios, sources)
    files = JobFiles(journal, config, stamps, point_axes(info))
    done = {name: files.finished(name) for name, _ in jobs}
    left = [(name, begin) for name, begin in jobs if done[name] is None]
    sizes = {"symbols": len(jobs), "symbols_kept": len(jobs) - len(left)}
    tell("run begun", {**sizes, "scenarios": len(scenarios), "workers": executor.workers, "out": str(journal.folder)})
    if any(None in read.values() for read in stamps.values()) or journal.kept(FIT, stamps) is None:
        refuse_unfit(config, sources, left)
        with writing(journal.folder):
            journal.keep(FIT, stamps, [], {})
    fresh = {name for name, _ in left}
    rows = len(jobs) * len(scenarios) * files.axes.num_rows * TABLE_S_PER_ROW * executor.workers
    lengths = {source.symbol: source.size() for source in sources}
    expected = {name: sum(lengths.get(symbol, 1.0) for symbol in stamps[name]) for name in fresh}

    def keep(one: CountedGroup | ActiveJob) -> None:
        if isinstance(one, CountedGroup):
            files.keep_group(one)
        else:
            _refuse_changed(one.job, stamps, sources)
            done[one.job.symbol] = files.keep_job(one)

    with run_progress(expected, {TABLES: rows}) as progress:
        count = counting(config, budget.most_bars)
        with Background() as behind:
            for one in groups_counted(
                left, executor, count, files.left, budget.table_bytes, progress, elsewhere=elsewhere
            ):
                job = one.running.job if isinstance(one, CountedGroup) else one.job
                behind.do(partial(keep, one), min(WAITING, groups_at_once(job, budget.table_bytes)))
            behind.finish()
        with writing(journal.folder):
            journal.drop_others()
            info |= _joined(done, fresh, stamps)
            progress.begin(TABLES, TABLES, rows)
            _write_tables(journal.run, journal.folder / RATES, config, scenarios[0].columns(), info)
            kept = [task for task in info["tasks"] if task["kept"]]
            info["wall_seconds"] = round(time.perf_counter() - wall + sum(task["seconds"] for task in kept), 3)
            info["cpu_seconds"] = round(time.process_time() - cpu + sum(task["cpu_seconds"] for task in kept), 3)
            info["workers"] = executor.workers
            info["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            (journal.run / "run.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    tell("run finished", {name: info[name] for name in ("verdicts", "wall_seconds", "cpu_seconds")})
    return info


def _joined(
    done: Mapping[str, dict[str, Any] | None], fresh: Collection[str], stamps: Mapping[str, Stamps]
) -> dict[str, Any]:
    """What all jobs add to run.json."""
    out: dict[str, Any] = {"fingerprint": {}, "stamps": {}, "coverage": [], "verdicts": 0, "blocks": [], "tasks": []}
    for name, adds in done.items():
        if adds is None:
            raise AssertionError(f"{name} is not counted")
        out["fingerprint"] |= adds["fingerprint"]
        out["stamps"] |= stamps[name]
        out["coverage"].append(adds["coverage"])
        out["blocks"] += adds["blocks"]
        out["tasks"] += adds["tasks"] if name in fresh else [{**task, "kept": True} for task in adds["tasks"]]
    out["verdicts"] = sum(task["verdicts"] for task in out["tasks"])
    return out


def _refuse_changed(job: Job, stamps: Mapping[str, Stamps], sources: Sequence[HistorySource]) -> None:
    """A history that is read in stretches must be the same in all of them."""
    if job.parts == 1:
        return
    (source,) = (source for source in sources if source.symbol == job.symbol)
    if source.stamp() != stamps[job.symbol][job.symbol]:
        raise DataError(f"{job.symbol}: its files were written while the run read them; go on with --resume")


def _write_tables(folder: Path, rates: Path, config: Config, labels: Labels, info: dict[str, Any]) -> None:
    """Write the tables that follow from the counts."""
    with pq.ParquetWriter(folder / "survival.parquet", survival_schema(labels), compression="zstd") as writer:
        for rows in rate_rows(rates, info):
            writer.write_table(rows)
    if wants_outcomes(config):
        with pq.ParquetWriter(folder / "outcomes.parquet", outcome_schema(labels), compression="zstd") as writer:
            for batch in outcome_rows(folder, info):
                writer.write_batch(batch)


def _stamps(
    scenarios: Sequence[Scenario | PortfolioScenario], sources: Sequence[HistorySource]
) -> dict[str, dict[str, str | None]]:
    """What is known of the histories of each symbol or portfolio before they are read."""
    found = {source.symbol: source.stamp() for source in sources}
    read_by = _read_by(scenarios, sources)
    return {name: {symbol: found.get(symbol) for symbol in symbols} for name, symbols in read_by.items()}


def _read_by(
    scenarios: Sequence[Scenario | PortfolioScenario], sources: Sequence[HistorySource]
) -> dict[str, tuple[str, ...]]:
    """The symbols that each job reads: itself, or the legs of a portfolio."""
    legs = {s.portfolio.label: s.portfolio.symbols for s in scenarios if isinstance(s, PortfolioScenario)}
    return legs or {source.symbol: (source.symbol,) for source in sources}


def _versions() -> dict[str, str]:
    names = ("liquidation-backtest", "numpy", "numba", "pyarrow", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
