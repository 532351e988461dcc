"""Hyperliquid: answers of ``candleSnapshot`` and ``fundingHistory``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from backtest.errors import ConfigError
from backtest.ingest.columns import SourceTable, texts
from backtest.ingest.formats.instrument import api_reading, only_instrument
from backtest.ingest.importer import Format
from backtest.ingest.json_files import SUFFIXES, json_rows, load, table_of_rows
from backtest.ingest.options import Kind, Request
from backtest.units import duration_ms, duration_text

CANDLE = ("t", "o", "h", "l", "c", "T", "v", "s", "i")
OURS = ("time", "open", "high", "low", "close", "close_time", "volume", "coin", "interval")
CHARGE = ("time", "fundingRate", "coin")


def open_table(file: Path, kind: Kind, request: Request) -> SourceTable:
    """One file of Hyperliquid; there are no mark prices in it, and funding was charged on the oracle price."""
    if not file.name.lower().endswith(SUFFIXES):
        raise ConfigError(f"{file}: files of Hyperliquid are read from {', '.join(SUFFIXES)}")
    rows = json_rows(file, load(file))
    reading = api_reading(request.reading)
    if kind == "funding":
        table = table_of_rows(file, rows, CHARGE, 2, kind, replace(reading, columns={}))
    else:
        ours = dict(zip(CANDLE, OURS, strict=True))
        renamed = [
            {ours[key]: value for key, value in row.items() if key in ours} if isinstance(row, dict) else row
            for row in rows
        ]
        table = table_of_rows(file, renamed, OURS, 5, kind, reading)
        if "interval" in table.columns:
            _check_interval(table, request)
    return only_instrument(table, "coin", request) if "coin" in table.columns else table


def _check_interval(table: SourceTable, request: Request) -> None:
    lengths = np.unique(texts(table, "interval"))
    for length in lengths:
        if length[-1:] == "M" or duration_ms(str(length)) != request.interval_ms:
            raise ConfigError(
                f"{table.file}: holds candles of {length}, not of --interval {duration_text(request.interval_ms)}"
            )


FORMAT = Format(open_table, SUFFIXES)
