"""By entry: positions of one leverage differ by entry (`entry_rates`), so each has a rate of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.config.scenarios import Scenario, split_sides
from backtest.engine.adverse_series import ChunkSeries, chunk_series, nested_windows, tables_in_force
from backtest.engine.cohorts import CohortMembers, Population
from backtest.engine.entry_rates import RateLines, RatePart, Walk, compile_rates
from backtest.engine.kernels.bar_loop import walk_rates
from backtest.engine.kernels.first_passage import build_tree, largest_in_tree
from backtest.engine.kernels.window_max import LOWEST, window_maxima
from backtest.engine.threshold_counts import count_reaching
from backtest.stats.survival_table import COUNTS, Count, Tables


def differs_by_entry(population: Population, scenario: Scenario) -> bool:
    """Whether positions of one leverage differ in more than their price, so that they share no thresholds."""
    maintenance = scenario.maintenance
    in_coin = scenario.face is not None and bool(maintenance.tables or scenario.extra)
    return (
        population.trades is not None
        or population.grid.scale is not None
        or scenario.weight is not None
        or maintenance.spot is not None
        or maintenance.slope > 0
        or in_coin
    )


def compile_entries(
    population: Population, series: ChunkSeries, scenario: Scenario, leverages: Float
) -> list[RatePart]:
    """The scenario compiled entry by entry for a chunk whose entries are under one tier table."""
    periods = tables_in_force(population.grid, scenario.maintenance, series.start, series.stop)
    return compile_rates(scenario, leverages, population.terms, series, periods)


def count_by_entry(population: Population, scenarios: Sequence[Scenario], chunk: slice) -> Tables:
    """Count a chunk whose entries are under one tier table, entry by entry.

    Where trades have sides of their own, both are counted. Parameters and result as of
    `backtest.engine.count.count_entries`.
    """
    tables = population.empty_tables(chunk, len(scenarios))
    for i, scenario in enumerate(scenarios):
        for one in split_sides(scenario):
            series = chunk_series(population, chunk, one)
            members = population.members(chunk, series.weight)
            for part in compile_entries(population, series, one, population.leverages):
                _count_part(population, series, part, members, chunk, [table.counts[:, i] for table in tables])
    return tables


def _count_part(
    population: Population,
    series: ChunkSeries,
    part: RatePart,
    members: CohortMembers,
    chunk: slice,
    counts: Sequence[Int],
) -> None:
    """Add the counts of the leverages of one part.

    counts : (n_counts, n_horizons, n_leverages, n_blocks) int64 each, by calendar block and by each regime
    """
    columns = list(part.leverage)
    inverse = 1.0 / population.leverages[columns]
    strata = [Strata(by.place - by.first, by.last - by.first, inverse) for by in population.counted(chunk)]
    calls = rates_by_horizon(population, series, part.margin_call, members)
    deaths = rates_by_horizon(population, series, part.liquidation, members)
    before: tuple[Float, Float] | None = None
    for h, (call, dead) in enumerate(zip(calls, deaths, strict=True)):
        rates = np.maximum(call, part.floor), np.maximum(dead, part.floor)
        inside, excluded = members.inside[h], members.excluded[h]
        for by, table in zip(strata, counts, strict=True):
            rejected = by.reaching(part.floor, inside)
            found: dict[Count, Int] = {
                "rejected": rejected,
                "entries": by.count(inside) - rejected,
                "excluded": np.broadcast_to(by.count(excluded), rejected.shape),
                "margin_calls": by.reaching(rates[0], inside) - rejected,
                "liquidations": by.reaching(rates[1], inside) - rejected,
            }
            if before is not None:
                found["prior_margin_calls"] = by.reaching(before[0], inside) - rejected
                found["prior_liquidations"] = by.reaching(before[1], inside) - rejected
            for name, values in found.items():
                table[COUNTS.index(name), members.axis[h], columns] += values
        before = rates


@dataclass(frozen=True)
class Strata:
    """The calendar block, or the stratum of a regime, of each entry, and the leverages that are counted."""

    place: Int  # (n_entries,) from 0
    n_strata: int
    inverse: Float  # (n_leverages,) 1/L

    def count(self, who: Bool) -> Int:
        """(n_strata,) entries of `who`."""
        return np.bincount(self.place[who], minlength=self.n_strata)

    def reaching(self, rate: Float, who: Bool) -> Int:
        """(n_leverages, n_strata) entries of `who` whose rate reaches 1/L."""
        order = np.argsort(self.inverse, kind="stable")
        out = np.empty((self.inverse.size, self.n_strata), np.int64)
        out[order] = count_reaching(rate[who], self.inverse[order], self.place[who], self.n_strata).T
        return out


def rates_by_horizon(
    population: Population, series: ChunkSeries, lines: RateLines | Walk, members: CohortMembers
) -> Iterator[Float]:
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
    if population.trades is None:
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


def critical_leverages(population: Population, scenario: Scenario, chunk: slice) -> Float:
    """(n_horizons, n_entries) leverage from which each entry of a chunk is liquidated within each horizon.

    Horizons are in the order of the configuration. Where an entry has a leverage of its own, its own is scaled. NaN
    where each leverage has tiers of its own (a fixed margin and tiers that stay as they were at entry).
    """
    series = chunk_series(population, chunk, scenario)
    parts = compile_entries(population, series, scenario, population.leverages)
    members = population.members(chunk, series.weight)
    out = np.full((len(population.horizons), series.unit_value.size), np.nan)
    if len(parts) == 1:
        for h, rate in zip(
            members.axis, rates_by_horizon(population, series, parts[0].liquidation, members), strict=True
        ):
            with np.errstate(divide="ignore", invalid="ignore"):
                out[h] = np.where(rate > 0, series.weight / rate, np.inf)
    return out
