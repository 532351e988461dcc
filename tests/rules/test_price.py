"""The liquidation price of one position: hand-worked numbers, laws, and what is refused."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.errors import BacktestError, ConfigError, RuleError
from backtest.rules.position import Position, Side, read_position
from backtest.rules.price import liquidation_prices, price, price_position
from backtest.rules.tiers import TierTable, derive_deductions

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
    answer = price_position({**position, **cross, "deduction": 135365, "mark_price": 1335.18})
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
    answer = price_position({**position, "leverage": 50})
    assert (answer["initial_margin"], answer["maintenance_margin"]) == (400, 100)
    assert answer["liquidation_price"] == 19700
    assert price_position({**position, "leverage": 50, "funding_paid": 200})["liquidation_price"] == 19900
    assert answer["bankruptcy_price"] == 19600  # 20,000·(1 − 1/50)


def test_on_entry_basis_the_mark_moves_the_balance_and_not_the_maintenance() -> None:
    # MM = 10·(0.01 + 0.001) = 0.11, E = 2 + (12 − 10) = 4
    answer = price_position({**LONG, "basis": "entry", "close_reserve": 0.001, "mark_price": 12})
    assert answer["maintenance_margin"] == pytest.approx(0.11, rel=1e-14)
    assert answer["fee_to_close"] == pytest.approx(0.01, rel=1e-14)
    assert answer["margin_ratio"] == pytest.approx(0.11 / 4, rel=1e-14)


def test_okx_with_its_closing_fee_by_hand() -> None:
    # short, M = 2: P·(1 + 0.01 + 0.0006) = 10 + 2, P = 12/1.0106 = 11.874134…
    answer = price_position({**LONG, "side": "short", "close_reserve": 0.0006})
    assert answer["liquidation_price"] == pytest.approx(11.87413417771621, rel=1e-14)
    assert answer["fee_to_close"] == pytest.approx(0.006, rel=1e-14)  # 10·0.0006
    assert answer["maintenance_margin"] == pytest.approx(0.106, rel=1e-14)


def test_the_tier_is_the_one_at_the_liquidation_price() -> None:
    # 33⅓ BTC at 60,000 (notional 2,000,000), 20×: tier 3 at entry and at the liquidation price (1,910,921):
    # P = (60,000 − (100,000 + 1500)/33⅓) / (1 − 0.0065) = 56,955 / 0.9935 = 57,327.63; by collateral it would be tier 1
    position = {"rules": "binance-usdm", "side": "long", "entry_price": 60000, "quantity": 100 / 3, "leverage": 20}
    answer = price_position({**position, "tiers": TIERS})
    assert answer["liquidation_price"] == pytest.approx(57327.63, abs=0.005)
    assert answer["tier"] == 3
    # short 1×: tier 3 at entry, tier 4 with nearly 4,000,000 in the end: (60,000 + 2,012,000/33⅓)/1.01 = 120,360/1.01
    short = price_position({**position, "tiers": TIERS, "side": "short", "leverage": 1})
    assert short["tier"] == 3
    assert short["liquidation_price"] == pytest.approx(120360 / 1.01, rel=1e-12)


def test_without_deductions_the_tier_of_the_entry_decides() -> None:
    # entered with 1500 in tier 2 (0.02): P = (10 − 2)/(1 − 0.02); 150·P ≈ 1224 is still tier 2, at mark 6 it is tier 1
    position = {**LONG, "mmr": None, "quantity": 150, "tiers": [[0, 0.01], [1000, 0.02]], "mark_price": 6}
    answer = price_position(position)
    assert answer["liquidation_price"] == pytest.approx(8 / 0.98, rel=1e-14)
    assert answer["tier"] == 2
    assert answer["maintenance_margin"] == pytest.approx(18, rel=1e-14)  # 150·6·0.02


def test_extra_margin_and_funding_move_the_liquidation_but_funding_not_the_bankruptcy() -> None:
    # M = 2 + 1 − 0.5: P = (10 − 2.5)/0.99; bankruptcy 10 − 3, funding aside
    answer = price_position({**LONG, "extra_margin": 1, "funding_paid": 0.5})
    assert answer["liquidation_price"] == pytest.approx(7.5 / 0.99, rel=1e-14)
    assert answer["bankruptcy_price"] == 7
    assert answer["initial_margin"] == 2


def test_no_price_above_0_reads_as_null() -> None:
    answer = price_position({**LONG, "leverage": 1})
    assert answer["liquidation_price"] is None
    assert answer["bankruptcy_price"] is None  # 10·(1 − 1) = 0
    assert price_position({**LONG, "leverage": 1, "basis": "entry"})["liquidation_price"] == pytest.approx(0.1)


@pytest.mark.parametrize("price", [0.1, 3.3, 99919.21208199284, 7e-5])
@pytest.mark.parametrize("quantity", [1.0008085323765451e-05, 0.3, 7.0])
def test_an_unleveraged_long_has_neither_price_whatever_the_rounding(price: float, quantity: float) -> None:
    answer = price_position({**LONG, "entry_price": price, "quantity": quantity, "leverage": 1})
    assert answer["liquidation_price"] is None
    assert answer["bankruptcy_price"] is None


def test_a_spent_margin_has_no_ratio() -> None:
    assert price_position({**LONG, "mark_price": 8})["margin_ratio"] is None
    assert price_position({**LONG, "mark_price": 9})["margin_ratio"] == pytest.approx(0.09)  # 9·0.01 / (2 − 1)


def test_a_short_without_any_safe_price_is_refused_not_null() -> None:
    with pytest.raises(RuleError, match="liquidated at every price above 0: -11 stands against losses"):
        price_position({**LONG, "side": "short", "funding_paid": 13})


# ---------------------------------------------------------------- laws

STEPS = st.lists(st.tuples(st.floats(10, 1e6), st.floats(1e-4, 0.08)), min_size=1, max_size=6)
POSITIONS = st.fixed_dictionaries(
    {
        "side": st.sampled_from(["long", "short"]),
        "entry_price": st.floats(1e-4, 1e5),
        "notional": st.floats(1, 1e7),
        "leverage": st.floats(1, 150),
        "basis": st.sampled_from(["mark", "entry"]),
        "close_reserve": st.sampled_from([0.0, 0.0006]),
        "funding": st.floats(-0.2, 0.2),
        "deductions": st.booleans(),
        "steps": STEPS,
    }
)


def drawn(shape: Mapping[str, object]) -> Position:
    """A position with a table of the drawn widths and rises; funding is a share of the posted margin."""
    number = {key: float(value) for key, value in shape.items() if isinstance(value, float)}
    steps = shape["steps"]
    assert isinstance(steps, list)
    floor = np.concatenate(([0.0], np.cumsum([width for width, _ in steps])[:-1]))
    mmr = np.cumsum([rise for _, rise in steps])
    top = np.append(floor[1:], math.inf)
    deduction = derive_deductions(floor, mmr) if shape["deductions"] else None
    return Position(
        side="long" if shape["side"] == "long" else "short",
        entry_price=number["entry_price"],
        quantity=number["notional"] / number["entry_price"],
        leverage=number["leverage"],
        funding_paid=number["funding"] * number["notional"] / number["leverage"],
        tiers=TierTable("drawn", floor, top, mmr, np.full(mmr.size, math.inf), deduction),
        basis="mark" if shape["basis"] == "mark" else "entry",
        close_reserve=number["close_reserve"],
    )


def spare(position: Position, at: float) -> float:
    """E − MM at a price, written out from the definition (semantics.md §2)."""
    assert position.tiers is not None
    assert position.leverage is not None
    notional = position.quantity * position.entry_price
    size = position.quantity * at if position.basis == "mark" else notional
    profit = (1 if position.side == "long" else -1) * position.quantity * (at - position.entry_price)
    equity = notional / position.leverage - position.funding_paid + profit
    return equity - float(position.tiers.maintenance(size, notional)) - position.close_reserve * size


@given(POSITIONS)
def test_the_liquidation_price_is_where_the_margin_balance_equals_maintenance(shape: Mapping[str, object]) -> None:
    position = drawn(shape)
    level = price(position)["liquidation_price"]
    if level is None:
        assert position.side == "long"
        assert spare(position, 1e-9 * position.entry_price) > -1e-8 * position.notional
        return
    # E − MM adds amounts of this size, each with a few roundings of 1e-16; the deductions stay below the notional
    scale = position.posted_margin + position.notional + position.quantity * level
    assert spare(position, level) == pytest.approx(0, abs=1e-14 * scale)
    # and it is the first: safe on the way there, not beyond it
    sign = position.sign
    assert spare(position, level + sign * 1e-6 * position.entry_price) > 0
    assert spare(position, level - sign * 1e-6 * position.entry_price) < 0


@given(POSITIONS, st.floats(1, 3))
def test_more_leverage_never_moves_the_liquidation_away(shape: Mapping[str, object], more: float) -> None:
    low = price(drawn({**shape, "funding": 0.0}))["liquidation_price"]
    leverage = shape["leverage"]
    assert isinstance(leverage, float)
    high = price(drawn({**shape, "funding": 0.0, "leverage": leverage * more}))["liquidation_price"]
    if low is not None:
        assert high is not None
        assert high >= low * (1 - 1e-12) if shape["side"] == "long" else high <= low * (1 + 1e-12)


@given(POSITIONS)
def test_substituting_the_tier_at_the_liquidation_price_changes_nothing(shape: Mapping[str, object]) -> None:
    # Binance's own instruction; holds at a kink too, where both tiers' roots are one price
    position = drawn({**shape, "deductions": True, "basis": "mark"})
    level = price(position)["liquidation_price"]
    assert position.tiers is not None
    assert position.tiers.deduction is not None
    if level is not None:
        k = int(position.tiers.tier_of(position.quantity * level))
        line = (position.tiers.mmr[k : k + 1], position.tiers.deduction[k : k + 1])
        held = position.posted_margin - position.funding_paid
        again = liquidation_prices(
            position.side, position.entry_price, position.quantity, held, line, close_reserve=position.close_reserve
        )
        assert float(again) == pytest.approx(level, rel=1e-8)


@pytest.mark.parametrize("side", ["long", "short"])
def test_arrays_give_what_single_positions_give(side: Side) -> None:
    table = TierTable.of(TIERS)
    entry, margin = np.array([10.0, 20.0, 30.0]), np.array([[1e4], [2e5]])
    found = liquidation_prices(side, entry, 1e5, margin, table.lines(0.0))
    assert found.shape == (2, 3)
    for (i, j), level in np.ndenumerate(found):
        one = Position(side=side, entry_price=float(entry[j]), quantity=1e5, margin=float(margin[i, 0]), tiers=table)
        assert price(one)["liquidation_price"] == level


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
        ({"rules": None, "contract": "inverse"}, ConfigError, "contract must be 'linear'; got 'inverse'"),
        ({"rules": None, "contract": "linear", "basis": "index"}, ConfigError, "basis must be 'mark' or 'entry'"),
        (
            {"rules": None, "contract": "linear", "close_reserve": 0.99},
            RuleError,
            r"mmr \+ close_reserve must be below 1, the whole notional; got 0.01 \+ 0.99",
        ),
        ({"symbol": "BTCUSDT"}, RuleError, "symbol is not read under binance-usdm: no tier table"),
        ({"slope": 0.1}, RuleError, "slope is not read under binance-usdm"),
        ({"initial_rate": 0.1}, RuleError, "initial_rate is not read under binance-usdm"),
        ({"taker_fee": 0.1}, RuleError, "taker_fee is not read under binance-usdm"),
    ],
)
def test_impossible_positions_are_refused(change: dict[str, object], error: type[BacktestError], message: str) -> None:
    price_position(BINANCE)
    with pytest.raises(error, match=message):
        price_position({**BINANCE, **change})


def test_what_a_rule_already_says_may_be_said_again() -> None:
    assert price_position({**BINANCE, "contract": "linear", "basis": "mark", "close_reserve": 0}) == price_position(
        BINANCE
    )


def test_the_limits_of_a_table_hold() -> None:
    columns = np.array([[0.0, 1000.0], [1000.0, 5000.0], [0.01, 0.02], [50.0, 20.0], [0.0, 10.0]])
    floor, cap, mmr, most, deduction = columns
    document = {**BINANCE, "mmr": None, "tiers": TierTable("ladder", floor, cap, mmr, most, deduction)}
    read_position({**document, "leverage": 50})  # the notional 1000 is a cap
    with pytest.raises(RuleError, match=r"leverage must be at most 20 \(ladder, notional 1,500\); got 50"):
        read_position({**document, "leverage": 50, "quantity": 15})
    with pytest.raises(RuleError, match="notional must be at most 5,000, the last cap of ladder; got 6,000"):
        read_position({**document, "quantity": 60})
