"""What dask.distributed adds to a run on one machine: the same sweep by threads, and by processes that dask schedules.

Run: ``python benchmarks/cluster.py [--minutes 0.5] [--pairs 2] [--data DIR]``. Histories are generated 1-minute bars on
disk, as many as threads sweep in so many minutes. Three ways take turns, each run in a process of its own: the threads
of ``backtest run``; one process of dask with a thread per core; ``--workers dask:N`` with a process per core. A short
and a long run of each separate what passes once, to start and to end, from what the work takes; together they give what
dask adds to a run of ten minutes. Memory is that of all processes of a run at one time, common pages counted once.
"""

# ruff: noqa: E402

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import psutil

import backtest as bt
from benchmarks.children import dataset, machine, table

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BARS = 1_000_000
"""Of each symbol, about two years."""
TEN_MINUTES_S = 600.0
WANTED = 0.10
CONFIG = """\
[data]
path = "{path}"
symbols = {symbols}

[sweep]
leverage = {{ from = 1, to = 125 }}
horizon = ["1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d"]
maintenance = [0.004, 0.005, 0.01, 0.02, 0.05]
funding = [{{ scale = 0.0 }}, {{ scale = 1.0 }}, {{ scale = 2.0 }}]
"""
THREADS, ONE, EACH = "threads", "one", f"dask:{CORES}"
WAYS = {
    THREADS: f"threads, {CORES}",
    ONE: f"dask, 1 process of {CORES} threads",
    EACH: f"dask, {CORES} processes of 1 thread",
}


@dataclass(frozen=True)
class Cost:
    """Of a run, from its command to its end, and of all its processes."""

    wall_s: float
    cpu_s: float
    peak_bytes: float


@dataclass(frozen=True)
class Line:
    """Seconds of runs of any number of symbols: ``fixed_s + symbol_s · symbols``."""

    fixed_s: float
    symbol_s: float

    def at(self, symbols: float) -> float:
        return self.fixed_s + self.symbol_s * symbols


def line(costs: dict[int, float]) -> Line:
    """Through two runs."""
    (few, low), (many, high) = sorted(costs.items())
    each = (high - low) / (many - few)
    return Line(low - each * few, each)


def sweep(config: str, way: str) -> None:
    """What a process of its own does."""
    out = Path(config).with_suffix("")
    if way == ONE:
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=1, threads_per_worker=CORES, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=1.0
        ) as cluster:
            bt.run(config, out=out, overwrite=True, scheduler=cluster.scheduler_address)
    else:
        bt.run(config, out=out, overwrite=True, workers=CORES if way == THREADS else way)


def measured(config: Path, way: str) -> Cost:
    """Run it, and look at its processes meanwhile."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--sweep", str(config), way])
    first, peak, ended = psutil.Process(process.pid), 0.0, 0
    while not ended:
        try:
            every = (first, *first.children(recursive=True))
            peak = max(peak, sum(one.memory_full_info().pss for one in every))
        except psutil.Error:  # one has ended meanwhile
            pass
        time.sleep(0.2)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)  # of it and of all that it waited for
    if status:
        sys.exit(f"{WAYS[way]}: the run failed")
    return Cost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, peak)


def main() -> None:
    """Generate, run in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="of threads in the long run")
    parser.add_argument("--pairs", type=int, default=2, help="turns")
    parser.add_argument("--data", type=Path, help="where histories are kept; default: a temporary folder")
    parser.add_argument("--sweep", nargs=2, metavar=("CONFIG", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sweep:
        sweep(*given.sweep)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), given.data or Path(folder), given.minutes, given.pairs)


def compare(folder: Path, data: Path, minutes: float, pairs: int) -> None:
    """Runs of all ways, and what follows from them."""

    def config(symbols: int) -> Path:
        path = dataset(data, symbols, BARS)
        file = folder / f"sweep{symbols}.toml"
        file.write_text(CONFIG.format(path=path, symbols=[f"S{n:03d}USDT" for n in range(symbols)]))
        return file

    for way in WAYS:  # kernels compile
        measured(config(1), way)
    trial = line({n: measured(config(n), THREADS).wall_s for n in (1, 3)})
    many = max(3, round((60 * minutes - trial.fixed_s) / trial.symbol_s))
    few = max(1, many // 5)
    files, taken = {n: config(n) for n in (few, many)}, dict[tuple[int, str], list[Cost]]()
    for turn in range(pairs):
        for n, file in files.items():
            for way, words in WAYS.items():
                cost = measured(file, way)
                taken.setdefault((n, way), []).append(cost)
                load = os.getloadavg()[0]
                told = f"{turn + 1}/{pairs}  {n:3d} symbols  {words:32s} {cost.wall_s:7.1f} s  {cost.cpu_s:7.1f} s CPU"
                print(f"{told}  load {load:.1f}", file=sys.stderr, flush=True)
    walls = {key: min(cost.wall_s for cost in costs) for key, costs in taken.items()}
    cpus = {key: min(cost.cpu_s for cost in costs) for key, costs in taken.items()}
    rows = [
        [
            f"{n} symbols, {WAYS[way]}",
            f"{walls[n, way]:.1f}",
            f"{cpus[n, way]:.1f}",
            f"{max(cost.peak_bytes for cost in taken[n, way]) / 2**30:.2f}",
            f"{walls[n, way] / walls[n, THREADS]:.3f}",
            f"{cpus[n, way] / cpus[n, THREADS]:.3f}",
        ]
        for n, way in taken
    ]
    print(f"{machine()}; {BARS:,} bars a symbol, the best of {pairs} turns\n")
    print(table(["run", "wall, s", "CPU, s", "peak, GiB", "wall ÷ threads", "CPU ÷ threads"], rows) + "\n")
    lines = {way: line({n: walls[n, way] for n in files}) for way in WAYS}
    cores = {way: line({n: cpus[n, way] for n in files}) for way in WAYS}
    symbols = (TEN_MINUTES_S - lines[THREADS].fixed_s) / lines[THREADS].symbol_s
    rows = []
    for way, words in WAYS.items():
        added = lines[way].at(symbols) / TEN_MINUTES_S - 1
        used = cores[way].at(symbols) / cores[THREADS].at(symbols) - 1
        each = lines[way].symbol_s / lines[THREADS].symbol_s - 1
        rows.append([words, f"{lines[way].fixed_s:.1f}", f"{each:+.1%}", f"{added:+.1%}", f"{used:+.1%}"])
    head = ["", "once, s", "to the work", "to ten minutes", "to their CPU time"]
    print(table(head, rows) + f"\n\nWanted: under {WANTED:.0%} added to ten minutes.")


if __name__ == "__main__":
    main()
