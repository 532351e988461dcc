"""Blocks of work → executor → merged tables → run directory."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from backtest.columns import outcome_schema, survival_schema
from backtest.config import Config, Data, Entries, Margin, Statistics, Sweep
from backtest.errors import ConfigError
from backtest.executors.local import map_ordered
from backtest.history import Grid, PriceHistory
from backtest.jobs import Job, jobs_of, scenarios_of_run, wants_outcomes
from backtest.portfolio import CrossScenario
from backtest.progress import progress
from backtest.results import Result, axes_of, outcome_rows, survival_rows, write_blocks
from backtest.sources import Source, config_of, has_own_leverage, sources_of
from backtest.survival import SurvivalTable
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
    workers: int | None = None,
    overwrite: bool = False,
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
        Run directory; it appears whole or not at all. Default: a temporary one that lives as long as the result.
    workers : int, optional
        Threads; default: one per core. Results do not depend on it.
    overwrite : bool
        Replace `out` where it exists.

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
    keep = TemporaryDirectory(prefix="backtest-") if out is None else None
    target = Path(keep.name) / "run" if keep else Path(str(out))
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; choose another directory, or ask for --overwrite")
    if target.exists() and not (target / "run.json").is_file():
        raise ConfigError(f"{target}: is not a run directory and is not overwritten; choose another directory")
    threads = workers if workers is not None else os.cpu_count() or 1
    if threads < 1:
        raise ConfigError(f"workers must be ≥ 1; got {threads}")
    scenarios = scenarios_of_run(config)
    sources = sources_of(source, config)
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    with folders_for(target):
        try:
            (partial / "blocks").mkdir(parents=True)
            info = _write(partial, config, scenarios, sources, threads)
            _commit(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Result(target, info, keep)


@contextmanager
def folders_for(target: Path) -> Iterator[None]:
    """Make the folders that `target` lies in; where the work inside fails, those made are removed again."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in made:  # innermost first; one that something else moved into stays
            with suppress(OSError):
                folder.rmdir()
        raise


def default_directory(config: str | Path) -> Path:
    """``runs/<config stem>-<UTC time>``."""
    return Path("runs") / f"{Path(config).stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"


def _write(
    folder: Path,
    config: Config,
    scenarios: Sequence[Scenario | CrossScenario],
    sources: list[Source],
    workers: int,
) -> dict[str, Any]:
    """Do the work and fill a run directory; return what stands in its run.json."""
    from backtest.intervals import check_confidence

    check_confidence(config.statistics.confidence)
    horizon_bars(config.sweep, sources[0].interval_ms)
    wall, cpu = time.perf_counter(), time.process_time()
    info: dict[str, Any] = {
        "config": config.model_dump(mode="json", by_alias=True),
        "interval_ms": sources[0].interval_ms,
        "versions": _versions(),
        "fingerprint": {},
        "coverage": [],
        "own_leverage": has_own_leverage(config),
        "verdicts": 0,
        "blocks": [],
    }
    jobs = jobs_of(config, scenarios, sources)
    for number, (name, begin) in enumerate(jobs):
        _write_job(
            folder, config, begin(), info, f"{name} ({number + 1}/{len(jobs)})" if len(jobs) > 1 else name, workers
        )
    labels = scenarios[0].columns()
    with pq.ParquetWriter(folder / "survival.parquet", survival_schema(labels), compression="zstd") as writer:
        for batch in survival_rows(folder, info, config.statistics.confidence):
            writer.write_batch(batch)
    if wants_outcomes(config):
        with pq.ParquetWriter(folder / "outcomes.parquet", outcome_schema(labels), compression="zstd") as writer:
            for batch in outcome_rows(folder, info):
                writer.write_batch(batch)
    info["wall_seconds"] = round(time.perf_counter() - wall, 3)
    info["cpu_seconds"] = round(time.process_time() - cpu, 3)
    info["workers"] = workers
    (folder / "run.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    return info


def _write_job(folder: Path, config: Config, job: Job, info: dict[str, Any], label: str, workers: int) -> None:
    """Count one job and write its blocks, a file per group of scenarios."""
    for grid in job.grids:
        info["fingerprint"][grid.symbol] = fingerprint(grid)
    axes = axes_of(info)
    written: dict[int, dict[str, Any]] = {}
    first: SurvivalTable | None = None
    with progress(f"sweeping {label}", len(job.groups) * len(job.work.chunks())) as advance:
        for n, (members, table) in enumerate(zip(job.groups, _tables(job, workers, advance), strict=True)):
            first = first or table
            name = f"{quote(job.symbol, safe='')}-{n:05d}.parquet"
            columns = [job.scenarios[i] for i in members]
            write_blocks(folder / "blocks" / name, table, columns, axes, job.work.block_ms)
            info["verdicts"] += int(table["entries"].sum() + table["rejected"].sum())
            for row, i in enumerate(members):
                written[i] = {"symbol": job.symbol, "scenario": columns[row], "file": name, "row_group": row}
    info["blocks"] += [written[i] for i in range(len(job.scenarios))]
    assert first is not None
    info["coverage"].append(_coverage(config, job, first))


def _tables(job: Job, workers: int, advance: Callable[[int], None]) -> Iterator[SurvivalTable]:
    """The merged table of each group, in order."""
    chunks = job.work.chunks()

    def count(task: tuple[list[int], slice]) -> SurvivalTable:
        return job.count(*task)

    parts = map_ordered(count, ((members, chunk) for members in job.groups for chunk in chunks), workers)
    for _ in job.groups:
        total = next(parts)
        advance(1)
        for _ in chunks[1:]:
            total = total + next(parts)
            advance(1)
        yield total


def _coverage(config: Config, job: Job, table: SurvivalTable) -> dict[str, Any]:
    """What a reader must know of a job's data."""
    grid = job.work.grid
    present = int(grid.has_trigger.sum())
    excluded = table["excluded"][0, :, 0].sum(axis=-1)
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
        "excluded": dict(zip(config.sweep.horizon, (int(x) for x in excluded), strict=True)),
        **({"cut": {symbol: list(bars) for symbol, bars in job.cut.items()}} if job.cut else {}),
    }


def fingerprint(grid: Grid) -> str:
    """Digest of every number of a grid that a verdict can depend on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{grid.symbol} {grid.interval_ms} {grid.start_ms} {grid.trigger}".encode())
    arrays: Iterable[np.ndarray] = (
        grid.entry_price, grid.open, grid.high, grid.low, grid.close,
        grid.charge_bar, grid.charge_rate, grid.charge_price,
        *(() if grid.scale is None else (grid.scale,)), grid.last_open, grid.last_high, grid.last_low,
    )  # fmt: skip
    for values in arrays:
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    names = ("liquidation-backtest", "numpy", "numba", "pyarrow", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _commit(partial: Path, target: Path) -> None:
    """Put a finished directory in its place; an old one goes only when the new one is there."""
    old = partial.with_suffix(".old")
    if target.exists():
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
