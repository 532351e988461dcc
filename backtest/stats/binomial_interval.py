"""The interval of record of a survival rate: Clopper–Pearson on an effective number of trials (docs/intervals.md).

Overlapping windows are dependent, and so are volatile weeks. Counts per calendar block carry this dependence: the
variance of their slowest cosines gives the effective number of independent trials. What counts alone cannot tell is
assumed: liquidations come in clusters of at least two days, and in longer ones the more frequent they are; a history
of less than a year and a half is too short to see regimes of volatility several times.

References
----------
Lazarus, E., Lewis, D. J., Stock, J. H. and Watson, M. W. (2018). HAR inference: recommendations for practice. Journal
of Business & Economic Statistics 36, 541–559 (equal-weighted cosines with Student's t).
Korn, E. L. and Graubard, B. I. (1998). Confidence intervals for proportions with small expected number of positive
counts estimated from survey data. Survey Methodology 24, 193–201 (Clopper–Pearson on an effective sample size with the
ratio of the critical values).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.errors import ConfigError

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
FEWEST_BLOCKS = 10
"""Below this number of blocks no variance is estimated."""
FEWEST_WEEKS = 78
"""Below this extent of the blocks intervals are flagged."""
FEWEST_TRIALS = 2.0
"""Smallest effective number of trials of several blocks with losses among them."""
FEWEST_COSINES = 3
CLUSTER_DAYS = 2
"""An independent trial lasts as long as the horizon, but at least so many days."""
EPISODES = 40
"""Independent episodes at which the assumption of `CLUSTER_DAYS` has lost half of its weight; it never loses more."""


@dataclass(frozen=True)
class Interval:
    """Bounds of a survival rate, arrays of one shape; NaN where nothing was entered."""

    low: Float
    high: Float
    n_eff: Float
    few_blocks: Bool


def check_confidence(confidence: float) -> None:
    """Refuse a level whose coverage was not measured (docs/coverage.md)."""
    if confidence not in LEVELS:
        known = ", ".join(f"{x:g}" for x in LEVELS)
        raise ConfigError(f"statistics.confidence must be one of the tabulated levels {known}; got {confidence:g}")


def survival_interval(
    entries: Int,
    survived: Int,
    horizon_bars: int | Int,
    block_bars: int,
    span_bars: int | Int,
    day_bars: float,
    confidence: float,
) -> Interval:
    """Interval of the survival rate of each row.

    Parameters
    ----------
    entries, survived : (n_rows, n_blocks) int64
        Per calendar block, consecutive blocks, empty ones included.
    horizon_bars : int or (n_rows,) int64
        The horizon, of all rows or of each.
    block_bars : int
        The length of a block.
    span_bars : int or (n_rows,) int64
        Bars of the grid that have trigger prices, of all rows or of each.
    day_bars : float
        Bars in a day.
    confidence : float
        One of `LEVELS`.

    Returns
    -------
    Interval
        Arrays of shape (n_rows,).

    Examples
    --------
    Ten thousand hourly entries over 60 weeks, all alive after a day, amount to 210 trials of two days:

    >>> blocks = np.full((1, 60), 168)
    >>> found = survival_interval(blocks, blocks, 24, 168, 60 * 168, 24, 0.95)
    >>> round(float(found.n_eff[0])), round(float(found.low[0]), 4), bool(found.few_blocks[0])
    (210, 0.9826, True)
    """
    check_confidence(confidence)
    n_rows = entries.shape[0]
    low, high = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
    n_eff, few = np.full(n_rows, np.nan), np.ones(n_rows, dtype=np.bool_)
    horizons = np.broadcast_to(np.asarray(horizon_bars, dtype=np.int64), n_rows)
    spans = np.broadcast_to(np.asarray(span_bars, dtype=np.int64), n_rows)
    total = entries.sum(axis=1)
    filled = entries > 0
    first = filled.argmax(axis=1)
    last = entries.shape[1] - filled[:, ::-1].argmax(axis=1)
    rate = survived.sum(axis=1) / np.maximum(total, 1)
    extent = np.stack([first, last], axis=1)
    for begin, end in np.unique(extent[total > 0], axis=0):
        rows = np.flatnonzero((first == begin) & (last == end) & (total > 0))
        n_blocks, part = int(end - begin), slice(int(begin), int(end))
        weeks = n_blocks * block_bars / (7 * day_bars)
        ceiling = _most_trials(total[rows], horizons[rows], spans[rows], day_bars)
        if n_blocks < FEWEST_BLOCKS:
            n_eff[rows] = np.minimum(FEWEST_TRIALS, ceiling)
        else:
            error = _standard_error(entries[:, part], survived[:, part], rate, rows, weeks, confidence) / total[rows]
            windows = spans[rows] / horizons[rows]
            n_eff[rows] = _effective_trials(rate[rows], error, total[rows], ceiling, windows)
        few[rows] = weeks < FEWEST_WEEKS
    rows = np.flatnonzero(total > 0)
    tail = (1 - confidence) / 2
    low[rows] = _lower_bound(rate[rows], n_eff[rows], tail)
    dead = (total - survived.sum(axis=1))[rows] / total[rows]
    high[rows] = 1 - _lower_bound(dead, n_eff[rows], tail)
    return Interval(low, high, n_eff, few)


def cosines(n_blocks: int, weeks: float) -> int:
    """Number of cosines that the variance is taken from: the largest q with 125·q³ ≤ weeks², within 3 … n_blocks/3.

    Examples
    --------
    >>> [cosines(weeks, weeks) for weeks in (10, 52, 104, 208, 313, 522)]
    [3, 3, 4, 7, 9, 12]
    """
    count = FEWEST_COSINES
    while count < n_blocks // 3 and 125 * (count + 1) ** 3 <= weeks**2:
        count += 1
    return count


def _standard_error(entries: Int, survived: Int, rate: Float, rows: Int, weeks: float, confidence: float) -> Float:
    """Standard error of the deviations summed over blocks, widened by the ratio of Student's to the normal value."""
    from scipy.special import ndtri, stdtrit

    n_blocks = entries.shape[1]
    count = cosines(n_blocks, weeks)
    middles = (np.arange(n_blocks) + 0.5) / n_blocks
    basis = math.sqrt(2) * np.cos(np.pi * np.outer(middles, np.arange(1, count + 1)))
    variance = np.empty(rows.size)
    # So few rows at a time stay in cache, and BLAS does not wake threads that then spin for the next product.
    step = max(1, 200_000 // (n_blocks * count))
    for at in range(0, rows.size, step):
        some = rows[at : at + step]
        deviation = survived[some] - entries[some] * rate[some, None]
        variance[at : at + step] = ((deviation @ basis) ** 2).mean(axis=1)
    level = 0.5 + confidence / 2
    widened: Float = np.sqrt(variance) * (stdtrit(count, level) / ndtri(level))
    return widened


def trial_bars(horizon_bars: int, day_bars: float) -> int:
    """Bars that an independent trial lasts: the horizon, and `CLUSTER_DAYS` at the least."""
    return max(horizon_bars, round(CLUSTER_DAYS * day_bars), 1)


def _most_trials(total: Int, horizons: Int, span_bars: int | Int, day_bars: float) -> Float:
    """Effective number of trials of entries without a loss."""
    most: Float = np.minimum(total, span_bars / np.maximum(horizons, CLUSTER_DAYS * day_bars))
    return most


def _effective_trials(rate: Float, error: Float, total: Int, ceiling: Float, windows: Float) -> Float:
    """Trials that explain the standard error, up to a ceiling, which rises with the number of episodes seen."""
    rarer = np.minimum(rate, 1 - rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        trials = np.maximum(FEWEST_TRIALS, rate * (1 - rate) / error**2)
    trials = np.where(error > 0, trials, np.inf)
    episodes = np.minimum(trials, windows) * rarer
    lifted = ceiling * np.minimum(2.0, 1 + episodes / EPISODES)
    effective: Float = np.minimum(np.minimum(trials, lifted), total)
    return np.where(rarer == 0, ceiling, effective)


def _clopper_pearson(rate: Float, trials: Float, tail: float) -> Float:
    """Lower bound for numbers of successes and trials that need not be whole, by the beta distribution."""
    from scipy.special import betaincinv

    alive = rate * trials
    bound: Float = np.where(alive > 0, betaincinv(np.maximum(alive, 1e-300), (1 - rate) * trials + 1, tail), 0.0)
    return bound


def _lower_bound(rate: Float, trials: Float, tail: float) -> Float:
    """Clopper–Pearson with the effective number of trials that there would be if the bound were the true rate.

    More frequent losses come in longer clusters: the variance is taken to grow with the square of their rate, less
    where few were seen and not at all where none was.
    """
    bound = _clopper_pearson(rate, trials, tail)
    losses = (1 - rate) * trials
    growth = (1 + losses) / (1 + (1 - bound) * trials)
    return _clopper_pearson(rate, trials * growth ** (losses / (1 + losses)), tail)


def attainable_low(
    entries: int, horizon_bars: int, block_bars: int, span_bars: int, day_bars: float, confidence: float
) -> float:
    """Largest lower bound that a history can show at all: the one without a single liquidation.

    Examples
    --------
    Five years at 7 days can show 0.986, not 0.99:

    >>> round(attainable_low(40_000, 7 * 24, 7 * 24, 5 * 365 * 24, 24, 0.95), 3)
    0.986
    """
    if not entries:
        return float("nan")
    trials = _most_trials(np.array([entries]), np.array([horizon_bars]), span_bars, day_bars)
    touched = -(-(span_bars - horizon_bars - 1) // block_bars) + 1  # at most, by bars opened one after the other
    if touched < FEWEST_BLOCKS:
        trials = np.minimum(FEWEST_TRIALS, trials)
    return float(_clopper_pearson(np.ones(1), trials, (1 - confidence) / 2)[0])
