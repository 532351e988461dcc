"""Blocks of work → executor → merged tables → run directory."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backtest.columns import outcome_schema, survival_schema
from backtest.config import Config, Data, Entries, Margin, Statistics, Sweep
from backtest.errors import ConfigError
from backtest.executors import Executor, executor_of, is_elsewhere
from backtest.history import PriceHistory
from backtest.jobs import (
    Counting,
    Job,
    Labels,
    counting,
    fingerprint,
    jobs_of,
    readable,
    reading,
    scenarios_of_run,
    wants_outcomes,
)
from backtest.journal import FIT, SYMBOLS, TASKS, Journal, differences, plan_of
from backtest.logs import LOG, tell
from backtest.places import Place, Remote, place_of
from backtest.placing import Destination, refuse_existing, writing
from backtest.portfolio import CrossScenario
from backtest.progress import progress
from backtest.regime_tables import file_of, stem_of, write_cells
from backtest.results import Result, load
from backtest.run_tables import axes_of, outcome_rows, survival_rows, write_blocks
from backtest.sources import Source, config_of, has_own_leverage, refuse_unfit, sources_named
from backtest.survival import Tables, merged
from backtest.sweep import Scenario, horizon_bars
from backtest.units import instant_text


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
    config = config_of(source, sweep, data, entries, margin, statistics)
    place = None if out is None else place_of(out)
    if isinstance(place, Path) and not place.name:  # "." has no neighbours
        place = place.absolute()
    keep = None if isinstance(place, Path) else TemporaryDirectory(prefix="backtest-")
    target = Path(keep.name) / "run" if keep else Path(str(place))
    to = Destination(target if place is None else place, target, lasting=place is not None)
    executing = executor_of(workers, scheduler)
    if is_elsewhere(workers, scheduler) and config.data.path is None:
        raise ConfigError(
            "a history in memory is not sent to other processes; put it into a dataset that all of them see "
            "(backtest.write_history), or leave out scheduler and dask"
        )
    if resume and place is None:
        raise ConfigError("resume goes with a run directory, beside which an unfinished run is kept; name one with out")
    if to.there.exists() and not resume:
        refuse_existing(to.there, overwrite)
    with to.taken():
        scenarios, sources = scenarios_of_run(config), sources_named(source, config)
        plan = plan_of(config, list(_read_by(scenarios, sources)))
        if resume and to.there.exists() and not to.kept:
            return _finished(to.there, config, plan, scenarios, sources)
        journal = to.begin(plan, resume=resume, overwrite=overwrite)
        with to.filled(journal), executing as executor:
            if is_elsewhere(workers, scheduler):
                executor.require(readable(config))
            info = _write(journal, config, plan, scenarios, sources, executor)
    return Result(target, info, keep, place if isinstance(place, Remote) else None)


def _finished(
    there: Place,
    config: Config,
    plan: dict[str, Any],
    scenarios: Sequence[Scenario | CrossScenario],
    sources: Sequence[Source],
) -> Result:
    """A run that is resumed when it is done: itself, if it is the one that is meant."""
    done = load(there)
    found = differences({key: done.info.get(key, value) for key, value in plan.items()}, plan)
    stamps = _stamps(scenarios, sources)
    for name, begin in () if found else jobs_of(config, scenarios, sources):
        known = done.info.get("stamps", {})
        if any(stamp is None or stamp != known.get(symbol) for symbol, stamp in stamps[name].items()):
            read = {grid.symbol: fingerprint(grid) for grid in begin().grids}
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
    scenarios: Sequence[Scenario | CrossScenario],
    sources: Sequence[Source],
    executor: Executor,
) -> dict[str, Any]:
    """Do the work and fill a run directory; return what stands in its run.json."""
    from backtest.intervals import check_confidence

    check_confidence(config.statistics.confidence)
    horizon_bars(config.sweep, sources[0].interval_ms)
    wall, cpu = time.perf_counter(), time.process_time()
    info: dict[str, Any] = {
        **plan,
        "interval_ms": sources[0].interval_ms,
        "versions": _versions(),
        "fingerprint": {},
        "stamps": {},
        "coverage": [],
        "own_leverage": has_own_leverage(config),
        "verdicts": 0,
        "blocks": [],
        "tasks": [],
    }
    jobs, stamps, axes = jobs_of(config, scenarios, sources), _stamps(scenarios, sources), axes_of(info)
    entries = {name: f"{SYMBOLS}/{stem_of(name)}" for name, _ in jobs}
    done = {n: None if None in stamps[n].values() else journal.kept(e, stamps[n]) for n, e in entries.items()}
    sizes = {"symbols": len(jobs), "symbols_kept": sum(one is not None for one in done.values())}
    tell("run begun", {**sizes, "scenarios": len(scenarios), "workers": executor.workers, "out": str(journal.folder)})
    if any(None in read.values() for read in stamps.values()) or journal.kept(FIT, stamps) is None:
        refuse_unfit(config, sources, [name for name, adds in done.items() if adds is not None])
        with writing(journal.folder):
            journal.keep(FIT, stamps, [], {})
    for number, (name, begin) in enumerate(jobs):
        label = f"{name} ({number + 1}/{len(jobs)})" if len(jobs) > 1 else name
        if done[name] is None:
            executor.ahead(reading(config, name))  # while it is read here
        adds = done[name] or _write_job(journal, config, begin(), stamps[name], axes, label, executor)
        info["fingerprint"] |= adds["fingerprint"]
        info["stamps"] |= stamps[name]
        info["coverage"].append(adds["coverage"])
        info["blocks"] += adds["blocks"]
        info["tasks"] += [{**task, "kept": True} for task in adds["tasks"]] if done[name] else adds["tasks"]
    info["verdicts"] = sum(task["verdicts"] for task in info["tasks"])
    kept = [task for task in info["tasks"] if task["kept"]]
    with writing(journal.folder):
        journal.drop_others()
        _write_tables(journal.run, config, scenarios[0].columns(), info)
        info["wall_seconds"] = round(time.perf_counter() - wall + sum(task["seconds"] for task in kept), 3)
        info["cpu_seconds"] = round(time.process_time() - cpu + sum(task["cpu_seconds"] for task in kept), 3)
        info["workers"] = executor.workers
        info["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (journal.run / "run.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    tell("run finished", {name: info[name] for name in ("verdicts", "wall_seconds", "cpu_seconds")})
    return info


def _write_tables(folder: Path, config: Config, labels: Labels, info: dict[str, Any]) -> None:
    """Write the tables that follow from the counts in ``blocks/``."""
    with pq.ParquetWriter(folder / "survival.parquet", survival_schema(labels), compression="zstd") as writer:
        for batch in survival_rows(folder, info, config.statistics.confidence):
            writer.write_batch(batch)
    if wants_outcomes(config):
        with pq.ParquetWriter(folder / "outcomes.parquet", outcome_schema(labels), compression="zstd") as writer:
            for batch in outcome_rows(folder, info):
                writer.write_batch(batch)


def _stamps(
    scenarios: Sequence[Scenario | CrossScenario], sources: Sequence[Source]
) -> dict[str, dict[str, str | None]]:
    """What is known of the histories of each symbol or portfolio before they are read."""
    found = {source.symbol: source.stamp() for source in sources}
    read_by = _read_by(scenarios, sources)
    return {name: {symbol: found.get(symbol) for symbol in symbols} for name, symbols in read_by.items()}


def _read_by(scenarios: Sequence[Scenario | CrossScenario], sources: Sequence[Source]) -> dict[str, tuple[str, ...]]:
    """The symbols that each job reads: itself, or the legs of a portfolio."""
    legs = {s.portfolio.label: s.portfolio.symbols for s in scenarios if isinstance(s, CrossScenario)}
    return legs or {source.symbol: (source.symbol,) for source in sources}


def _write_job(
    journal: Journal,
    config: Config,
    job: Job,
    stamps: dict[str, str | None],
    axes: pa.Table,
    label: str,
    executor: Executor,
) -> dict[str, Any]:
    """Count one job and write its blocks, a file per group of scenarios; what was kept of it is taken as it is.

    Returns what it adds to run.json.
    """
    prints = {grid.symbol: fingerprint(grid) for grid in job.grids}
    names = [f"{stem_of(job.symbol)}-{n:05d}" for n in range(len(job.groups))]
    depends = [{"data": prints, "scenarios": [job.scenarios[i] for i in members]} for members in job.groups]
    done = [journal.kept(f"{TASKS}/{name}", on) for name, on in zip(names, depends, strict=True)]
    left = [n for n, adds in enumerate(done) if adds is None]
    for symbol in _changed(journal, [names[n] for n in left], prints):
        LOG.warning(f"{symbol}: its data have changed since its first tasks were finished; it is counted anew")
    sizes = {"bars": job.work.grid.n_bars, "entries": int(job.work.bars.size), "tasks": len(names)}
    tell("symbol begun", {"symbol": job.symbol, **sizes, "tasks_kept": len(names) - len(left)})
    chunks, count = len(job.work.chunks()), counting(config, job, prints)
    with progress(f"sweeping {label}", len(names) * chunks) as advance:
        advance((len(names) - len(left)) * chunks)
        counted = _tables(job, [job.groups[n] for n in left], executor, count, advance)
        wall, cpu = time.perf_counter(), time.process_time()
        for n, tables in zip(left, counted, strict=True):
            with writing(journal.folder):
                files = _write_group(journal.run / "blocks", names[n], job, job.groups[n], tables, axes)
            table = tables[0]
            task = {
                "task": names[n],
                "scenarios": len(job.groups[n]),
                "rows": len(job.groups[n]) * axes.num_rows,
                "verdicts": int(table["entries"].sum() + table["rejected"].sum()),
                "seconds": round(time.perf_counter() - wall, 3),
                "cpu_seconds": round(time.process_time() - cpu, 3),
            }
            wall, cpu = time.perf_counter(), time.process_time()
            excluded = table["excluded"][0, :, 0].sum(axis=-1).tolist()
            done[n] = adds = {"task": task, "of": len(names), "data": prints, "excluded": excluded}
            with writing(journal.folder):
                journal.keep(f"{TASKS}/{names[n]}", depends[n], files, adds)
            tell("task finished", task)
    finished = [adds for adds in done if adds is not None]
    files = [file for name in names for file in journal.files(f"{TASKS}/{name}")]
    adds = {
        "fingerprint": prints,
        "coverage": _coverage(config, job, finished[0]["excluded"]),
        "blocks": _placed(job, names),
        "tasks": [{**adds["task"], "kept": n not in left} for n, adds in enumerate(finished)],
    }
    with writing(journal.folder):
        files.append(write_cells(journal.run / "blocks", job.symbol, job.work.regimes))
        journal.keep(f"{SYMBOLS}/{stem_of(job.symbol)}", stamps, files, adds)
    return adds


def _changed(journal: Journal, names: Sequence[str], prints: dict[str, str]) -> list[str]:
    """Symbols whose data are not those that tasks of these names were finished with."""
    before = [journal.before(f"{TASKS}/{name}").get("adds", {}).get("data", {}) for name in names]
    return [symbol for symbol, digest in prints.items() if any(data.get(symbol, digest) != digest for data in before)]


def _placed(job: Job, names: Sequence[str]) -> list[dict[str, Any]]:
    """Where the counts of each scenario of a job lie."""
    placed: dict[int, dict[str, Any]] = {}
    for name, members in zip(names, job.groups, strict=True):
        for row, i in enumerate(members):
            where = {"symbol": job.symbol, "scenario": job.scenarios[i], "file": f"{name}.parquet", "row_group": row}
            placed[i] = where
    return [placed[i] for i in range(len(job.scenarios))]


def _write_group(
    folder: Path, name: str, job: Job, members: Sequence[int], tables: Tables, axes: pa.Table
) -> list[Path]:
    """Write the counts of a group by calendar block and by each regime; return the files."""
    columns, file = [job.scenarios[i] for i in members], folder / f"{name}.parquet"
    write_blocks(file, tables[0], columns, axes, job.work.block_ms)
    files = [file]
    for cells, counted in zip(job.work.regimes, tables[1:], strict=True):
        files.append(folder / file_of(file.name, cells.regime))
        write_blocks(files[-1], counted, columns, axes)
    return files


def _tables(
    job: Job, groups: Sequence[list[int]], executor: Executor, count: Counting, advance: Callable[[int], None]
) -> Iterator[Tables]:
    """The merged tables of each group, in order."""
    chunks = job.work.chunks()
    parts = executor.map(count, ((members, chunk) for members in groups for chunk in chunks))
    for _ in groups:
        total = next(parts)
        advance(1)
        for _ in chunks[1:]:
            total = merged(total, next(parts))
            advance(1)
        yield total


def _coverage(config: Config, job: Job, excluded: Sequence[int]) -> dict[str, Any]:
    """What a reader must know of a job's data."""
    grid = job.work.grid
    present = int(grid.has_trigger.sum())
    return {
        "symbol": job.symbol,
        "first": instant_text(grid.start_ms),
        "last": instant_text(grid.start_ms + (grid.n_bars - 1) * grid.interval_ms),
        "bars": grid.n_bars,
        "present_bars": present,
        "missing_bars": grid.n_bars - present,
        "longest_gap_bars": grid.longest_gap(),
        "trigger": grid.trigger,
        "funding_charges": sum(int(one.charge_bar.size) for one in job.grids),
        "entries": int(job.work.bars.size),
        "excluded": dict(zip(config.sweep.horizon, excluded, strict=True)),
        **({"cut": {symbol: list(bars) for symbol, bars in job.cut.items()}} if job.cut else {}),
    }


def _versions() -> dict[str, str]:
    names = ("liquidation-backtest", "numpy", "numba", "pyarrow", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
