"""Prices and volumes that keep every rule and still look wrong, of bars that come piece by piece.

Each threshold is a multiple of what the bars around do, and lies above all that 2.1 million real bars of 29 histories
(1m to 1h, 2019 … 2026) show where they are right, the crashes of 2020-03-12, 2021-05-19 and 2025-10-10 included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.data.quality.row_rules import Runs, run_ends

AROUND = 12
"""Bars on either side whose median range, high to low, is the measure."""
LEAST_RANGE = 1e-4
"""Of the price: what the measure is at least."""
STREAK = 3
"""Bars in a row that repeat the one before, or have no volume. Right ones: 2, in the first hours of a market."""
LARGE_SHARE = 0.05
"""Of all bars: so many repeats are worth a word even where single runs are too short. Right ones: 0.2 %."""
WICK = {"": 40.0, "mark_": 15.0}
"""Ranges that a high or low may lie beyond those of both neighbours. Right ones: 32 last, 6 mark."""
JUMP = 15.0
"""Ranges between a close and the bar after it. Right ones: 7 in the first hours of a market, else 2."""
APART, APART_RANGES = 0.05, 5.0
"""Share of the price and ranges between the closes of last and mark. Right ones: 4.5 % and 1."""
WINDOW, LEAST_MOVES, TOGETHER = 512, 200, 0.6
"""Bars over which last and mark are compared, those of them in which both move, and the share that must do so in the
same direction. Right ones: 93 % and more; shifted by a bar: 54 % and less."""


@dataclass(frozen=True, order=True)
class OddBarRule:
    """What is wrong with a column; `least` bars in a row must be so, or as many as stand out where it is a streak."""

    column: str
    text: str
    streak: bool = False
    joint: str = ""
    least: int = 1


class Watch:
    """The bars of one series, in the order of time, and what looks wrong in them.

    Memory does not grow with the bars, but for those that look wrong and for funding charges.

    Examples
    --------
    >>> watch = Watch(60_000)
    >>> close = np.array([10.0, 11.0, 11.0, 11.0, 11.0, 10.0])
    >>> watch.see(60_000 * np.arange(6), {"high": close, "low": close, "close": close})
    >>> [(run.rule, run.first.tolist(), run.bars.tolist()) for run in watch.runs()]
    [('repeats the bar before, as if filled forward', [120000], [3])]
    """

    def __init__(self, step_ms: int) -> None:
        self._step, self._latest = step_ms, -1
        self._sides = self._both_sides(step_ms)
        self._charges: list[tuple[Int, Float]] = []

    @staticmethod
    def _both_sides(step_ms: int) -> tuple[Side, Side]:
        """Last and mark; an import looks for more."""
        return Side("", step_ms), Side("mark_", step_ms)

    def see(self, times: Int, values: Mapping[str, Float]) -> None:
        """Take the next rows; those off the grid or not later than all before are left aside.

        Parameters
        ----------
        times : (n_rows,) int64
            Open times, ms.
        values : mapping of str to (n_rows,) float64
            Some of `backtest.data.history.COLUMNS`, NaN where null.
        """
        if not times.size:
            return
        before = np.maximum.accumulate(np.append(self._latest, times[:-1]))
        good = (times > before) & (times % self._step == 0)
        if not good.all():
            times, values = times[good], {name: column[good] for name, column in values.items()}
        if times.size:
            self._latest = int(times[-1])
            for side in self._sides:
                side.see(times, values)
            if "funding_rate" in values:
                charged = np.isfinite(values["funding_rate"])
                self._charges.append((times[charged], values["funding_rate"][charged]))

    def charges(self) -> tuple[Int, Float]:
        """Open times and rates of the bars with a funding charge."""
        times, rates = zip(*self._charges, strict=True) if self._charges else ((), ())
        return np.concatenate([np.empty(0, np.int64), *times]), np.concatenate([np.empty(0), *rates])

    def runs(self) -> list[Runs]:
        """All that looks wrong in prices and volumes; nothing can be seen after it."""
        return [run for side in self._sides for run in side.runs()]


class Side:
    """One of last and mark. A bar is judged when `AROUND` more are known, so that pieces make no difference."""

    def __init__(self, prefix: str, step_ms: int) -> None:
        self._prefix, self._step = prefix, step_ms
        other = "mark_" if not prefix else ""
        self._names = tuple(p + name for p in (prefix, other) for name in ("high", "low", "close"))
        self._volume = "volume" if not prefix else ""
        self._times = np.empty(0, np.int64)
        self._bars = np.empty((len(self._columns), 0))
        self._judged = self._seen = 0
        self._marks: defaultdict[OddBarRule, list[tuple[Int, Float, Float]]] = defaultdict(list)
        self._moves: defaultdict[int, Int] = defaultdict(lambda: np.zeros(2, np.int64))

    @property
    def _columns(self) -> tuple[str, ...]:
        """The rows of `_bars`."""
        return (*self._names, self._volume)

    def see(self, times: Int, values: Mapping[str, Float]) -> None:
        """Take the next bars."""
        if not set(self._names[:3]) <= set(values):
            return
        bars = np.full((len(self._columns), times.size), np.nan)
        for row, name in enumerate(self._columns):
            if name in values:
                bars[row] = values[name]
        high, low, close = bars[:3]
        sound = (low > 0) & (high >= low) & (high < np.inf) & (close > 0) & (close < np.inf)
        if not sound.all():
            times, bars = times[sound], bars[:, sound]
        self._times = np.concatenate([self._times, times])
        self._bars = np.concatenate([self._bars, bars], axis=1)
        self._seen += times.size
        self._judge(self._times.size - AROUND)

    def _judge(self, stop: int) -> None:
        """Judge the bars up to `stop`, and keep what those after it need."""
        if stop <= self._judged:
            return
        self._apply_rules(stop)
        keep = max(0, stop - AROUND - 1)
        self._times, self._bars = self._times[keep:].copy(), self._bars[:, keep:].copy()
        self._judged = stop - keep

    def _apply_rules(self, stop: int) -> None:
        self._repeats(stop)
        self._wicks(stop)
        self._jumps(stop)
        if not self._prefix:
            self._distances(stop)
            self._directions(stop)

    def _due(self, bars: Bool, first: int, stop: int) -> Int:
        """Which bars to judge, of a mask that begins at bar `first`."""
        places = np.flatnonzero(bars) + first
        due: Int = places[(places >= self._judged) & (places < stop)]
        return due

    def _mark(self, rule: OddBarRule, at: Int, value: Float, other: Float | None = None) -> None:
        if at.size:
            self._marks[rule].append((self._times[at], value, np.full(at.size, np.nan) if other is None else other))

    def _measure(self, at: Int, near: tuple[int, int], reach: Float) -> Float:
        """True range to measure a move into bar `at` by: that of the bars around, and of the two `near` it if larger.

        Bars between those two are under suspicion and left out, their closes too. Over a distance in time it grows as
        a random walk.
        """
        high, low, close = self._bars[:3]
        offsets = np.arange(-AROUND, AROUND + 1)
        places = at[:, None] + offsets
        out = (places < 0) | (places >= self._times.size) | ((offsets > near[0]) & (offsets < near[1]))
        places = places.clip(0, self._times.size - 1)
        before = close[np.maximum(places - (offsets != near[1]), 0)]
        ranges = np.log(np.maximum(high[places], before) / np.minimum(low[places], before))
        beside = np.where(out, 0.0, ranges)[:, [AROUND + near[0], AROUND + near[1]]].max(axis=1)
        ranges[out | (ranges <= 0)] = np.inf
        measure: Float = np.maximum(np.maximum(finite_medians(ranges), beside), LEAST_RANGE) * np.sqrt(reach)
        return measure

    # --- rules --------------------------------------------------------------------------------------------------------

    def _repeats(self, stop: int) -> None:
        high, low, close, _, _, _, volume = self._bars[:7]
        following = np.diff(self._times) == self._step
        at = self._due((close[1:] == close[:-1]) & following, 1, stop)
        like = (high[at] == low[at]) | ((high[at] == high[at - 1]) & (low[at] == low[at - 1]))
        traded = (volume[at] > 0) & (volume[at] != volume[at - 1])
        at = at[like & ~traded]
        column = self._prefix + "close"
        self._mark(OddBarRule(column, "repeats the bar before, as if filled forward", streak=True), at, close[at])
        idle = np.setdiff1d(self._due(volume == 0, 0, stop), at, assume_unique=True)
        self._mark(OddBarRule("volume", "is 0 while the price moves", streak=True), idle, volume[idle])

    def _wicks(self, stop: int) -> None:
        high, low, _, other_high, other_low = self._bars[:5]
        if high.size < 3:
            return
        most = WICK[self._prefix]
        ranges = high - low
        beside = np.maximum(ranges[2:], ranges[:-2])
        for name, sign, ours, theirs in (("high", 1, high, other_high), ("low", -1, low, other_low)):
            edge = np.maximum(ours[2:], ours[:-2]) if sign > 0 else np.minimum(ours[2:], ours[:-2])
            beyond = sign * (ours[1:-1] - edge)
            least = np.maximum(4 * beside, 0.5 * most * LEAST_RANGE * edge)  # a cheap bound: few are left
            at = self._due(beyond > least, 1, stop)
            if not at.size:
                continue
            edge = edge[at - 1]
            with np.errstate(invalid="ignore", divide="ignore"):
                size, their_size = sign * np.log(ours[at] / edge), sign * np.log(theirs[at] / edge)
            apart = np.maximum(self._times[at + 1] - self._times[at], self._times[at] - self._times[at - 1])
            too_far = size >= most * self._measure(at, (-1, 1), apart / self._step)
            at = at[too_far & ~(their_size >= size / 2)]  # the other price went there as well: it was so
            rule = f"lies more than {most:g} times the usual range beyond the bars on either side"
            self._mark(OddBarRule(self._prefix + name, rule), at, ours[at])

    def _jumps(self, stop: int) -> None:
        high, low, close, _, _, other = self._bars[:6]
        gap = np.maximum(low[1:] - close[:-1], close[:-1] - high[1:])
        at = self._due(gap > JUMP * LEAST_RANGE * 0.5 * close[:-1], 1, stop)
        if not at.size:
            return
        size = np.maximum(np.log(low[at] / close[at - 1]), np.log(close[at - 1] / high[at]))
        apart = (self._times[at] - self._times[at - 1]) / self._step
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.maximum(abs(np.log(other[at - 1] / close[at - 1])), abs(np.log(other[at] / close[at])))
        same = (off < size / 2) & (size < log(2))  # the other price jumped alike; by a factor of two none does
        at = at[(size >= JUMP * self._measure(at, (-2, 1), apart)) & ~same]
        rule = f"a jump of more than {JUMP:g} times the usual range from the close before"
        self._mark(OddBarRule(self._prefix + "close", rule, joint=" → "), at, close[at - 1], close[at])

    def _distances(self, stop: int) -> None:
        high, low, close, mark_high, mark_low, mark = self._bars[:6]
        at = self._due(abs(close - mark) > 0.9 * APART * np.minimum(close, mark), 0, stop)
        if not at.size:
            return
        with np.errstate(invalid="ignore", divide="ignore"):
            size = abs(np.log(close[at] / mark[at]))
            own = np.maximum(np.log(high[at] / low[at]), np.nan_to_num(np.log(mark_high[at] / mark_low[at])))
        measure = np.maximum(self._measure(at, (-1, 1), np.ones(at.size)), own)
        at = at[(size >= APART) & (size >= APART_RANGES * measure)]
        rule = f"lies more than {APART:.0%} and {APART_RANGES:g} times the usual range away from mark_close"
        self._mark(OddBarRule("close", rule, joint=" and "), at, close[at], mark[at])

    def _directions(self, stop: int) -> None:
        """How often last and mark move in the same direction, and how often not, per window of bars."""
        first = max(self._judged, 1)
        close, mark = self._bars[2][first - 1 : stop], self._bars[5][first - 1 : stop]
        if first >= stop or np.isnan(mark).all():
            return
        product = np.diff(close) * np.diff(mark)
        windows = self._times[first:stop] // (WINDOW * self._step)
        starts = np.flatnonzero(np.diff(windows, prepend=windows[0] - 1))
        same, opposite = (np.add.reduceat(one, starts, dtype=np.int64) for one in (product > 0, product < 0))
        for window, *counts in zip(windows[starts], same, opposite, strict=True):
            self._moves[int(window)] += counts

    # --- runs ---------------------------------------------------------------------------------------------------------

    def runs(self) -> Iterator[Runs]:
        """All that looks wrong; no more bars can be taken after it."""
        self._judge(self._times.size)
        for rule, marks in sorted(self._marks.items()):
            times, values, others = (np.concatenate(part) for part in zip(*marks, strict=True))
            yield from _runs(rule, self._step, times, values, others)
            if rule.streak and times.size > max(LARGE_SHARE * self._seen, 10 * STREAK):
                share = f"{times.size / self._seen:.1%}"
                text = f"in more than {LARGE_SHARE:.0%} of all bars: {rule.text}"
                ends = times[:1], times[-1:], np.array([times.size])
                yield Runs(rule.column, text, *ends, lambda _, share=share: share)  # type: ignore[misc]
        yield from self._against()

    def _against(self) -> Iterator[Runs]:
        counts = {window: n for window, n in sorted(self._moves.items()) if n.sum() >= LEAST_MOVES}
        bad = np.array([w for w, (same, opposite) in counts.items() if same < TOGETHER * (same + opposite)], np.int64)
        if bad.size:
            starts, ends = run_ends(bad, 1)
            length = WINDOW * self._step
            text = f"moves with close in less than {TOGETHER:.0%} of the bars: is one of them shifted in time?"
            shares = [float(counts[int(w)][0] / counts[int(w)].sum()) for w in bad[starts]]
            first, last = bad[starts] * length, (bad[ends] + 1) * length - self._step
            yield Runs(
                "mark_close", text, first, last, (ends - starts + 1) * WINDOW, lambda run: f"{shares[run]:.0%} of them"
            )


def finite_medians(rows: Float) -> Float:
    """Median of the finite values in each row, the upper one of two; 0 where there is none."""
    known = np.isfinite(rows).sum(axis=1)
    middle = np.take_along_axis(np.sort(rows, axis=1), known[:, None] // 2, axis=1)[:, 0]
    medians: Float = np.where(known > 0, middle, 0.0)
    return medians


def _runs(rule: OddBarRule, step_ms: int, times: Int, values: Float, others: Float) -> Iterator[Runs]:
    starts, ends = run_ends(times, step_ms)
    lengths = ends - starts + 1
    kept = lengths >= (least_streak(lengths) if rule.streak else rule.least)
    starts, ends = starts[kept], ends[kept]
    if not starts.size:
        return

    def value(run: int) -> str | float:
        one, two = float(values[starts[run]]), float(others[starts[run]])
        return f"{one:.10g}{rule.joint}{two:.10g}" if rule.joint else one

    yield Runs(rule.column, rule.text, times[starts], times[ends], ends - starts + 1, value)


def least_streak(lengths: Int) -> int:
    """How long a run must be to stand out from the others of a thin market.

    With R runs, a share q of which go on after their first bar, R·q^(k−1) would reach k bars by chance; k is the
    least length, not below `STREAK`, of which less than 0.01 are expected.

    Examples
    --------
    >>> least_streak(np.array([1, 1, 14]))
    3

    of 1000 runs with q = 1/4: 1 + log(100,000)/log(4) = 9.3:

    >>> least_streak(np.array([1, 1, 1, 2] * 250))
    10
    """
    if lengths.size < 100:
        return STREAK
    going_on = min(max(float(np.mean(lengths > 1)), 0.01), 0.75)  # not all: the runs themselves may be what is wrong
    return max(STREAK, 1 + ceil(log(lengths.size / 0.01) / log(1 / going_on)))
