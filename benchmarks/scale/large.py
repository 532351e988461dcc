"""How much of the speed of the kernel in memory does a run over 200 million bars on disk reach?

Run: ``python -m benchmarks.scale.large [--symbols 40] [--bars 5000000] [--memory 2GiB] [--workers 2] [--data DIR]
[--write]``. The histories are generated (5 GB, a few minutes) and kept in ``--data``; ``--symbols 4`` takes a minute.
``--write`` puts the table into docs/scaling.md.

The kernel in memory is the same passes over one of the histories, laid on its grid before, on as many threads. It is
timed before and after the run, and the best time counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from backtest.config.resolve import resolve_config
from backtest.config.scenarios import Scenario, expand_scenarios, group_scenarios, scenarios_at
from backtest.engine.count import count_entries
from backtest.engine.prepare import prepare_entries
from backtest.runs.executors.thread_pool import map_ordered
from backtest.runs.inputs import list_sources, read_grid
from backtest.runs.memory import parse_memory
from backtest.stats.survival_table import Tables
from benchmarks.common import (
    GIB,
    ROOT,
    SWEEP,
    backtest_command,
    bytes_below,
    dataset,
    machine,
    put,
    symbols_toml,
    table,
    timed,
)


def kernel_speed(config: Path, workers: int, times: int = 3) -> float:
    """Verdicts a second of threads that count the first symbol, with its bars in memory."""
    read = resolve_config(str(config))
    source = list_sources(str(read.data.path), read)[0]
    scenarios = scenarios_at(expand_scenarios(read), source.symbol)
    population = prepare_entries(read, read_grid(read, source, scenarios))
    tasks = [
        ([scenarios[i] for i in group], chunk) for group in group_scenarios(scenarios) for chunk in population.chunks()
    ]

    def count(task: tuple[list[Scenario], slice]) -> Tables:
        return count_entries(population, *task)

    counted = (found[0] for found in map_ordered(count, tasks, workers))
    verdicts = sum(int(one["entries"].sum() + one["rejected"].sum()) for one in counted)  # and compiles
    return verdicts / min(timed(lambda: list(map_ordered(count, tasks, workers)))[0] for _ in range(times))


def measure(data: Path, scratch: Path, symbols: int, workers: int, memory: str | None) -> str:
    """Run, and lay out what was measured."""
    config, out = scratch / "large.toml", scratch / "run"
    config.write_text(f'[data]\npath = "{data}"\n{symbols_toml(symbols)}\n{SWEEP}')
    limit = [] if memory is None else ["--memory", memory]
    before = kernel_speed(config, workers)
    run = backtest_command("run", config, "--out", out, "--workers", workers, *limit)
    speed = max(before, kernel_speed(config, workers))
    info = json.loads((out / "run.json").read_text())
    bars, verdicts = sum(part["bars"] for part in info["coverage"]), info["verdicts"]
    rows = [
        ("kernel in memory, billions of verdicts a second", f"{speed / 1e9:.1f}", ""),
        ("run, the same", f"{verdicts / run.wall_s / 1e9:.1f}", ""),
        ("run over kernel", f"{verdicts / run.wall_s / speed:.0%}", "≥ 70%"),
        ("run over kernel, start and end aside", f"{verdicts / info['wall_seconds'] / speed:.0%}", ""),
        ("peak memory, GiB", f"{run.peak_bytes / GIB:.2f}", f"< {parse_memory(memory) / GIB:g}" if memory else ""),
        ("wall seconds", f"{run.wall_s:.1f}", ""),
        ("CPU seconds", f"{run.cpu_s:.1f}", ""),
    ]
    if workers > 1:
        beyond = (info["cpu_seconds"] / info["wall_seconds"] - 1) / (workers - 1)
        rows.insert(4, ("cores beyond the first, over the work", f"{beyond:.0%}", "> 85%" if workers == 2 else ""))
    size = sum(bytes_below(folder) for folder in sorted(data.glob("interval=1m/symbol=*"))[:symbols])
    return (
        f"{symbols} symbols of generated 1-minute bars ({bars / 1e6:,.0f} million, {size / 1e9:.2f} GB on disk), both "
        f"sides, 125 leverages, 8 horizons, 5 maintenance rates: {verdicts / 1e9:,.0f} billion verdicts on {workers} "
        f"workers{f' with `--memory {memory}`' if memory else ''}; a run directory of "
        f"{sum(1 for _ in out.rglob('*.*'))} files and {bytes_below(out) / 1e6:,.0f} MB. {machine()}.\n\n"
        + table(("what", "measured", "wanted"), rows)
    )


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
    with tempfile.TemporaryDirectory() as scratch:
        data = dataset(given.data or Path(scratch), given.symbols, given.bars)
        memory = None if given.memory == "none" else given.memory
        text = measure(data, Path(scratch), given.symbols, given.workers, memory)
    print(text)
    if given.write:
        put(ROOT / "docs" / "scaling.md", "benchmarks/scale/large.py", text)


if __name__ == "__main__":
    main()
