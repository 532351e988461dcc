"""The price of one position: hand-worked numbers of linear contracts, and what is refused."""

import math

import numpy as np
import pytest

from backtest.errors import BacktestError, ConfigError, RuleError
from backtest.margin.liquidation import price
from backtest.margin.packaged_tiers import packaged_tables
from backtest.margin.position import Position
from backtest.margin.position_input import read_position
from backtest.margin.tiers import TierTable

LONG = {"contract": "linear", "side": "long", "entry_price": 10, "quantity": 1, "leverage": 5, "mmr": 0.01}
BINANCE = {"rules": "binance-usdm", "side": "long", "entry_price": 100, "quantity": 10, "leverage": 10, "mmr": 0.01}
TIERS = [[0, 0.004, 0], [300_000, 0.005, 300], [800_000, 0.0065, 1500], [3_000_000, 0.01, 12_000]]


# ---------------------------------------------------------------- numbers worked by hand


def test_binance_cross_by_hand() -> None:
    # LP = (WB − TMM + UPNL + D − s·q·E) / (q·m − s·q)
    #    = (1,535,443.01 − 71,200.81144 − 56,354.57 + 135,365 − 3683.979·1456.84) / (368.3979 − 3683.979)
    #    = (1,543,252.62856 − 5,366,967.96636) / −3315.5811 = −3,823,715.3378 / −3315.5811 = 1153.26…
    position = {"rules": "binance-usdm", "side": "long", "entry_price": 1456.84, "quantity": 3683.979, "mmr": 0.1}
    cross = {"wallet": 1535443.01, "other_maintenance": 71200.81144, "other_unrealized": -56354.57}
    answer = price({**position, **cross, "deduction": 135365, "mark_price": 1335.18})
    assert answer["liquidation_price"] == pytest.approx(1153.26, abs=0.005)
    # MM = 3683.979·1335.18·0.1 − 135,365 = 356,512.508; its loss there is 3683.979·(1335.18 − 1456.84) = −448,192.89
    assert answer["maintenance_margin"] == pytest.approx(356512.508, abs=0.01)
    # whole wallet: (356,512.508 + 71,200.811) / (1,535,443.01 − 56,354.57 − 448,192.885) = 427,713.319 / 1,030,895.555
    assert answer["margin_ratio"] == pytest.approx(0.4148949, abs=1e-6)
    assert answer["initial_margin"] is None


def test_bybit_classic_by_hand() -> None:
    # IM = 20,000/50 = 400; MM at entry = 100; LP = 20,000 − (400 − 100) = 19,700; 200 of funding paid: 19,900
    position = {
        "contract": "linear",
        "basis": "entry",
        "side": "long",
        "entry_price": 20000,
        "quantity": 1,
        "mmr": 0.005,
    }
    answer = price({**position, "leverage": 50})
    assert (answer["initial_margin"], answer["maintenance_margin"]) == (400, 100)
    assert answer["liquidation_price"] == 19700
    assert price({**position, "leverage": 50, "funding_paid": 200})["liquidation_price"] == 19900
    assert answer["bankruptcy_price"] == 19600  # 20,000·(1 − 1/50)


def test_on_entry_basis_the_mark_moves_the_balance_and_not_the_maintenance() -> None:
    # MM = 10·(0.01 + 0.001) = 0.11, E = 2 + (12 − 10) = 4
    answer = price({**LONG, "basis": "entry", "close_reserve": 0.001, "mark_price": 12})
    assert answer["maintenance_margin"] == pytest.approx(0.11, rel=1e-14)
    assert answer["fee_to_close"] == pytest.approx(0.01, rel=1e-14)
    assert answer["margin_ratio"] == pytest.approx(0.11 / 4, rel=1e-14)


def test_okx_with_its_closing_fee_by_hand() -> None:
    # short, M = 2: P·(1 + 0.01 + 0.0006) = 10 + 2, P = 12/1.0106 = 11.874134…
    answer = price({**LONG, "side": "short", "close_reserve": 0.0006})
    assert answer["liquidation_price"] == pytest.approx(11.87413417771621, rel=1e-14)
    assert answer["fee_to_close"] == pytest.approx(0.006, rel=1e-14)  # 10·0.0006
    assert answer["maintenance_margin"] == pytest.approx(0.106, rel=1e-14)


def test_the_tier_is_the_one_at_the_liquidation_price() -> None:
    # 33⅓ BTC at 60,000 (notional 2,000,000), 20×: tier 3 at entry and at the liquidation price (1,910,921):
    # P = (60,000 − (100,000 + 1500)/33⅓) / (1 − 0.0065) = 56,955 / 0.9935 = 57,327.63; by collateral it would be tier 1
    position = {"rules": "binance-usdm", "side": "long", "entry_price": 60000, "quantity": 100 / 3, "leverage": 20}
    answer = price({**position, "tiers": TIERS})
    assert answer["liquidation_price"] == pytest.approx(57327.63, abs=0.005)
    assert answer["tier"] == 3
    # short 1×: tier 3 at entry, tier 4 with nearly 4,000,000 in the end: (60,000 + 2,012,000/33⅓)/1.01 = 120,360/1.01
    short = price({**position, "tiers": TIERS, "side": "short", "leverage": 1})
    assert short["tier"] == 3
    assert short["liquidation_price"] == pytest.approx(120360 / 1.01, rel=1e-12)


def test_a_symbol_takes_the_latest_packaged_table() -> None:
    # of 2025-12-05; its first four tiers are those above. At 75× the first notional above 3,000,000 is refused.
    position = {"rules": "binance-usdm", "symbol": "BTCUSDT", "side": "long", "entry_price": 60000, "leverage": 20}
    answer = price({**position, "quantity": 100 / 3})
    assert answer["liquidation_price"] == pytest.approx(57327.63, abs=0.005)
    assert answer["tier"] == 3
    assert answer["maintenance_margin"] == pytest.approx(11_500)  # 0.0065·2,000,000 − 1500
    latest = packaged_tables("binance-usdm", "BTCUSDT")[-1].table
    assert answer == price({**position, "symbol": None, "tiers": latest, "quantity": 100 / 3})
    with pytest.raises(RuleError, match=r"leverage must be at most 50 \(BTCUSDT, notional 3,060,000\); got 75"):
        price({**position, "quantity": 51, "leverage": 75})


def test_without_deductions_the_tier_of_the_entry_decides() -> None:
    # entered with 1500 in tier 2 (0.02): P = (10 − 2)/(1 − 0.02); 150·P ≈ 1224 is still tier 2, at mark 6 it is tier 1
    position = {**LONG, "mmr": None, "quantity": 150, "tiers": [[0, 0.01], [1000, 0.02]], "mark_price": 6}
    answer = price(position)
    assert answer["liquidation_price"] == pytest.approx(8 / 0.98, rel=1e-14)
    assert answer["tier"] == 2
    assert answer["maintenance_margin"] == pytest.approx(18, rel=1e-14)  # 150·6·0.02


def test_extra_margin_and_funding_move_the_liquidation_but_funding_not_the_bankruptcy() -> None:
    # M = 2 + 1 − 0.5: P = (10 − 2.5)/0.99; bankruptcy 10 − 3, funding aside
    answer = price({**LONG, "extra_margin": 1, "funding_paid": 0.5})
    assert answer["liquidation_price"] == pytest.approx(7.5 / 0.99, rel=1e-14)
    assert answer["bankruptcy_price"] == 7
    assert answer["initial_margin"] == 2


def test_no_price_above_0_reads_as_null() -> None:
    answer = price({**LONG, "leverage": 1})
    assert answer["liquidation_price"] is None
    assert answer["bankruptcy_price"] is None  # 10·(1 − 1) = 0
    assert price({**LONG, "leverage": 1, "basis": "entry"})["liquidation_price"] == pytest.approx(0.1)


@pytest.mark.parametrize("entry_price", [0.1, 3.3, 99919.21208199284, 7e-5])
@pytest.mark.parametrize("quantity", [1.0008085323765451e-05, 0.3, 7.0])
def test_an_unleveraged_long_has_neither_price_whatever_the_rounding(entry_price: float, quantity: float) -> None:
    answer = price({**LONG, "entry_price": entry_price, "quantity": quantity, "leverage": 1})
    assert answer["liquidation_price"] is None
    assert answer["bankruptcy_price"] is None


def test_a_spent_margin_has_no_ratio() -> None:
    assert price({**LONG, "mark_price": 8})["margin_ratio"] is None
    assert price({**LONG, "mark_price": 9})["margin_ratio"] == pytest.approx(0.09)  # 9·0.01 / (2 − 1)


def test_a_short_without_any_safe_price_has_no_level_and_no_ratio() -> None:
    # 2 posted − 13 of funding = −11: equity is gone at every price, which the ratio says.
    answer = price({**LONG, "side": "short", "funding_paid": 13})
    assert (answer["liquidation_price"], answer["margin_ratio"]) == (None, None)


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


def test_what_a_rule_already_says_may_be_said_again() -> None:
    assert price({**BINANCE, "contract": "linear", "basis": "mark", "close_reserve": 0}) == price(BINANCE)


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
