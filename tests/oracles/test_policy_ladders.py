"""Ladders that go down, by the size that holds, and the posted fee to close with a policy (§5, §7), by hand."""

from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import flat, rows_of
from tests.oracles.policies import Deleverage, Exit, Fraction, Policy, ScaleIn, Step, TopUp, live
from tests.oracles.test_policies import FEE, LONG10, TIERS, TWO, down, kinds, lived
from tests.oracles.walk import Dated, Tier, grid_of

PLAIN = tuple(replace(tier, deduction=None) for tier in TIERS)  # 1 % up to 1000, then 5 % of all
UP = (100.0, 120.0, 100.0, 120.0)


# ---------------------------------------------------------------- which n


def test_without_deductions_the_tier_is_that_of_the_entry_value() -> None:
    # OKX: step 2, three tiers. 30 at 100: E = 30·P − 2700 = 1.5·P at 2700/28.5 = 94.73…; q·v_p = 3000, so 1/3 is kept
    # (q·v is 2842 there). B = 300 − 20·5.263… = 194.73…, tier 1: 10·P − 805.26… = 0.1·P, 81.33…; then all.
    okx = (Tier(0, 1000, 0.01, None, 100), Tier(1000, 2000, 0.02, None, 50), Tier(2000, inf, 0.05, None, 20))
    three = replace(LONG10, maintenance=okx, notional=3000)
    level = 2700 / 28.5
    balance = 300 - 20 * (100 - level)
    life = lived(three, Policy(ladder=Step(2)), down(81.4, 95))
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation")]
    assert life.steps[1][2:] == pytest.approx((level, 20))
    assert life.equity_end == pytest.approx((balance - 50) / 300)
    life = lived(three, Policy(ladder=Step(2)), down(81))
    assert [step[1] for step in life.steps[1:]] == ["partial_liquidation", "liquidated"]
    assert life.steps[2][2:] == pytest.approx(((1000 - balance) / 9.9, 10))
    # The cut is to the cap by q·v_p whatever the fill: with 1 % of slippage just the same share.
    life = lived(replace(three, liquidation_slippage=0.01), Policy(ladder=Step(2)), down(94))
    assert life.steps[1][2:] == pytest.approx((0.99 * level, 20))
    # Tier 2 by q·v_p: nothing is two tiers below.
    assert lived(replace(three, notional=1500), Policy(ladder=Step(2)), down(80)).partial_liquidations == 0


def test_the_entry_value_and_not_the_value_at_the_fill() -> None:
    # 10.5 at 100: E = 10.5·P − 945 = 0.525·P at 94.73…, worth 994.7 there, but bought in tier 2: 0.5 go, not all.
    long = replace(LONG10, maintenance=PLAIN, notional=1050)
    life = lived(long, Policy(ladder=Step(1)), down(94.7))
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation")]
    assert life.steps[1][2:] == pytest.approx((945 / 9.975, 0.5))
    # `above` is compared with the same n: 1050, then 840.
    life = lived(long, Policy(ladder=Fraction(0.2, 1000)), down(94.7))
    assert life.steps[1][2:] == pytest.approx((945 / 9.975, 2.1))
    assert lived(replace(long, maintenance=0.05), Policy(ladder=Fraction(0.2, 1000)), down(94.7)).end_bar == 1
    # 9.8 sold at 100: 1078 − 9.8·P = 0.098·P at 108.9…, worth 1067 there, but sold in tier 1: all goes.
    life = lived(replace(long, side=-1, notional=980), Policy(ladder=Step(1)), UP)
    assert (life.partial_liquidations, life.fill_price) == (0, pytest.approx(1078 / 9.898))


# ---------------------------------------------------------------- it goes down


def test_a_short_goes_down_the_ladder() -> None:
    # E = 2200 − 20·P = P − 40 at 2240/21 = 106.6…, n = 2133. Cut to 1000: E = 66.6…, q = 9.375; then
    # 66.6… + 1000 + 40 = 1.05·n, n = 1054 is in tier 2 again, but the ladder is in tier 1: everything.
    short = replace(TWO, side=-1)
    life = lived(short, Policy(ladder=Step(1)), UP)
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation"), (1, "liquidated")]
    assert life.steps[1][2:] == pytest.approx((2240 / 21, 20 - 9.375))
    assert life.steps[2][2:] == pytest.approx(((1040 + 200 / 3) / 1.05 / 9.375, 9.375))
    # From tier 3: 3850 − 35·P = 3.5·P − 190 at 4040/38.5, to 3000; E + 3190 = 1.1·n, n = 3061, to 1000 (not to 3000);
    # E + 1040 = 1.05·n, n = 1101, everything.
    three = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, 3000, 0.05, 40.0, 20), Tier(3000, inf, 0.1, 190.0, 10))
    one = 4040 / 38.5
    e, q = 3850 - 35 * one, 3000 / one
    n = (e + 3190) / 1.1
    e2, q2 = e + 3000 - n, 1000 / (n / q)
    short = replace(short, maintenance=three, notional=3500)
    life = lived(short, Policy(ladder=Step(1)), UP)
    assert [step[2:] for step in life.steps[1:]] == [
        pytest.approx((one, 35 - q)),
        pytest.approx((n / q, q - q2)),
        pytest.approx(((e2 + 1040) / 1.05 / q2, q2)),
    ]
    assert (life.partial_liquidations, life.outcome) == (2, "liquidated")
    # Step 2 from tier 3 is in tier 1 at once.
    assert lived(short, Policy(ladder=Step(2)), UP).partial_liquidations == 1


def test_a_scale_in_puts_the_ladder_back_on_the_tier_that_holds_n() -> None:
    # After the cut at 106.6… (E = 66.6…, q = 9.375), 20 more at 108: margin 216, fee 2.16, E = 66.6… − 12.5 + 213.84.
    # E + 29.375·108 + 40 = 1.05·n: n = 3314 is cut to 1000 once more, and then everything goes.
    life = lived(replace(TWO, side=-1), Policy(ladder=Step(1), scale_in=ScaleIn((0.08,), (1,))), (100, 130, 100, 130))
    events = ["margin_call", "partial_liquidation", "scale_in", "partial_liquidation", "liquidated"]
    assert [step[1] for step in life.steps] == events
    level = (200 / 3 - 12.5 + 213.84 + 29.375 * 108 + 40) / 1.05 / 29.375
    assert life.steps[3][2:] == pytest.approx((level, 29.375 - 1000 / level))


def test_a_deleveraging_and_a_later_table_leave_the_ladder_where_it_is() -> None:
    # Cut at 106.6… to 1000, 2 % of it closed at 107; the breach at n = 1035 is in tier 2, the ladder in tier 1.
    policy = Policy(ladder=Step(1), deleverage=Deleverage(0.02))
    life = lived(replace(TWO, side=-1), policy, (100, 107, 100, 107), (107, 150, 107, 150))
    assert [kind for _, kind in kinds(life)] == ["margin_call", "partial_liquidation", "deleverage", "liquidated"]
    assert life.steps[3][2] * life.steps[3][3] == pytest.approx(1035, abs=1)
    # A table of bar 2 with caps of 500 and 800: tier 1 stays tier 1, although n is in its tier 3.
    low = (Tier(0, 500, 0.01, 0.0, 100), Tier(500, 800, 0.05, 20.0, 20), Tier(800, inf, 0.1, 60.0, 10))
    dated = Dated(((None, TIERS), (2 * 3_600_000, low)))
    life = lived(replace(TWO, side=-1, maintenance=dated), Policy(ladder=Step(1)), (100, 107, 100, 107), UP)
    assert [kind for _, kind in kinds(life)] == ["margin_call", "partial_liquidation", "liquidated"]


# ---------------------------------------------------------------- the posted fee to close


UTA = replace(LONG10, posted_fee=0.01)  # f = 1000·0.9·0.01 = 9


def test_the_posted_fee_moves_the_margin_call() -> None:
    # 10·P − 900 + 9 = (0.1·P + 9)/0.8, P = 902.25/9.875 = 91.36…; liquidated at 900/9.9 as ever.
    life = lived(UTA, Policy(), down(90))
    assert [step[2] for step in life.steps] == pytest.approx([902.25 / 9.875, 900 / 9.9])
    assert (life.residual, life.fees, life.added) == (pytest.approx(9 / 99), 0, 0)
    assert lived(UTA, Policy(), down(91.37)).margin_call_bar is None
    # A short: f = 11: 1100 − 10·P + 11 = (0.1·P + 11)/0.8.
    assert lived(replace(UTA, side=-1), Policy(), UP).steps[0][2] == pytest.approx(1097.25 / 10.125)
    # Coin, long: f = 10·1.1·0.01 = 0.11: 11 − n + 0.11 = (0.01·n + 0.11)/0.8, n = 10.9725/1.0125.
    life = lived(replace(UTA, contract="inverse"), Policy(), down(80))
    assert life.steps[0][2] == pytest.approx(1012.5 / 10.9725)
    # On entry basis: 10·P − 900 + 9 = (10 + 9)/0.8, P = 91.475.
    assert lived(replace(UTA, basis="entry"), Policy(), down(80)).steps[0][2] == pytest.approx(91.475)


def test_a_top_up_with_the_posted_fee() -> None:
    # At 91.3: E = 13, MM = 9.13, f = 9; (9.13 + 9)/0.5 − 9 − 13 = 14.26. E = 10·P − 885.74, the next call at
    # 10·P − 885.74 + 9 = 0.125·P + 11.25, P = 887.99/9.875 = 89.92….
    policy = Policy(top_up=TopUp(0.5, 1.0, 2))
    life = lived(UTA, policy, down(91.3, 91.3), down(89.9, 91.3, 91.3))
    assert kinds(life) == [(1, "margin_call"), (1, "top_up"), (2, "margin_call")]
    assert life.steps[1][3] == pytest.approx(14.26)
    assert life.steps[2][2] == pytest.approx(887.99 / 9.875)
    assert (life.equity_end, life.added) == (pytest.approx(0.2726), pytest.approx(0.1426))


def test_a_cut_leaves_its_share_of_the_posted_fee() -> None:
    # Half is sold at 91.3 for 0.4565: B = 100 − 43.5 − 0.4565 = 56.0435, f = 4.5:
    # 5·P − 443.9565 + 4.5 = 0.0625·P + 5.625, P = 445.0815/4.9375 = 90.14….
    policy = Policy(deleverage=Deleverage(0.5, 2))
    life = lived(UTA, policy, down(91.3, 91.3), down(90.1, 91.3, 91.3))
    assert [step[1] for step in life.steps] == ["margin_call", "deleverage", "margin_call", "deleverage"]
    assert life.steps[2][2] == pytest.approx(445.0815 / 4.9375)
    life = lived(UTA, policy, down(91.3, 91.3))
    assert (life.equity_end, life.fees) == (pytest.approx(0.125435), pytest.approx(0.004565))
    # A ladder: f = 18, the call at 20·P − 1800 + 18 = (P − 40 + 18)/0.8, P = 1754.5/18.75. Cut at 1760/19 to 1000 of
    # n = 1852: f = 9.71…, q = 10.79…; at 92 E = 45.81…, MM = 9.93…: (MM + f)/0.3 − f − E = 9.96….
    life = lived(replace(TWO, posted_fee=0.01), Policy(ladder=Step(1), top_up=TopUp(0.3, 1.0)), down(92, 92))
    level, q, f = 1760 / 19, 19000 / 1760, 18 * 19000 / 35200
    assert [step[2] for step in life.steps] == pytest.approx([1754.5 / 18.75, level, 92])
    needed = (0.01 * q * 92 + f) / 0.3 - f - (20 * level - 1800 - q * (level - 92))
    assert needed == pytest.approx(9.963, abs=1e-3)
    assert life.steps[2][3] == pytest.approx(needed)


def test_a_scale_in_posts_its_own_fee_to_close() -> None:
    # 10 more at 98: margin 98, fee 0.98, f = 9 + 980·0.9·0.01 = 17.82; E = 20·P − 1782.98;
    # 20·P − 1782.98 + 17.82 = 0.25·P + 22.275, P = 1787.435/19.75 = 90.50….
    life = lived(UTA, Policy(scale_in=ScaleIn((0.02,), (1,))), down(90.4, 95))
    assert kinds(life) == [(1, "scale_in"), (1, "margin_call")]
    assert life.steps[1][2] == pytest.approx(1787.435 / 19.75)
    assert (life.equity_end, life.added) == (pytest.approx((1900 - 1782.98) / 100), pytest.approx(0.98))
    # A short at 103: f = 11 + 1030·1.1·0.01 = 22.33, margin 103, fee 1.03: E = 201.97 + 2030 − 20·P;
    # 2231.97 + 22.33 − 20·P = 0.25·P + 27.9125. Leverage 10·0.5 would post 1030·1.2·0.01 = 12.36.
    life = lived(replace(UTA, side=-1), Policy(scale_in=ScaleIn((0.03,), (1,))), UP)
    assert life.steps[1][2] == pytest.approx(2226.3875 / 20.25)
    # 12 + 12.36 = 24.36, margins 200 + 206: 2434.97 + 24.36 − 20·P = 0.25·P + 30.45.
    life = lived(replace(UTA, side=-1), Policy(scale_in=ScaleIn((0.03,), (1,))), UP, weight=0.5)
    assert life.steps[1][2] == pytest.approx(2428.88 / 20.25)


def test_extra_margin_counts_more_under_a_posted_fee() -> None:
    # 75/(1 − 0.25) = 100: M0 = 200, E = 10·P − 800. The tie is 1e-9 of N/L = 100 alone: reached at 80 + 1e-8.
    odd = replace(LONG10, maintenance=0.0, extra=75, posted_fee=0.25)
    ends = [lived(odd, Policy(), flat(price)).end_bar for price in (80.000000009, 80.000000011)]
    assert ends == [1, None]
    # Without posted fee it is of 200.
    assert lived(replace(odd, extra=100, posted_fee=0), Policy(), flat(80.000000011)).end_bar == 1
    # 20 more at 95 with 190 of margin, no fee: E = 30·P − 2510, tie 1e-9·290 (not 390) at 9.67e-9 above.
    policy, zero = Policy(scale_in=ScaleIn((0.05,), (2,))), 2510 / 30
    for above, end in ((9.4e-9, 1), (9.9e-9, None)):
        grid = grid_of(rows_of(flat(), (95, 95, zero + above, 95)))
        assert live(grid, odd, policy, 0, 1, taker_fee=0).end_bar == end
    # A stop is of all that is posted: half of 200 is 10 of price.
    life = lived(odd, Policy(stop_loss=Exit(0.5, "margin")), down(85))
    assert (life.fill_price, life.equity_end) == (90, pytest.approx((100 - FEE * 900) / 200))
