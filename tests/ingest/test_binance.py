"""Archives of Binance become one checked dataset; what is damaged, contradictory or ambiguous is named, not guessed."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.csv as pcsv
import pytest
from click.testing import CliRunner

from backtest.cli import cli
from backtest.data.dataset import read_history
from backtest.data.quality.check import check
from backtest.errors import BacktestError, ConfigError, DataError
from backtest.ingest import zip_csv
from backtest.ingest.binance.importer import import_binance
from backtest.ingest.binance.rows import BARS, FUNDING
from backtest.ingest.merge import Imported

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "formats" / "FILUSDT-1m-2025-09.head200.csv"
HOUR = 3_600_000
HEAD = ",".join(BARS) + "\n"
FUNDING_HEAD = ",".join(FUNDING) + "\n"
MAY, JUNE = 744, 720
"""Hours of May and of June 2021."""


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def path_of(bar: int, digits: int = 2) -> list[float]:
    """Open, high, low and close of the hour number `bar` since 1970: a smooth path, an open is the close before."""
    open_, close = (round(100 + 5 * np.sin(k / 9.0) + 2 * np.sin(k / 2.3), digits) for k in (bar, bar + 1))
    return [open_, round(max(open_, close) + 0.5, digits), round(min(open_, close) - 0.4, digits), close]


def row(start: int, *, mark: bool = False, unit: int = 1, step: int = HOUR, scale: float = 1.0) -> list[str]:
    """Twelve cells; a mark price is 0.1 above, has no volume and a count."""
    prices = [round((price + 0.1 * mark) * scale, 2) for price in path_of(start // HOUR)]
    volume = 0.0 if mark else 10.0 + start // HOUR % 7
    quote = round(volume * (prices[1] + prices[2]) / 2, 6)
    cells = [start * unit, *prices, volume, (start + step) * unit - 1, quote, 60, volume / 2, quote / 2, 0]
    return [f"{cell:.10g}" if isinstance(cell, float) else str(cell) for cell in cells]


def bars(start: str, count: int, **how: float) -> str:
    """Rows of hours from a time on."""
    return "".join(",".join(row(ms(start) + HOUR * k, **how)) + "\n" for k in range(count))  # type: ignore[arg-type]


def charges(start: str, count: int, hours: int = 8, jitter: int = 0) -> str:
    stamps = [ms(start) + HOUR * hours * k + (jitter * k) % 5 for k in range(count)]
    return "".join(f"{stamp},{hours},{0.0001 + k * 1e-7:.7f}\n" for k, stamp in enumerate(stamps))


def put(file: Path, text: str, inner: str | None = None) -> Path:
    """A CSV, or one in a zip, by the suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix != ".zip":
        file.write_text(text)
        return file
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inner or f"{file.stem}.csv", text)
    return file


def archive(root: Path, kind: str, period: str, text: str, symbol: str = "BTCUSDT", market: str = "um") -> Path:
    """A zip where the server has it."""
    grain = "daily" if period.count("-") == 2 else "monthly"
    what = "fundingRate" if kind == "fundingRate" else "1h"
    below = "" if kind == "fundingRate" else "1h/"
    return put(root / f"data/futures/{market}/{grain}/{kind}/{symbol}/{below}{symbol}-{what}-{period}.zip", text)


def take(sources: Path | Sequence[Path], out: Path, **how: object) -> Imported:
    """The only series."""
    (done,) = import_binance(sources, out, show_progress=False, **how)  # type: ignore[arg-type]
    return done


def alone(symbol: str) -> list[str]:
    """What is said of klines without anything beside them."""
    return [
        f"there are no mark prices of {symbol}: liquidations will be judged by the last price",
        f"there is no funding of {symbol}: no position will be charged",
    ]


def prints(folder: Path) -> dict[str, str]:
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two months of klines and mark prices, the first without a header row, and their funding."""
    root = tmp_path / "archives"
    for kind, mark in (("klines", False), ("markPriceKlines", True)):
        archive(root, kind, "2021-05", bars("2021-05-01", MAY, mark=mark))
        archive(root, kind, "2021-06", HEAD + bars("2021-06-01", JUNE, mark=mark))
    archive(root, "fundingRate", "2021-05", FUNDING_HEAD + charges("2021-05-01", 93, jitter=1))
    archive(root, "fundingRate", "2021-06", FUNDING_HEAD + charges("2021-06-01", 90))
    return root


# --- what is understood -----------------------------------------------------------------------------------------------


def test_months_of_klines_mark_prices_and_funding_become_one_history(data: Path, tmp_path: Path) -> None:
    done = take(data, tmp_path / "out")
    history = read_history(tmp_path / "out")
    assert (history.symbol, history.interval_ms, history.start_ms) == ("BTCUSDT", HOUR, ms("2021-05-01"))
    assert history.n_bars == done.rows == MAY + JUNE
    truth = np.array([path_of(history.start_ms // HOUR + k) for k in range(MAY + JUNE)]).T
    for name, values in zip(("open", "high", "low", "close"), truth, strict=True):
        np.testing.assert_array_equal(history.columns[name], values)
        np.testing.assert_array_equal(history.columns["mark_" + name], np.round(values + 0.1, 2))
    rates = history.columns["funding_rate"]
    assert np.flatnonzero(~np.isnan(rates)).tolist() == list(range(0, MAY + JUNE, 8))
    assert (rates[0], rates[8], rates[MAY]) == (0.0001, 0.0001001, 0.0001)  # 2021-05-01 00:00 and 08:00, 2021-06-01
    assert done.span == ("2021-05-01T00:00Z", "2021-06-30T23:00Z")
    assert (done.gaps, done.charges) == (0, 183)  # 93 + 90
    assert done.notes == (
        "BTCUSDT-fundingRate-2021-05.zip and 1 more: "
        "funding with a header row; calc_time, charged, is read as UTC in milliseconds since the epoch",
        # k % 5 ms late: of 93 charges, 19 with k % 5 = 0 are on the hour
        "74 charges are stamped up to 4 ms late; each is charged in the bar that contains its stamp",
        "BTCUSDT-1h-2021-05.zip: klines without a header row; open_time, "
        "the open of a bar, is read as UTC in milliseconds since the epoch",
        "BTCUSDT-1h-2021-05.zip: mark prices without a header row; open_time, "
        "the open of a bar, is read as UTC in milliseconds since the epoch",
        "BTCUSDT-1h-2021-06.zip: klines with a header row; open_time, "
        "the open of a bar, is read as UTC in milliseconds since the epoch",
        "BTCUSDT-1h-2021-06.zip: mark prices with a header row; open_time, "
        "the open of a bar, is read as UTC in milliseconds since the epoch",
        "0 of 4 files of bars were verified by a .CHECKSUM beside them",
    )
    assert done.warnings == ()
    assert check(tmp_path / "out").ok


def test_a_file_in_microseconds_stands_for_the_same_instants_and_is_said(data: Path, tmp_path: Path) -> None:
    plain = take(data, tmp_path / "plain")
    archive(data, "klines", "2021-06", HEAD + bars("2021-06-01", JUNE, unit=1000))
    done = take(data, tmp_path / "out")
    assert (done.rows, done.span) == (plain.rows, plain.span)
    np.testing.assert_array_equal(
        read_history(tmp_path / "out").columns["close"], read_history(tmp_path / "plain").columns["close"]
    )
    assert (
        "BTCUSDT-1h-2021-06.zip: klines with a header row; open_time, "
        "the open of a bar, is read as UTC in microseconds since the epoch" in done.notes
    )


def test_plain_csvs_and_one_file_by_name_are_taken_too(tmp_path: Path) -> None:
    file = put(tmp_path / "BTCUSDT-1h-2021-05-01.csv", bars("2021-05-01", 24))
    done = take(file, tmp_path / "out")
    assert done.rows == 24
    assert done.warnings == tuple(alone("BTCUSDT"))


@pytest.mark.skipif(not REAL.is_file(), reason="no real file here")
def test_a_real_file_is_read_to_the_digit(tmp_path: Path) -> None:
    file = put(tmp_path / "klines" / "FILUSDT-1m-2025-09.csv", REAL.read_text())
    done = take(file, tmp_path / "out")
    table = pcsv.read_csv(REAL)
    history = read_history(tmp_path / "out")
    for name in ("open", "high", "low", "close", "volume"):
        assert history.columns[name].tolist() == table.column(name).to_pylist()
    assert history.start_ms == table.column("open_time")[0].as_py() == 1_756_684_800_000
    assert "FILUSDT-1m-2025-09.csv: ends before the month or day of its name does" in done.warnings


def test_coin_m_volumes_are_contracts_and_markets_do_not_mix(data: Path, tmp_path: Path) -> None:
    file = archive(tmp_path / "cm", "klines", "2021-05", bars("2021-05-01", MAY), symbol="BTCUSD_PERP", market="cm")
    done = take(file, tmp_path / "out")
    assert done.notes[0] == "BTCUSD_PERP is COIN-M: its volume counts contracts, its prices are in USD"
    archive(data, "klines", "2021-07", bars("2021-07-01", 744), market="cm")
    with pytest.raises(DataError, match=r"cm.*BTCUSDT-1h-2021-07\.zip.*um.*BTCUSDT.* are of two markets"):
        take(data, tmp_path / "two")


def test_other_kinds_are_left_out_and_unknown_files_are_named(data: Path, tmp_path: Path) -> None:
    for kind in ("indexPriceKlines", "premiumIndexKlines"):
        archive(data, kind, "2021-05", bars("2021-05-01", MAY, mark=True))
    put(data / "aggTrades" / "BTCUSDT-aggTrades-2021-05.zip", "1,2\n")
    put(data / "BTCUSDT-1mo-2021-05.zip", "1,2\n")
    (data / "readme.txt").write_text("hello")
    (data / ".hidden").write_text("")
    done = take(data, tmp_path / "out")
    assert done.rows == MAY + JUNE
    assert set(done.notes) >= {
        "BTCUSDT-1h-2021-05.zip: indexPriceKlines is not used",
        "BTCUSDT-1h-2021-05.zip: premiumIndexKlines is not used",
        "BTCUSDT-aggTrades-2021-05.zip: aggTrades is not used",
        "BTCUSDT-1mo-2021-05.zip: an interval of a month, which has no fixed length, is not used",
    }
    assert done.warnings == ("readme.txt: no archive by its name, which is SYMBOL-INTERVAL-YYYY-MM; not read",)


def test_symbols_and_intervals_are_taken_each_and_can_be_chosen(data: Path, tmp_path: Path) -> None:
    archive(data, "klines", "2021-05", bars("2021-05-01", MAY), symbol="ETHUSDT")
    put(data / "klines" / "BTCUSDT-2h-2021-05-01.csv", ",".join(row(ms("2021-05-01"), step=2 * HOUR)) + "\n")
    found = import_binance(data, tmp_path / "all", show_progress=False)
    assert [(str(one.path.relative_to(tmp_path / "all")), one.rows) for one in found] == [  # type: ignore[arg-type]
        ("interval=1h/symbol=BTCUSDT", MAY + JUNE),
        ("interval=2h/symbol=BTCUSDT", 1),
        ("interval=1h/symbol=ETHUSDT", MAY),
    ]
    assert take(data, tmp_path / "one", symbols=["ETHUSDT"]).rows == MAY
    assert take(data, tmp_path / "two", interval="2h").rows == 1
    with pytest.raises(ConfigError, match=r"no archive of bars of 'XRPUSDT'; there are BTCUSDT, ETHUSDT"):
        take(data, tmp_path / "none", symbols=["XRPUSDT"])
    with pytest.raises(ConfigError, match=r"no archive of 4h bars; there are 1h, 2h"):
        take(data, tmp_path / "none", interval="4h")
    assert not (tmp_path / "none").exists()


# --- the kind ---------------------------------------------------------------------------------------------------------


def test_without_a_folder_klines_show_by_their_volume_and_mark_prices_must_be_told(tmp_path: Path) -> None:
    put(tmp_path / "a" / "BTCUSDT-1h-2021-05.zip", bars("2021-05-01", MAY))
    put(tmp_path / "b" / "BTCUSDT-1h-2021-05.zip", bars("2021-05-01", MAY, mark=True))
    both = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ConfigError, match=r"b.BTCUSDT-1h-2021-05\.zip: its folder does not tell.*--kind mark"):
        take(both, tmp_path / "out")
    take(both, tmp_path / "out", kind="mark")
    history = read_history(tmp_path / "out")
    assert (history.columns["close"] + 0.1).round(2).tolist() == history.columns["mark_close"].tolist()


@pytest.mark.parametrize(
    ("folder", "mark", "message"),
    [
        ("klines", True, "volume is 0 in every row and its count is not"),
        ("markPriceKlines", False, "says mark prices, which have no volume"),
    ],
)
def test_a_folder_that_contradicts_the_rows_is_refused(folder: str, mark: bool, message: str, tmp_path: Path) -> None:
    file = archive(tmp_path, folder, "2021-05-01", bars("2021-05-01", 24, mark=mark))
    with pytest.raises(DataError, match=re.escape(str(file)) + ".*" + message):
        take(tmp_path, tmp_path / "out")


# --- overlaps and renamed files ---------------------------------------------------------------------------------------


def test_a_day_inside_a_month_must_agree_and_fills_what_the_month_lacks(data: Path, tmp_path: Path) -> None:
    whole = bars("2021-05-01", MAY).splitlines(keepends=True)
    archive(data, "klines", "2021-05", "".join(whole[:48] + whole[60:]))  # 12 bars of May 3rd are missing
    daily = archive(data, "klines", "2021-05-03", bars("2021-05-03", 24))
    done = take(data, tmp_path / "out")
    assert (done.rows, done.gaps) == (MAY + JUNE, 0)
    assert "12 times occur twice, the first 2021-05-03T12:00Z; one of each is kept" in done.notes
    assert done.warnings == (
        "BTCUSDT-1h-2021-05.zip: lacks 12 bars that BTCUSDT-1h-2021-05-03.zip has; they are taken",
    )
    lines = bars("2021-05-03", 24).splitlines(keepends=True)
    lines[20] = (
        lines[20].replace(",105.", ",105.0", 1) if ",105." in lines[20] else bars("2021-05-03T20:00", 1, scale=1.001)
    )
    put(daily, "".join(lines))
    with pytest.raises(DataError, match=r"2021-05-03\.zip and .*2021-05\.zip disagree on 2021-05-03T20:00Z: "):
        take(data, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_renamed_file_needs_a_symbol_and_an_interval(tmp_path: Path) -> None:
    file = put(tmp_path / "mine.csv", bars("2021-04-20", 500))
    with pytest.raises(ConfigError, match=r"mine\.csv: its name tells neither symbol nor interval.*--symbol"):
        take(file, tmp_path / "out")
    with pytest.raises(DataError, match=r"first bar lasts 3,600,000 ms.*a bar of 30m has 1,800,000"):
        take(file, tmp_path / "out", symbols=["BTCUSDT"], interval="30m")
    done = take(file, tmp_path / "out", symbols=["BTCUSDT"], interval="1h")
    assert (done.rows, done.span[0]) == (500, "2021-04-20T00:00Z")


def test_a_renamed_zip_is_known_by_its_csv_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    file = put(tmp_path / "download (1).zip", bars("2021-05-01", MAY), "BTCUSDT-1h-2021-05.csv")
    assert take(file, tmp_path / "out").rows == MAY
    other = put(tmp_path / "ETHUSDT-1h-2021-05.zip", bars("2021-05-01", MAY), "BTCUSDT-1h-2021-05.csv")
    with pytest.raises(DataError, match=r"ETHUSDT-1h-2021-05\.zip: its CSV is named BTCUSDT-1h-2021-05\.csv"):
        take(other, tmp_path / "other")


# --- rows that are refused --------------------------------------------------------------------------------------------


def with_cell(line: int, column: str, value: str) -> str:
    lines = [text.split(",") for text in bars("2021-05-01", 24).splitlines()]
    lines[line][BARS.index(column)] = value
    return "".join(",".join(cells) + "\n" for cells in lines)


SWAPPED = "".join(
    ",".join([cells[0], cells[4], cells[2], cells[3], cells[1], *cells[5:]]) + "\n"
    for cells in (text.split(",") for text in bars("2021-05-01", 24).splitlines())
)


# The mean price is the volume then, and lies within low … high: price × volume / price.
LOW_FOR_VOLUME = "".join(
    ",".join([*cells[:3], cells[5], cells[4], cells[3], *cells[6:]]) + "\n"
    for cells in (text.split(",") for text in bars("2021-05-01", 24).splitlines())
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEAD, "there are no rows"),
        (bars("2021-05-01", 24, scale=0.0), "column open must be > 0; got 0 in row 0"),
        (with_cell(3, "close", "nan"), "column close must be finite or null; got nan in row 3"),
        (with_cell(3, "close", "-5"), r"column close must be > 0; got -5 in row 3"),
        (with_cell(3, "close", ""), r"not a readable CSV file.*Row #4.*invalid value ''"),
        (with_cell(3, "close", "1e7"), r"column close must lie within low … high; got 10000000 in row 3"),
        (with_cell(3, "volume", "-1"), "column volume must be ≥ 0; got -1 in row 3"),
        (with_cell(3, "open_time", str(ms("2021-05-01T03:00") + 1)), "column open_time must be multiples of 1h"),
        (
            with_cell(3, "open_time", str(ms("2021-05-01T02:00"))),
            "ascend and not repeat; got 2021-05-01T02:00Z in row 3",
        ),
        (with_cell(3, "open_time", f"{ms('2021-05-01T03:00')}000"), "keep one unit, which is milliseconds in row 0"),
        (with_cell(0, "open_time", "1619827200"), "must be ms or µs from 1973"),
        (bars("2021-05-01T01:00", 24), r"lie in the period of its name, 2021-05-01T00:00Z … 2021-05-02T00:00Z UTC"),
        (bars("2021-04-30T23:00", 24), r"lie in the period of its name.*got 2021-04-30T23:00Z in row 0"),
        ("".join(reversed(bars("2021-05-01", 24).splitlines(keepends=True))), "must ascend"),
        (SWAPPED, "columns are swapped, or rows run backwards"),
        (LOW_FOR_VOLUME, "high is more than 4 times low in 24 of 24 bars; are columns swapped"),
        (with_cell(23, "ignore", "0,0"), "Expected 12 columns, got 13"),
        (bars("2021-05-01", 24)[:-30], r"Expected 12 columns, got \d"),
        ("open_time,open,high,low,volume\n" + "1,2,3,4,5\n", "header lacks the column close"),
        ("1,2,3\n", "without a header row it must have the 12 columns"),
        (FUNDING_HEAD + charges("2021-05-01", 3), "header lacks the column open_time"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = put(tmp_path / "klines" / "BTCUSDT-1h-2021-05-01.csv", text)
    with pytest.raises(DataError, match=re.escape(str(file)) + "(?s:.*)" + message):
        take(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mean_price_outside_of_the_bar_is_doubted_and_swapped_volumes_are_refused(tmp_path: Path) -> None:
    # The mean price of bar 3 is 1,300 / 13 … 10 times its prices.
    file = put(tmp_path / "klines" / "BTCUSDT-1h-2021-05-01.csv", with_cell(3, "quote_volume", "13000"))
    done = take(file, tmp_path / "out")
    assert any(
        "quote_volume over volume is a mean price, and outside of low … high in 1 of 24" in w for w in done.warnings
    )
    lines = [text.split(",") for text in bars("2021-05-01", 24).splitlines()]
    for cells in lines:
        cells[5], cells[7] = cells[7], cells[5]
    put(file, "".join(",".join(cells) + "\n" for cells in lines))
    with pytest.raises(DataError, match=r"in 24 of 24 bars.*columns are swapped"):
        take(file, tmp_path / "other")


# --- funding ----------------------------------------------------------------------------------------------------------


def test_charges_fall_into_the_bars_that_hold_their_stamps_whatever_the_months(tmp_path: Path) -> None:
    # Bars of May 2nd and of July 1st; the charges of June lie in between and keep their bars, without a price.
    archive(tmp_path, "klines", "2021-05-02", bars("2021-05-02", 24))
    archive(tmp_path, "klines", "2021-07-01", bars("2021-07-01", 24))
    archive(tmp_path, "fundingRate", "2021-05", FUNDING_HEAD + charges("2021-05-01", 6))  # 3 before the first bar
    archive(tmp_path, "fundingRate", "2021-06", FUNDING_HEAD + charges("2021-06-10T00:00", 2))
    archive(tmp_path, "fundingRate", "2021-07", FUNDING_HEAD + charges("2021-07-01T16:00", 2))  # one after the last
    done = take(tmp_path, tmp_path / "out")
    history = read_history(tmp_path / "out")
    charged = history.start_ms + HOUR * np.flatnonzero(~np.isnan(history.columns["funding_rate"]))
    assert charged.tolist() == [
        ms(text)
        for text in (
            *("2021-05-02T00:00", "2021-05-02T08:00", "2021-05-02T16:00"),
            *("2021-06-10T00:00", "2021-06-10T08:00", "2021-07-01T16:00"),
        )
    ]
    assert (done.rows, done.charges) == (50, 6)
    assert "4 charges before the first or after the last bar left out" in done.notes
    assert "2 rows have a volume or funding charge and no price" in done.warnings


def test_spacing_that_contradicts_the_interval_column_is_said(tmp_path: Path) -> None:
    archive(tmp_path, "klines", "2021-05", bars("2021-05-01", MAY))
    lines = charges("2021-05-01", 93).splitlines(keepends=True)
    archive(tmp_path, "fundingRate", "2021-05", FUNDING_HEAD + "".join(lines[:10] + lines[11:]))  # 80 h is missing
    done = take(tmp_path, tmp_path / "out")
    assert any(
        w.startswith(
            "1 charges do not lie funding_interval_hours apart: missing, doubled or misplaced; first "
            "2021-05-04T00:00Z and 2021-05-04T16:00Z, 16 h instead of 8"
        )
        for w in done.warnings
    )


def test_a_change_of_the_interval_is_no_fault(tmp_path: Path) -> None:
    archive(tmp_path, "klines", "2021-05", bars("2021-05-01", MAY))
    text = charges("2021-05-01", 30) + charges("2021-05-11T00:00", 126, hours=4)
    archive(tmp_path, "fundingRate", "2021-05", FUNDING_HEAD + text)
    done = take(tmp_path, tmp_path / "out")
    assert (done.charges, done.warnings) == (156, tuple(alone("BTCUSDT")[:1]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (charges("2021-05-01", 3) + charges("2021-05-01", 1), "calc_time must ascend and not repeat"),
        (f"{ms('2021-05-01')},8,nan\n", "last_funding_rate must be finite"),
        (f"{ms('2021-05-01')},0,0.1\n", r"funding_interval_hours must lie within 1 … 24; got 0"),
        (charges("2021-06-01", 3), "calc_time must lie in the period of its name"),
    ],
)
def test_funding_that_breaks_a_rule_is_named(text: str, message: str, tmp_path: Path) -> None:
    archive(tmp_path, "klines", "2021-05", bars("2021-05-01", MAY))
    file = archive(tmp_path, "fundingRate", "2021-05", FUNDING_HEAD + text)
    with pytest.raises(DataError, match=re.escape(str(file)) + ".*" + message):
        take(tmp_path, tmp_path / "out")


# --- zips -------------------------------------------------------------------------------------------------------------


def zip_of(*members: tuple[str, str], method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, text in members:
            made.writestr(name, text)
    return bytearray(buffer.getvalue())


CSV = "BTCUSDT-1h-2021-05-01.csv"
DAY = bars("2021-05-01", 24)


def declaring(size: int) -> bytes:
    """A zip whose directory and local header declare another size than there is."""
    made = zip_of((CSV, DAY))
    struct.pack_into("<I", made, 22, size)
    struct.pack_into("<I", made, made.index(b"PK\x01\x02") + 24, size)
    return bytes(made)


def encrypted() -> bytes:
    made = zip_of((CSV, DAY))
    made[made.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


def flipped() -> bytes:
    """A digit of a stored CSV is another."""
    return bytes(zip_of((CSV, DAY), method=zipfile.ZIP_STORED)).replace(b",60,", b",61,", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (flipped(), "its CSV does not meet the CRC of the zip"),
        (zip_of((CSV, DAY), ("other.csv", DAY)), "must hold exactly one CSV; it holds 2 entries"),
        (zip_of(), "must hold exactly one CSV; it holds 0 entries: nothing"),
        (zip_of(("a.txt", DAY)), "must hold exactly one CSV"),
        (zip_of((f"../{CSV}", DAY)), r"must be a plain file name; got '\.\./BTC"),
        (zip_of((f"/etc/{CSV}", DAY)), "must be a plain file name"),
        (zip_of((f"..\\{CSV}", DAY)), "must be a plain file name"),
        (zip_of((CSV, DAY), method=zipfile.ZIP_BZIP2), "must be stored or deflated; its method is 12"),
        (zip_of((CSV, "0" * 2_000_000)), r"declares 2,000,000 bytes in [\d,]+; at most .* 100 times"),
        (declaring(len(DAY) - 1), "more than the .* bytes that it declares"),
        (declaring(len(DAY) + 1), "declares .* bytes and holds"),
        (declaring(2**31), "declares 2,147,483,648 bytes"),
        (encrypted(), "is encrypted"),
        (zip_of((CSV, DAY))[:-40], "not a readable zip; truncated or damaged"),
        (b"", "not a readable zip"),
        (b"<html>404</html>", "not a readable zip"),
    ],
)
def test_a_zip_that_is_not_one_csv_within_bounds_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "klines" / "BTCUSDT-1h-2021-05-01.zip"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(file)) + ".*" + message):
        take(file, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["klines"]


def test_no_more_bytes_are_read_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_csv, "MOST_BYTES", 1000)
    for suffix in (".csv", ".zip"):
        file = put(tmp_path / "klines" / f"BTCUSDT-1h-2021-05-01{suffix}", DAY)
        with pytest.raises(DataError, match=r"[\d,]+ bytes.*at most 1,000"):
            take(file, tmp_path / "out")


def test_stored_zips_and_a_checksum_beside_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "klines" / "BTCUSDT-1h-2021-05-01.zip"
    file.parent.mkdir()
    file.write_bytes(zip_of((CSV, DAY), method=zipfile.ZIP_STORED))
    beside = file.with_name(file.name + ".CHECKSUM")
    beside.write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    assert "1 of 1 files of bars were verified by a .CHECKSUM beside them" in take(file.parent, tmp_path / "out").notes
    beside.write_text(f"{'0' * 64}  {file.name}\n")
    with pytest.raises(DataError, match=r"BTCUSDT-1h-2021-05-01\.zip: its SHA-256 is [0-9a-f]{64}, .* says 0000"):
        take(file.parent, tmp_path / "other")
    beside.write_text("<html>\n")
    with pytest.raises(DataError, match="must begin with a SHA-256"):
        take(file.parent, tmp_path / "other")


# --- what is there already, and the command ---------------------------------------------------------------------------


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["import", "binance", *map(str, arguments)])
    if isinstance(done.exception, BacktestError):
        return 1, str(done.exception)
    return done.exit_code, done.output


def test_months_are_added_and_replaced_by_the_command(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (june,) = data.rglob("klines/BTCUSDT/1h/*2021-06.zip")
    later = june.rename(tmp_path / june.name)
    code, said = command(data, "--out", out)
    assert code == 0 and "1,464 bars, 2021-05-01T00:00Z … 2021-06-30T23:00Z, 0 gaps, 183 charges" in said
    assert "warning: 720 bars have a mark price and no last price" in said
    before = prints(out)
    code, said = command(later, "--out", out)
    assert code == 1 and "exists" in said
    code, said = command(later, "--out", out, "--add", "--overwrite")
    assert code == 1 and "exclude each other" in said
    assert prints(out) == before
    assert command(later, "--out", out, "--add")[0] == 0
    whole = read_history(out)
    assert not np.isnan(whole.columns["close"]).any()
    put(later, HEAD + bars("2021-06-01", JUNE, scale=1.001))
    code, said = command(later, "--out", out, "--add")
    assert code == 1 and re.search(r"column \w+ of the bar of 2021-06-01T00:00Z is", said)
    assert command(later, "--out", out, "--overwrite")[0] == 0
    now = read_history(out)
    assert now.columns["open"][MAY] == round(whole.columns["open"][MAY] * 1.001, 2)
    np.testing.assert_array_equal(now.columns["close"][:MAY], whole.columns["close"][:MAY])
    np.testing.assert_array_equal(now.columns["mark_close"], whole.columns["mark_close"])


def test_a_bad_month_leaves_nothing_and_names_what_was_written_before(data: Path, tmp_path: Path) -> None:
    archive(data, "klines", "2021-05", bars("2021-05-01", MAY), symbol="ETHUSDT")
    bad = archive(data, "klines", "2021-06", bars("2021-06-02", JUNE - 23), symbol="ETHUSDT")
    code, said = command(data, "--out", tmp_path / "out")
    assert code == 1 and str(bad) in said
    assert f"written before that: {tmp_path / 'out' / 'interval=1h' / 'symbol=BTCUSDT'}" in said
    assert [p.name for p in (tmp_path / "out" / "interval=1h").iterdir()] == ["symbol=BTCUSDT"]


@pytest.mark.parametrize("sources", [["nowhere"], ["empty"], []])
def test_sources_without_archives_are_refused(sources: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"does not exist|no archives of bars|at least one"):
        import_binance([tmp_path / name for name in sources], tmp_path / "out")
