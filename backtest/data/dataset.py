"""Read and write the Parquet dataset: ``interval=1h/symbol=BTCUSDT/year=2021/*.parquet``, or one plain file."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from backtest.arrays import Float
from backtest.data.history import COLUMNS, MARK, PriceHistory
from backtest.data.parquet import (
    TIME,
    SeriesName,
    existing,
    find_chunk,
    read_finite,
    read_group,
    series_files,
    times_in,
)
from backtest.data.quality.row_rules import columns_rule
from backtest.data.reader import SeriesFiles, bars_between, open_plain, open_series, span_text, unchanged
from backtest.data.writer import adding
from backtest.errors import ConfigError, DataError, NoBars
from backtest.filesystem import Place
from backtest.units import instant_ms


def list_series(path: str | Place) -> list[SeriesName]:
    """What a dataset, a part of one or a plain Parquet file holds.

    Parameters
    ----------
    path : str or Path
        Directory ``DATA`` or Parquet file, local or at a URI such as ``s3://bucket/data``.

    Returns
    -------
    list of SeriesName
        Sorted by the text of interval and symbol.

    Raises
    ------
    ConfigError
        If there is no such path, or a plain file has one bar only.
    DataError
        If it holds no bars or cannot be read.
    """
    root = existing(path)
    return sorted(series_files(root)) if root.is_dir() else [open_plain(root, None, None).series]


def read_history(
    path: str | Place,
    symbol: str | None = None,
    interval: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> PriceHistory:
    """Bars of one symbol; only the row groups that the range needs are read.

    Parameters
    ----------
    path : str or Path
        Dataset directory or plain Parquet file, local or at a URI such as ``s3://bucket/data``.
    symbol, interval : str, optional
        Needed where the dataset holds several. A plain file takes any symbol (default: its stem); its interval is by
        default the smallest spacing of open_time.
    start, end : str, optional
        ISO 8601, UTC; start inclusive, end exclusive.

    Returns
    -------
    PriceHistory
        From the first to the last row in the range, missing bars in their place.

    Raises
    ------
    ConfigError
        If the symbol or interval is ambiguous (the choices are listed) or unknown.
    DataError
        If a file is unreadable, lacks a column, is unsorted or off the grid, or holds NaN or ±inf: with file, row and
        column; or if the range is empty.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> bars = {"high": np.array([11.0, 12.0]), "low": np.array([9.0, 8.0]), "close": np.array([10.0, 9.0])}
    >>> with tempfile.TemporaryDirectory() as data:
    ...     _ = write_history(PriceHistory("BTCUSDT", 3_600_000, 0, bars), data)
    ...     read_history(data, end="1970-01-01T01:00Z").columns["close"].tolist()
    [10.0]
    """
    low = None if start is None else instant_ms(start)
    high = None if end is None else instant_ms(end)
    if low is not None and high is not None and low >= high:
        raise ConfigError(f"start must lie before end; got {start} and {end}")
    return unchanged(lambda: _read(path, symbol, interval, low, high))


def _read(
    path: str | Place, symbol: str | None, interval: str | None, low: int | None, high: int | None
) -> PriceHistory:
    return history_from(open_series(path, symbol, interval), low, high, COLUMNS)


def history_from(source: SeriesFiles, low: int | None, high: int | None, wanted: Collection[str]) -> PriceHistory:
    """Some columns of the bars in ``[low, high)`` of a series that is open; NoBars if there are none."""
    file, symbol = source.footers[0].path, source.series.symbol
    lacking = columns_rule({name for footer in source.footers for name in footer.types} - {TIME})
    if lacking is not None:
        raise DataError(f"{file}: {lacking}")
    laid = bars_between(source, tuple(name for name in source.columns if name in wanted), low, high)
    if laid is None:
        raise NoBars(f"{file}: no bar in the range asked for; {span_text(source)}")
    start, columns = laid
    before = {} if low is None else _before(source, columns, low)
    try:
        return PriceHistory(symbol, source.interval_ms, start, columns, before, series_kinds(source))
    except DataError as error:
        where = file if len(source.footers) == 1 else file.parent.parent
        raise DataError(f"{where}: {error}; `backtest check {where}` names the rows") from None


def write_history(history: PriceHistory, out: str | Place, overwrite: bool = False) -> Place:
    """Write a symbol's year files, all or nothing; missing bars are left out.

    Parameters
    ----------
    history : PriceHistory
    out : str or Path
        Dataset directory, local or at a URI, created where needed.
    overwrite : bool
        Replace the symbol's bars of this interval if there are any.

    Returns
    -------
    Path, or Remote in an object store
        ``out/interval=…/symbol=…``, which `read_history` takes as well.

    Raises
    ------
    ConfigError
        If the symbol is there already and `overwrite` is not given, or symbol or interval cannot name a folder.
    DataError
        If no bar has any value.
    """
    with adding(out, history.symbol, history.interval_ms, "anew" if overwrite else "refuse") as addition:
        addition.add(history)
    return addition.path


def _before(source: SeriesFiles, columns: dict[str, Float], low: int) -> dict[str, float]:
    """Last known closes before the range, read only if a charge inside it may fall on them (rare)."""
    nothing = np.full(next(iter(columns.values())).size, np.nan)
    no_price = np.isnan(columns.get("mark_open", nothing)) & np.isnan(columns.get("open", nothing))
    charged = np.flatnonzero(no_price & ~np.isnan(columns.get("funding_rate", nothing)))
    found: dict[str, float] = {}
    for name in ("close", "mark_close"):
        known = np.flatnonzero(~np.isnan(columns.get(name, nothing)))
        if name in columns and charged.size and (not known.size or charged[0] <= known[0]):
            value = _last_value(source, name, low)
            if value is not None:
                found[name] = value
    return found


def _last_value(source: SeriesFiles, name: str, low: int) -> float | None:
    for footer in reversed(source.footers):
        for group in reversed(footer.groups):
            if name not in footer.types or (group.span and group.span[0] >= low):
                continue
            table = read_group(footer, group, (TIME, name))
            earlier = times_in(footer, group, table) < low
            known = np.flatnonzero(earlier & ~np.isnan(values := read_finite(footer, group, table, name)))
            if known.size:
                return float(values[known[-1]])
    return None


def series_kinds(source: SeriesFiles) -> frozenset[str]:
    """Which of "last", "mark" the whole history has: from the footers' null counts."""
    kinds = (("last", ("close",)), ("mark", MARK))
    return frozenset(kind for kind, names in kinds if any(has_value(source, name) for name in names))


def has_value(source: SeriesFiles, name: str) -> bool:
    """Whether any row of a series has a value in a column: from the footers' null counts."""
    for footer in source.footers:
        for group in footer.groups if name in footer.types else ():
            chunk = find_chunk(footer.metadata, group.index, name)
            if chunk is not None and chunk.is_stats_set and chunk.statistics.has_null_count:
                nulls = chunk.statistics.null_count
            else:  # a footer without statistics
                nulls = read_group(footer, group, (name,)).column(name).null_count
            if nulls < group.rows:
                return True
    return False
