"""Read and write the Parquet dataset: ``interval=1h/symbol=BTCUSDT/year=2021/*.parquet``, or one plain file."""

from __future__ import annotations

from backtest.data.files import SeriesName, existing, series_files, unchanged
from backtest.data.history import PriceHistory
from backtest.data.reader import SeriesFiles, open_series
from backtest.data.writer import adding
from backtest.errors import ConfigError
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
    return sorted(series_files(root)) if root.is_dir() else [SeriesFiles.plain(root).name]


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
    return unchanged(lambda: open_series(path, symbol, interval).history(low, high))


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
