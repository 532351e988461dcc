"""Cross margin (§8 of docs/semantics.md), examples worked by hand."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest

from tests.oracles.bars import HOUR, Bar, flat, rows_of
from tests.oracles.cross import CrossScenario, CrossVerdict, common, walk_cross, walk_cross_one
from tests.oracles.walk import Dated, Grid, Tier, grid_of

# At 100 and 50: N = 0.5·4·100 = 200 each, 2 long and 4 short. E = 100 + 2·(A − 100) − 4·(B − 50), MM = 0.02·A + 0.04·B.
PAIR = CrossScenario(weights=(0.5, -0.5), leverage=4, maintenance=(0.01, 0.01), margin=100)
A, B = flat(100), flat(50)
PLAIN = (Tier(0, 150, 0.01, None, 100), Tier(150, inf, 0.05, None, 20))
LINES = (Tier(0, 150, 0.01, 0.0, 100), Tier(150, inf, 0.05, 6.0, 20))  # 150·(0.05 − 0.01) = 6


def grids_of(*legs: Sequence[Bar | None], funding: tuple[dict[int, float] | None, ...] = (None, None)) -> list[Grid]:
    """Hourly last prices of each leg."""
    return common([grid_of(rows_of(*bars, funding=rates)) for bars, rates in zip(legs, funding, strict=True)])


def first(
    scenario: CrossScenario,
    a: Sequence[Bar | None],
    b: Sequence[Bar | None],
    verdict: str = "worst",
    funding: tuple[dict[int, float] | None, ...] = (None, None),
) -> CrossVerdict:
    """The entry at the first bar's closes, held to the last bar."""
    return walk_cross_one(grids_of(a, b, funding=funding), scenario, 0, len(a) - 1, verdict)


def bars_hit(verdict: CrossVerdict) -> tuple[int | None, int | None]:
    return verdict.margin_call_bar, verdict.liquidation_bar


# ---------------------------------------------------------------- the common grid


def test_the_common_grid_runs_from_the_latest_first_to_the_earliest_last_bar() -> None:
    a = grid_of(rows_of(None, flat(1), flat(2), None, flat(4), funding={2: 0.1, 4: 0.2}))  # bars 1 … 4
    b = grid_of(rows_of(flat(10), flat(11), flat(12), flat(13), None, funding={2: 0.3, 3: 0.4}))  # bars 0 … 3
    cut_a, cut_b = common([a, b])
    assert cut_a.open_time_ms == cut_b.open_time_ms == [HOUR, 2 * HOUR, 3 * HOUR]
    assert cut_a.entry_price == [1, 2, None]  # a missing last bar keeps its place
    assert cut_b.trigger_low == [11, 12, 13]
    assert cut_a.funding_rate == [None, 0.1, None]
    assert cut_b.funding_rate == [None, 0.3, 0.4]
    assert cut_b.funding_price == [None, 12, 13]
    # Cut once more at the second bar, its charge is one in the first bar of the grid and falls on nobody.
    late = grid_of(rows_of(None, None, flat(1), flat(1)))
    assert common([b, late])[0].funding_rate == [None, 0.4]
    assert common([b, late])[0].funding_price == [None, 13]
    assert common([a]) == [a]
    assert common(common([a, b])) == [cut_a, cut_b]
    with pytest.raises(ValueError, match="no bar in common"):
        common([a, grid_of(rows_of(flat(1)))])
    with pytest.raises(ValueError, match="one interval"):
        common([a, replace(b, interval_ms=2 * HOUR)])


# ---------------------------------------------------------------- numbers worked by hand


def test_worst_takes_every_leg_at_its_own_worst_price() -> None:
    # 80, 60: E = 100 − 40 − 40 = 20 > 4.8. 75, 61.4: E = 100 − 50 − 45.6 = 4.4 > MM = 1.5 + 2.456 = 3.956,
    # but not above 3.956/0.8 = 4.945: a call. 75, 62: E = 2 < MM = 1.5 + 2.48 = 3.98.
    a = [A, (100.0, 900.0, 80.0, 100.0), (100.0, 100.0, 75.0, 100.0), (100.0, 100.0, 75.0, 100.0)]
    b = [B, (50.0, 60.0, 1.0, 50.0), (50.0, 61.4, 50.0, 50.0), (50.0, 62.0, 50.0, 50.0)]
    assert bars_hit(first(PAIR, a, b)) == (2, 3)
    assert bars_hit(first(PAIR, a[:3], b[:3])) == (2, None)
    assert bars_hit(first(PAIR, a[:2], b[:2])) == (None, None)
    # The closes have not moved.
    assert first(PAIR, a, b, "close") == CrossVerdict(0, rejected=False)


def test_close_takes_all_legs_at_the_close() -> None:
    # Both rise by 24 %: 100 + 48 − 48 = 100 at the closes; at 100 and 62 of the worst prices 100 − 48 = 52.
    a, b = [A, (100.0, 124.0, 100.0, 124.0)], [B, (50.0, 62.0, 50.0, 62.0)]
    assert bars_hit(first(PAIR, a, b, "close")) == bars_hit(first(PAIR, a, b)) == (None, None)
    # Closes of 75 and 62 liquidate, as above; those of 75 and 61.4 are a call.
    a, b = [A, (100.0, 100.0, 70.0, 75.0)], [B, (50.0, 63.0, 50.0, 62.0)]
    assert bars_hit(first(PAIR, a, b, "close")) == (1, 1)
    assert bars_hit(first(PAIR, a, [B, (50.0, 63.0, 50.0, 61.4)], "close")) == (1, None)
    assert bars_hit(first(PAIR, a, [B, (50.0, 63.0, 50.0, 61.4)])) == (1, 1)


def test_ties_are_inclusive_within_a_billionth_of_the_wallet() -> None:
    free = replace(PAIR, maintenance=(0.0, 0.0))  # E = 2·(A − 75) at B = 62.5, threshold 1e-7
    b = [B, (50.0, 62.5, 50.0, 50.0)]
    assert first(free, [A, (100.0, 100.0, 75.0, 100.0)], b).liquidation_bar == 1
    assert first(free, [A, (100.0, 100.0, 75.0 + 4e-8, 100.0)], b).liquidation_bar == 1
    assert first(free, [A, (100.0, 100.0, 75.0 + 6e-8, 100.0)], b).liquidation_bar is None


def test_size_is_the_gross_notional_or_the_wallet() -> None:
    a, b = [A, (100.0, 100.0, 75.0, 100.0)], [B, (50.0, 62.0, 50.0, 50.0)]
    dead, alive = replace(PAIR, maintenance=(0.01, 0.01)), replace(PAIR, maintenance=(0.004, 0.004))
    for margin, notional in ((100.0, None), (None, 400.0), (None, None)):
        # E = 2 of a wallet of 100 against MM = 3.98, or at 0.4 % 1.592: the wallet of N = 400 is 400/4.
        assert bars_hit(first(replace(dead, margin=margin, notional=notional), a, b)) == (1, 1)
        assert bars_hit(first(replace(alive, margin=margin, notional=notional), a, b)) == (None, None)


def test_fees_are_paid_out_of_the_wallet() -> None:
    # 75, 61.4: E = 4.4, MM = 3.956; a fee of 0.002·200 for each leg leaves 3.6.
    a, b = [A, (100.0, 100.0, 75.0, 100.0)], [B, (50.0, 61.4, 50.0, 50.0)]
    assert first(PAIR, a, b).liquidation_bar is None
    assert first(replace(PAIR, open_fee=0.002), a, b).liquidation_bar == 1
    assert first(replace(PAIR, open_fee=0.001), a, b).liquidation_bar is None  # 4.0
    assert first(replace(PAIR, open_fee=0.002, fees_from_margin=False), a, b).liquidation_bar is None


def test_the_closing_fee_and_the_basis() -> None:
    # 75, 61.4: E = 4.4, MM = 3.956 + 0.002·(150 + 245.6) = 4.7472.
    a, b = [A, (100.0, 100.0, 75.0, 100.0)], [B, (50.0, 61.4, 50.0, 50.0)]
    assert first(replace(PAIR, close_reserve=0.002), a, b).liquidation_bar == 1
    assert first(replace(PAIR, close_reserve=0.001), a, b).liquidation_bar is None  # 4.3516
    # On entry basis MM = 0.01·400 = 4 at any price, with the fee 4.8.
    entry = replace(PAIR, basis="entry")
    assert first(entry, a, b).liquidation_bar is None
    assert first(replace(entry, close_reserve=0.002), a, b).liquidation_bar == 1
    # 75, 61.49: E = 4.04 > 4; 61.51: E = 3.96 < 4, at the mark MM = 3.9604.
    assert first(entry, a, [B, (50.0, 61.49, 50.0, 50.0)]).liquidation_bar is None
    assert first(entry, a, [B, (50.0, 61.5005, 50.0, 50.0)]).liquidation_bar == 1


def test_funding_of_each_leg() -> None:
    # E = 4.4 at 75 and 61.4. The long pays 0.01·100 on 2: 2; the short gets 0.01·50 on 4: 2.
    a, b = [A, A, (100.0, 100.0, 75.0, 100.0)], [B, B, (50.0, 61.4, 50.0, 50.0)]

    def dead(of_a: dict[int, float] | None, of_b: dict[int, float] | None, **terms: float) -> bool:
        return first(replace(PAIR, **terms), a, b, funding=(of_a, of_b)).liquidation_bar == 2  # type: ignore[arg-type]

    assert not dead(None, None)
    assert dead({1: 0.01}, None)
    assert dead({2: 0.01}, None)  # charged before the bar's extreme
    assert not dead({1: 0.01}, {2: 0.01})
    assert dead(None, {1: -0.01})
    assert not dead({0: 0.01}, None)  # in the entry bar
    assert not dead({1: 0.01}, None, funding_scale=0.1)  # 0.2
    # A shift of 0.004 once per charged bar: the long pays 0.8 in one bar, and 0.8 more in the next.
    assert dead({1: 0.0}, None, funding_shift=0.004)
    assert not dead({1: 0.0}, {1: 0.0}, funding_shift=0.004)
    assert dead({1: 0.0, 2: 0.0}, {1: 0.0}, funding_shift=0.004)


def test_each_leg_has_its_own_rate_table_and_scale() -> None:
    # 75 and 61.4, n = 150 and 245.6, E = 4.4; at 1 % and 0 %: 1.5; at 0 % and 2 %: 4.912.
    a, b = [A, (100.0, 100.0, 75.0, 100.0)], [B, (50.0, 61.4, 50.0, 50.0)]

    def dead(of_a: float | tuple[Tier, ...] | Dated, of_b: float | tuple[Tier, ...] | Dated) -> bool:
        return first(replace(PAIR, maintenance=(of_a, of_b)), a, b).liquidation_bar == 1

    assert not dead(0.01, 0.0)
    assert dead(0.0, 0.02)
    # Without deductions the tier of N = 200 stays, 5 %: 0.05·150 = 7.5. With them 0.01·150 = 0.05·150 − 6 = 1.5,
    # and the short has grown: 0.05·245.6 − 6 = 6.28.
    assert dead(PLAIN, 0.0)
    assert not dead(LINES, 0.0)
    assert dead(0.0, LINES)
    # A table that changes in bar 1, for one leg; the range must not start before its first date.
    low = (Tier(0, inf, 0.01, None, 100),)
    assert not dead(Dated(((None, low), (2 * HOUR, PLAIN))), 0.0)
    assert dead(Dated(((None, low), (HOUR, PLAIN))), 0.0)
    with pytest.raises(ValueError, match="in force"):
        dead(Dated(((HOUR, PLAIN),)), 0.0)
    # A scale of 2 in bar 1 for the second leg alone: 1.5 + 2·2.456 = 6.412.
    plain, scaled = grid_of(rows_of(*a)), grid_of(rows_of(*b, maintenance_scale=[1.0, 2.0]))
    assert walk_cross_one(common([plain, scaled]), PAIR, 0, 1).liquidation_bar == 1


def test_rejection() -> None:
    def rejected(**terms: object) -> bool:
        scenario = replace(PAIR, **terms)  # type: ignore[arg-type]
        verdicts = [first(scenario, [A, A], [B, B], each).rejected for each in ("worst", "close")]
        assert verdicts[0] == verdicts[1]
        return verdicts[0]

    # W = 100 and MM = 0.01·400·k: 25 % of the notional is the wallet.
    assert not rejected(maintenance=(0.25, 0.2499))
    assert rejected(maintenance=(0.25, 0.25))  # the tie
    assert rejected(maintenance=(0.4, 0.1))
    assert rejected(maintenance=(0.25, 0.2499), open_fee=0.001)
    # 20 is the most in the tier that holds N_k = 200, whatever the other leg may have; 150·(1 + 5e-10) is tier 1.
    assert rejected(leverage=21, margin=200 / 10.5, maintenance=(0.001, PLAIN))
    assert rejected(leverage=21, margin=200 / 10.5, maintenance=(PLAIN, 0.001))
    assert not rejected(leverage=20, margin=20, maintenance=(PLAIN, LINES))  # MM = 10 + 4 < 20
    assert not rejected(leverage=21, margin=None, notional=300 * (1 + 5e-10), maintenance=(PLAIN, PLAIN))
    # The tier is that of the leg, not of the gross notional; and so is the last cap.
    capped = (Tier(0, 200, 0.01, None, inf),)
    assert not rejected(maintenance=(capped, capped))
    assert rejected(maintenance=(capped, capped), weights=(0.6, -0.4))
    assert rejected(maintenance=(capped, capped), weights=(-0.4, 0.6))


def test_a_bar_triggers_where_every_leg_has_prices() -> None:
    crash: Bar = (50.0, 50.0, 10.0, 50.0)
    # The second leg has no prices in bar 1: the first one's crash there is not seen. Funding is charged all the same.
    assert first(PAIR, [A, crash, A], [B, None, B]).liquidation_bar is None
    assert first(PAIR, [A, crash, A], [B, B, B]).liquidation_bar == 1
    edge: Bar = (50.0, 61.4, 50.0, 50.0)
    a = [A, None, (100.0, 100.0, 75.0, 100.0)]
    assert first(PAIR, a, [B, B, edge]).liquidation_bar is None
    assert first(PAIR, a, [B, B, edge], funding=(None, {1: -0.01})).liquidation_bar == 2
    # A bar without a close has prices for worst and none for close.
    low = grid_of(rows_of(A, (75.0, 75.0, 75.0, 75.0), A))
    high = grid_of(rows_of(B, (62.0, 62.0, 62.0, 62.0), B))
    holed = replace(high, trigger_close=[50.0, None, 50.0])
    assert walk_cross_one([low, high], PAIR, 0, 2, "close").liquidation_bar == 1
    assert walk_cross_one([low, holed], PAIR, 0, 2, "close").liquidation_bar is None
    assert walk_cross_one([low, holed], PAIR, 0, 2).liquidation_bar == 1


def test_the_cohort() -> None:
    grids = grids_of([A, A, None, A, A], [B, B, B, None, B])
    assert [verdict.entry_bar for verdict in walk_cross(grids, PAIR, 1)] == [0, 1]
    assert [verdict.entry_bar for verdict in walk_cross(grids, PAIR, 4)] == [0]
    assert [verdict.entry_bar for verdict in walk_cross(grids, PAIR, 1, "close", every_ms=2 * HOUR)] == [0]
    assert walk_cross(grids, PAIR, 5) == []


def test_what_is_refused() -> None:
    grids = grids_of([A, A], [B, B])
    with pytest.raises(ValueError, match="2 grids for 1 weights"):
        walk_cross(grids, CrossScenario((1.0,), 4, (0.01,)), 1)
    with pytest.raises(ValueError, match="common"):
        walk_cross([grids[0], grid_of(rows_of(B))], PAIR, 1)
    with pytest.raises(ValueError, match="verdict"):
        walk_cross(grids, PAIR, 1, "open")
    for weights in ((0.5, 0.4), (1.0, 0.0), (0.5, float("nan"))):
        with pytest.raises(ValueError, match="weights"):
            replace(PAIR, weights=weights)
    with pytest.raises(ValueError, match="1 maintenances for 2 weights"):
        replace(PAIR, maintenance=(0.01,))
    with pytest.raises(ValueError, match="size"):
        replace(PAIR, margin=None, maintenance=(PLAIN, 0.01))
    with pytest.raises(ValueError, match="not both"):
        replace(PAIR, notional=400)
    with pytest.raises(ValueError, match="basis"):
        replace(PAIR, basis="index")
