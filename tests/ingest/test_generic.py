"""Files of prices, mark prices and funding become a dataset, or are refused with file, row, column and value."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest.data.dataset import read_history, write_history
from backtest.data.quality.check import Gap, check
from backtest.engine.bars import build_grid
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats.generic import import_generic
from backtest.ingest.merge import Imported
from tests.ingest.conftest import Write

REAL = Path(__file__).parents[2].parent / "shared/data/binance_um"
HOUR = 3_600_000
T0 = 1_704_067_200_000  # 2024-01-01
NAN = float("nan")
HEAD = "time,open,high,low,close,volume\n"
ROWS = "2024-01-01T00:00Z,10,12,9,11,5\n2024-01-01T01:00Z,11,13,10,12,6\n2024-01-01T03:00Z,12,14,11,13,7\n"


def take(tmp_path: Path, prices: Path, mark: Path | None = None, funding: Path | None = None) -> Imported:
    return import_generic("X", "1h", prices, mark, funding, out=tmp_path / "data")


def test_three_files_become_one_history(tmp_path: Path, file: Write) -> None:
    # Bar 2 is missing in prices but has a mark price; bar 1 has no mark price; the charges of bar 1 are summed.
    mark = file(
        f"open_time,open,high,low,close\n{T0},10,12,9,11\n{T0 + 2 * HOUR},11,13,10,12\n{T0 + 3 * HOUR},1,2,1,2\n",
        "m.csv",
    )
    funding = file(
        "calc_time,last_funding_rate\n"
        f"{T0 - 1},0.9\n{T0},0.1\n{T0 + HOUR + 3},0.25\n"
        f"{T0 + 2 * HOUR - 1},0.5\n{T0 + 4 * HOUR - 1},0\n{T0 + 4 * HOUR},0.7\n",
        "f.csv",
    )
    done = take(tmp_path, file(HEAD + ROWS), mark, funding)
    bars = read_history(tmp_path / "data")
    assert (bars.symbol, bars.start_ms, bars.n_bars) == ("X", T0, 4)
    np.testing.assert_array_equal(bars.columns["close"], [11, 12, NAN, 13])
    np.testing.assert_array_equal(bars.columns["mark_close"], [11, NAN, 12, 2])
    np.testing.assert_array_equal(bars.columns["volume"], [5, 6, NAN, 7])
    np.testing.assert_array_equal(bars.columns["funding_rate"], [0.1, 0.75, NAN, 0.0])
    assert done.path == tmp_path / "data" / "interval=1h" / "symbol=X"
    assert (done.rows, done.span) == (4, ("2024-01-01T00:00Z", "2024-01-01T03:00Z"))
    assert (done.gaps, done.charges) == (1, 4)  # bar 1 has no trigger price, as the trigger is mark
    assert done.notes == (
        "p.csv: column time read as UTC timestamps",
        "p.csv: stamps are bar opens; --stamps close says otherwise",
        "m.csv: column open_time read as milliseconds since the epoch",
        "m.csv: stamps are bar opens",
        "f.csv: column calc_time read as milliseconds since the epoch",
        "2 charges before the first or after the last bar left out",
        "1 bars hold several charges, which are summed",
        "2 charges are stamped within a minute before the end of a bar; "
        "each is charged in the bar that contains its stamp",
    )
    assert done.warnings[-2:] == (
        "1 bars have a last price and no mark price",
        "1 bars have a mark price and no last price",
    )
    assert check(tmp_path / "data").ok


def test_a_charge_in_a_missing_bar_is_kept_as_a_row_without_prices(tmp_path: Path, file: Write) -> None:
    funding = file("time,rate\n2024-01-01T02:00,0.5\n", "f.csv")
    done = take(tmp_path, file(HEAD + ROWS), None, funding)
    bars = read_history(tmp_path / "data")
    np.testing.assert_array_equal(bars.columns["funding_rate"], [NAN, NAN, 0.5, NAN])
    np.testing.assert_array_equal(bars.columns["open"], [10, 11, NAN, 12])
    assert done.rows == 4
    assert done.warnings[-1] == "1 rows have a volume or funding charge and no price"
    assert build_grid(bars).charge_price.tolist() == [12]  # the close of bar 1


@pytest.mark.parametrize(
    ("times", "read"),
    [
        ([T0 // 1000, T0 // 1000 + 3600], "seconds since the epoch"),
        ([T0, T0 + HOUR], "milliseconds since the epoch"),
        ([T0 * 1000, (T0 + HOUR) * 1000], "microseconds since the epoch"),
        ([T0 * 10**6, (T0 + HOUR) * 10**6], "nanoseconds since the epoch"),
        ([f"{T0}.0", f"{T0 + HOUR}.0"], "milliseconds since the epoch"),
        (["2024-01-01", "2024-01-01T01:00:00"], "timestamps without an offset"),
        (["2024-01-01 00:00:00", "2024-01-01 01:00:00.000"], "timestamps without an offset"),
        (["2024-01-01T00:00:00+00:00", "2024-01-01T01:00:00Z"], "UTC timestamps"),
        (["2024-01-01T09:00+09:00", "2024-01-01T01:00"], "UTC timestamps"),
    ],
)
@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_times_of_every_form_are_read(tmp_path: Path, file: Write, times: list[object], read: str, name: str) -> None:
    text = HEAD + "".join(f"{time},10,12,9,11,\n" for time in times)
    done = take(tmp_path, file(text, name))
    assert done.notes[0] == f"{name}: column time read as {read}"
    assert read_history(tmp_path / "data").start_ms == T0
    assert done.rows == 2


@pytest.mark.parametrize(
    ("stamps", "read"),
    [
        (pa.array([T0, T0 + HOUR]), "milliseconds since the epoch"),
        (pa.array([T0 / 1000, T0 / 1000 + 3600]), "seconds since the epoch"),
        (pa.array([T0 * 10**6, (T0 + HOUR) * 10**6], pa.timestamp("ns")), "timestamps without an offset"),
        (pa.array(["2024-01-01T00:00", "2024-01-01T01:00"]), "timestamps without an offset"),
        (pa.array([T0, T0 + 24 * HOUR], pa.date64()), "timestamps without an offset"),
        (pa.array([19723, 19724], pa.date32()), "timestamps without an offset"),
    ],
)
def test_parquet_sources_may_hold_times_and_prices_of_any_type(tmp_path: Path, stamps: object, read: str) -> None:
    text = pa.array(["10.5", " 11 "])
    table = pa.table({"Timestamp": stamps, "Open": text, "HIGH": [12, 13], "low": [9.0, 9.5], "close": text, "x": text})
    pq.write_table(table, tmp_path / "p.parquet")
    done = take(tmp_path, tmp_path / "p.parquet")
    assert done.notes[0] == f"p.parquet: column Timestamp read as {read}"
    bars = read_history(tmp_path / "data")
    assert (bars.start_ms, bars.columns["open"][0], bars.columns["close"][-1]) == (T0, 10.5, 11.0)


def test_whole_numbers_may_turn_into_decimals_late_in_a_file(tmp_path: Path, file: Write) -> None:
    count = 60_000  # beyond the first block that a reader would infer types from
    lines = [f"{T0 + HOUR * row},10,12,9,11,{row}\n" for row in range(count)]
    lines.append(f"{T0 + HOUR * count},10.5,12.5,9.5,11.5,0.5\n")
    assert take(tmp_path, file(HEAD + "".join(lines))).rows == count + 1


R = ROWS.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + R[0] + R[0], "p.csv: column time must not repeat; got 2024-01-01T00:00Z in row 1; sort and de-dup"),
        (HEAD + R[1] + R[0], "p.csv: column time must ascend; got 2024-01-01T00:00Z in row 1"),
        (HEAD + R[0] + "2024-01-01T01:30Z,1,1,1,1,1\n", "must hold bar opens, multiples of 1h .*T01:30Z in row 1"),
        (
            HEAD + R[0].replace("T00", "T0x"),
            "column time must hold ISO 8601 times or integers; got '2024-01-01T0x:00Z'",
        ),
        (HEAD + R[0].replace("00Z", "00:00.0005Z"), "column time must be whole milliseconds; got .*0005"),
        (HEAD + f"{T0}.5,1,1,1,1,1\n", r"column time must hold ISO 8601 times or integers; got 1704067200000.5 in row"),
        (HEAD + R[0] + ",1,1,1,1,1\n", "column time must .*null in row 1"),
        (HEAD + f"{T0},1,1,1,1,1\n{T0 * 1000},1,1,1,1,1\n", "must keep one unit, which is milliseconds in row 0; got"),
        (HEAD + "3600,1,1,1,1,1\n", r"be ISO 8601 or counted since 1970 .* \(this is too small\); got 3600 in row 0"),
        (HEAD + f"{T0 * 1000 + 1},1,1,1,1,1\n", r"must be whole milliseconds \(microseconds are read\); got .*001 in"),
        (HEAD + "9000000000,1,1,1,1,1\n", r"must lie before the year 2200 \(seconds are read\); got 9000000000 in row"),
        (HEAD + R[0] + R[1].replace(",10,", ",0,"), "p.csv: column low must be > 0; got 0 in row 1"),
        (HEAD + R[0].replace(",12,", ",-12,"), "p.csv: column high must be > 0; got -12 in row 0"),
        (HEAD + R[0].replace(",12,", ",8.5,"), r"column high must not be below low; got 8.5 in row 0 \(1 such rows\)"),
        (HEAD + R[0].replace(",11,", ",12.25,"), "column close must lie within low … high; got 12.25 in row 0"),
        (HEAD + R[0] + R[1].replace(",12,", ",nan,"), "column close must be finite or null; got nan in row 1"),
        (HEAD + R[0] + R[1].replace(",12,", ",inf,"), "column close must be finite or null; got inf in row 1"),
        (HEAD + R[0] + R[1].replace(",12,", ",NULL,"), "column close must hold numbers; got 'NULL' in row 1"),
        (HEAD + R[0].replace(",10,", ',"1,000",'), "column open must hold numbers; got '1,000' in row 0"),
        (HEAD + R[0].replace(",12,", ",,"), "column high is null while others of open, .* are not; got null in row 0"),
        (HEAD.replace("low", "lo") + ROWS, "p.csv: needs a column low; found time, open, high, lo, close, volume"),
        (HEAD.replace("time", "when") + ROWS, "needs a column open_time or timestamp or .*; found when, open"),
        (HEAD.replace("volume", "Open") + ROWS, "p.csv: column open occurs twice; found time, open"),
        (HEAD, "p.csv: there are no rows"),
        ("", "p.csv: not a readable CSV file.*Empty"),
        (HEAD + "2024-01-01,1,1\n", "p.csv: not a readable CSV file.*Expected 6 columns, got 3"),
        (HEAD + "2024-01-01,,,,,\n", "nothing was written, as the result does not pass the check:\nX 1h: no bar that"),
    ],
)
def test_bad_prices_are_refused_and_nothing_is_written(tmp_path: Path, file: Write, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        take(tmp_path, file(text))
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,fee\n2024-01-01,1\n", "f.csv: needs a column funding_rate or last_funding_rate or fundingRate or rate"),
        ("time,fundingRate\n2024-01-01,1\n2024-01-01,1\n", "f.csv: column time must not repeat"),
        ("time,fundingRate\n2024-01-01,nan\n", "f.csv: column fundingRate must be a finite number; got nan in row 0"),
        ("time,rate\n2024-01-01,0.1\n2024-01-02,\n", "f.csv: column rate must be a finite number; got nan in row 1"),
        ("time,rate\n2024-01-01,abc\n", "f.csv: column rate must hold numbers; got 'abc' in row 0"),
    ],
)
def test_bad_funding_is_refused(tmp_path: Path, file: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        take(tmp_path, file(HEAD + ROWS), None, file(text, "f.csv"))


def test_bad_marks_name_the_columns_of_their_file(tmp_path: Path, file: Write) -> None:
    mark = file(HEAD + ROWS.replace(",9,", ",0,"), "m.csv")
    with pytest.raises(DataError, match=r"m\.csv: column low must be > 0; got 0 in row 0"):
        take(tmp_path, file(HEAD + ROWS), mark)


def test_sources_of_another_kind_are_refused(tmp_path: Path, file: Write) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv is no file"):
        take(tmp_path, tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match=r"p.json: a source must end in .parquet, .pq, .feather, .csv"):
        take(tmp_path, file("{}", "p.json"))
    with pytest.raises(DataError, match=r"p\.parquet: not a readable Parquet file"):
        take(tmp_path, file("no", "p.parquet"))
    (tmp_path / "q.csv.gz").write_bytes(b"no")
    with pytest.raises(DataError, match=r"q\.csv\.gz: not a readable .gz file"):
        take(tmp_path, tmp_path / "q.csv.gz")
    with pytest.raises(ConfigError, match="a duration is a whole number"):
        import_generic("X", "hourly", file(HEAD + ROWS), out=tmp_path / "data")


def test_an_existing_symbol_is_replaced_only_on_request(tmp_path: Path, file: Write) -> None:
    prices = file(HEAD + ROWS)
    take(tmp_path, prices)
    with pytest.raises(ConfigError, match="ask for overwrite"):
        take(tmp_path, prices)
    assert import_generic("X", "1h", prices, out=tmp_path / "data", overwrite=True).rows == 3


def test_importing_what_was_written_gives_the_same_history(tmp_path: Path, file: Write) -> None:
    take(tmp_path, file(HEAD + ROWS))
    one = read_history(tmp_path / "data")
    path = write_history(one, tmp_path / "again") / "year=2024" / "part-0.parquet"
    import_generic("X", "1h", path, out=tmp_path / "third")
    two = read_history(tmp_path / "third")
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name])


# --- real files -------------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not REAL.is_dir(), reason="no real histories here")


@real
def test_btc_hours_with_mark_and_funding(tmp_path: Path) -> None:
    files = [REAL / f"BTCUSDT-{name}.parquet" for name in ("1h", "1h-mark", "funding")]
    done = import_generic("BTCUSDT", "1h", *files, out=tmp_path)
    assert (done.rows, done.charges, done.gaps) == (58_623, 7_323, 0)
    assert done.span == ("2019-09-08T17:00Z", "2026-05-17T07:00Z")
    report = check(tmp_path)
    assert report.ok, report.text()
    assert report.coverage == (done.coverage,)
    assert (done.coverage.trigger, done.coverage.first) == ("mark", "2019-12-23T11:00Z")
    bars = read_history(tmp_path, start="2020-03-12", end="2020-03-13")
    assert (round(bars.columns["low"][10]), round(bars.columns["mark_low"][10])) == (5199, 5621)  # the wick of 10:00
    charged = ~np.isnan(bars.columns["funding_rate"])
    assert np.flatnonzero(charged).tolist() == [0, 8, 16]
    source = pq.read_table(files[0])
    np.testing.assert_array_equal(read_history(tmp_path).columns["close"], source["close"].to_numpy())


@real
def test_btc_five_minutes_with_two_gaps(tmp_path: Path) -> None:
    done = import_generic("BTCUSDT", "5m", REAL / "BTCUSDT-5m.parquet", out=tmp_path)
    assert (done.rows, done.gaps) == (368_665, 2)
    assert check(tmp_path).ok
    assert done.coverage.largest == (
        Gap("2022-11-24T17:10Z", "2022-12-31T23:55Z", 10_738),
        Gap("2025-04-13T07:20Z", "2025-05-04T15:30Z", 6_147),
    )
    assert done.coverage.bars == 368_665 + 10_738 + 6_147


@real
def test_funding_with_jitter_belongs_to_the_bar_that_contains_its_stamp(tmp_path: Path) -> None:
    folder = REAL.parent / "hyperliquid"
    done = import_generic("BTC", "1h", folder / "BTC-1h.parquet", None, folder / "BTC-funding.parquet", out=tmp_path)
    funding = read_history(tmp_path).columns["funding_rate"]
    assert done.charges == int((~np.isnan(funding)).sum()) == done.rows


@real
def test_an_archive_csv_with_more_columns(tmp_path: Path) -> None:
    file = REAL.parent / "formats" / "FILUSDT-1m-2025-09.head200.csv"
    done = import_generic("FILUSDT", "1m", file, out=tmp_path)
    assert (done.rows, done.span[0]) == (200, "2025-09-01T00:00Z")
