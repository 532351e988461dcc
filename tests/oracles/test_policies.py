"""Path-dependent rules (§7 of docs/semantics.md), by hand; see test_policy_ladders.py, _exits.py, _laws.py too."""

from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import Bar, flat, rows_of
from tests.oracles.policies import Deleverage, Exit, Fraction, Last, Life, Policy, ScaleIn, Step, TopUp, live
from tests.oracles.walk import Scenario, Tier, grid_of

# At p = 100: q = 10, M = 100, E = 10·P − 900; liquidated at 900/9.9 = 90.909…, called at 900/9.875 = 91.139…
LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000)
TIERS = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, inf, 0.05, 40.0, 20))  # 1000·(0.05 − 0.01) = 40
# N = 2000, q = 20, M = 200, E = 20·P − 1800; in tier 2 MM = P − 40, so 19·P = 1760, P = 92.63…
TWO = replace(LONG10, maintenance=TIERS, notional=2000)
FEE = 0.001


def lived(
    scenario: Scenario,
    policy: Policy,
    *bars: Bar | None,
    funding: dict[int, float] | None = None,
    last: Last | None = None,
    **terms: float,
) -> Life:
    """The entry at the first bar's close, held to the last bar."""
    grid = grid_of(rows_of(flat(), *bars, funding=funding))
    return live(grid, scenario, policy, 0, len(bars), taker_fee=FEE, last=last, **terms)


def kinds(life: Life) -> list[tuple[int, str]]:
    return [(bar, kind) for bar, kind, _, _ in life.steps]


def down(low: float, close: float = 100.0, opened: float = 100.0) -> Bar:
    return (opened, max(opened, close), low, close)


# ---------------------------------------------------------------- ladder


def test_ladder_in_the_lowest_tier_everything_goes() -> None:
    for maintenance in (0.01, (Tier(0, inf, 0.01, 0.0, 100),), TIERS):
        life = lived(replace(LONG10, maintenance=maintenance), Policy(ladder=Step(1)), down(90))
        assert (life.outcome, life.partial_liquidations, life.liquidation_bar) == ("liquidated", 0, 1)
        assert life.fill_price == pytest.approx(900 / 9.9)
        assert life.residual == pytest.approx(9 / 99)


def test_ladder_of_two_tiers() -> None:
    # Cut at 1760/19 to n = 1000: E = 20·1760/19 − 1800 = 52.63…, q' = 19000/1760 = 10.795…, cut 9.2045… for
    # 852.63…, the fee of 1 % on it 8.526…, E = 44.105…
    # Then E = 44.105… + q'·(P − 92.63…) = 0.01·q'·P: 0.99·q'·P = 955.89…, P = 89.44…
    scenario = replace(TWO, liquidation_fee=0.01)
    level, q = 1760 / 19, 19000 / 1760
    left = 20 * level - 1800 - 0.01 * (20 - q) * level
    second = (1000 - left) / (0.99 * q)
    assert second == pytest.approx(89.4404, abs=1e-4)
    life = lived(scenario, Policy(ladder=Step(1)), down(89.5, 95))
    assert (life.outcome, life.partial_liquidations, life.liquidation_bar, life.fill_price) == (
        "survived",
        1,
        None,
        None,
    )
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation")]
    # The call: 20·P − 1800 = (P − 40)/0.8, 18.75·P = 1750.
    assert life.steps[0][2] == pytest.approx(1750 / 18.75)
    assert life.steps[1][2:] == pytest.approx((level, 20 - q))
    assert life.equity_end == pytest.approx((left + q * (95 - level)) / 200)
    assert life.fees == pytest.approx(0.01 * (20 - q) * level / 200)
    # Two events in two bars, and the same two in one.
    for bars in ((down(89.5, 95), down(89, 89, 95)), (down(89),)):
        life = lived(scenario, Policy(ladder=Step(1)), *bars)
        assert (life.outcome, life.partial_liquidations, life.end_bar) == ("liquidated", 1, len(bars))
        assert life.fill_price == pytest.approx(second)
        # E = MM = 0.01·n, and the fee of 1 % takes it all.
        assert life.residual == pytest.approx(0, abs=1e-12)
    # A gap below the bankruptcy price of 90: the cut at 88 leaves E = −40, and then everything goes at 88.
    life = lived(TWO, Policy(ladder=Step(1)), down(87, 87, 88))
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation"), (1, "liquidated")]
    assert [price for _, _, price, _ in life.steps] == [88, 88, 88]
    assert (life.residual, life.insurance) == (0, pytest.approx(-0.2))
    # Slippage of 1 %: the cut is filled at 91.70…, n = 1000 there; the path goes on from 92.63….
    life = lived(replace(TWO, liquidation_slippage=0.01), Policy(ladder=Step(1)), down(92.6))
    assert life.steps[1][2:] == pytest.approx((0.99 * level, 20 - 1000 / (0.99 * level)))
    assert life.outcome == "survived"


def test_ladder_by_two_tiers_and_by_entry_value() -> None:
    # On entry basis MM of N = 3500 in tier 3 is 0.1·3500 − 190 = 160; q = 35, L = 10: E = 35·P − 3150 = 160 at 94.57….
    three = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, 3000, 0.05, 40.0, 20), Tier(3000, inf, 0.1, 190.0, 10))
    entry = replace(TWO, maintenance=three, basis="entry", notional=3500)
    # step 1 to N = 3000: MM 110, E 160, at q = 30: 94.57 − 50/30 = 92.90…; then to 1000: MM 10, E 110, q = 10:
    # 92.90… − 100/10 = 82.90….; then everything.
    life = lived(entry, Policy(ladder=Step(1)), down(80))
    fills = [3310 / 35, 3310 / 35 - 5 / 3, 3310 / 35 - 5 / 3 - 10]
    assert [step[2:] for step in life.steps[1:]] == [
        pytest.approx((fills[0], 5)),
        pytest.approx((fills[1], 20)),
        pytest.approx((fills[2], 10)),
    ]
    assert (life.partial_liquidations, life.outcome) == (2, "liquidated")
    # step 2 from tier 3 to N = 1000: MM 10, E 160, q = 10, 15 further down; then everything.
    life = lived(entry, Policy(ladder=Step(2)), down(70))
    assert [step[2:] for step in life.steps[1:]] == [
        pytest.approx((fills[0], 25)),
        pytest.approx((fills[0] - 15, 10)),
    ]
    # step 2 from tier 2: everything.
    assert lived(TWO, Policy(ladder=Step(2)), down(80)).partial_liquidations == 0


def test_ladder_of_a_fraction() -> None:
    # E = 20·P − 1800 = 0.2·P at 90.909…, n = 1818 > 1000: 20 % go. E stays 0.01·n, so the next level is
    # (1 − 0.0125)/0.99 of it: n = 1450.9 and 1157.9 are cut too, 923.9 goes whole.
    life = lived(replace(LONG10, notional=2000), Policy(ladder=Fraction(0.2, 1000)), down(80))
    shrink = 0.9875 / 0.99
    prices = [1800 / 19.8 * shrink**k for k in range(4)]
    quantities = [4, 3.2, 2.56, 10.24]
    assert [step[2:] for step in life.steps[1:]] == [
        pytest.approx(step) for step in zip(prices, quantities, strict=True)
    ]
    assert (life.partial_liquidations, life.outcome) == (3, "liquidated")
    assert life.residual == pytest.approx(0.01 * 10.24 * prices[3] / 200)
    # At the limit itself it is not above it.
    entry = replace(LONG10, basis="entry")
    assert lived(entry, Policy(ladder=Fraction(0.2, 1000)), down(80)).partial_liquidations == 0
    assert lived(entry, Policy(ladder=Fraction(0.2, 999)), down(80)).partial_liquidations == 1


# ---------------------------------------------------------------- margin calls answered


def test_top_up_until_the_reserve_is_used_up() -> None:
    # Bar 1 at 91.1: E = 11, MM = 9.11, to 50 %: 18.22 − 11 = 7.22 of a reserve of 10. E = 10·P − 892.78.
    # The next call at 892.78/9.875 = 90.408…: bar 2 at 90.3: E = 10.22, 18.06 − 10.22 = 7.84, only 2.78 are left.
    # E = 10·P − 890: liquidated at 890/9.9 = 89.89….
    policy = Policy(top_up=TopUp(target_ratio=0.5, reserve=0.1, max_times=5))
    bars = (down(91.1, 91.1), down(90.3, 90.3, 91.1), down(89.9, 90, 90.3), down(89.8, 89.8, 90))
    life = lived(LONG10, policy, *bars)
    assert kinds(life) == [
        (1, "margin_call"),
        (1, "top_up"),
        (2, "margin_call"),
        (2, "top_up"),
        (4, "liquidated"),
    ]
    assert [step[3] for step in life.steps if step[1] == "top_up"] == pytest.approx([7.22, 2.78])
    assert (life.margin_call_bar, life.liquidation_bar, life.top_ups) == (1, 4, 2)
    assert life.fill_price == pytest.approx(890 / 9.9)
    assert life.added == pytest.approx(0.1)
    assert life.residual == pytest.approx(0.1 * 890 / 9.9 / 100)  # of the initial margin
    # Once only: 892.78/9.9 = 90.179…
    life = lived(LONG10, replace(policy, top_up=TopUp(0.5, 0.1, 1)), *bars)
    assert (life.liquidation_bar, life.top_ups) == (3, 1)
    assert life.fill_price == pytest.approx(892.78 / 9.9)
    # The close is better than the target: nothing is added, the call of bar 2 is answered.
    life = lived(LONG10, policy, down(91.1, 99), down(91.1, 91.1, 99))
    assert kinds(life) == [(1, "margin_call"), (2, "margin_call"), (2, "top_up")]
    # Held on: 7.22 has been added, so more than 107.22 is needed at the end; at 99.9 it is 106.22.
    wick = down(80, 91.1, 91.1)
    assert not lived(LONG10, policy, bars[0], wick, flat(99.9)).recovered
    assert lived(LONG10, policy, bars[0], wick, flat(100.1)).recovered


def test_a_call_answered_with_delay() -> None:
    policy = Policy(top_up=TopUp(0.5, 1.0, 5, delay_bars=2))
    called = down(91.1, 91.1)
    # Bar 2 calls no more; bar 3 is missing, the answer comes at the close of bar 4.
    life = lived(LONG10, policy, called, flat(91.1), None, flat(91.1))
    assert kinds(life) == [(1, "margin_call"), (4, "top_up")]
    assert life.equity_end == pytest.approx((11 + 7.22) / 100)
    # Beyond the window it does not happen, and it may come too late.
    assert lived(LONG10, policy, called, flat(91.1)).top_ups == 0
    life = lived(LONG10, policy, called, down(90, 90, 91.1), flat(95))
    assert (life.outcome, life.liquidation_bar, life.top_ups) == ("liquidated", 2, 0)
    # The bar of the call itself has no close: the next one that has.
    grid = grid_of(rows_of(flat(), called, flat(91.1), mark_open=[None] * 3, mark_high=[100.0, 100.0, 91.1],
                           mark_low=[100.0, 91.1, 91.1], mark_close=[100.0, None, 91.1]))  # fmt: skip
    life = live(grid, LONG10, Policy(top_up=TopUp(0.5, 1.0)), 0, 2, taker_fee=0)
    assert kinds(life) == [(1, "margin_call"), (2, "top_up")]


def test_deleverage() -> None:
    # At 91.1 half of 10 is sold: −44.5 realised, 0.001·455.5 = 0.4555 paid. B = 55.0445, E = 55.0445 + 5·(P − 100);
    # liquidated at 444.9555/4.95 = 89.88….
    policy = Policy(deleverage=Deleverage(0.5))
    life = lived(LONG10, policy, down(91.1, 91.1), down(89.9, 90, 91.1))
    assert kinds(life) == [(1, "margin_call"), (1, "deleverage")]
    assert life.equity_end == pytest.approx((55.0445 - 50) / 100)
    assert life.fees == pytest.approx(0.004555)
    life = lived(LONG10, policy, down(91.1, 91.1), down(89.8, 90, 91.1))
    assert life.fill_price == pytest.approx(444.9555 / 4.95)
    # Twice: E = 5.0445 at 90, the half of 5 is sold for 0.225: B = 55.0445 − 25 − 0.225 = 29.8195, q = 2.5.
    twice = Policy(deleverage=Deleverage(0.5, 2))
    life = lived(LONG10, twice, down(91.1, 91.1), down(89.9, 90, 91.1), down(89, 89, 90), down(89, 89, 90))
    assert kinds(life) == [(1, "margin_call"), (1, "deleverage"), (2, "margin_call"), (2, "deleverage")]
    assert life.equity_end == pytest.approx((29.8195 - 27.5) / 100)
    # Funding of 1 % at 100 costs 10·1, so the call comes at 92.1, where half is sold for 0.4605; then 5·1.
    life = lived(LONG10, policy, down(92.1, 92.1), flat(), funding={1: 0.01, 2: 0.01})
    assert life.deleverages == 1
    assert life.equity_end == pytest.approx((100 - 10 - 5 * 7.9 - 0.4605 - 5) / 100)


# ---------------------------------------------------------------- scale-in


def test_scale_in() -> None:
    # 10 more at 98 with 98 of margin, 20 more at 95 with 190: v_p = (1000 + 980 + 1900)/40 = 97, M = 388,
    # fees 0.98 + 1.9 = 2.88. At 96: E = 388 − 2.88 − 40.
    grid = Policy(scale_in=ScaleIn((0.02, 0.05), (1, 2)))
    life = lived(LONG10, grid, down(94, 96))
    assert [step[1:] for step in life.steps] == [("scale_in", 98, 10), ("scale_in", 95, 20)]
    assert (life.scale_ins, life.added, life.fees) == (2, pytest.approx(2.88), pytest.approx(0.0288))
    assert life.equity_end == pytest.approx((388 - 2.88 - 40) / 100)
    # A gap: both at the open of 94; v_p = (1000 + 940 + 1880)/40 = 95.5, M = 382, fee 2.82.
    life = lived(LONG10, grid, down(94, 96, 94))
    assert [step[2:] for step in life.steps] == [(94, 10), (94, 20)]
    assert life.equity_end == pytest.approx((382 - 2.82 + 20) / 100)
    # Then E = 40·P − 3440.82… = 0.4·P at 86.88…, where the first alone died at 90.9.
    life = lived(LONG10, grid, down(94, 96, 94), down(86, 86, 96))
    assert life.fill_price == pytest.approx((95.5 * 40 - 382 + 2.82) / 39.6)
    # A gap beyond the liquidation price is a liquidation, not a scale-in.
    assert kinds(lived(LONG10, grid, flat(90)))[-1] == (1, "liquidated")
    # A 5 % stop moves with the average: after 98 it is at 0.95·99 = 94.05, after 95 at 0.95·97 = 92.15.
    both = replace(grid, stop_loss=Exit(0.05))
    life = lived(LONG10, both, down(92))
    assert (life.outcome, life.scale_ins, life.fill_price) == ("stopped", 2, pytest.approx(92.15))
    # The notional grows out of tier 1 without deductions: 1500 has 5 % of n. N_1 = 490, v_p = 1490/15, M = 149.
    plain = tuple(replace(tier, deduction=None) for tier in TIERS)
    life = lived(replace(LONG10, maintenance=plain), Policy(scale_in=ScaleIn((0.02,), (0.5,))), down(94, 95))
    assert kinds(life) == [(1, "scale_in"), (1, "margin_call"), (1, "liquidated")]
    assert life.fill_price == pytest.approx((1490 - 149 + 0.49) / (15 * 0.95))
    # Leverage 10·0.5: own margin of 20 % (and of the first too).
    life = lived(LONG10, grid, down(98), weight=0.5)
    assert life.added == pytest.approx(196 / 200)


# ---------------------------------------------------------------- confirmation


def test_confirm_bars() -> None:
    two, low = Policy(confirm_bars=2), flat(90)
    # A wick does nothing, a missing bar breaks the count.
    life = lived(LONG10, two, down(80), low, None, low, low)
    assert (life.outcome, life.liquidation_bar, life.margin_call_bar, life.fill_price) == ("liquidated", 5, 1, 90)
    assert lived(LONG10, two, low, flat(), low).outcome == "survived"
    # At the close of 89, not at the open of 95 or the level.
    assert lived(LONG10, Policy(confirm_bars=1), down(85, 89, 95)).fill_price == 89
    assert lived(LONG10, two, low, low).residual == pytest.approx(0, abs=1e-12)
    # A ladder step at the second close, then two more closes: at 92 E = 40 < 52; cut to 1000/92.
    ladder = replace(two, ladder=Step(1))
    life = lived(TWO, ladder, flat(92), flat(92), flat(88), flat(88), flat(88))
    assert kinds(life) == [(1, "margin_call"), (2, "partial_liquidation"), (4, "liquidated")]
    # The margin call at the first close is answered after the step of the same close.
    call = Policy(confirm_bars=1, ladder=Step(1), deleverage=Deleverage(0.5))
    life = lived(TWO, call, flat(92))
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation"), (1, "deleverage")]
    assert life.steps[-1][3] == pytest.approx(500 / 92)


# ---------------------------------------------------------------- closes that are missing, refusals


def test_equity_where_closes_are_missing() -> None:
    # The last known trigger close is 97 of bar 1; bar 2 adds 10 at 95 (margin 95, fee 0.95) and has none. Funding of
    # 0.1 % is charged at 99 in bar 1, at 98 in bar 2 (in B by the event), at 97 in bar 3 (not counted).
    marks = {
        "mark_open": [100.0, 99.0, 98.0, 97.0],
        "mark_high": [100.0, 99.0, 98.0, None],
        "mark_low": [100.0, 97.0, 94.0, None],
        "mark_close": [100.0, 97.0, None, None],
    }
    bars = (flat(), flat(), flat(), None, flat())
    columns = {name: [*values, 97.0] for name, values in marks.items()}
    grid = grid_of(rows_of(*bars, funding={1: 0.001, 2: 0.001, 3: 0.001}, **columns))
    policy = Policy(scale_in=ScaleIn((0.05,), (1,)))
    life = live(grid, LONG10, policy, 0, 3, taker_fee=FEE)
    assert kinds(life) == [(2, "scale_in")]
    # 195 − 0.95 − 10·0.197 + 20·(97 − 97.5)
    assert life.equity_end == pytest.approx((195 - 0.95 - 0.99 - 0.98 - 10) / 100)
    # Without the event it is bar 1's: 100 − 0.99 − 30. Without any close it is E at entry.
    assert live(grid, LONG10, Policy(), 0, 3, taker_fee=FEE).equity_end == pytest.approx(0.6901)
    columns["mark_close"] = [100.0, None, None, None, 97.0]
    grid = grid_of(rows_of(*bars, **columns))
    life = live(grid, replace(LONG10, open_fee=0.001), Policy(), 0, 3, taker_fee=FEE)
    assert (life.outcome, life.equity_end, life.fees) == ("survived", pytest.approx(0.99), pytest.approx(0.01))


def test_no_liquidation_price_and_no_open() -> None:
    # A 1× short pays 210 % of 100: 1000 + 1000 − 2100 − 10·P is below 0 at any price.
    columns = {"mark_open": [100.0, None], "mark_high": [100.0, 101.0], "mark_low": [100.0, 99.0]}
    rows = rows_of(flat(), flat(), funding={1: -2.1}, mark_close=[100.0, 100.0], **columns)
    short = replace(LONG10, side=-1, leverage=1)
    assert live(grid_of(rows), short, Policy(), 0, 1, taker_fee=FEE).fill_price == 101
    rows = replace(rows, mark_open=[100.0, 100.5])
    assert live(grid_of(rows), short, Policy(), 0, 1, taker_fee=FEE).fill_price == 100.5


def test_what_is_refused() -> None:
    wrong = (
        {"confirm_bars": -1},
        {"top_up": TopUp(0.5, 1), "deleverage": Deleverage(0.5)},
        {"deleverage": Deleverage(1.0)},
        {"ladder": Fraction(0.2, 0)},
        {"ladder": Step(0)},
        {"take_profit": Exit(0.05, slippage=0.01)},
        {"stop_loss": Exit(0.05, "nothing")},
        {"scale_in": ScaleIn((0.05, 0.02), (1, 1))},
        {"scale_in": ScaleIn((0.05,), (1, 1))},
    )
    for terms in wrong:
        with pytest.raises(ValueError, match=r".+"):
            Policy(**terms)  # type: ignore[arg-type]
    assert lived(replace(LONG10, leverage=100), Policy(), flat()) == Life(0, rejected=True)
    with pytest.raises(ValueError, match="not part"):
        lived(replace(LONG10, slope=0.1), Policy(), flat())
    grid = grid_of(rows_of(flat(), flat(), maintenance_scale=[1.0, 2.0]))
    with pytest.raises(ValueError, match="not part"):
        live(grid, LONG10, Policy(), 0, 1, taker_fee=FEE)
    with pytest.raises(ValueError, match="past the grid"):
        live(grid, LONG10, Policy(), 0, 2, taker_fee=FEE)
