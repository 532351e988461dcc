"""Spot margin: hand-worked prices, what holds of every one, and what is refused."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.errors import BacktestError, ConfigError, RuleError
from backtest.margin.liquidation import price
from backtest.margin.position import Position, Side
from backtest.margin.position_input import read_position
from backtest.margin.spot import SpotPosition, loans, owed_and_owned, prices_at_ltv

# N = 200, W = 50. Long: 150 quote owed on 2 base. Short: 2 base owed against 50 + 200 quote.
LONG = {"contract": "spot", "side": "long", "entry_price": 100, "quantity": 2, "leverage": 4, "liquidation_ltv": 0.9}
SHORT = {**LONG, "side": "short"}
SIDES = st.sampled_from(["long", "short"])


# ---------------------------------------------------------------- numbers worked by hand


def test_a_long_by_hand() -> None:
    answer = price(LONG)
    assert answer["initial_margin"] == 50
    assert answer["maintenance_margin"] == pytest.approx(20, rel=1e-14)  # 0.1·200
    assert answer["margin_ratio"] == pytest.approx(0.4, rel=1e-14)  # E = 200 − 150
    assert answer["liquidation_price"] == pytest.approx(150 / 1.8, rel=1e-14)
    assert answer["bankruptcy_price"] == 75
    assert (answer["tier"], answer["fee_to_close"]) == (None, 0)


def test_a_short_by_hand() -> None:
    answer = price(SHORT)
    assert answer["initial_margin"] == 50
    assert answer["maintenance_margin"] == pytest.approx(25, rel=1e-14)  # 0.1·250
    assert answer["margin_ratio"] == pytest.approx(0.5, rel=1e-14)  # E = 250 − 200
    assert answer["liquidation_price"] == 112.5  # 0.9·250/2
    assert answer["bankruptcy_price"] == 125
    assert (answer["tier"], answer["fee_to_close"]) == (None, 0)


def test_interest_moves_the_liquidation_and_not_the_bankruptcy() -> None:
    # 2 % on 150: 153/1.8 = 85. At a mark of 90: MM = 0.1·180, E = 180 − 153.
    answer = price({**LONG, "interest": 0.02, "mark_price": 90})
    assert answer["liquidation_price"] == pytest.approx(85, rel=1e-14)
    assert answer["margin_ratio"] == pytest.approx(18 / 27, rel=1e-14)
    assert answer["bankruptcy_price"] == 75
    # 25 % on 2 base: 225/2.5 = 90. At a mark of 80: MM = 25, E = 250 − 200.
    answer = price({**SHORT, "interest": 0.25, "mark_price": 80})
    assert answer["liquidation_price"] == pytest.approx(90, rel=1e-14)
    assert answer["maintenance_margin"] == pytest.approx(25, rel=1e-14)
    assert answer["margin_ratio"] == pytest.approx(0.5, rel=1e-14)
    assert answer["bankruptcy_price"] == 125


def test_own_funds_may_be_given_as_margin_or_wallet() -> None:
    for each in (LONG, SHORT):
        for key in ("margin", "wallet"):
            assert price({**each, "leverage": None, key: 50}) == price(each)


def test_a_long_that_owes_nothing_has_neither_price() -> None:
    for leverage in (1, 0.5):
        answer = price({**LONG, "leverage": leverage})
        assert (answer["liquidation_price"], answer["bankruptcy_price"]) == (None, None)
    # 400 of own funds, 200 of it cash, which bears no interest: MM = 20, E = 400
    for interest in (0, 0.5):
        answer = price({**LONG, "leverage": 0.5, "interest": interest})
        assert answer["margin_ratio"] == pytest.approx(0.05, rel=1e-14)
    # own funds that are the notional but for rounding, 0.1·3 against 0.3
    close = {**LONG, "entry_price": 0.1, "quantity": 3, "leverage": None, "margin": 0.3}
    assert price(close)["liquidation_price"] is None
    # a short always owes: 0.9·400/2 at leverage 1
    assert price({**SHORT, "leverage": 1})["liquidation_price"] == 180


def test_spent_funds_have_no_ratio() -> None:
    assert price({**LONG, "mark_price": 75})["margin_ratio"] is None
    assert price({**SHORT, "mark_price": 126})["margin_ratio"] is None
    # opened beyond the level, as of any contract, the ratio says so: E = 10, MM = 20
    assert price({**LONG, "leverage": 20})["margin_ratio"] == pytest.approx(2, rel=1e-14)


def test_the_call_level_changes_no_price() -> None:
    assert price({**LONG, "margin_call_ltv": 0.8}) == price(LONG)
    debt, assets = read_position(LONG).loan
    assert prices_at_ltv("long", debt, assets, 0.8) == pytest.approx(150 / 1.6, rel=1e-14)


def test_arrays_by_hand() -> None:
    # fees of 0 and 1 come out of the own funds: 150 and 151 owed; 250 and 249 owned
    growth = np.array([[1.0], [1.1]])
    debt, assets = loans("long", 2.0, 200.0, 50.0, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(debt, [150, 151])
    np.testing.assert_allclose(prices_at_ltv("long", debt, assets, 0.5, growth), [[150, 151], [165, 166.1]], rtol=1e-14)
    np.testing.assert_array_equal(prices_at_ltv("long", debt, assets, 1.0), [75, 75.5])
    np.testing.assert_array_equal(prices_at_ltv("long", np.array([150.0, 0.0, -50.0]), 2.0, 0.5), [150, 0, 0])
    debt, assets = loans("short", 2.0, 200.0, 50.0, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(assets, [250, 249])
    np.testing.assert_allclose(
        prices_at_ltv("short", debt, assets, 0.88, growth), [[110, 109.56], [100, 99.6]], rtol=1e-14
    )
    np.testing.assert_array_equal(prices_at_ltv("short", debt, assets, 1.0), [125, 124.5])
    owed, owned = owed_and_owned("short", np.array([50.0, 60.0]), debt, assets, 1.5)
    assert (owed.tolist(), owned.tolist()) == ([150, 180], [250, 249])
    owed, owned = owed_and_owned("long", 60.0, np.array([100.0, -20.0]), 2.0, 1.5)
    assert (owed.tolist(), owned.tolist()) == ([150, -20], [120, 120])


# ---------------------------------------------------------------- what holds of every position

POSITIONS = st.fixed_dictionaries(
    {
        "side": SIDES,
        "entry_price": st.floats(1e-4, 1e5),
        "quantity": st.floats(1e-3, 1e4),
        "leverage": st.floats(1.01, 50),
        "liquidation_ltv": st.floats(0.3, 0.99),
        "interest": st.sampled_from([0.0, 0.001, 0.2]),
    }
)


@given(POSITIONS)
def test_at_the_liquidation_price_the_ratio_is_1_and_the_debt_that_share_of_the_assets(
    document: dict[str, float],
) -> None:
    position = {"contract": "spot", **document}
    level = price(position)["liquidation_price"]
    assert level is not None
    there = read_position({**position, "mark_price": level})
    debt, assets = there.loan
    owed, owned = owed_and_owned(there.side, level, debt, assets, there.growth)
    assert float(owed / owned) == pytest.approx(document["liquidation_ltv"], rel=1e-12)
    # E is the small difference of debt and assets, 1 % of them at an ltv of 0.99
    assert price(there)["margin_ratio"] == pytest.approx(1, rel=1e-11)
    worse = level * (1 - 1e-6 if there.side == "long" else 1 + 1e-6)
    ratio = price({**position, "mark_price": worse})["margin_ratio"]
    assert ratio is None or ratio > 1


@given(POSITIONS, st.sampled_from([0.0, 5.0]))
def test_without_interest_it_is_a_linear_position(document: dict[str, float], more: float) -> None:
    # Long: E − MM = W + q·(P − p) − (1 − ltv)·q·P. Short: W + N − q·P = (1 − ltv)·(W + N) where q·P·(1/ltv − 1) is
    # that of a linear short's q·P.
    side, ltv = cast(Side, document["side"]), document["liquidation_ltv"]
    entry, quantity, leverage = (document[key] for key in ("entry_price", "quantity", "leverage"))
    spot = SpotPosition(
        side=side, entry_price=entry, quantity=quantity, leverage=leverage + more, liquidation_ltv=ltv, interest=0.0
    )
    mmr = 1 - ltv if side == "long" else 1 / ltv - 1
    if mmr >= 1:
        return
    linear = Position(side=side, entry_price=entry, quantity=quantity, leverage=leverage + more, mmr=mmr)
    here, there = price(spot), price(linear)
    for key in ("liquidation_price", "bankruptcy_price", "initial_margin"):
        # at 1.01x a long's level is 1 % of the entry, the difference of amounts of its size
        assert here[key] == pytest.approx(there[key], rel=1e-11)  # type: ignore[literal-required]


# ---------------------------------------------------------------- what is refused


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
    ],
)
def test_impossible_positions_are_refused(change: dict[str, object], error: type[BacktestError], message: str) -> None:
    with pytest.raises(error, match=message):
        price({**LONG, **change})


@pytest.mark.parametrize(
    "key",
    [
        *("mmr", "deduction", "slope", "initial_rate", "taker_fee", "close_reserve", "funding_paid", "extra_margin"),
        *("max_leverage", "other_maintenance", "other_unrealized"),
    ],
)
def test_keys_without_a_meaning_for_spot_are_refused(key: str) -> None:
    with pytest.raises(RuleError, match=f"{key} is not read under contract 'spot': .*it has side, entry_price"):
        price({**LONG, key: 0.1})


def test_basis_and_tiers_are_refused() -> None:
    for key, value in (("basis", "mark"), ("tiers", [[0, 0.01]])):
        with pytest.raises(RuleError, match=f"{key} is not read under contract 'spot'"):
            price({**LONG, key: value})


@pytest.mark.parametrize("key", ["liquidation_ltv", "margin_call_ltv", "interest"])
def test_keys_of_spot_are_refused_elsewhere(key: str) -> None:
    swap = {"side": "long", "entry_price": 100, "quantity": 2, "leverage": 4, "mmr": 0.01, key: 0.5}
    for rule in ({"rules": "binance-usdm"}, {"contract": "linear"}, {"contract": "inverse", "basis": "entry"}):
        with pytest.raises(RuleError, match=f"{key} is not read under .*: it goes with contract 'spot'"):
            price({**swap, **rule})
