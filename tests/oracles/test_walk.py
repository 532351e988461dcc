"""Examples worked by hand for the literal walk; section numbers are those of docs/semantics.md."""

import random
from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import HOUR, first, flat, rows_of
from tests.oracles.statistics import block_counts, count, span_of, survival, survival_km
from tests.oracles.walk import Rows, Scenario, Tier, Verdict, grid_of, walk, walk_one

LONG10 = Scenario(side=1, leverage=10, maintenance=0.01, notional=1000)  # at p = 100: q = 10, M = 100
TIERS = (Tier(0, 1000, 0.01, 0.0, 100), Tier(1000, inf, 0.05, 40.0, 20))  # 1000·(0.05 − 0.01) = 40


# ---------------------------------------------------------------- §1


def test_grid_keeps_missing_bars_and_runs_between_usable_ones() -> None:
    rows = Rows(
        HOUR,
        [0, HOUR, 4 * HOUR, 5 * HOUR],
        open=[1.0, 1.0, 1.0, 1.0],
        high=[None, 2.0, 2.0, None],
        low=[1.0, 1.0, 1.0, 1.0],
        close=[1.0, 1.5, 1.6, 1.7],
        maintenance_scale=[3.0, None, 2.0, 3.0],
    )
    grid = grid_of(rows)
    assert grid.open_time_ms == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]
    assert grid.entry_price == [1.5, None, None, 1.6]
    assert grid.scale == [1.0, 1.0, 1.0, 2.0]
    assert [grid.is_entry(t) for t in range(4)] == [True, False, False, True]
    assert span_of(grid) == 2
    assert grid_of(rows, end_ms=4 * HOUR).open_time_ms == [HOUR]
    with pytest.raises(ValueError, match="no bar"):
        grid_of(rows, start_ms=5 * HOUR)


def test_series_are_chosen_once_and_before_the_cut() -> None:
    # Mark has one value, in a bar that the cut removes: the trigger is mark all the same; nothing is left.
    rows = rows_of(flat(), flat(), mark_high=[9.0, None], mark_low=[8.0, None])
    assert grid_of(rows).trigger_low == [8.0]
    with pytest.raises(ValueError, match="no bar"):
        grid_of(rows, start_ms=HOUR)
    assert grid_of(rows, trigger="last", start_ms=HOUR).trigger_low == [100.0]
    # No last close in the history: the mark close is the entry price.
    marks = Rows(HOUR, [0], mark_high=[9.0], mark_low=[8.0], mark_close=[8.5])
    assert grid_of(marks).entry_price == [8.5]
    # A last close anywhere: a bar without one is no entry, although its mark close is known.
    both = Rows(HOUR, [0, HOUR], None, None, None, [None, 7.0], None, [9.0, 9.0], [8.0, 8.0], [8.5, 8.5])
    assert grid_of(both).open_time_ms == [HOUR]


def test_funding_price_falls_back_per_bar() -> None:
    bars = (flat(90), flat(100), flat(101), None, flat(103))
    grid = grid_of(rows_of(*bars, funding={0: 1.0, 1: 1.0, 2: 0.0, 3: 1.0, 4: 1.0}), start_ms=HOUR)
    assert grid.funding_rate == [None, 0.0, 1.0, 1.0]  # the charge of the grid's first bar is not read
    assert grid.funding_price == [None, 101.0, 101.0, 103.0]  # bar 3: the trigger close of bar 2
    # mark_open comes first, also where the trigger is last.
    marked = rows_of(flat(), flat(), funding={1: 1.0}, mark_open=[None, 99.0])
    assert grid_of(marked, trigger="last").funding_price == [None, 99.0]
    # The only earlier trigger close lies before the cut.
    rows = Rows(HOUR, [0, HOUR, 2 * HOUR], None, [5.0] * 3, [4.0] * 3, [None] * 3)
    rows = replace(rows, mark_close=[4.4, 4.5, 4.5], funding_rate=[None, 1.0, 1.0])
    with pytest.raises(ValueError, match="without any price"):
        grid_of(rows, trigger="last")  # no open, and the trigger (last) has no close at all
    rows = replace(rows, close=[4.2, None, None])
    with pytest.raises(ValueError, match="no bar"):
        grid_of(rows, trigger="last", start_ms=HOUR)  # the close is the entry price now, and the cut has none
    marks = Rows(HOUR, [0, HOUR, 2 * HOUR], close=[None, 5.0, 5.0], mark_high=[5.0] * 3, mark_low=[4.0] * 3)
    marks = replace(marks, mark_close=[4.4, None, None], funding_rate=[None, 1.0, 1.0])
    assert grid_of(marks, start_ms=HOUR).funding_price == [None, 4.4]


def test_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="close"):
        grid_of(rows_of((1.0, 1.0, 1.0, float("nan"))))


# ---------------------------------------------------------------- §2


def test_long_liquidated_by_a_wick() -> None:
    # E = MM: 100 + 10·(P − 100) = 0.01·10·P, 9.9·P = 900, P = 90.9090…
    verdict = first(LONG10, flat(), (100, 101, 90.91, 100), (98, 99, 90.90, 98))
    assert verdict.liquidation_bar == 2
    assert verdict.entry_time_ms == HOUR
    assert verdict.liquidation_price == pytest.approx(900 / 9.9)
    assert verdict.bankruptcy_price == pytest.approx(90)
    assert verdict.fill_price == pytest.approx(900 / 9.9)
    # E = MM at the fill = 0.1·P = 9.0909…, of a margin of 100.
    assert verdict.residual == pytest.approx(90 / 9.9 / 100)
    survivor = first(LONG10, flat(), (100, 101, 90.91, 100))
    assert survivor.liquidation_bar is None
    assert survivor.liquidation_price == pytest.approx(900 / 9.9)
    assert survivor.fill_price is None


def test_ties_are_inclusive_within_a_billionth_of_the_margin() -> None:
    free = replace(LONG10, maintenance=0.0)  # E = 10·(P − 90), threshold 1e-9·100 = 1e-7
    assert first(free, flat(), (100, 100, 90.0, 100)).liquidation_bar == 1
    assert first(free, flat(), (100, 100, 90.000000009, 100)).liquidation_bar == 1
    assert first(free, flat(), (100, 100, 90.000000011, 100)).liquidation_bar is None


def test_short_pays_funding_of_negative_sign() -> None:
    # q = 2, M = 100. −5 % and −7 % of F = 100: C = −5, then −12; a short's E falls by 2·5, then 2·12.
    short = Scenario(side=-1, leverage=2, maintenance=0.01, notional=200)
    bars = (flat(), (100, 140, 100, 100), (100, 140, 100, 100))
    # Bar 1 at 140: E = 100 − 80 − 10 = 10 > MM = 0.01·2·140 = 2.8. Bar 2: E = 100 − 80 − 24 = −4.
    verdict = first(short, *bars, funding={1: -0.05, 2: -0.07})
    assert verdict.liquidation_bar == 2
    # 100 − 2·(P − 100) − 24 = 0.02·P, P = 276/2.02 = 136.63…; the open of 100 is better, so no gap.
    assert verdict.fill_price == pytest.approx(276 / 2.02)
    assert first(short, *bars).liquidation_bar is None
    free = replace(short, funding_scale=0.0)
    assert first(free, *bars, funding={1: -0.05, 2: -0.07}).liquidation_bar is None
    # shift = 0.12 per charged bar: rates 0.07 and 0.05, the short is paid 2·7 and 2·12.
    shifted = first(replace(short, funding_shift=0.12), *bars, funding={1: -0.05, 2: -0.07})
    # 100 − 2·(P − 100) + 24 = 0.02·P
    assert shifted.liquidation_price == pytest.approx(324 / 2.02)
    # The shift falls on bars charged at rate 0 and on no others: C = 0.12·100 once.
    once = first(replace(short, funding_shift=0.12), *bars, funding={2: 0.0})
    assert once.liquidation_price == pytest.approx(324 / 2.02)


def test_one_times_shorts_get_liquidated() -> None:
    short = Scenario(side=-1, leverage=1, maintenance=0.0)
    assert first(short, flat(), (100, 200, 100, 100)).liquidation_bar == 1  # E = 100 − (200 − 100) = 0
    long = Scenario(side=1, leverage=1, maintenance=0.004)
    assert first(long, flat(), (100, 100, 0.01, 100)).liquidation_bar is None
    assert first(long, flat(), flat()).bankruptcy_price is None  # p·(1 − 1/1) = 0


def test_rejection() -> None:
    def rejected(scenario: Scenario, *, g: float = 1.0) -> bool:
        rows = rows_of(flat(), flat(), maintenance_scale=[g, 1.0])
        return walk_one(grid_of(rows), scenario, 0, 1).rejected

    assert rejected(replace(LONG10, leverage=125))  # 1/125 = 0.008 < 0.01
    assert rejected(replace(LONG10, leverage=100))  # the tie
    assert not rejected(replace(LONG10, leverage=99))
    assert rejected(replace(LONG10, leverage=99, open_fee=0.0005))  # 0.010101… − 0.0005 < 0.01
    assert not rejected(replace(LONG10, leverage=99, open_fee=0.0005, fees_from_margin=False))
    assert rejected(LONG10, g=10.0)  # 10·0.01 = 1/10, with g of the entry bar
    tiered = replace(LONG10, maintenance=TIERS)
    assert rejected(replace(tiered, leverage=21, notional=2000))  # above the maximum of the second tier, 20
    assert not rejected(replace(tiered, leverage=21, notional=1000 * (1 + 5e-10)))  # still the first tier
    capped = replace(LONG10, maintenance=(Tier(0, 1000, 0.01, 0.0, inf),))
    assert not rejected(replace(capped, notional=1000 * (1 + 5e-10)))
    assert rejected(replace(capped, notional=1000.01))
    assert rejected(replace(capped, notional=None, margin=100.001))  # N = M·L = 1000.01
    with pytest.raises(ValueError, match="size"):
        rejected(replace(tiered, notional=None))
    verdict = first(replace(LONG10, leverage=125), flat(), flat(50))
    assert verdict == Verdict(0, HOUR, 100.0, rejected=True)


def test_margin_call_before_liquidation() -> None:
    # Call: 100 + 10·(P − 100) = 0.1·P/0.8 = 0.125·P, P = 900/9.875 = 91.139…; liquidation at 90.909…
    bars = (flat(), (100, 100, 91.14, 100), (100, 100, 91.13, 100), (100, 100, 90.9, 100))
    verdict = first(LONG10, *bars)
    assert (verdict.margin_call_bar, verdict.liquidation_bar) == (2, 3)
    verdict = first(LONG10, *bars[:3])
    assert (verdict.margin_call_bar, verdict.liquidation_bar) == (2, None)


def test_maintenance_scale() -> None:
    # g = 2 in bar 2: 100 + 10·(P − 100) = 0.2·P, P = 900/9.8 = 91.836…
    bars = (flat(), (100, 100, 91, 100), (100, 100, 91.83, 100))
    grid = grid_of(rows_of(*bars, maintenance_scale=[None, 1.0, 2.0]))
    verdict = walk_one(grid, LONG10, 0, 2)
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(900 / 9.8)
    # The close reserve is not scaled: 0.2·P + 0.005·P; in bar 1, 0.105·P, P = 900/9.895 = 90.95…
    verdict = walk_one(grid, replace(LONG10, close_reserve=0.0005), 0, 2)
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(900 / 9.795)


def test_the_definition_of_the_required_margin_rate() -> None:
    # §3: liquidated before the horizon ⇔ (1 − 1e-9)/L ≤ x = (max Z + z)/p, mark basis and a flat rate.
    rng = random.Random(1)
    for _ in range(300):
        price, bars = 100.0, []
        for _ in range(12):
            close = price * rng.uniform(0.93, 1.07)
            low, high = min(price, close) * rng.uniform(0.97, 1), max(price, close) * rng.uniform(1, 1.03)
            bars.append((price, high, low, close))
            price = close
        rates = {t: rng.uniform(-0.01, 0.01) for t in range(12)}
        grid = grid_of(rows_of(*bars, funding=rates, maintenance_scale=[rng.uniform(0.5, 2) for _ in bars]))
        side, fee, reserve = rng.choice([1, -1]), rng.choice([0.0, 0.001]), rng.choice([0.0, 0.0005])
        scenario = Scenario(side, rng.uniform(1, 20), 0.005, close_reserve=reserve, open_fee=fee)
        p, paid, z = bars[0][3], 0.0, []
        for t in range(1, 12):
            paid += rates[t] * bars[t][0]
            worst = bars[t][2] if side > 0 else bars[t][1]
            z.append((grid.scale[t] * 0.005 + reserve - side) * worst + side * paid)
        x = (max(z) + side * p + fee * p) / p
        verdict = walk_one(grid, scenario, 0, 11)
        assert (verdict.liquidation_bar is not None) == ((1 - 1e-9) / scenario.leverage <= x)


# ---------------------------------------------------------------- §5


def test_a_deduction_tier_is_crossed() -> None:
    # A short of N = 900, L = 3: M = 300, q = 9. E = 300 − 9·(P − 100) = 1200 − 9·P.
    # Tier 2: 1200 − 9·P = 0.05·9·P − 40, P = 1240/9.45 = 131.21…, n = 1180.9 > 1000: it is in force.
    # Tier 1 alone: 1200 = 9.09·P, P = 132.01…
    short = Scenario(side=-1, leverage=3, maintenance=TIERS, notional=900)
    bars = (flat(), (100, 131.5, 100, 100))
    verdict = first(short, *bars)
    assert verdict.liquidation_bar == 1
    assert verdict.liquidation_price == pytest.approx(1240 / 9.45)
    # Without deductions the tier of the size at entry stays.
    plain = tuple(replace(tier, deduction=None) for tier in TIERS)
    verdict = first(replace(short, maintenance=plain), *bars)
    assert verdict.liquidation_bar is None
    assert verdict.liquidation_price == pytest.approx(1200 / 9.09)
    # A long falls back into tier 1. N = 1500, L = 2, M = 750, q = 15: 15·P − 750 = 0.01·15·P, n = 757.
    long = Scenario(side=1, leverage=2, maintenance=TIERS, notional=1500)
    assert first(long, flat(), flat()).liquidation_price == pytest.approx(750 / 14.85)
    # N = 2000 stays in tier 2: 20·P − 1000 = 0.05·20·P − 40, P = 960/19, n = 1010.5.
    assert first(replace(long, notional=2000), flat(), flat()).liquidation_price == pytest.approx(960 / 19)


def test_entry_basis() -> None:
    # MM = 0.01·1000 = 10 at any price: 100 + 10·(P − 100) = 10, P = 91.
    entry = replace(LONG10, basis="entry")
    verdict = first(entry, flat(), (100, 100, 91.01, 100), (100, 100, 91, 100))
    assert verdict.liquidation_bar == 2
    assert verdict.liquidation_price == pytest.approx(91)
    # With the closing fee on N: 10 + 0.5, P = 91.05.
    reserved = replace(entry, close_reserve=0.0005)
    assert first(reserved, flat(), flat()).liquidation_price == pytest.approx(91.05)
    # A rate of 0.001 on F = 100 costs 10·0.1: P = 91.1.
    assert first(entry, flat(), flat(), funding={1: 0.001}).liquidation_price == pytest.approx(91.1)


# ---------------------------------------------------------------- §6


def test_gap_fill_slippage_fee_and_residual() -> None:
    # 2 %: 9.8·P = 900, P = 91.83…; the bar opens at 91: fill 91, E = 100 − 90 = 10.
    two = replace(LONG10, maintenance=0.02)
    bars = (flat(), (91, 92, 90, 92))
    verdict = first(two, *bars)
    assert verdict.fill_price == 91
    assert verdict.residual == pytest.approx(0.10)
    # 1 % slippage: 90.09, E = 0.9; the fee 0.0005·10·90.09 = 0.45045.
    verdict = first(replace(two, liquidation_slippage=0.01, liquidation_fee=0.0005), *bars)
    assert verdict.fill_price == pytest.approx(90.09)
    assert verdict.residual == pytest.approx((0.9 - 0.45045) / 100)
    # Opens below the bankruptcy price: nothing is left, and no more than that.
    assert first(two, flat(), (80, 80, 80, 80)).residual == 0.0


def test_recovered() -> None:
    wick = (100.0, 100.0, 80.0, 85.0)
    assert first(LONG10, flat(), wick, flat(101)).recovered
    assert not first(LONG10, flat(), wick, flat(100)).recovered  # E = M is not above M
    assert first(LONG10, flat(), wick, flat(101), None, flat(101)).recovered
    # Funding of 0.02·101 = 2.02 after the liquidation: E = 100 + 10 − 20.2.
    assert not first(LONG10, flat(), wick, flat(101), funding={2: 0.02}).recovered
    assert not first(LONG10, flat(), flat(101)).recovered  # never liquidated
    # The last known close of the window is the one of bar 2; the charge kept in bar 3 comes after it.
    grid = grid_of(rows_of(flat(), wick, flat(101), None, flat(50), funding={3: 0.5}))
    assert walk_one(grid, LONG10, 0, 3).recovered


# ---------------------------------------------------------------- §1, §9 cohorts


def test_gaps_and_cohorts() -> None:
    bars = (flat(), flat(), None, None, flat(), flat(89))
    grid = grid_of(rows_of(*bars))
    verdicts, excluded = walk(grid, LONG10, 3)
    # Bars 0 and 1 are entries whose window fits (bar 2 is none, and bars 3 … 5 would reach past the grid).
    assert [verdict.entry_bar for verdict in verdicts] == [0, 1]
    assert excluded == 0
    # The window of bar 0 holds both missing bars, that of bar 1 as well.
    assert walk(grid, LONG10, 3, max_gap_bars=1) == ([], 2)
    assert walk(grid, LONG10, 3, max_gap_bars=2)[1] == 0
    # At horizon 2 only bar 2 of the gap lies inside the window of bar 0.
    verdicts, excluded = walk(grid, LONG10, 2, max_gap_bars=1)
    assert ([verdict.entry_bar for verdict in verdicts], excluded) == ([0], 1)
    assert [verdict.entry_bar for verdict in walk(grid, LONG10, 1, every_ms=2 * HOUR)[0]] == [0, 4]
    assert [verdict.entry_bar for verdict in walk(grid, LONG10, 1, entries=[1, 2, 4])[0]] == [1, 4]
    verdicts, excluded = walk(grid, replace(LONG10, leverage=100), 3, max_gap_bars=1)
    assert count(verdicts, excluded) == {
        "entries": 0, "rejected": 0, "excluded": 2, "margin_calls": 0, "liquidations": 0,
    }  # fmt: skip
    verdicts, excluded = walk(grid, LONG10, 1)
    # Entries 0, 1 (bar 2 is missing and cannot trigger) and 4, which falls to 89 < 90.9.
    assert count(verdicts, excluded) == {
        "entries": 3, "rejected": 0, "excluded": 0, "margin_calls": 1, "liquidations": 1,
    }  # fmt: skip


def test_km_on_three_horizons() -> None:
    # Six bars; 10x longs are liquidated some 9 % below their entry.
    bars = (flat(100), flat(93), (100, 100, 93, 100), (100, 100, 90, 93), (93, 93, 84.6, 85), flat(85))
    grid = grid_of(rows_of(*bars))
    cohorts = {h: walk(grid, LONG10, h)[0] for h in (1, 3, 5)}
    # Levels 0.90909·p: entries at 100 → 90.91, 93 → 84.55, 100 → 90.91, 93 → 84.55, 85 → 77.3.
    # Entry 0 is hit in bar 3, entry 1 never (84.6), entry 2 in bar 3, entry 3 never, entry 4 never.
    assert [v.liquidation_bar for v in walk(grid, LONG10, 1)[0]] == [None, None, 3, None, None]
    # h = 1: 4 of 5 alive. h = 3: cohort 0, 1, 2; alive at 1: 0, 1; alive at 3: 1. h = 5: cohort 0, dead by 3.
    km = survival_km(cohorts)
    assert km[1] == pytest.approx(4 / 5)
    assert km[3] == pytest.approx(4 / 5 * 1 / 2)
    assert km[5] == 0.0
    assert [survival(cohorts[h]) for h in (1, 3, 5)] == pytest.approx([4 / 5, 1 / 3, 0.0])
    assert survival_km({**cohorts, 6: []})[6] is None
    assert survival_km({1: [], 2: []}) == {1: None, 2: None}


def test_calendar_blocks() -> None:
    grid = grid_of(rows_of(*[flat()] * 5, flat(80), *[flat()] * 4))
    verdicts, _ = walk(grid, LONG10, 1, entries=[1, 2, 4, 8])
    # Blocks of 3 hours: bars 0–2, 3–5, 6–8. Entry 4 dies in bar 5.
    blocks = block_counts(verdicts, grid, 3 * HOUR)
    assert blocks == (0, [2, 1, 1], [2, 0, 1])
    blocks = block_counts([v for v in verdicts if v.entry_bar != 4], grid, 3 * HOUR)
    assert blocks == (0, [2, 0, 1], [2, 0, 1])
    assert block_counts([], grid, 3 * HOUR) == (0, [], [])
