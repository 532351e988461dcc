"""JSON of exchanges and tools as columns: answers of an API with its envelope, lists of lists, lists of objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from backtest.errors import BacktestError, DataError
from backtest.ingest.columns import SourceTable, pick_columns
from backtest.ingest.files import content
from backtest.ingest.options import Kind, Reading

SUFFIXES = (".json", ".json.gz")
_SUCCESS = (("retCode", "retMsg"), ("code", "msg"))


def load(file: Path, error: type[BacktestError] = DataError) -> object:
    """Read a JSON document; an error of this type if it cannot be read, with the position of a syntax error."""

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(content(file).decode("utf-8-sig"), parse_constant=refuse)
    except OSError as cause:
        raise error(f"{file}: cannot be read: {cause.strerror or cause}") from cause
    except (ValueError, RecursionError) as cause:
        if isinstance(cause, DataError):
            raise
        raise error(f"{file}: is not JSON; cut off or damaged? ({cause})") from cause


def check_answer(file: Path, answer: Mapping[str, object], error: type[BacktestError] = DataError) -> None:
    """Refuse the answer of a request that failed."""
    for code, message in _SUCCESS:
        if str(answer.get(code, "0")) != "0":
            raise error(
                f"{file}: {code} must be 0, as of a request that succeeded; got {answer[code]!r} "
                f"({answer.get(message)})"
            )


def json_rows(file: Path, document: object) -> list[object]:
    """The rows of a document, without its envelope; the pages of a list are joined.

    Raises
    ------
    DataError
        If it is the answer of a request that failed, or holds no list.
    """
    if isinstance(document, list):
        pages = document and all(isinstance(one, dict) and ("result" in one or "data" in one) for one in document)
        return [row for page in document for row in json_rows(file, page)] if pages else document
    if isinstance(document, dict):
        check_answer(file, document)
        for key in ("result", "data", "list"):
            if isinstance(document.get(key), dict | list):
                return json_rows(file, document[key])
    raise DataError(f"{file}: must hold a list of rows; got {short_text(document)}")


def table_of_rows(
    file: Path, rows: Sequence[object], names: Sequence[str], needed: int, kind: Kind, reading: Reading
) -> SourceTable:
    """Columns of rows that are lists, in the order of `names`, or objects with these keys.

    The first `needed` must be in every row; the others are taken if all rows have them.
    """
    if not rows:
        raise DataError(f"{file}: there are no rows")
    lists = isinstance(rows[0], list)
    for number, row in enumerate(rows):
        if isinstance(row, list) != lists or not isinstance(row, list | dict):
            what = "a list" if lists else "an object"
            raise DataError(f"{file}: every row must be {what}; row {number} is {short_text(row)}")
        missing = len(row) < needed if lists else not set(names[:needed]) <= set(row)
        if missing:
            raise DataError(
                f"{file}: every row must have {', '.join(names[:needed])}; row {number} is {short_text(row)}"
            )
    if lists:
        width = min(len(row) for row in rows if isinstance(row, list))
        cells: Mapping[str, list[object]] = {
            name: [row[place] for row in rows if isinstance(row, list)] for place, name in enumerate(names[:width])
        }
    else:
        objects = [row for row in rows if isinstance(row, dict)]
        here = [name for name in names if all(name in row for row in objects)]
        cells = {name: [row[name] for row in objects] for name in here}
    columns = {name: _column(file, name, values) for name, values in cells.items()}
    return pick_columns(file, columns, kind, reading)


def _column(file: Path, name: str, values: list[object]) -> Any:
    """Numbers as numbers, texts as texts; a column is one of them."""
    texts = isinstance(next((value for value in values if value is not None), None), str)
    for row, value in enumerate(values):
        fits = isinstance(value, str) if texts else isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not fits:
            raise DataError(
                f"{file}: {name} must be {'text' if texts else 'a number'} as in the rows before; "
                f"got {short_text(value)} in row {row}"
            )
    try:
        whole = not texts and all(value is None or isinstance(value, int) for value in values)
        kind = pa.string() if texts else pa.int64() if whole else pa.float64()
        return pa.chunked_array([pa.array(values, kind)])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise DataError(f"{file}: {name} holds a value out of range ({error})") from error


def short_text(value: object) -> str:
    """A value for messages, cut at 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
