"""Trades of the user's own (§2 of docs/semantics.md), examples worked by hand."""

from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import HOUR, flat, rows_of
from tests.oracles.trades import Trade, end_of, entry_bar_of, walk_trades
from tests.oracles.walk import Scenario, Tier, grid_of, walk

# At p = 100: q = 10, M = 100, E = 10·P − 900; the level is 90.909…
LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000)
SIX = grid_of(rows_of(flat(), flat(), flat(), (100, 100, 90, 100), flat(), flat()))


def test_the_entry_bar() -> None:
    assert entry_bar_of(SIX, Trade(1)) == 0
    assert entry_bar_of(SIX, Trade(HOUR)) == 0  # the close of bar 0
    assert entry_bar_of(SIX, Trade(HOUR + 1)) == 1
    assert entry_bar_of(SIX, Trade(6 * HOUR)) == 5
    for time in (0, -5, 6 * HOUR + 1):
        with pytest.raises(ValueError, match=f"entry_time_ms={time}.*outside the grid"):
            walk_trades(SIX, LONG10, [Trade(HOUR), Trade(time)], 1)


def test_the_last_bar_at_risk() -> None:
    # Entered in bar 1: the bars at risk open at hours 2, 3, 4, 5.
    def end(exit_ms: int | None, horizon: int = 3) -> int | None:
        return end_of(SIX, Trade(2 * HOUR, exit_ms), 1, horizon)

    assert end(None) == 4
    assert end(2 * HOUR + 1) == 2
    assert end(3 * HOUR) == 2  # bar 3 does not open before the exit
    assert end(3 * HOUR + 1) == 3
    assert end(99 * HOUR) == 4
    assert end(3 * HOUR, 9) == 2  # cut, and inside the grid
    assert end(6 * HOUR, 9) == 5
    assert end(6 * HOUR + 1, 9) is None  # bar 6 would be at risk
    assert end(None, 9) is None
    for exit_ms in (2 * HOUR, HOUR, 0):
        with pytest.raises(ValueError, match="no bar at risk"):
            end(exit_ms)


def test_the_cohort_of_a_horizon() -> None:
    trades = [Trade(4 * HOUR), Trade(HOUR), Trade(HOUR, 3 * HOUR), Trade(HOUR, 30 * HOUR), Trade(5 * HOUR)]
    verdicts, _ = walk_trades(SIX, LONG10, trades, 3)
    # The first would reach bar 6, the last bar 7. Bar 3 hits the second and the fourth; the third is closed before.
    assert [(v.entry_bar, v.liquidation_bar) for v in verdicts] == [(0, 3), (0, None), (0, 3)]
    assert [v.entry_bar for v in walk_trades(SIX, LONG10, trades, 1)[0]] == [3, 0, 0, 0, 4]
    # One trade per bar and nothing else is the walk itself, however often a bar is named.
    every = [Trade((t + 1) * HOUR) for t in range(6)]
    assert walk_trades(SIX, LONG10, every, 2)[0] == walk(SIX, LONG10, 2)[0]
    assert len(walk_trades(SIX, LONG10, [Trade(HOUR)] * 3, 2)[0]) == 3
    # The exit's time stays what it is: a survivor's level is that of its own last bar.
    scaled = replace(SIX, scale=[1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    short_held = walk_trades(scaled, LONG10, [Trade(HOUR, HOUR + 1)], 3)[0][0]
    assert short_held.liquidation_price == pytest.approx(900 / 9.9)
    with pytest.raises(ValueError, match="horizon"):
        walk_trades(SIX, LONG10, every, 0)


def test_side_leverage_and_price_of_a_trade() -> None:
    trades = [Trade(HOUR, side=-1, leverage=2), Trade(HOUR, entry_price=80), Trade(HOUR, leverage=5, entry_price=101)]
    verdicts, _ = walk_trades(SIX, LONG10, trades, 3)
    # Short, M = 500: 1500 − 10·P = 0.1·P.
    assert verdicts[0].liquidation_price == pytest.approx(1500 / 10.1)
    # From 80: q = 12.5, 100 + 12.5·P − 1000 = 0.125·P, P = 72.7; the low of 90 is far above.
    assert verdicts[1].liquidation_price == pytest.approx(900 / 12.375)
    assert (verdicts[1].entry_price, verdicts[1].liquidation_bar) == (80, None)
    # From 101, 5×: 0.8·101/0.99.
    assert verdicts[2].liquidation_price == pytest.approx(80.8 / 0.99)
    # An own price above the bar's is bought dearer: 5× from 115 dies at 92.9, above the low of bar 3.
    dear = walk_trades(SIX, LONG10, [Trade(HOUR, leverage=5, entry_price=115)], 3)[0][0]
    assert dear.liquidation_bar == 3
    assert dear.bankruptcy_price == pytest.approx(92)
    assert dear.entry_time_ms == HOUR
    # Opened at 130, 10×: 117.8 is above every price of bar 1, which opens at 100 and fills there.
    gone = walk_trades(SIX, LONG10, [Trade(HOUR, entry_price=130)], 3)[0][0]
    assert (gone.rejected, gone.liquidation_bar, gone.fill_price) == (False, 1, 100)
    for price in (0.0, -1.0, inf):
        with pytest.raises(ValueError, match="enters at"):
            walk_trades(SIX, LONG10, [Trade(HOUR, entry_price=price)], 1)


def test_rejection() -> None:
    # The leverage of a trade is compared with a slack of 1e-9.
    tiered = replace(LONG10, maintenance=(Tier(0, inf, 0.01, 0.0, 20),))
    trades = [Trade(HOUR, leverage=x) for x in (20, 20 * (1 + 5e-10), 20.001)]
    assert [v.rejected for v in walk_trades(SIX, tiered, trades, 1)[0]] == [False, False, True]
    # g of the entry bar is 10: 10·0.01·1000 is all of M, at any price of its own.
    scaled = replace(SIX, scale=[10.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    trades = [Trade(HOUR), Trade(HOUR, entry_price=50), Trade(2 * HOUR)]
    assert [v.rejected for v in walk_trades(scaled, LONG10, trades, 1)[0]] == [True, True, False]


def test_missing_entry_bars() -> None:
    # Bar 2 is missing, bar 3 has no last close, bar 4 no trigger prices.
    bars = rows_of(*[flat()] * 6)
    nulls: list[float | None] = [None]
    columns = {
        "close": [100.0, 100.0, None, None, 100.0, 100.0],
        "high": [100.0, 100.0, *nulls, 100.0, *nulls, 100.0],
        "low": [100.0, 100.0, *nulls, 100.0, *nulls, 100.0],
    }
    grid = grid_of(replace(bars, **columns))
    for t in (2, 3, 4):
        with pytest.raises(ValueError, match=f"entry_time_ms={(t + 1) * HOUR}.*no entry"):
            walk_trades(grid, LONG10, [Trade((t + 1) * HOUR)], 1)
        verdict = walk_trades(grid, LONG10, [Trade((t + 1) * HOUR, entry_price=100)], 1)[0][0]
        assert (verdict.entry_bar, verdict.entry_price) == (t, 100)
    # max_gap looks at the cut window: bar 2 is the only missing one before bar 3.
    trades = [Trade(2 * HOUR), Trade(2 * HOUR, 2 * HOUR + 1), Trade(HOUR, HOUR + 1)]
    verdicts, excluded = walk_trades(grid, LONG10, trades, 2, max_gap_bars=0)
    assert ([v.entry_bar for v in verdicts], excluded) == ([0], 2)


def test_trades_of_a_dated_future_and_of_spot_margin() -> None:
    settled = grid_of(rows_of(flat(), flat(), (100, 100, 90, 100)), expiry_ms=3 * HOUR)
    trades = [Trade(HOUR), Trade(2 * HOUR, 50 * HOUR), Trade(3 * HOUR)]
    # Cut at bar 2; the trade of bar 2 itself has no bar at risk and is no entry.
    assert [(v.entry_bar, v.liquidation_bar) for v in walk_trades(settled, LONG10, trades, 9)[0]] == [(0, 2), (1, 2)]
    spot = replace(LONG10, leverage=4, contract="spot", liquidation_ltv=0.9)
    # From 105: q = 1000/105, 750 = 0.9·q·P, P = 87.5; 5×: 800 = 0.9·10·P, P = 88.8….
    trades = [Trade(HOUR, entry_price=105), Trade(HOUR, leverage=5)]
    levels = [verdict.liquidation_price for verdict in walk_trades(SIX, spot, trades, 3)[0]]
    assert levels == pytest.approx([87.5, 800 / 9])
