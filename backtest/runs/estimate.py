"""What a run will take, before it begins: tasks, memory, time and disk, from footers and the configuration alone.

The constants are those of `backtest.runs.memory`: an estimate is of the right size, not of the second.
"""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from backtest.config.models import Config
from backtest.config.resolve import resolve_config
from backtest.config.scenarios import Scenario, group_scenarios, horizon_bars
from backtest.data.reader import BarFile
from backtest.engine.cohorts import CHUNK_BARS
from backtest.engine.prepare import open_time_range
from backtest.errors import ConfigError
from backtest.filesystem import to_place
from backtest.runs.chunked_input import needs_whole, own_bars
from backtest.runs.executors import worker_count
from backtest.runs.inputs import HistorySource, list_sources
from backtest.runs.memory import (
    BASE_BYTES,
    BYTES_PER_HELD_BAR,
    BYTES_PER_WORKER,
    DISK_BYTES_PER_CELL,
    DISK_BYTES_PER_ROW,
    PARTS,
    READ_S_PER_BAR,
    START_S,
    WRITE_S_PER_ROW,
    Budget,
    entry_seconds,
    make_budget,
    memory_allowed,
    memory_bytes,
)
from backtest.runs.tasks import CELLS_PER_TASK, cells_per_leverage, run_scenarios, wants_outcomes
from backtest.units import duration_ms


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    symbols, bars, entries, scenarios, horizons, leverages : int
        `bars` and `entries` of all symbols.
    passes : int
        Sights of the entries: groups of scenarios that are counted together, over all symbols.
    parts : int
        Stretches that histories are read in, over all symbols.
    tasks : int
        Chunks of entries × groups.
    verdicts : int
    memory_bytes : int
        At the peak.
    disk_bytes : int
        Of the run directory.
    seconds : float
        On so many workers.
    workers : int
    """

    symbols: int
    bars: int
    entries: int
    scenarios: int
    horizons: int
    leverages: int
    passes: int
    parts: int
    tasks: int
    verdicts: int
    memory_bytes: int
    disk_bytes: int
    seconds: float
    workers: int

    def as_dict(self) -> dict[str, int | float]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """For people."""
        return (
            f"plan: {self.symbols:,} symbol{'s' * (self.symbols != 1)}, {self.bars:,} bars, {self.entries:,} entries × "
            f"{self.scenarios:,} scenarios × {self.horizons} horizons × {self.leverages} leverages = "
            f"{self.verdicts:,} verdicts\n"
            f"      histories in {self.parts:,} part{'s' * (self.parts != 1)}, {self.tasks:,} tasks in {self.passes:,} "
            f"passes on {self.workers} workers; about {_clock(self.seconds)}, {_size(self.memory_bytes)} of memory, "
            f"{_size(self.disk_bytes)} of disk"
        )


def _size(count: float) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size // 10:
            return f"{count / size:.1f} {unit}"
    return f"{round(count / 1024)} KiB"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def estimate_run(config: Config, workers: int, memory: int | None = None) -> Estimate:
    """What a run of a configuration with a dataset will take, from the footers of its files.

    memory : bytes that it may take; None: as by default

    Raises
    ------
    ConfigError, RuleError, DataError
        As the run itself would, of what can be known without reading a bar.
    """
    budget = make_budget(memory_allowed(None) if memory is None else memory, workers)
    scenarios, sources = run_scenarios(config), list_sources(str(config.data.path), config)
    bars = [_bars(source, config) for source in sources]
    step = sources[0].interval_ms
    every = max(1, duration_ms(config.entries.every) // step) if config.entries.every else 1
    entries = sum(n // every for n in bars)
    horizons, leverages = len(horizon_bars(config.sweep, step)), len(config.sweep.leverage)
    single = [scenario for scenario in scenarios if isinstance(scenario, Scenario)]
    groups = [len(group) for group in group_scenarios(single)] if single else [1] * len(scenarios)
    blocks = max(n * step for n in bars) // duration_ms(config.statistics.block) + 2
    followed = wants_outcomes(config)
    labels = 1 + len(config.statistics.regimes)
    cells = (
        horizons * leverages * cells_per_leverage([blocks] * labels, followed=followed)
    )  # regimes may have more cells, or fewer
    fit = max(1, CELLS_PER_TASK // cells)
    passes = [n for group in groups for n in [fit] * (group // fit) + [group % fit] if n]
    parts = [_parts(config, n, step, budget) for n in bars]
    sums = min(2 * 8 * cells * len(scenarios), max(budget.table_bytes, 2 * 8 * cells * max(passes)))
    held = max(-(-n // k) + max(horizon_bars(config.sweep, step)) * (k > 1) for n, k in zip(bars, parts, strict=True))
    rows = len(sources) * len(scenarios) * horizons * leverages
    per_entry = sum(entry_seconds(horizons, leverages, n, labels, followed=followed) for n in passes)
    return Estimate(
        symbols=len(sources),
        bars=sum(bars),
        entries=entries,
        scenarios=len(scenarios),
        horizons=horizons,
        leverages=leverages,
        passes=len(passes) * len(sources),
        parts=sum(parts),
        tasks=len(passes) * sum(-(-n // CHUNK_BARS) for n in bars),
        verdicts=entries * len(scenarios) * horizons * leverages,
        memory_bytes=BASE_BYTES
        + workers * BYTES_PER_WORKER
        + min(PARTS, sum(parts)) * held * BYTES_PER_HELD_BAR
        + sums,
        disk_bytes=round(rows * DISK_BYTES_PER_ROW + len(sources) * len(scenarios) * cells * DISK_BYTES_PER_CELL),
        seconds=START_S + (sum(bars) * READ_S_PER_BAR + entries * per_entry) / workers + rows * WRITE_S_PER_ROW,
        workers=workers,
    )


def _parts(config: Config, bars: int, step: int, budget: Budget) -> int:
    """Stretches that a history of so many bars is read in."""
    own = own_bars(budget.most_bars, max(horizon_bars(config.sweep, step)))
    return 1 if needs_whole(config) or bars <= own else -(-bars // own)


def _bars(source: HistorySource, config: Config) -> int:
    """Rows of a symbol in the range asked for, where a row group lies across its edge in proportion."""
    start, end = open_time_range(config.data)
    low, high = -math.inf if start is None else start, math.inf if end is None else end
    rows = 0.0
    for file in source.files:
        for group in BarFile.open(file).groups:
            first, last = group.span or (0, 0)
            inside = min(last + source.interval_ms, high) - max(first, low)
            share = inside / (last + source.interval_ms - first) if group.span else 1.0
            rows += group.rows * min(1.0, max(0.0, share))
    return round(rows)


def planned(path: str, workers: int | str | None, memory: str | None, out: str | Path | None = None) -> Estimate:
    """What the run of a configuration file will take, held against the memory and the disk it may have.

    out : where the run directory is to lie anew; None: parts of it are there, or no disk is asked

    Raises
    ------
    ConfigError
        If it needs more than `memory`, or than the disk of `out` has; where no memory is given, more than a quarter of
        the machine's is only warned of.
    """
    allowed = None if memory is None else memory_allowed(memory)
    estimate = estimate_run(resolve_config(path), max(1, worker_count(workers)), allowed)
    if warning := check_memory(estimate, allowed):
        logging.getLogger("backtest").warning(warning)
    if out is not None:
        check_disk(estimate, out)
    return estimate


def check_memory(estimate: Estimate, memory: int | None) -> str | None:
    """Refuse a run that needs more than the memory it was given.

    Returns
    -------
    str or None
        Where none was given and a quarter of the machine's does not do, what to say.
    """
    machine = memory_bytes()
    needs = f"the run needs about {_size(estimate.memory_bytes)}"
    less = (
        "cut the history with data.start and data.end, sweep fewer leverages or shorter horizons, leave out what needs "
        "the whole history (regimes, trades, portfolios, volatility), or use fewer --workers"
    )
    if memory is not None and estimate.memory_bytes > memory:
        raise ConfigError(f"{needs}, and --memory allows {_size(memory)}; raise it, {less}")
    if memory is None and machine is not None and estimate.memory_bytes > machine // 4:
        return f"{needs}, more than a quarter of this machine's {_size(machine)}; to be safe {less}"
    return None


def check_disk(estimate: Estimate, out: str | Path) -> None:
    """Refuse a run whose directory would not fit the disk; object stores are not asked."""
    place = to_place(out)
    if not isinstance(place, Path):
        return
    there = place.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if estimate.disk_bytes > free:
        raise ConfigError(
            f"{out}: the run needs about {_size(estimate.disk_bytes)} of disk, and {_size(free)} are free there; make "
            "room, name another disk with --out, or sweep less"
        )
