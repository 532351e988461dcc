"""What a table of ten tiers costs over a flat rate, and what ten times the scenarios cost in memory.

Run: ``python benchmarks/tiers.py``, under two minutes. The history is generated 1-minute bars, the grid leverages
1 … 125 and 13 horizons from an hour to 30 days, one thread. A tier is reachable in a block of work if the position's
notional can lie in it: between the entry notional times the smallest and the largest P/p of the block. At a margin-call
ratio of 1 there is one question per entry × horizon × leverage, at 0.8 there are two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from main_job import HORIZONS, best, sweep_all

import backtest as bt
from backtest.config.models import Config, Size
from backtest.config.scenarios import Scenario, expand_scenarios
from backtest.data.history import PriceHistory
from backtest.data.synthetic import demo_history
from backtest.engine.adverse_series import chunk_series
from backtest.engine.bars import build_grid
from backtest.engine.cohorts import Population
from backtest.engine.count_by_threshold import compile_chunk, price_ratio_bounds
from backtest.engine.prepare import prepare_entries
from backtest.margin.packaged_tiers import packaged_tables
from backtest.margin.tiers import DatedTable, TierTable

NOTIONALS = (1_000.0, 60_000.0, 900_000.0, 15_000_000.0, 120_000_000.0)
ASKED = 1.2
"""Passes over a flat rate's, per reachable tier."""
REPEAT = 20


def ten_tiers() -> TierTable:
    """The first recorded table of BTCUSDT, any leverage allowed so that both questions have the same positions."""
    table = packaged_tables("binance-usdm", "BTCUSDT")[0].table
    return replace(table, max_leverage=np.full(table.floor.size, np.inf))


def work_and_scenario(history: PriceHistory, ratio: float) -> tuple[Population, Scenario]:
    """A flat rate over every entry."""
    sweep = bt.Sweep(side=["long"], leverage=range(1, 126), horizon=HORIZONS, maintenance=[0.004])
    config = Config(sweep=sweep, margin=bt.Margin(margin_call_ratio=ratio))
    return prepare_entries(config, build_grid(history)), expand_scenarios(config)[0]


def under_tiers(flat: Scenario, table: TierTable, notional: float) -> Scenario:
    """The same positions at a notional, under the table."""
    maintenance = replace(flat.maintenance, label="tiers", flat=0.0, tables=(DatedTable(None, table),))
    return replace(flat, maintenance=maintenance, size=Size(notional=notional))


def reachable(work: Population, scenario: Scenario, table: TierTable, notional: float) -> tuple[float, float]:
    """Tiers that hold some notional of a block of work, and lines that the block is swept with; entries' means."""
    tiers, lines, entries = 0, 0, 0
    for chunk in work.chunks():
        series = chunk_series(work, chunk, scenario)
        low, high = (notional * ratio for ratio in price_ratio_bounds(series, scenario))
        n = chunk.stop - chunk.start
        tiers += n * int(((table.floor < high) & (table.cap >= low)).sum())
        lines += n * len(compile_chunk(work, series, scenario).liquidation[0].lines.rate)
        entries += n
    return tiers / entries, lines / entries


def costs(history: PriceHistory) -> None:
    """Print a row per notional: seconds over those of a flat rate, beside the tiers that can be reached."""
    table = ten_tiers()
    print(
        f"{table.floor.size} tiers with deductions, mark basis, fixed notional; asked: cost ≤ {ASKED} × reachable tiers"
    )
    print(f"{'call ratio':>10} {'notional':>14} {'reachable':>10} {'lines':>6} {'cost':>7} {'per tier':>9}  asked")
    for ratio in (1.0, 0.8):
        work, flat = work_and_scenario(history, ratio)
        for notional in NOTIONALS:
            scenario = under_tiers(flat, table, notional)
            tiers, lines = reachable(work, scenario, table, notional)
            cost = over(lambda w=work, s=scenario: sweep_all(w, [s]), lambda w=work, f=flat: sweep_all(w, [f]))
            verdict = "yes" if cost <= ASKED * tiers else "NO"
            row = f"{ratio:10g} {notional:14,.0f} {tiers:10.2f} {lines:6.2f} {cost:6.2f}× {cost / tiers:8.2f}×"
            print(f"{row}  {verdict}")


def over(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Seconds of the quickest of some calls over those of another, taken in turn as a busy machine slows both."""
    best(one, 1)
    best(other, 1)
    pairs = [(timed(one), timed(other)) for _ in range(REPEAT)]
    return min(a for a, _ in pairs) / min(b for _, b in pairs)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call, of the processor: others may be at work on the machine."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peaks(history: PriceHistory) -> None:
    """Print the largest resident set of a run with some scenarios, and with ten times as many, each in a process."""
    horizons = ", ".join(f'"{h}"' for h in HORIZONS)
    with tempfile.TemporaryDirectory() as folder:
        bt.write_history(history, Path(folder) / "data")
        found = {}
        for n in (4, 40):
            rates = ", ".join(repr(round(0.004 + 0.0001 * k, 6)) for k in range(n))
            file = Path(folder) / f"{n}.toml"
            file.write_text(
                f'[data]\npath = "data"\n[sweep]\nside = ["long"]\nhorizon = [{horizons}]\nmaintenance = [{rates}]\n'
                "open_fee = [0.0, 0.0002, 0.0004, 0.0006, 0.0008]\n"
            )
            command = [sys.executable, "-m", "backtest", "run", str(file), "--out", str(Path(folder) / f"run-{n}")]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"the run of {n} rates failed")
            found[5 * n] = usage.ru_maxrss / 1024
    (few, before), (many, after) = found.items()
    print(f"peak memory of {few} scenarios {before:,.0f} MiB, of {many} {after:,.0f} MiB: {after / before:.2f} ×")


def main() -> None:
    """Measure and print."""
    costs(demo_history(years=2))
    peaks(demo_history(years=0.5))


if __name__ == "__main__":
    main()
