"""Coarser bars from finer ones, exactly: of a history, or of a dataset year by year."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from backtest.arrays import Float
from backtest.data.dataset import list_series
from backtest.data.files import files_in, unchanged
from backtest.data.history import PriceHistory
from backtest.data.reader import SeriesFiles, open_series
from backtest.data.writer import Existing, adding, series_folder
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Changed, Place, to_place
from backtest.units import duration_ms, duration_text


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
        if name == "maintenance_scale":  # null is 1
            values = np.where(known, values, 1.0)
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


# --- of a dataset -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resampled:
    """One series that was written.

    Attributes
    ----------
    path : Path, or Remote in an object store
        Directory of the symbol in the dataset.
    symbol, interval : str
    rows : int
    span_ms : tuple of int
        Open times of the first and last bar, UTC milliseconds.
    """

    path: Place
    symbol: str
    interval: str
    rows: int
    span_ms: tuple[int, int]


def resample_dataset(
    data: str | Place,
    to: Sequence[str],
    out: str | Place,
    *,
    symbols: Sequence[str] | None = None,
    interval: str | None = None,
    existing: Existing = "refuse",
) -> Iterator[Resampled]:
    """Write the series of a dataset in bars of other lengths; a year of bars at a time is in memory.

    Everything the bars hold is carried along, as by `resample`: mark prices, funding, volumes.

    Parameters
    ----------
    data : str or Path
        Dataset.
    to : sequence of str
        Lengths of the bars, multiples of those there, such as ``["5m", "1h"]``.
    out : str or Path
        Dataset, which may be `data`.
    symbols : sequence of str, optional
        Default: all.
    interval : str, optional
        Which bars of `data` are taken, where it holds several.
    existing : {"refuse", "add", "replace", "anew"}
        What happens to a series that is there: see `backtest.data.writer.adding`.

    Yields
    ------
    Resampled
        Each series when it is written, one symbol after the other.

    Raises
    ------
    ConfigError
        Before anything is written, if a symbol or interval is not there or not a multiple, or is there in `out`
        already and `existing` is "refuse".
    """
    lengths = [duration_ms(text) for text in to]
    if len(set(lengths)) < len(lengths):
        raise ConfigError(f"--to holds one interval twice; got {', '.join(to)}")
    sources = _sources(data, symbols, interval)
    for source in sources:
        for text, wanted in zip(to, lengths, strict=True):
            step, symbol = source.interval_ms, source.symbol
            if wanted % step or wanted == step:
                raise ConfigError(
                    f"--to must be a multiple of the bars' {duration_text(step)} of {symbol}, and longer; got {text!r}"
                )
            folder = series_folder(to_place(out), symbol, wanted)
            if existing == "refuse" and files_in(folder):
                raise ConfigError(f"{folder} exists; take another --out, or ask for --add or --overwrite")
    for source in sources:
        symbol = source.symbol
        for wanted in lengths:
            with adding(out, symbol, wanted, existing) as addition:
                try:
                    for history in _years(source, wanted):
                        addition.add(resample(history, duration_text(wanted)))
                except Changed as error:
                    raise DataError(str(error)) from None
                if not addition.rows:
                    raise ConfigError(f"{symbol}: its history is shorter than a bar of {duration_text(wanted)}")
            yield Resampled(addition.path, symbol, duration_text(wanted), addition.rows, addition.span_ms)


def _sources(data: str | Place, symbols: Sequence[str] | None, interval: str | None) -> list[SeriesFiles]:
    """The series that are taken: of each symbol the interval asked for, or the finest."""
    found = list_series(data)
    asked = None if interval is None else duration_ms(interval)
    lengths: dict[str, list[int]] = {}
    for series in found:
        if asked in (None, length := duration_ms(series.interval)):
            lengths.setdefault(series.symbol, []).append(length)
    if not lengths:
        names = ", ".join(sorted({series.interval for series in found}, key=duration_ms))
        raise ConfigError(f"--interval must be one of those of {data}: {names}; got {interval!r}")
    for symbol in symbols or ():
        if symbol not in lengths:
            at = "" if interval is None else f" at {interval}"
            raise ConfigError(f"--symbol: {symbol!r} is not in {data}{at}; there are {', '.join(sorted(lengths))}")
    chosen = sorted(lengths) if symbols is None else list(dict.fromkeys(symbols))
    return [unchanged(partial(open_series, data, symbol, duration_text(min(lengths[symbol])))) for symbol in chosen]


def _years(source: SeriesFiles, wanted: int) -> Iterator[PriceHistory]:
    """The bars of each year, cut where a bar of the length wanted begins; years without rows are left out."""
    step = source.interval_ms
    low, end = (0, 0) if source.span is None else (source.span[0], source.span[1] + step)
    while low < end:
        year = np.datetime64(low, "ms").astype("datetime64[Y]") + 1
        high = min(end, -(-int(year.astype("datetime64[ms]").astype(np.int64)) // wanted) * wanted)
        times, rows = source.rows(low, high)
        if times.size and high - -(-low // wanted) * wanted >= wanted:  # a whole bar of the length wanted
            columns = {name: np.full((high - low) // step, np.nan) for name in rows}
            for name, values in rows.items():
                columns[name][(times - low) // step] = values
            yield PriceHistory(source.symbol, step, low, columns)
        low = high
