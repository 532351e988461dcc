"""The plan of a run before it begins: tasks, memory, disk and time, from the configuration and the file footers."""

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
from backtest.runs.memory import PARTS, make_budget, memory_allowed, memory_bytes, peak_bytes, work_seconds
from backtest.runs.tasks import cut_groups, run_scenarios, table_cells, wants_outcomes
from backtest.units import duration_ms

START_S = 3.0
"""Start and end of a run: the interpreter, compiled kernels from their cache, the final tables."""
DISK_BYTES_PER_CELL = 0.45
"""Compressed size of a count of a calendar block."""
DISK_BYTES_PER_ROW = 55
"""Size of a row of the tables of rates."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    symbols: int
    bars: int  # of all symbols
    entries: int  # of all symbols
    scenarios: int
    horizons: int
    leverages: int
    passes: int  # groups of scenarios that are counted together, of all symbols
    parts: int  # in which the histories are read, of all symbols
    tasks: int  # chunks of entries × groups of scenarios
    verdicts: int
    memory_bytes: int  # at the peak
    disk_bytes: int  # of the run directory
    seconds: float  # computed from one measured rate; see seconds_range
    workers: int

    @property
    def seconds_range(self) -> tuple[float, float]:
        """Low and high limit of the seconds: measured runs take half to twice the rate, and the high one the start."""
        return self.seconds / 2, self.seconds * 2 + START_S

    def as_dict(self) -> dict[str, int | float]:
        """The values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """The plan in two lines for the terminal."""
        low, high = self.seconds_range
        time = f"from {_clock(low)} to {_clock(high)}" if high >= 10 else "less than 10 s"
        return (
            f"plan: {self.symbols:,} symbol{'s' * (self.symbols != 1)}, {self.bars:,} bars, {self.entries:,} entries × "
            f"{self.scenarios:,} scenarios × {self.horizons} horizons × {self.leverages} leverages = "
            f"{self.verdicts:,} verdicts\n"
            f"      histories in {self.parts:,} part{'s' * (self.parts != 1)}, {self.tasks:,} tasks in {self.passes:,} "
            f"passes on {self.workers} workers; {time}, {_size(self.memory_bytes)} of memory, "
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


def estimate_run(source: str | Path | Config, workers: int | str | None = None, memory: str | None = None) -> Estimate:
    """Estimate what a run will take, without reading a bar: its tasks, memory, disk and time.

    Parameters
    ----------
    source : str, Path or Config
        A TOML file, or a configuration whose `data.path` names a dataset.
    workers : int or str, optional
        As in `backtest.run`; default: a thread per core.
    memory : str, optional
        What the run may take, such as ``"2GiB"``; default: as in `backtest.run`.

    Raises
    ------
    ConfigError, RuleError, DataError
        For what the run itself would refuse, as far as the configuration and the footers of the files show it.

    Examples
    --------
    >>> bt.estimate_run("sweep.toml", workers=2).memory_bytes  # doctest: +SKIP
    705691648
    """
    config = source if isinstance(source, Config) else resolve_config(source)
    if config.data.path is None:
        raise ConfigError("data.path must name a dataset to estimate a run; got none; write_history makes one")
    count = max(1, worker_count(workers))
    budget = make_budget(memory_allowed(memory), count)
    scenarios, sources = run_scenarios(config), list_sources(str(config.data.path), config)
    step, bars = sources[0].interval_ms, [_bars(source, config) for source in sources]
    every = max(1, duration_ms(config.entries.every) // step) if config.entries.every else 1
    entries, reach = sum(n // every for n in bars), max(horizon_bars(config.sweep, step))
    horizons, leverages = len(config.sweep.horizon), len(config.sweep.leverage)
    blocks = max(n * step for n in bars) // duration_ms(config.statistics.block) + 2
    # How many labels a regime has is not known before it is read: taken as many as the calendar has blocks.
    cells = table_cells(config, [blocks] * (1 + len(config.statistics.regimes)))
    single = [scenario for scenario in scenarios if isinstance(scenario, Scenario)]
    groups = cut_groups(list(group_scenarios(single)) if single else [[i] for i in range(len(scenarios))], cells)
    own = max(bars) if needs_whole(config) else own_bars(budget.most_bars, reach)
    parts = [max(1, -(-n // own)) for n in bars]
    held = max(-(-n // k) + reach * (k > 1) for n, k in zip(bars, parts, strict=True))
    tables = min(2 * 8 * cells * len(scenarios), max(budget.table_bytes, 2 * 8 * cells * max(map(len, groups))))
    rows = len(sources) * len(scenarios) * horizons * leverages
    work_s = work_seconds(sum(bars), entries, horizons, leverages, len(scenarios), followed=wants_outcomes(config))
    return Estimate(
        symbols=len(sources),
        bars=sum(bars),
        entries=entries,
        scenarios=len(scenarios),
        horizons=horizons,
        leverages=leverages,
        passes=len(groups) * len(sources),
        parts=sum(parts),
        tasks=len(groups) * sum(-(-n // CHUNK_BARS) for n in bars),
        verdicts=entries * len(scenarios) * horizons * leverages,
        memory_bytes=peak_bytes(count, min(PARTS, sum(parts)) * held, tables),
        disk_bytes=round(rows * DISK_BYTES_PER_ROW + len(sources) * len(scenarios) * cells * DISK_BYTES_PER_CELL),
        seconds=work_s / count,
        workers=count,
    )


def _bars(source: HistorySource, config: Config) -> int:
    """Bars of a symbol in the range of the configuration; a row group across its edge counts in proportion."""
    start, end = open_time_range(config.data)
    low, high = -math.inf if start is None else start, math.inf if end is None else end
    rows = 0.0
    for group in (group for file in source.files for group in BarFile.open(file).groups):
        first, last = group.span or (0, 0)
        inside = min(last + source.interval_ms, high) - max(first, low)
        share = inside / (last + source.interval_ms - first) if group.span else 1.0
        rows += group.rows * min(1.0, max(0.0, share))
    return round(rows)


def check_memory(estimate: Estimate, memory: str | None) -> None:
    """Refuse a run that needs more than `memory`; without `memory`, warn where it needs a quarter of the machine's.

    Raises
    ------
    ConfigError
    """
    machine, needs = memory_bytes(), f"the run needs about {_size(estimate.memory_bytes)}"
    less = (
        "cut the history with data.start and data.end, sweep fewer leverages or shorter horizons, leave out what needs "
        "the whole history (regimes, trades, portfolios, volatility), or use fewer --workers"
    )
    if memory is not None and estimate.memory_bytes > (allowed := memory_allowed(memory)):
        raise ConfigError(f"{needs}, and --memory allows {_size(allowed)}; raise it, {less}")
    if memory is None and machine is not None and estimate.memory_bytes > machine // 4:
        logging.getLogger("backtest").warning(
            f"{needs}, more than a quarter of this machine's {_size(machine)}; to be safe {less}"
        )


def check_disk(estimate: Estimate, out: str | Path) -> None:
    """Refuse a run whose directory does not fit the disk of `out`; object stores are not checked.

    Raises
    ------
    ConfigError
    """
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
