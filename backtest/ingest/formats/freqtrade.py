"""freqtrade: the candles, mark prices and funding rates of its data folder, Feather, Parquet or JSON."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from backtest.data.writer import Existing
from backtest.errors import ConfigError
from backtest.filesystem import Place
from backtest.ingest.columns import SourceTable, read_source
from backtest.ingest.formats import ccxt
from backtest.ingest.importer import Format, import_files
from backtest.ingest.json_files import json_rows, load, table_of_rows
from backtest.ingest.merge import Imported
from backtest.ingest.messages import Notices
from backtest.ingest.options import BarFiles, Kind, Request, Sources
from backtest.units import duration_ms

SUFFIXES = (".feather", ".parquet", ".json", ".json.gz")
TYPES: dict[Kind, str] = {"prices": "futures", "mark": "mark", "funding": "funding_rate"}


def import_freqtrade(
    folder: str | Path | None,
    pair: str,
    interval: str,
    files: BarFiles | None = None,
    *,
    out: str | Place,
    symbol: str | None = None,
    existing: Existing = "refuse",
) -> Imported:
    """Merge what freqtrade downloaded of a pair into a dataset.

    Parameters
    ----------
    folder : str, Path or None
        ``user_data/data/<exchange>``; files of the pair are found by their names there and in ``futures``.
    pair : str
        As freqtrade calls it, such as ``"BTC/USDT:USDT"``.
    interval : str
    files : BarFiles, optional
        Files that take the place of those found.
    out : str or Path
        Dataset directory.
    symbol : str, optional
        Name in the dataset; default: the pair without its marks, ``"BTCUSDT"``.
    existing : {"refuse", "add", "replace", "anew"}
        What happens to bars of the symbol that are there: see `backtest.data.writer.adding`.

    Raises
    ------
    DataError, ConfigError
        As `backtest.ingest.importer.import_files`; ConfigError also if no candles are found, or several files of a
        kind.
    """
    files = files or BarFiles()
    found: dict[Kind, Sources | None] = {"prices": files.prices, "mark": files.mark, "funding": files.funding}
    notices = Notices()
    if folder is not None:
        if not Path(folder).is_dir():
            raise ConfigError(f"{folder} is no folder")
        for kind in [kind for kind, named in found.items() if named is None]:
            found[kind] = _find(Path(folder), pair, interval, kind, notices)
    if found["prices"] is None:
        raise ConfigError(
            f"{folder or 'prices'}: there are no candles of {pair} at {interval}"
            + (f"; files of the pair are {_listed(_named(Path(folder), pair))}" if folder else "")
        )
    name = symbol or re.sub(r"[^A-Z0-9]", "", pair.upper().partition(":")[0])
    request = Request(name, interval, out, existing)
    return import_files(FORMAT, request, BarFiles(found["prices"], found["mark"], found["funding"]), notices)


def open_table(file: Path, kind: Kind, request: Request) -> SourceTable:
    """One file of freqtrade; a funding rate is the ``open`` of its row."""
    reading = replace(request.reading, stamps=request.reading.stamps or "open", columns={"rate": "open"})
    if file.name.lower().endswith((".json", ".json.gz")):
        return table_of_rows(file, json_rows(file, load(file)), ccxt.BARS, 2 if kind == "funding" else 5, kind, reading)
    return read_source(file, kind, reading)


FORMAT = Format(open_table, SUFFIXES)


def _find(folder: Path, pair: str, interval: str, kind: Kind, notices: Notices) -> list[Path] | None:
    """The one file of a kind; candles and mark prices of the interval, funding of any."""
    named = _named(folder, pair)
    step = duration_ms(interval)
    of_kind = [(file, length, what) for file, length, what in named if what == TYPES[kind]]
    fits = [file for file, length, _ in of_kind if kind == "funding" or length == step]
    if kind == "prices" and not fits:
        fits = [file for file, length, what in named if not what and length == step]
        if fits and ":" in pair:
            notices.warn(f"{fits[0].name}: is of the spot market by its name; there are no candles of futures")
    if not fits:
        if of_kind:
            notices.warn(f"{kind} is there at another interval only and is not used: {_listed(of_kind)}")
        return None
    if len(fits) > 1:
        raise ConfigError(f"{folder}: holds more than one file for {kind}; name one with --{kind}: {_paths(fits)}")
    return fits


def _named(folder: Path, pair: str) -> list[tuple[Path, int, str]]:
    """Files of a pair: path, interval and type ("" where the name has none), by the new naming else the older one."""
    full = re.sub(r"[/ .@$+:]", "_", pair)
    for stem in dict.fromkeys((full, re.sub(r"[/ .@$+:]", "_", pair.partition(":")[0]))):
        form = re.compile(rf"{re.escape(stem)}-(\d+[smhdw])(?:-(\w+))?(?:{'|'.join(map(re.escape, SUFFIXES))})")
        matches = [
            (file, form.fullmatch(file.name))
            for place in (folder, folder / "futures")
            for file in (sorted(place.iterdir()) if place.is_dir() else ())
        ]
        found = [(file, duration_ms(match[1]), match[2] or "") for file, match in matches if match]
        if found:
            return found
    return []


def _listed(files: list[tuple[Path, int, str]]) -> str:
    return _paths([file for file, _, _ in files])


def _paths(files: list[Path]) -> str:
    return ", ".join(file.name for file in files) or "none"
