"""ccxt: lists of numbers and rates that tell their time twice; JSON that is none is refused where it breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backtest.data.dataset import read_history
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats import ccxt
from backtest.ingest.importer import import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Reading, Request
from tests._support.market import HOUR, T0
from tests.ingest.conftest import Write

BARS = [[T0 + HOUR * k, 10 + k, 12.5 + k, 9, 11 + k, 5] for k in range(3)]


def take(out: Path, prices: Path, funding: Path | None = None, reading: Reading | None = None) -> Imported:
    request = Request("BTCUSDT", "1h", out, reading=reading or Reading())
    return import_files(ccxt.FORMAT, request, BarFiles(prices, None, funding))


def rate(hour: int, text: str | None = None, **other: object) -> dict[str, object]:
    told = text or f"2024-01-01T{hour:02}:00:00.000Z"
    row = {"symbol": "BTC/USDT:USDT", "fundingRate": 0.0001, "timestamp": T0 + HOUR * hour, "datetime": told}
    return {**row, "info": {"x": "y"}, **other}


def test_bars_and_rates(tmp_path: Path, json_file: Write) -> None:
    done = take(tmp_path / "out", json_file(BARS), json_file([rate(0), rate(2, fundingRate=-0.0002)], "f.json"))
    bars = read_history(tmp_path / "out").columns
    np.testing.assert_array_equal(bars["high"], [12.5, 13.5, 14.5])
    np.testing.assert_array_equal(bars["funding_rate"], [0.0001, np.nan, -0.0002])
    assert done.charges == 2


@pytest.mark.parametrize(
    ("unit", "read"), [(0.001, "seconds"), (1, "milliseconds"), (1000, "microseconds"), (10**6, "nanoseconds")]
)
def test_units_of_time_are_told_by_size(tmp_path: Path, json_file: Write, unit: float, read: str) -> None:
    done = take(tmp_path / "out", json_file([[int(row[0] * unit), *row[1:]] for row in BARS]))
    assert done.notes[0] == f"p.json: column time read as {read} since the epoch"
    assert read_history(tmp_path / "out").start_ms == T0


def test_a_unit_that_is_said_rules(tmp_path: Path, json_file: Write) -> None:
    with pytest.raises(DataError, match=r"column time must lie before the year 2200 \(seconds are read\)"):
        take(tmp_path / "out", json_file(BARS), reading=Reading(time_unit="s"))


def test_percent_is_doubted_and_taken_if_said(tmp_path: Path, json_file: Write) -> None:
    funding = json_file([rate(0, fundingRate=0.01), rate(2, fundingRate=0.02)], "f.json")
    done = take(tmp_path / "one", json_file(BARS), funding)
    assert any("are they percent? --rates says which" in warning for warning in done.warnings)
    done = take(tmp_path / "two", json_file(BARS), funding, Reading(rates="percent"))
    np.testing.assert_array_equal(read_history(tmp_path / "two").columns["funding_rate"], [0.0001, np.nan, 0.0002])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[[1,2", "p.json: is not JSON; cut off or damaged"),
        ('[[1704067200000,NaN,2,1,1,1]]', "p.json: is not JSON.*NaN is no JSON number"),
        ("[" * 100_000, "p.json: is not JSON"),
        ("{}", "p.json: must hold a list of rows; got {}"),
        ("[]", "p.json: there are no rows"),
        ("[1]", "p.json: every row must be an object; row 0 is 1"),
        ("[[1,2,3]]", r"p.json: every row must have time, open, high, low, close; row 0 is \[1, 2, 3\]"),
        ([BARS[0], {"a": 1}], "p.json: every row must be a list; row 1 is"),
        ([BARS[0], [*BARS[1][:2], "x", 9, 12, 5]], "high must be a number as in the rows before; got 'x' in row 1"),
        ([BARS[0], [*BARS[1][:2], True, 9, 12, 5]], "p.json: high must be a number .* got True in row 1"),
        ([[10**30, 10, 12, 9, 11, 5]], "p.json: time holds a value out of range"),
        ([BARS[0], [*BARS[1][:2], None, 9, 12, 5]], "column high is null while others .*; got null in row 1"),
        ([BARS[0], [*BARS[1][:2], 8, 9, 12, 5]], "column high must not be below low; got 8 in row 1"),
        ([BARS[0], [T0 + 5, *BARS[1][1:]]], "column time must hold bar opens, multiples of 1h since the epoch"),
        ([BARS[0], [T0, 10, 12.5, 9, 11.5, 5]], "disagree on 2024-01-01T00:00Z: close is 11.5 and 11"),
    ],
)  # fmt: skip
def test_what_holds_no_bars(tmp_path: Path, json_file: Write, document: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        take(tmp_path / "out", json_file(document))
    assert not (tmp_path / "out").exists()


def test_rates_whose_times_disagree(tmp_path: Path, json_file: Write) -> None:
    funding = json_file([rate(0), rate(2, "2024-01-01T03:00:00.000Z")], "f.json")
    with pytest.raises(DataError, match=r"f.json: datetime must be the timestamp; got '2024-01-01T03.*in row 1"):
        take(tmp_path / "out", json_file(BARS), funding)
    (tmp_path / "p.csv").write_text("")
    with pytest.raises(ConfigError, match=r"files of ccxt are read from .json, .json.gz"):
        take(tmp_path / "out", tmp_path / "p.csv")
