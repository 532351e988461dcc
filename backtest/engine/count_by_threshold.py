"""By threshold: positions of one leverage share their margin rule, so that one threshold tells all of them apart.

Walk of one bar: its worst trigger price becomes one value of each adverse series (`adverse_series`), enters the
window maxima of every entry before it (`widen`, `tile_maxima`), and so raises the entry's required margin rate, which
`count_windows` sorts among the thresholds of all leverages and fees at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest.arrays import Float
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import ChunkSeries, chunk_series, nested_windows, tables_in_force
from backtest.engine.cohorts import Horizons, Population
from backtest.engine.kernels.window_max import LOWEST, adverse_series, build_levels, count_windows
from backtest.engine.threshold_counts import ThresholdTest, add_reaching, all_thresholds, cumulate
from backtest.engine.thresholds import Barrier, Compiled, TierLines, compile_scenario
from backtest.stats.survival_table import COUNTS, Count, Tables


def price_ratio_bounds(series: ChunkSeries, scenario: Scenario) -> tuple[float, float]:
    """Bounds of P/p over the bars and the entries of a chunk; flat rates have no use for them."""
    if not scenario.maintenance.tables:
        return 0.0, np.inf
    price, scale = series.adverse_price, series.entries.scale
    return float(np.nanmin(price) * scale.min()), float(np.nanmax(price) * scale.max())


def compile_chunk(population: Population, series: ChunkSeries, scenario: Scenario) -> Compiled:
    """The scenario, compiled for a chunk; under a flat rate every chunk has the same lines and thresholds."""
    if scenario in population.compiled:
        return population.compiled[scenario]
    periods = tables_in_force(population.grid, scenario.maintenance, series.start, series.stop)
    made = compile_scenario(
        scenario, population.leverages, population.terms, price_ratio_bounds(series, scenario), periods
    )
    if not scenario.maintenance.tables:
        population.compiled[scenario] = made
    return made


def count_by_threshold(population: Population, scenarios: Sequence[Scenario], chunk: slice) -> Tables:
    """Count a chunk whose entries are under one tier table; positions of one leverage share their thresholds.

    Parameters and result as of `backtest.engine.count.count_entries`.
    """
    series, counted = chunk_series(population, chunk, scenarios[0]), population.cohorts(chunk)
    tables = population.empty_tables(chunk, len(scenarios))
    passes: dict[TierLines, list[ThresholdTest]] = {}
    for i, scenario in enumerate(scenarios):
        made = compile_chunk(population, series, scenario)
        asked: dict[Count, tuple[Barrier, ...]] = {"liquidations": made.liquidation, "margin_calls": made.margin_call}
        for count, barriers in asked.items():
            for b in barriers:
                passes.setdefault(b.lines, []).append(ThresholdTest(count, i, b.leverage, b.threshold))
        for by, table in zip(counted, tables, strict=True):
            for k, cohort in zip(by.axis, by.cohorts, strict=True):
                table.counts[COUNTS.index("entries"), i, k, ~made.rejected] = cohort.entries
                table.counts[COUNTS.index("rejected"), i, k, made.rejected] = cohort.entries
                table.counts[COUNTS.index("excluded"), i, k] = cohort.excluded
    for lines, tests in passes.items():
        _add_pass(lines, tests, series, scenarios[0].sign, counted, tables)
    return tables


def _add_pass(
    lines: TierLines,
    tests: list[ThresholdTest],
    series: ChunkSeries,
    sign: float,
    counted: Sequence[Horizons],
    tables: Tables,
) -> None:
    """Add the counts of every test of one pass: the window maxima are made once for all of them."""
    thresholds = all_thresholds(tests)
    levels = build_levels(thresholds)
    histograms = [np.zeros((len(by.bars), 2 * by.n_blocks, levels.value.size), np.int64) for by in counted]
    adverse = np.empty((len(lines.rate), series.adverse_price.size))
    for k, out in enumerate(adverse):
        fill_line(lines, k, series, sign, out)
    weight, shift = np.array(lines.weight), np.array(lines.shift)
    for h, window in enumerate(nested_windows(adverse, counted[0].bars)):
        for by, histogram in zip(counted, histograms, strict=True):
            runs = by.cohorts[h].runs
            if runs.start.size:
                count_windows(window, series.entries, weight, shift, runs, levels, histogram[h])
    for by, histogram, table in zip(counted, histograms, tables, strict=True):
        reaching = cumulate(histogram)
        for test in tests:
            add_reaching(table.counts, by, test, reaching[..., np.searchsorted(thresholds, test.threshold)])


def fill_line(lines: TierLines, k: int, series: ChunkSeries, sign: float, out: Float) -> None:
    """One adverse series, `LOWEST` where its tier table is not in force."""
    adverse_series(series.adverse_price, series.paid, lines.rate[k], sign, out)
    out[: lines.first[k]] = LOWEST
    out[lines.stop[k] :] = LOWEST
