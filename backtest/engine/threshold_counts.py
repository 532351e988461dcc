"""Counts from thresholds: how many entries reach each, and where in the tables these numbers belong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float, Int
from backtest.engine.cohorts import Horizons
from backtest.stats.survival_table import COUNTS, PRIOR, Count


@dataclass(frozen=True)
class ThresholdTest:
    """Thresholds of one scenario that one pass over the entries answers."""

    count: Count
    scenario: int
    leverage: Sequence[int]  # (n_thresholds,) indices into the sweep's leverages
    threshold: Sequence[float]  # (n_thresholds,)


def all_thresholds(tests: Iterable[ThresholdTest]) -> Float:
    """The thresholds of all tests, ascending, each once."""
    return np.unique(np.concatenate([test.threshold for test in tests]))


def cumulate(histogram: Int) -> Int:
    """Entries that reach each of n ascending thresholds, from a histogram over the n + 1 bins between them.

    histogram : (…, n + 1) int64; bin k holds rates from threshold k − 1 to below threshold k
    """
    return histogram[..., ::-1].cumsum(axis=-1)[..., -2::-1]


def count_reaching(rate: Float, thresholds: Float, label: Int, n_labels: int) -> Int:
    """(n_labels, n_thresholds) entries of each label whose rate is at least each of ascending thresholds."""
    n_bins = thresholds.size + 1
    place = label * n_bins + np.searchsorted(thresholds, rate, side="right")
    return cumulate(np.bincount(place, minlength=n_labels * n_bins).reshape(n_labels, n_bins))


def add_reaching(counts: Int, by: Horizons, test: ThresholdTest, reaching: Int) -> None:
    """Add the entries that reach the thresholds of a test to its counts, and to those of the next longer horizon.

    Parameters
    ----------
    counts : (n_counts, n_scenarios, n_horizons, n_leverages, n_blocks) int64
    reaching : (n_horizons, 2 · n_blocks, n_thresholds) int64
        By the labels of `Cohort`: the entries that stay in the cohort of the next longer horizon are its ``prior_``.
    """
    reaching = reaching.reshape(len(by.bars), by.n_blocks, 2, -1)
    within = counts[COUNTS.index(test.count), test.scenario]
    within[np.ix_(by.axis, test.leverage)] += reaching.sum(axis=2).swapaxes(1, 2)
    prior = counts[COUNTS.index(PRIOR[test.count]), test.scenario]
    prior[np.ix_(by.axis[1:], test.leverage)] += reaching[:-1, :, 1].swapaxes(1, 2)
