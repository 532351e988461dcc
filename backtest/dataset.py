"""Files of a Parquet dataset: which there are, what their footers say, and one row group of one of them.

Rows are counted from 0 within their file, in messages too. Nothing here touches pandas or ``pyarrow.dataset``, whose
import costs more than most reads.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrow import LATEST_MS, Float, Int, arrow_errors, numbers_of, times_of
from backtest.errors import ConfigError, DataError
from backtest.units import duration_ms, duration_text, instant_text

TIME = "open_time"
_PER_MS = {"milliseconds": 1, "microseconds": 1_000, "nanoseconds": 1_000_000}


@dataclass(frozen=True, order=True)
class Series:
    """What a dataset holds bars of: an interval as its folder names it (``"1h"``) and a symbol."""

    interval: str
    symbol: str


@dataclass(frozen=True)
class Group:
    """One row group: its place in the file, and its first and last open_time in ms where the footer says."""

    index: int
    first_row: int
    rows: int
    span: tuple[int, int] | None


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says about itself: the arrow types of all its columns, and its row groups."""

    path: Path
    metadata: Any
    types: dict[str, Any]
    groups: tuple[Group, ...]


def existing(path: str | Path) -> Path:
    """`path` as a Path; ConfigError if there is nothing."""
    if not os.path.exists(path):
        raise ConfigError(f"{path} does not exist; data is a local directory or Parquet file")
    return Path(path)


def files_of(root: Path) -> dict[Series, list[Path]]:
    """Parquet files per series below a dataset directory, or one ``interval=…`` or ``symbol=…`` directory of it."""
    folder = root.absolute()
    depth = 2 if folder.name.startswith("symbol=") else 1 if folder.name.startswith("interval=") else 0
    pattern = "/".join(("interval=*", "symbol=*", "year=*", "*.parquet")[depth:])
    found: dict[Series, list[Path]] = {}
    for file in sorted(root.glob(pattern)):
        interval, symbol = (part.partition("=")[2] for part in file.absolute().parts[-4:-2])
        try:
            duration_ms(interval)
        except ConfigError as error:
            raise DataError(f"{file}: folder interval={interval}: {error}") from None
        found.setdefault(Series(interval, unquote(symbol)), []).append(file)
    if not found:
        raise DataError(f"{root} holds no interval=…/symbol=…/year=…/*.parquet; see `backtest import`")
    return found


def read_footer(file: Path) -> Footer:
    """Footer of a Parquet file with an open_time column; DataError naming the file if it is not one."""
    with arrow_errors(file), pq.ParquetFile(file) as opened:
        metadata, schema = opened.metadata, opened.schema_arrow
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
            groups.append(Group(index, first, rows, _span(metadata, index)))
        first += rows
    return Footer(file, metadata, types, tuple(groups))


def _span(metadata: Any, index: int) -> tuple[int, int] | None:
    chunk = chunk_of(metadata, index, TIME)
    if chunk is None or not chunk.is_stats_set or not chunk.statistics.has_min_max:
        return None
    # the footer's own unit: Arrow's may differ (it stores seconds as milliseconds)
    per_ms = _PER_MS.get(json.loads(chunk.statistics.logical_type.to_json()).get("timeUnit"))
    if per_ms is None:
        return None
    first, last = chunk.statistics.min_raw // per_ms, chunk.statistics.max_raw // per_ms  # .min would import pandas
    return (first, last) if first >= 0 and last < LATEST_MS else None  # else reading it says what is wrong


def chunk_of(metadata: Any, index: int, name: str) -> Any:
    """Footer entry of one column of one row group; None if it is not there."""
    group = metadata.row_group(index)
    return next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == name), None)


def read_group(footer: Footer, group: Group, names: tuple[str, ...]) -> Any:
    """Arrow table of some columns of one row group: the only place that reads data."""
    with arrow_errors(footer.path), pq.ParquetFile(footer.path, metadata=footer.metadata) as opened:
        return opened.read_row_group(group.index, columns=list(names))


def read_times(footer: Footer, group: Group) -> Int:
    """(rows,) open_time of one row group, UTC milliseconds."""
    return times_in(footer, group, read_group(footer, group, (TIME,)))


def times_in(footer: Footer, group: Group, table: Any) -> Int:
    """open_time of a row group that was read."""
    return times_of(table.column(TIME), _where(footer, TIME), group.first_row)


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


def check_grid(footer: Footer, group: Group, times: Int, interval_ms: int) -> None:
    """Refuse times that are no multiples of the interval."""
    off = times % interval_ms != 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{footer.path}: column {TIME} must hold multiples of the interval {duration_text(interval_ms)} since the "
            f"epoch; got {instant_text(int(times[row]))} in row {group.first_row + row}"
        )


def read_finite(footer: Footer, group: Group, table: Any, name: str) -> Float:
    """A column of a row group that was read, NaN where null; NaN and ±inf in the file are refused."""
    values, null = numbers_of(table.column(name), _where(footer, name))
    bad = ~(np.isfinite(values) | null)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{footer.path}: column {name} must be finite or null; got {values[row]:g} in row {group.first_row + row}"
        )
    return values
