"""Is a dataset what it must be? Every problem with file, row, column and value, and what the bars cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.arrow import Bool, Float, Int, nulls_of, numbers_of
from backtest.dataset import TIME, Footer, Group, Series, existing, files_of, read_footer, read_group, times_in
from backtest.errors import DataError
from backtest.faults import Fault, columns_rule, row_faults
from backtest.history import COLUMNS, PriceHistory
from backtest.units import duration_ms, duration_text, instant_text

CAP = 20
"""Problems of one rule in one file that are listed one by one."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `row` counts from 0 within the file; row and column are None where there is none."""

    file: str
    row: int | None
    column: str | None
    rule: str
    value: str | float | None = None

    def __str__(self) -> str:
        where = [self.file]
        where += [] if self.row is None else [f"row {self.row}"]
        where += [] if self.column is None else [f"column {self.column}"]
        got = "" if self.value is None else f"; got {self.value}"
        return f"{', '.join(where)}: {self.rule}{got}"


@dataclass(frozen=True)
class LeftOut:
    """How many more problems of one rule a file has than are listed."""

    file: str
    rule: str
    count: int


@dataclass(frozen=True)
class Gap:
    """A run of bars without trigger prices: the open times of its first and last bar, and how many."""

    first: str
    last: str
    bars: int


@dataclass(frozen=True)
class Coverage:
    """What one series covers, on its grid (semantics.md §1).

    Attributes
    ----------
    symbol, interval : str
    trigger : str or None
        ``"mark"`` where there is any mark price, else ``"last"``; None if no bar can be entered.
    first, last : str or None
        Open times of the grid's first and last bar, ISO 8601 UTC.
    bars, missing : int
        Bars of the grid, and those of them without trigger prices.
    gaps, longest_gap : int
        Runs of missing bars, and the bars of the longest.
    charges : int
        Bars with a funding charge.
    largest : tuple of Gap
        The five longest gaps, in the order of time.
    """

    symbol: str
    interval: str
    trigger: str | None
    first: str | None
    last: str | None
    bars: int
    missing: int
    gaps: int
    longest_gap: int
    charges: int
    largest: tuple[Gap, ...]

    def __str__(self) -> str:
        if self.trigger is None:
            return f"{self.symbol} {self.interval}: no bar that can be entered, {self.charges:,} funding charges"
        gaps = (
            f"{self.missing:,} missing in {self.gaps:,} gap{'s' * (self.gaps != 1)}" if self.missing else "none missing"
        )
        line = (
            f"{self.symbol} {self.interval}: {self.first} … {self.last}, {self.bars:,} bars, {gaps}; "
            f"{self.charges:,} funding charges; trigger {self.trigger}"
        )
        return "\n".join([line, *(f"  gap {gap.first} … {gap.last}, {gap.bars:,} bars" for gap in self.largest)])


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    problems: tuple[Problem, ...]
    left_out: tuple[LeftOut, ...]
    coverage: tuple[Coverage, ...]

    @property
    def ok(self) -> bool:
        """True if there is no problem; gaps are none."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``ok``, ``problems``, ``left_out``, ``coverage``."""
        return {"ok": self.ok, **asdict(self)}

    def text(self) -> str:
        """For people: a line per series and per problem, and the count."""
        lines = [str(one) for one in (*self.coverage, *self.problems)]
        lines += [f"{more.file}: {more.count:,} more like this: {more.rule}" for more in self.left_out]
        total = len(self.problems) + sum(more.count for more in self.left_out)
        return "\n".join([*lines, f"{total:,} problem{'s' * (total != 1)}" if total else "no problems"])


def check(path: str | Path) -> Report:
    """Look at every row of a dataset, or of a plain Parquet file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Report
        Problems (per file and rule the first `CAP`, the others counted) and the coverage of each series.

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
    >>> from backtest.store import write_history
    >>> bars = {"high": np.array([11.0, 12.0]), "low": np.array([9.0, 8.0]), "close": np.array([10.0, 8.5])}
    >>> with tempfile.TemporaryDirectory() as data:
    ...     _ = write_history(PriceHistory("BTCUSDT", 3_600_000, 0, bars), data)
    ...     print(check(data).text())
    BTCUSDT 1h: 1970-01-01T00:00Z … 1970-01-01T01:00Z, 2 bars, none missing; 0 funding charges; trigger last
    no problems
    """
    root = existing(path)
    found = _Findings()
    if root.is_dir():
        series = [_check_series(one, files, found) for one, files in sorted(files_of(root).items())]
    else:
        series = [_check_series(Series("", root.stem), [root], found)]
    return found.report(tuple(one for one in series if one is not None))


def check_history(history: PriceHistory) -> Report:
    """The same tests on a history in memory; the file in messages is its symbol."""
    found = _Findings()
    values = dict(history.columns)
    nulls = {name: np.isnan(column) for name, column in values.items()}
    rule = columns_rule(values)
    if rule is not None:
        found.say(Problem(history.symbol, None, None, rule))
    for fault in row_faults(values, nulls):
        found.add(history.symbol, fault, np.arange(history.n_bars))
    times = history.start_ms + history.interval_ms * np.arange(history.n_bars)
    series = Series(duration_text(history.interval_ms), history.symbol)
    one = _coverage(series, history.interval_ms, history.symbol, (times, _flags(values, history.n_bars)), found)
    return found.report((one,))


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    count: Counter[tuple[str, str]] = field(default_factory=Counter)

    def say(self, problem: Problem) -> None:
        key = (problem.file, problem.rule)
        self.count[key] += 1
        if self.count[key] <= CAP:
            self.problems.append(problem)

    def add(self, file: str, fault: Fault, rows: Int) -> None:
        bad = np.flatnonzero(fault.bad)
        for place in bad[:CAP]:
            value = fault.values[place].item()
            if fault.column == TIME:
                value = instant_text(value)
            elif not np.isfinite(value):
                value = str(value)  # JSON knows no nan
            shown = value if fault.shows_value else None
            self.say(Problem(file, int(rows[place]), fault.column, fault.rule, shown))
        self.count[(file, fault.rule)] += len(bad[CAP:])

    def report(self, coverage: tuple[Coverage, ...]) -> Report:
        more = [LeftOut(file, rule, n - CAP) for (file, rule), n in self.count.items() if n > CAP]
        return Report(tuple(self.problems), tuple(more), coverage)


# --- one series -------------------------------------------------------------------------------------------------------

_CLOSE, _MARK_CLOSE, _RANGE, _MARK_RANGE, _ANY_MARK, _OPEN, _CHARGE = (1 << bit for bit in range(7))


def _flags(values: Mapping[str, Float], n_rows: int) -> NDArray[np.uint8]:
    """What coverage needs to know of each row."""
    nothing = np.zeros(n_rows, np.bool_)
    known = {name: ~np.isnan(values[name]) if name in values else nothing for name in COLUMNS}
    bits = {
        _CLOSE: known["close"],
        _MARK_CLOSE: known["mark_close"],
        _RANGE: known["low"] & known["high"],
        _MARK_RANGE: known["mark_low"] & known["mark_high"],
        _ANY_MARK: known["mark_open"] | known["mark_high"] | known["mark_low"] | known["mark_close"],
        _OPEN: known["open"] | known["mark_open"],
        _CHARGE: known["funding_rate"],
    }
    flags = np.zeros(n_rows, np.uint8)
    for bit, mask in bits.items():
        flags[mask] |= bit
    return flags


def _check_series(series: Series, files: list[Path], found: _Findings) -> Coverage | None:
    footers = []
    for file in files:
        try:
            footers.append(read_footer(file))
        except DataError as error:
            found.say(Problem(str(file), None, None, str(error).removeprefix(f"{file}: ")))
    scans = [_scan(footer, found) for footer in footers]
    scans = sorted((scan for scan in scans if scan.times.size), key=lambda scan: int(scan.times.min()))
    if not scans:
        return None
    _check_overlap(scans, found)
    times = np.concatenate([scan.times for scan in scans])
    flags = np.concatenate([scan.flags for scan in scans])
    order = np.argsort(times, kind="stable")
    steps = np.diff(times[order])
    if not series.interval and not (steps > 0).any():
        found.say(Problem(str(files[0]), None, TIME, "one bar does not tell the interval"))
        return None
    step = duration_ms(series.interval) if series.interval else int(steps[steps > 0].min())
    for scan in scans:
        rule = f"must be a multiple of the interval {duration_text(step)} since the epoch"
        found.add(str(scan.file), Fault(TIME, rule, scan.times % step != 0, scan.times), scan.rows)
    kept = order[np.concatenate(([True], steps > 0)) & (times[order] % step == 0)]
    named = Series(series.interval or duration_text(step), series.symbol)
    where = str(files[0] if len(files) == 1 else files[0].parent.parent)
    return _coverage(named, step, where, (times[kept], flags[kept]), found)


@dataclass(frozen=True)
class _Scan:
    file: Path
    rows: Int
    times: Int
    flags: NDArray[np.uint8]


def _scan(footer: Footer, found: _Findings) -> _Scan:
    """Every row of a file, row group by row group; times and flags are kept."""
    file = str(footer.path)
    rule = columns_rule(set(footer.types) - {TIME})
    if rule is not None:
        found.say(Problem(file, None, None, rule))
    rows, times, flags = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    said: set[str] = set()
    for group in footer.groups:
        try:
            stamps, values = _scan_group(footer, group, found, said)
        except DataError as error:
            found.say(Problem(file, None, None, str(error).removeprefix(f"{file}: ")))
            continue
        here = np.arange(group.first_row, group.first_row + stamps.size)
        last = times[-1][-1:] if times[-1].size else stamps[:1] - 1
        steps = np.diff(stamps, prepend=last)
        found.add(file, Fault(TIME, "must not repeat the time before it", steps == 0, stamps), here)
        found.add(file, Fault(TIME, "must not go back in time", steps < 0, stamps), here)
        rows.append(here)
        times.append(stamps)
        flags.append(_flags(values, stamps.size))
    return _Scan(footer.path, np.concatenate(rows), np.concatenate(times), np.concatenate(flags))


def _scan_group(footer: Footer, group: Group, found: _Findings, said: set[str]) -> tuple[Int, dict[str, Float]]:
    names = tuple(name for name in COLUMNS if name in footer.types and name not in said)
    table = read_group(footer, group, (TIME, *names))
    rows = np.arange(group.first_row, group.first_row + group.rows)
    null = nulls_of(table.column(TIME))
    if null.any():
        found.add(str(footer.path), Fault(TIME, "must not be null", null, null, shows_value=False), rows)
        return np.empty(0, np.int64), {}
    values: dict[str, Float] = {}
    nulls: dict[str, Bool] = {}
    for name in names:
        where = f"{footer.path}: column {name}"
        try:
            values[name], nulls[name] = numbers_of(table.column(name), where)
        except DataError as error:
            found.say(Problem(str(footer.path), None, name, str(error).removeprefix(f"{where} ")))
            said.add(name)
    for fault in row_faults(values, nulls):
        found.add(str(footer.path), fault, rows)
    return times_in(footer, group, table), values


def _check_overlap(scans: list[_Scan], found: _Findings) -> None:
    longest = scans[0]
    for scan in scans[1:]:
        inside = np.flatnonzero(scan.times <= longest.times.max())
        if inside.size:
            row = int(scan.rows[inside[0]])
            rule = f"must come after the bars of {longest.file} ({inside.size:,} of this file do not)"
            found.say(Problem(str(scan.file), row, TIME, rule, instant_text(int(scan.times[inside[0]]))))
        longest = max(longest, scan, key=lambda one: int(one.times.max()))


def _coverage(series: Series, step: int, where: str, rows: tuple[Int, NDArray[np.uint8]], found: _Findings) -> Coverage:
    times, flags = rows
    charge = (flags & _CHARGE) > 0
    mark = bool((flags & _ANY_MARK).any())
    present = (flags & (_MARK_RANGE if mark else _RANGE)) > 0
    entry = (flags & (_CLOSE if (flags & _CLOSE).any() else _MARK_CLOSE)) > 0
    ready = np.flatnonzero(present & entry)
    if not ready.size:
        found.say(Problem(where, None, None, "a bar with both an entry price and trigger prices must be there"))
        return Coverage(series.symbol, series.interval, None, None, None, 0, 0, 0, 0, int(charge.sum()), ())
    first, last = int(times[ready[0]]), int(times[ready[-1]])
    inside = times[present & (times >= first) & (times <= last)]
    steps = np.diff(inside) // step - 1
    longest = np.sort(np.argsort(-steps, kind="stable")[:5])
    largest = tuple(
        Gap(instant_text(int(inside[i]) + step), instant_text(int(inside[i + 1]) - step), int(steps[i]))
        for i in longest[steps[longest] > 0]
    )
    close = np.flatnonzero(flags & (_MARK_CLOSE if mark else _CLOSE))
    earliest = int(close[0]) if close.size else flags.size
    priceless = (
        charge & ((flags & _OPEN) == 0) & (np.arange(flags.size) <= earliest) & (times > first) & (times <= last)
    )
    for row in np.flatnonzero(priceless)[:1]:
        rule = f"a charge needs a price to fall on; none is known by the bar of {instant_text(int(times[row]))}"
        found.say(Problem(where, None, "funding_rate", rule))
    return Coverage(
        series.symbol,
        series.interval,
        "mark" if mark else "last",
        instant_text(first),
        instant_text(last),
        (last - first) // step + 1,
        int(steps.sum()),
        int((steps > 0).sum()),
        int(steps.max(initial=0)),
        int(charge.sum()),
        largest,
    )
