"""Intervals of Kaplan–Meier curves against lifelines and statsmodels, numbers worked by hand, and laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.errors import ConfigError, DataError
from backtest.stats.binomial_interval import survival_interval
from backtest.stats.curve_interval import curve_interval
from tests._support.histories import history_of, random_rows
from tests.oracles.records import LIQUIDATED, records
from tests.stats.test_survival_curve import EXACT, HORIZONS, Packages, arrays, columns, positions_of, split

pytestmark = pytest.mark.filterwarnings("ignore:Approximating using")


@pytest.fixture(scope="module")
def packages() -> Packages:
    return Packages()


@pytest.mark.parametrize("seed", range(4))
def test_errors_are_those_of_the_packages(packages, seed) -> None:
    positions = positions_of(seed)
    counts, seen = arrays(positions), records(positions, HORIZONS, [LIQUIDATED])
    found = curve_interval(HORIZONS, counts["entries"], *columns(counts, "liquidations"))
    other = packages.statsmodels.SurvfuncRight(*split(seen))
    ours = found.error[np.isin(HORIZONS, other.surv_times), 0]
    np.testing.assert_allclose(ours, other.surv_prob_se, rtol=1e-10)
    fitted = packages.kaplan_meier(seen)
    spread = fitted._cumulative_sq_.to_numpy()[np.searchsorted(fitted.timeline, HORIZONS, side="right") - 1]
    np.testing.assert_allclose(found.error[:, 0], found.survival[:, 0] * np.sqrt(spread), rtol=1e-10)
    # The effective number is that of independent positions with the same error.
    rate = found.survival
    np.testing.assert_allclose(rate * (1 - rate) / found.trials, found.error**2, rtol=1e-10)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_of_positions_that_are_all_seen_they_are_wilsons_near_clopper_and_pearsons(confidence) -> None:
    from statsmodels.stats.proportion import proportion_confint

    counts = arrays([p._replace(window=len(HORIZONS)) for p in positions_of(1)])
    opened, dead = counts["entries"], counts["liquidations"]
    found = curve_interval(HORIZONS, opened, *columns(counts, "liquidations"), confidence=confidence)
    np.testing.assert_allclose(found.trials, opened, rtol=EXACT)
    bounds = {}
    for method in ("wilson", "beta"):
        # Half a trial less of those that lived, and of those that died; Clopper–Pearson needs no correction.
        less = [(1 - (n / opened) ** 4) / 2 * (method == "wilson") for n in (opened - dead, dead)]
        low, _ = proportion_confint(opened - dead - less[0], opened, 1 - confidence, method=method)
        high, _ = proportion_confint(dead - less[1], opened, 1 - confidence, method=method)
        bounds[method] = np.stack([low, 1 - high])
    np.testing.assert_allclose([found.low, found.high], bounds["wilson"], rtol=1e-10)
    np.testing.assert_allclose([found.low, found.high], bounds["beta"], atol=0.004)


def test_by_hand() -> None:
    # All 500 entries of day 1 live, and they are worth 50 trials: 0.025^(1/50). On day 2 all 400 do.
    nothing = np.zeros((2, 1), np.int64)
    found = curve_interval([1, 2], [[500], [400]], nothing, nothing, trials=[[50], [20]])
    assert found.low.ravel().tolist() == pytest.approx([0.025 ** (1 / 50), 0.025 ** (1 / 20)], rel=EXACT)
    assert found.high.ravel().tolist() == [1, 1] and found.trials.ravel().tolist() == [50, 20]
    # All dead on day 1: the mirror of it. On day 2 nobody is at risk any more.
    gone = [[500], [400]]
    found = curve_interval([1, 2], gone, gone, [[0], [400]], trials=[[50], [20]])
    assert found.high.ravel().tolist() == pytest.approx([1 - 0.025 ** (1 / 50), 1 - 0.025 ** (1 / 20)], rel=EXACT)
    assert found.low.ravel().tolist() == [0, 0] == found.survival.ravel().tolist()
    # 25 of 500 die, worth 40 trials: 2 losses. z² = 3.84146; 0.95 less (1 − 0.95⁴)/80 is 0.94768, and its Wilson bound
    # (0.94768 + 0.04802 − 0.08407) / 1.09604 = 0.83175. Then (1 + 2)/(1 + 40·0.16825) = 0.38810, to the power of 2/3:
    # 0.53207, 21.283 trials; 0.94564 and (0.94564 + 0.09025 − 0.13200) / 1.18050.
    found = curve_interval([1], [[500]], [[25]], [[0]], trials=[[40]])
    assert found.low.item() == pytest.approx(0.76569, abs=1e-5)
    # No entries, and nobody at risk: no number.
    found = curve_interval([1, 2], [[0], [0]], nothing, nothing, trials=np.full((2, 1), np.nan))
    assert np.isnan(np.stack(found)).all()
    found = curve_interval([1, 2], [[2], [1]], [[1], [1]], [[0], [1]], trials=[[2], [1]])
    assert np.isnan(np.stack(found)[:, 1]).all() and not np.isnan(np.stack(found)[:, 0]).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.02, 0.25, 0.7]), st.integers(1, 400), st.floats(0.01, 1.0))
def test_laws(seed, ends, n, share) -> None:
    counts = arrays(positions_of(seed, n, ends))
    given_ = counts["entries"], *columns(counts, "liquidations")
    trials = np.maximum(share * counts["entries"], np.minimum(1, counts["entries"]))
    fewer = np.maximum(trials / 2, np.minimum(1, counts["entries"]) / 2)
    found = curve_interval(HORIZONS, *given_, trials=trials)
    known = ~np.isnan(found.survival)
    for part in found:
        assert (~np.isnan(part) == known).all()
    low, rate, high = found.low[known], found.survival[known], found.high[known]
    assert ((low >= 0) & (low <= rate) & (rate <= high) & (high <= 1)).all()
    # Wider with fewer trials, and at a higher level; never narrower than that of independent positions.
    plain = curve_interval(HORIZONS, *given_)
    for wide, narrow in (
        (curve_interval(HORIZONS, *given_, trials=fewer), found),
        (curve_interval(HORIZONS, *given_, trials=trials, confidence=0.99), found),
        (found, plain),
    ):
        assert (wide.low[known] <= narrow.low[known] + EXACT).all()
        assert (wide.high[known] >= narrow.high[known] - EXACT).all()
    # The chances of living never fall faster than one can be sure that all did.
    assert (low <= 0.025 ** (1 / found.trials[known]) + EXACT).all()


def test_of_a_run_they_lie_next_to_the_interval_of_record() -> None:
    sweep = bt.Sweep(leverage=[3, 20, 60], horizon=["300h", "1h", "24h"], maintenance=[0.004])
    result = bt.run(history_of(random_rows(0, 4_000)), sweep)
    found, table = result.curves(), result.table
    rows = ["symbol", "side", "horizon", "leverage", "entries"]
    pd.testing.assert_frame_equal(found[rows], table[rows])
    np.testing.assert_allclose(found["survival"], table["survival_km"], atol=1e-12)
    # Of the shortest horizon everybody is seen: the curve is the rate, and worth what the cohort is.
    opened, alive = (
        np.stack([one[name][0, 1] for one in tables]).reshape(-1, tables[0].counts.shape[-1])
        for tables in [[table for _, table in result.counts.tables()]]
        for name in ("entries", "liquidations")
    )
    present = result.info["coverage"][0]["present_bars"]
    worth = survival_interval(opened, opened - alive, 1, 168, present, 24, 0.95).n_eff
    np.testing.assert_allclose(found.loc[found["horizon"] == "1h", "effective"], worth, rtol=EXACT)
    near = found["effective"] > 20
    assert near.sum() > 8
    for name in ("survival_low", "survival_high"):
        assert (found[name] - table[name])[near].abs().max() < 0.02
    assert (result.curves(confidence=0.5)["survival_low"] >= found["survival_low"]).all()
    with pytest.raises(ConfigError, match="tabulated levels"):
        result.curves(confidence=0.97)


BAD = {
    "confidence": ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
    "shape": ({"trials": [1.0, 1.0]}, r"trials must be given for each of the entries \(2, 1\)"),
    "more than entries": ({"trials": [[8.0], [7.0]]}, "at most the entries"),
    "none": ({"trials": [[8.0], [0.0]]}, "must be > 0"),
    "nan": ({"trials": [[8.0], [np.nan]]}, "must be > 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case) -> None:
    asked, message = BAD[case]
    with pytest.raises((ConfigError, DataError), match=message):
        curve_interval([1, 2], [[8], [6]], [[2], [3]], [[0], [1]], **asked)
    with pytest.raises(DataError, match="more positions ended"):
        curve_interval([1, 2], [[8], [6]], [[2], [7]], [[0], [1]])
