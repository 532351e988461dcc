"""Stop-loss and take-profit (§7 of docs/semantics.md), and policies on inverse contracts and dated tables, by hand."""

from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import HOUR, Bar, flat, rows_of
from tests.oracles.policies import Deleverage, Exit, Last, Life, Policy, ScaleIn, Step, last_of, live
from tests.oracles.test_policies import FEE, LONG10, TIERS, TWO, down, kinds, lived
from tests.oracles.walk import Dated, Tier, grid_of

# Q = 1000 quote, N = 10 coin, M = 1 coin, E = 11 − 1000·u.
COIN10 = replace(LONG10, contract="inverse")

# ---------------------------------------------------------------- stop and take-profit


def test_stop_loss_nearest_first() -> None:
    stop = Policy(stop_loss=Exit(0.05))
    # Sold at 95: E = 50, fee 0.95.
    life = lived(LONG10, stop, down(80))
    assert kinds(life) == [(1, "stopped")]
    assert (life.outcome, life.fill_price, life.end_bar, life.liquidation_bar) == ("stopped", 95, 1, None)
    assert (life.equity_end, life.fees) == (pytest.approx(0.4905), pytest.approx(0.0095))
    assert (life.residual, life.insurance, life.recovered) == (None, 0, False)
    # A gap is filled at the open; a bar that opens beyond the liquidation price is a liquidation.
    assert lived(LONG10, stop, down(80, 80, 93)).fill_price == 93
    life = lived(LONG10, stop, down(80, 80, 90.5))
    assert kinds(life) == [(1, "margin_call"), (1, "liquidated")]
    assert life.fill_price == 90.5
    # Liquidation is nearer than a stop at 90.
    assert lived(LONG10, Policy(stop_loss=Exit(0.1)), down(80)).outcome == "liquidated"
    # Half of the margin is 50, 5 of price; a short's stop is above.
    assert lived(LONG10, Policy(stop_loss=Exit(0.5, "margin")), down(80)).fill_price == 95
    assert lived(replace(LONG10, side=-1), stop, (100, 120, 100, 100)).fill_price == 105
    assert lived(replace(LONG10, open_fee=0.001), Policy(stop_loss=Exit(0.5, "margin")), down(80)).fill_price == 95
    # Slipped by 10 % to 85.5: E = −45 and the fee 0.855 are the fund's loss.
    life = lived(LONG10, Policy(stop_loss=Exit(0.05, slippage=0.1)), down(94))
    assert (life.equity_end, life.insurance) == (0, pytest.approx(-0.45855))
    # A level reached is met, one at 0 never.
    assert lived(LONG10, stop, down(95)).outcome == "stopped"
    assert lived(LONG10, stop, down(95.001)).outcome == "survived"
    assert lived(replace(LONG10, leverage=0.5), Policy(stop_loss=Exit(1.0)), down(1e-9)).outcome == "survived"
    # Not confirmed at the close, the stop is still met in the bar, also where it opens below 90.9.
    life = lived(LONG10, replace(stop, confirm_bars=1), down(80, 80, 90))
    assert kinds(life) == [(1, "margin_call"), (1, "stopped")]


def test_take_profit() -> None:
    profit = Policy(take_profit=Exit(0.05))
    up = (100.0, 106.0, 99.0, 106.0)
    life = lived(LONG10, profit, up)
    assert (life.outcome, life.fill_price, life.end_bar) == ("took_profit", 105, 1)
    assert life.equity_end == pytest.approx((150 - 1.05) / 100)
    assert lived(LONG10, profit, (106, 107, 106, 107)).fill_price == 105
    assert lived(LONG10, Policy(take_profit=Exit(0.5, "margin")), up).fill_price == 105
    assert lived(LONG10, Policy(take_profit=Exit(0.07)), up).outcome == "survived"
    assert lived(replace(LONG10, side=-1), profit, down(90)).fill_price == 95
    # An adverse level in the same bar is met instead; a call is none.
    both = (100.0, 106.0, 94.0, 100.0)
    assert lived(LONG10, replace(profit, stop_loss=Exit(0.05)), both).outcome == "stopped"
    assert lived(LONG10, profit, (100, 106, 90, 100)).outcome == "liquidated"
    assert kinds(lived(LONG10, profit, (100, 106, 91, 100))) == [(1, "margin_call"), (1, "took_profit")]
    assert kinds(lived(LONG10, replace(profit, scale_in=ScaleIn((0.05,), (1,))), both)) == [(1, "scale_in")]
    assert kinds(lived(TWO, replace(profit, ladder=Step(1)), (100, 106, 92, 100)))[-1] == (1, "partial_liquidation")
    # Before the close: the profit is taken in the bar whose close would have been the confirmation.
    assert lived(LONG10, replace(profit, confirm_bars=1), (100, 106, 80, 80)).outcome == "took_profit"


def test_exits_on_the_last_price() -> None:
    marks = {"mark_open": [100.0, 100.0], "mark_high": [100.0, 101.0], "mark_low": [100.0, 99.0]}
    marks |= {"mark_close": [100.0, 100.0]}

    def on_last(bar: Bar | None, policy: Policy, **columns: list[float | None]) -> Life:
        rows = rows_of(flat(), bar, **{**marks, **columns}) if bar else rows_of(flat(), flat(), **{**marks, **columns})
        grid = grid_of(rows)
        last = last_of(rows, grid) if bar else Last([100, 96], [100, 96], [100, None])
        return live(grid, LONG10, policy, 0, 1, taker_fee=FEE, last=last)

    stop = Policy(stop_loss=Exit(0.05, on="last"), take_profit=Exit(0.05, on="last"))
    on_mark = Policy(stop_loss=Exit(0.05), take_profit=Exit(0.05))
    assert on_last(down(94), stop).fill_price == 95
    assert on_last(down(94), on_mark).outcome == "survived"
    assert on_last(down(94, 94, 94.5), stop).fill_price == 94.5
    assert on_last((100, 106, 100, 100), stop).outcome == "took_profit"
    assert on_last((100, 106, 100, 100), on_mark).outcome == "survived"
    assert on_last(None, stop).outcome == "survived"  # the last low is not known
    # The mark falls to 80 and opens at 100: the stop of the last price is nearer, at 95, at the last's open, 93.
    assert on_last(down(94), stop, mark_low=[100, 80]).fill_price == 95
    assert on_last(down(93, 93, 93), stop, mark_low=[100, 80]).fill_price == 93
    # The last opens below the liquidation price of 90.9; opens the mark there, it is a liquidation.
    assert on_last(down(89, 89, 89), stop, mark_low=[100, 80]).outcome == "liquidated"
    assert on_last(down(94), stop, mark_open=[100, 90], mark_low=[100, 80]).outcome == "liquidated"
    # The mark opens at 92, where a ladder cuts; from there the stop of the last price (95, opened at 96) is behind.
    rows = rows_of(flat(), down(94, 94, 96), **{**marks, "mark_open": [100.0, 92.0], "mark_low": [100.0, 91.0]})
    grid, cut = grid_of(rows), replace(stop, ladder=Step(1))
    life = live(grid, TWO, cut, 0, 1, taker_fee=FEE, last=last_of(rows, grid))
    assert kinds(life) == [(1, "margin_call"), (1, "partial_liquidation"), (1, "stopped")]
    assert life.fill_price == 92
    with pytest.raises(ValueError, match="last prices"):
        lived(LONG10, stop, flat())


# ---------------------------------------------------------------- inverse, dates, refusals


def test_inverse() -> None:
    # Stop at 95: E = 11 − 1000/95 = 0.4736…, fee 0.001·1000/95.
    life = lived(COIN10, Policy(stop_loss=Exit(0.05)), down(92))
    assert life.equity_end == pytest.approx(11 - 1001 / 95)
    # Half of the margin: 0.5 = 1000·(u − 0.01), u = 0.0105; a profit of it u = 0.0095; of tenfold u = 0: never.
    assert lived(COIN10, Policy(stop_loss=Exit(0.5, "margin")), down(92)).fill_price == pytest.approx(1 / 0.0105)
    up = (100.0, 1e9, 100.0, 100.0)
    assert lived(COIN10, Policy(take_profit=Exit(0.5, "margin")), up).fill_price == pytest.approx(1 / 0.0095)
    assert lived(COIN10, Policy(take_profit=Exit(10, "margin")), up).outcome == "survived"
    # 1000 more at 95: 10.526… coin, own margin 1.0526…; E at 95 = 0.4736… + 1.0526… − 0.0105….
    life = lived(COIN10, Policy(scale_in=ScaleIn((0.05,), (1,))), down(95, 95))
    assert life.equity_end == pytest.approx(11 - 1000 / 95 + 100 / 95 - 1 / 95)
    assert life.added == pytest.approx(100 / 95)
    # Q = 2000: E = 22 − 2000·u = 100·u − 0.4, u = 22.4/2100; n = 21.3 coin is cut to 10: Q' = 10/u.
    tiers = (Tier(0, 10, 0.01, 0.0, 50), Tier(10, inf, 0.05, 0.4, 10))
    life = lived(replace(COIN10, maintenance=tiers, notional=2000), Policy(ladder=Step(1)), down(92))
    assert life.steps[1][2:] == pytest.approx((2100 / 22.4, 2000 - 10 * 2100 / 22.4))
    # A deleveraging at 91.9 of an inverse short at 2×, M = 5, called at 198·…: E = −5 + 1000·u.
    short = replace(COIN10, side=-1, leverage=2)
    life = lived(short, Policy(deleverage=Deleverage(0.5)), flat(197.6))
    assert life.equity_end == pytest.approx((-5 + 1000 / 197.6 - 0.5 / 197.6) / 5)


def test_dated_tables_and_surplus() -> None:
    # From hour 2 on the one tier is two: the ladder has a step.
    dated = replace(TWO, maintenance=Dated(((None, (Tier(0, inf, 0.01, 0.0, 100),)), (2 * HOUR, TIERS))))
    life = lived(dated, Policy(ladder=Step(1)), down(92.6), down(92.6))
    assert kinds(life) == [(2, "margin_call"), (2, "partial_liquidation")]
    # E = 9.09… at the fill, of 100.
    life = lived(LONG10, Policy(), down(90), surplus="fund")
    assert (life.residual, life.equity_end, life.insurance) == (0, 0, pytest.approx(9 / 99))
    # A wallet of 10 more: 10·P − 890, and fractions are of 110.
    life = lived(LONG10, Policy(), down(89), extra=10)
    assert life.fill_price == pytest.approx(890 / 9.9)
    assert life.residual == pytest.approx(0.1 * 890 / 9.9 / 110)
