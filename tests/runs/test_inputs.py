"""Odd but sound histories and files answer as their plain twins; unsound ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backtest as bt
from backtest.data.history import PriceHistory
from tests._support.histories import HOUR, history_of, random_rows

SWEEP = bt.Sweep(side=["long", "short"], leverage=[3, 10], horizon=["2h"], maintenance=[0.0])


def test_a_bar_with_only_one_of_high_and_low_cannot_trigger() -> None:
    """A low of 50 without a high is no trigger price: bar 2 kills nobody, and its short twin neither."""
    nan = np.nan
    low, high = np.array([99.0, 99, 50, 99]), np.array([101.0, 101, nan, 101])
    long = PriceHistory("X", HOUR, 0, {"high": high, "low": low, "close": np.full(4, 100.0)})
    short = PriceHistory("X", HOUR, 0, {"high": 200 - low, "low": 200 - high, "close": np.full(4, 100.0)})
    for history in (long, short):
        assert bt.run(history, SWEEP).table["liquidations"].tolist() == [0] * 4


def test_a_tier_table_is_refused_before_its_first_date(tmp_path: Path) -> None:
    (tmp_path / "late.csv").write_text("effective_from,floor,cap,mmr,max_leverage\n2030-01-01,0,,0.01,\n")
    sweep = SWEEP.model_copy(update={"maintenance": (str(tmp_path / "late.csv"),), "size": (bt.Size(notional=100.0),)})
    with pytest.raises(bt.RuleError, match=r"starts at 1970-01-01T00:00Z, before the first date .*2030-01-01T00:00Z"):
        bt.run(history_of(random_rows(1, 50)), sweep)


def test_a_symbol_with_a_slash_runs(tmp_path: Path) -> None:
    history = history_of(random_rows(1, 80), "ETH/USDT")
    bt.write_history(history, tmp_path / "data")
    result = bt.run(tmp_path / "data", SWEEP, out=tmp_path / "run")
    assert result.table["symbol"].unique().tolist() == ["ETH/USDT"]
    assert (bt.load(tmp_path / "run").table_at(0.9)["entries"] == result.table["entries"]).all()


def plain_table(n: int, start: int = 0) -> pa.Table:
    times = pa.array((np.arange(n) + start) * HOUR).cast(pa.timestamp("ms", tz="UTC"))
    price = 100.0 + np.arange(n) % 3
    return pa.table({"open_time": times, "high": price + 1, "low": price - 1, "close": price})


def test_files_without_statistics_are_ordered_by_their_times(tmp_path: Path) -> None:
    folder = tmp_path / "interval=1h" / "symbol=X" / "year=1970"
    folder.mkdir(parents=True)
    pq.write_table(plain_table(30), folder / "b.parquet", write_statistics=False)
    pq.write_table(plain_table(30, 30), folder / "a.parquet", write_statistics=False)
    assert bt.read_history(tmp_path).n_bars == 60


def test_a_plain_file_takes_its_name_and_interval_from_the_configuration(tmp_path: Path) -> None:
    pq.write_table(plain_table(1), tmp_path / "one.parquet")
    data = bt.Data(interval="1h", symbols=["BTCUSDT"])
    table = bt.run(tmp_path / "one.parquet", SWEEP, data=data).table
    assert (table["symbol"].unique().tolist(), table["entries"].sum()) == (["BTCUSDT"], 0)
    with pytest.raises(bt.ConfigError, match="holds one symbol; got 2"):
        bt.run(tmp_path / "one.parquet", SWEEP, data=bt.Data(symbols=["A", "B"]))


def test_an_empty_plain_file_is_a_fault_of_the_data(tmp_path: Path) -> None:
    pq.write_table(plain_table(0), tmp_path / "none.parquet")
    with pytest.raises(bt.DataError, match=r"none\.parquet"):
        bt.run(tmp_path / "none.parquet", SWEEP)
