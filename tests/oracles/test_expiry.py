"""Dated futures (§4 of docs/semantics.md), examples worked by hand."""

from dataclasses import replace

import pytest

from tests.oracles.bars import HOUR, flat, rows_of
from tests.oracles.statistics import count, survival_km
from tests.oracles.walk import Scenario, Verdict, grid_of, walk, walk_one

# At p = 100: q = 10, M = 100, E = 10·P − 900; the level is 90.909…
LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000)
FIVE = rows_of(flat(), flat(), flat(), flat(), flat())


def bars_of(verdicts: list[Verdict]) -> list[int]:
    return [verdict.entry_bar for verdict in verdicts]


def test_which_bar_is_the_settlement_bar() -> None:
    def shape(expiry_ms: int, end_ms: int | None = None, **nulls: list[float | None]) -> tuple[int, bool]:
        grid = grid_of(replace(FIVE, **nulls), end_ms=end_ms, expiry_ms=expiry_ms)  # type: ignore[arg-type]
        return len(grid.open_time_ms), grid.settled

    assert shape(5 * HOUR) == (5, True)  # the last bar ends at the expiry
    assert shape(4 * HOUR + 1) == (5, True)  # or holds it
    assert shape(4 * HOUR) == (4, True)  # a bar that opens at the expiry is cut off
    assert shape(5 * HOUR + 1) == (5, False)  # the history ends before
    assert shape(5 * HOUR, end_ms=4 * HOUR) == (4, False)  # cut before
    assert shape(4 * HOUR, end_ms=5 * HOUR) == (4, True)
    # The bar before the expiry has no entry price: the grid does not reach it.
    assert shape(5 * HOUR, close=[100.0, 100.0, 100.0, 100.0, None]) == (4, False)
    assert not grid_of(FIVE).settled


def test_windows_are_cut_at_the_settlement_bar() -> None:
    grid = grid_of(FIVE, expiry_ms=5 * HOUR)
    assert bars_of(walk(grid, LONG10, 3)[0]) == [0, 1, 2, 3]  # bar 4 itself has no bar at risk
    assert bars_of(walk(grid, LONG10, 100)[0]) == [0, 1, 2, 3]
    assert bars_of(walk(grid_of(FIVE, expiry_ms=6 * HOUR), LONG10, 3)[0]) == [0, 1]
    assert bars_of(walk(grid_of(FIVE), LONG10, 3)[0]) == [0, 1]
    with pytest.raises(ValueError, match="past the grid"):
        walk_one(grid, LONG10, 4, 1)
    assert walk_one(grid, LONG10, 3, 9).liquidation_price == pytest.approx(900 / 9.9)


def test_what_happens_in_the_cut_window() -> None:
    # A fall in the settlement bar counts; one in the bar that opens at the expiry does not.
    bars = (flat(), flat(), (100, 100, 90, 101), flat(50))
    grid = grid_of(rows_of(*bars), expiry_ms=3 * HOUR)
    verdicts, excluded = walk(grid, LONG10, 5)
    assert [(v.entry_bar, v.liquidation_bar, v.recovered) for v in verdicts] == [(0, 2, True), (1, 2, True)]
    assert count(verdicts, excluded)["liquidations"] == 2
    safe = grid_of(rows_of(flat(), flat(), flat(), flat(50)), expiry_ms=3 * HOUR)
    assert count(walk(safe, LONG10, 5)[0])["liquidations"] == 0
    # Kaplan–Meier takes a cut window for a whole one. h = 1: entries 0 and 1, the second is hit. h = 5: both dead,
    # entry 0 alive at 1.
    cohorts = {h: walk(grid, LONG10, h)[0] for h in (1, 5)}
    assert survival_km(cohorts) == {1: 0.5, 5: 0.0}


def test_no_funding_is_read() -> None:
    # 10·0.01·100 of funding in each bar would leave 80; without a price it would be an error.
    bars = (flat(), flat(), flat())
    charged = rows_of(*bars, funding={1: 0.1, 2: 0.1})
    assert walk_one(grid_of(charged), LONG10, 0, 2).liquidation_bar is not None
    grid = grid_of(charged, expiry_ms=3 * HOUR)
    assert walk_one(grid, replace(LONG10, funding_shift=0.1), 0, 2).liquidation_bar is None
    assert grid.funding_rate == [None, None, None]


def test_max_gap_looks_at_the_cut_window() -> None:
    grid = grid_of(rows_of(flat(), flat(), None, None, flat()), expiry_ms=5 * HOUR)
    assert walk(grid, LONG10, 1, max_gap_bars=1)[1] == 0  # entry 1 sees one missing bar
    assert walk(grid, LONG10, 9, max_gap_bars=1)[1] == 2
    assert walk(grid, LONG10, 9, max_gap_bars=2)[1] == 0
