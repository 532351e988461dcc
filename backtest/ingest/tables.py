"""Columns of a user's Parquet or CSV file as times and numbers, each fault with its file, column, row and value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from backtest.arrow import LATEST_MS, Bool, Float, Int, arrow_errors, numbers_of, times_of
from backtest.errors import ConfigError, DataError
from backtest.units import duration_text, instant_ms, instant_text

TIME_NAMES = ("open_time", "timestamp", "time", "date", "datetime", "calc_time")
_UNITS = (  # name, size from which on it is meant (the same instant in each, in 1973), milliseconds as a fraction
    ("seconds", 10**8, 1000, 1),
    ("milliseconds", 10**11, 1, 1),
    ("microseconds", 10**14, 1, 1000),
    ("nanoseconds", 10**17, 1, 1_000_000),
)


@dataclass(frozen=True)
class SourceTable:
    """A file that was read: its columns as Arrow arrays (text where it is CSV), and their names as they stand there.

    Both by the name in lower case.
    """

    file: Path
    columns: dict[str, Any]
    names: dict[str, str]

    def choose(self, names: tuple[str, ...]) -> str:
        """The first of `names` that is there, in any case; DataError with what was found."""
        for name in names:
            if name.lower() in self.columns:
                return name.lower()
        found = ", ".join(self.names.values()) or "none"
        raise DataError(f"{self.file}: needs a column {' or '.join(names)}; found {found}")

    def where(self, name: str) -> str:
        """File and column, for messages."""
        return f"{self.file}: column {self.names[name]}"


def read_source(path: str | Path) -> SourceTable:
    """Read ``.parquet``, ``.csv`` or ``.csv.gz``.

    Raises
    ------
    ConfigError
        If there is no such file or its suffix is another.
    DataError
        If it is damaged, or two columns have one name.
    """
    file = Path(path)
    name = file.name.lower()
    if not file.is_file():
        raise ConfigError(f"{path} is no file")
    if name.endswith((".parquet", ".pq")):
        with arrow_errors(file), pq.ParquetFile(file) as opened:
            table = opened.read()
    elif name.endswith((".csv", ".csv.gz")):
        with arrow_errors(file, "CSV"):
            table = _read_csv(file)
    else:
        raise ConfigError(f"{path}: a source must end in .parquet, .csv or .csv.gz")
    keys = [column.strip().lower() for column in table.column_names]
    for key in keys:
        if keys.count(key) > 1:
            raise DataError(f"{file}: column {key} stands there twice; found {', '.join(table.column_names)}")
    return SourceTable(
        file, dict(zip(keys, table.columns, strict=True)), dict(zip(keys, table.column_names, strict=True))
    )


def _read_csv(file: Path) -> Any:
    # All as text: Arrow infers types from the first megabyte, and reads "nan" and "NULL" as null.
    with pcsv.open_csv(file) as head:
        names = head.schema.names
    options = pcsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    return pcsv.read_csv(file, convert_options=options)


def times(table: SourceTable) -> tuple[Int, str]:
    """UTC milliseconds of a file's time column, strictly ascending, and how they were read.

    Integers are seconds to nanoseconds by their size; text is ISO 8601, UTC where it has no offset.
    """
    name = table.choose(TIME_NAMES)
    where = table.where(name)
    column = table.columns[name]
    how = f"{table.file.name}: column {table.names[name]} read as "
    kind = column.type
    if _is_text(kind):
        column = _parsed_times(column, where)
        kind = column.type
    if pa.types.is_date(kind):
        column = pc.cast(column, pa.timestamp("ms"))
        kind = column.type
    if pa.types.is_timestamp(kind):
        stamps, how = times_of(column, where), how + "UTC timestamps"
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        stamps, unit = _from_numbers(column, where)
        how += f"{unit} since the epoch"
    else:
        raise DataError(f"{where} must hold times; got {kind}")
    steps = np.diff(stamps)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        rule = "must not repeat" if steps[row - 1] == 0 else "must ascend"
        raise DataError(f"{where} {rule}; got {instant_text(int(stamps[row]))} in row {row}; sort and de-duplicate")
    return stamps, how


def check_bars(table: SourceTable, stamps: Int, interval_ms: int) -> None:
    """Stamps of bars are their opens: multiples of the interval."""
    off = stamps % interval_ms != 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{table.where(table.choose(TIME_NAMES))} must hold bar opens, multiples of "
            f"{duration_text(interval_ms)} since the epoch; got {instant_text(int(stamps[row]))} in row {row}"
        )


def numbers(table: SourceTable, name: str) -> tuple[Float, Bool]:
    """Values of a column, NaN where null, and where it is null."""
    where = table.where(name)
    column = table.columns[name]
    if _is_text(column.type):
        column = _parsed_numbers(column, where)
    return numbers_of(column, where)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parsed_numbers(column: Any, where: str) -> Any:
    column = pc.utf8_trim_whitespace(column)
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            try:
                pc.cast(pa.scalar(value, pa.string()), pa.float64())
            except pa.ArrowInvalid:
                raise DataError(f"{where} must hold numbers; got {value!r} in row {row}") from None
        raise


def _parsed_times(column: Any, where: str) -> Any:
    """Text as numbers if all of it is, else as timestamps."""
    column = pc.utf8_trim_whitespace(column)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return pc.cast(column, kind)
        except pa.ArrowInvalid:
            continue
    stamps = []  # mixed or rarer forms, one by one
    for row, text in enumerate(column.to_pylist()):
        try:
            stamps.append(instant_ms(text or ""))
            whole = datetime.fromisoformat(text).microsecond % 1000 == 0
        except ConfigError:
            raise DataError(f"{where} must hold ISO 8601 times or integers; got {text!r} in row {row}") from None
        if not whole:
            raise DataError(f"{where} must be whole milliseconds; got {text!r} in row {row}")
    return pa.chunked_array([pa.array(stamps, pa.timestamp("ms", "UTC"))])


def _from_numbers(column: Any, where: str) -> tuple[Int, str]:
    """Milliseconds of numeric times, and their unit, which the first row decides for all."""
    if pa.types.is_floating(column.type):
        values, _ = numbers_of(column, where)
        bad = ~(np.abs(values) < 2**63) | (values != np.floor(values))
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{where} must hold ISO 8601 times or integers; got {values[row]} in row {row}")
    if column.null_count:
        row = int(np.argmax(numbers_of(column, where)[1]))
        raise DataError(f"{where} must not be null; got null in row {row}")
    ticks = _whole(column)
    size = np.searchsorted([unit[1] for unit in _UNITS], ticks, side="right") - 1
    name, _, times_, per_ms = _UNITS[max(0, int(size[0]))] if size.size else _UNITS[1]
    for bad, rule in (
        (size < 0, "be ISO 8601 or counted since 1970 in s, ms, µs or ns (this is too small)"),
        (size != size[:1], f"keep one unit, which is {name} in row 0"),
        (ticks % per_ms != 0, f"be whole milliseconds ({name} are read)"),
        (ticks >= LATEST_MS // times_ * per_ms, f"lie before the year 2200 ({name} are read)"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{where} must {rule}; got {ticks[row]} in row {row}")
    return ticks * times_ // per_ms, name


def _whole(column: Any) -> Int:
    """Integers of a column without nulls."""
    chunks = pc.cast(column, pa.int64()).chunks
    whole = [np.frombuffer(c.buffers()[1], np.int64, len(c), 8 * c.offset) for c in chunks if len(c)]
    return np.concatenate([np.empty(0, np.int64), *whole])
