"""The dataset: what is written is read back, a range is a slice, and only what it needs is touched."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.data import transaction, writer
from backtest.data.dataset import list_series, read_history, write_history
from backtest.data.files import SeriesName
from backtest.data.history import COLUMNS, PriceHistory
from backtest.data.reader import BarFile, RowGroup
from backtest.engine.bars import Grid, build_grid
from backtest.errors import BacktestError, ConfigError, DataError
from backtest.units import instant_ms, instant_text

HOUR = 3_600_000
NAN = float("nan")
NEW_YEAR = instant_ms("2021-01-01")


def bars(n_bars: int = 6, start_ms: int = NEW_YEAR - 2 * HOUR, symbol: str = "BTCUSDT") -> PriceHistory:
    close = 10.0 + np.arange(n_bars)
    columns = {"open": close - 0.5, "high": close + 1, "low": close - 1, "close": close}
    return PriceHistory(symbol, HOUR, start_ms, columns)


def stamps(*hours: float) -> pa.Array:
    return pa.array([int(hour * HOUR) for hour in hours], pa.timestamp("ms", "UTC"))


def plain(path: Path, times: object = None, options: Mapping[str, object] | None = None, **columns: object) -> Path:
    """A file as a user may have it; high, low, close are filled in."""
    times = stamps(0, 1, 2) if times is None else times
    count = len(times)
    given = {"high": [3.0] * count, "low": [1.0] * count, "close": [2.0] * count} | columns
    table = pa.table({"open_time": times} | {k: v for k, v in given.items() if v is not None})
    pq.write_table(table, path, **options or {})
    return path


def same(one: PriceHistory, two: PriceHistory) -> None:
    assert (one.symbol, one.interval_ms, one.start_ms) == (two.symbol, two.interval_ms, two.start_ms)
    assert list(one.columns) == [name for name in COLUMNS if name in two.columns]
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name], err_msg=name)


@st.composite
def histories(draw: st.DrawFn) -> PriceHistory:
    """Up to 40 bars around a new year with nulls everywhere, both prices and funding."""
    n_bars = draw(st.integers(1, 40))
    step = draw(st.sampled_from([60_000, HOUR, 24 * HOUR]))
    start = NEW_YEAR - step * draw(st.integers(0, 20))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    sparse = dict(zip(COLUMNS, rng.choice([0.0, 0.2, 0.7], len(COLUMNS)), strict=True))
    columns = {}
    for prefix in ("", "mark_"):
        close = rng.uniform(10, 20, n_bars)
        for name, shift in (("open", 0.5), ("high", 1.0), ("low", -1.0), ("close", 0.0)):
            columns[prefix + name] = close + shift
    columns["funding_rate"] = rng.normal(0, 1e-4, n_bars)
    columns["volume"] = rng.uniform(0, 9, n_bars)
    columns = {name: np.where(rng.random(n_bars) < sparse[name], NAN, values) for name, values in columns.items()}
    for name in draw(st.sets(st.sampled_from(["open", "mark_open", "funding_rate", "volume"]))):
        del columns[name]
    for name in ("high", "low", "close"):
        columns[name][[0, -1]] = [11.0, 12.0]  # the ends are rows
    return PriceHistory("X", step, start, columns)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_what_is_written_is_read_back(history: PriceHistory) -> None:
    with tempfile.TemporaryDirectory() as data:
        write_history(history, data)
        again = read_history(data)
    same(again, history)
    assert again.series == history.series
    assert again.before == {}


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(-3, 42), st.integers(1, 42), st.sampled_from(["mark", "last"]))
def test_a_range_is_a_slice_of_the_whole(history: PriceHistory, first: int, count: int, trigger: str) -> None:
    step = history.interval_ms
    low, high = history.start_ms + first * step, history.start_ms + (first + count) * step

    def outcome(whole: bool) -> Grid | str:
        try:
            part = read_history(data) if whole else read_history(data, start=instant_text(low), end=instant_text(high))
            return build_grid(part, trigger, low, high)
        except BacktestError as error:
            return type(error).__name__

    with tempfile.TemporaryDirectory() as data, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROW_GROUP", 4)
        write_history(history, data)
        filled = np.any([~np.isnan(values) for values in history.columns.values()], axis=0)
        rows = np.flatnonzero(filled)
        rows = rows[(rows >= first) & (rows < first + count)]
        if rows.size:
            part = read_history(data, start=instant_text(low), end=instant_text(high))
            cut = slice(rows[0], rows[-1] + 1)
            columns = {name: values[cut] for name, values in history.columns.items()}
            same(part, PriceHistory("X", step, history.start_ms + int(rows[0]) * step, columns))
            assert part.series == history.series
        whole, cut_first = outcome(True), outcome(False)
    # The grid of the part is the grid of the whole, what lies before the range included: prices of charges too.
    if isinstance(whole, str) or isinstance(cut_first, str):
        # A history without the trigger and a range without bars are refused for either reason, whichever is seen first.
        both = {whole, cut_first} == {"DataError", "NoBars"} and trigger not in history.series
        assert whole == cut_first or both
        return
    for name in Grid.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut_first, name), err_msg=name)


# --- what is touched --------------------------------------------------------------------------------------------------


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, tuple[str, ...]]]:
    """Row groups read: year folder, index, columns."""
    seen: list[tuple[str, int, tuple[str, ...]]] = []

    def read(file: BarFile, group: RowGroup, names: tuple[str, ...]) -> object:
        seen.append((file.path.parent.name, group.index, names))
        return original(file, group, names)

    original = BarFile.read
    monkeypatch.setattr(BarFile, "read", read)
    monkeypatch.setattr(writer, "ROW_GROUP", 10)
    return seen


def test_only_the_row_groups_of_the_range_are_read(
    tmp_path: Path, touched: list[tuple[str, int, tuple[str, ...]]]
) -> None:
    write_history(bars(100, NEW_YEAR - 50 * HOUR), tmp_path)  # five row groups of ten hours in each year
    read = ("open_time", "open", "high", "low", "close")
    assert read_history(tmp_path, start="2021-01-01T10:00", end="2021-01-01T20:00").n_bars == 10
    assert touched == [("year=2021", 1, read)]
    touched.clear()
    assert read_history(tmp_path, start="2020-12-31T23:00", end="2021-01-01T01:00").n_bars == 2
    assert touched == [("year=2020", 4, read), ("year=2021", 0, read)]
    touched.clear()
    assert list_series(tmp_path) == [SeriesName("1h", "BTCUSDT")]
    with pytest.raises(DataError, match="no bar in the range"):
        read_history(tmp_path, start="2022-01-01")
    assert touched == []
    read_history(tmp_path)
    assert len(touched) == 10


def test_closes_before_the_range_are_read_only_for_a_charge_without_a_price(
    tmp_path: Path, touched: list[tuple[str, int, tuple[str, ...]]]
) -> None:
    close = np.full(40, 10.0)
    close[21:30] = NAN  # known in row group 2 up to its first bar
    close[30] = NAN
    nothing = np.full(40, NAN)
    funding = nothing.copy()
    funding[31] = 1e-4  # bar 30 has low and high, no close; bar 31 a charge and no open
    columns = {"high": np.full(40, 11.0), "low": np.full(40, 9.0), "close": close, "funding_rate": funding}
    columns["close"][31] = 10.5
    columns["close"][20] = 10.25
    start = instant_text(NEW_YEAR + 30 * HOUR)
    write_history(PriceHistory("X", HOUR, NEW_YEAR, columns), tmp_path)
    part = read_history(tmp_path, start=start)
    assert part.before == {"close": 10.25}
    assert touched[1:] == [("year=2021", 2, ("open_time", "close"))]  # backwards, no further than needed
    assert part.columns["close"][1] == 10.5
    touched.clear()
    columns = dict(columns, open=np.full(40, 10.0))
    write_history(PriceHistory("X", HOUR, NEW_YEAR, columns), tmp_path, overwrite=True)
    assert read_history(tmp_path, start=start).before == {}
    assert [index for _, index, _ in touched] == [3]


def test_series_are_those_of_the_whole_history(tmp_path: Path) -> None:
    columns = dict(bars().columns, mark_open=np.array([9.0, *[NAN] * 5]))
    write_history(PriceHistory("X", HOUR, NEW_YEAR - 2 * HOUR, columns), tmp_path)
    part = read_history(tmp_path, start="2021-01-01")
    assert np.isnan(part.columns["mark_open"]).all()
    assert part.series == {"last", "mark"}


def test_a_file_without_statistics_is_read_all_the_same(tmp_path: Path) -> None:
    file = plain(tmp_path / "x.parquet", None, {"write_statistics": False}, close=[2.0, 2.0, None])
    part = read_history(file, start="1970-01-01T02:00")
    assert (part.n_bars, part.series) == (1, {"last"})


def test_local_paths_need_neither_pandas_nor_object_stores(tmp_path: Path) -> None:
    write_history(bars(), tmp_path)
    file = next(tmp_path.rglob("*.parquet"))
    code = (
        "import sys, backtest as bt;"
        f"h = bt.read_history({str(tmp_path)!r}, start='2020-12-31'); bt.read_history({str(file)!r});"
        f"bt.write_history(h, {str(tmp_path / 'again')!r}); assert bt.check({str(tmp_path)!r}).ok;"
        "print([m for m in ('pandas', 'pyarrow.dataset', 'concurrent.futures.thread') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "[]"


# --- which series -----------------------------------------------------------------------------------------------------


def test_an_ambiguous_dataset_lists_the_choices(tmp_path: Path) -> None:
    for symbol, step in (("BTCUSDT", HOUR), ("ETHUSDT", HOUR), ("BTCUSDT", 60_000)):
        write_history(PriceHistory(symbol, step, NEW_YEAR, dict(bars(symbol=symbol).columns)), tmp_path)
    held = [("1h", "BTCUSDT"), ("1h", "ETHUSDT"), ("1m", "BTCUSDT")]
    assert list_series(tmp_path) == [SeriesName(*names) for names in held]
    for words, message in (
        ((), "holds more than one symbol: BTCUSDT, ETHUSDT; name one"),
        (("BTCUSDT",), "holds more than one interval of BTCUSDT: 1m, 1h; name one"),
        (("XRPUSDT",), "has no symbol 'XRPUSDT'; it holds BTCUSDT, ETHUSDT"),
        (("ETHUSDT", "1m"), "has no interval of ETHUSDT '1m'; it holds 1h"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_history(tmp_path, *words)
    assert read_history(tmp_path, "ETHUSDT").interval_ms == HOUR  # it has one only
    assert read_history(tmp_path, "BTCUSDT", "60m").interval_ms == HOUR
    assert read_history(tmp_path / "interval=1m").interval_ms == 60_000
    assert list_series(tmp_path / "interval=1h" / "symbol=ETHUSDT") == [SeriesName("1h", "ETHUSDT")]


def test_a_symbol_may_hold_any_character(tmp_path: Path) -> None:
    path = write_history(bars(symbol="BTC/USDT:USDT"), tmp_path)
    assert path == tmp_path / "interval=1h" / "symbol=BTC%2FUSDT%3AUSDT"
    assert read_history(tmp_path, "BTC/USDT:USDT").symbol == "BTC/USDT:USDT"
    assert read_history(path).n_bars == 6


def test_a_plain_file_is_a_dataset_of_one_symbol(tmp_path: Path) -> None:
    file = plain(tmp_path / "SOLUSDT.parquet", pa.array([0, 3 * HOUR, 5 * HOUR], pa.timestamp("ms")))
    assert list_series(file) == [SeriesName("2h", "SOLUSDT")]
    with pytest.raises(DataError, match=r"must hold multiples of the interval 2h .* got 1970-01-01T03:00Z in row 1"):
        read_history(file)
    assert read_history(file, interval="1h").n_bars == 6
    assert read_history(file, "SOL", "1h").symbol == "SOL"
    one_bar = plain(tmp_path / "x.parquet", pa.array([0], pa.timestamp("ms")))
    with pytest.raises(ConfigError, match=r"the interval cannot be told from 1 bar\(s\); name it"):
        read_history(one_bar)
    assert read_history(one_bar, interval="1h").n_bars == 1


@pytest.mark.parametrize(
    ("start", "end", "error", "message"),
    [
        ("2021-01-02", "2021-01-02", ConfigError, "start must lie before end"),
        ("yesterday", None, ConfigError, "a time is ISO 8601"),
        (None, "2020-01-01", DataError, "BTCUSDT 1h spans 2020-12-31T22:00Z … 2021-01-01T04:00Z"),
    ],
)
def test_a_range_without_bars_is_refused(
    tmp_path: Path, start: str | None, end: str | None, error: type[BacktestError], message: str
) -> None:
    write_history(bars(), tmp_path)
    with pytest.raises(error, match=message):
        read_history(tmp_path, start=start, end=end)


def test_a_path_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        read_history(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no interval=…/symbol=…/year=…/\*.parquet"):
        list_series(tmp_path)
    (tmp_path / "interval=often" / "symbol=X" / "year=2021").mkdir(parents=True)
    plain(tmp_path / "interval=often" / "symbol=X" / "year=2021" / "x.parquet")
    with pytest.raises(DataError, match="folder interval=often: a duration is a whole number"):
        list_series(tmp_path)


# --- what a file may hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [None, "UTC", "+00:00", "America/New_York"])
@pytest.mark.parametrize(("unit", "per_ms"), [("s", 1e-3), ("ms", 1), ("us", 1000), ("ns", 10**6)])
def test_times_of_every_unit_and_zone_are_the_same_instants(
    tmp_path: Path, unit: str, per_ms: float, zone: str | None
) -> None:
    stamps = [int((NEW_YEAR + bar * HOUR) * per_ms) for bar in range(3)]
    file = plain(tmp_path / "x.parquet", pa.array(stamps, pa.timestamp(unit, zone)))
    history = read_history(file, start="2021-01-01T01:00")
    assert (history.start_ms, history.n_bars) == (NEW_YEAR + HOUR, 2)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, None], pa.int32()),
        pa.array([1, 2, None], pa.float32()),
        pa.array([Decimal("1.0"), Decimal("2.0"), None], pa.decimal128(9, 1)),
    ],
)
def test_numbers_of_other_types_are_cast_and_null_stays_null(tmp_path: Path, values: object) -> None:
    history = read_history(plain(tmp_path / "x.parquet", volume=values))
    np.testing.assert_array_equal(history.columns["volume"], [1.0, 2.0, NAN])


def test_unknown_columns_are_ignored_and_a_column_of_nulls_is_no_price(tmp_path: Path) -> None:
    file = plain(tmp_path / "x.parquet", note=["a", "b", "c"], mark_close=pa.nulls(3))
    history = read_history(file)
    assert "note" not in history.columns
    assert history.series == {"last"}


def test_a_year_may_lack_a_column(tmp_path: Path) -> None:
    path = write_history(bars(), tmp_path)
    file = path / "year=2020" / "part-0.parquet"
    pq.write_table(pq.ParquetFile(file).read(["open_time", "high", "low", "close"]), file)
    np.testing.assert_array_equal(read_history(tmp_path).columns["open"], [NAN, NAN, 11.5, 12.5, 13.5, 14.5])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"close": [1.0, NAN, 2.0]}, "x.parquet: column close must be finite or null; got nan in row 1"),
        ({"funding_rate": [0.0, 0.0, np.inf]}, "column funding_rate must be finite or null; got inf in row 2"),
        ({"maintenance_scale": [1.0, -np.inf, 1.0]}, "column maintenance_scale must be finite or null; got -inf"),
        ({"close": None}, "x.parquet: needs the columns close, high, low or mark_close, mark_high, mark_low; found hi"),
        ({"close": ["1", "2", "3"]}, "x.parquet: column close must hold numbers; got string"),
        ({"close": [True, False, True]}, "x.parquet: column close must hold numbers; got bool"),
        ({"close": [2.0, -1.0, 2.0]}, "column close must be > 0; got -1 in the bar of 1970-01-01T01:00Z"),
        ({"times": [0, HOUR, 2 * HOUR]}, "x.parquet: column open_time must hold timestamps in UTC; got int64"),
        ({"times": stamps(0, 2, 1)}, "column open_time goes back in time in row 2, 1970-01-01T01:00Z; sort"),
        ({"times": stamps(0, 1, 1)}, "column open_time repeats the time before it in row 2, 1970-01-01T01:00Z"),
        ({"times": stamps(0, 1, 1.5)}, "got 1970-01-01T01:30Z in row 2"),
        ({"times": pa.array([0, None, 2], pa.timestamp("s"))}, "column open_time must not be null; got null in row 1"),
        ({"times": pa.array([0, 1, 2], pa.timestamp("us"))}, "must be whole milliseconds; got .*000001 in row 1"),
        ({"times": pa.array([0, 10**15], pa.timestamp("ms"))}, r"must lie in the years 1970 … 2199 \(is the unit"),
        ({"times": stamps(0, 2, 2, 3), "start": "1970-01-01T03:00"}, "in row 2, 1970-01-01T02:00Z"),  # before the range
    ],
)
@pytest.mark.parametrize("row_group", [2, 1000])
def test_bad_values_are_refused_with_file_column_and_row(
    tmp_path: Path, columns: dict[str, object], message: str, row_group: int
) -> None:
    given = {name: values for name, values in columns.items() if name not in {"times", "start"}}
    file = plain(tmp_path / "x.parquet", columns.get("times"), {"row_group_size": row_group}, **given)
    with pytest.raises(DataError, match=message):
        read_history(file, interval="1h", start=columns.get("start"))


def test_files_that_overlap_are_refused_with_file_and_row(tmp_path: Path) -> None:
    path = write_history(bars(), tmp_path)
    (path / "year=2021" / "more.parquet").write_bytes((path / "year=2021" / "part-0.parquet").read_bytes())
    with pytest.raises(
        DataError, match=r"year=2021/(part-0|more)\.parquet: column open_time goes back in time in row 0"
    ):
        read_history(tmp_path)


def test_files_are_ordered_by_their_times_not_their_names(tmp_path: Path) -> None:
    path = write_history(bars(), tmp_path)
    (path / "year=2021" / "part-0.parquet").rename(path / "year=2020" / "a.parquet")
    same(read_history(tmp_path), bars())


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-20],
        lambda raw: raw[:40],
        lambda raw: b"",
        lambda raw: b"text",
        lambda raw: raw[:4] + bytes(len(raw) // 2 - 4) + raw[len(raw) // 2 :],  # pages; the footer stays whole
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = write_history(bars(5000), tmp_path) / "year=2021" / "part-0.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"year=2021/part-0\.parquet: not a readable Parquet file"):
        read_history(tmp_path)


# --- writing ----------------------------------------------------------------------------------------------------------


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_the_layout_and_schema_are_as_promised(tmp_path: Path) -> None:
    columns = {name: values.copy() for name, values in bars().columns.items()}
    for values in columns.values():
        values[3] = NAN  # a missing bar
    path = write_history(PriceHistory("BTCUSDT", HOUR, NEW_YEAR - 2 * HOUR, columns), tmp_path)
    files = [f"interval=1h/symbol=BTCUSDT/year={year}/part-0.parquet" for year in (2020, 2021)]
    assert [name for name in everything(tmp_path) if name.endswith(".parquet")] == files
    opened = pq.ParquetFile(path / "year=2021" / "part-0.parquet")
    assert opened.schema_arrow.names == ["open_time", "open", "high", "low", "close"]
    assert opened.schema_arrow.types == [pa.timestamp("ms", "UTC"), *[pa.float64()] * 4]
    assert opened.metadata.num_rows == 3  # the missing bar is left out
    assert opened.metadata.row_group(0).column(1).compression == "ZSTD"


def test_an_existing_symbol_is_replaced_only_on_request(tmp_path: Path) -> None:
    write_history(bars(), tmp_path)
    with pytest.raises(ConfigError, match=r"symbol=BTCUSDT exists; choose another .* or ask for overwrite"):
        write_history(bars(3), tmp_path)
    same(read_history(tmp_path), bars())
    write_history(bars(2), tmp_path, overwrite=True)  # no bar of 2021 is left
    same(read_history(tmp_path), bars(2))
    assert [name for name in everything(tmp_path) if "year" in name and "part" not in name] == [
        "interval=1h/symbol=BTCUSDT/year=2020"
    ]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, error: BaseException
) -> None:
    if overwrite:
        write_history(bars(), tmp_path / "data")
    before = everything(tmp_path)
    original, calls = pq.write_table, []

    def fail_second(*arguments: object, **options: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise error
        original(*arguments, **options)

    monkeypatch.setattr(writer.pq, "write_table", fail_second)
    with pytest.raises(type(error)):
        write_history(bars(3), tmp_path / "data", overwrite=overwrite)
    assert everything(tmp_path) == before
    if overwrite:
        same(read_history(tmp_path / "data"), bars())


def test_what_was_there_stays_when_the_last_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(bars(), tmp_path)
    before = everything(tmp_path)
    original = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            raise OSError("no")
        return original(self, target)

    monkeypatch.setattr(transaction, "_exchange", lambda one, two: False)  # a file system that swaps no folders
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        write_history(bars(3), tmp_path, overwrite=True)
    assert everything(tmp_path) == before


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for history, error, message in (
        (PriceHistory("X", HOUR, 0, {"close": np.array([NAN])}), DataError, "X: no bar has any value"),
        (bars(symbol=""), ConfigError, "symbol must not be empty"),
        (PriceHistory("X", 1500, 0, {"close": np.ones(1)}), ConfigError, "whole seconds"),
    ):
        with pytest.raises(error, match=message):
            write_history(history, tmp_path / "data")
    assert everything(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="out must be a directory"):
        write_history(bars(), tmp_path / "file")
    assert everything(tmp_path) == ["file"]
