"""Parquet, Feather or CSV files of bars, mark prices and funding, as most tools write them."""

from __future__ import annotations

from pathlib import Path

from backtest.filesystem import Place
from backtest.ingest.columns import SUFFIXES, SourceTable, read_source
from backtest.ingest.importer import Format, import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Kind, Reading, Request, Sources, existing_choice


def open_table(file: Path, kind: Kind, request: Request) -> SourceTable:
    """One file of any tool."""
    return read_source(file, kind, request.reading)


FORMAT = Format(open_table, SUFFIXES)


def import_generic(
    symbol: str,
    interval: str,
    prices: Sources,
    mark: Sources | None = None,
    funding: Sources | None = None,
    *,
    out: str | Place,
    reading: Reading | None = None,
    add: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Merge files of one symbol into a dataset.

    Parameters
    ----------
    symbol : str
    interval : str
        Length of a bar, such as ``"1h"``.
    prices, mark : str, Path or sequence of them
        ``.parquet``, ``.feather``, ``.csv``, ``.txt`` (plain, ``.gz`` or ``.zip``), folders or patterns with ``*``. By
        name, or as `reading` says: a time column (open_time, timestamp, time, date, datetime or calc_time: the bar's
        open, UTC) and open, high, low, close; volume is taken from `prices` if there.
    funding : str, Path or sequence of them, optional
        Times and funding_rate, last_funding_rate, fundingRate or rate (fraction, positive: longs pay). A charge belongs
        to the bar that contains its stamp, to the millisecond.
    out : str or Path
        Dataset directory.
    reading : Reading, optional
        Columns, separator, units, zone and stamps where they are not to be detected.
    add, overwrite : bool
        Add to the symbol's bars of this interval, or replace them; without, they must not be there.

    Returns
    -------
    Imported
        With what was understood (`notes`) and what looks wrong (`warnings`).

    Raises
    ------
    DataError
        With file, row (counted from 0, without the header), column, value and rule.
    ConfigError
        If a file does not exist or is of another kind, the symbol is in the dataset already, or the files do not tell
        what must be told.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     csv = Path(folder, "bars.csv")
    ...     _ = csv.write_text("Date;o;h;l;c\\n01.01.2024 01:00;10;12;9;11\\n01.01.2024 02:00;11;13;10;12\\n")
    ...     names = {"time": "Date", "open": "o", "high": "h", "low": "l", "close": "c"}
    ...     how = Reading(columns=names, time_zone="UTC+1", stamps="open")
    ...     import_generic("BTCUSDT", "1h", csv, out=Path(folder, "data"), reading=how).span
    ('2024-01-01T00:00Z', '2024-01-01T01:00Z')
    """
    request = Request(symbol, interval, out, existing_choice(add, overwrite), reading=reading or Reading())
    return import_files(FORMAT, request, BarFiles(prices, mark, funding))
