"""When funding is charged: charges that are missing, or stand off the schedule that is in force around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.data.quality.row_rules import Runs, run_ends
from backtest.units import duration_ms, duration_text

AROUND = 2
"""Steps on either side; the interval in force is the median of all."""
LEAST = 5
"""Charges without which no schedule can be told."""
LATE_MS = duration_ms("3d")
"""How long after its first bar a market may begin to charge. Right ones: 39 hours."""
LARGE, USUAL = 0.05, 0.002
"""What a charge of 8 hours or less and the median of them may be at most. Right ones: 0.5 % and 0.01 %."""
COLUMN = "funding_rate"


def schedule_runs(times: Int, rates: Float, span: tuple[int, int]) -> Iterator[Runs]:
    """What looks wrong in the funding charges of one series.

    The interval in force is that of the charges around, so that it may change; charges fall at its multiples since
    the epoch, or half an interval away from them.

    Parameters
    ----------
    times : (n_charges,) int64
        Ascending open times of the bars with a charge, ms.
    rates : (n_charges,) float64
    span : (int, int)
        Open times of the first and last bar that can be traded, ms.

    Examples
    --------
    The charge of hour 24 is missing:

    >>> hours = np.array([0, 8, 16, 32, 40, 48]) * 3_600_000
    >>> [(run.first // 3_600_000, run.bars) for run in schedule_runs(hours, np.full(6, 1e-4), (0, 48 * 3_600_000))]
    [(array([24]), array([1]))]
    """
    if times.size < LEAST:
        return
    steps = np.diff(times)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(steps, AROUND, mode="reflect"), 2 * AROUND + 1)
    force = np.median(around, axis=1).astype(np.int64)
    at_charge = np.minimum(np.append(force, force[-1]), np.append(force[0], force))
    yield from _rates(times, rates, at_charge)
    off = np.zeros(times.size, np.bool_)
    for interval, count in zip(*np.unique(at_charge, return_counts=True), strict=True):
        here = at_charge == interval
        phases, counts = np.unique(times[here] % interval, return_counts=True)
        phase = int(phases[np.argmax(counts)])
        off |= here & (times % interval != phase)
        if count >= LEAST and phase not in {0, interval // 2}:
            rule = f"charges every {duration_text(int(interval))} fall off its multiples since the epoch"
            yield _all(times[here], rule, f"{duration_text(phase)} past")
    yield from _off(times, off, at_charge)
    yield from _missing(times[~off], np.append(force, force[-1])[~off], span)


def _rates(times: Int, rates: Float, interval: Int) -> Iterator[Runs]:
    scale = np.maximum(1.0, interval / duration_ms("8h"))
    large = np.flatnonzero(abs(rates) > LARGE * scale)
    if large.size:
        rule = f"charges more than {LARGE:.0%} at once; rates are fractions"
        ones = np.ones(large.size, np.int64)
        yield Runs(COLUMN, rule, times[large], times[large], ones, lambda run: float(rates[large[run]]))
    usual = float(np.median(abs(rates) / scale))
    if usual > USUAL:
        yield _all(times, f"usually charges more than {USUAL:.1%}; rates are fractions", usual)


def _all(times: Int, rule: str, value: str | float) -> Runs:
    """One run of all these charges."""
    return Runs(COLUMN, rule, times[:1], times[-1:], np.array([times.size]), lambda _: value)


def _off(times: Int, off: Bool, interval: Int) -> Iterator[Runs]:
    places = np.flatnonzero(off)
    if places.size:
        starts, ends = (places[at] for at in run_ends(places, 1))
        value = _every(interval[starts])
        yield Runs(COLUMN, "charges off the schedule around", times[starts], times[ends], ends - starts + 1, value)


def _every(interval: Int) -> Callable[[int], str]:
    return lambda run: f"every {duration_text(int(interval[run]))}"


def _missing(times: Int, interval: Int, span: tuple[int, int]) -> Iterator[Runs]:
    """Stamps of the schedule without a charge: between charges, and before the first and after the last."""
    if not times.size:
        return
    early = span[0] if times[0] - span[0] > LATE_MS else int(times[0])
    lead = int((times[0] - early - 1) // interval[0])
    begin = np.append(times[0] - (lead + 1) * interval[0] if lead > 0 else times[0], times)
    every = np.append(interval[0], interval)
    finish = np.append(times, max(int(times[-1]), span[1] + 1))
    count = (finish - begin - 1) // every
    at = np.flatnonzero(count > 0)
    if at.size:
        first, length = begin[at] + every[at], every[at]
        last = first + (count[at] - 1) * length
        yield Runs(COLUMN, "lacks charges that are due", first, last, count[at], _every(length))
