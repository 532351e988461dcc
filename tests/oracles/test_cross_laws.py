"""What holds of every portfolio on one wallet (§8 of docs/semantics.md), on random histories."""

import random
from dataclasses import replace
from math import inf

import pytest

from tests._support.histories import random_rows
from tests.oracles.bars import HOUR
from tests.oracles.cross import CrossScenario, CrossVerdict, Maintenance, Prices, common, walk_cross
from tests.oracles.walk import Dated, Grid, Scenario, Tier, grid_of, walk

LINES = (Tier(0, 800, 0.004, 0.0, 75), Tier(800, 5000, 0.01, 4.8, 50), Tier(5000, inf, 0.03, 104.8, 20))


def random_portfolio(rng: random.Random, symbols: int) -> CrossScenario:
    """Terms of every kind; leverages that liquidate some of some days."""
    shares = [rng.uniform(0.2, 1) for _ in range(symbols)]
    plain = tuple(replace(tier, deduction=None) for tier in LINES)
    dated = Dated(((None, plain), (rng.randrange(100) * HOUR, (Tier(0, inf, 0.03, None, 30),))))
    rules: list[Maintenance] = [0.005, LINES, plain, dated]
    size = rng.choice(["notional", "margin"])
    return CrossScenario(
        weights=tuple(rng.choice([1, -1]) * share / sum(shares) for share in shares),
        leverage=rng.choice([10, 20, 30, 40, 55]),
        maintenance=tuple(rng.choice(rules) for _ in range(symbols)),
        basis=rng.choice(["mark", "entry"]),
        close_reserve=rng.choice([0.0, 0.0005]),
        open_fee=rng.choice([0.0, 0.001]),
        fees_from_margin=rng.random() < 0.8,
        funding_scale=rng.choice([0.0, 1.0, 2.0]),
        funding_shift=rng.choice([0.0, 0.0001]),
        notional=rng.choice([500.0, 3000.0]) if size == "notional" else None,
        margin=rng.choice([50.0, 300.0]) if size == "margin" else None,
        margin_call_ratio=rng.choice([0.5, 0.8]),
    )


def random_grids(seed: int, symbols: int, bars: int = 120) -> list[Grid]:
    starts = [None, 5 * HOUR, None]
    rows = [random_rows(100 * seed + k, bars, level=10.0 ** (k + 1)) for k in range(symbols)]
    return common([grid_of(each, start_ms=starts[k]) for k, each in enumerate(rows)])


@pytest.mark.parametrize("seed", range(12))
def test_one_symbol_is_an_isolated_position_whose_margin_is_the_wallet(seed: int) -> None:
    rng = random.Random(seed)
    terms = replace(random_portfolio(rng, 1), weights=(rng.choice([1.0, -1.0]),))
    isolated = Scenario(
        side=int(terms.weights[0]),
        leverage=terms.leverage,
        maintenance=terms.maintenance[0],
        basis=terms.basis,
        close_reserve=terms.close_reserve,
        open_fee=terms.open_fee,
        fees_from_margin=terms.fees_from_margin,
        funding_scale=terms.funding_scale,
        funding_shift=terms.funding_shift,
        notional=terms.notional,
        margin=terms.margin,
        margin_call_ratio=terms.margin_call_ratio,
    )
    grid = grid_of(random_rows(seed, 120))
    for horizon in (1, 24):
        alone, _ = walk(grid, isolated, horizon)
        expected = [CrossVerdict(v.entry_bar, v.rejected, v.margin_call_bar, v.liquidation_bar) for v in alone]
        assert walk_cross(common([grid]), terms, horizon) == expected


@pytest.mark.parametrize("seed", range(12))
def test_close_is_never_worse_than_worst(seed: int) -> None:
    terms = random_portfolio(random.Random(seed), 2 + seed % 2)
    grids = random_grids(seed, len(terms.weights))
    worst, close = (walk_cross(grids, terms, 24, verdict) for verdict in ("worst", "close"))
    for high, low in zip(worst, close, strict=True):
        assert (high.entry_bar, high.rejected) == (low.entry_bar, low.rejected)
        for upper, lower in ((high.margin_call_bar, low.margin_call_bar), (high.liquidation_bar, low.liquidation_bar)):
            assert lower is None or (upper is not None and upper <= lower)
        for each in (high, low):
            called, dead = each.margin_call_bar, each.liquidation_bar
            assert dead is None or (called is not None and called <= dead)


def test_the_random_portfolios_are_worth_walking() -> None:
    verdicts = []
    for seed in range(12):
        terms = random_portfolio(random.Random(seed), 2 + seed % 2)
        grids = random_grids(seed, len(terms.weights))
        verdicts += list(zip(*(walk_cross(grids, terms, 24, each) for each in ("worst", "close")), strict=True))
    assert sum(high.rejected for high, _ in verdicts) > 50
    assert sum(low.liquidation_bar is not None for _, low in verdicts) > 50
    assert sum(high.liquidation_bar is not None for high, _ in verdicts) > 50
    assert sum(high.liquidation_bar != low.liquidation_bar for high, low in verdicts) > 50
    assert sum(not high.rejected and high.liquidation_bar is None for high, _ in verdicts) > 50


@pytest.mark.parametrize("seed", range(6))
def test_a_symbol_split_into_legs_of_one_side_is_that_symbol(seed: int) -> None:
    # Flat rates: tiers would see the legs' own sizes. Sums in another order move a verdict only at 1e-15 of a tie.
    rng = random.Random(seed)
    side = rng.choice([1.0, -1.0])
    whole = replace(random_portfolio(rng, 1), weights=(side,), maintenance=(0.01,))
    parts = replace(whole, weights=(0.2 * side, 0.3 * side, 0.5 * side), maintenance=(0.01,) * 3)
    grid = grid_of(random_rows(seed, 120))
    for verdict in ("worst", "close"):
        assert walk_cross([grid] * 3, parts, 24, verdict) == walk_cross([grid], whole, 24, verdict)


def test_a_hedged_symbol_is_safe_at_the_closes_and_not_at_the_worst_prices() -> None:
    grid = grid_of(random_rows(3, 120))
    hedged = CrossScenario((0.5, -0.5), 60, (0.004, 0.004), open_fee=0.0005)
    assert not any(v.rejected or v.margin_call_bar for v in walk_cross([grid, grid], hedged, 24, "close"))
    assert any(v.liquidation_bar for v in walk_cross([grid, grid], hedged, 24))


@pytest.mark.parametrize("verdict", ["worst", "close"])
@pytest.mark.parametrize("seed", range(6))
def test_rejected_or_liquidated_is_monotone_in_leverage_at_fixed_notional(seed: int, verdict: str) -> None:
    terms = replace(random_portfolio(random.Random(seed), 2), notional=3000.0, margin=None)
    grids = random_grids(seed, 2)
    before: list[bool] | None = None
    for leverage in (2, 5, 10, 20, 40):
        walked = walk_cross(grids, replace(terms, leverage=leverage), 24, verdict, every_ms=2 * HOUR)
        lost = [v.rejected or v.liquidation_bar is not None for v in walked]
        assert before is None or all(now or not earlier for now, earlier in zip(lost, before, strict=True))
        before = lost


def rate_at(grids: list[Grid], terms: CrossScenario, i: int, t: int, prices: Prices) -> float:
    """§3, leg by leg: Σ |w_k|·(Z_k,t + z_k)/p_k, mark basis and flat rates."""
    x = 0.0
    for grid, weight, mmr, price in zip(grids, terms.weights, terms.maintenance, prices, strict=True):
        s, p, charged = (1 if weight > 0 else -1), grid.entry_price[i], 0.0
        assert p is not None
        assert isinstance(mmr, float)
        for rate, at in zip(grid.funding_rate[i + 1 : t + 1], grid.funding_price[i + 1 : t + 1], strict=True):
            if rate is not None and at is not None:
                charged += (terms.funding_scale * rate + terms.funding_shift) * at
        adverse = (mmr + terms.close_reserve - s) * price + s * charged
        x += abs(weight) * (adverse + s * p + terms.open_fee * p) / p
    return x


@pytest.mark.parametrize("seed", range(6))
def test_the_required_margin_rate_of_a_portfolio_is_the_weighted_sum_of_its_legs(seed: int) -> None:
    # (E − MM)/(L·W) = 1/L − Σ |w_k|·(Z_k,t + z_k)/p_k: rejected at the entry prices, liquidated at the bar's.
    terms = random_portfolio(random.Random(seed), 3)
    terms = replace(terms, maintenance=(0.004, 0.01, 0.02), basis="mark", fees_from_margin=True)
    grids = random_grids(seed, 3)
    line = (1 - 1e-9) / terms.leverage
    for verdict in ("worst", "close"):
        sides = [grid.trigger_low if w > 0 else grid.trigger_high for grid, w in zip(grids, terms.weights, strict=True)]
        if verdict == "close":
            sides = [grid.trigger_close for grid in grids]
        for found in walk_cross(grids, terms, 24, verdict, every_ms=4 * HOUR):
            i = found.entry_bar
            entered = [p for grid in grids if (p := grid.entry_price[i]) is not None]
            assert found.rejected == (line <= rate_at(grids, terms, i, i, entered))
            if found.rejected:
                continue
            hits = []
            for t in range(i + 1, i + 25):
                prices = [p for side in sides if (p := side[t]) is not None]
                if len(prices) == len(sides) and line <= rate_at(grids, terms, i, t, prices):
                    hits.append(t)
            assert found.liquidation_bar == (hits[0] if hits else None)
