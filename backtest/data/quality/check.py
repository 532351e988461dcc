"""Check a dataset: problems with file, row, column and value, warnings about odd bars, and coverage."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.arrow import null_mask, to_floats
from backtest.data.files import SeriesName, existing, refuse_changed, series_files, unchanged
from backtest.data.history import COLUMNS, PriceHistory
from backtest.data.quality.anomalies import Watch
from backtest.data.quality.coverage import Coverage, Flags, Gap, count_presence, presence_flags
from backtest.data.quality.report import CAP, DataWarning, LeftOut, Problem, Report, ReportBuilder
from backtest.data.quality.row_rules import Fault, columns_rule, row_faults
from backtest.data.reader import TIME, BarFile, RowGroup
from backtest.errors import DataError
from backtest.filesystem import Place
from backtest.units import duration_ms, duration_text, instant_text

__all__ = [
    "CAP",
    "Checking",
    "Coverage",
    "DataWarning",
    "Gap",
    "LeftOut",
    "Problem",
    "Report",
    "check",
    "check_history",
]  # fmt: skip

PIECE = 131_072
"""Bars of a history in memory that are checked at once."""


def check(path: str | Place) -> Report:
    """Check every row of a dataset, or of a plain Parquet file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Report
        Problems (the first `CAP` per file and rule; the others are counted), warnings (the `CAP` longest per series
        and rule) and the coverage of each series.

    Raises
    ------
    ConfigError
        If there is no such path.
    DataError
        If the directory holds no dataset at all.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from backtest.data.dataset import write_history
    >>> bars = {"high": np.array([11.0, 12.0]), "low": np.array([9.0, 8.0]), "close": np.array([10.0, 8.5])}
    >>> with tempfile.TemporaryDirectory() as data:
    ...     _ = write_history(PriceHistory("BTCUSDT", 3_600_000, 0, bars), data)
    ...     print(check(data).text())
    BTCUSDT 1h: 1970-01-01T00:00Z … 1970-01-01T01:00Z, 2 bars, none missing; 0 funding charges; trigger last
    no problems
    """
    return unchanged(lambda: _check(existing(path)))


def _check(root: Place) -> Report:
    builder = ReportBuilder()
    if root.is_dir():
        for series, files in sorted(series_files(root).items()):
            _check_series(series, files, builder)
    else:
        _check_series(SeriesName("", root.stem), [root], builder)
    return builder.report()


def check_history(history: PriceHistory) -> Report:
    """Check a history in memory in the same way; messages name its symbol instead of a file."""
    checking = Checking(history.symbol, history.interval_ms)
    checking.add(history)
    return checking.report()


class Checking:
    """`check_history` of a history that comes in pieces, in the order of time; it keeps ten bytes per bar."""

    def __init__(self, symbol: str, interval_ms: int, watch: Watch | None = None) -> None:
        self._series, self._step = SeriesName(duration_text(interval_ms), symbol), interval_ms
        self._builder, self._watch = ReportBuilder(), watch or Watch(interval_ms)
        self._names: set[str] = set()
        self._times: list[Int] = []
        self._flags: list[Flags] = []

    def add(self, history: PriceHistory) -> None:
        """Check every row of a piece; rows in messages count from the start of the piece."""
        self._names |= set(history.columns)
        for start in range(0, history.n_bars, PIECE):
            values = {name: column[start : start + PIECE] for name, column in history.columns.items()}
            rows = np.arange(start, min(start + PIECE, history.n_bars))
            for fault in row_faults(values, {name: np.isnan(column) for name, column in values.items()}):
                self._builder.add_fault(history.symbol, fault, rows)
            times = history.start_ms + history.interval_ms * rows
            self._watch.see(times, values)
            self._times.append(times)
            self._flags.append(presence_flags(values, rows.size))

    def report(self) -> Report:
        """Problems, warnings and coverage of all pieces."""
        symbol = self._series.symbol
        rule = columns_rule(self._names)
        if rule is not None:
            self._builder.add_problem(Problem(symbol, None, None, rule))
        bars = count_presence(self._series, self._step, np.concatenate(self._times), np.concatenate(self._flags))
        self._builder.add_series(self._series, symbol, bars, self._watch, lambda _: symbol)
        return self._builder.report()


# --- one series in files ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scan:
    bars: BarFile
    rows: Int
    times: Int
    flags: Flags

    @property
    def file(self) -> str:
        return str(self.bars.path)


def _check_series(series: SeriesName, files: list[Place], builder: ReportBuilder) -> None:
    opened: list[BarFile] = []
    for file in files:
        try:
            opened.append(BarFile.open(file))
        except DataError as error:
            builder.add_problem(Problem(str(file), None, None, str(error).removeprefix(f"{file}: ")))
    if series.interval:  # else it is one file
        refuse_changed(files)
    opened.sort(key=_earliest)
    step = duration_ms(series.interval) if series.interval else _spacing(opened)
    watch = Watch(step or 1)
    scans = [scan for scan in (_scan(bars, watch, builder) for bars in opened) if scan.times.size]
    if not scans:
        return
    scans.sort(key=lambda scan: int(scan.times.min()))
    _check_overlap(scans, builder)
    if not step:
        builder.add_problem(Problem(str(files[0]), None, TIME, "one bar does not tell the interval"))
        return
    rule = f"must be a multiple of the interval {duration_text(step)} since the epoch"
    for scan in scans:
        builder.add_fault(scan.file, Fault(TIME, rule, scan.times % step != 0, scan.times), scan.rows)
    starts = [int(scan.times.min()) for scan in scans]
    names = [scan.file for scan in scans]
    times, flags = np.concatenate([scan.times for scan in scans]), np.concatenate([scan.flags for scan in scans])
    del scans
    if (np.diff(times) <= 0).any() or (times % step).any():
        times, first = np.unique(times, return_index=True)
        kept = times % step == 0
        times, flags = times[kept], flags[first][kept]
    named = SeriesName(series.interval or duration_text(step), series.symbol)
    where = str(files[0] if len(files) == 1 else files[0].parent.parent)
    builder.add_series(
        named,
        where,
        count_presence(named, step, times, flags),
        watch,
        lambda ms: names[max(bisect_right(starts, ms) - 1, 0)],
    )


def _earliest(file: BarFile) -> int:
    """First open_time of a file; 0 where it has none or cannot be read."""
    try:
        return file.span[0] if file.span else 0
    except DataError:
        return 0


def _spacing(files: list[BarFile]) -> int | None:
    """Smallest distance between two open times, ms; None with fewer than two."""
    times = [np.empty(0, np.int64)]
    for file in files:
        for group in file.groups:
            try:
                times.append(file.read_times(group))
            except DataError:
                continue  # reported when the rows are checked
    steps = np.diff(np.unique(np.concatenate(times)))
    return int(steps.min()) if steps.size else None


def _scan(bars: BarFile, watch: Watch, builder: ReportBuilder) -> _Scan:
    """Check every row of a file, row group by row group; keep times and flags."""
    file = str(bars.path)
    rule = columns_rule(set(bars.types) - {TIME})
    if rule is not None:
        builder.add_problem(Problem(file, None, None, rule))
    rows, times, flags = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    unreadable: set[str] = set()
    for group in bars.groups:
        try:
            stamps, values = _scan_group(bars, group, builder, unreadable)
        except DataError as error:
            builder.add_problem(Problem(file, None, None, str(error).removeprefix(f"{file}: ")))
            continue
        here = np.arange(group.first_row, group.first_row + stamps.size)
        last = times[-1][-1:] if times[-1].size else stamps[:1] - 1
        steps = np.diff(stamps, prepend=last)
        builder.add_fault(file, Fault(TIME, "must not repeat the time before it", steps == 0, stamps), here)
        builder.add_fault(file, Fault(TIME, "must not go back in time", steps < 0, stamps), here)
        watch.see(stamps, values)
        rows.append(here)
        times.append(stamps)
        flags.append(presence_flags(values, stamps.size))
    return _Scan(bars, np.concatenate(rows), np.concatenate(times), np.concatenate(flags))


def _scan_group(
    bars: BarFile, group: RowGroup, builder: ReportBuilder, unreadable: set[str]
) -> tuple[Int, dict[str, Float]]:
    names = tuple(name for name in COLUMNS if name in bars.types and name not in unreadable)
    table = bars.read(group, (TIME, *names))
    rows = np.arange(group.first_row, group.first_row + group.rows)
    null = null_mask(table.column(TIME))
    if null.any():
        builder.add_fault(str(bars.path), Fault(TIME, "must not be null", null, null, shows_value=False), rows)
        return np.empty(0, np.int64), {}
    values: dict[str, Float] = {}
    nulls: dict[str, Bool] = {}
    for name in names:
        where = f"{bars.path}: column {name}"
        try:
            values[name], nulls[name] = to_floats(table.column(name), where)
        except DataError as error:
            builder.add_problem(Problem(str(bars.path), None, name, str(error).removeprefix(f"{where} ")))
            unreadable.add(name)
    for fault in row_faults(values, nulls):
        builder.add_fault(str(bars.path), fault, rows)
    return bars.times(group, table), values


# --- files that overlap -----------------------------------------------------------------------------------------------


def _check_overlap(scans: list[_Scan], builder: ReportBuilder) -> None:
    longest = scans[0]
    for place, scan in enumerate(scans[1:], 1):
        inside = np.flatnonzero(scan.times <= longest.times.max())
        if inside.size:
            row = int(scan.rows[inside[0]])
            rule = f"must come after the bars of {longest.file} ({inside.size:,} of this file do not)"
            builder.add_problem(Problem(scan.file, row, TIME, rule, instant_text(int(scan.times[inside[0]]))))
            for earlier in scans[:place]:
                if earlier.times.max() >= scan.times.min():
                    _compare(earlier, scan, builder)
        longest = max(longest, scan, key=lambda one: int(one.times.max()))


def _compare(one: _Scan, two: _Scan, builder: ReportBuilder) -> None:
    """Report bars that two files hold with different values."""
    shared, here, there = np.intersect1d(two.times, one.times, return_indices=True)
    for name in COLUMNS if shared.size else ():
        if name not in one.bars.types or name not in two.bars.types:
            continue
        try:
            ours, theirs = (_values_at(scan, name, at) for scan, at in ((two, here), (one, there)))
        except DataError:
            continue  # reported before
        other = np.flatnonzero((ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs)))
        if other.size:
            rule = f"differs from {one.file} in {other.size:,} of {shared.size:,} bars that both hold"
            at = other[0]
            value = f"{ours[at]:.17g} and {theirs[at]:.17g} there, {instant_text(int(shared[at]))}"
            builder.add_problem(Problem(two.file, int(two.rows[here[at]]), name, rule, value))


def _values_at(scan: _Scan, name: str, at: Int) -> Float:
    """Values of a column in some rows of a file; only their row groups are read."""
    rows, out = scan.rows[at], np.empty(at.size)
    for group in scan.bars.groups:
        inside = (rows >= group.first_row) & (rows < group.first_row + group.rows)
        if inside.any():
            table = scan.bars.read(group, (name,))
            values, _ = to_floats(table.column(name), f"{scan.file}: column {name}")
            out[inside] = values[rows[inside] - group.first_row]
    return out
