"""How fast is the main job, against copying memory and against plain loops over the bars?

Run: ``python -m benchmarks.speed.main_job [--write]``; ``--write`` puts the table into README.md. The history is five
years of generated 1-minute bars, the grid leverages 1 … 125 and 13 horizons from an hour to 30 days, on one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numba
import numpy as np

import backtest as bt
from backtest.config.models import Config
from backtest.config.scenarios import Scenario, expand_scenarios
from backtest.data.history import PriceHistory
from backtest.data.synthetic import demo_history
from backtest.engine.adverse_series import chunk_series
from backtest.engine.bars import build_grid
from backtest.engine.cohorts import Population
from backtest.engine.count import count_entries
from backtest.engine.crossings import first_crossings
from backtest.engine.kernels.window_max import adverse_series
from backtest.engine.prepare import prepare_entries
from backtest.engine.thresholds import TIE
from backtest.runs.executors.thread_pool import map_ordered
from benchmarks.common import MIB, ROOT, backtest_command, best, machine, put

HORIZONS = ("1h", "2h", "4h", "8h", "12h", "1d", "2d", "3d", "5d", "7d", "14d", "21d", "30d")
MAINTENANCE = 0.004
SKIP = 64


def config() -> Config:
    """One question per entry × horizon × leverage: at a call ratio of 1 the margin call is the liquidation."""
    sweep = bt.Sweep(side=["long"], leverage=range(1, 126), horizon=HORIZONS, maintenance=[MAINTENANCE])
    return Config(sweep=sweep, margin=bt.Margin(margin_call_ratio=1.0))


def sweep_all(population: Population, scenarios: list[Scenario], workers: int = 1, times: int = 1) -> np.ndarray:
    """Liquidations per horizon and leverage of every entry, so many times over."""
    parts = map_ordered(lambda chunk: count_entries(population, scenarios, chunk), population.chunks() * times, workers)
    return sum(part[0]["liquidations"].sum(axis=-1) for part in parts)[0]


@numba.njit(nogil=True, error_model="numpy")
def plain_walk(adverse, bars, price, offset, threshold, horizons, out):
    """The best plain walk: one forward pass per entry and leverage, all horizons resolved by its end."""
    for k in range(threshold.size):
        for j in range(bars.size):
            level = threshold[k] * price[j] + offset[j]
            last = min(bars[j] + horizons[-1], adverse.size - 1)
            t = bars[j] + 1
            while t <= last and adverse[t] < level:
                t += 1
            for h in range(horizons.size):
                if bars[j] + horizons[h] < adverse.size and t <= bars[j] + horizons[h]:
                    out[h, k] += 1


@numba.njit(nogil=True, error_model="numpy")
def skipping_walk(adverse, whole, bars, price, offset, threshold, horizons, out):
    """One walk per entry: leverages in order of their thresholds, blocks whose maximum is too small skipped."""
    n = adverse.size
    for j in range(bars.size):
        last = min(bars[j] + horizons[-1], n - 1)
        t = bars[j] + 1
        k = 0
        while t <= last and k < threshold.size:
            level = threshold[k] * price[j] + offset[j]
            if t % SKIP == 0 and whole[t // SKIP] < level:
                t += SKIP
                continue
            if adverse[t] < level:
                t += 1
                continue
            for h in range(horizons.size):
                if bars[j] + horizons[h] < n and t <= bars[j] + horizons[h]:
                    out[h, k] += 1
            k += 1


def walks(population: Population, scenario: Scenario, sample: int) -> dict[str, tuple[float, np.ndarray, np.ndarray]]:
    """Seconds per verdict of each walk on every n-th entry, with its counts and those of the engine."""
    bars = population.bars[:: max(1, population.bars.size // sample)]
    thin = Population(
        population.grid, bars, population.horizons, population.leverages, population.block_ms, population.terms
    )
    series = chunk_series(thin, slice(0, bars.size), scenario)
    adverse = np.empty(series.adverse_price.size)
    adverse_series(series.adverse_price, series.paid, MAINTENANCE - 1.0, 1.0, adverse)
    padded = np.full(-(-adverse.size // SKIP) * SKIP, -np.inf)
    padded[: adverse.size] = adverse
    whole = padded.reshape(-1, SKIP).max(axis=1)
    price = population.grid.entry_price[bars]
    threshold = ((1 - TIE) / population.leverages - 1.0)[::-1].copy()
    horizons = np.array(population.horizons)
    want = sweep_all(thin, [scenario])[:, ::-1]
    verdicts = bars.size * threshold.size * horizons.size
    found = {}
    arguments = (series.entries.bar, price, series.entries.offset, threshold, horizons)
    for name, walk in (
        ("plain", lambda out: plain_walk(adverse, *arguments, out)),
        ("skipping", lambda out: skipping_walk(adverse, whole, *arguments, out)),
    ):
        out = np.zeros((horizons.size, threshold.size), np.int64)
        walk(out)
        counted = out.copy()
        seconds = best(lambda walk=walk, out=out: walk(out), 1)
        found[name] = (seconds / verdicts, counted, want)
    return found


def events_all(population: Population, scenario: Scenario) -> int:
    """Time to liquidation of every entry × leverage, block by block."""
    return sum(
        int(np.count_nonzero(first_crossings(population, scenario, c).liquidation)) for c in population.chunks(1 << 16)
    )


def run_five_years(history: PriceHistory) -> float:
    """MiB of the largest resident set of a five-year run from its dataset, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = _config(Path(folder), history, HORIZONS, [0.004, 0.005])
        return backtest_command("run", file, "--out", Path(folder) / "run").peak_bytes / MIB


def run_small() -> float:
    """Seconds of a warm run over a year of hours, the best of three."""
    with tempfile.TemporaryDirectory() as folder:
        file = _config(Path(folder), demo_history(years=1, interval="1h"), ("1d", "7d"), [0.005])
        command = ("run", file, "--out", Path(folder) / "run", "--overwrite")
        return min(backtest_command(*command).wall_s for _ in range(4))


def _config(folder: Path, history: PriceHistory, horizons: Sequence[str], maintenance: list[float]) -> Path:
    bt.write_history(history, folder / "data")
    file = folder / "sweep.toml"
    sweep = f"horizon = {json.dumps(horizons)}\nmaintenance = {maintenance}\n"
    file.write_text(f'[data]\npath = "data"\n[sweep]\n{sweep}')
    return file


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    write = parser.parse_args().write
    history = demo_history()
    peak = run_five_years(history)
    population = prepare_entries(config(), build_grid(history))
    scenario = expand_scenarios(config())[0]
    entries = population.bars.size
    cells = entries * len(HORIZONS)
    one = best(lambda: sweep_all(population, [scenario]), 20)
    source, target = np.random.default_rng(0).random(population.grid.n_bars), np.empty(population.grid.n_bars)
    copy = best(lambda: np.copyto(target, source), 20)
    both = Config(sweep=config().sweep)
    calls = best(lambda: sweep_all(prepare_entries(both, population.grid), expand_scenarios(both)))
    threads = {n: best(lambda n=n: sweep_all(population, [scenario], n, times=10)) for n in (1, 2)}
    per_verdict = one / cells / population.leverages.size
    compared = walks(population, scenario, 1_000) | {"skipping": walks(population, scenario, 20_000)["skipping"]}
    for name, (_, counted, want) in compared.items():
        assert (counted == want).all(), f"the {name} walk and the sweep disagree"
    pairs = entries * population.leverages.size
    events = best(lambda: events_all(population, scenario), 1) / pairs
    rows = [
        (
            "survival sweep, per entry × horizon, over copying one float64",
            f"{one / cells * population.grid.n_bars / copy:.1f} ×",
        ),
        ("the same with margin calls apart (two questions)", f"{calls / cells * population.grid.n_bars / copy:.1f} ×"),
        ("best plain walk in Numba over the sweep, per verdict", f"{compared['plain'][0] / per_verdict:,.0f} ×"),
        (
            "walk with ordered leverages and block skipping over the sweep",
            f"{compared['skipping'][0] / per_verdict:,.0f} ×",
        ),
        ("time to liquidation, per entry × leverage", f"{events * 1e9:.1f} ns"),
        ("one thread over two, a second of work", f"{threads[1] / threads[2]:.2f} ×"),
        ("`backtest --help`", f"{min(backtest_command('--help').wall_s for _ in range(4)):.2f} s"),
        ("a small warm `backtest run` (8,760 bars)", f"{run_small():.2f} s"),
        ("peak memory of the five-year run", f"{peak:,.0f} MiB"),
    ]
    lines = [
        f"Five years of 1-minute bars ({entries:,} entries), leverages 1 … 125, 13 horizons from 1h to 30d, one",
        f"thread where not said otherwise; {machine('numpy', 'numba')}. The sweep takes {one:.2f} s",
        f"({one / cells * 1e9:.2f} ns per entry × horizon, {per_verdict * 1e12:.0f} ps per verdict); copying one",
        f"float64 array takes {copy / population.grid.n_bars * 1e9:.2f} ns per value.",
        "",
        "| what | figure |",
        "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in rows),
    ]
    print("\n".join(lines))
    if write:
        put(ROOT / "README.md", "benchmarks/speed/main_job.py", "\n".join(lines))


if __name__ == "__main__":
    main()
