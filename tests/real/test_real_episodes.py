"""The crashes that everyone remembers are found in real BTC, ETH and SOL, and counted as by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import backtest as bt
from tests._support.real import REAL, needs_real

pytestmark = needs_real

DAYS = ("2020-03-12", "2021-05-19", "2022-11-09", "2024-08-05", "2025-10-10")
LEVERAGE, MAINTENANCE, HOURS = 10, 0.004, 24
SWEEP = bt.Sweep(side=["long"], leverage=[LEVERAGE], horizon=[f"{HOURS}h"], maintenance=[MAINTENANCE])


def files(symbol: str) -> list[Path]:
    return [REAL / "binance_um" / f"{symbol}-1h{suffix}.parquet" for suffix in ("", "-mark")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Binance by the hour; SOL is there from 2024 on, and in 2022 by five minutes on OKX."""
    made = tmp_path_factory.mktemp("real") / "data"
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        prices, mark = files(symbol)
        bt.import_generic(symbol, "1h", prices, mark=mark, out=made)
    return made


@cache
def moment(day: str) -> pd.Timestamp:
    return pd.Timestamp(day, tz="UTC")


def crash(episodes: pd.DataFrame, day: str) -> pd.Series:
    """The one episode that holds the day."""
    (at,) = np.flatnonzero((episodes["first_day"] <= moment(day)) & (moment(day) <= episodes["last_day"]))
    return episodes.iloc[at]


def by_hand(symbol: str) -> pd.Series:
    """Liquidations by day, read from the files: entries at each close die at the first mark low that is too low.

    Entry p, margin p/L, maintenance of the value at the low m: p/L − (p − m) ≤ mmr·m, so m ≤ p·(1 − 1/L)/(1 − mmr).
    """
    prices, mark = (pq.read_table(file).to_pandas().set_index("timestamp") for file in files(symbol))
    grid = pd.date_range(max(prices.index[0], mark.index[0]), min(prices.index[-1], mark.index[-1]), freq="h")
    price = prices["close"].reindex(grid).to_numpy()
    low = mark["low"].reindex(grid).to_numpy()
    at = price * (1 - 1 / LEVERAGE) / (1 - MAINTENANCE)
    ends = np.lib.stride_tricks.sliding_window_view(low[1:], HOURS) <= at[:-HOURS, None]
    dead = np.flatnonzero(ends.any(axis=1))
    return pd.Series(grid[dead + 1 + ends[dead].argmax(axis=1)].floor("D")).value_counts().sort_index()


@pytest.mark.parametrize(("symbol", "known"), [("BTCUSDT", DAYS), ("ETHUSDT", DAYS), ("SOLUSDT", DAYS[3:])])
def test_each_crash_is_an_episode(data, symbol, known) -> None:
    chosen = bt.Data(symbols=[symbol])
    episodes = bt.liquidation_episodes(data, SWEEP, data=chosen)
    counted = bt.liquidation_days(data, SWEEP, data=chosen).set_index("day")["liquidations"]
    expected = by_hand(symbol)
    for day in known:
        found = crash(episodes, day)
        assert counted[moment(day)] == expected[moment(day)] >= 9  # on the day itself, by the literal count
        assert found["adverse_move"] > 0.15 and found["liquidations"] >= counted[moment(day)]
        span = slice(found["first_day"], found["last_day"])
        assert found["liquidations"] == expected[span].sum() == counted[span].sum()
    assert episodes["liquidations"].sum() == expected.sum() == counted.sum()


@pytest.mark.parametrize(
    ("symbol", "day", "rank"),
    [("BTCUSDT", DAYS[0], 2), ("BTCUSDT", DAYS[1], 1), ("ETHUSDT", DAYS[0], 3), ("ETHUSDT", DAYS[1], 1),
     ("SOLUSDT", DAYS[3], 2)],
)  # fmt: skip
def test_the_worst_of_them_lead(data, symbol, day, rank) -> None:
    assert crash(bt.liquidation_episodes(data, SWEEP, data=bt.Data(symbols=[symbol])), day)["rank"] == rank


def test_the_fall_of_an_exchange_in_five_minutes(tmp_path) -> None:
    """2022-11-09 in SOL on OKX, from 2022-05 to 2022-12: the worst that there is, half of the price and more."""
    bt.import_generic("SOL-USDT-SWAP", "5m", REAL / "okx_swap" / "SOL-USDT-SWAP-5m.parquet", out=tmp_path / "data")
    entries = bt.Entries(every="1h")
    episodes = bt.liquidation_episodes(tmp_path / "data", SWEEP, entries=entries)
    found = crash(episodes, "2022-11-09")
    assert found["rank"] == 1 and found["adverse_move"] > 0.5
