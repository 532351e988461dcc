"""Plain walks in Numba: what one writes in an afternoon, and the best one can do without another idea."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@numba.njit(nogil=True, error_model="numpy")
def every_bar(low: Float, close: Float, entries: Int, horizon: int, distance: Float) -> NDArray[np.bool_]:
    """Whether each entry dies at each leverage: three loops, every bar looked at.

    low, close : (n_bars,); entries : (n_entries,) bars; distance : (n_leverages,) of the level, share of the close.
    Returns (n_entries, n_leverages).
    """
    dead = np.zeros((entries.size, distance.size), np.bool_)
    for j in range(entries.size):
        for k in range(distance.size):
            level = close[entries[j]] * (1 - distance[k])
            for t in range(entries[j] + 1, entries[j] + horizon + 1):
                dead[j, k] |= low[t] <= level
    return dead


@numba.njit(nogil=True, error_model="numpy")
def one_pass(low: Float, close: Float, entries: Int, horizon: int, distance: Float) -> NDArray[np.int32]:
    """Bars to the liquidation, 0 where there is none: one pass for all leverages, which ends when none is left.

    As `every_bar`; distance descending, so that the last leverage dies first.
    """
    bars = np.zeros((entries.size, distance.size), np.int32)
    for j in range(entries.size):
        k = distance.size - 1
        level = close[entries[j]] * (1 - distance[k])
        for t in range(entries[j] + 1, entries[j] + horizon + 1):
            if low[t] > level:
                continue
            while k >= 0 and low[t] <= close[entries[j]] * (1 - distance[k]):
                bars[j, k] = t - entries[j]
                k -= 1
            if k < 0:
                break
            level = close[entries[j]] * (1 - distance[k])
    return bars
