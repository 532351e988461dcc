"""OKX: candlestick and swap-rate archives, and answers of the v5 API (candles, mark-price candles, funding history)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backtest.errors import DataError
from backtest.ingest.columns import SourceTable, read_csv
from backtest.ingest.files import content
from backtest.ingest.formats.instrument import api_reading, drop_unfinished, only_instrument
from backtest.ingest.importer import Format
from backtest.ingest.json_files import SUFFIXES as JSON
from backtest.ingest.json_files import json_rows, load, table_of_rows
from backtest.ingest.options import Kind, Request

SUFFIXES = (".csv", ".csv.gz", ".zip", *JSON)
CANDLES = ("time", "open", "high", "low", "close", "vol", "volume", "vol_quote", "confirm")
MARKS = ("time", "open", "high", "low", "close", "confirm")
CHARGES = ("fundingTime", "fundingRate", "realizedRate", "instId")
REALISED = ("real_funding_rate", "realizedrate")
"""What was charged; ``funding_rate`` beside it is the forecast of the next charge."""


def open_table(file: Path, kind: Kind, request: Request) -> SourceTable:
    """One file of OKX."""
    table = _answer(file, kind, request) if file.name.lower().endswith(JSON) else _archive(file, kind, request)
    for column in ("instid", "instrument_name"):
        if column in table.columns:
            table = only_instrument(table, column, request)
    if kind == "funding":
        return _realised(table)
    return drop_unfinished(table, "confirm") if "confirm" in table.columns else table


def _answer(file: Path, kind: Kind, request: Request) -> SourceTable:
    rows = json_rows(file, load(file))
    reading = api_reading(request.reading)
    if kind == "funding":
        return table_of_rows(file, rows, CHARGES, 2, kind, replace(reading, columns={"time": "fundingTime"}))
    short = bool(rows) and isinstance(rows[0], list) and len(rows[0]) == len(MARKS)
    return table_of_rows(file, rows, MARKS if short else CANDLES, 5, kind, reading)


def _archive(file: Path, kind: Kind, request: Request) -> SourceTable:
    """CSV whose header may be of another encoding, and bears a second name after ``/``."""
    data = content(file)
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        data = data.decode("gbk", "replace").encode()
    head, end, body = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    names = [name.partition("/")[0].strip().lower() for name in head.decode().strip("\r").split(",")]
    if "instrument_name" not in names:
        raise DataError(f"{file}: must have a header with instrument_name, as archives of OKX do; got {head[:80]!r}")
    renamed = ["volume" if name == "vol_ccy" else name for name in names]
    text = ",".join(renamed).encode() + end + body.replace(b",None", b",")
    reading = api_reading(request.reading)
    if kind == "funding":
        reading = replace(reading, columns={"time": "funding_time"})
    return read_csv(file, text, kind, replace(reading, header=True))


def _realised(table: SourceTable) -> SourceTable:
    """The rate that was charged."""
    name = next((name for name in REALISED if name in table.columns), None)
    if name is None:
        return replace(table, notes=(*table.notes, "has one rate only, which is taken for the one that was charged"))
    return replace(
        table,
        reading=replace(table.reading, columns={**table.reading.columns, "rate": name}),
        notes=(*table.notes, f"{table.names[name]} is what was charged"),
    )


FORMAT = Format(open_table, SUFFIXES)
