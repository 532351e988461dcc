"""What whole exchanges would take, by the fitted cost model: pure arithmetic, from the assumptions below.

`benchmarks/scaling.py --write` puts it into docs/scaling.md. Change an assumption here and write again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks import cost_model
from benchmarks.children import table
from benchmarks.cost_model import CHUNK_BARS, DISK, SECONDS, Constants, Size

# --- assumptions ------------------------------------------------------------------------------------------------------
YEARS = 6
MINUTES_PER_YEAR = 525_960
SYMBOLS = 700
EXCHANGES = {"Binance": 617, "Bybit": 654, "OKX": 281, "Gate": 673, "Bitget": 645, "MEXC": 879}
"""Perpetual pairs that CoinGecko listed in February 2026."""
DOLLARS_PER_CORE_HOUR = 0.04
DOLLARS_PER_GB_MONTH = 0.023
MEMORY = 2 << 30
"""``--memory`` of each run."""
DATA_BYTES_PER_BAR = 22
"""Of last and mark prices and funding, as measured on generated histories."""
CORES = (2, 16, 64)
DASK_S_PER_TASK = 1e-3
"""Of the scheduler, as its documentation says."""
RUN_JSON_BYTES = 390
"""Of run.json per symbol and scenario, as measured."""
# ----------------------------------------------------------------------------------------------------------------------

GB, GIB, HOUR, WEEK_MINUTES = 1e9, 1 << 30, 3600, 10_080


@dataclass(frozen=True)
class Job:
    """A question to a market."""

    name: str
    size: Size


def jobs() -> list[Job]:
    """Both sides × 5 maintenance rates × 8 horizons to 30 days × 125 leverages, and more."""
    bars = YEARS * MINUTES_PER_YEAR
    one = Size(symbols=SYMBOLS, bars=bars, longest=43_200, blocks=bars // WEEK_MINUTES + 2, memory=MEMORY)
    seconds = replace(one, bars=60 * bars, longest=60 * one.longest)
    all_symbols = sum(EXCHANGES.values())
    asked = {
        f"one exchange: {SYMBOLS} symbols, {YEARS} years of minutes": one,
        "the same with 3 fundings × 3 fees": replace(one, side_rules=30, fees=3),
        f"{len(EXCHANGES)} exchanges: {all_symbols:,} symbols": replace(one, symbols=all_symbols),
        "one exchange, 1-second marks, an entry a minute": replace(seconds, every=60),
        "one exchange, 1-second marks, an entry a second": seconds,
        "the same, horizons to 8 hours": replace(seconds, longest=8 * HOUR),
    }
    return [Job(name, size) for name, size in asked.items()]


def text(wall: Constants, cpu: Constants, memory: Constants, disk: Constants) -> str:
    """The tables of docs/scaling.md that follow from the constants of the model.

    Parameters
    ----------
    wall, cpu, memory, disk
        As of ``scaling.Model``.
    """
    cores = [f"hours on {n} cores" for n in CORES]
    times = ("", "bars", "verdicts", "core hours", "computing", *cores, f"one run of {CORES[-1]} threads, hours")
    stores = ("", "data, GB", "read, GB", "run directory, GB", "storing, a month", "memory of a run, GiB", "whole, GiB")
    limits = (
        "",
        "files of counts",
        "rows",
        "run.json, MB",
        "tasks",
        "scheduler, hours",
        "one thread at the end, hours",
    )
    return "\n\n".join(
        [
            f"Assumed: {_dollars(DOLLARS_PER_CORE_HOUR)} a core-hour, {_dollars(DOLLARS_PER_GB_MONTH)} a GB-month, "
            f"{DATA_BYTES_PER_BAR} bytes a bar on disk; all symbols as old as the oldest. Hours on {CORES[1]} and "
            f"{CORES[2]} cores are those of runs of two workers side by side, each with its share of the symbols.",
            table(times, [_times(job, wall, cpu) for job in jobs()]),
            "*Read*: with what is read again for the windows of each stretch, and for groups of scenarios whose tables "
            f"do not fit `--memory {MEMORY >> 30}GiB` at once. *Memory of a run* of two workers that reads in "
            "stretches; *whole*: one that needs histories whole.",
            table(stores, [_stores(job, memory, disk) for job in jobs()]),
            "*Tasks* of all symbols, and what the scheduler of dask takes for them; *one thread at the end*: writing "
            "counts and rates, of one run.",
            table(limits, [_limits(job, wall) for job in jobs()]),
        ]
    )


def core_hours(size: Size, cpu: Constants) -> float:
    """Of all threads."""
    return cost_model.core_seconds(size, cost_model.values_of(SECONDS, cpu)) / HOUR


def hours(size: Size, wall: Constants) -> float:
    """Of one run."""
    return float(cost_model.predicted([size], cost_model.values_of(SECONDS, wall))[0]) / HOUR


def hours_side_by_side(size: Size, wall: Constants, cores: int) -> float:
    """Of runs of two workers that share the symbols out; the last to end has the most."""
    return hours(replace(size, symbols=-(-size.symbols // (cores // 2)), workers=2), wall)


def _times(job: Job, wall: Constants, cpu: Constants) -> list[str]:
    size, spent = job.size, core_hours(job.size, cpu)
    each = [hours_side_by_side(size, wall, cores) for cores in CORES]
    alone = hours(replace(size, workers=CORES[-1], memory=MEMORY * CORES[-1] // 2), wall)
    counts = [_short(size.symbols * size.bars), _short(size.verdicts)]
    return [job.name, *counts, _figure(spent), _dollars(spent * DOLLARS_PER_CORE_HOUR), *map(_figure, [*each, alone])]


def _stores(job: Job, memory: Constants, disk: Constants) -> list[str]:
    size, held = job.size, cost_model.values_of(cost_model.MEMORY, memory)
    data = size.symbols * size.bars * DATA_BYTES_PER_BAR
    run = float(size.written() @ cost_model.values_of(DISK, disk))
    kept = _dollars((data + run) / GB * DOLLARS_PER_GB_MONTH)
    peaks = [float(each.held() @ held) / GIB for each in (size, replace(size, whole=True))]
    return [job.name, *map(_figure, (data / GB, data * size.reads / GB, run / GB)), kept, *map(_figure, peaks)]


def _limits(job: Job, wall: Constants) -> list[str]:
    size = job.size
    files = size.symbols * size.passes
    tasks = files * -(-size.bars // CHUNK_BARS)
    scenarios = size.symbols * size.side_rules * size.fees
    ends = size.rows * wall["WRITE_S_PER_ROW"] + size.cells * wall["WRITE_S_PER_CELL"]
    figures = (tasks * DASK_S_PER_TASK / HOUR, ends / HOUR)
    return [
        job.name,
        f"{files:,.0f}",
        _short(size.rows),
        _figure(scenarios * RUN_JSON_BYTES / 1e6),
        f"{tasks:,.0f}",
        *map(_figure, figures),
    ]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _short(value: float) -> str:
    """Three digits and a word."""
    for limit, word in ((1e15, " quadrillion"), (1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if value >= limit:
            return f"{value / limit:.3g}{word}"
    return f"{value:,.0f}"


def _dollars(value: float) -> str:
    return f"${value:,.0f}" if value >= 10 else f"${value:.2g}"


def constants_in(document: str) -> list[dict[str, float]]:
    """The constants that a document shows, column by column: the model, its CPU seconds, fitted for plans, in plans."""
    columns: list[dict[str, float]] = [{} for _ in range(4)]
    names: Sequence[str] = (*SECONDS, *cost_model.MEMORY, *DISK)
    for line in document.splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name.strip("`") in names and len(cells) == len(columns):
            for column, cell in zip(columns, cells, strict=True):
                if cell != "–":
                    column[name.strip("`")] = float(cell)
    return columns
