"""Read the columns of a CSV, Parquet or Feather file, and find which is which."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.feather as pf
import pyarrow.parquet as pq

from backtest.arrays import Bool, Float
from backtest.arrow import arrow_errors, to_floats
from backtest.errors import ConfigError, DataError
from backtest.ingest.files import CUT, content, inner_name
from backtest.ingest.options import Kind, Reading

SUFFIXES = (".parquet", ".pq", ".feather", ".csv", ".txt", ".csv.gz", ".txt.gz", ".zip")
TIME_NAMES = ("open_time", "timestamp", "time", "date", "datetime", "calc_time")
RATE_NAMES = ("funding_rate", "last_funding_rate", "fundingRate", "rate")
NAMES = {"time": TIME_NAMES, "rate": RATE_NAMES}
"""Usual names of a field, where they differ from its own."""


@dataclass(frozen=True)
class SourceTable:
    """A file that was read.

    `columns` are Arrow arrays (text if the file is CSV), `names` their names in the file; both by the name in lower
    case. `notes` and `warnings` are what reading it showed.
    """

    file: Path
    columns: dict[str, Any]
    names: dict[str, str]
    kind: Kind = "prices"
    reading: Reading = field(default_factory=Reading)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def find(self, name: str) -> str:
        """The column of a field: as the user named it, else by its usual names; DataError with what was found."""
        given = self.reading.named(self.kind, name)
        usual = NAMES.get(name, (name,))
        if given is None:
            return self.choose(usual)
        theirs, needed = given
        parts = [part.lower() for part in theirs.split("+")] if theirs.lower() not in self.columns else [theirs.lower()]
        if all(part in self.columns for part in parts):
            return self._joined(parts)
        if needed or not any(one.lower() in self.columns for one in usual):
            raise ConfigError(f"column {name}={theirs}: {self.file} has no such column; it has {self._found()}")
        return self.choose(usual)

    def choose(self, names: Sequence[str]) -> str:
        """The first of `names` that is there, in any case; DataError with what was found."""
        for name in names:
            if name.lower() in self.columns:
                return name.lower()
        raise DataError(
            f"{self.file}: needs a column {' or '.join(names)}; found {self._found()}; --column says which is which"
        )

    def has(self, name: str) -> bool:
        """Whether `find` finds it."""
        try:
            self.find(name)
        except DataError:
            return False
        return True

    def where(self, name: str) -> str:
        """File and column, for messages."""
        return f"{self.file}: column {self.names[name]}"

    def take(self, rows: Any) -> SourceTable:
        """The rows that a boolean array picks."""
        mask = pa.array(rows)
        return SourceTable(
            self.file,
            {name: pa.chunked_array([pc.filter(_whole(column), mask)]) for name, column in self.columns.items()},
            self.names,
            self.kind,
            self.reading,
            self.notes,
            self.warnings,
        )

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def _found(self) -> str:
        return ", ".join(self.names.values()) or "none"

    def _joined(self, parts: list[str]) -> str:
        """The key of one column, or of several texts as one."""
        if len(parts) == 1:
            return parts[0]
        key = "+".join(parts)
        if key not in self.columns:
            texts = [pc.cast(_whole(self.columns[part]), pa.string()) for part in parts]
            self.columns[key] = pa.chunked_array([pc.binary_join_element_wise(*texts, " ")])
            self.names[key] = "+".join(self.names[part] for part in parts)
        return key


def _whole(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def pick_columns(
    file: Path, columns: dict[str, Any], kind: Kind, reading: Reading, notes: Sequence[str] = (), warnings: Any = ()
) -> SourceTable:
    """Columns by their names as they stand in a file; DataError if two are one but for case and blanks."""
    names = list(columns)
    keys = [name.strip().lower() for name in names]
    for key in keys:
        if keys.count(key) > 1:
            raise DataError(f"{file}: column {key} occurs twice; found {', '.join(names)}")
    by_key = dict(zip(keys, columns.values(), strict=True))
    return SourceTable(file, by_key, dict(zip(keys, names, strict=True)), kind, reading, tuple(notes), tuple(warnings))


def read_source(path: str | Path, kind: Kind = "prices", reading: Reading | None = None) -> SourceTable:
    """Read Parquet, Feather or CSV, packed or not.

    Raises
    ------
    ConfigError
        If there is no such file, its suffix is another, or it does not tell which column is which.
    DataError
        If it is damaged, or two columns have one name.
    """
    file = Path(path)
    reading = reading or Reading()
    name = file.name.lower()
    if not file.is_file():
        raise ConfigError(f"{path} is no file")
    if name.endswith((".parquet", ".pq")):
        with arrow_errors(file), pq.ParquetFile(file) as opened:
            table = opened.read()
    elif name.endswith(".feather"):
        with arrow_errors(file, "Feather"):
            table = pf.read_table(file, memory_map=False)
            table.validate(full=True)
    elif inner_name(file).endswith((".csv", ".txt")) or name.endswith(".zip"):
        return read_csv(file, content(file), kind, reading)
    else:
        raise ConfigError(f"{path}: a source must end in {', '.join(SUFFIXES)}")
    _check_unique(file, table.column_names)
    return pick_columns(file, dict(zip(table.column_names, table.columns, strict=True)), kind, reading)


def _check_unique(file: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{file}: column {name.lower()} occurs twice; found {', '.join(names)}")


# --- CSV --------------------------------------------------------------------------------------------------------------


def read_csv(file: Path, data: bytes, kind: Kind, reading: Reading, names: Sequence[str] | None = None) -> SourceTable:
    """CSV text as columns of text; `names` are those of its columns where the source has no header row.

    Arrow would infer types from the first megabyte, and read "nan" and "NULL" as null.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not readable as UTF-16 ({error.reason})") from error
    first = data.lstrip(b"\xef\xbb\xbf\r\n").split(b"\n", 1)[0].decode("utf-8", "replace").strip("\r")
    separator = reading.separator or _separator(first)
    cells = [cell.strip().strip('"') for cell in first.split(separator)]
    header = reading.header
    if header is None:
        header = not _is_row(cells, reading.decimal)
    notes = [] if separator == "," else [f"columns are separated by {separator!r}"]
    if not header and names is None:
        names = [str(place + 1) for place in range(len(cells))]
        notes.append("the first row holds no names; columns are counted from 1")
        if reading.named(kind, "time") is None:
            raise ConfigError(
                f"{file}: has no header row; say which column is which, such as --column time=1 --column open=2 …; "
                f"its first row is {first[:120]}"
            )
    if not header and names is not None and len(cells) > len(names):
        names = [*names, *(str(place + 1) for place in range(len(names), len(cells)))]
    if not header and names is not None and len(cells) < len(names):
        names = names[: len(cells)]
    read = pcsv.ReadOptions(column_names=None if header else list(names or ()))
    with arrow_errors(file, "CSV"):
        parse = pcsv.ParseOptions(delimiter=separator)
        if header:
            with pcsv.open_csv(io.BytesIO(data), read_options=read, parse_options=parse) as head:
                names = head.schema.names
        assert names is not None
        convert = pcsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        table = pcsv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)
    _check_unique(file, table.column_names)
    warnings = [] if data[-1:] in (b"\n", b"\r") else [CUT]
    return pick_columns(file, dict(zip(table.column_names, table.columns, strict=True)), kind, reading, notes, warnings)


def _separator(line: str) -> str:
    counts = {mark: line.count(mark) for mark in ",;\t|"}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ","


def _is_row(cells: list[str], decimal: str) -> bool:
    """Whether most cells are numbers, as in no row of names."""
    number = re.compile(rf"[+-]?\d+(?:{re.escape(decimal)}\d*)?(?:[eE][+-]?\d+)?")
    return 2 * sum(number.fullmatch(cell) is not None for cell in cells) > len(cells)


# --- numbers ----------------------------------------------------------------------------------------------------------


def numbers(table: SourceTable, name: str) -> tuple[Float, Bool]:
    """Values of a column, NaN where null, and where it is null."""
    where = table.where(name)
    column = table.columns[name]
    if is_text(column.type):
        column = _parsed_numbers(column, where, table.reading.decimal)
    return to_floats(column, where)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parsed_numbers(column: Any, where: str, decimal: str) -> Any:
    column = pc.utf8_trim_whitespace(column)
    if decimal != ".":
        column = pc.replace_substring(column, decimal, ".")
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            try:
                pc.cast(pa.scalar(value, pa.string()), pa.float64())
            except pa.ArrowInvalid:
                raise DataError(f"{where} must hold numbers; got {value!r} in row {row}") from None
        raise


def texts(table: SourceTable, name: str) -> list[str]:
    """A column as text, null as the empty one."""
    return ["" if value is None else str(value) for value in table.columns[name].to_pylist()]


def equal_to(table: SourceTable, name: str, value: str) -> Bool:
    """Rows whose text is `value`."""
    column = pc.utf8_trim_whitespace(pc.cast(_whole(table.columns[name]), pa.string()))
    return np.asarray(pc.fill_null(pc.equal(column, value), False).to_pylist(), dtype=np.bool_)
