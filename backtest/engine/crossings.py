"""When positions are called and liquidated under static rules, by threshold or by entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int, Int32
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import ChunkSeries, chunk_series
from backtest.engine.cohorts import Population
from backtest.engine.count_by_entry import compile_entries, differs_by_entry
from backtest.engine.count_by_threshold import compile_chunk, fill_line
from backtest.engine.entry_rates import RateLines, RatePart, Walk
from backtest.engine.kernels.bar_loop import walk_rates
from backtest.engine.kernels.first_passage import build_tree, crossings_by_stack, crossings_by_tree
from backtest.engine.kernels.window_max import LOWEST, EntryArrays
from backtest.engine.thresholds import Barrier

SPARSE = 64
"""Bars per entry from which descending a tree beats a stack over all bars."""


@dataclass(frozen=True)
class Crossings:
    """When the positions of a scenario were called and liquidated.

    Attributes
    ----------
    series : ChunkSeries
        The chunk's local arrays.
    rejected : (n_entries, n_leverages) bool
    margin_call, liquidation : (n_entries, n_leverages) int32
        Bars from the entry, within the longest horizon; 0 where it did not happen.
    """

    series: ChunkSeries
    rejected: Bool
    margin_call: Int32
    liquidation: Int32


def first_crossings(population: Population, scenario: Scenario, chunk: slice, *, calls: bool = True) -> Crossings:
    """First margin call and liquidation of each entry of a chunk at each leverage.

    chunk : whose entries are under one tier table
    calls : without them those of margin calls may be 0 throughout, in half the time
    """
    series = chunk_series(population, chunk, scenario)
    if differs_by_entry(population, scenario):
        return _by_entry(population, series, compile_entries(population, series, scenario, population.leverages))
    made = compile_chunk(population, series, scenario)
    call, dead = (
        _by_threshold(barriers, series, scenario.sign, population.leverages.size, max(population.horizons))
        for barriers in (made.margin_call if calls else (), made.liquidation)
    )
    rejected = np.broadcast_to(made.rejected, (series.unit_value.size, made.rejected.size))
    return Crossings(series, rejected, call, dead)


def _by_threshold(barriers: Sequence[Barrier], series: ChunkSeries, sign: float, n_leverages: int, limit: int) -> Int32:
    out = np.zeros((series.entries.bar.size, n_leverages), np.int32)
    adverse = np.empty(series.stop - series.start)
    for barrier in barriers:
        order = np.argsort(barrier.threshold, kind="stable")
        asked = np.array(barrier.threshold)[order], np.array(barrier.leverage)[order]
        lines = barrier.lines
        for k, line in enumerate(zip(lines.weight, lines.shift, strict=True)):
            fill_line(lines, k, series, sign, adverse)
            _cross(adverse, series.entries, line, asked, limit, out)
    return out


def _cross(
    adverse: Float, entries: EntryArrays, line: tuple[float, float], asked: tuple[Float, Int], limit: int, out: Int32
) -> None:
    """Lower `out` to the first crossings of one adverse series.

    line : weight and shift, as of `TierLines`
    asked : ascending thresholds, and the column of `out` that each belongs to
    """
    if entries.bar.size * SPARSE < adverse.size:
        crossings_by_tree(build_tree(adverse), entries, *line, *asked, limit, out)
    else:
        crossings_by_stack(adverse, entries, *line, *asked, limit, out)


def _by_entry(population: Population, series: ChunkSeries, parts: list[RatePart]) -> Crossings:
    shape = (series.unit_value.size, population.leverages.size)
    out = Crossings(series, np.zeros(shape, np.bool_), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
    for part in parts:
        columns = np.array(part.leverage)
        inverse = 1.0 / population.leverages[columns]
        out.rejected[:, columns] = inverse <= part.floor[:, None]
        order = np.argsort(inverse, kind="stable")
        for lines, hit in ((part.margin_call, out.margin_call), (part.liquidation, out.liquidation)):
            _cross_rates(lines, series, (inverse[order], columns[order]), max(population.horizons), hit)
    past = series.entries.bar[:, None] + np.stack([out.margin_call, out.liquidation]) > series.until[:, None]
    out.margin_call[past[0]] = 0
    out.liquidation[past[1]] = 0
    return out


def _cross_rates(
    lines: RateLines | Walk, series: ChunkSeries, asked: tuple[Float, Int], limit: int, out: Int32
) -> None:
    bars, (threshold, column) = series.entries.bar, asked
    if isinstance(lines, Walk):
        hit = np.zeros((bars.size, threshold.size), np.int32)
        most, within = np.empty((1, bars.size)), np.array([limit])
        walk_rates(lines.bars, lines.positions, lines.tiers, lines.rule, within, threshold, most, hit)
        out[:, column] = hit
        return
    for adverse, offset, scale in zip(lines.adverse, lines.offset, lines.scale, strict=True):
        kept = np.flatnonzero(scale > 0)  # entries under this line
        hit = out[kept]
        prices = np.where(np.isnan(adverse), LOWEST, adverse)
        _cross(prices, EntryArrays(bars[kept], offset[kept], scale[kept]), (1.0, 0.0), asked, limit, hit)
        out[kept] = hit
