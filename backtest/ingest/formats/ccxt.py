"""ccxt: what ``fetch_ohlcv``, ``fetch_mark_ohlcv`` and ``fetch_funding_rate_history`` return, saved as JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backtest.errors import ConfigError, DataError
from backtest.ingest.columns import SourceTable, texts
from backtest.ingest.formats.instrument import api_reading, only_instrument
from backtest.ingest.importer import Format
from backtest.ingest.json_files import SUFFIXES, json_rows, load, table_of_rows
from backtest.ingest.options import Kind, Request
from backtest.units import instant_ms

BARS = ("time", "open", "high", "low", "close", "volume")
CHARGES = ("timestamp", "fundingRate", "symbol", "datetime")


def open_table(file: Path, kind: Kind, request: Request) -> SourceTable:
    """One file of ccxt."""
    if not file.name.lower().endswith(SUFFIXES):
        raise ConfigError(f"{file}: files of ccxt are read from {', '.join(SUFFIXES)}")
    rows = json_rows(file, load(file))
    reading = api_reading(request.reading)
    if kind != "funding":
        return table_of_rows(file, rows, BARS, 5, kind, reading)
    table = table_of_rows(file, rows, CHARGES, 2, kind, replace(reading, columns={"time": "timestamp"}))
    if "datetime" in table.columns:
        _check_times(table)
    return only_instrument(table, "symbol", request) if "symbol" in table.columns else table


def _check_times(table: SourceTable) -> None:
    """Each row tells its time twice."""
    stamps = table.columns["timestamp"].to_pylist()
    for row, (text, stamp) in enumerate(zip(texts(table, "datetime"), stamps, strict=True)):
        try:
            same = not text or instant_ms(text) == stamp
        except ConfigError:
            same = False
        if not same:
            raise DataError(f"{table.file}: datetime must be the timestamp; got {text!r} and {stamp!r} in row {row}")


FORMAT = Format(open_table, SUFFIXES)
