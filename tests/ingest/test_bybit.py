"""Bybit: the clock of its archives is found or asked for, edges of months count once, answers are taken as they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from backtest.data.dataset import read_history
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats import bybit
from backtest.ingest.importer import import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Reading, Request
from tests._support.layouts import LAYOUTS
from tests._support.market import HOUR, T0, market_of

MT4 = "BTCUSDT_1_2024-01-01_2024-01-31.csv.gz"
MINUTES = (
    "2024.01.01 03:00,10,12,9,11,5\n"
    "2024.01.01 03:01,11,13,10,12,6\n"
    "2024.01.01 03:02,12,14,11,13,7\n"
)  # fmt: skip


def archive(folder: Path, text: str, name: str = MT4) -> Path:
    (folder / name).write_bytes(gzip.compress(text.encode()))
    return folder / name


def answer(folder: Path, name: str, rows: Sequence[object], **more: object) -> Path:
    result = {"symbol": "BTCUSDT", "category": "linear", "list": list(rows)}
    (folder / name).write_text(json.dumps({"retCode": 0, "retMsg": "OK", "result": result, **more}))
    return folder / name


def take(out: Path, prices: object, zone: str | None = None, mark: object = None, funding: object = None) -> Imported:
    request = Request("BTCUSDT", "1m", out, reading=Reading(time_zone=zone))
    return import_files(bybit.FORMAT, request, BarFiles(prices, mark, funding))


def test_the_zone_of_an_archive_alone_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"readers found UTC\+3 and UTC; say --time-zone, or give --mark"):
        take(tmp_path / "out", archive(tmp_path, MINUTES))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("zone", "start"), [("UTC+3", T0), ("UTC", T0 + 3 * HOUR), ("Europe/Istanbul", T0)])
def test_the_zone_that_is_said_is_taken(tmp_path: Path, zone: str, start: int) -> None:
    done = take(tmp_path / "out", archive(tmp_path, MINUTES), zone)
    assert read_history(tmp_path / "out").start_ms == start
    assert f"{MT4}: column time read as timestamps of {zone}" in done.notes
    assert not done.warnings


@pytest.mark.parametrize(("hours", "said"), [(3, "note"), (0, "note"), (8, "warning")])
def test_mark_prices_tell_the_zone(tmp_path: Path, hours: int, said: str) -> None:
    docs = LAYOUTS["bybit-mt4"].docs(market_of(4))
    for row in docs[0].rows:
        row[0] = docs[0].clock(docs[0].back(row[0]) + (hours - 3) * HOUR)
    LAYOUTS["bybit-mt4"].write(tmp_path / "in", docs)
    done = LAYOUTS["bybit-mt4"].load(tmp_path / "in", tmp_path / "out")
    zone = f"UTC+{hours}" if hours else "UTC"
    text = f"the clock of the prices is {zone}: there they move with the mark prices, whose zone is known"
    assert text in (done.notes if said == "note" else done.warnings)
    assert read_history(tmp_path / "out").start_ms == T0
    assert read_history(tmp_path / "out").n_bars == 240


def test_a_wrong_zone_is_refused_where_mark_prices_contradict_it(tmp_path: Path) -> None:
    layout = LAYOUTS["bybit-mt4"]
    layout.write(tmp_path / "in", layout.docs(market_of(4)))
    files = [tmp_path / "in" / doc.name for doc in layout.docs(market_of(4))]
    with pytest.raises(ConfigError, match=r"on the prices move 3h after the mark prices"):
        request = Request("BTCUSDT", "1h", tmp_path / "out", reading=Reading(time_zone="UTC"))
        import_files(bybit.FORMAT, request, BarFiles(*files))


def test_the_minute_at_the_edge_of_two_months_is_that_of_the_second(tmp_path: Path) -> None:
    one = archive(tmp_path, MINUTES)
    name = "BTCUSDT_1_2024-02-01_2024-02-29.csv.gz"
    same = archive(tmp_path, "2024.01.01 03:02,12,14,11,13,7\n2024.01.01 03:03,13,15,12,14,8\n", name)
    done = take(tmp_path / "out", [same, one], "UTC+3")
    np.testing.assert_array_equal(read_history(tmp_path / "out").columns["close"], [11, 12, 13, 14])
    assert "1 times occur twice, the first 2024-01-01T00:02Z; one of each is kept" in done.notes
    assert not done.warnings
    other = archive(tmp_path, "2024.01.01 03:02,12,14,11,12.5,3\n2024.01.01 03:03,13,15,12,14,8\n", name)
    done = take(tmp_path / "other", [one, other], "UTC+3")
    np.testing.assert_array_equal(read_history(tmp_path / "other").columns["close"], [11, 12, 12.5, 14])
    assert done.warnings == (f"{MT4}: disagrees with {name} on 2024-01-01T00:02Z, where that begins; it is taken",)


def test_archives_that_disagree_elsewhere_are_refused(tmp_path: Path) -> None:
    one = archive(tmp_path, MINUTES)
    two = archive(tmp_path, MINUTES.replace("10,12,6", "10,12.5,6"), "BTCUSDT_1_2024-02-01_2024-02-29.csv.gz")
    with pytest.raises(DataError, match=r"disagree on 2024-01-01T00:01Z: close is 12.5 and 12"):
        take(tmp_path / "out", [one, two], "UTC+3")


def test_the_bar_that_was_forming_is_left_out(tmp_path: Path) -> None:
    import os

    rows = [[str(T0 + 60_000 * k), "10", "12", "9", "11", "5", "55"] for k in (2, 1, 0)]
    file = answer(tmp_path, "k.json", rows)
    os.utime(file, ns=(0, (T0 + 150_000) * 1_000_000))  # half a minute into the third
    done = take(tmp_path / "out", file)
    assert read_history(tmp_path / "out").n_bars == 2
    assert "k.json: the bar of 2024-01-01T00:02Z ended after the file was written and is left out" in done.warnings


def test_answers_that_failed_or_are_of_another_symbol(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"retCode":10001,"retMsg":"params error","result":{}}')
    with pytest.raises(DataError, match=r"retCode must be 0.*got 10001 \(params error\)"):
        take(tmp_path / "out", tmp_path / "f.json")
    with pytest.raises(
        ConfigError, match=r"k.json: is of BTCUSDT; give --instrument BTCUSDT if that is to be called E"
    ):
        import_files(bybit.FORMAT, Request("ETHUSDT", "1m", tmp_path / "out"), BarFiles(answer(tmp_path, "k.json", [])))
    with pytest.raises(ConfigError, match=r"is of BTCUSDT; give --instrument"):
        import_files(bybit.FORMAT, Request("X", "1m", tmp_path / "out"), BarFiles(archive(tmp_path, MINUTES)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["1704067200000", "10", "12", "9"], "every row must have time, open, high, low, close; row 0"),
        (["1704067200000", "10", "12", "9", 11], "every row|close must be text|close"),
        ({"a": 1}, "row 0|every row"),
        (["x", "10", "12", "9", "11"], "column time must hold ISO 8601 times or integers; got 'x' in row 0"),
    ],
)
def test_rows_of_another_shape(tmp_path: Path, row: object, message: str) -> None:
    good = ["1704067260000", "10", "12", "9", "11", "5", "55"]
    with pytest.raises(DataError, match=message):
        take(tmp_path / "out", answer(tmp_path, "k.json", [row, good]))


def test_pages_in_one_file_are_one_list(tmp_path: Path) -> None:
    pages = [
        {"retCode": 0, "result": {"symbol": "BTCUSDT", "list": [[str(T0 + 60_000 * k), "10", "12", "9", "11", "5"]]}}
        for k in (1, 0, 0)
    ]
    (tmp_path / "k.json").write_text(json.dumps(pages))
    take(tmp_path / "out", tmp_path / "k.json")
    assert read_history(tmp_path / "out").n_bars == 2
