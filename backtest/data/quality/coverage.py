"""What the bars of one series cover: its grid, the gaps in it, and how full it is over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtest.arrays import Float, Int
from backtest.data.files import SeriesName
from backtest.data.history import COLUMNS
from backtest.data.quality.row_rules import Runs, no_value
from backtest.units import instant_text

Flags = NDArray[np.uint8]
_CLOSE, _MARK_CLOSE, _RANGE, _MARK_RANGE, _ANY_MARK, _OPEN, _CHARGE = (1 << bit for bit in range(7))
BINS = 1000
"""Pieces of equal length that a timeline is told in, at most."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Gap:
    """A run of bars without trigger prices: the open times of its first and last bar, and how many."""

    first: str
    last: str
    bars: int


@dataclass(frozen=True)
class Coverage:
    """What one series covers, on its grid (docs/semantics.md §1).

    Attributes
    ----------
    symbol, interval : str
    trigger : str or None
        ``"mark"`` where there is any mark price, else ``"last"``; None if no bar can be entered.
    first, last : str or None
        Open times of the grid's first and last bar, ISO 8601 UTC.
    bars, missing : int
        Bars of the grid, and those of them without trigger prices.
    gaps, longest_gap : int
        Runs of missing bars, and the bars of the longest.
    charges : int
        Bars with a funding charge.
    largest : tuple of Gap
        The five longest gaps, in the order of time.
    """

    symbol: str
    interval: str
    trigger: str | None
    first: str | None
    last: str | None
    bars: int
    missing: int
    gaps: int
    longest_gap: int
    charges: int
    largest: tuple[Gap, ...]

    def line(self) -> str:
        """All but the gaps one by one."""
        if self.trigger is None:
            return f"{self.symbol} {self.interval}: no bar that can be entered, {self.charges:,} funding charges"
        longest = f", the longest of {self.longest_gap:,}" if self.gaps > 1 else ""
        gaps = f"{self.missing:,} missing in {self.gaps:,} gap{'s' * (self.gaps != 1)}{longest}"
        return (
            f"{self.symbol} {self.interval}: {self.first} … {self.last}, {self.bars:,} bars, "
            f"{gaps if self.missing else 'none missing'}; {self.charges:,} funding charges; trigger {self.trigger}"
        )

    def __str__(self) -> str:
        return "\n".join([self.line(), *(f"  gap {gap.first} … {gap.last}, {gap.bars:,} bars" for gap in self.largest)])


@dataclass(frozen=True, eq=False)
class Timeline:
    """How full one series is over time, in pieces of equal length.

    Attributes
    ----------
    symbol, interval : str
    start_ms, end_ms : int
        First open time and end of the last bar.
    last, mark : (n_pieces,) float64
        Share of the bars of each piece that have such a price.
    charges : (n_days,) int64
        Bars with a funding charge, in pieces of a day or more.
    """

    symbol: str
    interval: str
    start_ms: int
    end_ms: int
    last: Float
    mark: Float
    charges: Int


@dataclass(frozen=True)
class Presence:
    """Coverage of a series; open times of the grid's ends; its gaps; what the whole must have and does not."""

    coverage: Coverage
    span: tuple[int, int] | None
    gaps: Runs
    lacking: tuple[tuple[str | None, str], ...]
    timeline: Timeline


def presence_flags(values: Mapping[str, Float], n_rows: int) -> Flags:
    """What `count_presence` needs to know of each row."""
    nothing = np.zeros(n_rows, np.bool_)
    known = {name: ~np.isnan(values[name]) if name in values else nothing for name in COLUMNS}
    bits = {
        _CLOSE: known["close"],
        _MARK_CLOSE: known["mark_close"],
        _RANGE: known["low"] & known["high"],
        _MARK_RANGE: known["mark_low"] & known["mark_high"],
        _ANY_MARK: known["mark_open"] | known["mark_high"] | known["mark_low"] | known["mark_close"],
        _OPEN: known["open"] | known["mark_open"],
        _CHARGE: known["funding_rate"],
    }
    flags = np.zeros(n_rows, np.uint8)
    for bit, mask in bits.items():
        flags |= mask.view(np.uint8) * np.uint8(bit)
    return flags


def count_presence(series: SeriesName, step: int, times: Int, flags: Flags) -> Presence:
    """Coverage of rows, given by their open times, ascending multiples of `step` ms, and their flags."""
    timeline = _timeline(series, step, times, flags)
    charge = (flags & _CHARGE) > 0
    mark = bool((flags & _ANY_MARK).any())
    present = (flags & (_MARK_RANGE if mark else _RANGE)) > 0
    entry = (flags & (_CLOSE if (flags & _CLOSE).any() else _MARK_CLOSE)) > 0
    ready = np.flatnonzero(present & entry)
    if not ready.size:
        none = np.empty(0, np.int64)
        rule = "a bar with both an entry price and trigger prices must be there"
        empty = Coverage(series.symbol, series.interval, None, None, None, 0, 0, 0, 0, int(charge.sum()), ())
        return Presence(empty, None, _gap_runs(none, none, none), ((None, rule),), timeline)
    first, last = int(times[ready[0]]), int(times[ready[-1]])
    inside = times[present & (times >= first) & (times <= last)]
    missing = np.diff(inside) // step - 1
    before = np.flatnonzero(missing)
    gaps = _gap_runs(inside[before] + step, inside[before + 1] - step, missing[before])
    longest = np.sort(np.argsort(-gaps.bars, kind="stable")[:5])
    coverage = Coverage(
        series.symbol,
        series.interval,
        "mark" if mark else "last",
        instant_text(first),
        instant_text(last),
        (last - first) // step + 1,
        int(gaps.bars.sum()),
        gaps.bars.size,
        int(gaps.bars.max(initial=0)),
        int(charge.sum()),
        tuple(Gap(instant_text(gaps.first[i]), instant_text(gaps.last[i]), int(gaps.bars[i])) for i in longest),
    )
    close = np.flatnonzero(flags & (_MARK_CLOSE if mark else _CLOSE))
    earliest = int(close[0]) if close.size else flags.size
    early = slice(0, earliest + 1)
    priceless = charge[early] & ((flags[early] & _OPEN) == 0) & (times[early] > first) & (times[early] <= last)
    lacking = tuple(
        ("funding_rate", f"a charge needs a price to fall on; none is known by the bar of {instant_text(times[row])}")
        for row in np.flatnonzero(priceless)[:1]
    )
    return Presence(coverage, (first, last), gaps, lacking, timeline)


def _gap_runs(first: Int, last: Int, bars: Int) -> Runs:
    return Runs(None, "no bars with trigger prices: a gap", first, last, bars, no_value)


def _timeline(series: SeriesName, step: int, times: Int, flags: Flags) -> Timeline:
    start, end = (int(times[0]), int(times[-1]) + step) if times.size else (0, step)
    n_bars = (end - start) // step
    kinds = ((_CLOSE | _RANGE, BINS), (_ANY_MARK, BINS), (_CHARGE, min(BINS, 1 + (end - start) // DAY_MS)))
    held = []
    for kind, most in kinds:
        count = min(most, n_bars)
        piece = (times[(flags & kind) > 0] - start) // step * count // n_bars
        held.append(np.bincount(piece, minlength=count))
    bars = np.diff(-(-np.arange(held[0].size + 1) * n_bars // held[0].size))
    return Timeline(series.symbol, series.interval, start, end, held[0] / bars, held[1] / bars, held[2])
