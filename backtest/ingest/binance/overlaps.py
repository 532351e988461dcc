"""Files of the public Binance archives laid over each other: overlaps must agree, funding falls into its bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float, Int
from backtest.data.history import PriceHistory, from_rows
from backtest.errors import DataError
from backtest.ingest.binance.rows import FUNDING, WORDS, ArchiveRows
from backtest.ingest.messages import Notices
from backtest.units import instant_text, number_text

JITTER_MS = 60_000
"""How late after the full hour a charge is stamped at most."""


@dataclass(frozen=True)
class Charges:
    """Funding by bar, ascending: sums of rates, and how many charges they are of."""

    bars: Int
    rates: Float
    counts: Int


class Stretches:
    """Histories of consecutive stretches of time, and what is seen on the way."""

    def __init__(self, symbol: str, step: int, notices: Notices) -> None:
        self.symbol, self.step, self.notices = symbol, step, notices
        self.charges: Charges | None = None
        self.charged = 0
        self._first = self._last = -1
        self._counts = {"both": 0, "last": 0, "mark": 0, "none": 0}
        self._verified = self._files = 0

    def joined(self, parts: Sequence[ArchiveRows]) -> PriceHistory:
        """The bars of a stretch, with the charges since the last bar before it."""
        self._files += len(parts)
        self._verified += sum(part.digest is not None for part in parts)
        _say_of(parts, self.notices)
        columns: dict[str, tuple[Int, dict[str, Float]]] = {}
        for kind, prefix in (("last", ""), ("mark", "mark_")):
            own = [part for part in parts if part.kind == kind]
            if own:
                times, values = _joined(own, self.notices)
                columns[kind] = times, {prefix + name: column for name, column in values.items()}
        last_bar = max(int(times[-1]) for times, _ in columns.values())
        first_bar = min(int(times[0]) for times, _ in columns.values())
        if self.charges is not None:
            low = first_bar if self._first < 0 else self._last + 1
            here = slice(*np.searchsorted(self.charges.bars, [low, last_bar + 1]))
            columns["funding"] = self.charges.bars[here], {"funding_rate": self.charges.rates[here]}
            self.charged += int(self.charges.counts[here].sum())
        self._first, self._last = first_bar if self._first < 0 else self._first, last_bar
        history = _laid_out(self.symbol, self.step, list(columns.values()))
        self._look(history)
        return history

    def _look(self, history: PriceHistory) -> None:
        nothing = np.full(history.n_bars, np.nan)
        there = {name: ~np.isnan(history.columns.get(name, nothing)) for name in ("close", "mark_close")}
        last, mark = there["close"], there["mark_close"]
        self._counts["both"] += int((last & mark).sum())
        self._counts["last"] += int((last & ~mark).sum())
        self._counts["mark"] += int((mark & ~last).sum())
        charged = ~np.isnan(history.columns.get("funding_rate", nothing))
        self._counts["none"] += int((charged & ~last & ~mark).sum())

    def say(self) -> None:
        """What the whole shows."""
        notices = self.notices
        notices.note(f"{self._verified:,} of {self._files:,} files of bars were verified by a .CHECKSUM beside them")
        counts = self._counts
        if not counts["both"] + counts["mark"]:
            notices.warn(f"there are no mark prices of {self.symbol}: liquidations will be judged by the last price")
        elif counts["last"]:
            notices.warn(f"{counts['last']:,} bars have a last price and no mark price")
        if counts["mark"]:
            notices.warn(f"{counts['mark']:,} bars have a mark price and no last price")
        if counts["none"]:
            notices.warn(f"{counts['none']:,} rows have a funding charge and no price")
        if self.charges is None:
            notices.warn(f"there is no funding of {self.symbol}: no position will be charged")
            return
        left = int(self.charges.counts.sum()) - self.charged
        if left:
            notices.note(f"{left:,} charges before the first or after the last bar left out")


def _say_of(parts: Sequence[ArchiveRows], notices: Notices) -> None:
    for part in parts:
        for note in part.notes:
            notices.note(note, part.archive.file)
        for doubt in part.doubts:
            notices.warn(doubt, part.archive.file)


def _laid_out(symbol: str, step: int, parts: Sequence[tuple[Int, dict[str, Float]]]) -> PriceHistory:
    stamps = np.sort(np.concatenate([times for times, _ in parts]), kind="stable")  # np.unique would hash: slow
    stamps = stamps[np.concatenate(([True], stamps[1:] > stamps[:-1]))]
    columns: dict[str, Float] = {}
    for times, values in parts:
        if times.size == stamps.size:
            columns |= values
            continue
        place = np.searchsorted(stamps, times)
        for name, column in values.items():
            columns[name] = np.full(stamps.size, np.nan)
            columns[name][place] = column
    return from_rows(symbol, step, stamps, columns)


def _joined(parts: Sequence[ArchiveRows], notices: Notices) -> tuple[Int, dict[str, Float]]:
    """Bars of files that may overlap; what stands in two of them must agree."""
    if len(parts) == 1:
        return parts[0].times, parts[0].columns
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    source = np.repeat(np.arange(len(parts)), [part.times.size for part in parts])[order]
    times = times[order]
    columns = {name: np.concatenate([part.columns[name] for part in parts])[order] for name in parts[0].columns}
    again = np.flatnonzero(np.diff(times) == 0) + 1
    for name, values in columns.items():
        unlike = again[values[again] != values[again - 1]]
        if unlike.size:
            row = int(unlike[0])
            one, other = (parts[int(source[k])].archive.file for k in (row - 1, row))
            raise DataError(
                f"{one} and {other} disagree on {WORDS[parts[0].kind]} at {instant_text(int(times[row]))}: {name} is "
                f"{number_text(values[row - 1])} and {number_text(values[row])} ({unlike.size:,} such rows); one is "
                "wrong: leave it out"
            )
    if again.size:
        notices.note(
            f"{again.size:,} rows of {WORDS[parts[0].kind]} stand in two files, which agree", parts[0].archive.file
        )
    _say_lacking(parts, notices)
    kept = np.ones(times.size, np.bool_)
    kept[again] = False
    return times[kept], {name: values[kept] for name, values in columns.items()}


def _say_lacking(parts: Sequence[ArchiveRows], notices: Notices) -> None:
    """Rows that one of two files of a time has and the other has not."""
    whole = max(parts, key=lambda part: int(part.times[-1] - part.times[0]))
    for part in parts:
        period = part.archive.period_ms or (int(part.times[0]), int(part.times[-1]) + 1)
        outer = whole.archive.period_ms or (int(whole.times[0]), int(whole.times[-1]) + 1)
        if part is whole or period[0] < outer[0] or period[1] > outer[1]:
            continue
        inside = whole.times[slice(*np.searchsorted(whole.times, period))]
        for here, there, lacking, having in ((inside, part.times, whole, part), (part.times, inside, part, whole)):
            count = int(np.setdiff1d(there, here, assume_unique=True).size)
            if count:
                notices.warn(
                    f"lacks {count:,} bars that {having.archive.file.name} has; they are taken", lacking.archive.file
                )


def merge_charges(parts: Sequence[ArchiveRows], step: int, notices: Notices) -> Charges | None:
    """Funding of all files."""
    if not parts:
        return None
    _say_of(parts, notices)
    ms, columns = _joined(sorted(parts, key=lambda part: int(part.times[0])), notices)
    rates, hours = columns[FUNDING[2]], columns[FUNDING[1]]
    _doubt_hours(ms, hours, notices)
    bars, place, counts = np.unique(ms // step * step, return_inverse=True, return_counts=True)
    if (counts > 1).any():
        notices.note(f"{int((counts > 1).sum()):,} bars hold several charges, which are summed")
    late = ms % 3_600_000
    text = "each is charged in the bar that contains its stamp"
    if (late > 0).any():
        near = late[late <= JITTER_MS]
        notices.note(f"{int((near > 0).sum()):,} charges are stamped up to {int(near.max(initial=0))} ms late; {text}")
    if (late > JITTER_MS).any():
        first = instant_text(int(ms[np.argmax(late > JITTER_MS)]))
        notices.warn(f"{int((late > JITTER_MS).sum()):,} charges are not on the full hour, the first {first}; {text}")
    sums = np.bincount(place, weights=rates, minlength=bars.size).astype(np.float64)
    return Charges(bars, sums, counts.astype(np.int64))


def _doubt_hours(ms: Int, hours: Float, notices: Notices) -> None:
    """Two charges lie as far apart as one of them says."""
    apart = np.round(np.diff(ms) / 60_000) / 60
    odd = np.flatnonzero((apart != hours[1:]) & (apart != hours[:-1]))
    if odd.size:
        at = int(odd[0])
        notices.warn(
            f"{odd.size:,} charges do not lie {FUNDING[1]} apart: missing, doubled or misplaced; first "
            f"{instant_text(int(ms[at]))} and {instant_text(int(ms[at + 1]))}, {number_text(apart[at])} h instead of "
            f"{number_text(hours[at + 1])}"
        )
