"""Which rows of a file are those of the instrument that is imported."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from backtest.errors import ConfigError
from backtest.ingest.columns import SourceTable, equal_to, texts
from backtest.ingest.options import Reading, Request

LISTED = 20


def api_reading(reading: Reading) -> Reading:
    """How pages of an API are read: times are bar opens, rows come in any order."""
    return replace(reading, stamps=reading.stamps or "open", pages=True, columns={})


def check_instrument(name: str, file: Path, request: Request) -> None:
    """Refuse a file that names another instrument."""
    if request.instrument is not None:
        if name != request.instrument:
            raise ConfigError(f"{file}: is of {name}, not of instrument {request.instrument}")
    elif _bare(name) != _bare(request.symbol):
        raise ConfigError(f"{file}: is of {name}; give --instrument {name} if that is to be called {request.symbol}")


def only_instrument(table: SourceTable, column: str, request: Request) -> SourceTable:
    """The rows of the instrument where a file holds several."""
    names = sorted(set(texts(table, column)))
    found = [name for name in names if name == request.instrument]
    if request.instrument is None:
        found = [name for name in names if _bare(name) == _bare(request.symbol)]
    if len(found) != 1:
        listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
        raise ConfigError(
            f"{table.file}: holds {listed}; give --instrument, which of them is {request.instrument or request.symbol}"
        )
    return table if len(names) == 1 else table.take(equal_to(table, column, found[0]))


def _bare(name: str) -> str:
    """``BTCUSDT`` of ``BTC-USDT-SWAP``, ``BTC/USDT:USDT`` and ``BTC_USDT_USDT``."""
    head = name.upper().partition(":")[0]
    parts = [part for part in re.split(r"[^A-Z0-9]+", head) if part not in ("", "SWAP", "PERP", "PERPETUAL")]
    if len(parts) == 3 and parts[1] == parts[2]:
        parts.pop()
    return "".join(parts)


def drop_unfinished(table: SourceTable, column: str) -> SourceTable:
    """Drop bars that the source marks as still forming (``0``); a mark on every bar is ignored."""
    forming = equal_to(table, column, "0")
    if not forming.any() or forming.all():
        return table
    kept = replace(table, notes=(*table.notes, f"{int(forming.sum())} bars that were still forming are left out"))
    return kept.take(np.logical_not(forming))
