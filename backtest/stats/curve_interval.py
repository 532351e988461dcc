"""Intervals of Kaplan–Meier curves in closed form, for thousands of scenarios at once.

Greenwood's variance gives an effective number of positions: so many, all seen to the end, would tell as much about a
horizon as those that were seen. Where positions overlap, this number is scaled by the trials per entry of the interval
of record (`backtest.stats.binomial_interval`). The bounds follow as there, but by Wilson's score interval with a
correction for continuity: Clopper–Pearson's has no closed form. Its coverage is the same within one percentage point
(docs/coverage.md).

References
----------
Greenwood, M. (1926). The natural duration of cancer. Reports on Public Health and Medical Subjects 33 (variance).
Cutler, S. J. and Ederer, F. (1958). Maximum utilization of the life table method in analyzing survival. Journal of
Chronic Diseases 8, 699–712 (effective sample size of a curve: S(1 − S) over Greenwood's variance).
Dorey, F. J. and Korn, E. L. (1987). Effective sample sizes for confidence intervals for survival probabilities.
Statistics in Medicine 6, 679–687 (intervals of a proportion on that size).
Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA 22, 209–212.
Newcombe, R. G. (1998). Two-sided confidence intervals for the single proportion. Statistics in Medicine 17, 857–872
(method 4: Wilson's interval with a correction of half a trial).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backtest.arrays import Float, Int
from backtest.errors import ConfigError, DataError
from backtest.stats._validate import counted
from backtest.stats.survival_curve import survival_curve


class CurveInterval(NamedTuple):
    """What `curve_interval` gives, (..., n_horizons, n_leverages) each; NaN where the curve is."""

    survival: Float
    low: Float
    high: Float
    error: Float  # Greenwood's standard error, as if positions were independent
    trials: Float  # effective number of independent trials


def curve_interval(
    horizons: ArrayLike,
    entries: ArrayLike,
    ended: ArrayLike,
    prior_ended: ArrayLike,
    *,
    trials: ArrayLike | None = None,
    confidence: float = 0.95,
) -> CurveInterval:
    """Kaplan–Meier with pointwise bounds.

    Parameters
    ----------
    horizons : (n_horizons,) float
        Ascending, > 0, in any unit of time.
    entries, ended, prior_ended : (..., n_horizons, n_leverages) int
        As of `backtest.stats.survival_curve.survival_curve`.
    trials : (..., n_horizons, n_leverages) float, optional
        Effective number of trials of each cohort's entries: ``n_eff`` of `backtest.stats.binomial_interval`. Without
        it every position counts as one trial, which overlapping positions are not.
    confidence : float
        Within (0, 1).

    Returns
    -------
    CurveInterval
        ``0 ≤ low ≤ survival ≤ high ≤ 1``. Where all live `low` is ``((1 − confidence)/2)^(1/trials)``.

    Raises
    ------
    ConfigError, DataError
        If the confidence is not within (0, 1), the counts cannot be those of nested cohorts, or there are trials
        beyond the entries, or none.

    Examples
    --------
    Of 8 positions 4 die on day 1; of the 4 others 2 are seen for a second day, and 1 dies. By day 2 that tells as much
    as (1 − 0.25)/(0.25·(1/8 + 1/2)) = 4.8 positions that are all seen for two days.

    >>> found = curve_interval([1, 2], [[8], [4]], [[4], [3]], [[0], [2]])
    >>> found.trials.ravel().round(6).tolist()
    [8.0, 4.8]
    >>> found.low.ravel().round(3).tolist(), found.high.ravel().round(3).tolist()
    ([0.177, 0.02], [0.823, 0.722])
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence:g}")
    survival = survival_curve(horizons, entries, ended, prior_ended)
    opened, (gone,), (before,) = counted(horizons, entries, [ended], [prior_ended])
    died, alive = (gone - before).astype(np.float64), (opened - gone).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.cumsum(np.where(died > 0, died / (alive * (alive + died)), 0.0), axis=-2)
        inner = (survival > 0) & (survival < 1)
        effective = np.where(inner, (1 - survival) / (survival * spread), opened)
        error = np.where(survival > 0, survival * np.sqrt(spread), 0 * survival)
        if trials is not None:
            effective *= _trials_per_entry(trials, opened)
        low, high = (
            _bound(rate, effective, confidence, clustered=trials is not None) for rate in (survival, 1 - survival)
        )
    return CurveInterval(survival, low, 1 - high, error, np.where(np.isnan(survival), np.nan, effective))


def _trials_per_entry(trials: ArrayLike, entries: Int) -> Float:
    given = np.asarray(trials, np.float64)
    if given.shape != entries.shape:
        raise DataError(f"trials must be given for each of the entries {entries.shape}; got {given.shape}")
    if not ((given > 0) & (given <= entries * (1 + 1e-9)))[entries > 0].all():
        raise DataError("trials must be > 0 and at most the entries, wherever there are any")
    share: Float = given / entries
    return share


def _bound(rate: Float, trials: Float, confidence: float, *, clustered: bool) -> Float:
    """Lower bound of a rate; none exceeds that of the rate 1."""
    from scipy.special import ndtri

    tail = (1 - confidence) / 2
    z = float(ndtri(1 - tail))
    bound = _score(rate, trials, z)
    if clustered:  # clusters grow with their frequency: docs/intervals.md, step 4
        losses = (1 - rate) * trials
        growth = (1 + losses) / (1 + (1 - bound) * trials)
        bound = _score(rate, trials * growth ** (losses / (1 + losses)), z)
    most = tail ** (1 / trials)
    out: Float = np.where(rate < 1, np.minimum(np.minimum(bound, most), rate), most)
    return np.where(np.isnan(rate), np.nan, out)


def _score(rate: Float, trials: Float, z: float) -> Float:
    """Wilson's lower bound of a rate less half a trial, or less of it towards 1, where the bound of all needs none.

    The fourth power puts it next to Clopper–Pearson's: within 0.005 where there are 50 trials, at every rate.
    """
    less = np.maximum(0.0, rate - (1 - rate**4) / (2 * trials))
    excess = z * z / trials
    root = np.sqrt(excess * (less * (1 - less) + excess / 4))
    bound: Float = np.maximum(0.0, (less + excess / 2 - root) / (1 + excess))
    return bound
