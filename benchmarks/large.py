"""A run over 2e8 bars on disk against the kernel in memory: throughput, memory, and use of the second core.

Run: ``python benchmarks/large.py [--symbols 40] [--bars 5000000] [--memory 2GiB] [--workers 2] [--data DIR] [--write]``
Both sides × 125 leverages × 8 horizons × 5 maintenance rates; the histories are generated (5 GB, a few minutes) and
kept in ``--data``. With ``--symbols 4`` it takes a minute. ``--write`` puts the table into docs/scaling.md.

The kernel in memory is the same passes over one of the histories, laid on its grid beforehand, on as many threads;
it is timed before and after the run, and the best time counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # benchmarks are a package here
    sys.path[0] = str(Path(__file__).parents[1])

from backtest.runs.executors.threads import map_ordered

from backtest.config.resolve import resolve_config
from backtest.config.scenarios import Scenario, expand_scenarios, group_scenarios, scenarios_at
from backtest.engine.count import count_entries
from backtest.engine.prepare import prepare_entries
from backtest.runs.inputs import list_sources, read_grid
from backtest.runs.memory import parse_memory
from backtest.stats.survival_table import Tables
from benchmarks.children import Measured, bytes_of, dataset, machine, measured, put, table

CONFIG = """\
[data]
path = "{path}"

[sweep]
leverage = {{ from = 1, to = 125 }}
horizon = ["1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d"]
maintenance = [0.004, 0.005, 0.01, 0.02, 0.05]
"""
SHARE, SECOND = 0.70, 0.85
"""Wanted: of the kernel's throughput, and of the second core."""


def kernel(config: Path, workers: int, times: int = 3) -> tuple[float, int]:
    """Seconds in which threads count the first symbol, its work in memory; and its verdicts."""
    read = resolve_config(str(config))
    source = list_sources(str(read.data.path), read)[0]
    scenarios = scenarios_at(expand_scenarios(read), source.symbol)
    work = prepare_entries(read, read_grid(read, source, scenarios))
    tasks = [([scenarios[i] for i in group], chunk) for group in group_scenarios(scenarios) for chunk in work.chunks()]

    def count(task: tuple[list[Scenario], slice]) -> Tables:
        return count_entries(work, *task)

    counted = (found[0] for found in map_ordered(count, tasks, workers))
    verdicts = sum(int(one["entries"].sum() + one["rejected"].sum()) for one in counted)  # and compiles
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        for _ in map_ordered(count, tasks, workers):
            pass
        seconds.append(time.perf_counter() - start)
    return min(seconds), verdicts


def rows_of(run: Measured, info: dict, speed: float, memory: int | None) -> list[tuple[str, str, str]]:
    """What was measured, and what is wanted of it."""
    verdicts, cores = info["verdicts"], int(info["workers"])
    work_wall, work_cpu = info["wall_seconds"], info["cpu_seconds"]
    gib = 1 << 30
    rows = [
        ("kernel in memory, billions of verdicts a second", f"{speed / 1e9:.1f}", ""),
        ("run, the same", f"{verdicts / run.wall_s / 1e9:.1f}", ""),
        ("run over kernel", f"{verdicts / run.wall_s / speed:.0%}", f"≥ {SHARE:.0%}"),
        ("run over kernel, start and end aside", f"{verdicts / work_wall / speed:.0%}", ""),
        ("peak memory, GiB", f"{run.peak_bytes / gib:.2f}", "" if memory is None else f"< {memory / gib:g}"),
        ("wall seconds", f"{run.wall_s:.1f}", ""),
        ("CPU seconds, of them in the system", f"{run.cpu_s:.1f}, {run.system_s:.1f}", ""),
        ("read from files, GB", f"{run.read_bytes / 1e9:.2f}", ""),
    ]
    if cores > 1:
        wanted = f"> {SECOND:.0%}" if cores == 2 else ""
        rows[4:4] = [
            ("cores beyond the first, over the work", f"{(work_cpu / work_wall - 1) / (cores - 1):.0%}", wanted),
            ("cores beyond the first, over the process", f"{(run.cpu_s / run.wall_s - 1) / (cores - 1):.0%}", ""),
        ]
    return rows + [(f"seconds: {name}", f"{seconds:.1f}", "") for name, seconds in run.phases().items()]


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=40)
    parser.add_argument("--bars", type=int, default=5_000_000, help="of each symbol")
    parser.add_argument("--memory", default="2GiB", help="as of `backtest run`; none: without")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder that keeps the histories; default: a temporary one")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    given = parser.parse_args()
    memory = None if given.memory == "none" else given.memory
    with tempfile.TemporaryDirectory() as scratch:
        data = dataset(given.data or Path(scratch), given.symbols, given.bars).absolute()
        config, out = Path(scratch, "large.toml"), Path(scratch, "run")
        symbols = json.dumps([f"S{n:03d}USDT" for n in range(given.symbols)])
        histories = [data / "interval=1m" / f"symbol=S{n:03d}USDT" for n in range(given.symbols)]
        config.write_text(CONFIG.format(path=data).replace("\n\n", f"\nsymbols = {symbols}\n\n", 1))
        before, verdicts = kernel(config, given.workers)
        run = measured(config, out, given.workers, memory)
        if run.code:
            sys.exit(f"the run ended with {run.code}: {run.said}")
        speed = verdicts / min(before, kernel(config, given.workers)[0])
        info = json.loads((out / "run.json").read_text())
        files = sum(1 for _ in out.rglob("*.*"))
        bars = sum(part["bars"] for part in info["coverage"])
        text = (
            f"{given.symbols} symbols × {given.bars:,} 1-minute bars ({bars / 1e6:,.0f} million, "
            f"{sum(map(bytes_of, histories)) / 1e9:.2f} GB on disk), both sides, 125 leverages, "
            f"8 horizons, 5 maintenance rates: {info['verdicts'] / 1e9:,.0f} billion verdicts on "
            f"{given.workers} workers"
            f"{'' if memory is None else f' with `--memory {memory}`'}; a run directory of {files} files and "
            f"{bytes_of(out) / 1e6:,.0f} MB. {machine()}.\n\n"
        )
        limit = None if memory is None else parse_memory(memory)
        text += table(("what", "measured", "wanted"), rows_of(run, info, speed, limit))
    print(text)
    if given.write:
        put(Path(__file__).parents[1] / "docs" / "scaling.md", "large: benchmarks/large.py", text)


if __name__ == "__main__":
    main()
