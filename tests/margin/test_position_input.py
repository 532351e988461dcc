"""Positions that a rule, its tiers or their own keys do not allow are refused."""

import math

import numpy as np
import pytest

from backtest.errors import BacktestError, ConfigError, RuleError
from backtest.margin.liquidation import price
from backtest.margin.packaged_tiers import packaged_tables
from backtest.margin.position import Position
from backtest.margin.position_input import read_position
from backtest.margin.tiers import TierTable

BINANCE = {"rules": "binance-usdm", "side": "long", "entry_price": 100, "quantity": 10, "leverage": 10, "mmr": 0.01}


def test_a_symbol_takes_the_latest_packaged_table() -> None:
    # The table of 2025-12-05. At 75× the first notional above 3,000,000 is refused.
    position = {"rules": "binance-usdm", "symbol": "BTCUSDT", "side": "long", "entry_price": 60000, "leverage": 20}
    answer = price({**position, "quantity": 100 / 3})
    assert answer["liquidation_price"] == pytest.approx(57327.63, abs=0.005)
    assert answer["tier"] == 3
    assert answer["maintenance_margin"] == pytest.approx(11_500)  # 0.0065·2,000,000 − 1500
    latest = packaged_tables("binance-usdm", "BTCUSDT")[-1].table
    assert answer == price({**position, "symbol": None, "tiers": latest, "quantity": 100 / 3})
    with pytest.raises(RuleError, match=r"leverage must be at most 50 \(BTCUSDT, notional 3,060,000\); got 75"):
        price({**position, "quantity": 51, "leverage": 75})


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"levrage": 5},
            ConfigError,
            r"unknown key 'levrage' \(did you mean 'leverage'\?\); a position has rules, side",
        ),
        ({"side": None}, ConfigError, "key 'side' is missing"),
        ({"side": "buy"}, ConfigError, "side must be 'long' or 'short'; got 'buy'"),
        ({"entry_price": "10"}, ConfigError, "entry_price must be a number; got '10'"),
        ({"entry_price": 0}, ConfigError, "entry_price must be > 0; got 0"),
        ({"quantity": -1}, ConfigError, "quantity must be > 0; got -1"),
        ({"quantity": True}, ConfigError, "quantity must be a number; got True"),
        ({"quantity": 10**400}, ConfigError, "quantity must be a number that a float64 holds"),
        ({"quantity": 1e308}, ConfigError, "must be finite amounts"),
        ({"mark_price": math.nan}, ConfigError, "mark_price must be > 0; got nan"),
        ({"funding_paid": math.inf}, ConfigError, "funding_paid must be finite; got inf"),
        ({"mmr": 1}, ConfigError, "mmr must be a fraction of the notional.*got 1"),
        ({"margin": 5}, ConfigError, "exactly one of leverage, margin, wallet; got leverage and margin"),
        ({"leverage": None}, ConfigError, "exactly one of leverage, margin, wallet; got none"),
        ({"mmr": None}, ConfigError, "exactly one of tiers, mmr; got none"),
        ({"tiers": [[0, 0.01, 0]]}, ConfigError, "exactly one of tiers, mmr; got tiers and mmr"),
        ({"mmr": None, "tiers": [[0, 0.01, 0]], "deduction": 5}, ConfigError, "deduction goes with mmr.*got 5"),
        ({"other_maintenance": 5}, ConfigError, "other_maintenance goes with wallet"),
        ({"other_unrealized": -5}, ConfigError, "other_unrealized goes with wallet"),
        ({"mmr": None, "tiers": 5}, ConfigError, r"tiers must be \[\[floor"),
        ({"mmr": None, "tiers": [[0, "x", 0]]}, ConfigError, r"tiers\[0\]\[1\] must be a number; got 'x'"),
        ({"mmr": None, "tiers": [[0, 0.01], [99, 0.02]]}, RuleError, "tiers under binance-usdm have deductions"),
        (
            {"mmr": None, "tiers": [[0, 0.01, 0], [99, 0.02, 9]]},
            RuleError,
            "tiers row 2: maintenance jumps at floor 99",
        ),
        ({"max_leverage": 5}, RuleError, r"leverage must be at most 5 \(max_leverage\); got 10"),
        ({"rules": "binance"}, RuleError, "unknown rule 'binance'"),
        ({"rules": 5}, ConfigError, "rules must be the name of a rule; got 5"),
        ({"rules": None}, ConfigError, "rules .* or contract, basis and close_reserve; got neither"),
        ({"basis": "entry"}, RuleError, "basis is 'mark' under binance-usdm; got 'entry'"),
        ({"close_reserve": 0.1}, RuleError, "close_reserve is 0.0 under binance-usdm; got 0.1"),
        ({"rules": None, "contract": "s"}, ConfigError, "contract must be 'linear' or 'inverse' or 'spot'; got 's'"),
        ({"rules": None, "contract": "spot"}, RuleError, "mmr is not read under contract 'spot'"),
        ({"rules": None, "contract": "linear", "basis": "index"}, ConfigError, "basis must be 'mark' or 'entry'"),
        (
            {"rules": None, "contract": "linear", "close_reserve": 0.99},
            RuleError,
            r"mmr \+ close_reserve must be below 1, the whole notional; got 0.01 \+ 0.99",
        ),
        ({"symbol": "BTCUSDT"}, ConfigError, "symbol takes the packaged tier table, which excludes mmr; got symbol"),
        ({"symbol": "BTCUSDT", "mmr": None, "deduction": 0}, ConfigError, "symbol .* excludes deduction"),
        ({"symbol": 5, "mmr": None}, ConfigError, "symbol must be a name, such as 'BTCUSDT'; got 5"),
        (
            {"symbol": "BTCUSD", "mmr": None},
            RuleError,
            r"no tier table of 'BTCUSD' is packaged .* \(did you mean 'BTCUSD.*; packaged are 1000BONKUSDT.*ZECUSDT",
        ),
        (
            {"symbol": "BTCUSDT", "mmr": None, "rules": "okx-linear"},
            RuleError,
            "no tier table is packaged for rule 'okx-linear'; some are for binance-usdm",
        ),
        (
            {"symbol": "BTCUSDT", "mmr": None, "rules": None, "contract": "linear"},
            RuleError,
            r"no rule is named; got symbol 'BTCUSDT': give rules \(binance-usdm\), or tiers or mmr",
        ),
        ({"slope": 0.1}, RuleError, "slope is not read under binance-usdm"),
        ({"initial_rate": 0.2}, RuleError, r"leverage must be at most 5 \(initial rate 0.2\); got 10"),
        ({"initial_rate": 0}, ConfigError, "initial_rate must be .*above 0 and below 1; got 0"),
        ({"rules": "bybit-linear", "leverage": None, "wallet": 99}, RuleError, "wallet is not read under bybit-linear"),
        ({"rules": "hyperliquid", "max_leverage": 20}, RuleError, "mmr under hyperliquid is 0.5 .*, 0.025; got 0.01"),
        ({"rules": "hyperliquid", "mmr": None}, ConfigError, "exactly one of tiers, mmr; got none"),
        ({"rules": "kraken-inverse", "taker_fee": 0.1}, RuleError, "taker_fee is not read under kraken-inverse"),
        ({"rules": "okx-linear", "close_reserve": 0.1}, RuleError, "close_reserve is 0.0005 under okx-linear"),
        ({"rules": "okx-linear", "mmr": None, "tiers": [[0, 0.01, 0]]}, RuleError, "under okx-linear have no deduct"),
        ({"rules": "deribit-linear", "mmr": None, "tiers": [[0, 0.01]]}, RuleError, "tiers are not read under deribit"),
        ({"rules": "deribit-linear", "quantity": 3000}, RuleError, "at most 5.88.* .initial rate 0.17.; got 10"),
        ({"rules": "deribit-linear", "leverage": 0.5, "slope": 0.1}, RuleError, "below 1, the whole notional"),
        ({"rules": None, "contract": "linear", "basis": "entry", "slope": 0.1}, ConfigError, "slope goes with mmr and"),
        ({"rules": "deribit-linear", "slope": -1}, ConfigError, "slope must be a rate per coin of size, ≥ 0; got -1"),
        ({"taker_fee": 0.1}, RuleError, "taker_fee is not read under binance-usdm"),
    ],
)
def test_impossible_positions_are_refused(change: dict[str, object], error: type[BacktestError], message: str) -> None:
    price(BINANCE)
    with pytest.raises(error, match=message):
        price({**BINANCE, **change})


def test_the_limits_of_a_table_hold() -> None:
    columns = np.array([[0.0, 1000.0], [1000.0, 5000.0], [0.01, 0.02], [50.0, 20.0], [0.0, 10.0]])
    floor, cap, mmr, most, deduction = columns
    document = {**BINANCE, "mmr": None, "tiers": TierTable("ladder", floor, cap, mmr, most, deduction)}
    read_position({**document, "leverage": 50})  # the notional 1000 is a cap
    with pytest.raises(RuleError, match=r"leverage must be at most 20 \(ladder, notional 1,500\); got 50"):
        read_position({**document, "leverage": 50, "quantity": 15})
    with pytest.raises(RuleError, match="notional must be at most 5,000, the last cap of ladder; got 6,000"):
        read_position({**document, "quantity": 60})


def test_a_fee_that_is_posted_needs_a_leverage() -> None:
    with pytest.raises(ConfigError, match=r"taker_fee .* follows from leverage or margin; .*got 0\.001"):
        Position(side="long", entry_price=1.0, quantity=1.0, wallet=1.0, mmr=0.01, taker_fee=0.001)


SPOT = {"contract": "spot", "side": "long", "entry_price": 100, "quantity": 2, "leverage": 4, "liquidation_ltv": 0.9}
NOT_OF_SPOT = (
    *("mmr", "deduction", "slope", "initial_rate", "taker_fee", "close_reserve", "funding_paid", "extra_margin"),
    *("max_leverage", "other_maintenance", "other_unrealized", "basis", "tiers"),
)
SPOT_ALONE = ("liquidation_ltv", "margin_call_ltv", "interest")
SWAP = {"side": "long", "entry_price": 100, "quantity": 2, "leverage": 4, "mmr": 0.01}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"liquidation_ltv": None}, ConfigError, "key 'liquidation_ltv' is missing; a position has side"),
        ({"quantity": None}, ConfigError, "key 'quantity' is missing; a position has side, .*liquidation_ltv"),
        ({"liquidation_ltv": 1}, ConfigError, "liquidation_ltv must be a share of the assets, .*; got 1"),
        ({"liquidation_ltv": 0}, ConfigError, "liquidation_ltv must be a share"),
        ({"liquidation_ltv": "0.9"}, ConfigError, "liquidation_ltv must be a number; got '0.9'"),
        ({"margin_call_ltv": 0.95}, ConfigError, "margin_call_ltv must be at most liquidation_ltv, 0.9; got 0.95"),
        ({"interest": -0.1}, ConfigError, "interest must be the growth of the debt so far, ≥ 0; got -0.1"),
        ({"interest": float("inf")}, ConfigError, "interest must be the growth"),
        ({"interest": 1e307}, ConfigError, "must be finite amounts"),
        ({"leverage": 0}, ConfigError, "leverage must be > 0; got 0"),
        ({"margin": 5}, ConfigError, "exactly one of leverage, margin, wallet; got leverage and margin"),
        ({"leverage": None}, ConfigError, "exactly one of leverage, margin, wallet; got none"),
        ({"side": "buy"}, ConfigError, "side must be 'long' or 'short'"),
        ({"rules": "binance-usdm"}, RuleError, "contract is 'linear' under binance-usdm; got 'spot'"),
        ({"symbol": "BTCUSDT"}, RuleError, "symbol is not read under contract 'spot'"),
        ({"interst": 0.1}, ConfigError, r"unknown key 'interst' \(did you mean 'interest'\?\)"),
        *(
            ({key: 0.1}, RuleError, f"{key} is not read under contract 'spot': .*it has side, entry_price")
            for key in NOT_OF_SPOT
        ),
    ],
)
def test_impossible_spot_positions_are_refused(
    change: dict[str, object], error: type[BacktestError], message: str
) -> None:
    price(SPOT)
    with pytest.raises(error, match=message):
        price({**SPOT, **change})


@pytest.mark.parametrize("key", SPOT_ALONE)
@pytest.mark.parametrize(
    "rule", [{"rules": "binance-usdm"}, {"contract": "linear"}, {"contract": "inverse", "basis": "entry"}]
)
def test_keys_of_spot_are_refused_under_other_contracts(rule: dict[str, object], key: str) -> None:
    with pytest.raises(RuleError, match=f"{key} is not read under .*: it goes with contract 'spot'"):
        price({**SWAP, **rule, key: 0.5})
