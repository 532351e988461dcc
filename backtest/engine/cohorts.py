"""The entries of one symbol, and which of them are in the cohort of each horizon."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.config.policies import VolatilityTarget
from backtest.config.scenarios import Scenario
from backtest.engine.bars import Grid
from backtest.engine.kernels.window_max import EntryRuns
from backtest.engine.regime_labels import RegimeLabels
from backtest.engine.thresholds import Compiled, MarginTerms
from backtest.engine.trades import Trades
from backtest.engine.volatility import volatility_weights
from backtest.stats.survival_table import COUNTS, OUTCOMES, SurvivalTable, Tables

NEVER = np.iinfo(np.int64).max // 4
"""A bar that no window reaches."""
CHUNK_BARS = 1 << 18
"""Bars whose entries are counted together: arrays of a few megabytes, little overlap of windows, few calls."""


@dataclass(frozen=True)
class Counted:
    """Where the entries of a chunk are counted: in which calendar block, or stratum of a regime."""

    first: int
    last: int  # one past it
    place: Int  # (n,) of each entry
    changes: Int  # entries that are counted in another block than the one before


@dataclass(frozen=True)
class Cohort:
    """The entries of a chunk at one horizon, in runs of one calendar block, or of one stratum of a regime.

    ``runs.label`` is ``2 · block + stays``, where `stays` says that the entry is in the cohort of the next longer
    horizon too (what Kaplan–Meier conditions on).
    """

    runs: EntryRuns
    entries: Int  # (n_blocks,)
    excluded: Int  # (n_blocks,)


@dataclass(frozen=True)
class Horizons:
    """The horizons in ascending order, their cohorts by calendar block, or by the strata of a regime."""

    first: int  # block or stratum that the cohorts count from
    axis: tuple[int, ...]  # where each stands in the configuration
    bars: tuple[int, ...]
    cohorts: tuple[Cohort, ...]

    @property
    def n_blocks(self) -> int:
        """Calendar blocks of the chunk, or strata of the regime."""
        return int(self.cohorts[0].entries.size)


@dataclass(frozen=True)
class CohortMembers:
    """Which entries of a chunk are in the cohort of each horizon, horizons ascending; arrays (n_horizons, n_entries).

    Attributes
    ----------
    axis : tuple of int
        Position of each horizon in the configuration.
    bars : tuple of int
    inside, excluded : bool
        In the cohort; left out for a gap.
    """

    axis: tuple[int, ...]
    bars: tuple[int, ...]
    inside: Bool
    excluded: Bool


@dataclass(frozen=True)
class Population:
    """The positions under study: entries of one symbol, held to each horizon at each leverage.

    Attributes
    ----------
    grid : Grid
    bars : (n_entries,) int64
        Bars entered, ascending.
    horizons : tuple of int
        In bars, in the order of the configuration.
    leverages : (n_leverages,) float64
    block_ms : int
        Length of a calendar block.
    terms : MarginTerms
    compiled : dict
        Scenarios whose lines and thresholds no chunk changes, once they are compiled.
    max_gap_bars : int, optional
        Entries whose window holds a longer part of a gap are excluded.
    expires_at_end : bool
        The last bar settles the positions (dated futures): windows that reach past it end there.
    trades : Trades, optional
        The user's own entries; `bars` are theirs then.
    regimes : tuple of RegimeLabels
        By what else than the calendar block entries are counted apart, each on its own.
    """

    grid: Grid
    bars: Int
    horizons: tuple[int, ...]
    leverages: Float
    block_ms: int
    terms: MarginTerms
    max_gap_bars: int | None = None
    expires_at_end: bool = False
    trades: Trades | None = None
    regimes: tuple[RegimeLabels, ...] = ()
    too_long: Int = field(init=False, repr=False)
    compiled: dict[Scenario, Compiled] = field(init=False, repr=False, default_factory=dict)
    _cohorts: dict[tuple[int, int], tuple[Horizons, ...]] = field(init=False, repr=False, default_factory=dict)
    _weights: dict[str, Float] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "too_long", _bars_past_gap(self.grid, self.max_gap_bars))

    @property
    def end(self) -> int:
        """Windows must end before this bar: the end of the grid; any bar where the last one settles."""
        return self.grid.n_bars + max(self.horizons) if self.expires_at_end else self.grid.n_bars

    def entry_price(self, chunk: slice) -> Float:
        """(n,) price of each entry of a chunk, its own where a trade has one."""
        price = self.grid.entry_price[self.bars[chunk]]
        if self.trades is None:
            return price
        own = self.trades.price[chunk]
        return np.where(np.isnan(own), price, own)

    def until(self, chunk: slice) -> Int:
        """(n,) last bar at risk of each entry of a chunk, as far as its own exit says."""
        if self.trades is None:
            return np.full(self.bars[chunk].size, self.grid.n_bars - 1 if self.expires_at_end else NEVER)
        return np.minimum(self.trades.until[chunk], self.grid.n_bars - 1 if self.expires_at_end else NEVER)

    def weights(self, target: VolatilityTarget | None, chunk: slice, sign: float) -> Float:
        """(n,) leverage of each entry over that of the sweep; NaN where it is not entered on this side."""
        bars = self.bars[chunk]
        if target is None:
            out = np.ones(bars.size)
        else:
            if target.label not in self._weights:
                self._weights[target.label] = volatility_weights(self.grid, target)
            out = self._weights[target.label][bars]
        if self.trades is not None:
            out = np.where(self.trades.sign[chunk] == -sign, np.nan, out * self.trades.leverage[chunk])
        return out

    def chunks(self, size: int | None = None) -> list[slice]:
        """Ranges of `bars`, cut at multiples of `size` bars since the epoch (default `CHUNK_BARS`)."""
        size = size or CHUNK_BARS
        before = self.grid.start_ms // self.grid.interval_ms % size
        edges = np.searchsorted(self.bars, np.arange(-before, self.grid.n_bars + size, size))
        return [slice(int(a), int(b)) for a, b in pairwise(edges) if b > a]

    def cohorts(self, chunk: slice) -> tuple[Horizons, ...]:
        """The cohorts of a chunk by calendar block, then by each regime: the same for all scenarios."""
        key = (chunk.start, chunk.stop)
        if key not in self._cohorts:
            axis = sorted(range(len(self.horizons)), key=self.horizons.__getitem__)
            bars = [self.horizons[k] for k in axis]
            reach = list(zip(bars, [*bars[1:], None], strict=True))
            self._cohorts[key] = tuple(
                Horizons(
                    by.first,
                    tuple(axis),
                    tuple(bars),
                    tuple(build_cohort(self, chunk, by, *pair) for pair in reach),
                )
                for by in self.counted(chunk)
            )
        return self._cohorts[key]

    def counted(self, chunk: slice) -> list[Counted]:
        """Where the entries of a chunk are counted: by calendar block, then by each regime."""
        by_block = self.blocks(self.bars[chunk])
        return [
            Counted(int(place.min()), int(place.max()) + 1, place, np.flatnonzero(place[1:] != place[:-1]) + 1)
            for place in (by_block, *(labels.place[chunk] for labels in self.regimes))
        ]

    def empty_tables(self, chunk: slice, n_scenarios: int, *, outcomes: bool = False) -> Tables:
        """Tables of zeros for a chunk, by calendar block, then by each regime; outcomes by calendar block only."""
        shape = (n_scenarios, len(self.horizons), self.leverages.size)
        return tuple(
            SurvivalTable(
                np.zeros((len(COUNTS), *shape, by.last - by.first), np.int64),
                by.first,
                np.zeros((len(OUTCOMES), *shape, by.last - by.first)) if outcomes and number == 0 else None,
            )
            for number, by in enumerate(self.counted(chunk))
        )

    def members(self, chunk: slice, weight: Float) -> CohortMembers:
        """The cohorts of a chunk, entry by entry; `weight` is NaN where one is not entered."""
        axis = sorted(range(len(self.horizons)), key=self.horizons.__getitem__)
        horizons = tuple(self.horizons[k] for k in axis)
        bars = self.bars[chunk]
        ends = np.minimum(bars + np.array(horizons)[:, None], self.until(chunk))
        # With an exit beyond the data the window is known only as far as the grid.
        whole = (ends < self.grid.n_bars) & ~np.isnan(weight)
        excluded = whole & self.past_gap(bars, ends)
        return CohortMembers(tuple(axis), horizons, whole & ~excluded, excluded)

    def excluded(self, bars: Int, horizon: int) -> Bool:
        """Whether the windows of these entries hold more than `max_gap_bars` bars of a gap."""
        return self.past_gap(bars, np.minimum(bars + horizon, self.grid.n_bars - 1))

    def past_gap(self, bars: Int, ends: Int) -> Bool:
        """Whether more than `max_gap_bars` bars of a gap lie in ``bars + 1 … ends``."""
        following = np.append(self.too_long, np.iinfo(np.int64).max)[np.searchsorted(self.too_long, bars, "right")]
        return following <= ends

    def blocks(self, bars: Int) -> Int:
        """Calendar block of each bar."""
        out: Int = (self.grid.start_ms + bars * self.grid.interval_ms) // self.block_ms
        return out


def _bars_past_gap(grid: Grid, max_gap_bars: int | None) -> Int:
    """Bars at which a gap becomes longer than allowed: its ``max_gap_bars + 1``-th bar."""
    if max_gap_bars is None:
        return np.empty(0, np.int64)
    present = np.append(np.flatnonzero(grid.has_trigger), grid.n_bars)  # that of a portfolio may end in a gap
    return (present[:-1] + 1 + max_gap_bars)[np.diff(present) > max_gap_bars + 1].astype(np.int64)


def build_cohort(population: Population, chunk: slice, by: Counted, horizon: int, longer: int | None) -> Cohort:
    """Entries of a chunk whose window lies inside the grid, gaps permitting.

    longer : the next longer horizon in bars, None for the longest.
    """
    bars, n = population.bars[chunk], by.last - by.first
    reach = [h for h in (horizon, longer) if h is not None]
    ends = [
        population.too_long,
        *(population.too_long - h for h in reach),
        np.array([population.end - h for h in reach]),
    ]
    edges = np.unique(np.concatenate([by.changes, np.searchsorted(bars, np.concatenate(ends)), [0, bars.size]]))
    start, stop = edges[:-1], edges[1:]
    head = bars[start]  # membership is the same all along a run
    place = by.place[start] - by.first
    inside = head + horizon < population.end
    out = inside & population.excluded(head, horizon)
    stays = np.zeros(head.size, np.bool_)
    if longer is not None:
        stays = (head + longer < population.end) & ~population.excluded(head, longer)

    def total(mask: Bool) -> Int:
        return np.bincount(place[mask], (stop - start)[mask], n).astype(np.int64)

    kept = inside & ~out
    return Cohort(EntryRuns(start[kept], stop[kept], (2 * place + stays)[kept]), total(kept), total(out))
