"""Bybit: ``kline_for_metatrader4`` archives, and answers of the v5 API (kline, mark-price-kline, funding history)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backtest.errors import ConfigError
from backtest.ingest.columns import SourceTable, read_csv
from backtest.ingest.files import content, inner_name
from backtest.ingest.formats.instrument import api_reading, check_instrument, only_instrument
from backtest.ingest.importer import Format
from backtest.ingest.json_files import SUFFIXES as JSON
from backtest.ingest.json_files import json_rows, load, table_of_rows
from backtest.ingest.options import Kind, Request

SUFFIXES = (".csv", ".csv.gz", ".zip", *JSON)
BARS = ("time", "open", "high", "low", "close", "volume", "turnover")
CHARGES = ("fundingRateTimestamp", "fundingRate", "symbol")


def open_table(file: Path, kind: Kind, request: Request) -> SourceTable:
    """One file of Bybit."""
    if file.name.lower().endswith(JSON):
        return _answer(file, kind, request)
    if kind == "funding" or not inner_name(file).endswith((".csv", ".zip")):
        raise ConfigError(f"{file}: {kind} of Bybit are read from {', '.join(JSON if kind == 'funding' else SUFFIXES)}")
    name = file.name.partition("_")
    if name[1] and name[0].isalnum() and name[0].isupper():
        check_instrument(name[0], file, request)
    # A reader who measured ten months found UTC+3 in all, another UTC; the files themselves do not say.
    reading = replace(
        request.reading,
        clocks=("UTC+3", "UTC"),
        pages=True,
        header=False,
        stamps=request.reading.stamps or "open",
        columns={},
    )
    return read_csv(file, content(file), kind, reading, BARS[:-1])


def _answer(file: Path, kind: Kind, request: Request) -> SourceTable:
    document = load(file)
    rows = json_rows(file, document)
    for page in document if isinstance(document, list) else [document]:
        result = page.get("result") if isinstance(page, dict) else None
        if isinstance(result, dict) and isinstance(result.get("symbol"), str) and result["symbol"]:
            check_instrument(result["symbol"], file, request)
    reading = api_reading(request.reading)
    if kind == "funding":
        table = table_of_rows(file, rows, CHARGES, 2, kind, replace(reading, columns={"time": "fundingRateTimestamp"}))
        return only_instrument(table, "symbol", request) if "symbol" in table.columns else table
    return table_of_rows(file, rows, BARS, 5, kind, reading)


FORMAT = Format(open_table, SUFFIXES)
