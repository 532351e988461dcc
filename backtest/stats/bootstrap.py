"""Stationary block bootstrap over calendar blocks: draws of block indices, and sums over them.

A resampled history consists of a few segments of the observed one. The weight of a block differs from that of its
neighbour only where a segment begins or ends. Sums of counts therefore follow from their running sums at these places
(summation by parts): about forty terms for any number of blocks.

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
"""Below this number of blocks resampling says little."""
FEWEST_IN_A_ROW = 4
SEGMENTS = 20
"""A resampled history has at most so many segments on average: long ones keep regimes whole."""
CHUNK_SIZE = 2_000_000
"""Numbers drawn or summed at once."""


def mean_length(n_blocks: int, horizon_blocks: float) -> int:
    """Mean number of blocks in a row: at least the horizon, four blocks, and a twentieth of the history.

    Examples
    --------
    >>> mean_length(52, 1), mean_length(313, 1), mean_length(52, 8.5)
    (4, 16, 9)
    """
    return max(FEWEST_IN_A_ROW, math.ceil(horizon_blocks), math.ceil(n_blocks / SEGMENTS))


def draws(n_blocks: int, length: int, mean: float, replications: int, seed: int) -> Iterator[Int]:
    """Resampled histories, as indices of blocks, in chunks of replications.

    The same arguments give the same indices for any chunk size. Every block is equally likely: the first block follows
    the last.

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
    at_once = max(1, CHUNK_SIZE // length)
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
        Sums over any resampled history must stay below 2⁵³: float64 holds these whole numbers exactly, in any order of
        addition.
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
    """Refuse a level whose tails hold less than one of the replications."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence:g}")
    if round((1 - confidence) / 2 * replications, 9) < 1:
        needed = math.ceil(round(2 / (1 - confidence), 6))
        raise ConfigError(
            f"confidence {confidence:g} needs {needed:,} replications of the bootstrap or more; "
            f"statistics.replications is {replications:,}"
        )
