"""Convert Arrow arrays to numpy and back through their buffers: ``.to_numpy()`` would import pandas (0.4 s)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from backtest.arrays import Bool, Float, Int
from backtest.errors import DataError
from backtest.filesystem import Place, scrubbed

LATEST_MS = 7_258_118_400_000  # 2200-01-01: what lies beyond is a stamp in a wrong unit
_TICKS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}


@contextmanager
def arrow_errors(file: Place, kind: str = "Parquet") -> Iterator[None]:
    """Turn Arrow's errors about a damaged file into a DataError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = scrubbed(str(error).strip().split("\n")[0])
        raise DataError(f"{file}: not a readable {kind} file; truncated, or of another format ({reason})") from error


def to_arrow(values: Float) -> Any:
    """An Arrow array, null where NaN."""
    valid = ~np.isnan(values)
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.float64(), values.size, [bitmap, pa.py_buffer(np.ascontiguousarray(values))])


def times_to_arrow(times_ms: Int) -> Any:
    """UTC milliseconds as an Arrow timestamp array."""
    buffer = pa.py_buffer(np.ascontiguousarray(times_ms))
    return pa.Array.from_buffers(pa.timestamp("ms", "UTC"), times_ms.size, [None, buffer])


def to_floats(column: Any, where: str) -> tuple[Float, Bool]:
    """Values of an Arrow column of numbers, NaN where null, and a mask of the nulls, which tells null from NaN.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Integers, floats, decimals or nulls.
    where : str
        File and column, for the error.

    Raises
    ------
    DataError
        If the column does not hold numbers.
    """
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (is_number or pa.types.is_null(kind)):
        raise DataError(f"{where} must hold numbers; got {kind}")
    if kind != pa.float64():
        column = pc.cast(column, pa.float64(), safe=False)
    if column.num_chunks == 1 and not column.null_count:  # as it lies in Arrow's memory, read-only
        chunk = column.chunk(0)
        data = (
            np.frombuffer(chunk.buffers()[1], np.float64, len(chunk), 8 * chunk.offset) if len(chunk) else np.empty(0)
        )
        return data, np.zeros(len(chunk), np.bool_)
    values, null = _parts(column, np.float64)
    values[null] = np.nan
    return values, null


def to_times(column: Any, where: str, first_row: int = 0) -> Int:
    """UTC milliseconds of an Arrow timestamp column; one without a time zone is UTC.

    Raises
    ------
    DataError
        With the row, counted from `first_row`, if a time is null, not a whole number of milliseconds, or outside of
        the years 1970 … 2199 (a wrong unit).
    """
    ticks, null = _parts(column, np.int64)
    unit = column.type.unit
    if null.any():
        raise DataError(f"{where} must not be null; got null in row {first_row + int(np.argmax(null))}")
    times, per_ms = _TICKS[unit]
    for bad, rule in (
        (ticks % per_ms != 0, "be whole milliseconds"),
        ((ticks < 0) | (ticks >= LATEST_MS // times * per_ms), "lie in the years 1970 … 2199 (is the unit right?)"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{where} must {rule}; got {np.datetime64(int(ticks[row]), unit)} in row {first_row + row}")
    return ticks * times // per_ms


def null_mask(column: Any) -> Bool:
    """Mask of the nulls of an Arrow timestamp column."""
    return _parts(column, np.int64)[1]


def _parts(column: Any, kind: type[np.float64] | type[np.int64]) -> tuple[NDArray[Any], Bool]:
    """Raw values (anything where null) and the null mask of a chunked column of 8-byte values."""
    values = np.empty(len(column), dtype=kind)
    null = np.zeros(len(column), dtype=np.bool_)
    done = 0
    for chunk in column.chunks:
        here = slice(done, done + len(chunk))
        done += len(chunk)
        bitmap, data = chunk.buffers()
        if data is not None and len(chunk):
            values[here] = np.frombuffer(data, dtype=kind, count=len(chunk), offset=8 * chunk.offset)
        if bitmap is not None and chunk.null_count:
            bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
            null[here] = bits[chunk.offset : chunk.offset + len(chunk)] == 0
    return values, null
