"""Realised volatility of a grid, and what follows it: leverage per entry, maintenance over time."""

from __future__ import annotations

import numpy as np

from backtest.arrays import Float
from backtest.config.policies import VolatilityScale, VolatilityTarget
from backtest.engine.bars import Grid
from backtest.errors import ConfigError
from backtest.units import duration_ms, duration_text

YEAR_MS = 365 * 86_400_000


def realised_volatility(close: Float, window_bars: int, interval_ms: int) -> Float:
    """Root mean square of the log returns of the last `window_bars` bars, per year.

    Parameters
    ----------
    close : (n_bars,) float64
        NaN where missing; a return needs both of its closes.
    window_bars : int
    interval_ms : int
        Length of a bar.

    Returns
    -------
    (n_bars,) float64
        NaN in the first `window_bars` bars and where less than half of the window's returns are known.

    Examples
    --------
    >>> close = np.array([100.0, 101.0, 100.0, 101.0])
    >>> realised_volatility(close, 2, 3_600_000).round(3).tolist()  # 0.995 % an hour, 8,760 of them
    [nan, nan, 0.931, 0.931]
    """
    square = np.square(np.diff(np.log(close), prepend=np.nan))
    known = ~np.isnan(square)
    total = np.cumsum(np.where(known, square, 0.0))
    count = np.cumsum(known)
    out = np.full(close.size, np.nan)
    if window_bars >= close.size:
        return out
    n = count[window_bars:] - count[:-window_bars]
    mean = np.maximum(total[window_bars:] - total[:-window_bars], 0.0) / np.maximum(n, 1)
    enough = (n > 0) & (2 * n >= window_bars)
    out[window_bars:] = np.where(enough, np.sqrt(mean * (YEAR_MS / interval_ms)), np.nan)
    return out


def window_bars(key: str, text: str, grid: Grid) -> int:
    """A window in bars; `key` names it in the error where it is not whole bars, or as long as the history."""
    bars, rest = divmod(duration_ms(text), grid.interval_ms)
    if rest:
        step = duration_text(grid.interval_ms)
        raise ConfigError(f"{key}: window must be a multiple of the bars' {step}; got {text!r}")
    if bars >= grid.n_bars:
        span = duration_text(grid.n_bars * grid.interval_ms)
        raise ConfigError(
            f"{key}: window must be shorter than the history of {grid.symbol}, {span} from first to last bar; "
            f"got {text!r}"
        )
    return bars


def volatility_weights(grid: Grid, target: VolatilityTarget) -> Float:
    """(n_bars,) weight of an entry at each bar; NaN where the volatility is not known (such a bar is no entry)."""
    if target.target is None or target.window is None:
        return np.ones(grid.n_bars)
    found = realised_volatility(grid.entry_price, window_bars("sweep.weight", target.window, grid), grid.interval_ms)
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(found), np.nan, np.minimum(target.cap, target.target / found))


def maintenance_scale(grid: Grid, rule: VolatilityScale) -> Float:
    """(n_bars,) multiplier of the maintenance margin, from the volatility known before each bar."""
    window = window_bars("margin.maintenance_scale", rule.window, grid)
    found = realised_volatility(grid.entry_price, window, grid.interval_ms)
    before = np.append(np.nan, found[:-1])
    raised = np.clip(before / rule.reference, 1.0, rule.cap)
    return np.where(np.isnan(raised), 1.0, raised) * (1.0 if grid.scale is None else grid.scale)
