"""The level at which a position dies is exact: a touch kills, a hair less does not."""

from __future__ import annotations

import pytest

import backtest as bt
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of
from tests._support.tiers import LADDER, oracle_tiers, write_tiers
from tests.oracles import walk as oracle
from tests.oracles.walk import Rows

HAIR = 1e-7
"""Relative distance from the level: far beyond rounding, far below what another tier or fee would move it by."""


def bars_that_touch(price: float, side: str) -> Rows:
    """Entry at 100, then a bar whose extreme is `price`, then a bar so wide that every tier is within reach."""
    low = [100.0, min(price, 100.0), 20.0]
    high = [100.0, max(price, 100.0), 900.0]
    return Rows(
        HOUR,
        [0, HOUR, 2 * HOUR],
        open=[100.0] * 3,
        high=high,
        low=low,
        close=[100.0] * 3,
        funding_rate=[None, 0.001, 0],
    )


def dies(price: float, side: str, leverage: float, maintenance: object, margin: bt.Margin, size: bt.Size) -> bool:
    """Whether the position entered at bar 0 dies in bar 1, as `bt.run` counts it."""
    sweep = bt.Sweep(
        side=[side], leverage=[leverage], horizon=["1h"], maintenance=[maintenance], open_fee=[0.001], size=[size]
    )
    row = bt.run(
        history_of(bars_that_touch(price, side)), sweep, margin=margin, entries=bt.Entries(every="3h")
    ).table.iloc[0]
    assert row["entries"] == 1, "the position was rejected"
    return bool(row["liquidations"])


@pytest.mark.parametrize("size", [bt.Size(notional=1_500.0), bt.Size(margin=700.0), bt.Size(notional=9_000.0)], ids=str)
@pytest.mark.parametrize("basis", ["mark", "entry"])
@pytest.mark.parametrize("rule", ["flat", "with", "without"])
@pytest.mark.parametrize(
    ("side", "leverage"), [("long", 2.0), ("long", 7.0), ("short", 1.0), ("short", 3.0), ("short", 9.0)]
)
def test_a_touch_of_the_level_kills_and_a_hair_less_does_not(tmp_path, side, leverage, rule, basis, size) -> None:
    margin = bt.Margin(basis=basis, close_reserve=0.0006)
    maintenance = 0.006 if rule == "flat" else write_tiers(tmp_path / f"{rule}.csv")
    sized = {"notional": size.notional} if size.notional else {"margin": size.margin}
    held, sign = 0.006 if rule == "flat" else oracle_tiers(rule), 1 if side == "long" else -1
    scenario = oracle.Scenario(sign, leverage, held, basis, 0.0006, 0.001, **sized)
    # The charge of bar 1 falls on its open: 0.001 · 100 = 0.1 quote per base, whatever the level.
    position = oracle.open_position(scenario, 100.0)
    level = oracle.liquidation_price(position, 0.1, 1.0)
    assert level is not None
    away = HAIR if side == "long" else -HAIR
    assert dies(level, side, leverage, maintenance, margin, size)
    assert not dies(level * (1 + away), side, leverage, maintenance, margin, size)


@pytest.mark.parametrize("leverage", [3.0, 7.0, 10.0, 30.0, 60.0, 110.0])
@pytest.mark.parametrize("mmr", [0.0, 0.004, 0.0065])
def test_exact_ties_count_as_reached(leverage, mmr) -> None:
    """Long from 100: M/q = 100/L, dies at P = (100 − 100/L)/(1 − mmr); rounding may leave E − MM at ±1e-14."""
    level = (100.0 - 100.0 / leverage) / (1.0 - mmr)
    rows = Rows(HOUR, [0, HOUR], high=[100.0, 100.0], low=[100.0, level], close=[100.0, 100.0])
    sweep = bt.Sweep(side=["long"], leverage=[leverage], horizon=["1h"], maintenance=[mmr])
    assert bt.run(history_of(rows), sweep).table["liquidations"].tolist() == [1]


def test_a_notional_on_the_last_cap_is_held_and_one_above_it_rejected(tmp_path) -> None:
    """Last cap 60,000: 20,000 · 3 = 60,000 stands on it (and a rounding above it), 60,001 does not."""
    assert LADDER[-1][1] == 60_000.0
    rows = Rows(HOUR, [0, HOUR], high=[100.0, 100.0], low=[100.0, 99.0], close=[100.0, 100.0])
    table = write_tiers(tmp_path / "with.csv")
    sizes = [bt.Size(notional=60_000.0), bt.Size(notional=60_000.0 * (1 + 5e-10)), bt.Size(notional=60_001.0)]
    sweep = bt.Sweep(
        side=["long"], leverage=[3], horizon=["1h"], maintenance=[table], size=[*sizes, bt.Size(margin=20_000.0)]
    )
    assert bt.run(history_of(rows), sweep).table["rejected"].tolist() == [0, 0, 1, 0]


def test_the_maximum_leverage_of_the_tier_may_be_used_and_no_more(tmp_path) -> None:
    """9,000 lies in the tier with at most 20×."""
    rows = Rows(HOUR, [0, HOUR], high=[100.0, 100.0], low=[100.0, 99.9], close=[100.0, 100.0])
    table = write_tiers(tmp_path / "without.csv")
    sweep = bt.Sweep(
        side=["long"], leverage=[19, 20, 20.5], horizon=["1h"], maintenance=[table], size=[bt.Size(notional=2_001.0)]
    )
    # At 20×: 1/20 = 0.05 posted against 0.05 of maintenance: the margin is gone at entry. At 19× it is not.
    assert bt.run(history_of(rows), sweep).table["rejected"].tolist() == [0, 1, 1]
    assert duration_ms("1h") == HOUR
