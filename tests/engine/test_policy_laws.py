"""What holds of path-dependent rules whatever the history, and what joins them to the static path."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from backtest.config.models import Size
from backtest.config.policies import Deleverage, Ladder, Policy, TopUp
from backtest.engine.adverse_series import split_by_table
from backtest.engine.crossings import first_crossings
from backtest.engine.policy_inputs import make_policy_inputs
from backtest.engine.policy_simulation import SimulatedPositions, grid_openings, simulate_policy
from backtest.errors import ConfigError
from tests._support.histories import random_rows
from tests._support.policies import NO_FUNDING, POLICIES, Case, assert_equal, random_case, work_of


@pytest.mark.parametrize("seed", range(24))
def test_the_empty_policy_is_the_static_path(seed) -> None:
    case = random_case(seed)
    work = work_of(random_rows(seed, 900), case, [200, 12, 1], [1.0, 2.0, 5.0, 9.0, 20.0, 45.0])
    chunk = slice(0, work.bars.size)
    for policy in (None, Policy()):
        for part in split_by_table(work, case.scenario(None).maintenance, chunk):
            found = first_crossings(work, case.scenario(None), part)
            for j, leverage in enumerate(work.leverages):
                lives = simulate_policy(work, case.scenario(policy), part, float(leverage))
                assert (lives.rejected == found.rejected[..., j]).all()
                if lives.rejected.any():
                    continue
                for k, horizon in enumerate(work.horizons):
                    whole = work.bars[part] + horizon < work.grid.n_bars
                    for got, want in ((lives.end, found.liquidation), (lives.margin_call, found.margin_call)):
                        hits = np.where(want[:, j] <= horizon, want[:, j], 0)
                        assert (got[whole, k] == hits[whole]).all()
                    assert ((lives.outcome[whole, k] == 1) == (lives.end[whole, k] > 0)).all()


def test_a_stage_serves_all_leverages_and_chunks_change_nothing() -> None:
    case = Case(rule="dated with", size=Size(margin=700.0), side="short", liquidation_fee=0.01)
    scenario = case.scenario(POLICIES["everything"])
    work = work_of(random_rows(5, 500), case, [10, 60], [2.0, 6.0, 18.0])
    whole = slice(0, work.bars.size)
    inputs = make_policy_inputs(work, scenario, [grid_openings(work, whole, float(x)) for x in work.leverages])
    for leverage in work.leverages:
        alone = simulate_policy(work, scenario, whole, float(leverage))
        assert_equal(simulate_policy(work, scenario, whole, float(leverage), inputs=inputs), alone)
        parts = [simulate_policy(work, scenario, chunk, float(leverage)) for chunk in work.chunks(97)]
        for name, values in vars(alone).items():
            joined = np.concatenate([getattr(part, name) for part in parts])
            # Funding is summed from each chunk's own start: amounts are equal to rounding.
            close = np.allclose(joined, values, rtol=1e-10, atol=1e-12, equal_nan=values.dtype.kind == "f")
            assert close if values.dtype.kind == "f" else (joined == values).all(), name


def death(lives: SimulatedPositions) -> np.ndarray:
    """Bars to the liquidation; never is later than any."""
    return np.where(lives.outcome == 1, lives.end, np.iinfo(np.int32).max)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("delay", [0, 3])
def test_a_top_up_never_makes_liquidation_earlier(seed, delay) -> None:
    case = random_case(seed)
    work = work_of(random_rows(seed, 700), case, [150], [3.0, 8.0, 15.0])
    chunk = slice(0, work.bars.size)
    topped = Policy(top_up=TopUp(target_ratio=0.5, reserve=1.0, max_times=3, delay_bars=delay))
    for leverage in work.leverages:
        without, given = (simulate_policy(work, case.scenario(p), chunk, float(leverage)) for p in (None, topped))
        assert (death(given) >= death(without)).all()
        assert ((death(given) == death(without)) | (given.top_ups > 0)).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_deleveraging_that_frees_more_than_its_fee_never_makes_liquidation_earlier(seed) -> None:
    """Maintenance 0.6 % of what is closed, a fee of 0.5 %; funding aside, which a smaller position gets less of."""
    case = replace(random_case(seed), rule="flat", rate=0.006, taker_fee=0.005, basis="mark", funding=NO_FUNDING)
    work = work_of(random_rows(seed, 700), case, [150], [3.0, 8.0, 15.0])
    chunk = slice(0, work.bars.size)
    reduced = Policy(deleverage=Deleverage(fraction=0.4, max_times=4, delay_bars=1))
    for leverage in work.leverages:
        without, given = (simulate_policy(work, case.scenario(p), chunk, float(leverage)) for p in (None, reduced))
        assert (death(given) >= death(without)).all()
        assert ((death(given) == death(without)) | (given.deleverages > 0)).all()


def test_more_confirmation_never_liquidates_earlier() -> None:
    case = random_case(2)
    work = work_of(random_rows(2, 700), case, [150], [8.0])
    chunk = slice(0, work.bars.size)
    deaths = [death(simulate_policy(work, case.scenario(Policy(confirm_bars=m)), chunk, 8.0)) for m in (0, 1, 2, 5)]
    for sooner, later in pairwise(deaths):
        assert (sooner <= later).all()


def test_what_no_text_describes_is_refused() -> None:
    case = Case(size=Size(notional=1_500.0))
    work = work_of(random_rows(0, 100), case, [5], [3.0])
    plain = case.scenario(Policy())
    scaled = replace(work, grid=replace(work.grid, scale=np.full(work.grid.n_bars, 2.0)))
    for where, scenario, told in (
        (work, replace(plain, maintenance=replace(plain.maintenance, slope=0.1)), "slopes with size"),
        (scaled, plain, "is scaled"),
    ):
        with pytest.raises(ConfigError, match=told):
            simulate_policy(where, scenario, slice(0, 5), 3.0)
    with pytest.raises(ConfigError, match="above must be > 0 with fraction"):
        Ladder(fraction=0.2)


def test_no_entries_have_no_lives() -> None:
    case = Case(size=Size(notional=1_500.0))
    work = work_of(random_rows(0, 100), case, [5, 9], [3.0])
    entries = grid_openings(work, slice(0, 0), 3.0)
    lives = simulate_policy(work, case.scenario(POLICIES["everything"]), slice(0, 0), 3.0, entries=entries)
    assert lives.rejected.shape == (0,)
    assert all(values.shape == (0, 2) for name, values in vars(lives).items() if name != "rejected")
