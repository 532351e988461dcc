"""What a check of the bars cannot see: columns that are swapped, units that do not fit, charges that stand there twice.

Limits are set on real histories of a dozen perpetuals over six years: there nearly every open is within 1 % of the
close before, 30 of 700,000 hours have a wick that stands alone, and the median funding of 30 charges is 0.0015 % to
0.22 % per 8 hours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.data.history import LAST, PriceHistory
from backtest.errors import DataError
from backtest.ingest.columns import SourceTable, numbers
from backtest.ingest.messages import Notices
from backtest.units import instant_text

LEAST = 0.01
"""Log price below which no single price is doubted."""
JUMP_RANGES, WICK_RANGES, WICK_NEIGHBOURS, APART_RANGES = 5, 10, 3, 5
"""Usual ranges (high to low, the median of `AROUND` bars on either side) by which an open may lie off the close before,
and a high or low off open and close; times the larger range of the two bars beside it for the latter; and usual ranges
by which highs or lows of mark and last price may lie apart. A check has wider limits: what it says is wrong."""
AROUND = 12
LARGEST_BASIS, OTHER_UNIT = 1.05, 4.0
"""Median ratio of mark and last price that is doubted, and that is refused."""
HIGH_RATE = 0.0012
"""Median funding per 8 hours that is doubted, as it might be percent."""
FEW = 24
"""Bars that a refusal needs."""
BACKWARDS = 5
"""Bars in a row whose close, and not whose open, goes on from the bar before: none in 2 million right ones."""
FACTOR, WIDE = 5, 1.0
"""Times that a price changes within a bar, and what the usual high is above the low, that are doubted: 2.9 and 0.01."""
EIGHT_HOURS_MS = 28_800_000
QUOTE_VOLUMES = ("quote_volume", "quote_asset_volume", "turnover", "vol_quote")


class Doubts:
    """What is odd about the prices of one series, which come in stretches."""

    def __init__(self) -> None:
        self._odd: dict[str, tuple[int, float, str]] = {}  # how many bars, the largest size, and when
        self._run: dict[str, tuple[int, str]] = {}
        self._ranges: dict[str, list[Float]] = {}
        self._basis: list[Float] = []
        self._bars = self._traded = 0

    def add(self, history: PriceHistory) -> None:
        """Look at the next bars."""
        columns = history.columns
        self._bars += history.n_bars
        for prefix, what in (("", "prices"), ("mark_", "mark prices")):
            if all(prefix + name in columns for name in LAST):
                self._add_prices(history, [columns[prefix + name] for name in LAST], what)
        if {"close", "mark_close"} <= set(columns):
            self._basis.append((columns["mark_close"] / columns["close"])[:: _thinning(history)])
            for name in ("high", "low"):
                last, mark = columns[name], columns[f"mark_{name}"]
                odd = np.flatnonzero(np.abs(last - mark) > LEAST * last)
                what = f"the {name}s of mark and last price are far apart"
                self._note(history, odd, np.abs(np.log(last[odd] / mark[odd])), APART_RANGES, what)
        volume = columns.get("volume")
        self._traded += history.n_bars if volume is None or np.isnan(volume).all() else int((volume > 0).sum())

    def _add_prices(self, history: PriceHistory, prices: list[Float], what: str) -> None:
        open_, high, low, close = prices
        before, after, back, ahead = close[:-1], open_[1:], open_[:-1], close[1:]
        jump = np.abs(after - before)
        odd = np.flatnonzero(jump > LEAST * before)
        size = np.abs(np.log(after[odd] / before[odd]))
        self._note(history, odd + 1, size, JUMP_RANGES, f"the open of the {what} is far from the close before")
        self._backwards(history, jump * back > np.abs(ahead - back) * before, what)

        odd = np.flatnonzero(high > FACTOR * low)
        odd = odd[np.maximum(close[odd] / open_[odd], open_[odd] / close[odd]) > FACTOR]
        size = np.abs(np.log(close[odd] / open_[odd]))
        self._note(history, odd, size, 0, f"the {what} change more than {FACTOR} times within a bar")
        self._ranges.setdefault(what, []).append((high / low)[:: _thinning(history)])

        top, bottom = np.maximum(open_, close), np.minimum(open_, close)
        odd = np.flatnonzero((high - top > LEAST * top) | (bottom - low > LEAST * low))
        size = np.log(np.maximum(high[odd] / top[odd], bottom[odd] / low[odd]))
        padded = np.pad(np.array([high, low]), ((0, 0), (1, 1)), constant_values=np.nan)
        beside = [np.log(padded[0, odd + k] / padded[1, odd + k]) for k in (0, 2)]
        lone = size > WICK_NEIGHBOURS * np.nan_to_num(np.fmax(*beside))
        self._note(history, odd[lone], size[lone], WICK_RANGES, f"the high or low of the {what} stands alone")

    def _note(self, history: PriceHistory, bars: Int, size: Float, ranges: float, what: str) -> None:
        """Keep those of some odd bars whose size is more than so many usual ranges."""
        if not bars.size:
            return
        far = size > ranges * np.array([_usual_range(history, bar) for bar in bars])
        bars, size = bars[far], size[far]
        if bars.size:
            worst = int(np.argmax(size))
            count, largest, when = self._odd.get(what, (0, 0.0, ""))
            if size[worst] > largest:
                largest, when = float(size[worst]), _when(history, int(bars[worst]))
            self._odd[what] = (count + int(bars.size), largest, when)

    def _backwards(self, history: PriceHistory, wrong: Bool, what: str) -> None:
        """Bars whose close goes on from the open before, where its own open should go on from the close before."""
        total = np.append(0, np.cumsum(wrong))
        run = np.flatnonzero(total[BACKWARDS:] - total[:-BACKWARDS] == BACKWARDS)
        if run.size:
            count, when = self._run.get(what, (0, _when(history, int(run[0]) + 1)))
            self._run[what] = (count + run.size + BACKWARDS - 1, when)

    def say(self, notices: Notices) -> None:
        """Say what was found.

        Raises
        ------
        DataError
            If they cannot be prices of one thing in the order of time.
        """
        for what, (count, when) in self._run.items():
            text = f"from {when} on, the close of the {what} goes on from the open of the bar before"
            if 2 * count > self._bars:
                raise DataError(
                    f"nothing was written: {text}: open and close are swapped (--column), or rows run backwards in time"
                )
            notices.warn(f"{text} in {count:,} bars: are open and close swapped there?")
        self._say_units(notices)
        for what, (count, size, when) in self._odd.items():
            bars = f"{count:,} bar{'s' * (count != 1)}"
            notices.warn(f"{what} in {bars}, most at {when}, by {100 * np.expm1(size):.3g} %")

    def _say_units(self, notices: Notices) -> None:
        for what, pieces in self._ranges.items():
            usual = _median(pieces)
            if usual > 1 + WIDE:
                notices.warn(f"high and low of the {what} are {100 * (usual - 1):.3g} % apart in the median bar")
        basis = _median(self._basis)
        text = f"mark prices are {basis:.4g} times the prices in the median"
        if max(basis, 1 / basis) > OTHER_UNIT and sum(map(len, self._basis)) >= FEW:
            raise DataError(
                f"nothing was written: {text}; they are in another unit (--price-scale) or of another thing"
            )
        if max(basis, 1 / basis) > LARGEST_BASIS:
            notices.warn(text)
        if not self._traded:
            notices.warn("the volume of the prices is 0 in every bar: are they mark prices?")


def _usual_range(history: PriceHistory, bar: int) -> float:
    """Median log range of the bars around, of the price that has the larger."""
    here = slice(max(0, bar - AROUND), bar + AROUND + 1)
    found = [0.0]
    for prefix in ("", "mark_"):
        if prefix + "high" in history.columns:
            ranges = np.log(history.columns[prefix + "high"][here] / history.columns[prefix + "low"][here])
            known = ranges[~np.isnan(ranges)]
            found.append(float(np.median(known)) if known.size else 0.0)
    return max(found)


def _median(pieces: list[Float]) -> float:
    """Of all that is known; 1 where nothing is."""
    known = np.concatenate([np.empty(0), *pieces])
    known = known[~np.isnan(known)]
    return float(np.median(known)) if known.size else 1.0


def _thinning(history: PriceHistory) -> int:
    """A median needs no more than some ten thousand bars."""
    return 1 + history.n_bars // 50_000


def _when(history: PriceHistory, bar: int) -> str:
    return instant_text(history.start_ms + bar * history.interval_ms)


def doubt_quote_volume(table: SourceTable, values: dict[str, Float], notices: Notices) -> None:
    """Quote volume over volume is a mean price, which lies between low and high."""
    name = next((name for name in QUOTE_VOLUMES if name in table.columns), None)
    if name is None:
        return
    try:
        quote, _ = numbers(table, name)
    except DataError:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = quote / values["volume"]
    known = np.isfinite(mean) & (values["volume"] > 0)
    outside = known & ((mean < 0.999 * values["low"]) | (mean > 1.001 * values["high"]))
    if known.any() and 0 < outside.sum() < 0.1 * known.sum():
        row = int(np.argmax(outside))
        notices.warn(
            f"{int(outside.sum()):,} rows have a mean price, {table.names[name]} over volume, outside of low … high; "
            f"the first is row {row}: {mean[row]:.10g} beside {values['low'][row]:.10g} … {values['high'][row]:.10g}",
            table.file,
        )


# --- funding ----------------------------------------------------------------------------------------------------------


def rates_unit(ms: Int, rates: Float, said: str | None, file: Path, notices: Notices) -> float:
    """What rates are multiplied by to be fractions, which they are taken for unless the user says percent."""
    spacing = float(np.median(np.diff(ms))) if ms.size > 1 else EIGHT_HOURS_MS
    sizes = np.abs(rates[rates != 0]) * EIGHT_HOURS_MS / max(spacing, 60_000)
    scale = 0.01 if said == "percent" else 1.0
    usual = scale * float(np.median(sizes)) if sizes.size else 0.0
    text = f"funding rates are read as {said or 'fraction'}: {100 * usual:.3g} % per 8 hours in the median"
    if usual > HIGH_RATE:
        notices.warn(f"{text}, which is much: are they percent? --rates says which", file)
    else:
        notices.note(f"{text}; --rates percent says otherwise" if said is None else text, file)
    return scale


def doubt_funding(ms: Int, first: int, end: int, notices: Notices) -> None:
    """Charges that stand much closer than those around them, and none at all between the first and the last bar."""
    inside = ms[(ms >= first) & (ms < end)]
    if not inside.size:
        notices.warn("no funding charge falls between the first and the last bar")
    steps = np.round(np.diff(inside) / 60_000)
    if steps.size < 2:
        return
    beside = np.minimum(np.append(steps[1], steps[:-1]), np.append(steps[1:], steps[-2]))
    double = steps < 0.5 * beside
    if double.any():
        at = int(np.argmax(double))
        notices.warn(
            f"{int(double.sum()):,} funding charges seem to stand there twice, the first at "
            f"{instant_text(int(inside[at]))} and {instant_text(int(inside[at + 1]))}"
        )
