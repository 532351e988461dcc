"""Liquidations of a scenario counted by the day of the liquidation, stretch by stretch of entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from backtest.analysis.row_filter import Where
from backtest.arrays import Bool, Int
from backtest.config.models import Config
from backtest.config.resolve import has_own_leverage
from backtest.config.scenarios import Scenario, expand_scenarios, scenarios_at, split_sides
from backtest.engine.adverse_series import split_by_table
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Population
from backtest.engine.crossings import first_crossings
from backtest.engine.positions import entry_windows, recovered_mask
from backtest.engine.prepare import prepare_entries
from backtest.errors import ConfigError
from backtest.progress import progress
from backtest.runs.inputs import HistorySource, read_grid
from backtest.stats.schema import POINT, axes_fields, repeated

Labels = dict[str, str | float | None]

DAY_MS = 86_400_000
CHUNK_BARS = 1 << 15
"""Bars whose entries' crossings are held at once: at 125 leverages a few dozen megabytes."""
MOST_CHUNK_BARS = 1 << 22


@dataclass(frozen=True)
class Tally:
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


def tally_fields(config: Config) -> list[pa.Field]:
    """Symbol and scenario columns."""
    return axes_fields(expand_scenarios(config)[0].columns())


def leverage_column(config: Config, place: Int) -> pa.Array:
    """The leverage column; null where each trade has its own."""
    own = has_own_leverage(config)
    return pa.array(np.array(config.sweep.leverage)[place], pa.float64(), mask=np.full(place.size, own))


def count_days(
    config: Config, sources: Sequence[HistorySource], where: str | None, at: int | None = None
) -> Iterator[Tally]:
    """Per symbol and scenario that is asked for; bars are counted at the leverage `at`."""
    condition = None if where is None else Where(where)
    scenarios = expand_scenarios(config)
    if condition is not None:
        condition.require(field.name for field in [*tally_fields(config), *POINT])
    chosen = [(source, [_wanted(condition, config, source.symbol, s) for s in scenarios]) for source in sources]
    if not any((mask.any() if at is None else mask[at]) for _, masks in chosen for mask in masks):
        raise ConfigError(f"--where selects no scenario of the sweep: {where!r}")
    for source, masks in chosen:
        own = scenarios_at(scenarios, source.symbol)
        kept = [(s, mask) for s, mask in zip(own, masks, strict=True) if (mask.any() if at is None else mask[at])]
        if not kept:
            continue
        population = prepare_entries(config, read_grid(config, source, own))
        per_entry = -(-population.grid.n_bars // max(1, population.bars.size))
        chunks = population.chunks(min(CHUNK_BARS * per_entry, MOST_CHUNK_BARS))
        with progress(f"days of {source.symbol}", len(kept) * len(chunks)) as advance:
            for scenario, mask in kept:
                tally = _empty(config, population, scenario, mask, at)
                for chunk in chunks:
                    for part in split_by_table(population, scenario.maintenance, chunk):
                        for side in split_sides(scenario):
                            _count(population, side, part, tally, at)
                    advance(1)
                yield tally


def _wanted(condition: Where | None, config: Config, symbol: str, scenario: Scenario) -> Bool:
    """(n_leverages,) leverages of a scenario that satisfy a condition."""
    n = len(config.sweep.leverage)
    if condition is None:
        return np.ones(n, np.bool_)
    labels = {"symbol": symbol, **scenario.columns(), "horizon": config.sweep.horizon[0]}
    fields = axes_fields(labels)
    columns = [*repeated([*fields, POINT[0]], labels, n), leverage_column(config, np.arange(n))]
    batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema([*fields, *POINT]))
    found: Bool = condition.mask(batch).to_numpy(zero_copy_only=False)
    return found


def _empty(config: Config, population: Population, scenario: Scenario, wanted: Bool, at: int | None) -> Tally:
    grid = population.grid
    first, last = grid.start_ms // DAY_MS, (grid.start_ms + (grid.n_bars - 1) * grid.interval_ms) // DAY_MS
    counts = np.zeros((2, population.leverages.size, last - first + 1), np.int64)
    labels: Labels = {"symbol": grid.symbol, **scenario.columns(), "horizon": config.sweep.horizon[0]}
    by_bar = np.zeros(0 if at is None else grid.n_bars, np.int64)
    return Tally(labels, scenario, grid, wanted, first, counts[0], counts[1], by_bar)


def _count(population: Population, scenario: Scenario, chunk: slice, tally: Tally, at: int | None) -> None:
    """Add the liquidations of a chunk of entries."""
    found = first_crossings(population, scenario, chunk, calls=False)
    (window,) = entry_windows(population, chunk, found.series.weight)
    grid, n_days = population.grid, tally.liquidations.shape[1]
    # Every leverage is counted for `lived`; where only days are asked for, those that are.
    for leverage in range(population.leverages.size) if at is not None else np.flatnonzero(tally.wanted).tolist():
        dead = found.liquidation[window.kept, leverage].astype(np.int64)
        who = np.flatnonzero((dead > 0) & (dead <= window.bars) & ~found.rejected[window.kept, leverage])
        bar = window.entry_bar[who] + dead[who]
        day = (grid.start_ms + bar * grid.interval_ms) // DAY_MS - tally.first_day
        tally.liquidations[leverage] += np.bincount(day, minlength=n_days)
        if at is None or leverage == at:
            back = recovered_mask(
                population, scenario, found.series, window.take(who), float(population.leverages[leverage])
            )
            tally.recovered[leverage] += np.bincount(day[back], minlength=n_days)
        if leverage == at:
            tally.by_bar[:] += np.bincount(bar, minlength=grid.n_bars)
