"""Extra margin, the posted fee to close, slopes, the surplus and scaled maintenance, examples worked by hand."""

import random
from dataclasses import replace
from math import inf, sqrt

import pytest

from tests.oracles.bars import first, flat, rows_of
from tests.oracles.position import fee_to_close
from tests.oracles.walk import Scenario, Tier, Verdict, grid_of, open_position, walk_one

# At p = 100: q = 10, M = 100, E = 10·P − 900.
LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000)
# In coin: Q = 1000, N = 10, M = 1, E = 11 − 1000·u.
COIN10 = replace(LONG10, contract="inverse")
TIERS = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, inf, 0.05, 40.0, 20))  # 1000·(0.05 − 0.01) = 40


def called(scenario: Scenario, *prices: float) -> list[bool]:
    """Whether a bar whose extremes are 100 and that price is a margin call."""
    bars = [(100.0, max(100.0, price), min(100.0, price), 100.0) for price in prices]
    return [first(scenario, flat(), bar).margin_call_bar == 1 for bar in bars]


def hit(scenario: Scenario, *prices: float) -> list[bool]:
    bars = [(100.0, max(100.0, price), min(100.0, price), 100.0) for price in prices]
    return [first(scenario, flat(), bar).liquidation_bar == 1 for bar in bars]


def level(scenario: Scenario, g: float = 1.0) -> float | None:
    """The liquidation price of a survivor under a maintenance scale of its last bar."""
    rows = rows_of(flat(), flat(), maintenance_scale=[1.0, g])
    return walk_one(grid_of(rows), scenario, 0, 1).liquidation_price


# ---------------------------------------------------------------- extra margin


def test_extra_margin_counts_as_margin_everywhere() -> None:
    # M = 150: E = 10·P − 850 = 0.1·P.
    extra = replace(LONG10, extra=50)
    verdict = first(extra, flat(), (100, 100, 85.8, 100))
    assert verdict.liquidation_price == pytest.approx(850 / 9.9)
    assert verdict.bankruptcy_price == pytest.approx(85)
    assert verdict.residual == pytest.approx(85 / 9.9 / 150)
    assert first(replace(extra, notional=None, margin=100), flat(), (100, 100, 85.8, 100)) == verdict
    # Coin: E = 11.5 − 1000·u = 10·u.
    coin = first(replace(COIN10, extra=0.5), flat(), flat())
    assert coin.liquidation_price == pytest.approx(1010 / 11.5)
    assert coin.bankruptcy_price == pytest.approx(1000 / 11.5)
    # Recovered is E above 150, that is a close above 100.
    wick = (100.0, 100.0, 80.0, 85.0)
    assert first(extra, flat(), wick, flat(100.1)).recovered
    assert not first(extra, flat(), wick, flat(100)).recovered
    # 1e-9 of 200: without maintenance E = 10·P − 800, reached at 80 + 2e-8.
    free = replace(LONG10, maintenance=0.0, extra=100)
    assert hit(free, 80.000000019, 80.000000021) == [True, False]
    with pytest.raises(ValueError, match="size"):
        level(replace(extra, notional=None))
    with pytest.raises(ValueError, match="extra"):
        level(replace(extra, extra=-1))


def test_extra_margin_and_rejection() -> None:
    assert first(replace(LONG10, leverage=100), flat(), flat()).rejected  # 10 − 0.01·1000 = 0
    assert not first(replace(LONG10, leverage=100, extra=1), flat(), flat()).rejected
    # The maximum leverage is that of the configured leverage, not of N/M = 1000/1050.
    tiered = replace(LONG10, maintenance=TIERS, leverage=101, extra=1000)
    assert first(tiered, flat(), flat()).rejected
    assert not first(replace(tiered, leverage=100), flat(), flat()).rejected


# ---------------------------------------------------------------- §5, Bybit UTA: the posted fee to close


def test_a_posted_fee_moves_the_margin_call_only() -> None:
    # f = 1000·0.9·0.001 = 0.9: 10·P − 900 + 0.9 = (0.1·P + 0.9)/0.8, P = 900.225/9.875 = 91.1620 (without 91.139).
    long = replace(LONG10, posted_fee=0.001)
    assert called(long, 900.225 / 9.875 + 1e-6, 900.225 / 9.875 - 1e-6) == [False, True]
    bar = (100.0, 100.0, 90.0, 90.0)
    assert first(long, flat(), bar) == first(LONG10, flat(), bar)
    # A short: f = 1000·1.1·0.001 = 1.1: 1100 − 10·P + 1.1 = (0.1·P + 1.1)/0.8, P = 1099.725/10.125 = 108.61.
    short = replace(long, side=-1)
    assert called(short, 1099.725 / 10.125 - 1e-6, 1099.725 / 10.125 + 1e-6) == [False, True]
    # Coin, long: f = 10·1.1·0.001 = 0.011: 11 − n + 0.011 = (0.01·n + 0.011)/0.8, n = 10.99725/1.0125.
    coin = replace(COIN10, posted_fee=0.001)
    assert called(coin, 1012.5 / 10.99725 + 1e-6, 1012.5 / 10.99725 - 1e-6) == [False, True]
    # Coin, a 2× short: M = 5, f = 10·0.5·0.001 = 0.005: n − 5 + 0.005 = (0.01·n + 0.005)/0.8, n = 5.00125/0.9875.
    coin = replace(coin, side=-1, leverage=2)
    assert called(coin, 987.5 / 5.00125 - 1e-6, 987.5 / 5.00125 + 1e-6) == [False, True]
    # Rejection as without: 1000/99 = 10.10 > 10, although 1 % of fee to close does not fit in.
    assert not first(replace(LONG10, leverage=99, posted_fee=0.01), flat(), flat()).rejected


def test_the_fee_to_close_below_one_times() -> None:
    long = replace(LONG10, leverage=0.5, posted_fee=0.001)
    assert fee_to_close(long, 1000) == pytest.approx(-1)  # 1000·(1 − 2)·0.001
    assert fee_to_close(replace(long, side=-1), 1000) == pytest.approx(3)
    assert fee_to_close(replace(long, contract="inverse"), 10) == pytest.approx(0.03)
    assert fee_to_close(replace(long, leverage=1), 1000) == 0


def test_extra_margin_under_a_posted_fee() -> None:
    # A/(1 − c) = 75/0.75 = 100: E = 10·P − 800, and 1e-9 is taken of N/L = 100: reached at 80 + 1e-8.
    odd = replace(LONG10, maintenance=0.0, extra=75, posted_fee=0.25)
    assert hit(odd, 80.000000009, 80.000000011) == [True, False]
    assert first(odd, flat(), flat()).bankruptcy_price == pytest.approx(80)
    # A short: 75/1.25 = 60: E = 1160 − 10·P = 0 at 116. Coin is the other way round: 0.75/1.25 = 0.6, 11.6 = 1000·u.
    assert level(replace(odd, side=-1)) == pytest.approx(116)
    coin = replace(odd, contract="inverse", extra=0.75)
    assert level(coin) == pytest.approx(1000 / 11.6)
    # A coin short of N = 10, L = 5: −8 + 0.75/0.75 + 1000·u = 0.
    assert level(replace(coin, side=-1, leverage=5)) == pytest.approx(1000 / 7)
    # What is left is a share of N/L + A/(1 − c) = 200. With 10 %: 10·P − 800 = P at 88.8…; the open of 85 leaves 50.
    gap = first(replace(odd, maintenance=0.1), flat(), flat(85))
    assert gap.residual == pytest.approx(50 / 200)


def test_published_examples_of_bybit() -> None:
    # exchanges.md: 1 BTC at 40,000, 50×, 3,000 added, 0.5 %, taker 0.055 %: to close 21.56, maintenance 221.56.
    uta = Scenario(1, 50, 0.005, notional=40_000, extra=3_000, posted_fee=0.00055)
    assert level(uta) is not None
    position = open_position(uta, 40_000)
    assert position.posted == pytest.approx(21.56)
    assert position.maintenance(40_000, 1) + position.posted == pytest.approx(221.56)
    verdict = first(uta, flat(40_000), flat(40_000))
    assert verdict.liquidation_price == pytest.approx(36_380.25, abs=0.005)
    # 60,000 contracts of one dollar short at 50,000, 10×: 1.2 BTC, 0.12 of margin, 55,277.78.
    coin = Scenario(-1, 10, 0.005, notional=60_000, contract="inverse", posted_fee=0.00055)
    assert first(coin, flat(50_000), flat(50_000)).liquidation_price == pytest.approx(55_277.78, abs=0.005)


def test_the_margin_call_of_a_posted_fee_as_one_inequality() -> None:
    # §5: (1 − 1e-9 ± s·c·κ)/L ≤ x + c·κ, + linear, − inverse, κ = 1/ratio − 1, x taken with MM/ratio.
    rng = random.Random(4)
    hits = 0
    for _ in range(300):
        side, contract = rng.choice([1, -1]), rng.choice(["linear", "inverse"])
        c, ratio, leverage = rng.uniform(0, 0.01), rng.uniform(0.3, 1), rng.uniform(0.5, 20)
        scenario = Scenario(side, leverage, 0.01, margin_call_ratio=ratio, contract=contract, posted_fee=c)
        worst = 100 * (1 - side * rng.uniform(0, 1.1 / leverage))
        if worst <= 0:
            continue
        verdict = first(scenario, flat(), (100.0, max(worst, 100.0), min(worst, 100.0), 100.0))
        if verdict.rejected:
            continue
        if contract == "linear":
            x, sign = ((0.01 / ratio - side) * worst + side * 100) / 100, 1
        else:
            x, sign = ((0.01 / ratio + side) / worst - side / 100) * 100, -1
        kappa = 1 / ratio - 1
        assert (verdict.margin_call_bar == 1) == ((1 - 1e-9 + sign * side * c * kappa) / leverage <= x + c * kappa)
        hits += verdict.margin_call_bar == 1
    assert 20 < hits < 280


# ---------------------------------------------------------------- §5, Deribit: slopes


def test_a_slope_linear() -> None:
    # q = 10 coin at any price: 0.01 + 0.001·10 = 0.02: 10·P − 900 = 0.2·P.
    sloped = replace(LONG10, slope=0.001)
    assert level(sloped) == pytest.approx(900 / 9.8)
    assert hit(sloped, 900 / 9.8 + 1e-6, 900 / 9.8 - 1e-6) == [False, True]
    assert called(sloped, 900 / 9.75 + 1e-6, 900 / 9.75 - 1e-6) == [False, True]  # 0.2/0.8 = 0.25
    # g is on the whole rate and not on the reserve: 2·0.02·10 + 0.0005·10 = 0.405.
    assert level(replace(sloped, close_reserve=0.0005), g=2) == pytest.approx(900 / 9.595)
    # By margin: M = 100 is N = 1000 as well. A short: 1100 − 10·P = 0.2·P.
    assert level(replace(sloped, notional=None, margin=100)) == pytest.approx(900 / 9.8)
    assert level(replace(sloped, side=-1)) == pytest.approx(1100 / 10.2)
    for wrong in ({"notional": None}, {"maintenance": TIERS}, {"basis": "entry"}):
        with pytest.raises(ValueError, match="slope"):
            level(replace(sloped, **wrong))  # type: ignore[arg-type]


def test_a_slope_inverse() -> None:
    # N = 10, M = 2.5, n = 1000·u: 12.5 − n = 0.0088·n², n = (√(1 + 50·0.0088) − 1)/0.0176 = 0.2/0.0176, P = 88.
    sloped = replace(COIN10, leverage=4, maintenance=0.0, slope=0.0088)
    assert level(sloped) == pytest.approx(88)
    assert hit(sloped, 88.0001, 87.9999) == [False, True]
    assert level(replace(sloped, slope=0.0044), g=2) == pytest.approx(88)
    # With a reserve of 0.1: 12.5 − 1.1·n = 0.0088·n², n = (√(1.21 + 0.44) − 1.1)/0.0176.
    assert level(replace(sloped, close_reserve=0.1)) == pytest.approx(17.6 / (sqrt(1.65) - 1.1))
    # The call: 12.5 − n = 0.011·n², n = (√1.55 − 1)/0.022.
    call = 22 / (sqrt(1.55) - 1)
    assert called(sloped, call + 1e-6, call - 1e-6) == [False, True]
    # A 2× short: n − 5 = 0.018·n²: n = (1 − 0.8)/0.036 = 50/9 at P = 180, and 50 at P = 20, on the other side.
    short = replace(sloped, side=-1, leverage=2, slope=0.018)
    assert level(short) == pytest.approx(180)
    assert hit(short, 179.9999, 180.0001, 10) == [False, True, False]  # of a short only the high is looked at
    # 1×: n = 0.018·n² only there, at n = 1/0.018 and P = 18, a fall: no rise reaches a level.
    assert level(replace(short, leverage=1)) is None
    # n − 5 = 4·0.018·n² nowhere: 1 − 20·0.072 < 0.
    assert level(short, g=4) is None


def test_the_initial_rate() -> None:
    # 10 coin: 0.02 + 0.005·10 = 0.07, 1/0.07 = 14.28…; maintenance 0 + 0.005·10 = 0.05 < 1/15.
    for base in (LONG10, COIN10):
        sloped = replace(base, maintenance=0.0, slope=0.005, initial_rate=0.02)
        rejected = [first(replace(sloped, leverage=x), flat(), flat()).rejected for x in (14, 15)]
        assert rejected == [False, True]
        # 10·(0.05 + 0.05) = 1 is allowed.
        assert not first(replace(sloped, initial_rate=0.05), flat(), flat()).rejected
    # Published: 2 % + 0.005 % per BTC are 3.75 % at 350 BTC.
    deribit = Scenario(1, 26, 0.01, notional=35_000_000, slope=0.00005, initial_rate=0.02)
    assert not first(deribit, flat(100_000), flat(100_000)).rejected
    assert first(replace(deribit, leverage=27), flat(100_000), flat(100_000)).rejected
    # Without a slope it is a maximum leverage, and needs no size.
    plain = replace(LONG10, initial_rate=0.1, notional=None)
    assert [first(replace(plain, leverage=x), flat(), flat()).rejected for x in (10, 10.01)] == [False, True]


# ---------------------------------------------------------------- §6: whose the surplus is


def test_surplus_and_insurance() -> None:
    # 2 %: the level is 91.83…; the open of 91 leaves E = 10 of 100, the fee 0.001·910 = 0.91.
    two = replace(LONG10, maintenance=0.02, liquidation_fee=0.001)
    fund = replace(two, surplus="fund")

    def shares(scenario: Scenario, price: float) -> tuple[float | None, float | None]:
        verdict = first(scenario, flat(), flat(price))
        return verdict.residual, verdict.insurance

    assert shares(two, 91) == (pytest.approx(0.0909), 0.0)
    assert shares(fund, 91) == (0.0, pytest.approx(0.0909))
    # At 80: E = −100, the fee 0.8.
    assert shares(two, 80) == (0.0, pytest.approx(-1.008))
    assert shares(fund, 80) == (0.0, pytest.approx(-1.008))
    assert shares(two, 100) == (None, None)
    # Coin at 90: E = 11 − 1000/90 = −0.11…, the fee 0.0111….
    assert shares(replace(two, contract="inverse"), 90) == (0.0, pytest.approx(11 - 1001 / 90))
    assert first(replace(two, leverage=50), flat(), flat()) == Verdict(0, 3_600_000, 100.0, rejected=True)
    with pytest.raises(ValueError, match="surplus"):
        level(replace(two, surplus="house"))


# ---------------------------------------------------------------- §2: g where it does not separate


def test_the_scale_multiplies_the_deduction_too() -> None:
    # N = 900, L = 3: q = 9, E = 1200 − 9·P = 2·(0.45·P − 40), P = 1280/9.9 = 129.29…, n = 1163.6 > 1000.
    short = Scenario(side=-1, leverage=3, maintenance=TIERS, notional=900)
    assert level(short, g=2) == pytest.approx(1280 / 9.9)
    bars = (flat(), (100, 1280 / 9.9 + 1e-6, 100, 100), (100, 1280 / 9.9 - 1e-6, 100, 100))
    grid = grid_of(rows_of(*bars, maintenance_scale=[1.0, 1.0, 2.0]))
    assert walk_one(grid, short, 0, 2).liquidation_bar is None
    grid = grid_of(rows_of(*bars, maintenance_scale=[1.0, 2.0, 1.0]))
    assert walk_one(grid, short, 0, 2).liquidation_bar == 1
    # The call: 1200 − 9·P = 2·(0.45·P − 40)/0.8, P = 1300/10.125 = 128.39…
    grid = grid_of(rows_of(flat(), (100, 128.4, 100, 100), maintenance_scale=[1.0, 2.0]))
    assert walk_one(grid, short, 0, 1).margin_call_bar == 1
    grid = grid_of(rows_of(flat(), (100, 128.3, 100, 100), maintenance_scale=[1.0, 2.0]))
    assert walk_one(grid, short, 0, 1).margin_call_bar is None
    # With a reserve of 1 %, not scaled: 1280 = 9.99·P. With g = 0 it is all there is: 1200 = 9.09·P.
    assert level(replace(short, close_reserve=0.01), g=2) == pytest.approx(1280 / 9.99)
    assert level(replace(short, close_reserve=0.01), g=0) == pytest.approx(1200 / 9.09)
    # At entry: N = 2000, g·(0.05·2000 − 40) = 60·g against M = 200: rejected from g = 3.33 on.
    long = replace(LONG10, maintenance=TIERS, notional=2000)
    for g, rejected in ((3.3, False), (3.4, True)):
        grid = grid_of(rows_of(flat(), flat(), maintenance_scale=[g, 1.0]))
        assert walk_one(grid, long, 0, 1).rejected == rejected


def test_the_scale_on_entry_basis() -> None:
    # MM = 2·10: 10·P − 900 = 20. The reserve of 0.0005·1000 is not scaled.
    entry = replace(LONG10, basis="entry")
    assert level(entry, g=2) == pytest.approx(92)
    assert level(replace(entry, close_reserve=0.0005), g=2) == pytest.approx(92.05)
    # With deductions: N = 2000, M = 200, MM = 1.5·(0.05·2000 − 40) = 90: 20·P − 1800 = 90.
    tiered = replace(entry, maintenance=TIERS, notional=2000)
    assert level(tiered, g=1.5) == pytest.approx(94.5)
    # Coin: 11 − 1000·u = 2·0.1.
    assert level(replace(entry, contract="inverse"), g=2) == pytest.approx(1000 / 10.8)
