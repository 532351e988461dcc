"""Events between crossings against the same rules resolved in every bar: not a bit may differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.config.models import Size
from backtest.engine.cohorts import Population
from backtest.engine.kernels.first_passage import FAN
from backtest.engine.kernels.policy_loop import RESULT, fill_maxima, first_at, simulate, walk_bar, write_result
from backtest.engine.policy_inputs import PolicyInputs, make_policy_inputs
from backtest.engine.policy_simulation import grid_openings, opening_records
from tests._support.histories import random_rows
from tests._support.policies import POLICIES, TABLES, Case, random_case, work_of
from tests.oracles.history import Rows


def every_bar(inputs: PolicyInputs, positions: np.ndarray, horizons: np.ndarray) -> np.ndarray:
    """What `simulate` writes, by resolving every bar."""
    bars, periods, lines, additions, _, _ = inputs.market
    rules, out = inputs.terms[0], np.zeros((positions.size, horizons.size), RESULT)
    for j, p in enumerate(positions):
        if p["rejected"]:
            continue
        closed = False
        t = int(p["bar"])
        for h, horizon in enumerate(horizons):
            end = int(min(p["bar"] + horizon, p["last"]))
            while not closed and t < end:
                t += 1
                closed = walk_bar(bars, rules, periods, lines, additions, p, t)
            write_result(bars, rules, periods, lines, p, end, out[j, h])
    return out


def assert_same(work: Population, case: Case, name: str, leverage: float) -> int:
    """How many positions had an event."""
    entries = grid_openings(work, slice(0, work.bars.size), leverage)
    scenario = case.scenario(POLICIES[name])
    inputs = make_policy_inputs(work, scenario, [entries])
    horizons = np.array(sorted(work.horizons))
    got = np.zeros((work.bars.size, horizons.size), RESULT)
    simulate(inputs.market, inputs.terms, opening_records(work, scenario, entries, inputs), horizons, got)
    want = every_bar(inputs, opening_records(work, scenario, entries, inputs), horizons)
    for field in RESULT.names or ():
        a, b = got[field], want[field]
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), (name, case, leverage, field)
    return int(((got["outcome"] > 0) | (got["margin_call"] > 0)).any(axis=1).sum())


@pytest.mark.parametrize("name", POLICIES)
def test_events_equal_every_bar(name) -> None:
    """Long histories, so that descents climb; entries far apart, so that each search has its own start."""
    happened = 0
    for seed in range(6):
        case = random_case(seed + 50)
        work = work_of(random_rows(seed, 1_800), case, [1_500, 400, 40, 3], [0.0], every=97)
        happened += assert_same(work, case, name, [1.5, 2.5, 5.0, 10.0][seed % 4])
    assert happened > 10


@pytest.mark.parametrize("rule", TABLES)
@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("contract", ["linear", "inverse"])
def test_positions_that_change_their_tier(rule, side, contract) -> None:
    """Sizes just below and above a cap, in either direction of the price, and changed by the policy."""
    happened = 0
    for seed, notional in enumerate((1_700.0, 2_200.0, 8_500.0, 11_000.0)):
        made = random_rows(seed + 20, 900)
        for basis in ("mark", "entry"):
            case = replace(Case(side=side, contract=contract, rule=rule, basis=basis), liquidation_fee=0.002)
            work = work_of(made, case, [400, 50], [0.0], every=53)
            face = notional * float(np.nanmedian(work.grid.entry_price)) if contract == "inverse" else notional
            case = replace(case, size=Size(notional=face))
            for name in ("none", "scale-in", "step 1", "fraction", "deleverage"):
                happened += assert_same(work, case, name, 2.0 + seed)
    assert happened > 10


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_found(seed) -> None:
    """Prices on a coarse grid and leverages whose levels lie on it: a level that is met exactly is met."""
    rng = np.random.default_rng(seed)
    close = 100.0 + np.cumsum(rng.integers(-2, 3, 700))
    close = 60.0 + np.abs(close - 60.0)
    opened = np.append(close[:1], close[:-1])
    high, low = np.maximum(opened, close) + rng.integers(0, 2, 700), np.minimum(opened, close) - 1.0
    columns = {"open": opened, "high": high, "low": low, "close": close}
    made = Rows(3_600_000, [3_600_000 * t for t in range(700)], **{k: v.tolist() for k, v in columns.items()})
    plain = Case(rate=0.0, open_fee=0.0, taker_fee=0.0, side="long" if seed % 2 else "short", ratio=1.0)
    case = replace(plain, contract="inverse" if seed % 3 == 0 else "linear")
    work = work_of(made, case, [350], [0.0], every=11)
    for name in ("none", "confirm 3", "stop", "bracket", "scale-in", "top-up", "stop of margin"):
        assert_same(work, case, name, [2.0, 4.0, 5.0, 10.0][seed % 4])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5 * FAN**2), st.integers(0, 10**6), st.integers(1, 4))
def test_first_in_a_tree_is_first_in_a_scan(n, seed, spread) -> None:
    rng = np.random.default_rng(seed)
    sizes = [n]
    while sizes[-1] > FAN:
        sizes.append(-(-sizes[-1] // FAN))
    level = np.cumsum([0, *sizes])
    forest = np.empty((2, level[-1]))
    forest[:, :n] = rng.integers(0, 10**spread, (2, n))
    fill_maxima(forest, level)
    for _ in range(20):
        start = int(rng.integers(0, n + 1))
        stop = int(rng.integers(start, n + 1))
        threshold = float(rng.integers(0, 10**spread + 1))
        hits = np.flatnonzero(forest[1, start:stop] >= threshold)
        want = start + int(hits[0]) if hits.size else stop
        assert first_at(forest, level, 1, start, stop, threshold) == want
