"""Stationary block bootstrap over calendar blocks: draws of block indices, and sums over them.

A resampled history is a few stretches of the one that was. How often its blocks stand in it changes only where a
stretch begins or ends, and what the counts sum to is had from their running sums there: summation by parts, some forty
terms for however many blocks.

References
----------
Politis, D. N. and Romano, J. P. (1994). The stationary bootstrap. Journal of the American Statistical Association 89,
1303–1313.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from backtest.arrays import Float, Int
from backtest.errors import ConfigError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


FEWEST_BLOCKS = 10
"""Below this number of blocks what is resampled says little."""
FEWEST_IN_A_ROW = 4
STRETCHES = 20
"""A resampled history is made of so many stretches in the mean, at the most: regimes are kept whole where they can."""
CELLS = 2_000_000
"""Numbers that are drawn or summed at once."""


def mean_length(n_blocks: int, horizon_blocks: float) -> int:
    """Mean number of blocks in a row: the horizon, four blocks and a twentieth of the history at the least.

    Examples
    --------
    >>> mean_length(52, 1), mean_length(313, 1), mean_length(52, 8.5)
    (4, 16, 9)
    """
    return max(FEWEST_IN_A_ROW, math.ceil(horizon_blocks), math.ceil(n_blocks / STRETCHES))


def draws(n_blocks: int, length: int, mean: float, replications: int, seed: int) -> Iterator[Int]:
    """Resampled histories, as indices of blocks, in chunks of replications.

    The same arguments give the same indices, however they are chunked; every block is drawn as often as any other,
    as the last is followed by the first.

    Parameters
    ----------
    n_blocks : int
        Of the history.
    length : int
        Of each resampled history.
    mean : float
        Mean number of blocks in a row, geometric.
    replications, seed : int

    Yields
    ------
    (n, length) int64
        Together `replications` rows.

    Examples
    --------
    >>> next(draws(5, 8, 4, 2, seed=0)).tolist()
    [[4, 0, 4, 4, 0, 1, 2, 3], [3, 4, 0, 0, 1, 3, 4, 0]]
    """
    breaks, starts = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    at_once = max(1, CELLS // length)
    place = np.arange(length)
    for done in range(0, replications, at_once):
        size = (min(at_once, replications - done), length)
        begins = breaks.random(size) < 1 / mean
        begins[:, 0] = True
        start = np.floor(starts.random(size) * n_blocks).astype(np.int64)
        since = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
        yield (np.take_along_axis(start, since, axis=1) + place - since) % n_blocks


def weights(n_blocks: int, mean: float, replications: int, seed: int) -> Float:
    """How often each block stands in each resampled history as long as the history: (replications, n_blocks)."""
    out = np.empty((replications, n_blocks))
    done = 0
    for index in draws(n_blocks, n_blocks, mean, replications, seed):
        rows = np.arange(len(index))[:, None] * n_blocks
        counts = np.bincount((rows + index).ravel(), minlength=index.size)
        out[done : done + len(index)] = counts.reshape(len(index), n_blocks)
        done += len(index)
    return out


def jumps(weight: Float) -> csr_array:
    """The weight of each block less that of the next (0 after the last), as `sums` needs it: as `weight`, sparse.

    Examples
    --------
    >>> jumps(np.array([[2.0, 2.0, 0.0, 1.0]])).toarray().tolist()
    [[0.0, 2.0, -1.0, 1.0]]
    """
    from scipy.sparse import csr_array

    found: csr_array = csr_array(-np.diff(weight, axis=1, append=0.0))
    return found


def sums(counts: Int, jump: csr_array) -> Float:
    """Counts summed over each resampled history.

    Parameters
    ----------
    counts : (n_rows, n_blocks) int64
        Of which the sum of any resampled history and the terms of it stay below 2⁵³: whole numbers that float64 holds,
        whatever the order they are added in.
    jump : (replications, n_blocks)
        As of `jumps`.

    Returns
    -------
    (replications, n_rows) float64
        ``weight @ counts.T``, to the last digit.

    Examples
    --------
    >>> sums(np.array([[3, 5, 7, 9]]), jumps(np.array([[2.0, 2.0, 0.0, 1.0]]))).tolist()
    [[25.0]]
    """
    running = np.cumsum(counts, axis=1).T.astype(np.float64, order="C")  # whole numbers first: half the time
    out: Float = jump @ running
    return out


def check_level(confidence: float, replications: int) -> None:
    """Refuse a level whose tails the replications do not reach."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence:g}")
    if round((1 - confidence) / 2 * replications, 9) < 1:
        needed = math.ceil(round(2 / (1 - confidence), 6))
        raise ConfigError(
            f"confidence {confidence:g} needs {needed:,} replications of the bootstrap or more; "
            f"statistics.replications is {replications:,}"
        )
