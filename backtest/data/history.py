"""Price histories: bars of one symbol on a regular grid, checked once (docs/semantics.md §1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.errors import DataError
from backtest.units import duration_ms, duration_text, instant_text

if TYPE_CHECKING:
    import pandas as pd

Trigger = Literal["mark", "last"]

LAST = ("open", "high", "low", "close")
MARK = ("mark_open", "mark_high", "mark_low", "mark_close")
PRICES = LAST + MARK
OPTIONAL = ("funding_rate", "volume", "maintenance_scale")
COLUMNS = PRICES + OPTIONAL
MOST_SPARSE = 1000
"""Bars per row from which rows are taken for a mistake: the grid keeps a place for every missing bar."""


@dataclass(frozen=True, repr=False)
class PriceHistory:
    """Bars of one symbol, from the first to the last, every missing bar in its place.

    Attributes
    ----------
    symbol : str
    interval_ms : int
        Length Δ of a bar, milliseconds.
    start_ms : int
        Open time of bar 0, UTC milliseconds, a multiple of Δ since the epoch.
    columns : dict of str to (n_bars,) float64
        Some of `COLUMNS`; prices in quote per base, NaN where null. Read-only.
    before : dict of str to float
        The last known ``close`` and ``mark_close`` of the bars that the history was cut off from, where there are any.
    series : frozenset of str
        Which of ``"last"`` (a close), ``"mark"`` (any mark price) the whole history has, what was cut off included.

    Raises
    ------
    DataError
        If a price is not finite and > 0, a high lies below its low, or a bar is off the grid.

    Examples
    --------
    >>> import numpy as np
    >>> bars = {"high": np.array([11.0, 12.0]), "low": np.array([9.0, 8.0]), "close": np.array([10.0, 9.0])}
    >>> PriceHistory("BTCUSDT", 3_600_000, 0, bars).n_bars
    2
    """

    symbol: str
    interval_ms: int
    start_ms: int
    columns: dict[str, Float]
    before: dict[str, float] = field(default_factory=dict)
    series: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        last = self.start_ms + (self.n_bars - 1) * self.interval_ms
        held = ", ".join([*sorted(self.series), *(name for name in OPTIONAL if name in self.columns)])
        span = f"{instant_text(self.start_ms)} … {instant_text(last)}"
        return f"PriceHistory({self.symbol} {duration_text(self.interval_ms)}, {self.n_bars:,} bars, {span}, {held})"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(COLUMNS))
        if unknown:
            raise DataError(f"{self.symbol}: unknown column {unknown[0]!r}; a history has {', '.join(COLUMNS)}")
        if not self.columns or not self.n_bars:
            raise DataError(f"{self.symbol}: the history is empty")
        if self.interval_ms <= 0 or self.start_ms % self.interval_ms:
            raise DataError(
                f"{self.symbol}: open_time {instant_text(self.start_ms)} is not a multiple of the interval "
                f"{duration_text(self.interval_ms)} since the epoch"
            )
        for name, values in self.columns.items():
            frozen = np.ascontiguousarray(values, dtype=np.float64)
            if frozen.shape != (self.n_bars,):
                raise DataError(f"{self.symbol}: column {name} has shape {frozen.shape}, expected ({self.n_bars},)")
            frozen.setflags(write=False)
            self.columns[name] = frozen
            self._check_values(name, frozen)
        for prefix in ("", "mark_"):
            high, low = self.columns.get(prefix + "high"), self.columns.get(prefix + "low")
            if high is not None and low is not None:
                self._refuse(high < low, prefix + "high", f"lies below {prefix}low", high)
        found = {kind for kind, names in (("last", ("close",)), ("mark", MARK)) if self._any(names)}
        object.__setattr__(self, "series", frozenset(self.series | found))

    def _any(self, names: tuple[str, ...]) -> bool:
        return any(name in self.columns and not np.isnan(self.columns[name]).all() for name in names)

    def _check_values(self, name: str, values: Float) -> None:
        self._refuse(np.isinf(values), name, "must be finite", values)
        if name in PRICES:
            self._refuse(values <= 0, name, "must be > 0", values)
        elif name == "maintenance_scale":
            self._refuse(values < 0, name, "must be ≥ 0", values)

    def _refuse(self, bad: Bool, name: str, rule: str, values: Float) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            when = instant_text(self.start_ms + row * self.interval_ms)
            raise DataError(
                f"{self.symbol}: column {name} {rule}; got {values[row]:g} in the bar of {when}"
                f" ({int(bad.sum())} such bars)"
            )

    @property
    def n_bars(self) -> int:
        """Number of bars, missing ones included."""
        return len(next(iter(self.columns.values())))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, symbol: str, interval: str) -> PriceHistory:
        """A history from a DataFrame with an ``open_time`` column, or a DatetimeIndex of bar opens (NaN means null).

        Parameters
        ----------
        frame : pandas.DataFrame
            Some of `COLUMNS`, in the order of time; bars may be missing.
        symbol : str
        interval : str
            Length of a bar, such as ``"1h"``.
        """
        times = frame["open_time"] if "open_time" in frame else frame.index.to_series()
        if times.dtype.kind != "M":
            raise DataError(f"{symbol}: open_time must hold timestamps; got {times.dtype}")
        import pandas as pd

        stamps = pd.DatetimeIndex(times).tz_convert(None) if times.dt.tz else pd.DatetimeIndex(times)
        ns = stamps.as_unit("ns").asi8
        if (ns % 1_000_000).any():
            raise DataError(
                f"{symbol}: open_time must be whole milliseconds; row {int(np.argmax(ns % 1_000_000 != 0))}"
            )
        values = {str(n): frame[n].to_numpy(dtype=np.float64, copy=True) for n in frame.columns if n != "open_time"}
        return from_rows(symbol, duration_ms(interval), ns // 1_000_000, values)


def from_rows(
    symbol: str,
    interval_ms: int,
    open_time_ms: Int,
    columns: dict[str, Float],
    before: dict[str, float] | None = None,
    series: frozenset[str] = frozenset(),
) -> PriceHistory:
    """Lay rows out on the regular grid; bars between them are missing.

    Parameters
    ----------
    open_time_ms : (n_rows,) int64
        Strictly ascending multiples of `interval_ms`.
    columns : dict of str to (n_rows,) float64
        NaN where null.

    Raises
    ------
    DataError
        With the row, if times are unsorted, duplicated or off the grid.
    """
    if not open_time_ms.size:
        raise DataError(f"{symbol}: the history is empty")
    steps = np.diff(open_time_ms)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        word = "repeats" if steps[row - 1] == 0 else "goes back in time"
        raise DataError(
            f"{symbol}: open_time {word} in row {row}, {instant_text(open_time_ms[row])}; sort and de-duplicate"
        )
    off = open_time_ms % interval_ms != 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{symbol}: open_time {instant_text(open_time_ms[row])} in row {row} is not a multiple of the interval "
            f"{duration_text(interval_ms)} since the epoch"
        )
    start = int(open_time_ms[0])
    place = (open_time_ms - start) // interval_ms
    n_bars = int(place[-1]) + 1
    refuse_sparse(symbol, interval_ms, start, n_bars, place.size)
    if n_bars > place.size:
        columns = {name: spread(values, place, n_bars) for name, values in columns.items()}
    return PriceHistory(symbol, interval_ms, start, columns, dict(before or {}), series)


def refuse_sparse(symbol: str, interval_ms: int, start_ms: int, n_bars: int, n_rows: int) -> None:
    """A place is kept for every missing bar: rows as far apart as this are a mistake."""
    if n_bars > MOST_SPARSE * (n_rows + MOST_SPARSE):
        raise DataError(
            f"{symbol}: {n_rows:,} rows lie over {n_bars:,} bars of {duration_text(interval_ms)}, from "
            f"{instant_text(start_ms)}; is the interval right, or one time stamp wrong?"
        )


def spread(values: Float, place: Int, n_bars: int) -> Float:
    """Values in their places, NaN elsewhere."""
    out = np.full(n_bars, np.nan)
    out[place] = values
    return out
