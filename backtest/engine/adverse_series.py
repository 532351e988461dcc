"""Local arrays of a chunk: prices that can liquidate, funding paid, tier tables in force, and window maxima."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from backtest.arrays import Float, Int
from backtest.config.models import Funding
from backtest.config.scenarios import Maintenance, Scenario
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Population
from backtest.engine.kernels.window_max import TILE, EntryArrays, Windows, tile_maxima, widen
from backtest.engine.thresholds import Period

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class ChunkSeries:
    """Local arrays of a chunk: from its first entry's bar to the end of its longest window.

    Attributes
    ----------
    start, stop : int
        Bars of the grid, `stop` past its end where a settlement cuts the windows.
    adverse_price : (n_bars,) float64
        Value of one unit of quantity at the worst trigger price, NaN where missing: P, of inverse contracts 1/P; of
        spot margin the price less (long) or with (short) the interest accrued.
    paid : (n_bars,) float64
        C, the funding paid per unit of quantity since the first bar; of spot margin G, the growth of a debt.
    entries : EntryArrays
    unit_value : (n_entries,) float64
        At entry, as `adverse_price`.
    weight : (n_entries,) float64
        Leverage of the entry over that of the sweep; NaN: not entered.
    until : (n_entries,) int64
        Last bar at risk.
    scale : (n_bars,) float64 or None
        Multiplier of the maintenance margin.
    spot : bool
    """

    start: int
    stop: int
    adverse_price: Float
    paid: Float
    entries: EntryArrays
    unit_value: Float
    weight: Float
    until: Int
    scale: Float | None
    spot: bool


def chunk_series(population: Population, chunk: slice, scenario: Scenario) -> ChunkSeries:
    """Slice the bars of a chunk's windows; funding is summed from the first entry's bar on.

    Prices of inverse contracts become 1/P: the worst price for a long is still the low.
    """
    grid, sign = population.grid, scenario.sign
    bars = population.bars[chunk]
    start = int(bars[0])
    stop = min(population.end, int(bars[-1]) + max(population.horizons) + 1)
    worst = _padded((grid.low if sign > 0 else grid.high)[start:stop], stop - start)
    spot = scenario.maintenance.spot
    if spot is None:
        paid = funding_paid(grid, scenario.funding, start, stop, inverse=scenario.inverse)
    else:
        paid = debt_growth(population, spot.borrow_rate, start, stop)
    local = bars - start
    dense = (
        slice(0, bars.size) if not population.trades and local[-1] == bars.size - 1 else local
    )  # read without a copy
    price = population.entry_price(chunk)
    if spot is not None:
        growth = paid if sign < 0 else 1 / paid
        worst, price = worst * growth, price * growth[local]
    # In 1/P the entry's scale, 1/u_p, is its price.
    entries = EntryArrays(local, sign * paid[dense], np.ascontiguousarray(price) if scenario.inverse else 1.0 / price)
    return ChunkSeries(
        start,
        stop,
        scenario.unit_value(worst),
        paid,
        entries,
        scenario.unit_value(price),
        population.weights(scenario.weight, chunk, sign),
        population.until(chunk) - start,
        None if grid.scale is None else _padded(grid.scale[start:stop], stop - start),
        spot is not None,
    )


def _padded(values: Float, length: int) -> Float:
    """With NaN for the bars past a settlement."""
    if values.size == length:
        return values
    return np.append(values, np.full(length - values.size, np.nan))


def funding_paid(grid: Grid, funding: Funding, start: int, stop: int, *, inverse: bool = False) -> Float:
    """(stop − start,) C, funding paid per unit of quantity (inverse: in 1/P), 0 at the first bar."""
    charged = slice(*np.searchsorted(grid.charge_bar, [start + 1, stop]))
    rate = funding.scale * grid.charge_rate[charged] + funding.shift
    amount = rate / grid.charge_price[charged] if inverse else rate * grid.charge_price[charged]
    steps = np.diff(grid.charge_bar[charged] - start, prepend=0, append=stop - start)
    return np.repeat(np.cumsum(np.append(0.0, amount)), steps)


def table_bars(grid: Grid, maintenance: Maintenance) -> Int:
    """First bar of each dated table: the first whose open time is not before the date."""
    dates = [grid.start_ms if d.effective_from_ms is None else d.effective_from_ms for d in maintenance.tables]
    return -((grid.start_ms - np.array(dates, dtype=np.int64)) // grid.interval_ms)


ALWAYS = (Period(None, 0, np.iinfo(np.int64).max),)
"""A flat rate is in force at every bar."""


def tables_in_force(grid: Grid, maintenance: Maintenance, start: int, stop: int) -> tuple[Period, ...]:
    """Tier tables in force over the bars ``start … stop − 1``, counted from `start`, from that of the first on."""
    if not maintenance.tables:
        return ALWAYS
    first = table_bars(grid, maintenance)
    own = int(np.searchsorted(first, start, side="right")) - 1
    bars = np.clip([*first[own:], stop], start, stop) - start
    tables = (dated.table for dated in maintenance.tables[own:])
    return tuple(Period(t, int(a), int(b)) for t, (a, b) in zip(tables, pairwise(bars), strict=True) if b > a)


def split_at_tables(bars: Int, rules: Iterable[tuple[Grid, Maintenance]], chunk: slice) -> list[slice]:
    """A chunk of entries, cut where they come under another tier table: rejection is judged by the entry's own.

    bars  : (n_entries,) ascending
    rules : of each leg its grid and maintenance
    """
    firsts = [table_bars(grid, maintenance)[1:] for grid, maintenance in rules if maintenance.tables]
    cuts = np.searchsorted(bars, np.concatenate([np.empty(0, np.int64), *firsts]))
    inside = {int(c) for c in cuts if chunk.start < c < chunk.stop}  # two dates may have no entry between them
    edges = [chunk.start, *sorted(inside), chunk.stop]
    return [slice(a, b) for a, b in pairwise(edges)]


def split_by_table(population: Population, maintenance: Maintenance, chunk: slice) -> list[slice]:
    """As `split_at_tables`, of one symbol."""
    return split_at_tables(population.bars, [(population.grid, maintenance)], chunk)


def debt_growth(population: Population, borrow_rate: float, start: int, stop: int) -> Float:
    """(stop − start,) index G of a debt: interest on every full hour that opens inside a bar, before its extreme."""
    grid = population.grid
    ends = grid.start_ms + (np.arange(start, stop, dtype=np.int64) + 1) * grid.interval_ms
    hours = -(-ends // HOUR_MS)
    return np.asarray((1.0 + borrow_rate) ** (hours - hours[0]).astype(np.float64))


def held_cost(series: ChunkSeries, entry: Int, until: Int) -> Float:
    """(n,) funding paid per unit of quantity from the entry to a bar; of spot margin the growth of the debt."""
    if series.spot:
        return series.paid[until] / series.paid[entry]
    return series.paid[until] - series.paid[entry]


def nested_windows(adverse: Float, horizons: Sequence[int]) -> Iterator[Windows]:
    """Window maxima of ascending horizons, each made from the one before; use each before asking for the next.

    adverse : (n_lines, n_bars), overwritten; `LOWEST` where there is no price
    """
    lines_n, n = adverse.shape
    # Keeping these arrays from block to block, per thread, was no faster.
    running, scratch, head, tail = adverse, *(np.empty((lines_n, n)) for _ in range(3))
    whole = np.empty((lines_n, -(-n // TILE)))
    for k in range(lines_n):
        tile_maxima(running[k], head[k], tail[k], whole[k])
    between, between_scratch = whole.copy(), whole.copy()
    length = tiles = 1
    for h in horizons:
        if h <= TILE:
            running, scratch = widen(running, scratch, length, h)
            length = h
            yield Windows(running, running, 0, whole, between)
        else:
            inside = (h - 1) // TILE - 1
            if inside > tiles:
                between, between_scratch = widen(between, between_scratch, tiles, inside)
                tiles = inside
            yield Windows(head, tail, h - 1, whole, between)
