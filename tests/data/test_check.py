"""Every problem of a dataset is found with file, row, column and value; gaps are coverage, not problems."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest.data.dataset import read_history, write_history
from backtest.data.history import PriceHistory
from backtest.data.quality.check import CAP, Gap, Problem, check, check_history
from backtest.engine.bars import build_grid
from backtest.errors import ConfigError, DataError

HOUR = 3_600_000
NAN = float("nan")


def sound(count: int = 5) -> dict[str, list[float | None]]:
    close = [10.0 + bar for bar in range(count)]
    return {"open": close[:], "high": [c + 1 for c in close], "low": [c - 1 for c in close], "close": close[:]}


def write(path: Path, hours: list[float] | None = None, **columns: object) -> Path:
    """A file of sound rows in which some columns are replaced, or left out where None."""
    count = 5 if hours is None else len(hours)
    stamps = pa.array([round(hour * HOUR) for hour in (hours or range(count))], pa.timestamp("ms", "UTC"))
    given = {"open_time": stamps} | sound(count) | columns
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: values for name, values in given.items() if values is not None}), path)
    return path


def put(values: list[float | None], row: int, value: float | None) -> list[float | None]:
    return [*values[:row], value, *values[row + 1 :]]


def column(name: str, row: int, value: float | None) -> dict[str, list[float | None]]:
    return {name: put(sound()[name], row, value)}


MARK = {"mark_" + name: values for name, values in sound().items()}


@pytest.mark.parametrize(
    ("columns", "where", "rule", "value"),
    [
        (column("close", 1, 0.0), (1, "close"), "must be > 0", 0.0),
        (column("low", 2, -5.0), (2, "low"), "must be > 0", -5.0),
        (column("high", 3, float("inf")), (3, "high"), "must be finite or null", "inf"),
        (column("close", 4, NAN), (4, "close"), "must be finite or null", "nan"),
        ({"funding_rate": [None, 0.0, NAN, 0.1, None]}, (2, "funding_rate"), "must be finite or null", "nan"),
        ({"volume": [1.0, -np.inf, 0.0, 1.0, None]}, (1, "volume"), "must be finite or null", "-inf"),
        ({"maintenance_scale": [1.0, 0.0, -0.5, 1.0, None]}, (2, "maintenance_scale"), "must be ≥ 0", -0.5),
        (column("high", 1, 9.5), (1, "high"), "must not be below low", 9.5),
        (column("open", 1, 12.5), (1, "open"), "must lie within low … high", 12.5),
        (column("close", 1, 9.75), (1, "close"), "must lie within low … high", 9.75),
        (MARK | {"mark_high": put(MARK["mark_high"], 0, 8.0)}, (0, "mark_high"), "must not be below mark_low", 8.0),
        (MARK | {"mark_open": put(MARK["mark_open"], 0, 8.0)}, (0, "mark_open"), "must lie within mark_low", 8.0),
        (column("open", 3, None), (3, "open"), "is null while others of open, high, low, close are not", None),
        (MARK | {"mark_low": put(MARK["mark_low"], 2, None)}, (2, "mark_low"), "is null while others of mark_", None),
        ({"volume": ["a"] * 5}, (None, "volume"), "must hold numbers; got string", None),
        ({"close": None}, (None, None), "needs the columns close, high, low or mark_close,", None),
        ({"open_time": pa.array([0, None, 2, 3, 4], pa.timestamp("s"))}, (1, "open_time"), "must not be null", None),
        ({"open_time": [0, 1, 2, 3, 4]}, (None, None), "column open_time must hold timestamps in UTC; got int64", None),
        ({"open_time": None}, (None, None), "column open_time is missing; found open, high", None),
    ],
)
def test_each_rule_is_found_where_it_is_broken(
    tmp_path: Path, columns: dict[str, object], where: tuple[int | None, str | None], rule: str, value: object
) -> None:
    file = write(tmp_path / "x.parquet", **columns)
    report = check(file)
    assert not report.ok
    first = report.problems[0]
    assert (first.file, first.row, first.column, first.value) == (str(file), *where, value)
    assert first.rule.startswith(rule)


def test_a_sound_file_has_no_problem(tmp_path: Path) -> None:
    report = check(write(tmp_path / "x.parquet", **MARK, funding_rate=[None, 0.0, -0.1, None, None], note=["a"] * 5))
    assert report.ok
    assert report.coverage[0].trigger == "mark"
    assert report.coverage[0].charges == 2


@pytest.mark.parametrize(
    ("hours", "found"),
    [
        ([0, 1, 1, 2, 3], [(2, "must not repeat the time before it", "1970-01-01T01:00Z")]),
        ([0, 1, 3, 2, 4], [(3, "must not go back in time", "1970-01-01T02:00Z")]),
        ([0, 1, 2.25, 3, 4], [(2, "must be a multiple of the interval 1h since the epoch", "1970-01-01T02:15Z")]),
        ([5, 4, 4, 0, 1], [(2, "must not repeat", "1970-01-01T04:00Z"), (1, "must not go back", "1970-01-01T04:00Z")]),
    ],
)
def test_bad_times_are_found(tmp_path: Path, hours: list[float], found: list[tuple[int, str, str]]) -> None:
    write(tmp_path / "interval=1h" / "symbol=X" / "year=1970" / "a.parquet", hours)
    problems = check(tmp_path).problems
    for problem, (row, rule, value) in zip(problems, found, strict=False):
        assert (problem.row, problem.column, problem.value) == (row, "open_time", value)
        assert problem.rule.startswith(rule)
    assert len(problems) >= len(found)


def test_all_problems_of_all_files_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "interval=1h" / "symbol=X"
    first = write(folder / "year=1970" / "a.parquet", **column("close", 1, 0.0))
    second = write(folder / "year=1970" / "b.parquet", [5, 6, 7, 8, 9], **column("high", 2, 1.0))
    third = folder / "year=1971" / "c.parquet"
    third.parent.mkdir()
    third.write_bytes(first.read_bytes()[:-9])
    found = {(problem.file, problem.row, problem.column) for problem in check(tmp_path).problems}
    assert {(str(first), 1, "close"), (str(second), 2, "high"), (str(third), None, None)} <= found


def test_files_that_overlap_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "interval=1h" / "symbol=X" / "year=1970"
    first = write(folder / "a.parquet", [0, 1, 2, 3, 4])
    later = {name: [value + 3 for value in values] for name, values in sound().items()}
    second = write(folder / "b.parquet", [3, 4, 5, 6, 7], **later)
    (problem,) = check(tmp_path).problems
    rule = f"must come after the bars of {first} (2 of this file do not)"
    assert problem == Problem(str(second), 0, "open_time", rule, "1970-01-01T03:00Z")
    assert check(tmp_path).coverage[0].bars == 8


def test_rows_are_counted_over_row_groups(tmp_path: Path) -> None:
    table = pa.table({"open_time": pa.array([0, 1, 2, 2, 4], pa.timestamp("s"))} | sound() | column("low", 4, -1.0))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    found = [(problem.row, problem.column) for problem in check(tmp_path / "x.parquet").problems]
    assert found == [(3, "open_time"), (4, "low")]


def test_many_problems_are_capped_and_the_rest_is_counted(tmp_path: Path) -> None:
    count = 3 * CAP
    close = [0.0] * count
    file = write(tmp_path / "x.parquet", list(range(count)), close=close)
    report = check(file)
    assert [problem.row for problem in report.problems if problem.rule == "must be > 0"] == list(range(CAP))
    more = {one.rule: one.count for one in report.left_out}
    assert more["must be > 0"] == 2 * CAP
    assert f"{file}: 40 more like this: must be > 0" in report.text()
    assert report.text().endswith(f"{2 * count} problems")  # close ≤ 0 lies outside of low … high as well


def test_gaps_are_coverage(tmp_path: Path) -> None:
    # Bars 0 1 . . 4 5 . 7 and a row of bar 8 that holds a charge only: the grid ends at bar 7.
    hours = [0, 1, 4, 5, 7, 8]
    columns = {name: [*values[:5], None] for name, values in sound(6).items()}
    report = check(write(tmp_path / "X.parquet", hours, **columns, funding_rate=[None, 0.1, None, None, None, 0.2]))
    assert report.ok
    (one,) = report.coverage
    assert (one.symbol, one.interval, one.trigger) == ("X", "1h", "last")
    assert (one.first, one.last) == ("1970-01-01T00:00Z", "1970-01-01T07:00Z")
    assert (one.bars, one.missing, one.gaps, one.longest_gap, one.charges) == (8, 3, 2, 2, 2)
    gaps = [("1970-01-01T02:00Z", "1970-01-01T03:00Z", 2), ("1970-01-01T06:00Z", "1970-01-01T06:00Z", 1)]
    assert one.largest == tuple(Gap(*gap) for gap in gaps)
    assert [(warning.first, warning.last, warning.bars) for warning in report.warnings] == gaps
    assert report.text().splitlines()[-1] == "no problems, 2 warnings"


@pytest.mark.parametrize("seed", range(20))
def test_coverage_is_that_of_the_grid(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    close = rng.uniform(10, 20, 60)
    columns = {}
    for prefix in ("", "mark_") if seed % 2 else ("",):
        here = np.where(rng.random(60) < 0.3, NAN, close)
        columns |= {prefix + n: here + d for n, d in (("open", 0), ("high", 1), ("low", -1), ("close", 0))}
    write_history(PriceHistory("X", HOUR, 0, columns), tmp_path)
    report = check(tmp_path)
    grid = build_grid(read_history(tmp_path))
    (one,) = report.coverage
    assert report.ok
    gaps = [warning for warning in report.warnings if warning.column is None]
    assert (len(gaps), sum(gap.bars for gap in gaps)) == (one.gaps, one.missing)
    assert (one.trigger, one.bars, one.longest_gap) == (grid.trigger, grid.n_bars, grid.longest_gap())
    assert one.missing == int((~grid.has_trigger).sum())
    again = check_history(PriceHistory("X", HOUR, 0, columns))
    assert (again.coverage, again.problems) == (report.coverage, report.problems)
    without_files = [[replace(warning, file="") for warning in one.warnings] for one in (again, report)]
    assert without_files[0] == without_files[1]


def test_a_series_that_cannot_be_run_is_a_problem(tmp_path: Path) -> None:
    history = PriceHistory("X", HOUR, 0, {"close": np.array([NAN, 1.0]), "high": np.full(2, NAN), "low": np.ones(2)})
    report = check_history(history)
    assert "a bar with both an entry price and trigger prices must be there" in report.text()
    assert report.coverage[0].trigger is None
    low, high, close = np.array([9.0, 9.0]), np.array([11.0, 11.0]), np.array([10.0, 10.0])
    mark = {"mark_low": low, "mark_high": high, "mark_close": np.array([NAN, 10.0])}
    columns = {"low": low, "high": high, "close": close, "funding_rate": np.array([NAN, 0.1])} | mark
    report = check_history(PriceHistory("X", HOUR, 0, columns))
    assert any(
        problem.rule == "a charge needs a price to fall on; none is known by the bar of 1970-01-01T01:00Z"
        for problem in report.problems
    )


def test_the_report_is_json_and_text(tmp_path: Path) -> None:
    file = write(tmp_path / "X.parquet", **column("close", 1, NAN))
    report = check(file)
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document["ok"] is False
    problem = {"file": str(file), "row": 1, "column": "close", "rule": "must be finite or null", "value": "nan"}
    assert document["problems"][0] == problem
    assert document["coverage"][0]["bars"] == 5
    assert report.text().splitlines() == [
        "X 1h: 1970-01-01T00:00Z … 1970-01-01T04:00Z, 5 bars, none missing; 0 funding charges; trigger last",
        f"{file}, row 1, column close: must be finite or null; got nan",
        "1 problem",
    ]


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        check(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no interval="):
        check(tmp_path)
    (tmp_path / "x.parquet").write_text("no")
    report = check(tmp_path / "x.parquet")
    assert (report.coverage, report.problems[0].rule.split(";")[0]) == ((), "not a readable Parquet file")
