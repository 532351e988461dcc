"""Counting and dating scenarios whose positions differ by entry (`backtest.engine.entry_rates`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int, Int32
from backtest.engine.adverse_series import ChunkSeries, nested_windows
from backtest.engine.cohorts import Work
from backtest.engine.entry_rates import RateLines, RatePart, Walk
from backtest.engine.kernels.bar_loop import walk_rates
from backtest.engine.kernels.first_passage import build_tree, crossings_by_stack, crossings_by_tree, largest_in_tree
from backtest.engine.kernels.window_max import LOWEST, EntryArrays, window_maxima
from backtest.stats.survival_table import COUNTS, Count

SPARSE = 64
"""Bars per entry from which descending a tree beats a stack over all bars."""


@dataclass(frozen=True)
class Members:
    """Who is in the cohort of each horizon, horizons ascending; arrays of (n_horizons, n_entries).

    Attributes
    ----------
    axis : tuple of int
        Where each horizon stands in the configuration.
    bars : tuple of int
    inside, excluded : bool
        In the cohort; left out for a gap.
    """

    axis: tuple[int, ...]
    bars: tuple[int, ...]
    inside: Bool
    excluded: Bool


def cohort_members(work: Work, chunk: slice, weight: Float) -> Members:
    """The cohorts of a chunk, entry by entry; `weight` is NaN where one is not entered."""
    axis = sorted(range(len(work.horizons)), key=work.horizons.__getitem__)
    horizons = tuple(work.horizons[k] for k in axis)
    bars, until = work.bars[chunk], work.until(chunk)
    ends = np.minimum(bars + np.array(horizons)[:, None], until)
    # With an exit beyond the data the window is known only as far as the grid.
    whole = (ends < work.grid.n_bars) & ~np.isnan(weight)
    out = whole & work.past_gap(bars, ends)
    return Members(tuple(axis), horizons, whole & ~out, out)


def count_entrywise(
    work: Work, series: ChunkSeries, parts: list[RatePart], chunk: slice, tables: Sequence[Int]
) -> None:
    """Add what became of a scenario's positions to its counts, by calendar block and by each regime.

    tables : (n_counts, n_horizons, n_leverages, n_cells) int64, as `Work.counted` has them
    """
    members = cohort_members(work, chunk, series.weight)
    for part in parts:
        columns = list(part.leverage)
        inverse = 1.0 / work.leverages[columns]
        tallies = [Tally(by.place - by.first, by.last - by.first, inverse) for by in work.counted(chunk)]
        calls = rates_by_horizon(work, series, part.margin_call, members)
        deaths = rates_by_horizon(work, series, part.liquidation, members)
        before: tuple[Float, Float] | None = None
        for h, (call, dead) in enumerate(zip(calls, deaths, strict=True)):
            for tally, counts in zip(tallies, tables, strict=True):
                cells = tally.cells(part.floor, (call, dead), before, members.inside[h], members.excluded[h])
                for name, values in cells.items():
                    counts[COUNTS.index(name), members.axis[h], columns] += values
            before = call.copy(), dead.copy()


@dataclass(frozen=True)
class Tally:
    """Entries per leverage and cell; a leverage is reached where the rate is at least 1/L."""

    place: Int  # (n_entries,) cell of each, from 0
    n_cells: int
    inverse: Float  # (n_leverages,) 1/L

    def cells(
        self,
        floor: Float,
        rates: tuple[Float, Float],
        before: tuple[Float, Float] | None,
        inside: Bool,
        excluded: Bool,
    ) -> dict[Count, Int]:
        """Counts of one horizon from the rates of margin calls and liquidations, and from those of the one before."""
        rejected = self.reaching(floor, inside)
        out: dict[Count, Int] = {
            "rejected": rejected,
            "entries": np.bincount(self.place[inside], minlength=self.n_cells) - rejected,
            "excluded": np.broadcast_to(np.bincount(self.place[excluded], minlength=self.n_cells), rejected.shape),
        }
        out["margin_calls"], out["liquidations"] = (
            self.reaching(np.maximum(r, floor), inside) - rejected for r in rates
        )
        if before is not None:
            gone = (self.reaching(np.maximum(rate, floor), inside) - rejected for rate in before)
            out["prior_margin_calls"], out["prior_liquidations"] = gone
        return out

    def reaching(self, rate: Float, who: Bool) -> Int:
        """(n_leverages, n_cells) entries of `who` whose rate reaches 1/L."""
        order = np.argsort(self.inverse, kind="stable")
        bins = self.inverse.size + 1
        cell = self.place[who] * bins + np.searchsorted(self.inverse[order], rate[who], side="right")
        found = np.bincount(cell, minlength=self.n_cells * bins).reshape(self.n_cells, bins)
        out = np.empty((self.inverse.size, self.n_cells), np.int64)
        out[order] = found[:, ::-1].cumsum(axis=1)[:, -2::-1].T
        return out


def rates_by_horizon(work: Work, series: ChunkSeries, lines: RateLines | Walk, members: Members) -> Iterator[Float]:
    """(n_entries,) the largest rate within each horizon, ascending; the array is used again for the next."""
    bars = series.entries.bar
    horizons = np.array(members.bars)
    if isinstance(lines, Walk):
        rates = np.empty((horizons.size, bars.size))
        hits = np.empty((bars.size, 0), np.int32)
        walk_rates(lines.bars, lines.positions, lines.tiers, lines.rule, horizons, np.empty(0), rates, hits)
        yield from rates
        return
    adverse = np.where(np.isnan(lines.adverse), LOWEST, lines.adverse)
    rate, found = np.empty(bars.size), np.empty(bars.size)
    if work.trades is None:
        for windows in nested_windows(adverse, members.bars):
            for k, (offset, scale) in enumerate(zip(lines.offset, lines.scale, strict=True)):
                window_maxima(windows, k, bars, found)
                _raise(rate, found, offset, scale, k)
            yield rate
        return
    trees = [build_tree(line) for line in adverse]
    for h in members.bars:
        stop = np.minimum(np.minimum(bars + h, series.until) + 1, adverse.shape[1])
        for k, (tree, offset, scale) in enumerate(zip(trees, lines.offset, lines.scale, strict=True)):
            largest_in_tree(tree, bars + 1, stop, found)
            _raise(rate, found, offset, scale, k)
        yield rate


def _raise(rate: Float, top: Float, offset: Float, scale: Float, line: int) -> None:
    """The rate of one line, in place: the first one writes, the others raise."""
    with np.errstate(over="ignore"):  # no price: far below every threshold, -inf included
        here = (top - offset) * scale
    np.copyto(rate, here if line == 0 else np.maximum(rate, here))


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


def crossings_entrywise(work: Work, series: ChunkSeries, parts: list[RatePart]) -> Crossings:
    """First margin call and liquidation of each entry of a chunk at each leverage."""
    shape = (series.worth.size, work.leverages.size)
    out = Crossings(series, np.zeros(shape, np.bool_), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
    for part in parts:
        columns = np.array(part.leverage)
        inverse = 1.0 / work.leverages[columns]
        out.rejected[:, columns] = inverse <= part.floor[:, None]
        order = np.argsort(inverse, kind="stable")
        for lines, hit in ((part.margin_call, out.margin_call), (part.liquidation, out.liquidation)):
            _cross(lines, series, inverse[order], columns[order], max(work.horizons), hit)
    past = series.entries.bar[:, None] + np.stack([out.margin_call, out.liquidation]) > series.until[:, None]
    out.margin_call[past[0]] = 0
    out.liquidation[past[1]] = 0
    return out


def _cross(lines: RateLines | Walk, series: ChunkSeries, threshold: Float, column: Int, limit: int, out: Int32) -> None:
    bars = series.entries.bar
    if isinstance(lines, Walk):
        hit = np.zeros((bars.size, threshold.size), np.int32)
        most, within = np.empty((1, bars.size)), np.array([limit])
        walk_rates(lines.bars, lines.positions, lines.tiers, lines.rule, within, threshold, most, hit)
        out[:, column] = hit
        return
    sparse = bars.size * SPARSE < lines.adverse.shape[1]
    for adverse, offset, scale in zip(lines.adverse, lines.offset, lines.scale, strict=True):
        kept = np.flatnonzero(scale > 0)  # entries under this line
        entries, hit = EntryArrays(bars[kept], offset[kept], scale[kept]), out[kept]
        prices = np.where(np.isnan(adverse), LOWEST, adverse)
        if sparse:
            crossings_by_tree(build_tree(prices), entries, 1.0, 0.0, threshold, column, limit, hit)
        else:
            crossings_by_stack(prices, entries, 1.0, 0.0, threshold, column, limit, hit)
        out[kept] = hit
