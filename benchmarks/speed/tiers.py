"""What does a table of ten tiers cost over a flat rate?

Run: ``python -m benchmarks.speed.tiers``. The history is generated 1-minute bars, the grid leverages
1 … 125 and 13 horizons from an hour to 30 days, one thread. A tier is reachable in a block of work if the position's
notional can lie in it: between the entry notional times the smallest and the largest P/p of the block. At a margin-call
ratio of 1 there is one question per entry × horizon × leverage, at 0.8 there are two.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

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
from benchmarks.common import in_turn
from benchmarks.speed.main_job import HORIZONS, sweep_all

NOTIONALS = (1_000.0, 60_000.0, 900_000.0, 15_000_000.0, 120_000_000.0)
WANTED = 1.2
"""Wanted: passes over a flat rate's, per reachable tier."""
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


def reachable(population: Population, scenario: Scenario, table: TierTable, notional: float) -> tuple[float, float]:
    """Tiers that hold some notional of a block of work, and lines that the block is swept with; entries' means."""
    tiers, lines, entries = 0, 0, 0
    for chunk in population.chunks():
        series = chunk_series(population, chunk, scenario)
        low, high = (notional * ratio for ratio in price_ratio_bounds(series, scenario))
        n = chunk.stop - chunk.start
        tiers += n * int(((table.floor < high) & (table.cap >= low)).sum())
        lines += n * len(compile_chunk(population, series, scenario).liquidation[0].lines.rate)
        entries += n
    return tiers / entries, lines / entries


def costs(history: PriceHistory) -> None:
    """Print a row per notional: seconds over those of a flat rate, beside the tiers that can be reached."""
    table = ten_tiers()
    print(f"{table.floor.size} tiers with deductions, fixed notional; wanted: cost ≤ {WANTED} × reachable tiers")
    print(f"{'call ratio':>10} {'notional':>14} {'reachable':>10} {'lines':>6} {'cost':>7} {'per tier':>9}  wanted")
    for ratio in (1.0, 0.8):
        population, flat = work_and_scenario(history, ratio)
        for notional in NOTIONALS:
            scenario = under_tiers(flat, table, notional)
            tiers, lines = reachable(population, scenario, table, notional)
            calls = [lambda w=population, s=s: sweep_all(w, [s]) for s in (scenario, flat)]
            tiered, plain = in_turn(*calls, repeat=REPEAT, clock=time.process_time)
            cost = tiered / plain
            verdict = "yes" if cost <= WANTED * tiers else "NO"
            row = f"{ratio:10g} {notional:14,.0f} {tiers:10.2f} {lines:6.2f} {cost:6.2f}× {cost / tiers:8.2f}×"
            print(f"{row}  {verdict}")


def main() -> None:
    """Measure and print."""
    costs(demo_history(years=2))


if __name__ == "__main__":
    main()
