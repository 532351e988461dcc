"""Simulated markets with clustered volatility, jumps and fat tails, and the block counts of every entry in them.

Hourly bars; a position opened at a close fails when a later low within its horizon lies a barrier below it (in logs).
Used by `interval_coverage`; a batch of markets depends on its seed only.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

DAY = 24
YEAR = 8766
BLOCK = 7 * DAY
HORIZONS = {"1h": 1, "8h": 8, "24h": DAY, "3d": 3 * DAY, "7d": 7 * DAY, "30d": 30 * DAY}
BATCH = 64
VOLATILITY = 0.6
"""Annual volatility, jumps aside, of a median hour."""
KINDS = ("smooth", "shaken", "switching")


def logs(rng: np.random.Generator, kind: str, half_life: float, n_paths: int, n_bars: int) -> tuple[Float, Float]:
    """Log closes and lows of `n_paths` markets, (n_paths, n_bars).

    ``smooth``: log volatility is an AR(1) of the half-life (in days), standard deviation 0.5; four jumps a year.
    ``shaken``: half of the variance of log volatility is an AR(1) of 6 hours, and a jump (six a year) raises the slow
    one by 0.7. ``switching``: two states, volatility 1 and 3, a fifth of the time in the higher, no other memory.
    """
    bars = half_life * DAY
    size = (n_paths, n_bars)
    jumps = rng.random(size) < {"smooth": 4, "shaken": 6, "switching": 2}[kind] / YEAR
    if kind == "switching":
        high = np.empty(size, np.bool_)
        _switch(rng.random((n_paths, n_bars)), 1 - 0.5 ** (1 / bars), 0.2, high)
        volatility = np.where(high, 3.0, 1.0)
    else:
        spread = 0.5 if kind == "smooth" else 0.4
        kick = np.where(jumps, 0.0 if kind == "smooth" else 0.7, 0.0)
        log = _ar1(rng, size, bars, spread, kick)
        if kind == "shaken":
            log += _ar1(rng, size, 6.0, spread, np.zeros(size))
        volatility = np.exp(log)
    volatility *= VOLATILITY / math.sqrt(YEAR)
    fat = np.sqrt(2 / rng.standard_gamma(2.0, size) / 2)  # Student t with 4 degrees of freedom, of unit variance
    steps = volatility * rng.standard_normal(size) * fat
    steps += jumps * rng.choice([-1.0, 1.0], size, p=[0.6, 0.4]) * 0.06 * np.exp(0.5 * rng.standard_normal(size))
    close = np.cumsum(steps, axis=1)
    before = close - steps
    reach = (steps / 2) ** 2 + volatility**2 / 2 * rng.standard_exponential(size)  # low of a Brownian bridge
    return close, (before + close) / 2 - np.sqrt(reach)


def _ar1(rng: np.random.Generator, size: tuple[int, int], bars: float, spread: float, kick: Float) -> Float:
    from scipy.signal import lfilter

    decay = 0.5 ** (1 / bars)
    noise = rng.standard_normal(size) * spread * math.sqrt(1 - decay**2) + kick
    noise[:, 0] = rng.standard_normal(size[0]) * spread
    if kick.any():  # start with the mean of what earlier jumps left
        noise[:, 0] += kick.mean() / (1 - decay)
    return np.asarray(lfilter([1.0], [1.0, -decay], noise, axis=1), dtype=np.float64)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _switch(draws, rate, share, high):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Two states forgotten at `rate` per bar; `share` of the time in the higher."""
    for path in range(draws.shape[0]):
        state = draws[path, 0] < share
        for bar in range(draws.shape[1]):
            if bar and draws[path, bar] < rate:  # forget, and draw anew
                state = draws[path, bar] < rate * share
            high[path, bar] = state


@njit(cache=True)  # type: ignore[untyped-decorator]
def _count(close, low, horizon, barriers, phase, survived):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add to survived[barrier, path, block] the entries whose window of `horizon` bars stays above the barrier."""
    n_paths, n_bars = close.shape
    queue = np.empty(n_bars, np.int64)
    for path in range(n_paths):
        head, tail = 0, 0
        for last in range(1, n_bars):
            while tail > head and low[path, queue[tail - 1]] >= low[path, last]:
                tail -= 1
            queue[tail] = last
            tail += 1
            entry = last - horizon
            if entry < 0:
                continue
            while queue[head] <= entry:
                head += 1
            fall = close[path, entry] - low[path, queue[head]]
            block = (entry + phase) // 168
            for k in range(barriers.size):
                if fall < barriers[k]:
                    survived[k, path, block] += 1


def entries_of(n_bars: int, horizon: int, phase: int) -> Int:
    """Entries per block: every bar whose window lies inside the grid."""
    return np.bincount((np.arange(n_bars - horizon) + phase) // BLOCK)


def falls(kind: str, half_life: float, seed: int) -> dict[str, Float]:
    """Largest falls after entries of long markets, by horizon, to take barriers from."""
    rng = np.random.default_rng([seed, 1])
    close, low = logs(rng, kind, half_life, 24, 6 * YEAR)
    out = {}
    for name, bars in HORIZONS.items():
        from scipy.ndimage import minimum_filter1d

        lowest = minimum_filter1d(low, bars, axis=1, mode="nearest", origin=-(bars // 2) if bars > 1 else 0)
        out[name] = (close[:, : -bars - 1] - lowest[:, 1:-bars]).ravel()
    return out


def simulate(
    kind: str, half_life: float, years: float, n_paths: int, levels: tuple[float, ...], seed: int
) -> dict[str, tuple[Int, Int]]:
    """Per horizon: entries (n_blocks,) and survived (n_levels, n_paths, n_blocks).

    The barriers are quantiles near `levels` of another, long simulation; the truth is the mean of `survived`.
    """
    n_bars, phase = round(years * YEAR), 60
    sample = falls(kind, half_life, seed)
    counts: dict[str, tuple[Int, Int]] = {}
    barriers: dict[str, Float] = {}
    for name, bars in HORIZONS.items():
        entries = entries_of(n_bars, bars, phase)
        barriers[name] = np.quantile(sample[name], levels)
        counts[name] = entries, np.zeros((len(levels), n_paths, entries.size), np.int64)
    rng = np.random.default_rng([seed, 2])
    for first in range(0, n_paths, BATCH):
        many = min(BATCH, n_paths - first)
        close, low = logs(rng, kind, half_life, many, n_bars)
        for name, bars in HORIZONS.items():
            _count(close, low, bars, barriers[name], phase, counts[name][1][:, first : first + many])
    return counts
