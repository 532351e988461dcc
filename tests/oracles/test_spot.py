"""Spot margin (§4 of docs/semantics.md), examples worked by hand."""

from dataclasses import replace

import pytest

from tests.oracles.bars import HOUR, first, flat, rows_of
from tests.oracles.spot import hours_in
from tests.oracles.walk import Scenario, grid_of, walk, walk_one

# At p = 100: N = 1000, W = 250, q = 10, debt 750 (assets 10 base), short: assets 1250 (debt 10 base).
LONG4 = Scenario(
    side=1, leverage=4, maintenance=0.0, notional=1000, contract="spot", liquidation_ltv=0.9, margin_call_ltv=0.8
)
SHORT4 = replace(LONG4, side=-1, margin_call_ltv=0.85)


def test_long() -> None:
    # 750 = 0.9·10·P at 83.33…, the call 750 = 0.8·10·P at 93.75, bankrupt at 75.
    bars = (flat(), (100, 100, 93.76, 100), (100, 100, 93.74, 100), (100, 100, 83.34, 100), (100, 100, 83.33, 100))
    verdict = first(LONG4, *bars)
    assert (verdict.margin_call_bar, verdict.liquidation_bar) == (2, 4)
    assert verdict.liquidation_price == pytest.approx(750 / 9)
    assert verdict.bankruptcy_price == pytest.approx(75)
    assert verdict.fill_price == pytest.approx(750 / 9)
    assert verdict.residual == pytest.approx((7500 / 9 - 750) / 250)  # a third
    assert verdict.insurance == 0.0
    survivor = first(LONG4, *bars[:4])
    assert (survivor.liquidation_bar, survivor.fill_price, survivor.insurance) == (None, None, None)
    assert survivor.liquidation_price == pytest.approx(750 / 9)
    assert first(replace(LONG4, margin_call_ltv=None), *bars[:4]).margin_call_bar is None
    # Neither the way the size is given nor the size matters.
    assert first(replace(LONG4, notional=None, margin=250), *bars) == verdict
    assert first(replace(LONG4, notional=None), *bars).residual == pytest.approx(verdict.residual)


def test_short() -> None:
    # 10·P = 0.9·1250 at 112.5, the call 10·P = 0.85·1250 at 106.25, bankrupt at 125.
    bars = (flat(), (100, 106.2, 100, 100), (100, 106.3, 100, 100), (100, 112.4, 100, 100), (100, 112.6, 100, 100))
    verdict = first(SHORT4, *bars)
    assert (verdict.margin_call_bar, verdict.liquidation_bar) == (2, 4)
    assert verdict.liquidation_price == pytest.approx(112.5)
    assert verdict.bankruptcy_price == pytest.approx(125)
    assert verdict.residual == pytest.approx((1250 - 1125) / 250)
    # A rise cannot hurt a long, nor a fall a short.
    assert first(LONG4, flat(), flat(1000)).liquidation_bar is None
    assert first(SHORT4, flat(), flat(1)).liquidation_bar is None


def test_ties_are_inclusive_within_a_billionth() -> None:
    # 750 ≥ 0.8·10·P·(1 − 1e-9), P = 93.75·(1 + 1e-9); short 10·P ≥ 1125·(1 − 1e-9).
    at = replace(LONG4, liquidation_ltv=0.8)
    assert first(at, flat(), (100, 100, 93.75 * (1 + 0.9e-9), 100)).liquidation_bar == 1
    assert first(at, flat(), (100, 100, 93.75 * (1 + 1.1e-9), 100)).liquidation_bar is None
    assert first(SHORT4, flat(), (100, 112.5 * (1 - 0.9e-9), 100, 100)).liquidation_bar == 1
    assert first(SHORT4, flat(), (100, 112.5 * (1 - 1.1e-9), 100, 100)).liquidation_bar is None


def test_rejection() -> None:
    # The loan-to-value at entry is 1 − 1/L long, L/(L + 1) short.
    def rejected(scenario: Scenario, leverage: float) -> bool:
        return first(replace(scenario, leverage=leverage), flat(), flat()).rejected

    assert [rejected(LONG4, x) for x in (9.9, 10, 11)] == [False, True, True]  # 0.9 is the tie
    assert [rejected(SHORT4, x) for x in (8.9, 9, 9.1)] == [False, True, True]
    fee = replace(LONG4, open_fee=0.002)  # 1000 − 1000/9.9 + 2 = 900.99 ≥ 900
    assert rejected(fee, 9.9)
    assert not rejected(replace(fee, fees_from_margin=False), 9.9)


def test_the_opening_fee_is_paid_from_own_funds() -> None:
    # 1000·0.01 = 10: debt 760, short assets 1240.
    long = first(replace(LONG4, open_fee=0.01), flat(), flat())
    assert long.liquidation_price == pytest.approx(760 / 9)
    assert long.bankruptcy_price == pytest.approx(76)
    short = first(replace(SHORT4, open_fee=0.01), flat(), flat())
    assert short.liquidation_price == pytest.approx(111.6)
    assert short.bankruptcy_price == pytest.approx(124)


def test_without_a_debt() -> None:
    one = replace(LONG4, leverage=1, borrow_rate=0.1)
    verdict = first(one, flat(), (100, 100, 0.01, 0.01))
    assert (verdict.margin_call_bar, verdict.liquidation_bar, verdict.rejected) == (None, None, False)
    assert (verdict.liquidation_price, verdict.bankruptcy_price) == (None, None)
    assert first(replace(one, leverage=0.5), flat(), flat(0.01)).liquidation_price is None
    # Only the fee is owed: 10 = 0.9·10·P, without interest.
    owing = replace(one, open_fee=0.01, borrow_rate=0.0)
    assert first(owing, flat(), (100, 100, 1.1, 100)).liquidation_bar == 1
    assert first(owing, flat(), (100, 100, 1.2, 100)).liquidation_bar is None


def test_interest() -> None:
    # 10 % an hour: 750·1.1 = 825 in bar 1, 907.5 in bar 2: 907.5 = 9·P, P = 100.83.
    long = replace(LONG4, borrow_rate=0.1)
    verdict = first(long, flat(), flat(), flat())
    assert (verdict.margin_call_bar, verdict.liquidation_bar) == (1, 2)
    assert verdict.liquidation_price == pytest.approx(907.5 / 9)
    assert verdict.bankruptcy_price == pytest.approx(75)  # interest aside
    # The open of 100 is the worse price: E = 1000 − 907.5.
    assert verdict.fill_price == 100
    assert verdict.residual == pytest.approx(92.5 / 250)
    # A short owes 10·1.1, then 12.1 base: 12.1·P = 1125.
    short = first(replace(SHORT4, borrow_rate=0.1), flat(), flat(), flat())
    assert short.liquidation_bar == 2
    assert short.liquidation_price == pytest.approx(1125 / 12.1)
    assert short.residual == pytest.approx((1250 - 1210) / 250)
    # It runs through missing bars, which cannot trigger.
    grid = grid_of(rows_of(flat(), None, None, flat()))
    verdict = walk_one(grid, long, 0, 3)
    assert verdict.liquidation_bar == 3
    assert verdict.liquidation_price == pytest.approx(750 * 1.1**3 / 9)
    # A survivor's level is that of its last bar. Funding is not charged.
    rich = first(replace(LONG4, borrow_rate=0.01), flat(), flat(), flat(), funding={1: 0.5, 2: 0.5})
    assert rich.liquidation_price == pytest.approx(750 * 1.01**2 / 9)
    assert rich.liquidation_bar is None


def test_the_hours_of_a_bar() -> None:
    def hours(interval_ms: int, first_ms: int, bars: int = 1) -> list[int]:
        times = [first_ms + k * interval_ms for k in range(bars)]
        rows = replace(rows_of(*[flat()] * bars), interval_ms=interval_ms, open_time_ms=times)
        return [hours_in(grid_of(rows), t) for t in range(bars)]

    assert hours(HOUR, 7 * HOUR) == [1]
    assert hours(24 * HOUR, 48 * HOUR) == [24]
    # Half hours from 0:30 on: the hours open in the bars of 1:00 and 2:00.
    assert hours(HOUR // 2, HOUR // 2, 4) == [0, 1, 0, 1]
    # Bars of 90 minutes: 0:00 holds 0 and 1, 1:30 holds 2, 3:00 holds 3 and 4.
    assert hours(HOUR * 3 // 2, 0, 3) == [2, 1, 2]
    # Bought at 0:30 with half-hour bars: nothing until 1:00.
    rows = replace(rows_of(flat(), flat(), flat()), interval_ms=HOUR // 2, open_time_ms=[0, HOUR // 2, HOUR])
    long = replace(LONG4, borrow_rate=0.1)
    assert walk_one(grid_of(rows), long, 0, 1).liquidation_price == pytest.approx(750 / 9)
    assert walk_one(grid_of(rows), long, 0, 2).liquidation_price == pytest.approx(825 / 9)


def test_gap_fill_slippage_fee_surplus_and_recovery() -> None:
    # Opens at 80: E = 800 − 750 = 50; 1 % lower 792, E = 42, the fee 0.01·792 = 7.92.
    bars = (flat(), (80, 82, 78, 81))
    assert first(LONG4, *bars).residual == pytest.approx(0.2)
    costly = replace(LONG4, liquidation_slippage=0.01, liquidation_fee=0.01)
    assert first(costly, *bars).residual == pytest.approx(34.08 / 250)
    fund = first(replace(costly, surplus="fund"), *bars)
    assert (fund.residual, fund.insurance) == (0.0, pytest.approx(34.08 / 250))
    broke = first(LONG4, flat(), flat(70))
    assert (broke.residual, broke.insurance) == (0.0, pytest.approx(-50 / 250))
    # A short that opens at 120: 1250 − 1200.
    assert first(SHORT4, flat(), flat(120)).residual == pytest.approx(0.2)
    wick = (100.0, 100.0, 80.0, 85.0)
    assert first(LONG4, flat(), wick, flat(101)).recovered
    assert not first(LONG4, flat(), wick, flat(100)).recovered
    # 750·1.01² = 765.075 is owed at the end: E = 1010 − 765.075 < 250 < 1020 − 765.075.
    dear = replace(LONG4, borrow_rate=0.01)
    assert not first(dear, flat(), wick, flat(101)).recovered
    assert first(dear, flat(), wick, flat(102)).recovered


def test_cohorts_weights_and_what_is_refused() -> None:
    grid = grid_of(rows_of(flat(), flat(), flat(83), flat()))
    assert [v.liquidation_bar for v in walk(grid, LONG4, 1)[0]] == [None, 2, None]
    # 4·0.5: debt 500, level 55.5…; the third entry, at 83 with q = 1000/83, has 500 = 0.9·q·P.
    verdicts, _ = walk(grid, LONG4, 1, weights=[0.5, 0.5, 0.5, None])
    levels = [verdict.liquidation_price for verdict in verdicts]
    assert levels == pytest.approx([500 / 9, 500 / 9, 0.83 * 500 / 9])
    for wrong in ({"liquidation_ltv": None}, {"extra": 1.0}, {"posted_fee": 0.001}, {"initial_rate": 0.1}):
        with pytest.raises(ValueError, match="spot margin has"):
            first(replace(LONG4, **wrong), flat(), flat())  # type: ignore[arg-type]
