"""Read bars from Parquet files: `BarFile` is one file, `SeriesFiles` all files of one series in the order of time.

Rows are counted from 0 within their file, in messages too. This module never touches pandas or ``pyarrow.dataset``:
their import takes longer than most reads.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrays import Float, Int
from backtest.arrow import LATEST_MS, arrow_errors, to_floats, to_times
from backtest.data.files import SeriesName, existing, refuse_changed, series_files
from backtest.data.history import COLUMNS, MARK, PriceHistory, refuse_sparse
from backtest.data.quality.row_rules import columns_rule
from backtest.errors import ConfigError, DataError, NoBars
from backtest.filesystem import Changed, Place, Remote, opened, remote_errors
from backtest.units import duration_ms, duration_text, instant_text

TIME = "open_time"
_PER_MS = {"milliseconds": 1, "microseconds": 1_000, "nanoseconds": 1_000_000}


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file.

    Attributes
    ----------
    index : int
    first_row : int
        Row of the file that it begins with.
    rows : int
    span : (int, int) or None
        First and last open_time, UTC milliseconds, where the footer has them.
    """

    index: int
    first_row: int
    rows: int
    span: tuple[int, int] | None


@dataclass(frozen=True)
class BarFile:
    """A Parquet file with bars: its footer, and how to read its row groups.

    Attributes
    ----------
    path : Place
    metadata : pyarrow.parquet.FileMetaData
    types : dict of str to pyarrow.DataType
        Arrow types of all its columns.
    groups : tuple of RowGroup
        Its row groups that have rows.
    """

    path: Place
    metadata: Any
    types: dict[str, Any]
    groups: tuple[RowGroup, ...]

    @classmethod
    def open(cls, file: Place) -> BarFile:
        """Read the footer; DataError naming the file if it is not Parquet or has no column open_time."""
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
                groups.append(RowGroup(index, first, rows, _footer_span(metadata, index)))
            first += rows
        return cls(file, metadata, types, tuple(groups))

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """First and last open_time, UTC ms; None without rows. Rows are read only where the footer has no times."""
        spans = [self.group_span(group) for group in self.groups]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def group_span(self, group: RowGroup) -> tuple[int, int]:
        """First and last open_time of a row group, UTC ms."""
        if group.span:
            return group.span
        times = self.read_times(group)
        return int(times.min()), int(times.max())

    def read(self, group: RowGroup, names: tuple[str, ...]) -> Any:
        """Arrow table of some columns of one row group: all bars are read here."""
        remote = isinstance(self.path, Remote)  # then columns are fetched together and not one by one
        with (
            _reading(self.path) as source,
            pq.ParquetFile(source, metadata=self.metadata, pre_buffer=remote) as parquet,
        ):
            return parquet.read_row_group(group.index, columns=list(names), use_threads=False)

    def read_times(self, group: RowGroup) -> Int:
        """(rows,) open_time of one row group, UTC milliseconds."""
        return self.times(group, self.read(group, (TIME,)))

    def times(self, group: RowGroup, table: Any) -> Int:
        """(rows,) open_time, UTC milliseconds, of a table that `read` returned."""
        return to_times(table.column(TIME), f"{self.path}: column {TIME}", group.first_row)

    def values(self, group: RowGroup, table: Any, name: str) -> Float:
        """(rows,) a column of a table that `read` returned, NaN where null; NaN and ±inf in the file are refused."""
        values, null = to_floats(table.column(name), f"{self.path}: column {name}")
        finite = np.isfinite(values)
        if not finite.all() and (bad := ~(finite | null)).any():
            row = int(np.argmax(bad))
            raise DataError(
                f"{self.path}: column {name} must be finite or null; got {values[row]:g} in row {group.first_row + row}"
            )
        return values

    def count_values(self, group: RowGroup, name: str) -> int:
        """Values of a column of a row group that are not null; rows are read only where the footer has no counts."""
        if name not in self.types:
            return 0
        chunk = _find_chunk(self.metadata, group.index, name)
        if chunk is not None and chunk.is_stats_set and chunk.statistics.has_null_count:
            return int(group.rows - chunk.statistics.null_count)
        return int(group.rows - self.read(group, (name,)).column(name).null_count)

    def check_order(self, first_row: int, times: Int, previous: int | None) -> None:
        """Refuse times that do not ascend strictly; `previous` is the last time before the first row."""
        steps = np.diff(times, prepend=times[:1] - 1 if previous is None else previous)
        if (steps <= 0).any():
            row = int(np.argmax(steps <= 0))
            word = "repeats the time before it" if steps[row] == 0 else "goes back in time"
            raise DataError(
                f"{self.path}: column {TIME} {word} in row {first_row + row}, {instant_text(int(times[row]))}; "
                "sort and de-duplicate"
            )

    def check_grid(self, group: RowGroup, times: Int, interval_ms: int) -> None:
        """Refuse times that are not multiples of the interval."""
        off = times % interval_ms != 0
        if off.any():
            row = int(np.argmax(off))
            raise DataError(
                f"{self.path}: column {TIME} must hold multiples of the interval {duration_text(interval_ms)} since "
                f"the epoch; got {instant_text(int(times[row]))} in row {group.first_row + row}"
            )


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, in the order of time.

    Attributes
    ----------
    name : SeriesName
    interval_ms : int
    files : tuple of BarFile
    """

    name: SeriesName
    interval_ms: int
    files: tuple[BarFile, ...]

    @classmethod
    def sort(cls, name: SeriesName, files: Collection[BarFile]) -> SeriesFiles:
        """The files of a series of a dataset, sorted by time."""
        return cls(name, duration_ms(name.interval), tuple(sorted(files, key=lambda file: file.span or (0, 0))))

    @classmethod
    def plain(cls, path: Place, symbol: str | None = None, interval: str | None = None) -> SeriesFiles:
        """One file that is no part of a dataset; its interval is by default the smallest distance of two times."""
        file = BarFile.open(path)
        step = duration_ms(interval) if interval is not None else _smallest_step(file)
        series = cls(SeriesName(interval or duration_text(step), symbol or path.stem), step, (file,))
        series.check_spans()
        return series

    @property
    def symbol(self) -> str:
        return self.name.symbol

    @property
    def columns(self) -> tuple[str, ...]:
        """Known columns that at least one file has."""
        return tuple(name for name in COLUMNS if any(name in file.types for file in self.files))

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """First and last open_time, UTC ms; None without rows."""
        spans = [file.span for file in self.files if file.span is not None]
        return (spans[0][0], spans[-1][1]) if spans else None

    @property
    def span_text(self) -> str:
        """Which time the series covers, for messages."""
        if self.span is None:
            return f"{self.symbol} has no bars"
        first, last = self.span[0], self.span[1] + self.interval_ms
        return f"{self.symbol} {self.name.interval} spans {instant_text(first)} … {instant_text(last)}"

    @property
    def kinds(self) -> frozenset[str]:
        """Which of "last", "mark" the whole series has."""
        kinds = (("last", ("close",)), ("mark", MARK))
        return frozenset(kind for kind, names in kinds if any(self.has_value(name) for name in names))

    def has_value(self, name: str) -> bool:
        """Whether any row has a value in a column."""
        return any(file.count_values(group, name) > 0 for file in self.files for group in file.groups)

    def check_spans(self) -> None:
        """Refuse row groups that do not follow each other in time; rows are read only to find the wrong one."""
        spans = [group.span for file in self.files for group in file.groups if group.span]
        if all(one[1] < two[0] for one, two in pairwise(spans)):
            return
        previous = None
        for file in self.files:
            for group in file.groups:
                times = file.read_times(group)
                file.check_order(group.first_row, times, previous)
                previous = int(times[-1])

    def history(self, low: int | None, high: int | None, wanted: Collection[str] = COLUMNS) -> PriceHistory:
        """Some columns of the bars in ``[low, high)``, UTC ms; NoBars if there are none."""
        path = self.files[0].path
        lacking = columns_rule({name for file in self.files for name in file.types} - {TIME})
        if lacking is not None:
            raise DataError(f"{path}: {lacking}")
        bars = self._bars(tuple(name for name in self.columns if name in wanted), low, high)
        if bars is None:
            raise NoBars(f"{path}: no bar in the range asked for; {self.span_text}")
        start, columns = bars
        before = {} if low is None else self._closes_before(columns, low)
        try:
            return PriceHistory(self.symbol, self.interval_ms, start, columns, before, self.kinds)
        except DataError as error:
            where = path if len(self.files) == 1 else path.parent.parent
            raise DataError(f"{where}: {error}; `backtest check {where}` names the rows") from None

    def rows(self, low: int, high: int) -> tuple[Int, dict[str, Float]]:
        """Times, UTC ms, and all columns of the rows in ``[low, high)``, without missing bars."""
        stamps: list[Int] = []
        pieces: dict[str, list[Float]] = {name: [] for name in self.columns}
        for times, columns in self._pieces(self.columns, low, high):
            stamps.append(times)
            for name, values in pieces.items():
                values.append(columns[name] if name in columns else np.full(times.size, np.nan))
        nothing = np.empty(0)
        return (
            np.concatenate([nothing.astype(np.int64), *stamps]),
            {name: np.concatenate([nothing, *pieces.pop(name)]) for name in self.columns},
        )

    def _bars(self, names: tuple[str, ...], low: int | None, high: int | None) -> tuple[int, dict[str, Float]] | None:
        """Open time of the first row in ``[low, high)``, and columns from it on, NaN where a bar is missing.

        Each row group is copied once, to its bars. None if there is no row.
        """
        step = self.interval_ms
        groups = [(file, group) for file in self.files for group in _groups(file, low, high)]
        if not groups:
            return None
        first_ms, last_ms = groups[0][0].group_span(groups[0][1])[0], groups[-1][0].group_span(groups[-1][1])[1]
        start = first_ms if low is None else max(low, first_ms)
        start, end = -(-start // step) * step, last_ms + 1 if high is None else min(last_ms + 1, high)
        n_bars = max(0, -((start - end) // step))
        n_rows = sum(group.rows for _, group in groups)
        refuse_sparse(f"{self.files[0].path}: {self.symbol}", step, start, n_bars, n_rows)
        out = {column: np.empty(n_bars) for column in names}
        done = first = 0
        for times, columns in self._pieces(names, low, high):
            if not times.size:
                continue
            place = (times - start) // step
            head, tail = int(place[0]), int(place[-1]) + 1
            first = first if done else head
            whole = tail - head == times.size
            for name, values in out.items():
                values[done : tail if name not in columns or not whole else head] = np.nan
                if name in columns:
                    values[slice(head, tail) if whole else place] = columns[name]
            done = tail
        return (start + first * step, {name: values[first:done] for name, values in out.items()}) if done else None

    def _pieces(
        self, names: tuple[str, ...], low: int | None, high: int | None
    ) -> Iterator[tuple[Int, dict[str, Float]]]:
        """Times and the columns that a file has, row group by row group, of the rows in ``[low, high)``."""
        previous = None
        for file in self.files:
            there = tuple(name for name in names if name in file.types)
            for group in _groups(file, low, high):
                table = file.read(group, (TIME, *there))
                times = file.times(group, table)
                file.check_order(group.first_row, times, previous)
                previous = int(times[-1])
                file.check_grid(group, times, self.interval_ms)
                cut = slice(
                    0 if low is None else int(np.searchsorted(times, low)),
                    times.size if high is None else int(np.searchsorted(times, high)),
                )
                yield times[cut], {name: file.values(group, table, name)[cut] for name in there}

    def _closes_before(self, columns: dict[str, Float], low: int) -> dict[str, float]:
        """Last known closes before the range; read only if a funding charge inside it may need one (rare)."""
        nothing = np.full(next(iter(columns.values())).size, np.nan)
        no_price = np.isnan(columns.get("mark_open", nothing)) & np.isnan(columns.get("open", nothing))
        charged = np.flatnonzero(no_price & ~np.isnan(columns.get("funding_rate", nothing)))
        found: dict[str, float] = {}
        for name in ("close", "mark_close"):
            known = np.flatnonzero(~np.isnan(columns.get(name, nothing)))
            if name in columns and charged.size and (not known.size or charged[0] <= known[0]):
                value = self._last_value(name, low)
                if value is not None:
                    found[name] = value
        return found

    def _last_value(self, name: str, low: int) -> float | None:
        for file in reversed(self.files):
            for group in reversed(file.groups):
                if name not in file.types or (group.span and group.span[0] >= low):
                    continue
                table = file.read(group, (TIME, name))
                earlier = file.times(group, table) < low
                known = np.flatnonzero(earlier & ~np.isnan(values := file.values(group, table, name)))
                if known.size:
                    return float(values[known[-1]])
        return None


def open_series(path: str | Place, symbol: str | None = None, interval: str | None = None) -> SeriesFiles:
    """Open the files of one series: read all footers, and check the order of row groups.

    Parameters
    ----------
    path : str or Path
        Dataset directory or plain Parquet file, local or at a URI.
    symbol, interval : str, optional
        Needed where the dataset holds several.

    Raises
    ------
    ConfigError
        If there is no such path, or the symbol or interval is ambiguous or unknown.
    DataError
        If a file cannot be read, or its rows are not in the order of time.
    """
    root = existing(path)
    if not root.is_dir():
        return SeriesFiles.plain(root, symbol, interval)
    found = series_files(root)
    chosen = _choose(root, "symbol", symbol, sorted({series.symbol for series in found}))
    intervals = sorted((s.interval for s in found if s.symbol == chosen), key=duration_ms)
    if interval is not None and interval not in intervals:
        same = [text for text in intervals if duration_ms(text) == duration_ms(interval)]
        interval = same[0] if same else interval
    name = SeriesName(_choose(root, f"interval of {chosen}", interval, intervals), chosen)
    series = SeriesFiles.sort(name, [BarFile.open(file) for file in found[name]])
    refuse_changed(found[name])
    series.check_spans()
    return series


def _choose(root: Place, what: str, asked: str | None, choices: list[str]) -> str:
    if asked is None and len(choices) == 1:
        return choices[0]
    if asked is None:
        raise ConfigError(f"{root} holds more than one {what}: {', '.join(choices)}; name one")
    if asked not in choices:
        raise ConfigError(f"{root} has no {what} {asked!r}; it holds {', '.join(choices)}")
    return asked


def _smallest_step(file: BarFile) -> int:
    stamps = np.concatenate([np.empty(0, dtype=np.int64), *(file.read_times(group) for group in file.groups)])
    if not stamps.size:
        raise DataError(f"{file.path}: holds no row")
    if stamps.size < 2:
        raise ConfigError(f"{file.path}: the interval cannot be told from {stamps.size} bar(s); name it")
    file.check_order(0, stamps, None)
    return int(np.diff(stamps).min())


def _groups(file: BarFile, low: int | None, high: int | None) -> list[RowGroup]:
    """Row groups that may hold rows in ``[low, high)``."""
    return [
        group
        for group in file.groups
        if not group.span or ((high is None or group.span[0] < high) and (low is None or group.span[1] >= low))
    ]


def _find_chunk(metadata: Any, index: int, name: str) -> Any:
    """Footer entry of one column of one row group; None if there is none."""
    group = metadata.row_group(index)
    return next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == name), None)


def _footer_span(metadata: Any, index: int) -> tuple[int, int] | None:
    chunk = _find_chunk(metadata, index, TIME)
    if chunk is None or not chunk.is_stats_set or not chunk.statistics.has_min_max:
        return None
    # the footer's own unit: Arrow's may differ (it stores seconds as milliseconds)
    per_ms = _PER_MS.get(json.loads(chunk.statistics.logical_type.to_json()).get("timeUnit"))
    if per_ms is None:
        return None
    first, last = chunk.statistics.min_raw // per_ms, chunk.statistics.max_raw // per_ms  # .min would import pandas
    return (first, last) if first >= 0 and last < LATEST_MS else None  # else reading the rows raises a clear error


@contextmanager
def _reading(file: Place) -> Iterator[Any]:
    """Open a file for Arrow; Arrow's errors become a DataError that names the file."""
    store_errors = remote_errors(file) if isinstance(file, Remote) else nullcontext()
    try:
        with arrow_errors(file), store_errors, opened(file) as source:
            yield source
    except DataError:
        if file.exists():
            raise
        raise Changed(f"{file}: went away while the dataset was read; read it again") from None
