"""The lag in bars between two prices of one instrument, found by the correlation of their returns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest.arrays import Float, Int
from backtest.data.history import MOST_SPARSE

WINDOW = 4096
"""Bars that are compared at a time."""
ENOUGH = 48
"""Moves that both series must have in common before they decide anything."""
SHARP, AHEAD = 0.5, 0.15
"""Correlation of the best lag, and what it must be ahead of no lag to contradict it."""
FARTHEST_MS = 14 * 3_600_000
QUARTER_MS = 900_000
LARGEST_MOVE = 0.05
"""Log returns are clipped to this, so that one bad price decides nothing."""


def find_lag(times: Int, close: Float, other_times: Int, other: Float, step: int) -> tuple[int, int] | None:
    """Bars by which the first series runs behind the second, and from when on; None if it cannot be told.

    0 if they move together everywhere; else the lag of the first window where they do not.

    Examples
    --------
    >>> moves = np.random.default_rng(1).normal(0, 0.01, 500)
    >>> price, hours = 100 * np.exp(np.cumsum(moves)), 3_600_000 * np.arange(500)
    >>> find_lag(hours + 3 * 3_600_000, price, hours, 1.001 * price, 3_600_000)
    (3, 0)
    """
    found = [one for one in _lags(times, close, other_times, other, step) if one[0] is not None]
    apart = next((one for one in found if one[0]), found[0] if found else None)
    return None if apart is None or apart[0] is None else (apart[0], apart[1])


def zone_by_mark(times: Int, close: Float, other_times: Int, other: Float, step: int) -> int | None:
    """Milliseconds that the clock of the first series is ahead of the second's; None if it cannot be told."""
    lags = {lag for lag, _ in _lags(times, close, other_times, other, step) if lag is not None}
    if len(lags) != 1 or (lag := lags.pop()) * step % QUARTER_MS:
        return None
    return lag * step


def _lags(times: Int, close: Float, other_times: Int, other: Float, step: int) -> Iterator[tuple[int | None, int]]:
    """Lag of each window, and the time of its first bar."""
    first, last = min(times[0], other_times[0]), max(times[-1], other_times[-1])
    n_bars = int((last - first) // step) + 1
    if n_bars > MOST_SPARSE * (times.size + MOST_SPARSE):
        return
    mine, theirs = (
        _moves((stamps - first) // step, price, n_bars) for stamps, price in ((times, close), (other_times, other))
    )
    for start in range(0, n_bars, WINDOW):
        stop = min(start + WINDOW, n_bars)
        now = _score(mine, theirs, start, stop, 0)
        if now >= SHARP + AHEAD:
            yield 0, int(first) + start * step
            continue
        scores = {lag: _score(mine, theirs, start, stop, lag) for lag in _candidates(step)}
        best = max(scores, key=lambda lag: (scores[lag], -abs(lag)))
        if best and scores[best] >= SHARP and scores[best] >= now + AHEAD:
            yield best, int(first) + start * step
        elif now >= SHARP:
            yield 0, int(first) + start * step
        else:
            yield None, int(first) + start * step


def _candidates(step: int) -> list[int]:
    """Wrong ends of bars and wrong zones."""
    most = FARTHEST_MS // step
    every = max(1, QUARTER_MS // step)
    return sorted({*range(-3, 4), *(sign * lag for lag in range(0, most + 1, every) for sign in (1, -1))}, key=abs)


def _moves(place: Int, price: Float, n_bars: int) -> Float:
    """Log moves from bar to bar on a common grid, NaN where one of the two is missing."""
    grid = np.full(n_bars, np.nan)
    grid[place] = price
    moves: Float = np.clip(np.diff(np.log(grid), prepend=np.nan), -LARGEST_MOVE, LARGEST_MOVE)
    return moves


def _score(moves: Float, others: Float, start: int, stop: int, lag: int) -> float:
    """Correlation of the moves that both have in a window of the second; −1 where there are too few."""
    start, stop = max(start, -lag), min(stop, others.size - lag)
    a, b = moves[max(0, start + lag) : max(0, stop + lag)], others[start : max(start, stop)]
    known = ~(np.isnan(a) | np.isnan(b))
    if known.sum() < ENOUGH:
        return -1.0
    a, b = a[known], b[known]
    if not a.std() or not b.std():
        return -1.0
    return float(np.corrcoef(a, b)[0, 1])
