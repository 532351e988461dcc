"""Liquidations of each scenario, counted by the UTC day of the liquidation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from backtest.analysis.row_filter import RowFilter, scenario_mask
from backtest.analysis.study_inputs import SymbolEntries
from backtest.arrays import Bool, Int
from backtest.config.models import Config
from backtest.config.resolve import has_own_leverage
from backtest.config.scenarios import Scenario, expand_scenarios
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Population
from backtest.engine.crossings import first_crossings
from backtest.engine.positions import entry_windows, recovered_mask
from backtest.errors import ConfigError
from backtest.progress import progress
from backtest.runs.inputs import HistorySource
from backtest.stats.schema import POINT, axes_fields

Labels = dict[str, str | float | None]

DAY_MS = 86_400_000
CHUNK_BARS = 1 << 15
"""Bars whose entries' crossings are in memory at once: at 125 leverages a few dozen megabytes."""


@dataclass(frozen=True)
class DayCounts:
    """Liquidations of one scenario at one horizon, by the time of the liquidation.

    Attributes
    ----------
    labels : dict
        Scenario columns and horizon.
    scenario : Scenario
    grid : Grid
    wanted : (n_leverages,) bool
        Leverages that were asked for.
    first_day : int
        Days since the epoch.
    liquidations, recovered : (n_leverages, n_days) int64
        `recovered`: back above the margin at the end of the window, so that it was a wick that took the position.
    by_bar : (n_bars,) int64
        Liquidations in each bar at the one leverage that was asked for; empty where none was.
    """

    labels: Labels
    scenario: Scenario
    grid: Grid
    wanted: Bool
    first_day: int
    liquidations: Int
    recovered: Int
    by_bar: Int


def scenario_fields(config: Config) -> list[pa.Field]:
    """Symbol and scenario columns."""
    return axes_fields(expand_scenarios(config)[0].columns())


def leverage_column(config: Config, place: Int) -> pa.Array:
    """The leverage column; null where each trade has its own."""
    own = has_own_leverage(config)
    return pa.array(np.array(config.sweep.leverage)[place], pa.float64(), mask=np.full(place.size, own))


def count_days(
    config: Config, sources: Sequence[HistorySource], where: str | None, at: int | None = None
) -> Iterator[DayCounts]:
    """Counts of each symbol and scenario that `where` selects; bars are counted at leverage number `at`."""
    conditions = [] if where is None else [RowFilter(where)]
    scenarios = expand_scenarios(config)
    for condition in conditions:
        condition.require(field.name for field in [*scenario_fields(config), *POINT])
    chosen = [
        (source, [scenario_mask(conditions, config, source.symbol, s)[0] for s in scenarios]) for source in sources
    ]
    if not any((mask.any() if at is None else mask[at]) for _, masks in chosen for mask in masks):
        raise ConfigError(f"--where selects no scenario of the sweep: {where!r}")
    for source, masks in chosen:
        if not any(mask.any() if at is None else mask[at] for mask in masks):
            continue
        entries = SymbolEntries.read(config, source)
        own = [(s, m) for s, m in zip(entries.scenarios, masks, strict=True) if (m.any() if at is None else m[at])]
        chunks = entries.chunks(CHUNK_BARS)
        with progress(f"days of {source.symbol}", len(own) * len(chunks)) as advance:
            for scenario, mask in own:
                counts = _empty(config, entries.population, scenario, mask, at)
                for chunk in chunks:
                    for side, part in entries.parts(scenario, chunk):
                        _count(entries.population, side, part, counts, at)
                    advance(1)
                yield counts


def _empty(config: Config, population: Population, scenario: Scenario, wanted: Bool, at: int | None) -> DayCounts:
    grid = population.grid
    first, last = grid.start_ms // DAY_MS, (grid.start_ms + (grid.n_bars - 1) * grid.interval_ms) // DAY_MS
    found = np.zeros((2, population.leverages.size, last - first + 1), np.int64)
    labels: Labels = {"symbol": grid.symbol, **scenario.columns(), "horizon": config.sweep.horizon[0]}
    by_bar = np.zeros(0 if at is None else grid.n_bars, np.int64)
    return DayCounts(labels, scenario, grid, wanted, first, found[0], found[1], by_bar)


def _count(population: Population, scenario: Scenario, chunk: slice, counts: DayCounts, at: int | None) -> None:
    """Add the liquidations of a chunk of entries."""
    found = first_crossings(population, scenario, chunk, calls=False)
    (window,) = entry_windows(population, chunk, found.series.weight)
    grid, n_days = population.grid, counts.liquidations.shape[1]
    # Every leverage is counted for `lived`; where only days are asked for, those that are.
    for leverage in range(population.leverages.size) if at is not None else np.flatnonzero(counts.wanted).tolist():
        dead = found.liquidation[window.kept, leverage].astype(np.int64)
        who = np.flatnonzero((dead > 0) & (dead <= window.bars) & ~found.rejected[window.kept, leverage])
        bar = window.entry_bar[who] + dead[who]
        day = (grid.start_ms + bar * grid.interval_ms) // DAY_MS - counts.first_day
        counts.liquidations[leverage] += np.bincount(day, minlength=n_days)
        if at is None or leverage == at:
            back = recovered_mask(
                population, scenario, found.series, window.take(who), float(population.leverages[leverage])
            )
            counts.recovered[leverage] += np.bincount(day[back], minlength=n_days)
        if leverage == at:
            counts.by_bar[:] += np.bincount(bar, minlength=grid.n_bars)
