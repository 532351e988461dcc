"""Kaplan–Meier curves from counts, and what follows from them: hazard, median, mean, incidence of competing ends.

Counts are those of cohorts (docs/semantics.md §9): ``entries`` of a horizon are the positions whose whole window lies
inside the grid, ``prior_…`` those of them that had ended by the next shorter horizon. Cohorts are nested: a position
that leaves one is right-censored at the horizon before. Survival is known at the horizons only; a number between two
of them is a bound, or its name says that it is interpolated.

Horizons are ascending and in any unit of time. Times are in that unit, rates per that unit. Arrays of counts and of
curves have the shape (..., n_horizons, n_leverages). Survival at 0 is 1 and not stored.

NaN means that there is nothing to count: an empty cohort, or nobody at risk. It never stands for 0 or for a long time.
`survival_curve` makes the curves that the other functions take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backtest.arrays import Float, Int
from backtest.errors import ConfigError
from backtest.stats._validate import ascending, counted
from backtest.stats.survival_table import kaplan_meier

FOUND, BEYOND, NO_ENTRIES = 0, 1, 2
"""What is known of a quantile of the survival time: see `QuantileTime`."""
TIE = 1e-12
"""A product of steps that is 0.5 in fractions may lie this far above it in floats."""


class Hazard(NamedTuple):
    """Hazard in each interval between neighbouring horizons, from 0 to the first; (..., n_horizons, n_leverages)."""

    conditional: Float  # probability to end in the interval for those alive at its start
    rate: Float  # per unit of time, constant in the interval; +inf where all that were alive ended
    cumulative: Float  # Nelson–Aalen to the end of the interval


class QuantileTime(NamedTuple):
    """When survival comes down to a level; (..., n_leverages) each.

    Where `status` is `BEYOND` survival stays above the level as far as there are entries: the time is right-censored,
    `after` is the longest horizon that was seen, `by` and `time` are NaN. Where it is `NO_ENTRIES` all three are NaN.
    """

    after: Float  # the last grid time at which survival lies above the level, 0 for the start
    by: Float  # the first at which it does not: the time lies in (after, by]
    time: Float  # interpolated linearly in between
    status: NDArray[np.int8]


class RestrictedMean(NamedTuple):
    """Mean survival time up to a limit; (..., n_limits, n_leverages) each, ``lower ≤ linear ≤ upper``."""

    lower: Float  # as if all ended at the start of their interval
    linear: Float  # as if evenly within it
    upper: Float  # as if at its end: the area under the Kaplan–Meier steps


class Incidence(NamedTuple):
    """Competing ends; ``incidence.sum(axis=0) + survived == 1`` wherever there are entries."""

    incidence: Float  # (n_causes, ..., n_horizons, n_leverages) probability to have ended so by the horizon
    survived: Float  # (..., n_horizons, n_leverages) probability to be open still
    at_risk: Int  # (..., n_horizons, n_leverages) open at the next shorter horizon, of the horizon's cohort


def survival_curve(
    horizons: ArrayLike, entries: ArrayLike, liquidations: ArrayLike, prior_liquidations: ArrayLike
) -> Float:
    """Kaplan–Meier that ends where nobody is at risk any more.

    Parameters
    ----------
    horizons : (n_horizons,) float
        Ascending, > 0, in any unit of time.
    entries, liquidations, prior_liquidations : (..., n_horizons, n_leverages) int
        Totals over calendar blocks.

    Returns
    -------
    (..., n_horizons, n_leverages) float64
        `backtest.stats.survival_table.kaplan_meier`, except where a whole cohort was liquidated by the next shorter
        horizon although survival to that one is not 0. The survivors are right-censored there: the curve is NaN from
        there on (`survival_km` of a run is 0).

    Raises
    ------
    ConfigError, DataError
        If the horizons are not ascending, or the counts cannot be those of nested cohorts.

    Notes
    -----
    Kaplan & Meier (1958), JASA 53, §2: undefined beyond the last observation, if that is censored.

    Examples
    --------
    Of 2 positions 1 dies on day 1, the other is not seen for longer.

    >>> survival_curve([1, 2], [[2], [1]], [[1], [1]], [[0], [1]]).ravel().tolist()
    [0.5, nan]
    """
    opened, (dead,), (before,) = counted(horizons, entries, [liquidations], [prior_liquidations])
    return _curve(opened, dead, before)


def _curve(entries: Int, ended: Int, prior_ended: Int) -> Float:
    survival = kaplan_meier(entries, ended, prior_ended)
    unseen = (entries == prior_ended) & (_from_start(survival)[..., :-1, :] > 0)
    return np.where(np.logical_or.accumulate(unseen, axis=-2), np.nan, survival)


def hazard(horizons: ArrayLike, survival: Float) -> Hazard:
    """Hazard of each interval of the grid.

    Parameters
    ----------
    horizons : (n_horizons,) float
    survival : (..., n_horizons, n_leverages) float
        As of `survival_curve`.

    Returns
    -------
    Hazard
        NaN where the curve is and where nobody was alive at the start of the interval. `rate` is −ln(1 − conditional)
        over the interval's length: the constant hazard under which as many survive, so that exp(−Σ rate · length) is
        the curve; it is +inf where none does.

    Notes
    -----
    Piecewise exponential model: Friedman (1982), Annals of Statistics 10, §2. `cumulative` is the sum of `conditional`:
    Nelson (1972), Technometrics 14, §2; Aalen (1978), Annals of Statistics 6.

    Examples
    --------
    >>> found = hazard([1, 3], np.array([[0.5], [0.25]]))
    >>> found.conditional.ravel().tolist(), found.cumulative.ravel().tolist()
    ([0.5, 0.5], [0.5, 1.0])
    >>> found.rate.ravel().round(4).tolist()  # ln 2 over 1, then over 2
    [0.6931, 0.3466]
    """
    length = np.diff(ascending(horizons), prepend=0.0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        staying = survival / _from_start(survival)[..., :-1, :]
        rate = -np.log(staying) / length + 0.0  # no −0
    conditional = 1.0 - staying
    return Hazard(conditional, rate, np.cumsum(conditional, axis=-2))


def quantile_time(horizons: ArrayLike, survival: Float, level: float = 0.5) -> QuantileTime:
    """When survival first is at or below a level; at 0.5 the median survival time.

    Parameters
    ----------
    horizons : (n_horizons,) float
    survival : (..., n_horizons, n_leverages) float
        As of `survival_curve`.
    level : float
        Within (0, 1).

    Returns
    -------
    QuantileTime
        The interval of the grid, the interpolated time, and whether there is one at all.

    Notes
    -----
    The least t with S(t) ≤ level: Brookmeyer & Crowley (1982), Biometrics 38, §2. That is `by` on the grid.

    Examples
    --------
    >>> found = quantile_time([1, 2, 4], np.array([[0.9, 0.99], [0.7, 0.98], [0.3, 0.97]]))
    >>> found.after.tolist(), found.by.tolist(), found.time.round(6).tolist()
    ([2.0, 4.0], [4.0, nan], [3.0, nan])
    >>> found.status.tolist() == [FOUND, BEYOND]
    True
    """
    if not 0 < level < 1:
        raise ConfigError(f"level must lie between 0 and 1, such as 0.5 for the median; got {level:g}")
    grid = ascending(horizons)
    time, curve = np.append(0.0, grid), _from_start(survival)
    under = survival <= level * (1 + TIE)
    found, first = under.any(axis=-2), under.argmax(axis=-2)
    seen = np.count_nonzero(~np.isnan(survival), axis=-2)
    status = np.select([found, seen > 0], [FOUND, BEYOND], NO_ENTRIES).astype(np.int8)
    after = np.where(found, time[first], np.where(seen > 0, time[seen], np.nan))
    by = np.where(found, grid[first], np.nan)
    above, below = (np.take_along_axis(curve, (first + k)[..., None, :], axis=-2)[..., 0, :] for k in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.minimum(1.0, (above - level) / (above - below))
    return QuantileTime(after, by, after + share * (by - after), status)


def restricted_mean(horizons: ArrayLike, survival: Float, to: ArrayLike | None = None) -> RestrictedMean:
    """Mean of the survival time, cut off at a limit: the area under the survival curve.

    Parameters
    ----------
    horizons : (n_horizons,) float
    survival : (..., n_horizons, n_leverages) float
        As of `survival_curve`.
    to : (n_limits,) or () float, optional
        Limits, at most the last horizon and not necessarily of the grid; default: each horizon.

    Returns
    -------
    RestrictedMean
        Whatever happened between the horizons, the area of the estimated curve lies within lower … upper. NaN where the
        curve is, up to the limit or the next horizon after it.

    Notes
    -----
    Royston & Parmar (2013), BMC Medical Research Methodology 13:152, "Methods"; `upper` is the area under the steps,
    as survival packages give it for times that are recorded at the end of their interval.

    Examples
    --------
    >>> found = restricted_mean([1, 3], np.array([[0.5], [0.25]]), to=3)
    >>> [float(area[0, 0]) for area in found]  # 0.5 + 2 · 0.25; 0.75 + 2 · 0.375; 1 + 2 · 0.5
    [1.0, 1.5, 2.0]
    """
    grid = ascending(horizons)
    limit = grid if to is None else np.atleast_1d(np.asarray(to, np.float64))
    if not np.all((limit > 0) & (limit <= grid[-1])):
        raise ConfigError(f"to must lie within (0, {grid[-1]:g}], up to the longest horizon; got {limit.tolist()}")
    time, curve = np.append(0.0, grid), _from_start(survival)
    length = np.diff(time)[:, None]
    start, end = curve[..., :-1, :], curve[..., 1:, :]
    at = np.searchsorted(grid, limit)
    part = (limit - time[at])[:, None]
    first, last = start[..., at, :], end[..., at, :]
    inner = first + (last - first) / length[at] * part  # the curve at the limit, interpolated

    def area(height: Float, rest: Float) -> Float:
        whole = np.cumsum(height * length, axis=-2)
        before = np.concatenate([np.zeros_like(whole[..., :1, :]), whole], axis=-2)[..., at, :]
        return np.where(np.isnan(last), np.nan, before + rest * part)

    return RestrictedMean(area(end, last), area((start + end) / 2, (first + inner) / 2), area(start, first))


def conditional_survival(horizons: ArrayLike, survival: Float, given: float) -> Float:
    """Survival to each horizon of those alive at an earlier one: alive after a day → alive after a week.

    Parameters
    ----------
    horizons : (n_horizons,) float
    survival : (..., n_horizons, n_leverages) float
        As of `survival_curve`.
    given : float
        One of the horizons, in their unit.

    Returns
    -------
    (..., n_horizons, n_leverages) float64
        S(horizon) / S(given), 1 at `given`. NaN before it, where the curve is, and where nobody is alive at `given`.

    Notes
    -----
    Hieke et al. (2015), Clinical Cancer Research 21, "Statistical methods".

    Examples
    --------
    >>> conditional_survival([1, 7], np.array([[0.8], [0.6]]), given=1).round(6).ravel().tolist()
    [1.0, 0.75]
    """
    grid = ascending(horizons)
    place = np.flatnonzero(grid == given)
    if not place.size:
        raise ConfigError(f"given must be one of the horizons {', '.join(f'{h:g}' for h in grid)}; got {given:g}")
    at = int(place[0])
    out = np.full(survival.shape, np.nan)
    alive = survival[..., at : at + 1, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        out[..., at:, :] = survival[..., at:, :] / alive
    return out


def cumulative_incidence(
    horizons: ArrayLike, entries: ArrayLike, ended: Sequence[ArrayLike], prior_ended: Sequence[ArrayLike]
) -> Incidence:
    """Probabilities of competing ends, such as liquidated, stopped, took profit (Aalen–Johansen from cohort counts).

    Parameters
    ----------
    horizons : (n_horizons,) float
    entries : (..., n_horizons, n_leverages) int
    ended, prior_ended : sequences of n_causes arrays (..., n_horizons, n_leverages) int
        Of each horizon's cohort, those that ended so by the horizon, and by the next shorter one.

    Returns
    -------
    Incidence
        NaN where a cohort is empty or, some being open still, none of them is in it. Once all have ended the
        incidences stay what they are.

    Notes
    -----
    Aalen & Johansen (1978), Scandinavian Journal of Statistics 5, §3. With causes λ_jk = (ended_jk − prior_jk) / n_k
    of the n_k = entries_k − Σ prior_jk at risk, S_k = S_{k−1}·(1 − Σ λ_jk) and I_jk = I_j,k−1 + S_{k−1}·λ_jk. With one
    cause S is Kaplan–Meier. With several, 1 − survival_km of the liquidations alone is not the first incidence to the
    last digit: it also keeps those at risk that ended otherwise (see `event_incidence`). Both estimate the same.

    Examples
    --------
    Of 10 positions 2 are liquidated and 3 stopped on day 1; of the 4 open ones seen for longer 1 is liquidated.

    >>> found = cumulative_incidence([1, 2], [[10], [8]], [[[2], [2]], [[3], [3]]], [[[0], [1]], [[0], [3]]])
    >>> found.incidence[:, :, 0].round(6).tolist(), found.survived.ravel().round(6).tolist()
    ([[0.2, 0.325], [0.3, 0.3]], [0.5, 0.375])
    >>> found.at_risk.ravel().tolist()
    [10, 4]
    """
    opened, causes, before = counted(horizons, entries, ended, prior_ended)
    at_risk = opened - sum(before)
    survived = _curve(opened, np.add.reduce(causes), np.add.reduce(before))
    with np.errstate(invalid="ignore", divide="ignore"):
        hazards = np.where(at_risk > 0, (np.stack(causes) - np.stack(before)) / at_risk, 0.0)
    steps = _from_start(survived)[..., :-1, :] * hazards
    incidence = np.where(np.isnan(survived), np.nan, np.cumsum(steps, axis=-2))
    return Incidence(incidence, survived, at_risk)


def event_incidence(horizons: ArrayLike, entries: ArrayLike, events: ArrayLike, prior_events: ArrayLike) -> Float:
    """Probability that something has happened by each horizon, whatever else ended the position: margin calls.

    Parameters
    ----------
    horizons : (n_horizons,) float
    entries, events, prior_events : (..., n_horizons, n_leverages) int
        As ``entries, margin_calls, prior_margin_calls``: positions to which it happened at least once.

    Returns
    -------
    (..., n_horizons, n_leverages) float64
        NaN as of `survival_curve`.

    Notes
    -----
    1 − Kaplan–Meier in which positions that were closed without a call stay at risk up to the end of their window. Its
    end is known for all of them, so this is an incidence in the presence of competing ends, not the larger one that a
    world without them would show: Fine & Gray (1999), JASA 94, §3, censoring complete data.

    Examples
    --------
    >>> event_incidence([1, 2], [[10], [8]], [[2], [4]], [[0], [2]]).round(6).ravel().tolist()  # 1 − 0.8 · 4/6
    [0.2, 0.466667]
    """
    opened, (happened,), (before,) = counted(horizons, entries, [events], [prior_events])
    return 1.0 - _curve(opened, happened, before)


def _from_start(curve: Float) -> Float:
    """(..., 1 + n_horizons, n_leverages) the curve with its 1 at time 0."""
    return np.concatenate([np.ones_like(curve[..., :1, :]), curve], axis=-2)
