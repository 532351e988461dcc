"""One block of work: a stretch of entries × scenarios → SurvivalTable.

Walk of one bar: its worst trigger price becomes one value of each adverse series (`adverse_series`), enters the
window maxima of every entry before it (`widen`, `tile_maxima`), and so raises the entry's required margin rate, which
`count_windows` sorts among the thresholds of all leverages and fees at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from backtest.arrays import Float, Int, Int32
from backtest.config.scenarios import Maintenance, Scenario, split_sides
from backtest.engine.adverse_series import ChunkSeries, chunk_series, nested_windows, split_at_tables, tables_in_force
from backtest.engine.cohorts import Horizons, Work
from backtest.engine.count_by_entry import (
    SPARSE,
    Crossings,
    cohort_members,
    count_entrywise,
    crossings_entrywise,
    rates_by_horizon,
)
from backtest.engine.entry_rates import RatePart, parts_of_scenario
from backtest.engine.kernels.first_passage import build_tree, crossings_by_stack, crossings_by_tree
from backtest.engine.kernels.window_max import LOWEST, adverse_series, build_levels, count_windows
from backtest.engine.thresholds import Barrier, Compiled, TierLines, compile_scenario
from backtest.stats.survival_table import COUNTS, PRIOR, SurvivalTable, Tables, merged


def price_ratio_bounds(series: ChunkSeries, scenario: Scenario) -> tuple[float, float]:
    """Bounds of P/p over the bars and the entries of a chunk; flat rates have no use for them."""
    if not scenario.maintenance.tables:
        return 0.0, np.inf
    price, scale = series.adverse_price, series.entries.scale
    return float(np.nanmin(price) * scale.min()), float(np.nanmax(price) * scale.max())


def compiled(work: Work, series: ChunkSeries, scenario: Scenario) -> Compiled:
    """The scenario, compiled for a chunk; under a flat rate every chunk has the same lines and thresholds."""
    maintenance = scenario.maintenance
    known = work.compiled.get(scenario)
    if known is not None:
        return known
    periods, ratio = (
        tables_in_force(work.grid, maintenance, series.start, series.stop),
        price_ratio_bounds(series, scenario),
    )
    made = compile_scenario(scenario, work.leverages, work.terms, ratio, periods)
    if not maintenance.tables:
        work.compiled[scenario] = made
    return made


def split_by_table(work: Work, maintenance: Maintenance, chunk: slice) -> list[slice]:
    """A chunk, cut where entries come under another tier table."""
    return split_at_tables(work.bars, [(work.grid, maintenance)], chunk)


@dataclass(frozen=True)
class ThresholdTest:
    """Thresholds that one pass over the entries answers: where their answers belong."""

    row: int  # of COUNTS
    scenario: int
    leverage: tuple[int, ...]
    threshold: tuple[float, ...]


def count_block(work: Work, scenarios: Sequence[Scenario], chunk: slice) -> Tables:
    """Count entries, rejections, margin calls and liquidations of a chunk of entries.

    Parameters
    ----------
    scenarios : sequence of Scenario
        Of one side, maintenance rule and funding; they differ in fee and size.
    chunk : slice
        Of ``work.bars``; every entry's window is followed beyond it.

    Returns
    -------
    tuple of SurvivalTable
        By calendar block, then by each regime. Tables of disjoint chunks add up to that of all entries.
    """
    parts = split_by_table(work, scenarios[0].maintenance, chunk)
    if len(parts) > 1:
        return reduce(merged, (count_block(work, scenarios, part) for part in parts))
    if any(is_entrywise(work, scenario) for scenario in scenarios):
        return _count_entrywise(work, scenarios, chunk)
    series = chunk_series(work, chunk, scenarios[0])
    counted = work.cohorts(chunk)
    tables = [
        np.zeros((len(COUNTS), len(scenarios), len(by.bars), work.leverages.size, by.n_cells), np.int64)
        for by in counted
    ]
    passes: dict[TierLines, list[ThresholdTest]] = {}
    for i, scenario in enumerate(scenarios):
        made = compiled(work, series, scenario)
        for row, barriers in (("liquidations", made.liquidation), ("margin_calls", made.margin_call)):
            for b in barriers:
                question = ThresholdTest(COUNTS.index(row), i, b.leverage, b.threshold)
                passes.setdefault(b.lines, []).append(question)
        for by, counts in zip(counted, tables, strict=True):
            for k, cohort in zip(by.axis, by.cohorts, strict=True):
                counts[COUNTS.index("entries"), i, k, ~made.rejected] = cohort.entries
                counts[COUNTS.index("rejected"), i, k, made.rejected] = cohort.entries
                counts[COUNTS.index("excluded"), i, k] = cohort.excluded
    for lines, questions in passes.items():
        _answer(lines, questions, series, scenarios[0].sign, counted, tables)
    return tuple(SurvivalTable(counts, by.first) for by, counts in zip(counted, tables, strict=True))


def is_entrywise(work: Work, scenario: Scenario) -> bool:
    """Whether positions of one leverage differ in more than their price, so that thresholds are not shared."""
    maintenance = scenario.maintenance
    in_coin = scenario.face is not None and bool(maintenance.tables or scenario.extra)
    return (
        work.trades is not None
        or work.grid.scale is not None
        or scenario.weight is not None
        or maintenance.spot is not None
        or maintenance.slope > 0
        or in_coin
    )


def entry_parts(work: Work, series: ChunkSeries, scenario: Scenario, leverages: Float) -> list[RatePart]:
    """The scenario compiled entry by entry for a chunk whose entries are under one tier table."""
    periods = tables_in_force(work.grid, scenario.maintenance, series.start, series.stop)
    return parts_of_scenario(scenario, leverages, work.terms, series, periods)


def critical_leverages(work: Work, scenario: Scenario, chunk: slice) -> Float:
    """(n_horizons, n_entries) leverage from which each entry of a chunk is liquidated within each horizon.

    Horizons as in the work; where an entry has a leverage of its own, it is that one that is scaled. NaN where each
    leverage has tiers of its own (a fixed margin and tiers that stay as they were at entry).
    """
    series = chunk_series(work, chunk, scenario)
    parts = entry_parts(work, series, scenario, work.leverages)
    members = cohort_members(work, chunk, series.weight)
    out = np.full((len(work.horizons), series.worth.size), np.nan)
    if len(parts) == 1:
        for h, rate in zip(members.axis, rates_by_horizon(work, series, parts[0].liquidation, members), strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                out[h] = np.where(rate > 0, series.weight / rate, np.inf)
    return out


def _count_entrywise(work: Work, scenarios: Sequence[Scenario], chunk: slice) -> Tables:
    """As `count_block`, one scenario at a time; where trades have sides of their own, both are counted."""
    counted = work.counted(chunk)
    shape = (len(COUNTS), len(work.horizons), work.leverages.size)
    tables = [np.zeros((shape[0], len(scenarios), *shape[1:], by.last - by.first), np.int64) for by in counted]
    for i, scenario in enumerate(scenarios):
        for one in split_sides(scenario):
            series = chunk_series(work, chunk, one)
            found = [np.zeros((*shape, by.last - by.first), np.int64) for by in counted]
            count_entrywise(work, series, entry_parts(work, series, one, work.leverages), chunk, found)
            for table, counts in zip(tables, found, strict=True):
                table[:, i] += counts
    return tuple(SurvivalTable(counts, by.first) for by, counts in zip(counted, tables, strict=True))


def _answer(
    lines: TierLines,
    questions: list[ThresholdTest],
    series: ChunkSeries,
    sign: float,
    counted: Sequence[Horizons],
    tables: Sequence[Int],
) -> None:
    """Answer every question of one pass, adding to the tables: one sight of the windows serves all of them."""
    thresholds = np.unique(np.concatenate([q.threshold for q in questions]))
    levels = build_levels(thresholds)
    histograms = [np.zeros((len(by.bars), 2 * by.n_cells, levels.value.size), np.int64) for by in counted]
    adverse = np.empty((len(lines.rate), series.adverse_price.size))
    for k, out in enumerate(adverse):
        fill_line(lines, k, series, sign, out)
    weight, shift = np.array(lines.weight), np.array(lines.shift)
    for h, window in enumerate(nested_windows(adverse, counted[0].bars)):
        for by, histogram in zip(counted, histograms, strict=True):
            runs = by.cohorts[h].runs
            if runs.start.size:
                count_windows(window, series.entries, weight, shift, runs, levels, histogram[h])
    for by, histogram, counts in zip(counted, histograms, tables, strict=True):
        _place(questions, thresholds, histogram, by, counts)


def _place(questions: list[ThresholdTest], thresholds: Float, histogram: Int, by: Horizons, counts: Int) -> None:
    """Add the answers of one pass where they belong.

    histogram : (n_horizons, 2 · n_cells, n_levels) int64
    """
    # Entries that reach each threshold: (n_horizons, n_cells, stays, n_levels).
    reached = histogram[..., ::-1].cumsum(axis=-1)[..., -2::-1].reshape(len(by.bars), by.n_cells, 2, -1)
    both, staying = reached.sum(axis=2), reached[:-1, :, 1]
    for q in questions:
        at = np.searchsorted(thresholds, q.threshold)
        axes = np.ix_(by.axis, q.leverage)
        counts[q.row, q.scenario][axes] += both[..., at].swapaxes(1, 2)
        later = np.ix_(by.axis[1:], q.leverage)
        prior = COUNTS.index(PRIOR[COUNTS[q.row]])
        counts[prior, q.scenario][later] += staying[..., at].swapaxes(1, 2)


def fill_line(lines: TierLines, k: int, series: ChunkSeries, sign: float, out: Float) -> None:
    """One adverse series, `LOWEST` where its tier table is not in force."""
    adverse_series(series.adverse_price, series.paid, lines.rate[k], sign, out)
    out[: lines.first[k]] = LOWEST
    out[lines.stop[k] :] = LOWEST


def first_crossings(work: Work, scenario: Scenario, chunk: slice, *, calls: bool = True) -> Crossings:
    """First margin call and liquidation of each entry of a chunk at each leverage.

    calls : without them those of margin calls may be 0 throughout, in half the time
    """
    series = chunk_series(work, chunk, scenario)
    if is_entrywise(work, scenario):
        return crossings_entrywise(work, series, entry_parts(work, series, scenario, work.leverages))
    made = compiled(work, series, scenario)
    call, dead = (
        _first_of(barriers, series, scenario.sign, work.leverages.size, max(work.horizons))
        for barriers in (made.margin_call if calls else [], made.liquidation)
    )
    rejected = np.broadcast_to(made.rejected, (series.worth.size, made.rejected.size))
    return Crossings(series, rejected, call, dead)


def _first_of(barriers: Sequence[Barrier], series: ChunkSeries, sign: float, n_leverages: int, limit: int) -> Int32:
    entries = series.entries
    out = np.zeros((entries.bar.size, n_leverages), np.int32)
    adverse = np.empty(series.stop - series.start)
    sparse = entries.bar.size * SPARSE < adverse.size
    for barrier in barriers:
        order = np.argsort(barrier.threshold, kind="stable")
        threshold, column = np.array(barrier.threshold)[order], np.array(barrier.leverage)[order]
        lines = barrier.lines
        for k, (weight, shift) in enumerate(zip(lines.weight, lines.shift, strict=True)):
            fill_line(lines, k, series, sign, adverse)
            if sparse:
                tree = build_tree(adverse)
                crossings_by_tree(tree, entries, weight, shift, threshold, column, limit, out)
            else:
                crossings_by_stack(adverse, entries, weight, shift, threshold, column, limit, out)
    return out
