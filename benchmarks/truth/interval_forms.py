"""Other forms of an interval for survival rates, which `interval_coverage` compares with the one of record.

Each takes the long-run variance of the sum of e_b = survived_b − entries_b·S another way; all but the last two map it
to Clopper–Pearson on S(1−S)/se² trials, at most span/horizon, as the form of record did before (``before``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri, stdtrit

from backtest.stats import binomial_interval
from backtest.stats.curve_interval import curve_interval

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bounds = tuple[Float, Float, NDArray[np.bool_]]
Form = Callable[[Int, Int, int, int, int, int, float], Bounds]
"""entries (n_blocks,), survived (n_rows, n_blocks), horizon, block, span, day, confidence."""
Variance = Callable[[Float, int], tuple[Float, float]]
"""e_b and twice the horizon in blocks, to the variance of the sum and the critical value at 95 %."""

LEVEL = 0.975


def bartlett(width: Callable[[int], float]) -> Variance:
    """Bartlett kernel with a bandwidth of the number of blocks; Kiefer & Vogelsang's fixed-b values."""

    def variance(e: Float, overlap: int) -> tuple[Float, float]:
        n_blocks = e.shape[1]
        bandwidth = min(n_blocks, max(math.ceil(width(n_blocks)), overlap))
        total = (e**2).sum(axis=1)
        for lag in range(1, bandwidth):
            total += 2 * (1 - lag / bandwidth) * (e[:, lag:] * e[:, :-lag]).sum(axis=1)
        b = bandwidth / n_blocks
        return np.maximum(0.0, total), 1.9600 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3

    return variance


def cosine_sums(e: Float, count: int) -> Float:
    """Projections on the slowest `count` cosines, each with the variance of the sum if the series is white."""
    middles = (np.arange(e.shape[1]) + 0.5) / e.shape[1]
    sums: Float = e @ (math.sqrt(2) * np.cos(np.pi * np.outer(middles, np.arange(1, count + 1))))
    return sums


def cosines(count: Callable[[int], int]) -> Variance:
    """Equal-weighted cosines with Student's t (Lazarus, Lewis, Stock & Watson 2018)."""

    def variance(e: Float, _: int) -> tuple[Float, float]:
        number = count(e.shape[1])
        return (cosine_sums(e, number) ** 2).mean(axis=1), float(stdtrit(number, LEVEL))

    return variance


def prewhitened(count: Callable[[int], int]) -> Variance:
    """The same of the residuals of an AR(1), recoloured (Andrews & Monahan 1992), the root corrected for its bias."""

    def variance(e: Float, _: int) -> tuple[Float, float]:
        with np.errstate(invalid="ignore"):
            root = np.nan_to_num((e[:, 1:] * e[:, :-1]).sum(axis=1) / (e**2).sum(axis=1))
        root = np.clip(root + (1 + 4 * np.clip(root, 0, 1)) / e.shape[1], 0, 0.97)
        rest = e[:, 1:] - root[:, None] * e[:, :-1]
        number = count(e.shape[1])
        total = (cosine_sums(rest - rest.mean(axis=1, keepdims=True), number) ** 2).mean(axis=1)
        return total / (1 - root) ** 2, float(stdtrit(number, LEVEL))

    return variance


def groups(count: int) -> Variance:
    """Equal groups of consecutive blocks with Student's t (Ibragimov & Müller 2010)."""

    def variance(e: Float, _: int) -> tuple[Float, float]:
        edges = np.linspace(0, e.shape[1], count + 1).round().astype(int)
        sums = np.stack([e[:, a:b].sum(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
        return count / (count - 1) * (sums**2).sum(axis=1), float(stdtrit(count - 1, LEVEL))

    return variance


def plain(variance: Variance) -> Form:
    """Clopper–Pearson on S(1−S)/se² trials, at most span/horizon and at least 2."""

    def form(entries: Int, survived: Int, horizon: int, block: int, span: int, day: int, confidence: float) -> Bounds:
        total = entries.sum()
        rate = survived.sum(axis=1) / total
        most = min(float(total), span / horizon)
        if entries.size < 10:
            trials, few = np.full(rate.shape, min(2.0, most)), True
        else:
            squared, critical = variance(survived - entries * rate[:, None], -(-2 * horizon // block))
            error = np.sqrt(squared) / total * critical / ndtri(LEVEL)
            with np.errstate(divide="ignore", invalid="ignore"):
                trials = np.minimum(most, np.maximum(2.0, rate * (1 - rate) / error**2))
            trials, few = np.where((rate == 0) | (rate == 1) | (error == 0), most, trials), False
        low = np.where(rate > 0, betaincinv(np.maximum(rate * trials, 1e-300), (1 - rate) * trials + 1, 1 - LEVEL), 0.0)
        dead = np.maximum((1 - rate) * trials, 1e-300)
        high = np.where(rate < 1, betaincinv(rate * trials + 1, dead, LEVEL), 1.0)
        return low, high, np.full(rate.shape, few)

    return form


def record(entries: Int, survived: Int, horizon: int, block: int, span: int, day: int, confidence: float) -> Bounds:
    """The interval of record."""
    opened = np.broadcast_to(entries, survived.shape)
    found = binomial_interval.survival_interval(opened, survived, horizon, block, span, day, confidence)
    return found.low, found.high, found.few_blocks


def curve(entries: Int, survived: Int, horizon: int, block: int, span: int, day: int, confidence: float) -> Bounds:
    """The interval of Kaplan–Meier curves on the effective trials of record, at the first horizon."""
    opened = np.broadcast_to(entries, survived.shape)
    found = binomial_interval.survival_interval(opened, survived, horizon, block, span, day, confidence)
    total, dead = opened.sum(axis=1)[:, None, None], (opened - survived).sum(axis=1)[:, None, None]
    bounds = curve_interval([1], total, dead, 0 * dead, trials=found.n_eff[:, None, None], confidence=confidence)
    return bounds.low[:, 0, 0], bounds.high[:, 0, 0], found.few_blocks


def _third(n_blocks: int) -> int:
    return max(3, int(0.4 * n_blocks ** (2 / 3)))


def _sixth(n_blocks: int) -> int:
    return binomial_interval.cosines(n_blocks, n_blocks)


FORMS: dict[str, tuple[str, Form]] = {
    "before": ("Bartlett, M = 0.1·T, fixed-b (the form of record before)", plain(bartlett(lambda t: 0.1 * t))),
    "bartlett": ("Bartlett, M = 1.3·√T, fixed-b (Lazarus et al. 2018)", plain(bartlett(lambda t: 1.3 * math.sqrt(t)))),
    "wide": ("Bartlett, M = 0.5·T, fixed-b", plain(bartlett(lambda t: 0.5 * t))),
    "self": ("Bartlett, M = T: self-normalised (Shao 2010)", plain(bartlett(float))),
    "groups8": ("8 groups, Student t (Ibragimov & Müller 2010)", plain(groups(8))),
    "groups4": ("4 groups", plain(groups(4))),
    "prewhitened": ("AR(1) prewhitened (Andrews & Monahan 1992), cosines as below", plain(prewhitened(_third))),
    "cosines": ("q = 0.4·T^⅔ cosines, Student t (Lazarus et al. 2018)", plain(cosines(_third))),
    "slow": ("q = 0.2·T^⅔ cosines", plain(cosines(_sixth))),
    "record": ("the same, with clusters of two days and more: the form of record", record),
    "curve": ("the same by Wilson's interval, as that of Kaplan–Meier curves", curve),
}
