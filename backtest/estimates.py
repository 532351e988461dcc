"""What a run will take, before it begins: tasks, memory, time and disk, from footers and the configuration alone.

The constants were measured on two cores of a rented machine; the estimate is of the right size, not of the second.
Memory is that of one symbol's history and of the tables under way.
"""

from __future__ import annotations

import logging
import math
import os
import re
from dataclasses import asdict, dataclass

from backtest.config import Config
from backtest.dataset import read_footer
from backtest.doctor import memory_bytes
from backtest.errors import ConfigError
from backtest.jobs import CELLS_PER_TASK, scenarios_of_run, wants_outcomes
from backtest.sources import Source, config_of, sources_named
from backtest.survival import COUNTS, OUTCOMES
from backtest.sweep import Scenario, groups_of, horizon_bars
from backtest.units import duration_ms, instant_ms
from backtest.work import CHUNK_BARS

BASE_BYTES = 280 << 20
"""Of the interpreter and its libraries, the kernels compiled."""
BYTES_PER_BAR = 190
"""At the peak: a history of last and mark prices as it is read and laid on its grid."""
TABLES_AT_ONCE = 6
"""Under way per worker, and the sum."""
START_S = 1.5
READ_S_PER_BAR = 5e-7
COUNT_S = 3e-9
"""Per entry, horizon and pass: a pass is a maintenance rule, side and funding."""
FOLLOW_S = 2e-7
"""Per entry, horizon and leverage: outcomes and policies."""
WRITE_S_PER_ROW = 4e-6


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    symbols, bars, entries, scenarios, horizons, leverages : int
        `bars` and `entries` of all symbols.
    passes : int
        Sights of the entries: groups of scenarios that are counted together, over all symbols.
    tasks : int
        Stretches of entries × groups.
    verdicts : int
    memory_bytes : int
        At the peak.
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
    tasks: int
    verdicts: int
    memory_bytes: int
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
            f"      {self.tasks:,} tasks in {self.passes:,} passes on {self.workers} workers; about "
            f"{_clock(self.seconds)}, "
            f"{self.memory_bytes / (1 << 30):.1f} GiB of memory"
        )


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def estimate_of(config: Config, workers: int) -> Estimate:
    """What a run of a configuration with a dataset will take, from the footers of its files.

    Raises
    ------
    ConfigError, RuleError, DataError
        As the run itself would, of what can be known without reading a bar.
    """
    scenarios, sources = scenarios_of_run(config), sources_named(str(config.data.path), config)
    bars = [_bars(source, config) for source in sources]
    step = sources[0].interval_ms
    every = max(1, duration_ms(config.entries.every) // step) if config.entries.every else 1
    entries = sum(n // every for n in bars)
    horizons, leverages = len(horizon_bars(config.sweep, step)), len(config.sweep.leverage)
    single = [scenario for scenario in scenarios if isinstance(scenario, Scenario)]
    groups = len(list(groups_of(single))) if single else len(scenarios)
    blocks = max(n * step for n in bars) // duration_ms(config.statistics.block) + 2
    outcomes = wants_outcomes(config)
    counted = len(COUNTS) + len(OUTCOMES) * outcomes
    per_scenario = horizons * leverages * blocks * counted
    of_group = min(max(per_scenario, CELLS_PER_TASK), per_scenario * -(-len(scenarios) // groups))
    rows = len(sources) * len(scenarios) * horizons * leverages
    labels = 1 + len(config.statistics.regimes)
    work = (
        entries * horizons * (groups * COUNT_S * labels + (len(scenarios) * leverages * FOLLOW_S if outcomes else 0.0))
    )
    return Estimate(
        symbols=len(sources),
        bars=sum(bars),
        entries=entries,
        scenarios=len(scenarios),
        horizons=horizons,
        leverages=leverages,
        passes=groups * len(sources),
        tasks=groups * sum(-(-n // CHUNK_BARS) for n in bars),
        verdicts=entries * len(scenarios) * horizons * leverages,
        memory_bytes=BASE_BYTES + max(bars) * BYTES_PER_BAR + of_group * 8 * (TABLES_AT_ONCE + workers),
        seconds=START_S + sum(bars) * READ_S_PER_BAR + work / workers + rows * WRITE_S_PER_ROW,
        workers=workers,
    )


def _bars(source: Source, config: Config) -> int:
    """Rows of a symbol in the range asked for, where a row group lies across its edge in proportion."""
    low = -math.inf if config.data.start is None else instant_ms(config.data.start)
    high = math.inf if config.data.end is None else instant_ms(config.data.end)
    rows = 0.0
    for file in source.files:
        for group in read_footer(file).groups:
            first, last = group.span or (0, 0)
            inside = min(last + source.interval_ms, high) - max(first, low)
            share = inside / (last + source.interval_ms - first) if group.span else 1.0
            rows += group.rows * min(1.0, max(0.0, share))
    return round(rows)


def planned(path: str, workers: int | str | None, memory: str | None) -> Estimate:
    """What the run of a configuration file will take, held against the memory it may have.

    Raises
    ------
    ConfigError
        If it needs more than `memory`; where that is not given, a quarter of the machine's is only warned of.
    """
    threads = int(str(workers).removeprefix("dask:")) if workers is not None else os.cpu_count() or 1
    estimate = estimate_of(config_of(path), max(1, threads))
    warning = check_memory(estimate, None if memory is None else memory_of(memory))
    if warning:
        logging.getLogger("backtest").warning(warning)
    return estimate


def check_memory(estimate: Estimate, memory: int | None) -> str | None:
    """Refuse a run that needs more than the memory it was given.

    Returns
    -------
    str or None
        Where none was given and a quarter of the machine's does not do, what to say.
    """
    machine, gib = memory_bytes(), 1 << 30
    needs = f"the run needs about {estimate.memory_bytes / gib:.1f} GiB"
    less = "cut the history with data.start and data.end, sweep fewer leverages, or use fewer --workers"
    if memory is not None and estimate.memory_bytes > memory:
        raise ConfigError(f"{needs}, and --memory allows {memory / gib:.1f} GiB; raise it, {less}")
    if memory is None and machine is not None and estimate.memory_bytes > machine // 4:
        return f"{needs}, more than a quarter of this machine's {machine / gib:.1f} GiB; to be safe {less}"
    return None


def memory_of(text: str) -> int:
    """Bytes of ``"2GiB"``, ``"800MiB"``, ``"16 GB"``.

    Examples
    --------
    >>> memory_of("2GiB")
    2147483648
    """
    units = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(k|m|g|ki|mi|gi|)b?\s*", text.lower())
    if match is None or not float(match[1]):
        raise ConfigError(f"memory is a number and a unit, such as 2GiB or 800MB; got {text!r}")
    return int(float(match[1]) * units[match[2]])
