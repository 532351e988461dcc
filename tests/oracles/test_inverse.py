"""Inverse contracts (§4 of docs/semantics.md), examples worked by hand; margin, tiers and losses are in coin."""

import random
from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import HOUR, Bar, first, flat, rows_of
from tests.oracles.walk import Dated, Scenario, Tier, grid_of, walk_one

# At p = 100: Q = 1000 quote, N = 10 coin, M = 1 coin; E = 1 + 1000·(0.01 − u) = 11 − 1000·u.
LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000, contract="inverse")
# In coin; 10·(0.05 − 0.01) = 0.4.
TIERS = (Tier(0, 10, 0.01, 0.0, 50), Tier(10, 20, 0.05, 0.4, 10))


def test_long_killed_by_a_fall() -> None:
    # 11 − 1000·u = 0.01·1000·u, u = 11/1010, P = p·L·(1 + mmr)/(L + 1) = 1010/11 = 91.8181…
    bars = (flat(), (100, 300, 91.82, 100), (98, 98, 91.81, 98))
    verdict = first(LONG10, *bars)
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(1010 / 11)
    assert verdict.fill_price == pytest.approx(1010 / 11)
    assert verdict.bankruptcy_price == pytest.approx(100 / 1.1)
    # E = MM at the fill = 10·11/1010 coin, of a margin of 1 coin.
    assert verdict.residual == pytest.approx(110 / 1010)
    survivor = first(LONG10, *bars[:2])
    assert (survivor.liquidation_bar, survivor.fill_price) == (None, None)
    assert survivor.liquidation_price == pytest.approx(1010 / 11)
    # Linear the same position falls further, to 90.909…
    assert first(replace(LONG10, contract="linear"), *bars).liquidation_bar is None
    # The call: 11 − 1000·u = 10·u/0.8, u = 11/1012.5, P = 92.04…
    called = first(LONG10, flat(), (100, 100, 92.05, 100), (100, 100, 92.04, 100))
    assert (called.margin_call_bar, called.liquidation_bar) == (2, None)
    # The reserve adds 0.0005·1000·u, and a scale of 2 doubles the first part only: 11 = 1020.5·u.
    grid = grid_of(rows_of(flat(), flat(), maintenance_scale=[1.0, 2.0]))
    scaled = walk_one(grid, replace(LONG10, close_reserve=0.0005), 0, 1)
    assert scaled.liquidation_price == pytest.approx(1020.5 / 11)


def test_entry_basis() -> None:
    # MM = 0.01·10 = 0.1 coin at any price: 11 − 1000·u = 0.1, P = p·L/(L + 1 − L·mmr) = 1000/10.9 = 91.74…
    entry = replace(LONG10, basis="entry")
    verdict = first(entry, flat(), (100, 100, 91.75, 100), (100, 100, 91.74, 100))
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(1000 / 10.9)
    # A short: E = 1 − 10 + 1000·u = 0.1, u = 0.0091.
    short = first(replace(entry, side=-1), flat(), (100, 109.89, 100, 100), (100, 109.9, 100, 100))
    assert short.liquidation_bar == 2
    assert short.liquidation_price == pytest.approx(1 / 0.0091)


def test_ties_are_inclusive_within_a_billionth_of_the_margin() -> None:
    # A 1× long without maintenance: E = 20 − 1000·u, M = 10, reached at u = 0.02·(1 − 5e-10), P = 50·(1 + 5e-10).
    free = replace(LONG10, leverage=1, maintenance=0.0)
    assert first(free, flat(), (100, 100, 50.0, 100)).liquidation_bar == 1
    assert first(free, flat(), (100, 100, 50 * (1 + 4e-10), 100)).liquidation_bar == 1
    assert first(free, flat(), (100, 100, 50 * (1 + 6e-10), 100)).liquidation_bar is None


def test_an_unleveraged_short_survives_any_rise() -> None:
    # M = N = 10: E = 10 − 1000·(0.01 − u) = 1000·u, MM = 10·u.
    short = replace(LONG10, side=-1, leverage=1)
    bars = (flat(), (100, 1e6, 100, 1e6))
    verdict = first(short, *bars)
    assert (verdict.margin_call_bar, verdict.liquidation_bar) == (None, None)
    assert (verdict.liquidation_price, verdict.bankruptcy_price) == (None, None)
    assert first(replace(short, contract="linear"), *bars).liquidation_bar == 1
    for p in (3.7, 0.00013, 61_234.5):  # no rounding leaves a level behind
        assert first(short, flat(p), flat(p)).liquidation_price is None
        assert first(replace(short, notional=None, margin=7.3), flat(p), flat(p)).liquidation_price is None
    # A fee of 0.0005·10 out of the margin: E = 1000·u − 0.005 = 10·u, P = 990/0.005 = 198 000.
    verdict = first(replace(short, open_fee=0.0005), *bars)
    assert verdict.liquidation_bar == 1
    assert verdict.liquidation_price == pytest.approx(198_000)
    assert first(replace(short, open_fee=0.0005, fees_from_margin=False), *bars).liquidation_bar is None
    # 2×: E = 5 − 10 + 1000·u = 10·u, P = 990/5 = 198; bankrupt at 100/(1 − 1/2) = 200.
    verdict = first(replace(short, leverage=2), flat(), (100, 197.9, 100, 100), (100, 198.1, 100, 100))
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(198)
    assert verdict.bankruptcy_price == pytest.approx(200)
    # A 1× long does get liquidated: 20 − 1000·u = 10·u, P = 50.5.
    verdict = first(replace(short, side=1), flat(), (100, 100, 50.4, 100))
    assert verdict.liquidation_bar == 1
    assert verdict.liquidation_price == pytest.approx(50.5)
    assert verdict.bankruptcy_price == pytest.approx(50)


def test_funding() -> None:
    def level(scenario: Scenario, *rates: float) -> float | None:
        # Charged at the opens, 100 in bar 1 and 200 in bar 2.
        bars = (flat(), (100, 100, 99, 99), (200, 200, 199, 199))
        return first(scenario, *bars, funding=dict(enumerate(rates, 1))).liquidation_price

    # 1000·0.01/100 = 0.1 coin: 10.9 = 1010·u.
    assert level(LONG10, 0.01) == pytest.approx(1010 / 10.9)
    # and 1000·0.01/200 = 0.05 coin more.
    assert level(LONG10, 0.01, 0.01) == pytest.approx(1010 / 10.85)
    # (0.5·0.01 + 0.002)/100 = 0.00007 and (0.5·0 + 0.002)/200 = 0.00001: 0.08 coin.
    assert level(replace(LONG10, funding_scale=0.5, funding_shift=0.002), 0.01, 0.0) == pytest.approx(1010 / 10.92)
    # On entry basis 11 − 0.1 − 1000·u = 0.1.
    assert level(replace(LONG10, basis="entry"), 0.01) == pytest.approx(1000 / 10.8)
    # A 2× short is paid: 5 − 10 + 1000·u + 0.1 = 10·u; or pays: the 0.1 is taken.
    short = replace(LONG10, side=-1, leverage=2)
    assert level(short, 0.01) == pytest.approx(990 / 4.9)
    assert level(short, -0.01) == pytest.approx(990 / 5.1)
    # Before the bar's extreme: at 92, E = 11 − 10.8696 = 0.1304 > MM = 0.1087, with funding 0.0304.
    bars = (flat(), (100, 100, 92, 100))
    assert first(LONG10, *bars).liquidation_bar is None
    assert first(LONG10, *bars, funding={1: 0.01}).liquidation_bar == 1


def test_gap_fill_slippage_fee_residual_and_recovery() -> None:
    # Opens at 91.5, below 91.818: E = 11 − 1000/91.5 = 0.071038…, fee 0.0005·1000/91.5, in coin, over M = 1.
    bars = (flat(), (91.5, 92, 91, 92))
    verdict = first(replace(LONG10, liquidation_fee=0.0005), *bars)
    assert verdict.fill_price == 91.5
    assert verdict.residual == pytest.approx(11 - 1000.5 / 91.5)
    # Twice the size leaves the same share.
    double = first(replace(LONG10, liquidation_fee=0.0005, notional=None, margin=2), *bars)
    assert double.residual == pytest.approx(11 - 1000.5 / 91.5)
    # 1 % of slippage: 90.585, below the bankruptcy price.
    verdict = first(replace(LONG10, liquidation_slippage=0.01), *bars)
    assert verdict.fill_price == pytest.approx(90.585)
    assert verdict.residual == 0.0
    # A short's worse price is the higher one: level 198, open 199, slipped up.
    short = replace(LONG10, side=-1, leverage=2, liquidation_slippage=0.001)
    assert first(short, flat(), (199, 199, 199, 199)).fill_price == pytest.approx(199 * 1.001)
    wick = (100.0, 100.0, 80.0, 85.0)
    assert first(LONG10, flat(), wick, flat(101)).recovered
    assert not first(LONG10, flat(), wick, flat(100)).recovered
    # 1000·(1/100 − 1/101) = 0.0990 coin gained, 1000·0.01/101 = 0.0990…: 0.02 in bar 2 takes twice that.
    assert not first(LONG10, flat(), wick, flat(101), funding={2: 0.02}).recovered


def test_deductions_and_caps_in_coin_at_a_fixed_face_value() -> None:
    # Q = 2000 quote: the size in coin is the entry's own.
    tiered = replace(LONG10, leverage=5, maintenance=TIERS, notional=2000)

    def rejected(p: float, leverage: float = 5) -> bool:
        return first(replace(tiered, leverage=leverage), flat(p), flat(p)).rejected

    assert not rejected(100)  # N = 20, the last cap itself
    assert not rejected(100 / (1 + 5e-10))  # within the slack
    assert rejected(99)  # N = 20.2
    assert not rejected(200, leverage=20)  # N = 10: the first tier, 50×
    assert rejected(199, leverage=20)  # N = 10.05: the second tier, 10×
    # The same 2000 quote linear are far beyond the last cap at any price.
    assert first(replace(tiered, contract="linear"), flat(200), flat(200)).rejected
    # p = 100: M = 4, E = 24 − 2000·u = 0.05·2000·u − 0.4, u = 24.4/2100; n = 23.2 is beyond the last cap.
    assert first(tiered, flat(), flat()).liquidation_price == pytest.approx(2100 / 24.4)
    # p = 200: M = 2, E = 12 − 2000·u = 100·u − 0.4, P = 169.35…, n = 11.8: it grew into the second tier.
    verdict = first(tiered, flat(200), (200, 200, 169.3, 200))
    assert verdict.liquidation_bar == 1
    assert verdict.liquidation_price == pytest.approx(2100 / 12.4)
    # Without deductions it stays in the first: 12 = 2020·u, P = 168.33…
    plain = replace(tiered, maintenance=tuple(replace(tier, deduction=None) for tier in TIERS))
    verdict = first(plain, flat(200), (200, 200, 169.3, 200))
    assert verdict.liquidation_bar is None
    assert verdict.liquidation_price == pytest.approx(2020 / 12)
    # p = 160, N = 12.5, M = 2.5: it starts in the second: 15 − 2000·u = 100·u.
    assert first(plain, flat(160), flat(160)).liquidation_price == pytest.approx(2100 / 15)
    # A 2× short of N = 12.5, M = 6.25 shrinks into the first: −6.25 + 2000·u = 20·u, n = 6.3.
    short = replace(tiered, side=-1, leverage=2)
    assert first(short, flat(160), flat(160)).liquidation_price == pytest.approx(1980 / 6.25)
    # Size as margin: 4 coin are N = 20 at any price, 4.1 coin are above the cap.
    by_margin = replace(tiered, notional=None, margin=4)
    assert first(by_margin, flat(), flat()).liquidation_price == pytest.approx(2100 / 24.4)
    assert not first(by_margin, flat(50), flat(50)).rejected
    assert first(replace(by_margin, margin=4.1), flat(500), flat(500)).rejected
    with pytest.raises(ValueError, match="size"):
        first(replace(tiered, notional=None), flat(), flat())


def test_rejection_under_water_at_entry() -> None:
    assert first(replace(LONG10, leverage=100), flat(), flat()).rejected  # 1/100 = 0.01, the tie
    assert not first(replace(LONG10, leverage=99), flat(), flat()).rejected
    assert first(replace(LONG10, leverage=99, open_fee=0.0005), flat(), flat()).rejected
    with pytest.raises(ValueError, match="contract"):
        first(replace(LONG10, contract="quanto"), flat(), flat())


def test_dated_tables_on_a_deduction_table() -> None:
    # N = 20, M = 4: E = 24 − 2000·u. From hour 2 on tier 2 has 10 % and D = 10·(0.10 − 0.01) = 0.9:
    # 24.9 = 2200·u, P = 88.35…; before that 86.06…
    raised = (TIERS[0], replace(TIERS[1], mmr=0.10, deduction=0.9))
    dated = replace(LONG10, leverage=5, notional=2000, maintenance=Dated(((None, TIERS), (2 * HOUR, raised))))
    verdict = first(dated, flat(), (100, 100, 88, 100), (100, 100, 88, 100))
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(2200 / 24.9)


def random_bars(rng: random.Random) -> list[Bar]:
    price, bars = 100.0, []
    for _ in range(12):
        close = price * rng.uniform(0.93, 1.07)
        low, high = min(price, close) * rng.uniform(0.97, 1), max(price, close) * rng.uniform(1, 1.03)
        bars.append((price, high, low, close))
        price = close
    return bars


def test_the_definition_of_the_required_margin_rate() -> None:
    # §3, §4: liquidated before the horizon ⇔ (1 − 1e-9)/L ≤ x = (max Z + z)/u_p; and flat verdicts know no size.
    rng = random.Random(2)
    hit = 0
    for _ in range(300):
        bars = random_bars(rng)
        rates = {t: rng.uniform(-0.01, 0.01) for t in range(12)}
        grid = grid_of(rows_of(*bars, funding=rates, maintenance_scale=[rng.uniform(0.5, 2) for _ in bars]))
        side, fee, reserve = rng.choice([1, -1]), rng.choice([0.0, 0.001]), rng.choice([0.0, 0.0005])
        leverage = rng.uniform(1, 20)
        scenario = Scenario(side, leverage, 0.005, close_reserve=reserve, open_fee=fee, contract="inverse")
        u_p, paid, z = 1 / bars[0][3], 0.0, []
        for t in range(1, 12):
            paid += rates[t] / bars[t][0]
            worst = bars[t][2] if side > 0 else bars[t][1]
            z.append((grid.scale[t] * 0.005 + reserve + side) / worst + side * paid)
        x = (max(z) - side * u_p + fee * u_p) / u_p
        verdict = walk_one(grid, scenario, 0, 11)
        hit += verdict.liquidation_bar is not None
        assert (verdict.liquidation_bar is not None) == ((1 - 1e-9) / leverage <= x)
        for size in ({"notional": 77.0}, {"margin": 3e5}):
            sized = walk_one(grid, replace(scenario, **size), 0, 11)  # type: ignore[arg-type]
            assert sized.liquidation_bar == verdict.liquidation_bar
            assert sized.margin_call_bar == verdict.margin_call_bar
            assert sized.liquidation_price == pytest.approx(verdict.liquidation_price, rel=1e-9)
            assert (sized.residual is None) == (verdict.residual is None)
            assert (sized.residual or 0) == pytest.approx(verdict.residual or 0, rel=1e-9, abs=1e-12)
            assert sized.recovered == verdict.recovered
    assert 50 < hit < 250


def test_at_the_level_the_balance_is_the_maintenance() -> None:
    # At either side of the level the verdicts differ, tiers, scale and funding included.
    rng = random.Random(3)
    for _ in range(200):
        side = rng.choice([1, -1])
        tiers = (Tier(0, 10, 0.01, 0.0, inf), Tier(10, 30, 0.02, 0.1, inf), Tier(30, inf, 0.05, 1.0, inf))
        basis, p = rng.choice(["mark", "entry"]), rng.uniform(50, 200)
        scenario = Scenario(side, rng.uniform(2, 9), tiers, basis, 0.0005, notional=2500, contract="inverse")
        rate, g = rng.uniform(-0.002, 0.002), rng.uniform(0.5, 1.5)

        def one(worst: float) -> tuple[int | None, float | None]:
            bar = (p, max(p, worst), min(p, worst), p)  # noqa: B023
            rows = rows_of(flat(p), bar, funding={1: rate}, maintenance_scale=[1.0, g])  # noqa: B023
            verdict = walk_one(grid_of(rows), scenario, 0, 1)  # noqa: B023
            return verdict.liquidation_bar, verdict.liquidation_price

        level = one(p)[1]
        assert level is not None
        for beyond, bar in ((-1e-7, None), (1e-7, 1)):
            hit, same = one(level * (1 - side * beyond))
            assert hit == bar
            assert same == pytest.approx(level)
