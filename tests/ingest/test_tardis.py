"""Tardis: ticks become bars of both prices block by block, and funding falls at the last rate announced."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from backtest.data.dataset import read_history
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats import tardis
from backtest.ingest.formats.tardis import import_tardis
from backtest.ingest.merge import Imported
from backtest.ingest.options import Request
from tests._support.layouts import LAYOUTS, TARDIS
from tests._support.market import HOUR, T0, market_of

MINUTE = 60_000
Tick = tuple[float, object, object, object, object]
"""Minutes after `T0`, last, mark, funding rate, minute of the next charge (None: blank)."""
DAY: list[Tick] = [
    (0, 10, 10.5, 0.001, 60),
    (20, 12, None, 0.002, 60),
    (40, 9, 9.5, None, None),
    (59.9, 11, 11.5, 0.003, 60),
    (60.1, 11, 11, 0.003, 60),  # the charge of minute 60 is still announced after it fell
    (61, None, 12, 0.005, 120),
    (130, 14, 14, 0.004, 180),
]


def day(folder: Path, ticks: list[Tick], name: str = "2024-01-01_BTCUSDT.csv.gz", symbol: str = "BTCUSDT") -> Path:
    def cell(value: object) -> str:
        return "" if value is None else str(value)

    lines = [",".join(TARDIS)]
    for minute, last, mark, rate, due in ticks:
        us = int((T0 + minute * MINUTE) * 1000)
        when = "" if due is None else str((T0 + int(str(due)) * MINUTE) * 1000)
        lines.append(f"okex-swap,{symbol},{us},{us + 5000},{when},{cell(rate)},,,{cell(last)},,{cell(mark)}")
    folder.mkdir(exist_ok=True)
    data = ("\n".join(lines) + "\n").encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def take(folder: Path, out: Path, every: str | None = None) -> Imported:
    return import_tardis(Request("BTCUSDT", "1h", out), folder, every)


def test_ticks_become_bars_and_charges(tmp_path: Path) -> None:
    day(tmp_path / "in", DAY)
    done = take(tmp_path / "in", tmp_path / "out")
    bars = read_history(tmp_path / "out")
    # the first hour: last 10 12 9 11, mark 10.5 9.5 11.5; the second: last 11, mark 11 12; the third: 14
    expected = {
        "open": [10, 11, 14], "high": [12, 11, 14], "low": [9, 11, 14], "close": [11, 11, 14],
        "mark_open": [10.5, 11, 14], "mark_high": [11.5, 12, 14], "mark_low": [9.5, 11, 14],
        "mark_close": [11.5, 12, 14],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(bars.columns[name], values, err_msg=name)
    # minute 60 at the rate of minute 59.9; minute 120 at that of minute 61, an hour old; minute 180 never came
    np.testing.assert_array_equal(bars.columns["funding_rate"], [np.nan, 0.003, 0.005])
    assert done.charges == 2
    assert "7 ticks, timestamp read as microseconds since the epoch; bars of 1h" in done.notes
    text = "1 charges fell more than 10m after the last rate announced, first at 2024-01-01T02:00Z"
    assert text in done.warnings


@pytest.mark.parametrize("block", [400, 1000, 1 << 24])
def test_blocks_and_files_of_days_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(tardis, "BLOCK", block)
    market, layout = market_of(9), LAYOUTS["tardis"]
    (doc,) = layout.docs(market)
    halves = doc.copy(), doc.copy()
    halves[0].rows, halves[0].name = doc.rows[:333], "2024-01-01_BTCUSDT.csv.gz"  # within a bar
    halves[1].rows, halves[1].name = doc.rows[333:], "2024-01-02_BTCUSDT.csv.gz"
    layout.write(tmp_path / "in", halves)
    layout.load(tmp_path / "in", tmp_path / "out")
    got = read_history(tmp_path / "out")
    for name, values in layout.truth(market).items():
        np.testing.assert_array_equal(got.columns[name], values, err_msg=name)


def test_a_charge_that_was_not_announced_takes_the_rate_after_it(tmp_path: Path) -> None:
    day(tmp_path / "in", [(0, 10, 10, None, None), (61, 11, 11, 0.002, 60), (62, 11, 11, 0.009, 60)])
    done = take(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(read_history(tmp_path / "out").columns["funding_rate"], [np.nan, 0.002])
    assert any("1 charges were not announced before they fell" in warning for warning in done.warnings)


def test_rates_without_a_time_are_asked_about(tmp_path: Path) -> None:
    day(tmp_path / "in", [(5, 10, 10, 0.001, None), (50, 11, 11, 0.002, None), (70, 11, 11, 0.003, None)])
    with pytest.raises(
        ConfigError, match=r"no funding_timestamp; say the time between charges, such as --funding-every"
    ):
        take(tmp_path / "in", tmp_path / "out")
    take(tmp_path / "in", tmp_path / "out", every="1h")
    np.testing.assert_array_equal(read_history(tmp_path / "out").columns["funding_rate"], [np.nan, 0.002])


def test_files_that_overlap_are_said(tmp_path: Path) -> None:
    day(tmp_path / "in", DAY)
    day(tmp_path / "in", DAY, "copy.csv")
    done = take(tmp_path / "in", tmp_path / "out")
    assert any("overlap from 2024-01-01T00:00Z on" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace(str(T0), str(T0)[:-3]), "timestamp must be microseconds since the epoch"),
        (lambda t: t.replace(f",{T0}000,", f",{T0 + 3 * HOUR}000,"), "must be within an hour"),
        (lambda t: t.replace("0.002", "abc"), "not a readable CSV file.*abc"),
        (lambda t: t.replace(",12,", ",-12,"), "last_price must be > 0; got -12"),
        (lambda t: t.replace(",12,", ",nan,"), "last_price must be finite; got nan"),
        (lambda t: t.replace("mark_price", "market"), "not a readable CSV file.*mark_price"),
        (lambda t: t.splitlines()[0] + "\n", "there are no ticks of BTCUSDT with a price"),
    ],
)
def test_ticks_that_are_none(tmp_path: Path, change: object, message: str) -> None:
    file = day(tmp_path / "in", DAY, "a.csv")
    file.write_text(change(file.read_text()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        take(tmp_path / "in", tmp_path / "out")


def test_ticks_out_of_order_and_damaged_files(tmp_path: Path) -> None:
    day(tmp_path / "in", DAY[::-1])
    with pytest.raises(DataError, match=r"ticks must come in the order of time; that of row 1"):
        take(tmp_path / "in", tmp_path / "out")
    file = day(tmp_path / "in", DAY)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"not a readable .gz file; truncated or damaged"):
        take(tmp_path / "in", tmp_path / "out")
    day(tmp_path / "in", DAY, symbol="ETHUSDT")
    with pytest.raises(ConfigError, match=r"is of ETHUSDT; give --instrument ETHUSDT"):
        take(tmp_path / "in", tmp_path / "out")
    file = day(tmp_path / "more", DAY, "a.csv")
    file.write_text(file.read_text().rstrip("\n"))
    assert (
        "a.csv: the last row has no line end; the file may be cut off"
        in take(tmp_path / "more", tmp_path / "out").warnings
    )
