"""What holds of every liquidation price, whatever the rule, the contract and the tiers."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.margin.liquidation import liquidation_prices, price
from backtest.margin.position import Position, Side
from backtest.margin.rules import rule, rules
from backtest.margin.tiers import TierTable, derive_deductions

TIERS = [[0, 0.004, 0], [300_000, 0.005, 300], [800_000, 0.0065, 1500], [3_000_000, 0.01, 12_000]]
STEPS = st.lists(st.tuples(st.floats(10, 1e6), st.floats(1e-4, 0.08)), min_size=1, max_size=6)
POSITIONS = st.fixed_dictionaries(
    {
        "side": st.sampled_from(["long", "short"]),
        "entry_price": st.floats(1e-4, 1e5),
        "notional": st.floats(1, 1e7),
        "leverage": st.floats(1, 150),
        "contract": st.sampled_from(["linear", "inverse"]),
        "basis": st.sampled_from(["mark", "entry"]),
        "close_reserve": st.sampled_from([0.0, 0.0006]),
        "funding": st.floats(-0.2, 0.2),
        "deductions": st.booleans(),
        "steps": STEPS,
    }
)


def drawn(shape: Mapping[str, object]) -> Position:
    """A position with a table of the drawn widths and rises; funding is a share of the initial margin."""
    number = {key: float(value) for key, value in shape.items() if isinstance(value, float)}
    steps = shape["steps"]
    assert isinstance(steps, list)
    floor = np.concatenate(([0.0], np.cumsum([width for width, _ in steps])[:-1]))
    mmr = np.cumsum([rise for _, rise in steps])
    top = np.append(floor[1:], math.inf)
    deduction = derive_deductions(floor, mmr) if shape["deductions"] else None
    inverse = shape["contract"] == "inverse"
    return Position(
        contract="inverse" if inverse else "linear",
        side="long" if shape["side"] == "long" else "short",
        entry_price=number["entry_price"],
        quantity=number["notional"] * number["entry_price"] ** (1 if inverse else -1),
        leverage=number["leverage"],
        funding_paid=number["funding"] * number["notional"] / number["leverage"],
        tiers=TierTable("drawn", floor, top, mmr, np.full(mmr.size, math.inf), deduction),
        basis="mark" if shape["basis"] == "mark" else "entry",
        close_reserve=number["close_reserve"],
    )


def excess_margin(position: Position, at: float) -> float:
    """E − MM at a price, written out from the definition (docs/semantics.md §2, §4)."""
    assert position.tiers is not None
    assert position.leverage is not None
    inverse = position.contract == "inverse"
    sign, entry, quantity = 1 if position.side == "long" else -1, position.entry_price, position.quantity
    notional = quantity / entry if inverse else quantity * entry
    size = notional if position.basis == "entry" else quantity / at if inverse else quantity * at
    profit = sign * quantity * (1 / entry - 1 / at if inverse else at - entry)
    equity = notional / position.leverage - position.funding_paid + profit
    return equity - float(position.tiers.maintenance(size, notional)) - position.close_reserve * size


@given(POSITIONS)
def test_the_liquidation_price_is_where_the_margin_balance_equals_maintenance(shape: Mapping[str, object]) -> None:
    position = drawn(shape)
    level = price(position)["liquidation_price"]
    inverse = position.contract == "inverse"
    entry = 1 / position.entry_price if inverse else position.entry_price  # and so on: value of a unit of quantity
    if level is None:
        assert (position.side == "short") == inverse
        near_0 = 1e-9 * entry
        assert excess_margin(position, 1 / near_0 if inverse else near_0) > -1e-8 * position.notional
        return
    value = 1 / level if inverse else level
    # E − MM adds amounts of this size, each with a few roundings of 1e-16; the deductions stay below the notional
    scale = position.initial_balance + position.notional + position.quantity * value
    assert excess_margin(position, level) == pytest.approx(0, abs=1e-14 * scale)
    # and it is the first: safe on the way there, not beyond it
    step = 1e-6 * entry * (1 if (position.side == "long") != inverse else -1)
    safe, spent = value + step, value - step
    assert excess_margin(position, 1 / safe if inverse else safe) > 0
    assert excess_margin(position, 1 / spent if inverse else spent) < 0


@given(
    st.sampled_from([each.name for each in rules()]),
    st.sampled_from(["long", "short"]),
    st.floats(1e-3, 1e5),
    st.floats(1e-2, 2000),
    st.floats(1.5, 25),
    st.floats(-0.3, 0.3),
)
def test_every_rule_s_liquidation_price_solves_its_own_balance(
    name: str, side: str, entry: float, notional: float, leverage: float, share: float
) -> None:
    """Margin balance and maintenance at the returned price, as `price` shows them there, are equal."""
    inverse = rule(name).contract == "inverse"
    document: dict[str, object] = {"rules": name, "side": side, "entry_price": entry}
    document["quantity"] = notional * entry if inverse else notional / max(entry, 1.0)
    size = notional if inverse else notional / max(entry, 1.0) * entry
    document |= {"margin": size / leverage, "extra_margin": 0.2 * size / leverage}
    document["funding_paid"] = share * size / leverage
    if rule(name).slope is None:
        document["mmr"] = 0.005
    level = price(document)["liquidation_price"]
    if level is None:
        return
    there = price({**document, "mark_price": level})
    maintenance, ratio = there["maintenance_margin"], there["margin_ratio"]
    # the balance adds amounts of the notional there and at entry, each with a few roundings of 1e-16
    scale = size * (2 + (entry / level if inverse else level / entry))
    equity = maintenance / ratio if ratio is not None else 0.0
    assert equity == pytest.approx(maintenance, abs=1e-14 * scale)


@given(
    st.sampled_from(["long", "short"]),
    st.sampled_from(["linear", "inverse"]),
    st.floats(2, 100),
    st.floats(0, 0.9),
    st.floats(0, 0.01),
)
def test_extra_margin_moves_the_fee_to_close_with_the_bankruptcy_price(
    side: str, contract: str, leverage: float, extra: float, fee: float
) -> None:
    # Paid in: N/L, the fee at the bankruptcy price of the leverage, and the extra margin. Kept besides
    # maintenance: the fee at the bankruptcy price that the extra margin moves. Both are the fee rate of a value.
    inverse, sign = contract == "inverse", 1 if side == "long" else -1
    document = {"rules": f"bybit-{contract}", "side": side, "entry_price": 50.0, "quantity": 50.0 if inverse else 0.02}
    extra /= leverage  # of a notional of 1
    answer = price({**document, "leverage": leverage, "extra_margin": extra, "taker_fee": fee, "mmr": 0.005})
    level, broke = answer["liquidation_price"], answer["bankruptcy_price"]
    assert level is not None
    assert broke is not None
    n_broke, n_level = (50 / at if inverse else 0.02 * at for at in (broke, level))
    first = fee * (1 + sign / leverage if inverse else 1 - sign / leverage)
    assert answer["fee_to_close"] == pytest.approx(first, abs=1e-15)
    profit = sign * (1 - n_level if inverse else n_level - 1)
    # amounts of 1 with a few roundings of 1e-16 each
    assert 1 / leverage + first + extra + profit == pytest.approx(0.005 * n_level + fee * n_broke, abs=1e-14)


@given(
    st.sampled_from(["long", "short"]), st.sampled_from(["linear", "inverse"]), st.floats(1, 150), st.floats(0, 0.01)
)
def test_the_taker_fee_moves_no_liquidation_price_without_extra_margin(
    side: str, contract: str, leverage: float, fee: float
) -> None:
    document = {"rules": f"bybit-{contract}", "side": side, "entry_price": 50.0, "quantity": 3.0, "leverage": leverage}
    with_fee = price({**document, "mmr": 0.005, "taker_fee": fee})
    without = price({**document, "mmr": 0.005, "taker_fee": 0})
    assert with_fee["liquidation_price"] == without["liquidation_price"]
    assert with_fee["bankruptcy_price"] == without["bankruptcy_price"]
    assert without["fee_to_close"] == 0


@given(
    st.sampled_from([each.name for each in rules() if each.contract == "inverse"]), st.floats(0.1, 1), st.floats(1, 1e5)
)
def test_an_unleveraged_inverse_short_has_no_liquidation_price(name: str, leverage: float, entry: float) -> None:
    document = {"rules": name, "side": "short", "entry_price": entry, "quantity": 3 * entry, "leverage": leverage}
    answer = price(document if rule(name).slope else {**document, "mmr": 0.005})
    assert answer["liquidation_price"] is None
    assert answer["bankruptcy_price"] is None


@given(POSITIONS)
def test_an_inverse_position_mirrors_the_linear_one_on_1_over_the_price(shape: Mapping[str, object]) -> None:
    # s·Q·(1/p − 1/P) is the other side's s·q·(P − p) with every price turned over, and so is maintenance
    other = {**shape, "contract": "linear" if shape["contract"] == "inverse" else "inverse"}
    other |= {"side": "short" if shape["side"] == "long" else "long", "entry_price": 1 / drawn(shape).entry_price}
    one, mirrored = price(drawn(shape)), price(drawn(other))
    pairs = [(each["liquidation_price"], each["bankruptcy_price"]) for each in (one, mirrored)]
    for here, there in zip(*pairs, strict=True):
        assert (here is None) == (there is None)
        # a root is a difference of amounts of the entry's size: what rounding leaves of it near 0 is not its digits
        if here is not None and there is not None and abs(math.log(here / drawn(shape).entry_price)) < 7:
            assert 1 / there == pytest.approx(here, rel=1e-10)
    assert one["maintenance_margin"] == pytest.approx(mirrored["maintenance_margin"], rel=1e-9)


@given(POSITIONS, st.floats(1, 3))
def test_more_leverage_never_moves_the_liquidation_away(shape: Mapping[str, object], more: float) -> None:
    low = price(drawn({**shape, "funding": 0.0}))["liquidation_price"]
    leverage = shape["leverage"]
    assert isinstance(leverage, float)
    high = price(drawn({**shape, "funding": 0.0, "leverage": leverage * more}))["liquidation_price"]
    if low is not None:
        assert high is not None
        # an inverse short's price far above the entry is 1 over a small difference, which loses that many digits
        slack = 1e-12 * max(1.0, low / drawn(shape).entry_price)
        assert high >= low * (1 - slack) if shape["side"] == "long" else high <= low * (1 + slack)


@given(POSITIONS)
def test_substituting_the_tier_at_the_liquidation_price_changes_nothing(shape: Mapping[str, object]) -> None:
    # Binance's own instruction; holds at a kink too, where both tiers' roots are one price
    position = drawn({**shape, "deductions": True, "basis": "mark"})
    level = price(position)["liquidation_price"]
    assert position.tiers is not None
    assert position.tiers.deduction is not None
    if level is not None:
        k = int(position.tiers.tier_index(position.notional_at(level)))
        line = (position.tiers.mmr[k : k + 1], position.tiers.deduction[k : k + 1])
        held = position.initial_balance - position.funding_paid
        again = liquidation_prices(
            position.side,
            position.entry_price,
            position.quantity,
            held,
            line,
            contract=position.contract,
            close_reserve=position.close_reserve,
        )
        slack = 1e-8 * max(1.0, level / position.entry_price)  # as above
        assert float(again) == pytest.approx(level, rel=slack)


@pytest.mark.parametrize("side", ["long", "short"])
def test_arrays_give_what_single_positions_give(side: Side) -> None:
    table = TierTable.from_rows(TIERS)
    entry, margin = np.array([10.0, 20.0, 30.0]), np.array([[1e4], [2e5]])
    found = liquidation_prices(side, entry, 1e5, margin, table.lines(0.0))
    assert found.shape == (2, 3)
    for (i, j), level in np.ndenumerate(found):
        one = Position(side=side, entry_price=float(entry[j]), quantity=1e5, margin=float(margin[i, 0]), tiers=table)
        assert price(one)["liquidation_price"] == level
