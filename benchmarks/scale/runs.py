"""How do time and memory of a run grow with each axis of a sweep, and how far off is the plan?

Run: ``python -m benchmarks.scale.runs [--quick] [--repeat 2] [--data DIR] [--write]``; ``--quick`` takes fewer and
smaller runs, to see that it works. Each run is a process of its own; repeats are interleaved and shuffled. Histories
are generated and kept in ``--data`` (0.5 GB). ``--write`` puts the table into docs/scaling.md. The rate of plans,
`STEP_S` in backtest/runs/memory.py, is chosen from this table.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backtest.runs.estimate import Estimate, estimate_run
from backtest.units import duration_ms
from benchmarks.common import MIB, ROOT, Cost, backtest_command, dataset, machine, put, symbols_toml, table

ALL_HORIZONS = ("1h", "2h", "4h", "6h", "8h", "12h", "1d", "2d", "3d", "4d", "5d", "7d", "10d", "14d", "21d", "30d")
EIGHT = ("1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d")
REFUSED = 2
"""Exit code of a run that does not fit ``--memory``."""


@dataclass(frozen=True)
class Case:
    """A run: both sides over generated histories."""

    axis: str = "base"
    value: str = "base"
    symbols: int = 2
    bars: int = 1_000_000
    interval: str = "1m"
    every: str | None = None
    maintenance: int = 5
    fundings: int = 1
    fees: int = 1
    horizons: tuple[str, ...] = EIGHT
    leverages: int = 125
    workers: int = 2
    memory: str | None = None
    outcomes: bool = False

    def toml(self, data: Path) -> str:
        """Its configuration."""
        fundings = ", ".join(f"{{ scale = {1 + n / 4} }}" for n in range(self.fundings))
        lines = [
            "[data]",
            f'path = "{data}"',
            symbols_toml(self.symbols),
            "[sweep]",
            f"leverage = {np.linspace(1, 125, self.leverages).round(3).tolist()}",
            f"horizon = {list(self.horizons)}",
            f"maintenance = {[round(0.004 + 0.002 * n, 3) for n in range(self.maintenance)]}",
            f"open_fee = {[round(0.0001 * n, 4) for n in range(self.fees)]}",
            f"funding = [{fundings}]",
            *(["[entries]", f'every = "{self.every}"'] if self.every else []),
            *(["[statistics]", "outcomes = true"] if self.outcomes else []),
        ]
        return "\n".join(lines) + "\n"


LONG = {"bars": 4_000_000, "every": "4h", "maintenance": 20, "leverages": 5}
FOLLOWED = {"outcomes": True, "every": "1h", "maintenance": 1}
AXES: dict[str, list[dict[str, object]]] = {
    "bars": [{"bars": n} for n in (125_000, 250_000, 500_000, 2_000_000, 4_000_000)],
    "symbols": [{"symbols": n} for n in (1, 4, 8)],
    "entries": [{"every": "15m"}, {"every": "1h"}],
    "maintenance rates": [{"maintenance": 1}, {"maintenance": 20}],
    "fundings": [{"fundings": 2}, {"fundings": 4}],
    "fees": [{"fees": 4}, {"fees": 8}],
    "horizons": [{"horizons": ("1h", "30d")}, {"horizons": ALL_HORIZONS}],
    "longest horizon": [{"horizons": (*EIGHT[:-1], days)} for days in ("150d", "600d")],
    "long windows": [{**LONG, "horizons": ("1d", days)} for days in ("30d", "1000d")],
    "leverages": [{"leverages": 5}, {"leverages": 500}],
    "workers": [{"workers": 1}, {"workers": 4}],
    "outcomes": [{**FOLLOWED, "leverages": 25}, {**FOLLOWED, "leverages": 50}],
    "--memory": [{"bars": 4_000_000, "memory": limit} for limit in (None, "1GiB", "500MiB")],
    "mixed": [
        {"symbols": 3, "bars": 500_000, "maintenance": 3, "fundings": 2, "horizons": ALL_HORIZONS[:13]},
        {"symbols": 1, "bars": 4_000_000, "every": "1h", "maintenance": 2, "horizons": ("1d", "30d"), "workers": 1},
        {"symbols": 6, "bars": 250_000, "maintenance": 1, "fees": 4, "horizons": ALL_HORIZONS},
        {"symbols": 1, "bars": 4_000_000, "interval": "1s", "maintenance": 3, "horizons": ("1m", "1h", "8h", "7d")},
    ],
}
"""What differs from the first run."""


def cases(quick: bool) -> list[Case]:
    """The first run, then each axis; `quick` takes every fourth, over 1/8 of the bars."""
    made = [Case()]
    for axis, every in AXES.items():
        for changes in every:
            value = ", ".join(f"{name} {_words(what)}" for name, what in changes.items())
            made.append(replace(made[0], axis=axis, value=value, **changes))
    return [replace(case, bars=case.bars // 8) for case in made[::4]] if quick else made


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} to {value[-1]}"
    return f"{value:,}" if isinstance(value, int) and value is not True else str(value)


def measure(every: Sequence[Case], data: Path, repeat: int) -> list[tuple[list[Cost], Estimate]]:
    """Run every case, one repeat of all after the other, in another order each time."""
    costs: list[list[Cost]] = [[] for _ in every]
    plans: dict[int, Estimate] = {}
    shuffle = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        config, out = Path(scratch, "run.toml"), Path(scratch, "out")
        for turn in range(-1, repeat):
            # The first turn compiles what is not compiled yet.
            for n in [0] if turn < 0 else shuffle.sample(range(len(every)), len(every)):
                case = every[n]
                config.write_text(case.toml(dataset(data, case.symbols, case.bars, duration_ms(case.interval))))
                plans[n] = estimate_run(config, case.workers, case.memory)
                limit = ["--memory", case.memory] if case.memory else []
                words = ["run", config, "--out", out, "--overwrite", "--workers", case.workers, *limit]
                cost = backtest_command(*words, allowed=(0, REFUSED) if limit else (0,))
                if turn >= 0:
                    costs[n].append(cost)
                print(f"{turn + 1}/{repeat} {case.axis} {case.value}: {cost.wall_s:.2f} s", file=sys.stderr, flush=True)
    return [(costs[n], plans[n]) for n in range(len(every))]


def report(every: Sequence[Case], found: Sequence[tuple[list[Cost], Estimate]], repeat: int) -> str:
    """The table, and how many runs lie in the range of their plan."""
    rows, inside, misses = [], 0, []
    for case, (costs, plan) in zip(every, found, strict=True):
        low, high = plan.seconds_range
        if costs[0].code == REFUSED:
            rows.append([case.axis, case.value, "refused", "–", "–", "–", "–"])
            continue
        wall, peak = min(cost.wall_s for cost in costs), max(cost.peak_bytes for cost in costs)
        inside += low <= wall <= high
        misses.append(plan.memory_bytes / peak)
        rows.append([case.axis, case.value, f"{wall:.2f}", f"{min(cost.cpu_s for cost in costs):.2f}"])
        rows[-1] += [f"{peak / MIB:,.0f}", f"{low:.1f}–{high:.1f}", f"{plan.memory_bytes / MIB:,.0f}"]
    head = ["axis", "value", "seconds", "CPU s", "peak MiB", "plan: seconds", "plan: MiB"]
    return (
        f"{repeat} interleaved runs of each, the quickest counts. {machine()}. Where an axis does not say otherwise: "
        "2 symbols × 1,000,000 1-minute bars with mark prices and funding, every bar an entry, both sides, 5 "
        f"maintenance rates, 8 horizons to 30d, 125 leverages, 2 workers.\n\n{table(head, rows)}\n\n"
        f"Of {len(misses)} runs, {inside} took a time in the range of their plan. The memory of the plan is "
        f"{min(misses):.2f} to {max(misses):.2f} times the peak."
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller runs")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder that keeps the histories; default: a temporary one")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    given = parser.parse_args()
    every = cases(given.quick)
    with tempfile.TemporaryDirectory() as scratch:
        text = report(every, measure(every, given.data or Path(scratch), given.repeat), given.repeat)
    print(text)
    if given.write:
        put(ROOT / "docs" / "scaling.md", "benchmarks/scale/runs.py", text)


if __name__ == "__main__":
    main()
