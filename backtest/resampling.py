"""Coarser bars from finer ones, exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backtest.errors import ConfigError
from backtest.history import PriceHistory
from backtest.units import duration_ms, duration_text

Float = NDArray[np.float64]


def resample(history: PriceHistory, interval: str) -> PriceHistory:
    """The same history in bars of another length.

    A bar is made of the finer bars inside it: first open, highest high, lowest low, last close, of those that are
    known; funding rates and volumes add up, the largest maintenance scale counts. A bar at either end that the history
    does not cover whole is left out.

    Parameters
    ----------
    history : PriceHistory
    interval : str
        A multiple of the history's, such as ``"1h"``.

    Raises
    ------
    ConfigError
        If it is not a multiple, or longer than the history.

    Examples
    --------
    >>> price = np.array([1.0, 2.0, 3.0, 4.0])
    >>> minutes = PriceHistory("COIN", 60_000, 0, {"high": price, "low": price, "close": price})
    >>> resample(minutes, "2m").columns["high"].tolist()
    [2.0, 4.0]
    """
    wanted = duration_ms(interval)
    if wanted % history.interval_ms:
        bars = duration_text(history.interval_ms)
        raise ConfigError(f"interval must be a multiple of the history's {bars}; got {interval!r}")
    size = wanted // history.interval_ms
    skipped = -(history.start_ms // history.interval_ms) % size
    count = (history.n_bars - skipped) // size
    if count < 1:
        raise ConfigError(f"interval {interval!r} is longer than the history of {history.n_bars} bars")
    parts = {
        name: values[skipped : skipped + count * size].reshape(count, size) for name, values in history.columns.items()
    }
    columns = {name: _merged(name, values) for name, values in parts.items()}
    before = dict(history.before)
    for name in ("close", "mark_close"):
        lost = history.columns.get(name, np.empty(0))[:skipped]
        known = lost[~np.isnan(lost)]
        if known.size:
            before[name] = float(known[-1])
    start = history.start_ms + skipped * history.interval_ms
    return PriceHistory(history.symbol, wanted, start, columns, before, history.series)


def _merged(name: str, values: Float) -> Float:
    """One column of (n_bars, bars inside); NaN where none inside is known."""
    known = ~np.isnan(values)
    any_known = known.any(axis=1)
    if name.endswith("high") or name == "maintenance_scale":
        if name == "maintenance_scale":
            values, any_known = np.where(known, values, 1.0), np.ones(len(values), np.bool_)
        out = np.fmax.reduce(values, axis=1)
    elif name.endswith("low"):
        out = np.fmin.reduce(values, axis=1)
    elif name.endswith("open"):
        out = values[np.arange(len(values)), known.argmax(axis=1)]
    elif name.endswith("close"):
        out = values[np.arange(len(values)), values.shape[1] - 1 - known[:, ::-1].argmax(axis=1)]
    else:
        out = np.where(known, values, 0.0).sum(axis=1)
    return np.where(any_known, out, np.nan)
