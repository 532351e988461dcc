"""The interval of record: Clopper–Pearson on an effective number of trials (semantics.md §9).

Overlapping windows are dependent. Counts per calendar block carry the dependence; a Bartlett long-run variance with
fixed-b critical values says how many independent trials the entries are worth.

References
----------
Kiefer, N. M. and Vogelsang, T. J. (2005). A new asymptotic theory for heteroskedasticity-autocorrelation robust
tests. Econometric Theory 21, 1130–1164, table 1 (Bartlett kernel).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from backtest.errors import ConfigError

Float = NDArray[np.float64]
Int = NDArray[np.int64]

POLYNOMIALS = {0.95: (1.9600, 2.9694, 0.4160, -0.5324), 0.90: (1.6449, 2.1859, 0.3142, -0.3427)}
FEWEST_BLOCKS = 10


@dataclass(frozen=True)
class Interval:
    """Bounds of a survival rate, arrays of one shape; NaN where nothing was entered."""

    low: Float
    high: Float
    n_eff: Float
    few_blocks: NDArray[np.bool_]


@cache
def tabulated() -> dict[float, tuple[Float, Float]]:
    """Critical values of other levels, simulated by ``benchmarks/fixed_b.py``: level → (b, c)."""
    rows = np.loadtxt(
        files("backtest").joinpath("fixed_b.csv").open(), delimiter=",", skiprows=1, dtype=np.float64, ndmin=2
    )
    return {float(level): (rows[rows[:, 0] == level, 1], rows[rows[:, 0] == level, 2]) for level in set(rows[:, 0])}


def critical_value(confidence: float, b: float) -> float:
    """Two-sided fixed-b critical value of the Bartlett kernel with bandwidth b·T.

    Examples
    --------
    >>> round(critical_value(0.95, 0.1), 4)
    2.2606
    """
    if confidence in POLYNOMIALS:
        c0, c1, c2, c3 = POLYNOMIALS[confidence]
        return c0 + c1 * b + c2 * b**2 + c3 * b**3
    check_confidence(confidence)
    grid, values = tabulated()[confidence]
    return float(np.interp(b, grid, values))


def check_confidence(confidence: float) -> None:
    """Refuse a level without critical values."""
    if confidence not in POLYNOMIALS and confidence not in tabulated():
        known = ", ".join(f"{x:g}" for x in sorted([*POLYNOMIALS, *tabulated()]))
        raise ConfigError(f"statistics.confidence must be one of the tabulated levels {known}; got {confidence:g}")


def survival_interval(
    entries: Int, survived: Int, horizon_bars: int, block_bars: int, span_bars: int, confidence: float
) -> Interval:
    """Interval of the survival rate of each row.

    Parameters
    ----------
    entries, survived : (n_rows, n_blocks) int64
        Per calendar block, consecutive blocks, empty ones included.
    horizon_bars, block_bars, span_bars : int
        The horizon, the length of a block, and the bars of the grid that have trigger prices.
    confidence : float
        0.9, 0.95, or a level of `tabulated`.

    Returns
    -------
    Interval
        Arrays of shape (n_rows,).
    """
    n_rows = entries.shape[0]
    low, high = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
    n_eff, few = np.full(n_rows, np.nan), np.ones(n_rows, dtype=np.bool_)
    total = entries.sum(axis=1)
    filled = entries > 0
    first = filled.argmax(axis=1)
    last = entries.shape[1] - filled[:, ::-1].argmax(axis=1)
    extent = np.stack([first, last], axis=1)
    for begin, end in np.unique(extent[total > 0], axis=0):
        rows = np.flatnonzero((first == begin) & (last == end) & (total > 0))
        part = slice(int(begin), int(end))
        e, s = entries[rows, part], survived[rows, part]
        n_eff[rows], few[rows] = _effective_trials(e, s, horizon_bars, block_bars, span_bars, confidence)
        low[rows], high[rows] = _clopper_pearson(s.sum(axis=1) / total[rows], n_eff[rows], confidence)
    return Interval(low, high, n_eff, few)


def _effective_trials(
    entries: Int, survived: Int, horizon_bars: int, block_bars: int, span_bars: int, confidence: float
) -> tuple[Float, bool]:
    """Effective number of trials of rows that share their first and last block with entries."""
    from scipy.special import ndtri

    n_blocks = entries.shape[1]
    total = entries.sum(axis=1)
    n_max = np.minimum(total, span_bars / horizon_bars)
    if n_blocks < FEWEST_BLOCKS:
        return np.minimum(2.0, n_max), True
    rate = survived.sum(axis=1) / total
    deviation = survived - entries * rate[:, None]
    bandwidth = min(n_blocks, max(-(-n_blocks // 10), -(-2 * horizon_bars // block_bars)))
    variance = (deviation**2).sum(axis=1)
    for lag in range(1, bandwidth):
        covariance = (deviation[:, lag:] * deviation[:, :-lag]).sum(axis=1)
        variance += 2 * (1 - lag / bandwidth) * covariance
    # variance = T·Ω: the sums above are T times the autocovariances.
    inflate = critical_value(confidence, bandwidth / n_blocks) / ndtri(0.5 + confidence / 2)
    error = np.sqrt(np.maximum(0.0, variance)) / total * inflate
    certain = (rate == 0) | (rate == 1) | (error == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        trials = np.minimum(n_max, np.maximum(2.0, rate * (1 - rate) / error**2))
    return np.where(certain, n_max, trials), False


def _clopper_pearson(rate: Float, trials: Float, confidence: float) -> tuple[Float, Float]:
    """Clopper–Pearson bounds with real numbers of successes and trials, by the beta distribution."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    alive = rate * trials
    dead = trials - alive
    with np.errstate(invalid="ignore"):
        low = np.where(rate == 0, 0.0, betaincinv(np.maximum(alive, 1e-300), dead + 1, tail))
        high = np.where(rate == 1, 1.0, betaincinv(alive + 1, np.maximum(dead, 1e-300), 1 - tail))
    return low, high


def attainable_low(entries: int, horizon_bars: int, span_bars: int, few_blocks: bool, confidence: float) -> float:
    """Largest lower bound that a history can show at all: the one without a single liquidation.

    Examples
    --------
    Five years at 7 days prove 0.986, not 0.99:

    >>> round(attainable_low(40_000, 7 * 24, 5 * 365 * 24, False, 0.95), 3)
    0.986
    """
    if not entries:
        return float("nan")
    trials = min(float(entries), span_bars / horizon_bars)
    if few_blocks:
        trials = min(2.0, trials)
    low, _ = _clopper_pearson(np.ones(1), np.array([trials]), confidence)
    return float(low[0])
