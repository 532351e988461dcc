"""Files that overlap, warnings with their file, the report as JSON, on the command line and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest.data.dataset import write_history
from backtest.data.history import PriceHistory
from backtest.data.quality.check import CAP, Report, check, check_history
from backtest.report.plots.coverage import plot_coverage
from tests.cli.conftest import typed
from tests.data.test_anomalies import HOUR, NAN, calm, flat, put

YEAR = Path("interval=1h", "symbol=X", "year=1970")


def write(path: Path, hours: Sequence[int], row_group: int = 1000, **others: float) -> Path:
    """Bars of these hours, which are the same in every file but for `others`."""
    every = calm(5000)
    rows = np.array(hours)
    columns = {name: values[rows] for name, values in every.items()} | {"volume": rows + 1.0}
    columns |= {name: np.full(rows.size, value) for name, value in others.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    times = pa.array(HOUR * rows, pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"open_time": times} | columns), path, row_group_size=row_group)
    return path


def problems(report: Report) -> list[tuple[str, int | None, str | None, str]]:
    return [(Path(one.file).name, one.row, one.column, str(one.value)) for one in report.problems]


# --- overlap ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_group", [3, 7, 1000])
def test_bars_with_other_values_in_two_files_are_named(tmp_path: Path, row_group: int) -> None:
    first = write(tmp_path / YEAR / "a.parquet", range(20), row_group)
    write(tmp_path / YEAR / "b.parquet", range(14, 30), row_group, low=99.5)
    report = check(tmp_path)
    assert problems(report) == [
        ("b.parquet", 0, "open_time", "1970-01-01T14:00Z"),
        ("b.parquet", 0, "low", "99.5 and 100 there, 1970-01-01T14:00Z"),
    ]
    assert report.problems[1].rule == f"differs from {first} in 6 of 6 bars that both hold"
    assert report.coverage[0].bars == 30


def test_all_files_that_hold_a_bar_are_compared(tmp_path: Path) -> None:
    long = write(tmp_path / YEAR / "a.parquet", range(50))
    short = write(tmp_path / YEAR / "b.parquet", range(10, 12), high=102.0)
    write(tmp_path / YEAR / "c.parquet", [11, 60], high=103.0)
    rules = [one.rule for one in check(tmp_path).problems if one.column == "high"]
    assert rules == [
        f"differs from {long} in 2 of 2 bars that both hold",
        f"differs from {long} in 1 of 1 bars that both hold",
        f"differs from {short} in 1 of 1 bars that both hold",
    ]


def test_null_and_null_agree_and_null_and_a_value_do_not(tmp_path: Path) -> None:
    write(tmp_path / YEAR / "a.parquet", range(20), volume=NAN)
    second = write(tmp_path / YEAR / "b.parquet", range(18, 30), volume=NAN)
    pq.read_table(second).to_pandas().to_parquet(second)  # NaN becomes null
    assert [row for row in problems(check(tmp_path)) if row[0] == "b.parquet"] == [
        ("b.parquet", 0, "open_time", "1970-01-01T18:00Z")
    ]
    write(second, range(18, 30), volume=1.0)
    assert ("b.parquet", 0, "volume", "1 and nan there, 1970-01-01T18:00Z") in problems(check(tmp_path))


def test_files_are_taken_in_the_order_of_time(tmp_path: Path) -> None:
    write(tmp_path / YEAR / "a.parquet", range(20, 40))
    early = write(tmp_path / YEAR / "b.parquet", range(20), volume=0.0)
    report = check(tmp_path)
    assert (report.problems, report.coverage[0].bars) == ((), 40)
    assert [(one.file, one.column, one.bars) for one in report.warnings] == [(str(early), "volume", 20)]


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_a_warning_names_the_file_of_its_first_bar(tmp_path: Path) -> None:
    # 1970 ends with hour 8759, and hours 8750 … 8769 are missing.
    bars = put(flat(calm(9000), 8800, 3), slice(8750, 8770), high=NAN, low=NAN, close=NAN)
    write_history(PriceHistory("X", HOUR, 0, flat(bars, 300, 4)), tmp_path)
    found = [(Path(one.file).parent.name, one.column, one.first, one.bars) for one in check(tmp_path).warnings]
    assert found == [
        ("year=1970", None, "1970-12-31T14:00Z", 20),
        ("year=1970", "close", "1970-01-13T12:00Z", 4),
        ("year=1971", "close", "1971-01-02T16:00Z", 3),
    ]


@pytest.mark.parametrize("row_group", [1, 2, 7, 1000])
def test_row_groups_make_no_difference(tmp_path: Path, row_group: int) -> None:
    hours = [hour for hour in range(120) if hour not in {40, 41}]
    write(tmp_path / "X.parquet", hours, row_group)
    table = pq.read_table(tmp_path / "X.parquet").to_pandas()
    table.loc[60, "high"] = 400.0
    table.loc[90:93, ["high", "low", "close"]] = table.loc[89, "close"]
    table.loc[90:93, "volume"] = 0.0
    table.to_parquet(tmp_path / "X.parquet", row_group_size=row_group)
    found = [(one.column, one.first, one.bars) for one in check(tmp_path / "X.parquet").warnings]
    assert found == [
        (None, "1970-01-02T16:00Z", 2),
        ("close", "1970-01-04T20:00Z", 4),
        ("high", "1970-01-03T14:00Z", 1),
    ]


def test_the_longest_are_listed_and_the_rest_is_counted() -> None:
    bars = calm(2000)
    for place in range(30):
        bars = put(bars, slice(50 * place + 10, 50 * place + 11 + place), high=NAN, low=NAN, close=NAN)
    report = check_history(PriceHistory("X", HOUR, 0, bars))
    assert [one.bars for one in report.warnings] == list(range(11, 31))
    assert [gap.bars for gap in report.coverage[0].largest] == [26, 27, 28, 29, 30]
    (more,) = report.warnings_left_out
    assert (more.file, more.count) == ("X", 10)
    assert report.text().splitlines()[-1] == f"no problems, {CAP + 10} warnings"
    assert "X: 10 more like this: no bars with trigger prices: a gap" in report.text()


def test_a_warning_is_one_line() -> None:
    report = check_history(PriceHistory("X", HOUR, 0, put(flat(calm(), 20, 3), 40, high=151.0)))
    assert report.text().splitlines()[1:] == [
        "warning: X, 1970-01-01T20:00Z … 1970-01-01T22:00Z, 3 bars: close repeats the bar before, as if filled "
        "forward; got 100.75",
        "warning: X, 1970-01-02T16:00Z: high lies more than 40 times the usual range beyond the bars on either side; "
        "got 151",
        "no problems, 2 warnings",
    ]


# --- JSON and command line --------------------------------------------------------------------------------------------


def record(**fields: list[str]) -> dict[str, object]:
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": kinds} for name, kinds in fields.items()},
            "required": list(fields),
            "additionalProperties": False,
        },
    }


TEXT, NUMBER, ANY = ["string"], ["integer"], ["string", "number", "null"]
LEFT_OUT = record(file=TEXT, rule=TEXT, count=NUMBER)
SCHEMA = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "problems": record(file=TEXT, row=["integer", "null"], column=["string", "null"], rule=TEXT, value=ANY),
        "left_out": LEFT_OUT,
        "coverage": {"type": "array", "items": {"type": "object"}},
        "warnings": record(
            file=TEXT, symbol=TEXT, interval=TEXT, column=["string", "null"], rule=TEXT, first=TEXT, last=TEXT,
            bars=NUMBER, value=ANY,
        ),
        "warnings_left_out": LEFT_OUT,
    },
    "required": ["ok", "problems", "left_out", "coverage", "warnings", "warnings_left_out"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """Bars with a warning of every kind: gap, repeats, wick, jump, mark and funding."""
    bars = flat(calm(1200), 200, 5) | {"volume": np.ones(1200)}
    bars = put(put(bars, slice(100, 104), high=NAN, low=NAN, close=NAN), slice(200, 205), volume=0.0)
    bars = put(put(bars, 300, high=151.0), 400, low=80.0, close=80.0)
    bars = put(bars, slice(500, 504), volume=0.0) | {
        f"mark_{name}": 1.1 * np.roll(bars[name], 1) for name in ("high", "low", "close")
    }
    bars["funding_rate"] = np.where((np.arange(1200) % 8 == 0) & (np.arange(1200) != 640), 1e-4, NAN)
    write_history(PriceHistory("X", HOUR, 0, bars), tmp_path / "data")
    return tmp_path / "data"


def test_the_json_is_of_one_shape(doubtful: Path, tmp_path: Path) -> None:
    done = typed("check", doubtful, "--json")
    document = json.loads(done.out)
    jsonschema.validate(document, SCHEMA)
    assert done.code == 0 and document["ok"]
    doubted = {one["column"] for one in document["warnings"]}
    assert {None, "close", "high", "volume", "mark_close", "funding_rate"} <= doubted
    spoilt = typed("check", write(tmp_path / "X.parquet", range(20), close=0.0), "--json")
    assert spoilt.code == 1
    jsonschema.validate(json.loads(spoilt.out), SCHEMA)


def test_warnings_end_with_1_where_that_is_asked_for(doubtful: Path, tmp_path: Path) -> None:
    write_history(PriceHistory("Y", HOUR, 0, calm()), tmp_path / "sound")
    assert [typed("check", doubtful, *words).code for words in ((), ("--strict",))] == [0, 1]
    for words in ((), ("--strict",)):
        done = typed("check", tmp_path / "sound", *words)
        assert (done.code, done.out.splitlines()[-1]) == (0, "no problems")


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "svg", "pdf", "gif"])
def test_coverage_is_drawn(doubtful: Path, tmp_path: Path, kind: str) -> None:
    done = typed("check", doubtful, "--plot", tmp_path / f"coverage.{kind}")
    if kind == "gif":
        assert done.code == 2 and "--plot must end in .png, .svg or .pdf" in done.err
    else:
        assert done.code == 0 and (tmp_path / f"coverage.{kind}").stat().st_size > 5_000


def test_the_picture_says_what_the_report_says(doubtful: Path) -> None:
    report = check(doubtful)
    ax = plot_coverage(report)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["X 1h"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["last", "mark", "funding", "gap", "warning"]
    others = [one for one in report.warnings if one.column is not None]
    (note,) = [text.get_text() for text in ax.texts]
    # 1196 of 1200 bars less the last, which mark alone would have
    assert note == f"99.67 % of 1,200 bars, 1 gap, {len(others)} warnings"
    (marks,) = [line for line in ax.get_lines() if line.get_marker() == "v"]
    assert len(np.asarray(marks.get_xdata())) == len(others)


def test_timelines_tell_how_full_each_piece_is() -> None:
    # 4,000 bars in 1,000 pieces of 4; bars 8 … 10 are missing, and mark begins with bar 2,000.
    bars = put(calm(4000), slice(8, 11), high=NAN, low=NAN, close=NAN)
    mark = np.where(np.arange(4000) < 2000, NAN, 100.5)
    charges = np.where(np.arange(4000) % 8, NAN, 1e-4)
    columns = bars | {"mark_high": mark, "mark_low": mark, "mark_close": mark, "funding_rate": charges}
    (line,) = check_history(PriceHistory("X", HOUR, 0, columns)).timelines
    assert line.last[:4].tolist() == [1.0, 1.0, 0.25, 1.0]
    assert line.last[4:].min() == 1.0
    assert (line.mark[:500].max(), line.mark[500:].min()) == (0.0, 1.0)
    assert (line.charges.size, line.charges.sum()) == (167, 500)  # 4,000 hours are 166 days and 16 hours
    assert line.end_ms == 4000 * HOUR


@pytest.mark.parametrize("count", [1, 40])
def test_rows_are_legible(count: int) -> None:
    one = check_history(PriceHistory("X", HOUR, 0, calm()))
    ax = plot_coverage(Report((), (), one.coverage * count, timelines=one.timelines * count))
    figure = ax.get_figure(root=True)
    assert figure is not None
    assert figure.get_size_inches()[1] <= 12
    sizes = [float(label.get_fontsize()) for label in ax.get_yticklabels()]
    inches = figure.get_size_inches()[1] / count
    assert min(sizes) >= 6.5
    assert max(sizes) / 72 < inches
