"""Path-dependent rules on random histories: the empty policy is the static walk, and laws that hold for any path."""

import random
from dataclasses import replace
from math import inf

import pytest

from tests._support.histories import random_rows
from tests.oracles.bars import HOUR
from tests.oracles.policies import Deleverage, Exit, Fraction, Life, Policy, ScaleIn, Step, TopUp, last_of, live
from tests.oracles.position import counted_extra
from tests.oracles.walk import Dated, Grid, Scenario, Tier, charge, grid_of, walk_one

ROWS = [random_rows(seed, 240) for seed in range(8)]
GRIDS = [grid_of(rows) for rows in ROWS]
TIERS = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, 2000, 0.02, 10.0, 50), Tier(2000, inf, 0.05, 70.0, 20))


def tiers_in(unit: float, deducted: bool, factor: float) -> tuple[Tier, ...]:
    """The table in another unit, with or without deductions, all its rates times a factor."""
    return tuple(
        Tier(t.floor * unit, t.cap * unit, t.mmr * factor, t.deduction * unit * factor if deducted else None, inf)
        for t in TIERS
        if t.deduction is not None
    )


def any_scenario(rng: random.Random) -> Scenario:
    contract = rng.choice(["linear", "inverse"])
    unit, deducted = (1 if contract == "linear" else 0.01), rng.random() < 0.5
    table = tiers_in(unit, deducted, 1)
    return Scenario(
        side=rng.choice([1, -1]),
        leverage=rng.choice([1, 5, 10, 18, 25, 45]),
        maintenance=rng.choice([0.01, table, Dated(((None, table), (100 * HOUR, tiers_in(unit, deducted, 1.5))))]),
        basis=rng.choice(["mark", "entry"]),
        close_reserve=rng.choice([0, 0.0005]),
        open_fee=rng.choice([0, 0.0005]),
        funding_scale=rng.choice([1, 3]),
        notional=rng.choice([900, 1100, 2500]),
        liquidation_slippage=rng.choice([0, 0.001]),
        liquidation_fee=rng.choice([0, 0.005]),
        contract=contract,
        extra=rng.choice([0, 5 * unit]),
        surplus=rng.choice(["trader", "fund"]),
        posted_fee=rng.choice([0, 0.00055, 0.01]),
    )


def any_policy(rng: random.Random) -> Policy:
    answer = rng.choice(
        [
            {},
            {"top_up": TopUp(0.5, rng.choice([0.1, 1]), 3, rng.choice([0, 2]))},
            {"deleverage": Deleverage(0.4, 2, rng.choice([0, 1]))},
        ]
    )
    return Policy(
        confirm_bars=rng.choice([0, 0, 1, 2]),
        ladder=rng.choice([None, Step(1), Step(2), Fraction(0.2, 8.0)]),
        stop_loss=rng.choice([None, None, Exit(0.06, on=rng.choice(["trigger", "last"])), Exit(0.7, "margin")]),
        take_profit=rng.choice([None, Exit(0.05), Exit(1.5, "margin", rng.choice(["trigger", "last"]))]),
        scale_in=rng.choice([None, ScaleIn((0.01, 0.03, 0.05), (1, 0.5, 2))]),
        **answer,
    )


def any_entry(rng: random.Random, grid: Grid) -> tuple[int, int]:
    horizon = rng.choice([5, 20, 80])
    return rng.choice([i for i in range(150) if grid.is_entry(i)]), horizon


def test_the_empty_policy_is_the_static_walk() -> None:
    rng, outcomes = random.Random(1), set()
    for _ in range(1200):
        grid, scenario = rng.choice(GRIDS), any_scenario(rng)
        (i, horizon), weight = any_entry(rng, grid), rng.choice([None, 0.7])
        verdict = walk_one(grid, scenario, i, horizon, weight)
        life = live(grid, scenario, Policy(), i, horizon, taker_fee=0.001, weight=weight)
        outcomes.add((life.outcome, life.margin_call_bar is not None, life.recovered))
        assert life.rejected == verdict.rejected
        assert life.margin_call_bar == verdict.margin_call_bar
        assert life.liquidation_bar == life.end_bar == verdict.liquidation_bar
        assert life.recovered == verdict.recovered
        assert (life.fill_price is None) == (verdict.fill_price is None)
        if verdict.fill_price is not None:  # the level is solved in another order: only rounding differs
            assert life.fill_price == pytest.approx(verdict.fill_price, rel=1e-12)
            assert life.residual == life.equity_end == pytest.approx(verdict.residual, abs=1e-11)
            assert life.insurance == pytest.approx(verdict.insurance, abs=1e-11)
    assert outcomes == {
        (None, False, False),
        ("survived", False, False),
        ("survived", True, False),
        ("liquidated", True, False),
        ("liquidated", True, True),
    }


def cash(grid: Grid, scenario: Scenario, life: Life, q: float, p: float, end: int) -> tuple[float, float]:
    """Profit at its fills, and funding bar by bar, of what the steps say was bought and sold."""
    inverse = scenario.contract == "inverse"
    lean = -scenario.side if inverse else scenario.side
    profit, funding, held = -lean * q * (1 / p if inverse else p), 0.0, q
    last_close = p
    for t in range(life.entry_bar + 1, end + 1):
        if life.end_bar is not None and t > life.end_bar:
            break
        funding += scenario.side * held * charge(grid, scenario, t)
        for _, kind, price, quantity in (step for step in life.steps if step[0] == t):
            v = 1 / price if inverse else price
            if kind in ("partial_liquidation", "deleverage", "liquidated", "stopped", "took_profit"):
                profit, held = profit + lean * quantity * v, held - quantity
            elif kind == "scale_in":
                profit, held = profit - lean * quantity * v, held + quantity
        close = grid.trigger_close[t]
        if close is not None:
            last_close = close
    return profit + lean * held * (1 / last_close if inverse else last_close), funding


def test_no_money_is_made_or_lost() -> None:
    # Margin + what was added + profit − funding − fees is what is left; each sum is made from the steps alone.
    rng, seen = random.Random(2), {}
    for _ in range(2500):
        k, scenario, policy = rng.randrange(len(GRIDS)), any_scenario(rng), any_policy(rng)
        grid, last = GRIDS[k], last_of(ROWS[k], GRIDS[k])
        i, horizon = any_entry(rng, grid)
        life = live(grid, scenario, policy, i, horizon, taker_fee=0.001, last=last)
        if life.rejected:
            continue
        p = grid.entry_price[i]
        assert p is not None
        assert scenario.notional is not None
        q = scenario.notional if scenario.contract == "inverse" else scenario.notional / p
        n = scenario.notional / p if scenario.contract == "inverse" else scenario.notional
        margin = n / scenario.leverage + counted_extra(scenario)
        profit, funding = cash(grid, scenario, life, q, p, i + horizon)
        left = life.equity_end + life.insurance
        assert left == pytest.approx(1 + life.added - life.fees + (profit - funding) / margin, abs=1e-9)
        counted = [kind for _, kind, _, _ in life.steps]
        assert counted.count("partial_liquidation") == life.partial_liquidations
        assert counted.count("scale_in") == life.scale_ins
        for kind in {*counted, life.outcome}:
            seen[kind] = seen.get(kind, 0) + 1
    assert min(seen.values()) > 50, seen
    assert len(seen) == 9, seen


def until(life: Life) -> float:
    return inf if life.liquidation_bar is None else life.liquidation_bar


def test_a_top_up_never_makes_liquidation_earlier() -> None:
    rng, later = random.Random(3), 0
    for _ in range(600):
        grid, scenario = rng.choice(GRIDS), any_scenario(rng)
        i, horizon = any_entry(rng, grid)
        top_up = TopUp(rng.choice([0.3, 0.7]), rng.choice([0.05, 2]), rng.choice([1, 4]), rng.choice([0, 3]))
        confirm = rng.choice([0, 2])
        without = live(grid, scenario, Policy(confirm), i, horizon, taker_fee=0.001)
        given = live(grid, scenario, Policy(confirm, top_up=top_up), i, horizon, taker_fee=0.001)
        assert until(given) >= until(without)
        assert given.margin_call_bar == without.margin_call_bar
        later += until(given) > until(without)
    assert later > 20


def test_a_deleveraging_that_frees_more_than_its_fee_never_makes_liquidation_earlier() -> None:
    # At 1 % and more of maintenance, 0.1 % of fee.
    rng, later = random.Random(4), 0
    for _ in range(600):
        grid, scenario = rng.choice(GRIDS), any_scenario(rng)
        i, horizon = any_entry(rng, grid)
        cut = Deleverage(rng.choice([0.2, 0.8]), rng.choice([1, 3]), rng.choice([0, 2]))
        without = live(grid, scenario, Policy(), i, horizon, taker_fee=0.001)
        given = live(grid, scenario, Policy(deleverage=cut), i, horizon, taker_fee=0.001)
        assert until(given) >= until(without)
        later += until(given) > until(without)
    assert later > 10


def test_the_first_breach_does_not_depend_on_the_ladder() -> None:
    rng, cut = random.Random(5), 0
    for _ in range(600):
        grid, scenario = rng.choice(GRIDS), any_scenario(rng)
        i, horizon = any_entry(rng, grid)
        without = live(grid, scenario, Policy(), i, horizon, taker_fee=0.001)
        ladder = live(grid, scenario, Policy(ladder=rng.choice([Step(1), Step(2)])), i, horizon, taker_fee=0.001)
        breaches = [(t, price) for t, kind, price, _ in ladder.steps if kind in ("partial_liquidation", "liquidated")]
        assert [t for t, _ in breaches[:1]] == ([] if without.end_bar is None else [without.end_bar])
        assert [price for _, price in breaches[:1]] == ([] if without.fill_price is None else [without.fill_price])
        cut += ladder.partial_liquidations > 0
    assert cut > 20


def test_a_stop_before_the_liquidation_price_ends_no_later() -> None:
    rng, stopped = random.Random(6), 0
    for _ in range(400):
        grid, scenario = rng.choice(GRIDS), replace(any_scenario(rng), maintenance=0.01)
        i, horizon = any_entry(rng, grid)
        without = live(grid, scenario, Policy(), i, horizon, taker_fee=0.001)
        given = live(grid, scenario, Policy(stop_loss=Exit(0.3, "margin")), i, horizon, taker_fee=0.001)
        if without.end_bar is not None:
            assert given.end_bar is not None
            assert given.end_bar <= without.end_bar
        if given.outcome == "liquidated":  # only what opened beyond the level, or paid funding until it was under
            assert given.end_bar == without.end_bar
        stopped += given.outcome == "stopped"
    assert stopped > 50
