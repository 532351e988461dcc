"""Rows of one series of a dataset: which files it has, whether they are in order, what a range of them holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from backtest.arrays import Float, Int
from backtest.data.history import COLUMNS, refuse_sparse
from backtest.data.parquet import (
    TIME,
    Footer,
    RowGroup,
    SeriesName,
    check_grid,
    check_order,
    existing,
    files_in,
    read_finite,
    read_footer,
    read_group,
    read_times,
    series_files,
    times_in,
)
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Changed, Place
from backtest.units import duration_ms, duration_text, instant_text

T = TypeVar("T")


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, in the order of time."""

    series: SeriesName
    interval_ms: int
    footers: tuple[Footer, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Known columns that at least one file has."""
        return tuple(name for name in COLUMNS if any(name in footer.types for footer in self.footers))


def open_series(path: str | Place, symbol: str | None = None, interval: str | None = None) -> SeriesFiles:
    """The files of the one series that is meant, footers read, their order checked as far as footers tell."""
    root = existing(path)
    if not root.is_dir():
        return open_plain(root, symbol, interval)
    found = series_files(root)
    symbols = sorted({series.symbol for series in found})
    chosen = _choose(root, "symbol", symbol, symbols)
    intervals = sorted((s.interval for s in found if s.symbol == chosen), key=duration_ms)
    if interval is not None and interval not in intervals:
        same = [text for text in intervals if duration_ms(text) == duration_ms(interval)]
        interval = same[0] if same else interval
    series = SeriesName(_choose(root, f"interval of {chosen}", interval, intervals), chosen)
    source = open_files(series, [read_footer(file) for file in found[series]])
    refuse_changed(found[series])
    _check_spans(source)
    return source


def open_files(series: SeriesName, footers: list[Footer]) -> SeriesFiles:
    """The files of one series in the order of time."""
    order = sorted(footers, key=lambda footer: footer_span(footer) or (0, 0))
    return SeriesFiles(series, duration_ms(series.interval), tuple(order))


def footer_span(footer: Footer) -> tuple[int, int] | None:
    """First and last open_time of a file, read where its footer does not tell; None without rows."""
    spans = [group.span or _span_read(footer, group) for group in footer.groups]
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None


def _span_read(footer: Footer, group: RowGroup) -> tuple[int, int]:
    times = read_times(footer, group)
    return int(times.min()), int(times.max())


def refuse_changed(files: list[Place]) -> None:
    """Changed, if a commit fell into the listing of these files of a series: they may be of two states then.

    To be asked when their footers were read. In an object store a manifest lists them in one step.
    """
    folder = files[0].parent.parent
    if isinstance(folder, Path) and {f.parts[-2:] for f in files_in(folder)} != {f.parts[-2:] for f in files}:
        raise Changed(f"{folder}: was written while it was read; read it again")


def unchanged(read: Callable[[], T]) -> T:
    """What `read` returns, read again where another process wrote the dataset in between."""
    for attempt in range(20):
        try:
            return read()
        except Changed:
            time.sleep(0.005 * attempt)
    try:
        return read()
    except Changed as error:
        raise DataError(str(error)) from None


def _choose(root: Place, what: str, asked: str | None, choices: list[str]) -> str:
    if asked is None and len(choices) == 1:
        return choices[0]
    if asked is None:
        raise ConfigError(f"{root} holds more than one {what}: {', '.join(choices)}; name one")
    if asked not in choices:
        raise ConfigError(f"{root} has no {what} {asked!r}; it holds {', '.join(choices)}")
    return asked


def open_plain(file: Place, symbol: str | None, interval: str | None) -> SeriesFiles:
    footer = read_footer(file)
    step = duration_ms(interval) if interval is not None else _spacing(footer)
    source = SeriesFiles(SeriesName(interval or duration_text(step), symbol or file.stem), step, (footer,))
    _check_spans(source)
    return source


def _spacing(footer: Footer) -> int:
    times = [read_times(footer, group) for group in footer.groups]
    stamps = np.concatenate([np.empty(0, dtype=np.int64), *times])
    if not stamps.size:
        raise DataError(f"{footer.path}: holds no row")
    if stamps.size < 2:
        raise ConfigError(f"{footer.path}: the interval cannot be told from {stamps.size} bar(s); name it")
    check_order(footer, 0, stamps, None)
    return int(np.diff(stamps).min())


def _check_spans(source: SeriesFiles) -> None:
    """Row groups must follow each other in time; the offending row is looked for only when a footer says so."""
    spans = [group.span for footer in source.footers for group in footer.groups if group.span]
    if all(one[1] < two[0] for one, two in pairwise(spans)):
        return
    previous = None
    for footer in source.footers:
        for group in footer.groups:
            times = read_times(footer, group)
            check_order(footer, group.first_row, times, previous)
            previous = int(times[-1])


def rows_between(
    source: SeriesFiles, names: tuple[str, ...], low: int | None, high: int | None
) -> tuple[Int, dict[str, Float]]:
    """Times and columns of the rows in ``[low, high)``, from the row groups that may hold some."""
    stamps: list[Int] = []
    pieces: dict[str, list[Float]] = {name: [] for name in names}
    for times, columns in _pieces(source, names, low, high):
        stamps.append(times)
        for name in names:
            pieces[name].append(columns[name] if name in columns else np.full(times.size, np.nan))
    nothing = np.empty(0)
    return (
        np.concatenate([nothing.astype(np.int64), *stamps]),
        {name: np.concatenate([nothing, *pieces.pop(name)]) for name in names},
    )


def bars_between(
    source: SeriesFiles, names: tuple[str, ...], low: int | None, high: int | None
) -> tuple[int, dict[str, Float]] | None:
    """As `rows_between`, laid out on the grid as they are read: open time of the first row, and columns from it on.

    None where there is no row. Missing bars are NaN.
    """
    step = source.interval_ms
    groups = [(footer, group) for footer in source.footers for group in _groups(footer, low, high)]
    spans = [group.span or _span_read(footer, group) for footer, group in groups]
    if not spans:
        return None
    start, end = (low if low is not None and low > spans[0][0] else spans[0][0]), spans[-1][1] + 1
    start, end = -(-start // step) * step, end if high is None else min(end, high)
    n_bars = max(0, -((start - end) // step))
    refuse_sparse(
        f"{source.footers[0].path}: {source.series.symbol}", step, start, n_bars, sum(group.rows for _, group in groups)
    )
    out = {column: np.empty(n_bars) for column in names}
    done = first = 0
    for times, columns in _pieces(source, names, low, high):
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


def _groups(footer: Footer, low: int | None, high: int | None) -> list[RowGroup]:
    """Row groups that may hold rows in ``[low, high)``."""
    return [
        group
        for group in footer.groups
        if not group.span or ((high is None or group.span[0] < high) and (low is None or group.span[1] >= low))
    ]


def _pieces(
    source: SeriesFiles, names: tuple[str, ...], low: int | None, high: int | None
) -> Iterator[tuple[Int, dict[str, Float]]]:
    """Times and those columns that are there, row group by row group, of the rows in ``[low, high)``."""
    previous = None
    for footer in source.footers:
        there = tuple(name for name in names if name in footer.types)
        for group in _groups(footer, low, high):
            table = read_group(footer, group, (TIME, *there))
            times = times_in(footer, group, table)
            check_order(footer, group.first_row, times, previous)
            previous = int(times[-1])
            check_grid(footer, group, times, source.interval_ms)
            cut = slice(
                0 if low is None else int(np.searchsorted(times, low)),
                times.size if high is None else int(np.searchsorted(times, high)),
            )
            yield times[cut], {name: read_finite(footer, group, table, name)[cut] for name in there}


def span_text(source: SeriesFiles) -> str:
    spans = [group.span for footer in source.footers for group in footer.groups if group.span]
    if not spans:
        return f"{source.series.symbol} has no bars"
    first, last = spans[0][0], spans[-1][1] + source.interval_ms
    return f"{source.series.symbol} {source.series.interval} spans {instant_text(first)} … {instant_text(last)}"
