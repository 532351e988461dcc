"""The result of `check`: problems, warnings and coverage, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from backtest.arrays import Int
from backtest.data.files import SeriesName
from backtest.data.quality.anomalies import Watch
from backtest.data.quality.coverage import Coverage, Presence, Timeline
from backtest.data.quality.funding_schedule import schedule_runs
from backtest.data.quality.row_rules import Fault, Runs
from backtest.data.reader import TIME
from backtest.units import instant_text

CAP = 20
"""Most problems per rule and file, and warnings per rule and series, that are listed; the others are counted."""


@dataclass(frozen=True)
class Problem:
    """A broken rule: `row` counts from 0 within the file; row and column are None for a rule about the whole file."""

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
class DataWarning:
    """Bars that keep every rule and still look wrong: open times of the first and the last, and how many they are."""

    file: str
    symbol: str
    interval: str
    column: str | None
    rule: str
    first: str
    last: str
    bars: int
    value: str | float | None = None

    def __str__(self) -> str:
        when = self.first if self.first == self.last else f"{self.first} … {self.last}"
        count = "" if self.bars == 1 else f", {self.bars:,} bars"
        column = "" if self.column is None else f"{self.column} "
        value = f"got {self.value:.10g}" if isinstance(self.value, float) else self.value
        return f"{self.file}, {when}{count}: {column}{self.rule}" + ("" if value is None else f"; {value}")


@dataclass(frozen=True)
class LeftOut:
    """How many problems of one rule in a file, or warnings of one rule in a series, are counted but not listed."""

    file: str
    rule: str
    count: int

    def __str__(self) -> str:
        return f"{self.file}: {self.count:,} more like this: {self.rule}"


@dataclass(frozen=True)
class Report:
    """Result of `check`: problems, with which a dataset cannot be used, and warnings, which a person should look at."""

    problems: tuple[Problem, ...]
    left_out: tuple[LeftOut, ...]
    coverage: tuple[Coverage, ...]
    warnings: tuple[DataWarning, ...] = ()
    warnings_left_out: tuple[LeftOut, ...] = ()
    timelines: tuple[Timeline, ...] = field(default=(), compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is no problem; warnings, such as gaps, are allowed."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``ok``, ``problems``, ``left_out``, ``coverage``, ``warnings``, ``warnings_left_out``."""
        names = ("problems", "left_out", "coverage", "warnings", "warnings_left_out")
        return {"ok": self.ok} | {name: [asdict(one) for one in getattr(self, name)] for name in names}

    def warning_lines(self) -> list[str]:
        """One line per warning, and one per rule that counts those not listed."""
        return [str(one) for one in (*self.warnings, *self.warnings_left_out)]

    def text(self) -> str:
        """Text for people: one line per series, problem and warning, then the counts."""
        lines = [str(one) for one in (*(one.line() for one in self.coverage), *self.problems, *self.left_out)]
        lines += [f"warning: {line}" for line in self.warning_lines()]
        problems = _count(len(self.problems), self.left_out, "problem") or "no problems"
        warnings = _count(len(self.warnings), self.warnings_left_out, "warning")
        return "\n".join([*lines, f"{problems}, {warnings}" if warnings else problems])


def _count(listed: int, more: tuple[LeftOut, ...], word: str) -> str:
    total = listed + sum(one.count for one in more)
    return f"{total:,} {word}{'s' * (total != 1)}" if total else ""


@dataclass
class ReportBuilder:
    """Collects problems, warnings and coverage while files are read."""

    problems: list[Problem] = field(default_factory=list)
    count: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: list[DataWarning] = field(default_factory=list)
    more_warnings: list[LeftOut] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)

    def add_problem(self, problem: Problem) -> None:
        """List a problem, or only count it after `CAP` of its kind."""
        key = (problem.file, problem.rule)
        self.count[key] += 1
        if self.count[key] <= CAP:
            self.problems.append(problem)

    def add_fault(self, file: str, fault: Fault, rows: Int) -> None:
        """Add a problem for every row that breaks a rule."""
        bad = np.flatnonzero(fault.bad)
        for place in bad[:CAP]:
            value = fault.values[place].item()
            if fault.column == TIME:
                value = instant_text(value)
            elif not np.isfinite(value):
                value = str(value)  # JSON knows no nan
            shown = value if fault.shows_value else None
            self.add_problem(Problem(file, int(rows[place]), fault.column, fault.rule, shown))
        self.count[(file, fault.rule)] += len(bad[CAP:])

    def add_series(
        self, series: SeriesName, where: str, bars: Presence, watch: Watch, file_at: Callable[[int], str]
    ) -> None:
        """Add coverage and warnings of a series whose bars were all seen; `file_at` names the file of an open time."""
        for column, rule in bars.lacking:
            self.add_problem(Problem(where, None, column, rule))
        runs = [bars.gaps, *watch.runs()]
        if bars.span is not None:
            runs += schedule_runs(*watch.charges(), bars.span)
        for one in runs:
            self._warn(series, where, one, file_at)
        self.coverage.append(bars.coverage)
        self.timelines.append(bars.timeline)

    def _warn(self, series: SeriesName, where: str, runs: Runs, file_at: Callable[[int], str]) -> None:
        for run in np.sort(np.argsort(-runs.bars, kind="stable")[:CAP]).tolist():
            first, last = int(runs.first[run]), int(runs.last[run])
            self.warnings.append(
                DataWarning(
                    file_at(first),
                    series.symbol,
                    series.interval,
                    runs.column,
                    runs.rule,
                    instant_text(first),
                    instant_text(last),
                    int(runs.bars[run]),
                    runs.value(run),
                )
            )
        if runs.bars.size > CAP:
            self.more_warnings.append(LeftOut(where, runs.rule, runs.bars.size - CAP))

    def report(self) -> Report:
        """The finished report."""
        more = [LeftOut(file, rule, n - CAP) for (file, rule), n in self.count.items() if n > CAP]
        return Report(
            tuple(self.problems),
            tuple(more),
            tuple(self.coverage),
            tuple(self.warnings),
            tuple(self.more_warnings),
            tuple(self.timelines),
        )
