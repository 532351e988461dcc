"""Bars of the files of one kind (prices or mark prices), checked row by row and joined in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.data.history import LAST
from backtest.data.quality.row_rules import row_faults
from backtest.errors import DataError
from backtest.ingest.columns import SourceTable, numbers
from backtest.ingest.messages import Notices
from backtest.ingest.options import Kind
from backtest.ingest.timestamps import Stamps, bar_opens, check_order, times
from backtest.units import instant_text

QUOTE_VOLUMES = ("quote_volume", "quote_asset_volume", "turnover", "vol_quote")


@dataclass(frozen=True)
class BarColumns:
    """Values by bar open (UTC milliseconds, ascending)."""

    times: Int
    columns: dict[str, Float]


@dataclass(frozen=True)
class Bars:
    """Bars of all files of a kind; whether their times are known to be UTC, else the clocks that come into question."""

    part: BarColumns
    zoned: bool
    clocks: tuple[str, ...]
    kind: Kind


def parse_bars(tables: Iterable[SourceTable], step: int, notices: Notices) -> Bars | None:
    """Bars of all files of one kind; None where there is no file."""
    parts: list[BarColumns] = []
    files: list[Path] = []
    zoned, pages, kind = True, False, None
    clocks: tuple[str, ...] = ()
    for table in tables:
        kind = table.kind
        part, stamps = _file_bars(table, step, notices)
        parts.append(part)
        files.append(table.file)
        zoned &= stamps.zoned
        clocks = clocks or table.reading.clocks
        pages |= table.reading.pages
    if kind is None:
        return None
    return Bars(joined(parts, files, pages, notices), zoned, clocks, kind)


def _file_bars(table: SourceTable, step: int, notices: Notices) -> tuple[BarColumns, Stamps]:
    """Bars of one file; a row that breaks a rule is refused."""
    stamps = times(table)
    tell_notices(table, notices)
    notices.note(stamps.how, table.file)
    if not stamps.ms.size:
        raise DataError(f"{table.file}: there are no rows")
    if not table.reading.pages:
        check_order(table, stamps.ms)
    zone = 0 if stamps.zoned else _within_bar(stamps.ms, step)
    opens, how = bar_opens(table, stamps.ms - zone, step)
    notices.note(how, table.file)
    names = {name: table.find(name) for name in LAST}
    if table.kind == "prices":
        if table.has("volume"):
            names["volume"] = table.find("volume")
        else:
            notices.note("has no column volume", table.file)
    read = {name: numbers(table, theirs) for name, theirs in names.items()}
    scale = table.reading.price_scale
    values = {name: column * scale if name in LAST else column for name, (column, _) in read.items()}
    where = {name: table.where(theirs) for name, theirs in names.items()}
    check_rows(where, values, {name: null for name, (_, null) in read.items()})
    if table.kind == "prices" and "volume" in values:
        _check_quote_volume(table, values, notices)
    if scale != 1:
        notices.note(f"prices are multiplied by {scale:g}", table.file)
    part = BarColumns(opens + zone, values)
    return (_finished(part, table, step, notices) if stamps.zoned and table.reading.pages else part), stamps


def mean_outside(values: Mapping[str, Float], quote: Float) -> tuple[Bool, Bool]:
    """Bars with trades, and those of them whose mean price, quote volume over volume, lies outside of low … high."""
    volume, slack = values["volume"], 1e-3  # both are rounded
    traded = volume > 0
    inside = (quote >= (1 - slack) * values["low"] * volume) & (quote <= (1 + slack) * values["high"] * volume)
    return traded, traded & ~inside


def _check_quote_volume(table: SourceTable, values: dict[str, Float], notices: Notices) -> None:
    """Quote volume over volume is a mean price: it must lie between low and high."""
    name = next((name for name in QUOTE_VOLUMES if name in table.columns), None)
    if name is None:
        return
    try:
        quote, _ = numbers(table, name)
    except DataError:
        return
    known = np.isfinite(quote)
    traded, outside = (rows & known for rows in mean_outside(values, quote))
    if 0 < outside.sum() < 0.1 * traded.sum():
        row = int(np.argmax(outside))
        mean, low, high = quote[row] / values["volume"][row], values["low"][row], values["high"][row]
        notices.warn(
            f"{int(outside.sum()):,} rows have a mean price, {table.names[name]} over volume, outside of low … high; "
            f"the first is row {row}: {mean:.10g} beside {low:.10g} … {high:.10g}",
            table.file,
        )


def _finished(part: BarColumns, table: SourceTable, step: int, notices: Notices) -> BarColumns:
    """Drop a newest bar that ended after its file was written: an API returns the unfinished bar as well."""
    open_ms = int(part.times.max())
    if part.times.size == 1 or open_ms + step <= table.file.stat().st_mtime_ns // 1_000_000:
        return part
    notices.warn(f"the bar of {instant_text(open_ms)} ended after the file was written and is left out", table.file)
    kept = part.times != open_ms
    return BarColumns(part.times[kept], {name: values[kept] for name, values in part.columns.items()})


def _within_bar(stamps: Int, step: int) -> int:
    """Offset of an unknown clock from the grid of bars: 0 for bars up to 1h, else whole hours."""
    return int(stamps[0] % step // 3_600_000 * 3_600_000) if step > 3_600_000 and stamps.size else 0


def tell_notices(table: SourceTable, notices: Notices) -> None:
    """Add the notes and warnings of a file that was read."""
    for note in table.notes:
        notices.note(note, table.file)
    for warning in table.warnings:
        notices.warn(warning, table.file)


def check_rows(where: Mapping[str, str], values: Mapping[str, Float], nulls: Mapping[str, Bool]) -> None:
    """Refuse rows that break a rule; `where` names file and column of each of `values`."""
    for fault in row_faults(values, nulls):
        refuse_rows(where[fault.column], fault.bad, fault.rule, fault.values if fault.shows_value else None)
    if "volume" in values:
        refuse_rows(where["volume"], values["volume"] < 0, "must be ≥ 0", values["volume"])


def refuse_rows(where: str, bad: Bool, rule: str, values: Float | Int | None, *, is_time: bool = False) -> None:
    """DataError with the first bad row, counted from 0, and its value."""
    if bad.any():
        row = int(np.argmax(bad))
        got = "null" if values is None else instant_text(int(values[row])) if is_time else f"{values[row]:.16g}"
        raise DataError(f"{where} {rule}; got {got} in row {row} ({int(bad.sum()):,} such rows)")


def joined(
    parts: Sequence[BarColumns], files: Sequence[Path], pages: bool, notices: Notices, rtol: float = 1e-12
) -> BarColumns:
    """Bars of several files in the order of time; where two have the same bar, its values must agree.

    Pages may differ in the last bar of one that is the first of the next: the next is taken.
    """
    by_time = sorted(range(len(parts)), key=lambda one: int(parts[one].times.min(initial=2**62)))
    parts, files = [parts[one] for one in by_time], [files[one] for one in by_time]
    names = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    stamps = np.concatenate([part.times for part in parts])
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
    if (np.diff(stamps) > 0).all():
        return BarColumns(stamps, columns)
    if pages and stamps.size and (np.diff(stamps) < 0).mean() > 0.5:
        notices.note("rows come newest first and were put in the order of time")
    order = np.argsort(stamps, kind="stable")
    stamps = stamps[order]
    columns = {name: values[order] for name, values in columns.items()}
    of = np.repeat(np.arange(len(parts)), [part.times.size for part in parts])[order]
    again = np.append(False, np.diff(stamps) == 0)
    differ = np.zeros(stamps.size, np.bool_)
    for values in columns.values():
        differ |= again & ~np.isclose(values, np.roll(values, 1), rtol=rtol, atol=0, equal_nan=True)
    for row in np.flatnonzero(differ):
        one, two = of[row - 1], of[row]
        when = instant_text(int(stamps[row]))
        if not (pages and one < two and stamps[row] == parts[one].times.max() == parts[two].times.min()):
            told = next(f"{name} is {v[row]:.10g} and {v[row - 1]:.10g}" for name, v in columns.items()
                        if v[row] != v[row - 1])  # fmt: skip
            raise DataError(f"{files[two]} and {files[one]} disagree on {when}: {told} ({int(differ.sum()):,} such)")
        notices.warn(f"disagrees with {files[two].name} on {when}, where that begins; it is taken", files[one])
    if again.any():
        when = instant_text(int(stamps[np.argmax(again)]))
        notices.note(f"{int(again.sum()):,} times occur twice, the first {when}; one of each is kept")
    kept = np.append(~again[1:], True)  # of two equal rows the second
    return BarColumns(stamps[kept], {name: values[kept] for name, values in columns.items()})
