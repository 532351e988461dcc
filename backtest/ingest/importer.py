"""What importers share: files of each kind, opened the way of their source, merged into one dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backtest.errors import ConfigError
from backtest.filesystem import Place
from backtest.ingest.columns import SourceTable, equal_to, texts
from backtest.ingest.files import Sources, list_files
from backtest.ingest.merge import Imported, existing_choice, import_tables
from backtest.ingest.messages import Remarks
from backtest.ingest.options import Kind, Reading
from backtest.units import duration_ms

LISTED = 20


@dataclass(frozen=True)
class Asked:
    """What an import is asked for, as far as opening a file needs it.

    Attributes
    ----------
    symbol : str
        Its name in the dataset.
    interval_ms : int
    instrument : str or None
        Its name in the files; None where it is the symbol's but for marks such as ``/``, ``-`` and ``SWAP``.
    reading : Reading
        What the user said.
    """

    symbol: str
    interval_ms: int
    instrument: str | None
    reading: Reading


Open = Callable[[Path, Kind, Asked], SourceTable]
"""Reads one file of a source; its columns bear the names that `tables.NAMES` knows."""


def import_files(
    source: Open,
    suffixes: tuple[str, ...],
    symbol: str,
    interval: str,
    prices: Sources | None,
    mark: Sources | None = None,
    funding: Sources | None = None,
    *,
    out: str | Place,
    instrument: str | None = None,
    reading: Reading | None = None,
    add: bool = False,
    overwrite: bool = False,
    doubts: Sequence[str] = (),
) -> Imported:
    """Read the files of one symbol as `source` has them, and merge them into a dataset.

    Parameters
    ----------
    source : callable
        ``open_table`` of a module of `backtest.ingest`.
    suffixes : tuple of str
        Files that are taken from a folder.
    symbol, interval : str
    prices, mark, funding : str, Path or sequence of them
        Files, folders or patterns with ``*``.
    out : str or Path
        Dataset directory.
    instrument : str, optional
        Name of the symbol in the files, where they name it otherwise.
    reading : Reading, optional
        What is not to be detected.
    add, overwrite : bool
        Add to the symbol's bars of this interval, or replace them; without, they must not be there.
    doubts : sequence of str
        What finding the files showed, to be said among the warnings.

    Raises
    ------
    DataError
        With file, row (counted from 0, without a header), column, value and rule.
    ConfigError
        If a file does not exist or is of another kind, the symbol is in the dataset already, or the files do not tell
        what must be told: the option that does is named.
    """
    asked = Asked(symbol, duration_ms(interval), instrument, reading or Reading())
    remarks = Remarks()
    for doubt in doubts:
        remarks.warn(doubt)

    def tables(kind: Kind, sources: Sources | None) -> Iterator[SourceTable]:
        return (source(file, kind, asked) for file in list_files(sources, suffixes))

    return import_tables(
        symbol,
        interval,
        {"prices": tables("prices", prices), "mark": tables("mark", mark), "funding": tables("funding", funding)},
        out=out,
        existing=existing_choice(add, overwrite),
        remarks=remarks,
    )


def of_api(reading: Reading) -> Reading:
    """Pages of an API: bar opens, rows in any order."""
    return replace(reading, stamps=reading.stamps or "open", pages=True, columns={})


def check_instrument(name: str, file: Path, asked: Asked) -> None:
    """Refuse a file that says it is of another instrument."""
    if asked.instrument is not None:
        if name != asked.instrument:
            raise ConfigError(f"{file}: is of {name}, not of instrument {asked.instrument}")
    elif _bare(name) != _bare(asked.symbol):
        raise ConfigError(f"{file}: is of {name}; give --instrument {name} if that is to be called {asked.symbol}")


def only_instrument(table: SourceTable, column: str, asked: Asked) -> SourceTable:
    """The rows of the instrument where a file holds several."""
    names = sorted(set(texts(table, column)))
    found = [name for name in names if name == asked.instrument]
    if asked.instrument is None:
        found = [name for name in names if _bare(name) == _bare(asked.symbol)]
    if len(found) != 1:
        listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
        raise ConfigError(
            f"{table.file}: holds {listed}; give --instrument, which of them is {asked.instrument or asked.symbol}"
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
    """Without a newest bar that the source marks as still forming, ``0``; one that marks all so does not mean it."""
    forming = equal_to(table, column, "0")
    if not forming.any() or forming.all():
        return table
    kept = replace(table, notes=(*table.notes, f"{int(forming.sum())} bars that were still forming are left out"))
    return kept.take(np.logical_not(forming))
