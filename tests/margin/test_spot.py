"""Spot margin: arrays of loans and prices, and what holds of every position."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.margin.liquidation import price
from backtest.margin.position import Position, Side
from backtest.margin.position_input import read_position
from backtest.margin.spot import SpotPosition, loans, owed_and_owned, prices_at_ltv


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
        "side": st.sampled_from(["long", "short"]),
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
