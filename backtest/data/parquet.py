"""Files of a Parquet dataset: which there are, what their footers say, and one row group of one of them.

Rows are counted from 0 within their file, in messages too. Nothing here touches pandas or ``pyarrow.dataset``, whose
import costs more than most reads.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrays import Float, Int
from backtest.arrow import LATEST_MS, arrow_errors, to_floats, to_times
from backtest.data.object_store import in_force
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Changed, Place, Remote, opened, remote_errors, to_place
from backtest.units import duration_ms, duration_text, instant_text

TIME = "open_time"
_PER_MS = {"milliseconds": 1, "microseconds": 1_000, "nanoseconds": 1_000_000}


@dataclass(frozen=True, order=True)
class SeriesName:
    """What a dataset holds bars of: an interval as its folder names it (``"1h"``) and a symbol."""

    interval: str
    symbol: str


@dataclass(frozen=True)
class RowGroup:
    """One row group: its place in the file, and its first and last open_time in ms where the footer says."""

    index: int
    first_row: int
    rows: int
    span: tuple[int, int] | None


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says about itself: the arrow types of all its columns, and its row groups."""

    path: Place
    metadata: Any
    types: dict[str, Any]
    groups: tuple[RowGroup, ...]


def existing(path: str | Place) -> Place:
    """`path` as a place; ConfigError if there is nothing."""
    place = to_place(path)
    if not place.exists():
        raise ConfigError(
            f"{path} does not exist; data is a local directory or Parquet file, or a URI such as s3://bucket/data"
        )
    return place


def series_files(root: Place) -> dict[SeriesName, list[Place]]:
    """Parquet files per series below a dataset directory, or one ``interval=…`` or ``symbol=…`` directory of it."""
    folders = _folders(root)
    found: dict[SeriesName, list[Place]] = {}
    for folder, files in folders.items():
        interval, symbol = (unquote(part.partition("=")[2]) for part in (folder.parent.name, folder.name))
        try:
            duration_ms(interval)
        except ConfigError as error:
            raise DataError(f"{folder}: folder interval={interval}: {error}") from None
        if folder.name.startswith("."):
            symbol = symbol.removesuffix(OLD)
        found.setdefault(SeriesName(interval, symbol), []).extend(files)
    if not found:
        raise DataError(f"{root} holds no interval=…/symbol=…/year=…/*.parquet; see `backtest import`")
    return found


OLD = ".old"
"""``.symbol=X.old`` is the symbol while its writer, where no folders can be swapped, has moved it aside."""


def files_in(folder: Place) -> list[Place]:
    """Parquet files of a symbol's directory, ``DATA/interval=…/symbol=…``; none where it is not there."""
    if isinstance(folder, Path) and not folder.exists():
        return []
    return next(iter(_folders(folder).values()), [])


def _folders(root: Place) -> Mapping[Path, list[Place]] | Mapping[Remote, list[Place]]:
    """Parquet files that count, per symbol's directory below a root."""
    if isinstance(root, Remote):
        return _remote_folders(root)
    try:
        return _local_folders(root)
    except FileNotFoundError as error:
        raise Changed(f"{error.filename}: went away while the dataset was read; read it again") from None


def _local_folders(root: Path) -> dict[Path, list[Place]]:
    place, depth = root.absolute(), _depth(root.absolute())
    intervals = sorted(place.glob("interval=*")) if depth == 0 else [place]
    folders = [place] if depth == 2 else [folder for interval in intervals for folder in _symbols(interval)]
    found: dict[Path, list[Place]] = {}
    for folder in folders:
        files = _parquet_files(folder) or _parquet_files(folder)  # at first perhaps a state that is being removed
        if files:
            found[folder] = [root / file.relative_to(place) for file in files]
    return found


def _parquet_files(folder: Path) -> list[Path]:
    """In the order of names; where a folder goes away meanwhile this fails, as ``glob`` does not in every Python."""
    with os.scandir(folder) as entries:
        years = sorted(entry.path for entry in entries if entry.name.startswith("year=") and entry.is_dir())
    return [Path(year, name) for year in years for name in sorted(os.listdir(year)) if name.endswith(".parquet")]


def _symbols(interval: Path) -> list[Path]:
    """Directories of symbols; a listing during a renaming may lack both names, so two in a row must agree."""
    names, before = _symbol_names(interval), None
    while names != before:
        names, before = _symbol_names(interval), names
    aside = {name for name in names if name.startswith(".") and name[1:].removesuffix(OLD) in names}
    return [interval / name for name in sorted(names - aside)]


def _symbol_names(interval: Path) -> set[str]:
    return {n for n in os.listdir(interval) if n.startswith("symbol=") or (n[:8] == ".symbol=" and n.endswith(OLD))}


def _remote_folders(root: Remote) -> dict[Remote, list[Place]]:
    from concurrent.futures import ThreadPoolExecutor

    pattern = "/".join(("interval=[^/]+", "symbol=[^/]+", "year=[^/]+", r"[^/]+\.parquet")[_depth(root) :])
    listed: dict[Remote, list[Remote]] = {}
    for file in root.files():
        if re.fullmatch(pattern, file.below(root)):
            listed.setdefault(file.parent.parent, []).append(file)
    with ThreadPoolExecutor(16) as pool:  # one small file per symbol
        counted = pool.map(in_force, listed, listed.values())
        return {folder: list(files) for folder, files in zip(listed, counted, strict=True) if files}


def _depth(root: Place) -> int:
    return 2 if root.name.startswith(("symbol=", ".symbol=")) else 1 if root.name.startswith("interval=") else 0


def read_footer(file: Place) -> Footer:
    """Footer of a Parquet file with an open_time column; DataError naming the file if it is not one."""
    with _reading(file) as source, pq.ParquetFile(source) as parquet:
        metadata, schema = parquet.metadata, parquet.schema_arrow
    types = {field.name: field.type for field in schema}
    if len(types) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(f"{file}: column {twice} stands there twice")
    if TIME not in types:
        raise DataError(f"{file}: column {TIME} is missing; found {', '.join(types)}")
    if not pa.types.is_timestamp(types[TIME]):
        raise DataError(f"{file}: column {TIME} must hold timestamps in UTC; got {types[TIME]}")
    groups, first = [], 0
    for index in range(metadata.num_row_groups):
        rows = metadata.row_group(index).num_rows
        if rows:
            groups.append(RowGroup(index, first, rows, _span(metadata, index)))
        first += rows
    return Footer(file, metadata, types, tuple(groups))


def _span(metadata: Any, index: int) -> tuple[int, int] | None:
    chunk = find_chunk(metadata, index, TIME)
    if chunk is None or not chunk.is_stats_set or not chunk.statistics.has_min_max:
        return None
    # the footer's own unit: Arrow's may differ (it stores seconds as milliseconds)
    per_ms = _PER_MS.get(json.loads(chunk.statistics.logical_type.to_json()).get("timeUnit"))
    if per_ms is None:
        return None
    first, last = chunk.statistics.min_raw // per_ms, chunk.statistics.max_raw // per_ms  # .min would import pandas
    return (first, last) if first >= 0 and last < LATEST_MS else None  # else reading it says what is wrong


def find_chunk(metadata: Any, index: int, name: str) -> Any:
    """Footer entry of one column of one row group; None if it is not there."""
    group = metadata.row_group(index)
    return next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == name), None)


def read_group(footer: Footer, group: RowGroup, names: tuple[str, ...]) -> Any:
    """Arrow table of some columns of one row group: the only place that reads data."""
    remote = isinstance(footer.path, Remote)  # then columns are fetched together and not one by one
    with (
        _reading(footer.path) as source,
        pq.ParquetFile(source, metadata=footer.metadata, pre_buffer=remote) as parquet,
    ):
        return parquet.read_row_group(group.index, columns=list(names), use_threads=False)


@contextmanager
def _reading(file: Place) -> Iterator[Any]:
    """What Arrow reads a file from; what it says about the file is a DataError that names it."""
    answers = remote_errors(file) if isinstance(file, Remote) else nullcontext()
    try:
        with arrow_errors(file), answers, opened(file) as source:
            yield source
    except DataError:
        if file.exists():
            raise
        raise Changed(f"{file}: went away while the dataset was read; read it again") from None


def read_times(footer: Footer, group: RowGroup) -> Int:
    """(rows,) open_time of one row group, UTC milliseconds."""
    return times_in(footer, group, read_group(footer, group, (TIME,)))


def times_in(footer: Footer, group: RowGroup, table: Any) -> Int:
    """open_time of a row group that was read."""
    return to_times(table.column(TIME), _where(footer, TIME), group.first_row)


def check_order(footer: Footer, first_row: int, times: Int, previous: int | None) -> None:
    """Refuse times that do not ascend strictly, `previous` being the last one before the first row."""
    steps = np.diff(times, prepend=times[:1] - 1 if previous is None else previous)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0))
        word = "repeats the time before it" if steps[row] == 0 else "goes back in time"
        raise DataError(
            f"{footer.path}: column {TIME} {word} in row {first_row + row}, {instant_text(int(times[row]))}; "
            "sort and de-duplicate"
        )


def _where(footer: Footer, name: str) -> str:
    return f"{footer.path}: column {name}"


def check_grid(footer: Footer, group: RowGroup, times: Int, interval_ms: int) -> None:
    """Refuse times that are no multiples of the interval."""
    off = times % interval_ms != 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{footer.path}: column {TIME} must hold multiples of the interval {duration_text(interval_ms)} since the "
            f"epoch; got {instant_text(int(times[row]))} in row {group.first_row + row}"
        )


def read_finite(footer: Footer, group: RowGroup, table: Any, name: str) -> Float:
    """A column of a row group that was read, NaN where null; NaN and ±inf in the file are refused."""
    values, null = to_floats(table.column(name), _where(footer, name))
    finite = np.isfinite(values)
    if not finite.all() and (bad := ~(finite | null)).any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{footer.path}: column {name} must be finite or null; got {values[row]:g} in row {group.first_row + row}"
        )
    return values
