"""Lives under path-dependent rules equal those of the literal walk: bars and counts with ``==``, amounts to 1e-9."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from backtest.config.models import Config, RuleTiers, Size, Sweep
from backtest.config.policies import Deleverage, Ladder, Policy, ScaleIn
from backtest.config.scenarios import expand_scenarios
from backtest.engine.policy_simulation import SimulatedPositions, grid_openings, simulate_policy
from tests._support.histories import HOUR, random_rows, rows
from tests._support.policies import (
    POLICIES,
    Case,
    assert_equal,
    assert_same,
    cases,
    check,
    enterable,
    random_case,
    work_of,
)
from tests._support.tiers import write_tiers
from tests.oracles.history import Rows
from tests.oracles.history import grid_of as oracle_grid
from tests.oracles.walk import walk_one


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    made=rows(),
    case=cases(),
    policy=st.sampled_from(list(POLICIES.values())),
    leverage=st.sampled_from([0.5, 1.0, 2.0, 5.0, 10.0, 25.0]),
)
def test_lives_equal_the_walk_on_any_history(made, case, policy, leverage) -> None:
    assume(enterable(made))
    check(made, case, policy, leverage, [1, 2, 5, 11])


@pytest.mark.parametrize("name", POLICIES)
def test_lives_equal_the_walk_on_longer_histories(name) -> None:
    """Fat tails, gaps and funding; horizons out of order."""
    happened = 0
    for seed in range(8):
        made = random_rows(100 * seed, 240, gaps=seed % 2 == 0)
        leverage = [2.0, 4.0, 8.0, 15.0][seed % 4]
        happened += check(made, random_case(seed), POLICIES[name], leverage, [24, 1, 60], every=11)
    assert happened > 20


@pytest.mark.parametrize("contract", ["linear", "inverse"])
@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("rule", ["narrow with", "narrow without"])
def test_ladders_go_down_tier_by_tier(contract, side, step, rule) -> None:
    """Six tiers, so that one bar takes several steps, and none to a cap twice; additions start again at the top."""
    cut = happened = 0
    for seed in range(4):
        size = Size(notional=[140_000.0, 90_000.0][seed % 2] if contract == "inverse" else [2_600.0, 1_500.0][seed % 2])
        case = Case(
            side, contract, ["mark", "mark", "mark", "entry"][seed], rule, size=size, close_reserve=0.0005,
            slippage=0.001, liquidation_fee=[0.0, 0.004][seed % 2], ratio=0.7,
        )  # fmt: skip
        made = random_rows(40 + seed, 240)
        for policy in (
            Policy(ladder=Ladder(step=step)),
            Policy(ladder=Ladder(step=step), confirm_bars=1),
            Policy(ladder=Ladder(step=step), scale_in=ScaleIn(distance=(0.03, 0.06, 0.09), multiple=(0.5, 1.0, 1.0))),
            Policy(ladder=Ladder(step=step), deleverage=Deleverage(fraction=0.2, max_times=2)),
        ):
            work = work_of(made, case, [12, 90], [7.0])
            lives = simulate_policy(work, case.scenario(policy), slice(0, work.bars.size), 7.0)
            happened += assert_same(work, oracle_grid(made), case, policy, 7.0, lives, 5)
            cut = max(cut, int(lives.partial_liquidations.max()))
            if not policy.scale_in:
                assert lives.partial_liquidations.max() <= 5 // step
    assert happened > 50 and cut >= 3 - step


@pytest.mark.parametrize("named", ["bybit-linear", "bybit-inverse"])
@pytest.mark.parametrize("extra", [0.0, 60.0])
@pytest.mark.parametrize("side", ["long", "short"])
def test_named_rules_that_post_a_fee_to_close(tmp_path, named, extra, side) -> None:
    """As a configuration gives them; cuts, additions and answers, and a leverage at which the fee is negative."""
    contract, c = named.removeprefix("bybit-"), 0.00055
    write_tiers(tmp_path / "with.csv")
    chosen = ("step 1", "top-up", "late top-up", "deleverage", "scale-in", "martingale", "everything")
    size = Size(margin=700.0, extra=extra)
    config = Config(
        sweep=Sweep(
            side=[side], leverage=[2], horizon=["1h"], size=[size], open_fee=[c],
            maintenance=[RuleTiers(rule=named, tiers=str(tmp_path / "with.csv"))],
            policy=[POLICIES[name] for name in chosen],
        )
    )  # fmt: skip
    case = Case(side, contract, "mark", "with", size=size, open_fee=c, taker_fee=c, posted_fee=c, liquidation_fee=0.002)
    happened = 0
    for seed, (name, scenario) in enumerate(zip(chosen, expand_scenarios(config), strict=True)):
        made = random_rows(60 + seed, 240)
        for leverage in (0.7, 4.0, 12.0):
            work = work_of(made, case, [90, 10], [leverage])
            lives = simulate_policy(work, scenario, slice(0, work.bars.size), leverage)
            happened += assert_same(work, oracle_grid(made), case, POLICIES[name], leverage, lives, 13)
    assert happened > 20


@pytest.mark.parametrize("name", ["none", "top-up", "late top-up", "deleverage", "step 2", "scale-in", "everything"])
def test_posted_fees_that_are_large(name) -> None:
    """5 % of the notional: where a fee of 0.055 % moves a call by less than a bar."""
    happened = 0
    for seed in range(8):
        made, case = random_rows(80 + seed, 240), replace(random_case(80 + seed), posted_fee=0.05)
        happened += check(made, case, POLICIES[name], [1.5, 3.0, 6.0, 10.0][seed % 4], [60, 8], every=5)
    assert happened > 20


@pytest.mark.parametrize("weight", [0.4, 2.5])
@pytest.mark.parametrize("seed", range(4))
def test_own_leverages_are_those_of_the_entries(seed, weight) -> None:
    case, policy = random_case(seed), POLICIES["everything"]
    made = random_rows(seed, 200)
    work = work_of(made, case, [20], [4.0])
    chunk = slice(0, work.bars.size)
    entries = replace(grid_openings(work, chunk, 4.0 * weight), slack=True)
    lives = simulate_policy(work, case.scenario(policy), chunk, 4.0, entries=entries)
    assert_same(work, oracle_grid(made), case, policy, 4.0, lives, 9, weight)


def test_own_prices_and_cut_windows() -> None:
    """A window cut at a bar ends there; an own price stands where the grid's would."""
    case, policy = Case(size=Size(notional=1_500.0)), POLICIES["ladder and all"]
    work = work_of(random_rows(3, 300), case, [4, 30], [9.0])
    chunk = slice(0, work.bars.size)
    plain = grid_openings(work, chunk, 9.0)
    cut = simulate_policy(work, case.scenario(policy), chunk, 9.0, entries=replace(plain, last=plain.bar + 4))
    for name, values in vars(cut).items():
        same = name == "rejected" or np.array_equal(values[:, 0], values[:, 1], equal_nan=values.dtype.kind == "f")
        assert same, name
    shifted = replace(work, grid=replace(work.grid, entry_price=work.grid.entry_price * 1.01))
    own = simulate_policy(work, case.scenario(policy), chunk, 9.0, entries=replace(plain, price=plain.price * 1.01))
    assert_equal(own, simulate_policy(shifted, case.scenario(policy), chunk, 9.0))


@pytest.mark.parametrize("seed", range(12))
def test_liquidation_prices_of_the_empty_policy_are_those_of_the_walk(seed) -> None:
    case, horizon = random_case(seed), 30
    made = random_rows(seed, 200)
    work, grid = work_of(made, case, [horizon], [6.0]), oracle_grid(made)
    lives = simulate_policy(work, case.scenario(None), slice(0, work.bars.size), 6.0)
    for j in range(0, int((work.bars + horizon < work.grid.n_bars).sum()), 7):
        want = walk_one(grid, case.oracle(6.0), int(work.bars[j]), horizon)
        for got, price in ((lives.liquidation_price, want.liquidation_price), (lives.fill_price, want.fill_price)):
            assert math.isnan(got[j, 0]) if price is None else abs(got[j, 0] / price - 1) <= 1e-9


def lives_by_hand(
    bars: list[tuple[float, float, float]], case: Case, policy: Policy, leverage: float
) -> SimulatedPositions:
    """A long from 100, through bars of open, low and close."""
    opened, low, close = ([100.0, *column] for column in zip(*bars, strict=True))
    high = [max(pair) for pair in zip(opened, close, strict=True)]
    made = Rows(HOUR, [HOUR * t for t in range(len(low))], open=opened, high=high, low=low, close=close)
    return simulate_policy(work_of(made, case, [len(bars)], [leverage]), case.scenario(policy), slice(0, 1), leverage)


PLAIN = Case(size=Size(notional=1_000.0), rate=0.04, open_fee=0.0, taker_fee=0.0)


def test_a_top_up_moves_the_liquidation_price_by_hand() -> None:
    """10 base from 100 on a margin of 100.

    Call at 100 + 10·(P − 100) = 0.04·10·P/0.8, P = 94.7…: the low of 94.5 is one. At its close of 95: E = 50, MM = 38;
    a ratio of 0.5 needs 76, so 26 is added. Then 126 + 10·(P − 100) = 0.4·P at P = 874/9.6; at 96 E is 86.
    """
    lives = lives_by_hand([(100.0, 94.5, 95.0), (95.0, 92.5, 96.0)], PLAIN, POLICIES["top-up"], 10.0)
    assert (lives.outcome[0, 0], lives.margin_call[0, 0], lives.top_ups[0, 0]) == (0, 1, 1)
    assert lives.added[0, 0] == pytest.approx(0.26, rel=1e-12)
    assert lives.equity[0, 0] == pytest.approx(0.86, rel=1e-12)
    assert lives.liquidation_price[0, 0] == pytest.approx(874 / 9.6, rel=1e-12)


def test_a_posted_fee_calls_earlier_and_asks_for_more_by_hand() -> None:
    """As above, with a fee of 1 % of the 900 that are owed: f = 9.

    Call at E + 9 = (MM + 9)/0.8, P = 902.25/9.5 = 94.97…: the low of 94.9 is one. At the close of 95 a ratio of 0.5
    needs (38 + 9)/0.5 − 9 − 50 = 35. The liquidation price knows nothing of f: 135 + 10·(P − 100) = 0.4·P.
    """
    bars = [(100.0, 94.9, 95.0), (95.0, 94.0, 96.0)]
    lives = lives_by_hand(bars, replace(PLAIN, posted_fee=0.01), POLICIES["top-up"], 10.0)
    assert (lives.margin_call[0, 0], lives.top_ups[0, 0]) == (1, 1)
    assert lives.added[0, 0] == pytest.approx(0.35, rel=1e-12)
    assert lives.equity[0, 0] == pytest.approx(0.95, rel=1e-12)
    assert lives.liquidation_price[0, 0] == pytest.approx(865 / 9.6, rel=1e-12)
    assert lives_by_hand(bars[:1], PLAIN, POLICIES["top-up"], 10.0).margin_call[0, 0] == 0


TIERED = replace(PLAIN, size=Size(notional=4_000.0))


def test_a_short_goes_down_the_ladder_once_by_hand() -> None:
    """40 base from 100 on 400; 1 % up to 2,000, above it 5 % less 80.

    400 − 40·(P − 100) = 2·P − 80 at P = 320/3: cut to 2,000, 18.75 base, worth 400/3. Its value is above that cap at
    the next level too, 400/3 − 18.75·(P − 320/3) = 0.9375·P − 80, but it has come down to the lowest tier.
    """
    case = replace(TIERED, side="short", rule="with")
    lives = lives_by_hand([(100.0, 99.0, 114.0)], case, POLICIES["step 1"], 10.0)
    level = (400 / 3 + 18.75 * 320 / 3 + 80) / 19.6875
    assert (lives.outcome[0, 0], lives.partial_liquidations[0, 0]) == (1, 1)
    assert lives.fill_price[0, 0] == pytest.approx(level, rel=1e-12)
    assert lives.residual[0, 0] == pytest.approx((0.9375 * level - 80) / 400, rel=1e-12)


def test_without_deductions_a_ladder_goes_by_the_entry_value_by_hand() -> None:
    """40 base from 100 on 400: 400 + 40·(P − 100) = 0.05·40·P at P = 3,600/38, worth 3,789 there, but 4,000 at entry.

    So half is kept, and charged 1 % from then on: 20 base, worth 400 − 40·(100 − P) at that level.
    """
    case = replace(TIERED, rule="without")
    lives = lives_by_hand([(100.0, 85.0, 90.0)], case, POLICIES["step 1"], 10.0)
    cut = 3_600 / 38
    level = (20 * cut - (400 - 40 * (100 - cut))) / 19.8
    assert (lives.outcome[0, 0], lives.partial_liquidations[0, 0]) == (1, 1)
    assert lives.fill_price[0, 0] == pytest.approx(level, rel=1e-12)


def test_a_scale_in_moves_the_liquidation_price_by_hand() -> None:
    """10 base from 100 on 100, no maintenance; 10 more at 95 on 95: 195 + 20·(P − 97.5) = 0 at P = 87.75.

    The next bar opens at 86, below it: filled there, 35 below 0, which the insurance fund loses.
    """
    policy, case = Policy(scale_in=ScaleIn(distance=(0.05,), multiple=(1.0,))), replace(PLAIN, rate=0.0)
    lives = lives_by_hand([(100.0, 93.0, 94.0)], case, policy, 10.0)
    assert lives.scale_ins[0, 0] == 1
    assert lives.added[0, 0] == pytest.approx(0.95, rel=1e-12)
    assert lives.liquidation_price[0, 0] == pytest.approx(87.75, rel=1e-12)
    lives = lives_by_hand([(100.0, 93.0, 94.0), (86.0, 85.0, 90.0)], case, policy, 10.0)
    assert (lives.outcome[0, 0], lives.end[0, 0]) == (1, 2)
    assert lives.liquidation_price[0, 0] == pytest.approx(87.75, rel=1e-12)
    assert lives.fill_price[0, 0] == 86.0
    assert lives.insurance[0, 0] == pytest.approx(-0.35, rel=1e-12)
