"""CSV of any tool: columns, units, zone and stamps are told apart, said, or asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backtest.cli import cli
from backtest.data.dataset import read_history
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats.generic import import_generic
from backtest.ingest.merge import Imported
from backtest.ingest.options import Reading
from tests._support.market import HOUR, T0, market_of
from tests.ingest.conftest import Write

PRICES = ("10,12,9,11,5", "11,13,10,12,6", "12,14,11,13,7")
COLUMNS = {"time": "1", "open": "2", "high": "3", "low": "4", "close": "5", "volume": "6"}


def take(tmp_path: Path, prices: Path, mark: Path | None = None, interval: str = "1h", **reading: object) -> Imported:
    return import_generic(
        "X", interval, prices, mark, out=tmp_path / "data", reading=Reading(**reading), overwrite=True
    )  # type: ignore[arg-type]


def table(stamps: list[str], head: str = "time,open,high,low,close,volume", separator: str = ",") -> str:
    lines = [head, *(f"{stamp},{prices}" for stamp, prices in zip(stamps, PRICES, strict=True))]
    return "\n".join(lines).replace(",", separator) + "\n"


def assert_bars(tmp_path: Path) -> None:
    bars = read_history(tmp_path / "data")
    assert (bars.start_ms, bars.n_bars) == (T0, 3)
    np.testing.assert_array_equal(bars.columns["close"], [11, 12, 13])


ISO = ["2024-01-01T00:00Z", "2024-01-01T01:00Z", "2024-01-01T02:00Z"]


# --- which column is which --------------------------------------------------------------------------------------------


def test_names_are_mapped(tmp_path: Path, file: Write) -> None:
    names = {"time": "Date", "open": "O", "high": "H", "low": "L", "close": "C", "volume": "Vol"}
    take(tmp_path, file(table(ISO, "Date,O,H,L,C,Vol")), columns=names)
    assert_bars(tmp_path)
    np.testing.assert_array_equal(read_history(tmp_path / "data").columns["volume"], [5, 6, 7])


def test_a_headerless_file_is_asked_about_and_read_by_number(tmp_path: Path, file: Write) -> None:
    text = "".join(f"{T0 + HOUR * k},{prices}\n" for k, prices in enumerate(PRICES))
    with pytest.raises(
        ConfigError, match=r"p.csv: has no header row; say which column is which, such as --column time=1"
    ):
        take(tmp_path, file(text))
    done = take(tmp_path, file(text), columns=COLUMNS)
    assert_bars(tmp_path)
    assert "p.csv: the first row holds no names; columns are counted from 1" in done.notes


def test_a_header_may_be_said_or_denied(tmp_path: Path, file: Write) -> None:
    text = table([str(T0 + HOUR * k) for k in range(3)], "1,2,3,4,5,6")  # names that are numbers
    take(tmp_path, file(text), columns=COLUMNS, header=True)
    assert_bars(tmp_path)
    with pytest.raises(DataError, match=r"must not repeat|must hold|too small"):
        take(tmp_path, file(text), columns=COLUMNS, header=False)


@pytest.mark.parametrize(("separator", "said"), [(";", "';'"), ("\t", r"'\t'"), ("|", "'|'")])
def test_separators_are_told_and_said(tmp_path: Path, file: Write, separator: str, said: str) -> None:
    done = take(tmp_path, file(table(ISO, separator=separator)))
    assert_bars(tmp_path)
    assert f"p.csv: columns are separated by {said}" in done.notes


def test_a_decimal_comma(tmp_path: Path, file: Write) -> None:
    text = table(ISO, separator=";").replace("11;", "11,0;")
    with pytest.raises(DataError, match=r"must hold numbers; got '11,0'"):
        take(tmp_path, file(text))
    take(tmp_path, file(text), decimal=",")
    assert_bars(tmp_path)


def test_date_and_time_of_two_columns_in_utf_16(tmp_path: Path, file: Write) -> None:
    # as MetaTrader 5 writes them
    text = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\n"
    text += "".join(
        f"2024.01.01\t0{2 + k}:00:00\t" + PRICES[k].rpartition(",")[0].replace(",", "\t") + "\n" for k in range(3)
    )
    names = {"time": "<DATE>+<TIME>", **{name: f"<{name.upper()}>" for name in ("open", "high", "low", "close")}}
    done = take(tmp_path, file(text.encode("utf-16")), columns=names, time_zone="UTC+2")
    assert_bars(tmp_path)
    assert "p.csv: column <DATE>+<TIME> read as timestamps of UTC+2" in done.notes


def test_columns_of_one_kind_of_file(tmp_path: Path, file: Write) -> None:
    both = "t,open,high,low,close,mo,mh,ml,mc\n" + "".join(
        f"{T0 + HOUR * k},{PRICES[k].rpartition(',')[0]},{10.5 + k},{12 + k},{9.5 + k},{11.5 + k}\n" for k in range(3)
    )
    names = {"time": "t", "mark.open": "mo", "mark.high": "mh", "mark.low": "ml", "mark.close": "mc"}
    take(tmp_path, file(both), file(both), columns=names)
    np.testing.assert_array_equal(read_history(tmp_path / "data").columns["mark_close"], [11.5, 12.5, 13.5])
    np.testing.assert_array_equal(read_history(tmp_path / "data").columns["close"], [11, 12, 13])


def test_names_that_are_not_there(tmp_path: Path, file: Write) -> None:
    with pytest.raises(ConfigError, match=r"column open=Opening: .*p.csv has no such column; it has time, open, high"):
        take(tmp_path, file(table(ISO)), columns={"open": "Opening"})
    with pytest.raises(DataError, match=r"needs a column close; found time, .*; --column says which is which"):
        take(tmp_path, file(table(ISO).replace("close", "last")))
    for bad in ({"opening": "1"}, {"book.open": "1"}):
        with pytest.raises(ConfigError, match=r"is none of time, open, high"):
            Reading(columns=bad)


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y.%m.%d %H:%M",
        "%Y/%m/%d %H:%M",
        "%Y%m%d %H:%M:%S",
        "%d.%m.%Y %H:%M",
        "%Y-%m-%dT%H:%M:%S.%f",
    ],
)
def test_forms_that_can_be_read_in_one_way(tmp_path: Path, file: Write, form: str) -> None:
    from datetime import UTC, datetime

    stamps = [datetime.fromtimestamp((T0 + HOUR * k) / 1000, UTC).strftime(form) for k in range(3)]
    done = take(tmp_path, file(table(stamps)))
    assert_bars(tmp_path)
    assert "times of the prices have no offset and are read as UTC; --time-zone says otherwise" in done.warnings


def test_day_and_month_are_asked_for_where_both_fit(tmp_path: Path, file: Write) -> None:
    stamps = [f"02/03/2024 0{k}:00" for k in range(3)]
    with pytest.raises(
        ConfigError, match=r"reads in more ways than one, %d/%m/%Y %H:%M or %m/%d/%Y %H:%M.*--time-format"
    ):
        take(tmp_path, file(table(stamps)))
    take(tmp_path, file(table(stamps)), time_format="%d/%m/%Y %H:%M")
    assert read_history(tmp_path / "data").start_ms == T0 + 61 * 24 * HOUR
    take(tmp_path, file(table([f"01/13/2024 0{k}:00" for k in range(3)])))  # no thirteenth month
    assert read_history(tmp_path / "data").start_ms == T0 + 12 * 24 * HOUR


def test_zones_are_taken_as_said(tmp_path: Path, file: Write) -> None:
    stamps = [f"2024-01-01 0{8 + k}:00" if k < 2 else "2024-01-01 10:00" for k in range(3)]
    for zone in ("Asia/Shanghai", "UTC+8", "+08:00"):
        done = take(tmp_path, file(table(stamps)), time_zone=zone)
        assert_bars(tmp_path)
        assert not done.warnings
    with pytest.raises(ConfigError, match=r"carries its own offset"):
        take(tmp_path, file(table(ISO)), time_zone="UTC+8")
    with pytest.raises(ConfigError, match=r"time_zone must be UTC, an offset such as UTC.3, or a name.*got 'Mars'"):
        Reading(time_zone="Mars")


def test_the_hour_that_autumn_repeats(tmp_path: Path, file: Write) -> None:
    # Berlin 2024-10-27: 02:00 CEST is 00:00 UTC, then 02:00 CET is 01:00 UTC
    first = 1_729_987_200_000
    both = table(["2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"])
    take(tmp_path, file(both), time_zone="Europe/Berlin")
    bars = read_history(tmp_path / "data")
    assert (bars.start_ms, bars.n_bars) == (first, 3)
    once = table(["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 03:00"])
    with pytest.raises(
        DataError, match=r"2024-10-27T02:00 came twice in Europe/Berlin, and the file does not tell which"
    ):
        take(tmp_path, file(once), time_zone="Europe/Berlin")
    with pytest.raises(DataError, match=r"not a time in Europe/Berlin"):
        take(
            tmp_path,
            file(table(["2024-03-31 01:00", "2024-03-31 02:00", "2024-03-31 03:00"])),
            time_zone="Europe/Berlin",
        )


def test_bars_longer_than_an_hour_show_that_a_zone_is_missing(tmp_path: Path, file: Write) -> None:
    stamps = ["2024-01-01 03:00", "2024-01-01 07:00", "2024-01-01 11:00"]
    with pytest.raises(ConfigError, match=r"are not UTC: they are 3h past multiples of 4h; say --time-zone"):
        take(tmp_path, file(table(stamps)), interval="4h")
    take(tmp_path, file(table(stamps)), interval="4h", time_zone="UTC+3")
    assert_bars(tmp_path)


@pytest.mark.parametrize(("late", "why"), [(0, ""), (-1, " (they lie just before the next bar)")])
def test_stamps_of_closes(tmp_path: Path, file: Write, late: int, why: str) -> None:
    text = table([str(T0 + HOUR * (k + 1) + late) for k in range(3)])
    if late:  # 00:59:59.999 can be nothing else
        done = take(tmp_path, file(text))
    else:
        take(tmp_path, file(text))
        assert read_history(tmp_path / "data").start_ms == T0 + HOUR
        done = import_generic("Y", "1h", file(text), out=tmp_path / "two", reading=Reading(stamps="close"))
        (tmp_path / "data").rename(tmp_path / "one")
        (tmp_path / "two").rename(tmp_path / "data")
    assert f"p.csv: stamps are bar closes{why}" in done.notes
    assert_bars(tmp_path)
    done = import_generic("Z", "1h", file(text.replace("time", "close_time")), out=tmp_path / "three",
                          reading=Reading(columns={"time": "close_time"}))  # fmt: skip
    assert done.span[0] == "2024-01-01T00:00Z"


@pytest.mark.parametrize("naive", [False, True])
def test_a_mark_price_tells_zone_and_end_of_bar(tmp_path: Path, file: Write, naive: bool) -> None:
    market = market_of(2)

    def rows(prices: np.ndarray, shift: int) -> str:
        text = "time,open,high,low,close\n"
        for bar, stamp in enumerate(market.stamps):
            when = np.datetime64(stamp + shift, "ms").astype("datetime64[s]") if naive and shift else stamp + shift
            text += ",".join([str(when).replace("T", " "), *map(str, prices[:, bar])]) + "\n"
        return text

    mark = file(rows(market.mark, 0), "m.csv")
    if naive:
        done = take(tmp_path, file(rows(market.last, 2 * HOUR)), mark)
        assert any("the clock of the prices is UTC+2" in warning for warning in done.warnings)
        assert read_history(tmp_path / "data").start_ms == T0
    else:
        with pytest.raises(ConfigError, match=r"on the prices move 1h after the mark prices.*--time-zone.*--stamps"):
            take(tmp_path, file(rows(market.last, HOUR)), mark)


# --- units ------------------------------------------------------------------------------------------------------------


def test_prices_are_scaled_and_other_units_are_seen(tmp_path: Path, file: Write) -> None:
    market = market_of(2)

    def body(prices: np.ndarray, scale: float) -> str:
        rows = (",".join(f"{scale * price:.6f}" for price in prices[:, bar]) for bar in range(prices.shape[1]))
        lines = (f"{stamp},{row}\n" for stamp, row in zip(market.stamps, rows, strict=True))
        return "time,open,high,low,close\n" + "".join(lines)

    mark = file(body(market.mark, 1), "m.csv")
    with pytest.raises(DataError, match=r"mark prices are 1000 times the prices in the median.*--price-scale"):
        take(tmp_path, file(body(market.last, 0.001)), mark)
    done = take(tmp_path, file(body(market.last, 0.001)), price_scale=1000.0)
    assert read_history(tmp_path / "data").columns["close"][0] == pytest.approx(market.last[3, 0])
    assert "p.csv: prices are multiplied by 1000" in done.notes
    with pytest.raises(ConfigError, match=r"price_scale must be a finite number > 0; got -1"):
        Reading(price_scale=-1)


@pytest.mark.parametrize("pair", [("open", "close"), ("high", "low"), ("close", "volume")])
def test_swapped_columns_are_refused(tmp_path: Path, file: Write, pair: tuple[str, str]) -> None:
    market = market_of(6)
    head = "time,open,high,low,close,volume"
    one, two = pair
    swapped = head.replace(one, "?").replace(two, one).replace("?", two)
    rows = "".join(
        f"{stamp}," + ",".join(map(str, market.last[:, bar])) + f",{market.volume[bar]}\n"
        for bar, stamp in enumerate(market.stamps)
    )
    with pytest.raises(DataError, match=r"open and close are swapped|must not be below low|must lie within"):
        take(tmp_path, file(f"{swapped}\n{rows}"))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_takes_it_all(tmp_path: Path, file: Write) -> None:
    text = "Date;O;H;L;C\n" + "".join(
        f"01/01/2024 0{1 + k}:00;" + PRICES[k].rpartition(",")[0].replace(",", ";") + "\n" for k in range(3)
    )
    words = [
        "import",
        "generic",
        "--symbol",
        "X",
        "--interval",
        "1h",
        "--prices",
        str(file(text)),
        "--out",
        str(tmp_path / "data"),
    ]
    columns = [word for pair in ("time=Date", "open=O", "high=H", "low=L", "close=C") for word in ("--column", pair)]
    told = ["--time-format", "%d/%m/%Y %H:%M", "--time-zone", "UTC+1", "--stamps", "open", "--separator", ";"]
    done = CliRunner().invoke(cli, [*words, *columns, *told])
    assert done.exit_code == 0, done.output
    assert_bars(tmp_path)
    assert "p.csv: column Date read as timestamps of UTC+1" in done.stderr
    bad = CliRunner().invoke(cli, [*words, "--column", "time"])
    assert isinstance(bad.exception, ConfigError)
    assert "column must read NAME=COLUMN, such as time=Date; got 'time'" in str(bad.exception)
