"""Every margin rule on days that markets broke: counts, prices and outcomes are those of the literal walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.config.policies import VolatilityScale, VolatilityTarget
from tests._support.histories import HOUR
from tests._support.real import (
    COIN,
    Case,
    ada,
    assert_walked,
    btc,
    bybit,
    bybit_csv,
    csv_of,
    dated_csv,
    eth,
    needs_real,
    published,
    rows,
    sui,
)
from tests.oracles import volatility
from tests.oracles.trades import Trade

pytestmark = needs_real
SLOPE = {"slope": 0.00005, "initial_rate": 0.02}
LOAN = {"liquidation_ltv": 0.9, "margin_call_ltv": 0.8, "borrow_rate": 0.00002}
FEES = {"liquidation_slippage": 0.002, "liquidation_fee": 0.0125}


def target(window: str) -> VolatilityTarget:
    """A weight of 1 at 120 % a year, over twelve bars."""
    return VolatilityTarget(target=1.2, window=window, cap=1.5)


STATIC: dict[str, Callable[[Path], Case]] = {
    "flat rates on the wick of March 2020": lambda _: Case(
        btc(),
        bt.Sweep(
            leverage=[2, 4, 10, 50], horizon=["6h", "2d"], maintenance=[0.004, 0.02], open_fee=[0.0005],
            funding=[bt.Funding(), bt.Funding(scale=3.0, shift=0.0001)],
        ),
        bt.Margin(**FEES, surplus="fund"),
        bt.Entries(every="2h"),
    ),
    "coin tiers at a fixed face value": lambda folder: Case(
        btc(),
        bt.Sweep(
            leverage=[2, 5, 15, 40], horizon=["6h", "2d"], maintenance=[csv_of(folder / "coin.csv", COIN)],
            size=[bt.Size(notional=60_000.0), bt.Size(margin=1.5), bt.Size(notional=30_000.0, extra=0.3)],
        ),
        bt.Margin(contract="inverse", **FEES),
        bt.Entries(every="2h"),
        tables={"coin": COIN},
    ),
    "packaged tables of SUI": lambda _: Case(
        sui(),
        bt.Sweep(
            leverage=[2, 5, 20, 50], horizon=["1h", "5h"], maintenance=["binance-usdm"], open_fee=[0.0005],
            size=[bt.Size(notional=8_000.0), bt.Size(notional=700_000.0), bt.Size(margin=30_000.0)],
        ),
        bt.Margin(**FEES),
        bt.Entries(every="10m"),
        "SUIUSDT",
        tables={"binance-usdm": published("SUIUSDT")},
    ),
    "wallet behind the position": lambda _: Case(
        sui(),
        bt.Sweep(
            leverage=[5, 20], horizon=["5h"], maintenance=[0.01, "binance-usdm"],
            size=[bt.Size(notional=60_000.0, extra=x) for x in (0.0, 900.0, 12_000.0)],
        ),
        bt.Margin(**FEES, surplus="fund"),
        bt.Entries(every="10m"),
        "SUIUSDT",
        tables={"binance-usdm": published("SUIUSDT")},
    ),
    "risk limits of Bybit": lambda folder: Case(
        ada(),
        bt.Sweep(
            leverage=[2, 5, 12.5, 33], horizon=["1h", "5h"], open_fee=[0.00055],
            maintenance=[{"rule": "bybit-linear", "tiers": bybit_csv(folder)}],
            size=[bt.Size(notional=250_000.0), bt.Size(margin=60_000.0), bt.Size(notional=250_000.0, extra=5_000.0)],
        ),
        bt.Margin(**FEES),
        bt.Entries(every="10m"),
        tables={"ADAUSDT": bybit()},
        terms={"posted_fee": 0.00055},
    ),
    "rates that slope, in coin": lambda _: Case(
        btc(),
        bt.Sweep(
            leverage=[2, 5, 15], horizon=["6h", "2d"], maintenance=["deribit-inverse"], open_fee=[0.0005],
            size=[bt.Size(notional=4_000_000.0), bt.Size(margin=40.0)],
        ),
        bt.Margin(**FEES),
        bt.Entries(every="2h"),
        terms=SLOPE | {"contract": "inverse"},
        tables={"deribit-inverse": 0.01},
    ),
    "rates that slope, in quote": lambda _: Case(
        eth(),
        bt.Sweep(
            leverage=[2, 5, 15], horizon=["6h", "2d"], maintenance=["deribit-linear"],
            size=[bt.Size(notional=1_500_000.0), bt.Size(margin=200_000.0)],
        ),
        bt.Margin(**FEES),
        bt.Entries(every="2h"),
        terms=SLOPE,
        tables={"deribit-linear": 0.01},
    ),
    "leverage that follows volatility": lambda _: Case(
        eth(),
        bt.Sweep(
            leverage=[3, 8, 25], horizon=["6h", "2d"], maintenance=[0.005], weight=[target("12h")], open_fee=[0.0005]
        ),
        bt.Margin(**FEES),
        bt.Entries(every="2h"),
        weights=lambda grid: volatility.target_weights(grid, 12, 1.2, 1.5),
    ),
    "leverage that follows volatility, under tiers": lambda _: Case(
        sui(),
        bt.Sweep(
            leverage=[3, 8, 25], horizon=["1h", "5h"], maintenance=["binance-usdm"], weight=[target("1h")],
            size=[bt.Size(notional=700_000.0), bt.Size(margin=9_000.0)],
        ),
        bt.Margin(**FEES),
        bt.Entries(every="10m"),
        "SUIUSDT",
        tables={"binance-usdm": published("SUIUSDT")},
        weights=lambda grid: volatility.target_weights(grid, 12, 1.2, 1.5),
    ),
    "maintenance that follows volatility": lambda _: Case(
        btc(),
        bt.Sweep(leverage=[2, 5, 20], horizon=["6h", "2d"], maintenance=[0.01]),
        bt.Margin(**FEES, maintenance_scale=VolatilityScale(window="12h", reference=0.8, cap=6.0)),
        bt.Entries(every="2h"),
        grid=lambda laid: volatility.scaled(laid, 12, 0.8, 6.0),
    ),
    "maintenance of tiers that follows volatility": lambda folder: Case(
        btc(),
        bt.Sweep(
            leverage=[2, 5, 20], horizon=["6h", "2d"], maintenance=[csv_of(folder / "coin.csv", COIN)],
            size=[bt.Size(notional=60_000.0), bt.Size(margin=1.5)],
        ),
        bt.Margin(
            contract="inverse", maintenance_scale=VolatilityScale(window="12h", reference=0.8, cap=6.0), **FEES
        ),
        bt.Entries(every="2h"),
        tables={"coin": COIN},
        grid=lambda laid: volatility.scaled(laid, 12, 0.8, 6.0),
    ),
    "spot margin": lambda _: Case(
        sui(),
        bt.Sweep(leverage=[1.5, 3, 5], horizon=["1h", "5h"], open_fee=[0.001]),
        bt.Margin(contract="spot", **LOAN, **FEES),
        bt.Entries(every="10m"),
        terms=LOAN,
    ),
    "futures that settle in the crash": lambda _: Case(
        btc(),
        bt.Sweep(leverage=[3, 10, 40], horizon=["6h", "2d"], maintenance=[0.005], open_fee=[0.0005]),
        bt.Margin(expiry="2020-03-12T11:00Z", **FEES),
    ),
    "coin futures that settle in the crash": lambda folder: Case(
        eth(),
        bt.Sweep(
            leverage=[3, 10, 40], horizon=["6h", "2d"], maintenance=[csv_of(folder / "coin.csv", COIN)],
            size=[bt.Size(notional=25_000.0)],
        ),
        bt.Margin(expiry="2021-05-19T14:00Z", contract="inverse", basis="entry", **FEES),
        tables={"coin": COIN},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATIC, ids=lambda name: name.replace(" ", "-"))
def test_a_rule_on_the_day_of_a_crash(tmp_path: Path, name: str) -> None:
    assert_walked(STATIC[name](tmp_path))


@pytest.mark.slow
def test_tables_that_change_under_open_positions(tmp_path: Path) -> None:
    """The ten changes of eleven BTC tables, three days on both sides: imported, packaged and walked are one."""
    tables = published("BTCUSDT")
    assert len(tables.tables) == 11
    file, total, moved = dated_csv(tmp_path / "eleven.csv", tables), 0, 0
    sizes = [bt.Size(notional=700_000.0), bt.Size(notional=25e6)]
    for (_, before), (at, _) in zip(tables.tables, tables.tables[1:], strict=False):
        change = pd.Timestamp(at, unit="ms").floor("h")
        made = rows("BTCUSDT", *(str(change + pd.Timedelta(days=d)) for d in (-3, 3)))
        sweep = bt.Sweep(leverage=[5, 9, 18, 40], horizon=["2d"], maintenance=[file], size=sizes)
        case = Case(made, sweep, bt.Margin(**FEES), bt.Entries(every="4h"), "BTCUSDT", {"eleven": tables})
        walked = assert_walked(case, least=0)
        total += walked["liquidations"].sum()
        files = {"packaged": "binance-usdm", "kept": csv_of(tmp_path / "before.csv", before)}
        others = {k: case.sweeping(maintenance=(x,)) for k, x in files.items()}
        packaged = others["packaged"].run()[0].drop(columns="maintenance")
        pd.testing.assert_frame_equal(packaged, walked.drop(columns="maintenance"))
        ends = [each.run()[1].set_index("entry_time")["liquidation_price"] for each in (case, others["kept"])]
        opened = ends[0].index <= change.tz_localize("UTC")
        moved += int((ends[0][opened].fillna(0).to_numpy() != ends[1][opened].fillna(0).to_numpy()).sum())
    # Or it would prove nothing; what positions opened before a change end under is the table after it.
    assert total > 300 and moved > 1_000, (total, moved)


def test_trades_of_ones_own_through_a_crash(tmp_path: Path) -> None:
    """Own sides, leverages, prices and exits, entered at odd moments; and one's own times in a sweep of leverages."""
    made, rng = eth(), np.random.default_rng(5)
    close = dict(zip(made.open_time_ms, made.close or [], strict=True))
    trades = []
    for _ in range(150):
        opened = int(rng.choice(made.open_time_ms[:-4]))
        trades.append(
            Trade(
                opened + int(rng.integers(1, HOUR + 1)),
                None if rng.random() < 0.3 else opened + int(rng.integers(HOUR + 1, 60 * HOUR)),
                int(rng.choice([1, -1])),
                float(rng.choice([1.5, 4.0, 12.0, 60.0])),
                None if rng.random() < 0.5 else float(close[opened] or 0) * float(rng.uniform(0.99, 1.01)),
            )
        )
    frame = pd.DataFrame(
        {
            "entry_time": pd.to_datetime([t.entry_time_ms for t in trades], unit="ms", utc=True),
            "exit_time": pd.to_datetime([t.exit_time_ms for t in trades], unit="ms", utc=True),
            "side": ["long" if t.side == 1 else "short" for t in trades],
            "leverage": [t.leverage for t in trades],
            "entry_price": np.array([t.entry_price for t in trades], dtype=float),
        }
    )
    table = published("ETHUSDT").tables[-1][1]
    axes = {"horizon": ["6h", "3d"], "maintenance": [csv_of(tmp_path / "eth.csv", table)], "open_fee": [0.0005]}
    axes["size"] = [bt.Size(notional=400_000.0)]
    own = frame.drop(columns=["side", "leverage"])
    swept = [replace(trade, side=None, leverage=None) for trade in trades]
    for name, given, held, more in (
        ("own", frame, trades, {}),
        ("swept", own, swept, {"side": ["short"], "leverage": [2, 8, 30]}),
    ):
        given.to_parquet(tmp_path / f"{name}.parquet")
        case = Case(
            made, bt.Sweep(**axes, **more), bt.Margin(**FEES), bt.Entries(file=str(tmp_path / f"{name}.parquet")),
            tables={"eth": table}, trades=held,
        )  # fmt: skip
        assert_walked(case)
