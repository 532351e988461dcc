"""Impossible files of trades are refused by row, column and value, before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backtest as bt
from tests._support.histories import history_of, random_rows
from tests.cli.conftest import HOUR, START, prices, table_of, typed
from tests.config.conftest import Refused

SWEEP = 'horizon = ["2h"]\nmaintenance = [0.004]\n'
AXES = SWEEP + 'side = ["long"]\nleverage = [10]\n'
HEAD = "entry_time,exit_time,side,leverage,entry_price\n"


def toml(file: str = "trades.csv", sweep: str = SWEEP, path: str = "last.parquet") -> str:
    """A configuration whose entries are the trades of a file."""
    return f'[data]\npath = "{path}"\n[entries]\nfile = "{file}"\n[sweep]\n{sweep}'


ROW = "2020-01-01T05:00:00Z"
FILES = {
    "no time of entry": ("time,side\n" + ROW + ",long\n", "unknown column 'time'; trades have entry_time, exit_time"),
    "no column of it": ("side,leverage\nlong,3\n", "trades.csv: column entry_time is missing; trades have entry_time"),
    "no trade": (HEAD, "trades.csv: holds no trade"),
    "an unknown column": (f"entry_time,stop\n{ROW},90\n", "trades.csv: unknown column 'stop'; trades have entry_time"),
    "a column twice": (f"entry_time,side,side\n{ROW},long,long\n", "trades.csv: column 'side' appears twice"),
    "numbers for times": ("entry_time\n1577854800000\n", "trades.csv: entry_time must hold time stamps, such as "),
    "words for times": (f"entry_time\n{ROW}\nsoon\n", "trades.csv: entry_time must hold time stamps, such as "),
    "a time left blank": (f"entry_time,leverage\n{ROW},2\n,3\n", "trades.csv: row 1: entry_time is missing"),
    "a side of its own": (f"entry_time,side\n{ROW},long\n{ROW},BUY\n", "1: side must be 'long' or 'short'; got 'BUY'"),
    "a side left blank": (f"entry_time,side,leverage\n{ROW},,3\n", "row 0: side must be 'long' or 'short'; got "),
    "a leverage of 0": (f"entry_time,leverage\n{ROW},0\n", "trades.csv: row 0: leverage must be within 0…1000; got 0"),
    "a leverage left blank": (f"entry_time,leverage\n{ROW},3\n{ROW},\n", "trades.csv: row 1: leverage is missing"),
    "a price below 0": (f"entry_time,entry_price\n{ROW},-1\n", "trades.csv: row 0: entry_price must be > 0; got -1"),
    "an infinite price": (f"entry_time,entry_price\n{ROW},inf\n", "row 0: entry_price must be > 0; got inf"),
    "a price in words": (f"entry_time,entry_price\n{ROW},market\n", "entry_price must hold numbers; got string"),
    "a symbol left blank": (f"entry_time,symbol\n{ROW},last\n{ROW},\n", "row 1: symbol must be one of last; got ''"),
    "a symbol that is not there": (f"entry_time,symbol\n{ROW},BTC\n", "row 0: symbol must be one of last; got 'BTC'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_trades(place: Path, refused: Refused, name: str) -> None:
    text, message = FILES[name]
    Path("trades.csv").write_text(text)
    assert message in refused(2, toml())


def test_a_file_that_is_not_there(place: Path, refused: Refused) -> None:
    assert refused(2, toml()) == "entries.file: trades.csv cannot be read (No such file or directory)"
    Path("trades.parquet").write_text("entry_time")
    assert refused(2, toml("trades.parquet")).startswith(
        "trades.parquet: cannot be read as a table of trades, Parquet or CSV ("
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"entry_price": pa.array([100.0, float("nan")])}, "row 1: entry_price must be > 0; got nan"),
        ({"leverage": pa.array([float("nan"), 3.0])}, "row 0: leverage must be within 0…1000; got nan"),
        ({"leverage": pa.array([True, True])}, "leverage must hold numbers; got bool"),
        ({"entry_time": pa.array([1, 2])}, "entry_time must hold time stamps, such as 2024-05-01T12:00:00Z; got int64"),
        ({"entry_time": pa.array([2**60, 0], pa.timestamp("ms"))}, "entry_time must lie between 1678 and 2262"),
        ({"exit_time": pa.array(["soon", None])}, "exit_time must hold time stamps, such as 2024-05-01T12:00:00Z"),
        ({"symbol": pa.array(["last", None])}, "row 1: symbol is missing"),
    ],
)  # fmt: skip
def test_columns_of_parquet_that_are_no_trades(
    place: Path, refused: Refused, values: dict[str, pa.Array], message: str
) -> None:
    """NaN is not null: it is the outcome of a computation that failed."""
    times = pa.array([START + 5 * HOUR, START + 6 * HOUR], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"entry_time": times} | values), "trades.parquet")
    assert message in refused(2, toml("trades.parquet"))


@pytest.mark.parametrize(("key", "value"), [("side", "long"), ("leverage", "3")])
def test_an_axis_beside_a_column(place: Path, refused: Refused, key: str, value: str) -> None:
    Path("trades.csv").write_text(f"entry_time,{key}\n{ROW},{value}\n")
    message = f"sweep.{key}: the trades of trades.csv have a column {key} of their own; leave one out"
    assert refused(2, toml(sweep=AXES)) == message


def test_entries_every_beside_a_file(place: Path, refused: Refused) -> None:
    Path("trades.csv").write_text(f"entry_time\n{ROW}\n")
    said = refused(2, toml('trades.csv"\nevery = "2h'))
    assert "entries: every and file exclude each other: entries are bars, or your own trades" in said


# Entry and exit. The history spans 48 hours, its last bar opens at 23:00; a trade at 05:00 is one of the bar of 04:00.
OUTSIDE = {
    "before it": (
        "2020-01-01T00:00:00Z,",
        "entered 2020-01-01T00:00Z: lies outside the history, 2020-01-01T00:00Z … 2020-01-03T00:00Z (1 such trades)",
    ),
    "after it": ("2020-01-03T00:00:01Z,", "entered 2020-01-03T00:00:01Z: lies outside the history, 2020-01-01T00:00Z"),
    "left before it began": (
        f"{ROW},2020-01-01T04:30:00Z",
        "entered 2020-01-01T05:00Z and left 2020-01-01T04:30Z: that leaves no bar at risk; exit_time must lie after",
    ),
    "left as it began": (f"{ROW},{ROW}", "and left 2020-01-01T05:00Z: that leaves no bar at risk"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_trades_outside_the_history(place: Path, refused: Refused, name: str) -> None:
    """A sound trade stands before it: row 1 is the one that is named."""
    row, message = OUTSIDE[name]
    Path("trades.csv").write_text(f"entry_time,exit_time\n{ROW},2020-01-01T08:00:00Z\n{row}\n")
    said = refused(1, toml(sweep=AXES))
    assert said.startswith("trades.csv: row 1, last ") and message in said


def test_a_trade_in_a_bar_without_a_price(place: Path, refused: Refused) -> None:
    stamps, columns = prices()
    kept = np.arange(stamps.size) != 4
    pq.write_table(table_of(stamps[kept], {k: v[kept] for k, v in columns.items()}), "last.parquet")
    Path("trades.csv").write_text(f"entry_time\n{ROW}\n")
    said = refused(1, toml(sweep=AXES))
    assert said.endswith(
        "entered 2020-01-01T05:00Z: the bar has no price to enter at; give entry_price (1 such trades)"
    )


def test_a_trade_in_the_bar_that_settles_it(place: Path, refused: Refused) -> None:
    Path("trades.csv").write_text(f"entry_time\n{ROW}\n")
    said = refused(1, toml(sweep=AXES + '[margin]\nexpiry = "2020-01-01T05:00Z"\n'))
    assert said == "last: a trade of trades.csv enters in the bar that settles it"


def test_a_price_without_a_symbol_among_several(place: Path, refused: Refused) -> None:
    """Which one's price it is would be a guess; times alone are entered in each."""
    for symbol in ("A", "B"):
        bt.write_history(history_of(random_rows(1, 90, gaps=False), symbol), place / "data")
    Path("trades.csv").write_text("entry_time,entry_price\n1970-01-02T05:00:00Z,100\n")
    message = "trades.csv: entry_price is that of one symbol, and there are A, B; add a column symbol, or name one"
    assert refused(2, toml(sweep=AXES, path="data")).startswith(message)
    Path("trades.csv").write_text("entry_time\n1970-01-02T05:00:00Z\n")
    assert typed("run", "sweep.toml", "--out", "run").code == 0
    assert bt.load("run").table["symbol"].tolist() == ["A", "B"]


def test_trades_go_to_the_symbols_they_name(place: Path) -> None:
    """C has no trade and no rows; data.symbols narrows further, and must leave some."""
    for symbol in ("A", "B", "C"):
        bt.write_history(history_of(random_rows(1, 90, gaps=False), symbol), place / "data")
    Path("trades.csv").write_text(
        "entry_time,symbol\n1970-01-02T05:00:00Z,B\n1970-01-02T06:00:00Z,A\n1970-01-02T07:00:00Z,B\n"
    )
    sweep = bt.Sweep(side=["long"], leverage=[10], horizon=["2h"], maintenance=[0.004])
    entries = bt.Entries(file="trades.csv")
    assert bt.run("data", sweep, entries=entries).table["entries"].tolist() == [1, 2]
    only = bt.run("data", sweep, entries=entries, data=bt.Data(symbols=["B"]))
    assert only.table[["symbol", "entries"]].values.tolist() == [["B", 2]]
    with pytest.raises(bt.ConfigError, match=r"data\.symbols: trades\.csv holds no trade of C"):
        bt.run("data", sweep, entries=entries, data=bt.Data(symbols=["C"]))


def test_a_time_without_a_zone_is_utc(place: Path) -> None:
    """As every other time of a configuration; with an offset it is that moment."""
    sweep = bt.Sweep(side=["long"], leverage=[10], horizon=["2h"], maintenance=[0.004])
    found = []
    for text in (ROW, "2020-01-01 05:00:00", "2020-01-01T07:00:00+02:00"):
        Path("trades.csv").write_text(f"entry_time\n{text}\n")
        events = bt.events_of("last.parquet", sweep, entries=bt.Entries(file="trades.csv"))
        found.append(events["entry_time"].tolist())
    assert found == [[pd.Timestamp("2020-01-01T05:00Z")]] * 3
