"""Signs that a file of prices was misread: swapped columns, other units, rows that run backwards.

A check of a dataset says what is wrong. An import looks closer, with narrower limits, as columns and units are not
known for certain. Limits are set on real histories of a dozen perpetuals over six years: there nearly every open is
within 1 % of the close before, and 30 of 700,000 hours have a wick that stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.data.quality.anomalies import AROUND, OddBarRule, Side, Watch, finite_medians
from backtest.data.quality.row_rules import Runs

LEAST = 0.01
"""Share of the price below which no single price gives a warning."""
OPEN_RANGES, WICK_RANGES, WICK_NEIGHBOURS, EDGE_RANGES = 5.0, 10.0, 3.0, 5.0
"""Usual ranges (log of high over low, the median of `AROUND` bars on either side) by which an open may lie off the
close before, and a high or low off open and close; for the latter also times the larger range of the two bars beside
it. And usual ranges by which the highs or the lows of mark and last price may lie apart."""
LARGEST_BASIS, OTHER_UNIT = 1.05, 4.0
"""Median ratio of mark and last price that gives a warning, and that is refused."""
FEW = 24
"""Bars that a refusal needs."""
BACKWARDS = 5
"""Bars in a row whose close, and not whose open, continues the bar before. Right ones, in two million bars: 3."""
FACTOR, WIDE = 5.0, 2.0
"""Change of a price within a bar, and median of high over low, that give a warning. Largest right ones: 2.9, 1.01."""
SAMPLE = 10_000
"""Bars of each piece that medians over the whole history are taken of, about."""


def runs_backwards(open_: Float, close: Float) -> Bool:
    """Of each bar but the first: whether its close, and not its open, continues the bar before.

    Parameters
    ----------
    open_, close : (n,) float64

    Returns
    -------
    (n - 1,) bool
        False where a price is NaN.

    Examples
    --------
    >>> runs_backwards(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0]))  # open and close are swapped
    array([ True,  True])
    """
    wrong: Bool = np.abs(open_[1:] - close[:-1]) * open_[:-1] > np.abs(close[1:] - open_[:-1]) * close[:-1]
    return wrong


class ImportWatch(Watch):
    """`Watch` for bars that are imported: it also finds what shows that their files were misread."""

    @staticmethod
    def _both_sides(step_ms: int) -> tuple[Side, Side]:
        return _ImportSide("", step_ms), _ImportSide("mark_", step_ms)

    def refusal(self) -> str | None:
        """Why these cannot be prices of one thing in the order of time, after `runs`; None if they can."""
        found = (side.refusal() for side in self._sides if isinstance(side, _ImportSide))
        return next((text for text in found if text is not None), None)


class _ImportSide(Side):
    def __init__(self, prefix: str, step_ms: int) -> None:
        super().__init__(prefix, step_ms)
        self._ranges: list[Float] = []
        self._basis: list[Float] = []
        self._span = (0, 0)
        self._backwards = OddBarRule(
            f"{prefix}close",
            "continues the open of the bar before: are open and close swapped, or do rows run backwards?",
            least=BACKWARDS,
        )
        self._bars_backwards = 0

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*super()._columns, f"{self._prefix}open")

    def _apply_rules(self, stop: int) -> None:
        super()._apply_rules(stop)
        self._span = (self._span[0] if self._ranges else int(self._times[0]), int(self._times[stop - 1]))
        with np.errstate(divide="ignore", invalid="ignore"):  # prices of 0 are found as faults of their rows
            self._opens(stop)
            self._bodies(stop)
            self._lone_wicks(stop)
            if not self._prefix:
                self._edges_apart(stop)
        sample = slice(self._judged, stop, 1 + (stop - self._judged) // SAMPLE)
        high, low, close, _, _, mark = self._bars[:6, sample]
        self._ranges.append(high / low)
        self._basis.append((mark / close)[~np.isnan(mark)])

    def _usual(self, at: Int) -> Float:
        """Median log range of the bars around, of the price that has the larger."""
        places = at[:, None] + np.arange(-AROUND, AROUND + 1)
        out = (places < 0) | (places >= self._times.size)
        places = places.clip(0, self._times.size - 1)
        usual = np.zeros(at.size)
        for high, low in ((0, 1), (3, 4)) if at.size else ():
            ranges = np.log(self._bars[high][places] / self._bars[low][places])
            usual = np.maximum(usual, finite_medians(np.where(out | np.isnan(ranges), np.inf, ranges)))
        return usual

    # --- rules --------------------------------------------------------------------------------------------------------

    def _opens(self, stop: int) -> None:
        """An open continues the close before it."""
        close, open_ = self._bars[2], self._bars[7]
        following = np.diff(self._times) == self._step
        at = self._due(following & (np.abs(open_[1:] - close[:-1]) > LEAST * close[:-1]), 1, stop)
        at = at[np.abs(np.log(open_[at] / close[at - 1])) > OPEN_RANGES * self._usual(at)]
        rule = f"is more than {OPEN_RANGES:g} times the usual range away from the close before"
        self._mark(OddBarRule(f"{self._prefix}open", rule, joint=" after "), at, open_[at], close[at - 1])
        at = self._due(following & runs_backwards(open_, close), 1, stop)
        self._mark(self._backwards, at, close[at])

    def _bodies(self, stop: int) -> None:
        close, open_ = self._bars[2], self._bars[7]
        at = self._due(np.maximum(close / open_, open_ / close) > FACTOR, 0, stop)
        rule = f"changes more than {FACTOR:g} times within the bar"
        self._mark(OddBarRule(f"{self._prefix}close", rule, joint=" → "), at, open_[at], close[at])

    def _lone_wicks(self, stop: int) -> None:
        """A high or low that lies far off open and close, next to bars of a small range."""
        (high, low, close), open_ = self._bars[:3], self._bars[7]
        top, bottom = np.maximum(open_, close), np.minimum(open_, close)
        spread = np.pad(high / low, 1, constant_values=1)  # a bar at the edge has one neighbour
        rule = f"lies more than {WICK_RANGES:g} times the usual range beyond open and close"
        for name, above, below, price in (("high", high, top, high), ("low", bottom, low, low)):
            at = self._due(above - below > LEAST * below, 0, stop)
            size = np.log(above[at] / below[at])
            beside = np.log(np.maximum(spread[at], spread[at + 2]))
            lone = size > WICK_NEIGHBOURS * beside
            at, size = at[lone], size[lone]
            at = at[size > WICK_RANGES * self._usual(at)]
            self._mark(OddBarRule(self._prefix + name, rule), at, price[at])

    def _edges_apart(self, stop: int) -> None:
        """Highs, and lows, of last and mark price lie near each other."""
        for row, name in enumerate(("high", "low")):
            last, mark = self._bars[row], self._bars[3 + row]
            at = self._due(np.abs(last - mark) > LEAST * last, 0, stop)
            at = at[np.abs(np.log(last[at] / mark[at])) > EDGE_RANGES * self._usual(at)]
            rule = f"lies more than {EDGE_RANGES:g} times the usual range away from mark_{name}"
            self._mark(OddBarRule(name, rule, joint=" and "), at, last[at], mark[at])

    # --- the whole ----------------------------------------------------------------------------------------------------

    def runs(self) -> Iterator[Runs]:
        for run in super().runs():
            if (run.column, run.rule) == (self._backwards.column, self._backwards.text):
                self._bars_backwards = int(run.bars.sum())
            yield run
        usual, basis = _median(self._ranges), self._median_basis
        for column, odd, rule, value in (
            (f"{self._prefix}high", usual > WIDE, f"is more than {WIDE:g} times low in the median bar", usual),
            (
                "mark_close",
                max(basis, 1 / basis) > LARGEST_BASIS,
                "is another price than close in the median bar",
                basis,
            ),
        ):
            if odd:
                first, last = (np.array([ms]) for ms in self._span)
                yield Runs(column, rule, first, last, np.array([self._seen]), lambda _, v=value: f"{v:.4g} times")  # type: ignore[misc]

    @property
    def _median_basis(self) -> float:
        return 1.0 if self._prefix else _median(self._basis)

    def refusal(self) -> str | None:
        if 2 * self._bars_backwards > self._seen:
            return (
                f"{self._prefix}close continues the open of the bar before in {self._bars_backwards:,} of "
                f"{self._seen:,} bars: open and close are swapped (--column), or rows run backwards in time"
            )
        basis = self._median_basis
        if max(basis, 1 / basis) > OTHER_UNIT and sum(part.size for part in self._basis) >= FEW:
            return (
                f"mark prices are {basis:.4g} times the prices in the median: they are in another unit (--price-scale) "
                "or of another thing"
            )
        return None


def _median(pieces: list[Float]) -> float:
    """1 where nothing is known."""
    known = np.concatenate([np.empty(0), *pieces])
    return float(np.median(known)) if known.size else 1.0
