"""Regimes: the label of each entry, and the stratum (calendar block and label) that it is counted in.

Labels hold what was known when the position was entered, except for the edges of quantiles, which are those of all
entries of the history: they describe the past, and would not have been known then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from backtest.arrays import Float, Int
from backtest.config.regimes import DEFAULT_QUANTILES, DRAWDOWN_EDGES, VOLATILITY_WINDOW, Regime
from backtest.config.trades_file import OPEN_END, parse_times, read_columns
from backtest.engine.bars import Grid
from backtest.engine.volatility import realised_volatility, window_bars
from backtest.errors import ConfigError
from backtest.units import MS_PER_UNIT, number_text

UNKNOWN = "unknown"
MOST_LABELS = 400
TIME_NAMES = ("entry_time", "open_time", "time", "timestamp", "date")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class RegimeLabels:
    """The strata of one regime, in the order of their blocks, then of their labels.

    Attributes
    ----------
    regime : str
    labels : tuple of str
    place : (n_entries,) int64
        Stratum of each entry.
    block, label : (n_strata,) int64
        Calendar block and number of the label of each stratum.
    trials : (n_labels, n_horizons) int64
        Independent trials that follow each other without overlap, each from an entry of the label on.
    """

    regime: str
    labels: tuple[str, ...]
    place: Int
    block: Int
    label: Int
    trials: Int


def label_entries(regime: Regime, grid: Grid, bars: Int, block: Int, trial_bars: Sequence[int]) -> RegimeLabels:
    """Label every entry of a symbol.

    Parameters
    ----------
    bars, block : (n_entries,) int64
        Bar and calendar block of each entry.
    trial_bars : sequence of int
        What an independent trial lasts, per horizon.

    Raises
    ------
    ConfigError
        If the column does not exist, or makes more than `MOST_LABELS` labels.
    """
    names, number = _labels(regime, grid, bars)
    if len(names) > MOST_LABELS:
        raise ConfigError(
            f"statistics.regimes: {regime.label!r} has {len(names):,} labels, more than {MOST_LABELS}; cut its numbers "
            "into quantiles or edges"
        )
    key, place = np.unique(block * len(names) + number, return_inverse=True)
    own = [bars[number == label] for label in range(len(names))]
    trials = np.array([[_apart(entered, length) for length in trial_bars] for entered in own], np.int64)
    return RegimeLabels(regime.label, names, place.astype(np.int64), key // len(names), key % len(names), trials)


def _apart(bars: Int, length: int) -> int:
    """How many entries can be taken so that each is `length` bars or more after the one before."""
    count, at = 0, 0
    while at < bars.size:
        count += 1
        at = int(np.searchsorted(bars, bars[at] + length))
    return count


def _labels(regime: Regime, grid: Grid, bars: Int) -> tuple[tuple[str, ...], Int]:
    """The labels in order, and the number of the label of each entry."""
    match regime.by:
        case "volatility":
            window = window_bars("statistics.regimes", regime.window or VOLATILITY_WINDOW, grid)
            return _bands(regime, realised_volatility(grid.entry_price, window, grid.interval_ms)[bars])
        case "funding":
            place = np.searchsorted(grid.charge_bar, bars, side="right") - 1  # -1: none so far
            return _bands(regime, np.append(grid.charge_rate, np.nan)[place])
        case "drawdown":
            return _bands(regime, _drawdown(regime, grid)[bars])
    entered_ms = grid.start_ms + (bars + 1) * grid.interval_ms
    return _from_file(regime, entered_ms) if regime.by == "column" else _of_time(regime, entered_ms)


def _of_time(regime: Regime, entered_ms: Int) -> tuple[tuple[str, ...], Int]:
    """Parts of the time of entry, UTC."""
    if regime.by == "hour":
        return tuple(f"{hour:02d}" for hour in range(24)), entered_ms // MS_PER_UNIT["h"] % 24
    if regime.by == "weekday":  # day 0 of the epoch was a Thursday
        return WEEKDAYS, (entered_ms // MS_PER_UNIT["d"] + 3) % 7
    return _named(np.datetime_as_string(entered_ms.astype("datetime64[ms]"), unit="Y" if regime.by == "year" else "M"))


def _named(texts: NDArray[np.str_]) -> tuple[tuple[str, ...], Int]:
    names, number = np.unique(texts, return_inverse=True)
    return tuple(str(name) for name in names), number.astype(np.int64)


def _drawdown(regime: Regime, grid: Grid) -> Float:
    """(n_bars,) how far the close lies below the highest one of the window, or of the past; NaN where none is known."""
    import pandas as pd

    close = pd.Series(grid.close).ffill()
    if regime.window is None:
        top = close.cummax()
    else:
        top = close.rolling(window_bars("statistics.regimes", regime.window, grid) + 1, min_periods=1).max()
    return np.asarray(1 - close / top, np.float64)


def _bands(regime: Regime, values: Float) -> tuple[tuple[str, ...], Int]:
    """Bands of numbers, ``(edge, next edge]``, lowest first; `UNKNOWN` last where a value is not known."""
    known = ~np.isnan(values)
    edges = regime.edges or (DRAWDOWN_EDGES if regime.by == "drawdown" and regime.quantiles is None else None)
    if edges is None:
        shares = np.arange(1, n := regime.quantiles or DEFAULT_QUANTILES) / n
        # Ties make fewer bands: one value is never in two of them.
        found = np.unique(np.quantile(values[known], shares, method="inverted_cdf")) if known.any() else np.empty(0)
        edges = tuple(found[found < values[known].max()].tolist()) if found.size else ()
    texts = [number_text(float(f"{edge:.4g}")) for edge in edges]
    if not texts:
        names = ["all"]
    else:
        inner = [f"{a} … {b}" for a, b in pairwise(texts)]
        names = [f"≤ {texts[0]}", *inner, f"> {texts[-1]}"]
    names = [f"{k + 1}: {name}" for k, name in enumerate(names)]
    number = np.where(known, np.searchsorted(np.array(edges), values, side="left"), len(names)).astype(np.int64)
    return (*names, *(() if known.all() else (UNKNOWN,))), number


def _from_file(regime: Regime, entered_ms: Int) -> tuple[tuple[str, ...], Int]:
    """A column of a file at each entry: that of its last row by then."""
    key = f"statistics.regimes: {regime.label!r}"
    path = Path(str(regime.file))
    table = read_columns(path, "labels")
    time = next((name for name in TIME_NAMES if name in table.column_names), None)
    for name, wanted in ((time, f"of times ({', '.join(TIME_NAMES)})"), (regime.column, repr(regime.column))):
        if name not in table.column_names:
            raise ConfigError(f"{key}: {path} needs a column {wanted}; found {', '.join(table.column_names)}")
    stamps = parse_times(str(path), table, str(time))
    if (stamps == OPEN_END).any():
        raise ConfigError(f"{key}: {path}: row {int(np.argmax(stamps == OPEN_END))}: {time} is missing")
    order = np.argsort(stamps, kind="stable")
    row = np.searchsorted(stamps[order], entered_ms, side="right") - 1  # -1: none by then, what is appended below
    column = table[regime.column].combine_chunks()
    whole = pa.types.is_integer(column.type)
    if pa.types.is_floating(column.type) or (whole and (regime.quantiles or regime.edges)):
        numbers = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)[order]
        return _bands(regime, np.append(numbers, np.nan)[row])
    texts = np.array([UNKNOWN if value is None else str(value) for value in column.to_pylist()])[order]
    return _named(np.append(texts, UNKNOWN)[row])
