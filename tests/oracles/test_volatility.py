"""Leverage per entry, realised volatility and what is made of it, examples worked by hand."""

import random
from dataclasses import replace
from math import inf, log, sqrt

import pytest

from tests.oracles.bars import HOUR, Bar, flat, rows_of
from tests.oracles.volatility import realised_volatility, scaled, target_weights
from tests.oracles.walk import Scenario, Tier, grid_of, walk, walk_one

LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000)
YEAR = sqrt(365 * 24)  # of hourly bars
TEN = log(1.1)


def test_a_weight_is_a_factor_of_the_leverage() -> None:
    # L = 5: N = 1000, M = 200: 10·P − 800 = 0.1·P; by margin N = 500, M = 100, the same level.
    grid = grid_of(rows_of(flat(), (100, 100, 80.8, 100)))
    verdict = walk_one(grid, LONG10, 0, 1, weight=0.5)
    assert verdict.liquidation_bar == 1
    assert verdict.liquidation_price == pytest.approx(800 / 9.9)
    assert verdict.bankruptcy_price == pytest.approx(80)
    assert verdict.residual == pytest.approx(80 / 9.9 / 200)
    assert verdict == walk_one(grid, replace(LONG10, leverage=5), 0, 1)
    by_margin = replace(LONG10, notional=None, margin=100)
    assert walk_one(grid, by_margin, 0, 1, weight=0.5) == walk_one(grid, replace(by_margin, leverage=5), 0, 1)
    assert walk_one(grid, LONG10, 0, 1, weight=1.0) == walk_one(grid, LONG10, 0, 1)
    with pytest.raises(ValueError, match="weight"):
        walk_one(grid, LONG10, 0, 1, weight=0.0)


def test_the_maximum_leverage_is_read_with_a_slack_where_there_are_weights() -> None:
    grid = grid_of(rows_of(flat(), flat(), flat()))
    tiered = replace(LONG10, maintenance=(Tier(0, inf, 0.01, 0.0, 20),), leverage=20 * (1 + 5e-10))
    assert [verdict.rejected for verdict in walk(grid, tiered, 1)[0]] == [True, True]
    assert [verdict.rejected for verdict in walk(grid, tiered, 1, weights=[1.0, 1.0 + 1e-9, None])[0]] == [False, True]
    # By margin a weight moves the size across a cap: N = 100·10·w against 1000.
    sized = replace(tiered, leverage=10, notional=None, margin=100, maintenance=(Tier(0, 1000, 0.01, 0.0, 20),))
    assert [verdict.rejected for verdict in walk(grid, sized, 1, weights=[1.0, 1.01, 1.0])[0]] == [False, True]
    # Deribit: 10·w·0.1 against 1.
    rated = replace(LONG10, initial_rate=0.1)
    assert [verdict.rejected for verdict in walk(grid, rated, 1, weights=[1.0, 1.01, 1.0])[0]] == [False, True]


def test_a_bar_without_a_weight_is_no_entry() -> None:
    grid = grid_of(rows_of(flat(), flat(), flat(), None, flat()))
    verdicts, excluded = walk(grid, LONG10, 1, weights=[None, 0.5, None, 1.0, 1.0], max_gap_bars=0)
    assert ([verdict.entry_bar for verdict in verdicts], excluded) == ([1], 0)
    # Bar 2 with a weight is excluded for its gap.
    assert walk(grid, LONG10, 1, weights=[None, 0.5, 2.0, 1.0, 1.0], max_gap_bars=0)[1] == 1
    with pytest.raises(ValueError, match="one per bar"):
        walk(grid, LONG10, 1, weights=[1.0])


def test_realised_volatility() -> None:
    # Returns: +10 %, back, none, none (bar 3 has no close), 0.
    grid = grid_of(rows_of(flat(100), flat(110), flat(100), None, flat(100), flat(100)))
    # W = 2. Bar 2: both known. Bar 3: one of two. Bar 4: none. Bar 5: the 0 alone.
    ten = pytest.approx(TEN * YEAR)
    assert realised_volatility(grid, 2) == [None, None, ten, ten, None, 0.0]
    # W = 1: bar 1 on.
    assert realised_volatility(grid, 1) == [None, ten, ten, None, None, 0.0]
    # W = 3 needs two of three; bar 5 has one, bar 3 has both of +10 % and back, bar 4 the second alone.
    assert realised_volatility(grid, 3) == [None, None, None, pytest.approx(TEN * YEAR), None, None]
    # W = 4, bar 5: back and 0 of four, mean r² = r²/2.
    assert realised_volatility(grid, 4)[4:] == [pytest.approx(TEN * YEAR), pytest.approx(TEN / sqrt(2) * YEAR)]
    # A close is known in a bar without trigger prices as well.
    marks = rows_of(flat(), flat(110), flat(), mark_high=[1.0, None, 1.0], mark_low=[1.0, None, 1.0])
    assert realised_volatility(grid_of(marks), 2)[2] == pytest.approx(TEN * YEAR)
    # Four-hour bars: 365·6 a year.
    slow = rows_of(flat(), flat(110))
    slow = replace(slow, interval_ms=4 * HOUR, open_time_ms=[0, 4 * HOUR])
    assert realised_volatility(grid_of(slow), 1)[1] == pytest.approx(TEN * sqrt(365 * 6))
    # The returns are those of the grid: the bar before a cut is not seen.
    assert realised_volatility(grid_of(marks, trigger="last", start_ms=HOUR), 1) == [None, pytest.approx(TEN * YEAR)]


def test_target_weights() -> None:
    grid = grid_of(rows_of(flat(100), flat(110), flat(100), None, flat(100), flat(100)))
    weights = target_weights(grid, 2, TEN * YEAR / 4, 3.0)
    assert weights == [None, None, pytest.approx(0.25), pytest.approx(0.25), None, 3.0]
    assert target_weights(grid, 2, TEN * YEAR * 4, 3.0)[2] == 3.0
    # Bar 2 is the only entry with a weight whose next bar is in the grid; bar 3 is missing, bar 4 has none.
    verdicts, _ = walk(grid, LONG10, 1, weights=weights)
    assert [verdict.entry_bar for verdict in verdicts] == [2]
    # L = 2.5: M = 400, 10·P − 600 = 0.1·P.
    assert verdicts[0].liquidation_price == pytest.approx(600 / 9.9)


def test_maintenance_scaled_by_volatility() -> None:
    rows = rows_of(flat(100), flat(110), flat(100), None, flat(100), flat(100), flat(100))
    rows = replace(rows, maintenance_scale=[None, 3.0, 3.0, 3.0, None, 2.0, 2.0])
    grid = grid_of(rows)
    # vol of W = 2 is known in bars 2, 3, 5 and 6: 0 in the last two. Bar t takes that of bar t − 1.
    assert scaled(grid, 2, TEN * YEAR / 1.5, 4).scale == pytest.approx([1, 3, 3, 4.5, 1.5, 2, 2])
    assert scaled(grid, 2, TEN * YEAR / 8, 4).scale == pytest.approx([1, 3, 3, 12, 4, 2, 2])  # capped
    assert scaled(grid, 2, TEN * YEAR * 2, 4).scale == grid.scale  # never below 1
    with pytest.raises(ValueError, match="cap"):
        scaled(grid, 2, 0.5, 0.9)
    # 1 % raised to 2 % in the bar after the rise, and not in the bar of the rise itself.
    bars: tuple[Bar, ...] = (flat(), (100, 110, 91.5, 110), (110, 110, 91.5, 100))
    raised = scaled(grid_of(rows_of(*bars)), 1, TEN * YEAR / 2, 10)
    assert raised.scale == pytest.approx([1, 1, 2])
    verdict = walk_one(raised, LONG10, 0, 2)
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(900 / 9.8)
    # The entry of bar 2 is judged by what bar 1 closed with: 2·0.01 against 1/60.
    grid = scaled(grid_of(rows_of(*bars, flat())), 1, TEN * YEAR / 2, 10)
    assert [v.rejected for v in walk(grid, replace(LONG10, leverage=60), 1)[0]] == [False, False, True]


def test_a_weight_multiplies_the_required_margin_rate() -> None:
    # §3: liquidated ⇔ (1 − 1e-9)/L ≤ w·x.
    rng = random.Random(5)
    hits = 0
    for _ in range(200):
        side, weight, leverage = rng.choice([1, -1]), rng.uniform(0.2, 3), rng.uniform(1, 20)
        moves = [rng.uniform(-0.08, 0.08) for _ in range(6)]
        bars = [flat()] + [(100.0, 100 + 100 * abs(m), 100 - 100 * abs(m), 100 + 100 * m) for m in moves]
        scenario = Scenario(side, leverage, 0.005, fees_from_margin=True, open_fee=0.0005)
        verdict = walk_one(grid_of(rows_of(*bars)), scenario, 0, 6, weight=weight)
        if verdict.rejected:
            continue
        z = [(0.005 - side) * (bar[2] if side > 0 else bar[1]) for bar in bars[1:]]
        x = (max(z) + side * 100 + 0.0005 * 100) / 100
        assert (verdict.liquidation_bar is not None) == ((1 - 1e-9) / leverage <= weight * x)
        hits += verdict.liquidation_bar is not None
    assert 20 < hits < 180
