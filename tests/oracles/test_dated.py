"""Dated tier tables (§5 of docs/semantics.md), examples worked by hand."""

from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import HOUR, first, flat, rows_of
from tests.oracles.walk import Dated, Scenario, Tier, grid_of, walk, walk_one

ONE = (Tier(0, inf, 0.01, None, 100),)
FIVE = (Tier(0, inf, 0.05, None, 20),)
# At p = 100: q = 10, M = 100, E = 10·P − 900; the level is 90.909… at 1 % and 94.736… at 5 %.
RAISED = Scenario(side=1, leverage=10, maintenance=Dated(((None, ONE), (2 * HOUR, FIVE))), notional=1000)


def test_a_raised_rate_kills_an_open_position() -> None:
    dip = (100.0, 100.0, 94.7, 100.0)
    bars = (flat(), dip, dip, dip)
    verdict = first(RAISED, *bars)
    assert verdict.liquidation_bar == 2
    # 10·P − 900 = 0.05·10·P, P = 900/9.5
    assert verdict.liquidation_price == pytest.approx(900 / 9.5)
    assert verdict.fill_price == pytest.approx(900 / 9.5)
    assert verdict.residual == pytest.approx(0.05 * 10 * 900 / 9.5 / 100)
    # A date inside bar 2 is in force from bar 3 on.
    late = replace(RAISED, maintenance=Dated(((None, ONE), (2 * HOUR + 1, FIVE))))
    assert first(late, *bars).liquidation_bar == 3
    # The rate is raised above the price: 94 at the open.
    assert first(RAISED, flat(), (94, 94, 94, 94), (94, 95, 94, 94)).fill_price == 94
    # The order in which the tables are written is nothing.
    assert first(replace(RAISED, maintenance=Dated(((2 * HOUR, FIVE), (None, ONE)))), *bars) == verdict
    # The call at 5 %: 10·P − 900 = 0.625·P, P = 96; at 1 % only at 91.139…
    called = first(RAISED, flat(), (100, 100, 95.9, 100), (100, 100, 95.9, 100))
    assert (called.margin_call_bar, called.liquidation_bar) == (2, None)


def test_a_lowered_rate_and_the_level_of_a_survivor() -> None:
    lowered = replace(RAISED, maintenance=Dated(((0, FIVE), (2 * HOUR, ONE))))
    bars = (flat(), flat(), (100, 100, 94.7, 100))
    verdict = first(lowered, *bars)
    assert verdict.liquidation_bar is None
    assert verdict.liquidation_price == pytest.approx(900 / 9.9)  # the table of the window's last bar
    assert first(lowered, flat(), flat()).liquidation_price == pytest.approx(900 / 9.5)
    # The last bar need not have prices.
    assert walk_one(grid_of(rows_of(flat(), flat(), None, flat())), lowered, 0, 2).liquidation_price == pytest.approx(
        900 / 9.9
    )
    # A liquidated position has the level of its own bar, whatever comes later in the window.
    early = first(lowered, flat(), (100, 100, 94.7, 100), flat())
    assert early.liquidation_bar == 1
    assert early.liquidation_price == pytest.approx(900 / 9.5)
    # For one bar only.
    spike = replace(RAISED, maintenance=Dated(((None, ONE), (HOUR, FIVE), (2 * HOUR, ONE))))
    dip = (100.0, 100.0, 94.7, 100.0)
    assert first(spike, flat(), flat(), dip).liquidation_bar is None
    assert first(spike, flat(), dip, dip).liquidation_bar == 1


def test_rejection_by_the_table_of_the_entry_bar() -> None:
    # Bar 0 closes when the second table comes into force; its entry is judged by the first all the same.
    def rejected(before: Tier, after: Tier, scenario: Scenario = RAISED) -> list[bool]:
        dated = replace(scenario, maintenance=Dated(((None, (before,)), (HOUR, (after,)))))
        verdicts, _ = walk(grid_of(rows_of(flat(), flat(), flat())), dated, 1)
        assert all(verdict.liquidation_bar is None for verdict in verdicts)
        return [verdict.rejected for verdict in verdicts]

    free = ONE[0]
    assert rejected(free, free) == [False, False]
    assert rejected(free, replace(free, max_leverage=9)) == [False, True]
    assert rejected(replace(free, max_leverage=9), free) == [True, False]
    assert rejected(free, replace(free, cap=999)) == [False, True]
    assert rejected(replace(free, cap=999), free) == [True, False]
    assert rejected(replace(free, mmr=0.1), free) == [True, False]  # 100 − 0.1·1000 = 0
    # Raised to 10 % the entry of bar 0 is not rejected but liquidated, that of bar 1 is rejected.
    dated = replace(RAISED, maintenance=Dated(((None, ONE), (HOUR, (replace(free, mmr=0.1),)))))
    verdicts, _ = walk(grid_of(rows_of(flat(), flat(), flat())), dated, 1)
    assert [(verdict.rejected, verdict.liquidation_bar) for verdict in verdicts] == [(False, 1), (True, None)]


def test_without_deductions_each_table_keeps_the_tier_of_the_size() -> None:
    # N = 1000 is in the second tier of the first table, 3 %, and in the first of the second, 4 %.
    old = (Tier(0, 500, 0.01, None, 50), Tier(500, inf, 0.03, None, 20))
    new = (Tier(0, 2000, 0.04, None, 50), Tier(2000, inf, 0.2, None, 20))
    dated = replace(RAISED, maintenance=Dated(((None, old), (2 * HOUR, new))))
    assert first(dated, flat(), flat()).liquidation_price == pytest.approx(900 / 9.7)
    assert first(dated, flat(), flat(), flat()).liquidation_price == pytest.approx(900 / 9.6)
    # A 2× short of 1000, q = 10, grows past 2000 and keeps the 4 %: 500 − 10·(P − 100) = 0.4·P; but 5× of
    # 2001, q = 20.01, M = 400.2 has the 20 % of the new table: 400.2 + 2001 − 20.01·P = 0.2·20.01·P, P = 100.
    short = replace(dated, side=-1, leverage=2)
    assert first(short, flat(), flat(), flat()).liquidation_price == pytest.approx(1500 / 10.4)
    large = replace(dated, side=-1, leverage=5, notional=2001)
    assert first(large, flat(), flat(), flat()).liquidation_bar == 2


def test_with_deductions_the_tier_moves_in_each_table() -> None:
    # A short of N = 900, L = 3: M = 300, q = 9, E = 1200 − 9·P. Old: 1200 − 9·P = 0.45·P − 40, P = 131.21…
    # New, D = 1000·(0.08 − 0.01) = 70: 1270 = 9.72·P, P = 130.65…, n = 1175.9.
    old = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, inf, 0.05, 40.0, 20))
    new = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, inf, 0.08, 70.0, 20))
    short = Scenario(side=-1, leverage=3, maintenance=Dated(((None, old), (2 * HOUR, new))), notional=900)
    rise = (100.0, 131.0, 100.0, 100.0)
    verdict = first(short, flat(), rise, rise)
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(1270 / 9.72)
    assert first(short, flat(), rise).liquidation_price == pytest.approx(1240 / 9.45)


def test_entry_basis() -> None:
    # MM of N = 1000 is 10, then 50: 10·P − 900 = 10 at 91, = 50 at 95.
    entry = replace(RAISED, basis="entry")
    dip = (100.0, 100.0, 95.0, 100.0)
    verdict = first(entry, flat(), dip, dip)
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(95)
    assert first(entry, flat(), dip).liquidation_price == pytest.approx(91)
    # With deductions MM is the table's at N: 0.1·1000 − 40 = 60, P = 96.
    old, new = (Tier(0, inf, 0.01, 0.0, 100),), (Tier(0, 500, 0.02, 0.0, 100), Tier(500, inf, 0.1, 40.0, 20))
    entry = replace(entry, maintenance=Dated(((None, old), (2 * HOUR, new))))
    assert first(entry, flat(), flat(), flat()).liquidation_price == pytest.approx(96)


def test_what_is_refused() -> None:
    late = replace(RAISED, maintenance=Dated(((HOUR, ONE), (2 * HOUR, FIVE))))
    rows = rows_of(flat(), flat(), flat())
    with pytest.raises(ValueError, match="in force"):
        walk(grid_of(rows), late, 1)
    with pytest.raises(ValueError, match="in force"):
        walk_one(grid_of(rows), late, 1, 1)  # the range, not the entry
    grid = grid_of(rows, start_ms=HOUR)
    assert [verdict.rejected for verdict in walk(grid, late, 1)[0]] == [False]
    deducted = (Tier(0, inf, 0.01, 0.0, 100),)
    with pytest.raises(ValueError, match="deductions"):
        Dated(((None, ONE), (HOUR, deducted)))
    with pytest.raises(ValueError, match="deductions"):
        Dated(((None, ONE + deducted),))
    for tables in ((), ((None, ()),), ((HOUR, ONE), (HOUR, FIVE))):
        with pytest.raises(ValueError, match="one table per date"):
            Dated(tables)
    with pytest.raises(ValueError, match="size"):
        walk(grid, replace(late, notional=None), 1)


def test_one_table_from_the_beginning_is_that_table() -> None:
    bars = (flat(), (100, 100, 92, 95), (95, 97, 90.9, 91), flat(99))
    for table in (ONE, FIVE):
        dated = replace(RAISED, maintenance=Dated(((None, table),)))
        assert first(dated, *bars) == first(replace(RAISED, maintenance=table), *bars)
