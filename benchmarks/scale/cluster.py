"""What does dask.distributed add to a run on one machine, against threads?

Run: ``python -m benchmarks.scale.cluster [--minutes 0.5] [--pairs 2] [--data DIR]``. Histories are generated 1-minute
bars on disk, as many as threads sweep in so many minutes. ``--workers N`` and ``--workers dask:N`` take turns, with a
thread or a process per core. A short and a long run of each separate the fixed cost from the cost of the work; together
they give what dask adds to a run of ten minutes. Memory is that of all processes of a run at one time, shared pages
counted once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.common import SWEEP, dataset, machine, symbols_toml, table

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BARS = 1_000_000
"""Of each symbol, about two years."""
TEN_MINUTES_S = 600.0
THREADS, PROCESSES = str(CORES), f"dask:{CORES}"


class RunCost(NamedTuple):
    """Of a run, from its command to its end, and of all its processes."""

    wall_s: float
    cpu_s: float
    peak_bytes: float


def measured(config: Path, workers: str) -> RunCost:
    """Run a configuration, and look at the memory of its processes meanwhile."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "backtest", "run", str(config), "--out", str(config.with_suffix(""))]
    command += ["--overwrite", "--workers", workers]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
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
        sys.exit(f"{' '.join(command)}: the run failed")
    return RunCost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, peak)


def compare(folder: Path, data: Path, minutes: float, pairs: int) -> None:
    """Run all ways in turns, and print their costs and what follows for ten minutes."""

    def config(symbols: int) -> Path:
        file = folder / f"sweep{symbols}.toml"
        fundings = "funding = [{ scale = 0.0 }, { scale = 1.0 }, { scale = 2.0 }]\n"
        path = dataset(data, symbols, BARS)
        file.write_text(f'[data]\npath = "{path}"\n{symbols_toml(symbols)}\n{SWEEP}{fundings}')
        return file

    ways = (THREADS, PROCESSES)
    for way in ways:  # kernels compile
        measured(config(1), way)
    one, three = (measured(config(n), THREADS).wall_s for n in (1, 3))
    each = (three - one) / 2
    many = max(3, round((60 * minutes - one + each) / each))
    sizes = (max(1, many // 5), many)
    taken: dict[tuple[int, str], list[RunCost]] = {(n, way): [] for n in sizes for way in ways}
    for turn in range(pairs):
        for (n, way), costs in taken.items():
            costs.append(cost := measured(config(n), way))
            print(f"{turn + 1}/{pairs}  {n:3d} symbols  {way:8s} {cost.wall_s:7.1f} s", file=sys.stderr, flush=True)
    walls = {key: min(cost.wall_s for cost in costs) for key, costs in taken.items()}
    cpus = {key: min(cost.cpu_s for cost in costs) for key, costs in taken.items()}
    rows = []
    for (n, way), costs in taken.items():
        ratios = (times[n, way] / times[n, THREADS] for times in (walls, cpus))
        peak = max(cost.peak_bytes for cost in costs) / 2**30
        row = [f"{n} symbols, --workers {way}", f"{walls[n, way]:.1f}", f"{cpus[n, way]:.1f}", f"{peak:.2f}"]
        rows.append([*row, *(f"{ratio:.3f}" for ratio in ratios)])
    print(f"{machine()}; {BARS:,} bars a symbol, the best of {pairs} turns\n")
    print(table(["run", "wall, s", "CPU, s", "peak, GiB", "wall ÷ threads", "CPU ÷ threads"], rows) + "\n")
    # (slope, intercept): seconds of runs of any number of symbols.
    lines = {way: np.polyfit(sizes, [walls[n, way] for n in sizes], 1) for way in ways}
    cores = {way: np.polyfit(sizes, [cpus[n, way] for n in sizes], 1) for way in ways}
    symbols = (TEN_MINUTES_S - lines[THREADS][1]) / lines[THREADS][0]
    rows = []
    for way in ways:
        added = np.polyval(lines[way], symbols) / TEN_MINUTES_S - 1
        used = np.polyval(cores[way], symbols) / np.polyval(cores[THREADS], symbols) - 1
        row = [f"--workers {way}", f"{lines[way][1]:.1f}", f"{lines[way][0] / lines[THREADS][0] - 1:+.1%}"]
        rows.append([*row, f"{added:+.1%}", f"{used:+.1%}"])
    head = ["", "once, s", "to the work", "to ten minutes", "to their CPU time"]
    print(table(head, rows) + "\n\nWanted: under 10% added to ten minutes.")


def main() -> None:
    """Generate, run in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="of threads in the long run")
    parser.add_argument("--pairs", type=int, default=2, help="turns")
    parser.add_argument("--data", type=Path, help="where histories are kept; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), given.data or Path(folder), given.minutes, given.pairs)


if __name__ == "__main__":
    main()
