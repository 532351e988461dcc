"""Survival analysis of count tables against lifelines and statsmodels, numbers worked by hand, and laws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.errors import ConfigError, DataError
from backtest.stats.survival_curve import (
    BEYOND,
    FOUND,
    NO_ENTRIES,
    conditional_survival,
    cumulative_incidence,
    event_incidence,
    hazard,
    quantile_time,
    restricted_mean,
    survival_curve,
)
from backtest.stats.survival_table import kaplan_meier
from tests.oracles.records import LIQUIDATED, STOPPED, TOOK_PROFIT, Position, Record, call_records, records, tally

HORIZONS = [1.0, 4.0, 8.0, 24.0, 72.0, 168.0]
CAUSES = ("liquidations", "stopped", "took_profit")
pytestmark = pytest.mark.filterwarnings("ignore:Approximating using")  # of lifelines, whose median is exact on a grid
EXACT = 1e-12  # products and sums of a handful of fractions, in another order
SEEDS = range(6)


def positions_of(seed: int, n: int = 400, ends: float = 0.25) -> list[Position]:
    """Random ones; of later entries fewer horizons are seen, some are never seen at all."""
    rng = np.random.default_rng(seed)
    size = len(HORIZONS)
    out = []
    for window in rng.integers(0, size + 1, n):
        end = int(rng.geometric(ends)) if rng.random() < 0.9 else 0
        cause = int(rng.integers(1, 4)) if end else 0
        called = int(rng.integers(1, end + 1)) if end and (cause == LIQUIDATED or rng.random() < 0.3) else 0
        out.append(Position(int(window), end, cause, called))
    return out


def arrays(positions: list[Position], size: int = len(HORIZONS)) -> dict[str, np.ndarray]:
    return {name: np.array(values)[:, None] for name, values in tally(positions, size).items()}


def columns(counts: dict[str, np.ndarray], *names: str) -> Iterator[np.ndarray]:
    for name in names:
        yield counts[name]
        yield counts[f"prior_{name}"]


def split(found: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r.duration for r in found]), np.array([r.event for r in found])


def analyse(horizons, entries, dead, prior) -> SimpleNamespace:
    curve = survival_curve(horizons, entries, dead, prior)
    return SimpleNamespace(
        survival=curve,
        hazard=hazard(horizons, curve),
        median=quantile_time(horizons, curve),
        mean=restricted_mean(horizons, curve),
    )


class Packages:
    """The two libraries, imported once and only when asked: a few seconds."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lifelines
            import lifelines.utils
            import statsmodels.duration.survfunc as statsmodels
        self.lifelines: Any = lifelines
        self.statsmodels: Any = statsmodels

    def kaplan_meier(self, found: list[Record]) -> Any:
        duration, event = split(found)
        return self.lifelines.KaplanMeierFitter().fit(duration, event > 0)


@pytest.fixture(scope="module")
def packages() -> Packages:
    return Packages()


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_hazards_and_means_are_those_of_the_packages(packages, seed) -> None:
    positions = positions_of(seed)
    counts, seen = arrays(positions), records(positions, HORIZONS, [LIQUIDATED])
    found = analyse(HORIZONS, counts["entries"], *columns(counts, "liquidations"))
    fitted = packages.kaplan_meier(seen)
    curve = found.survival[:, 0]
    np.testing.assert_allclose(curve, fitted.survival_function_at_times(HORIZONS), rtol=EXACT)
    other = packages.statsmodels.SurvfuncRight(*split(seen))
    np.testing.assert_allclose(curve[np.isin(HORIZONS, other.surv_times)], other.surv_prob, rtol=EXACT)

    nelson = packages.lifelines.NelsonAalenFitter(nelson_aalen_smoothing=False).fit(*split(seen))
    np.testing.assert_allclose(found.hazard.cumulative[:, 0], nelson.cumulative_hazard_at_times(HORIZONS), rtol=EXACT)

    area = packages.lifelines.utils.restricted_mean_survival_time
    for limit in (*HORIZONS, 0.5, 5.0, 100.0):
        mean = restricted_mean(HORIZONS, found.survival, limit)
        assert mean.upper.item() == pytest.approx(area(fitted, t=limit), rel=EXACT)
        time = np.unique([0.0, *(h for h in HORIZONS if h < limit), limit])
        height = np.interp(time, [0.0, *HORIZONS], [1.0, *curve])
        assert mean.linear.item() == pytest.approx(np.trapezoid(height, time), rel=EXACT)


@pytest.mark.parametrize("ends", [0.5, 0.2, 0.05])
@pytest.mark.parametrize("seed", SEEDS)
def test_quantiles_are_those_of_the_packages(packages, seed, ends) -> None:
    positions = [p._replace(cause=LIQUIDATED if p.end else 0) for p in positions_of(seed, ends=ends)]
    counts, seen = arrays(positions), records(positions, HORIZONS, [LIQUIDATED])
    survival = analyse(HORIZONS, counts["entries"], *columns(counts, "liquidations")).survival
    fitted, other = packages.kaplan_meier(seen), packages.statsmodels.SurvfuncRight(*split(seen))
    for level in (0.25, 0.5, 0.75, 0.9):
        found = quantile_time(HORIZONS, survival, level)
        expected = fitted.percentile(level)
        assert (found.status.item() == BEYOND) == np.isinf(expected)
        if found.status.item() == FOUND:
            assert found.by.item() == expected == other.quantile(1 - level)
            assert found.time.item() == pytest.approx(
                np.interp(-level, -np.array([1.0, *survival[:, 0]]), [0.0, *HORIZONS]), rel=EXACT
            )
        else:
            assert found.after.item() == HORIZONS[-1] and np.isnan([found.by, found.time]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_incidences_are_those_of_the_packages(packages, seed) -> None:
    positions = positions_of(seed)
    counts, seen = arrays(positions), records(positions, HORIZONS, [LIQUIDATED, STOPPED, TOOK_PROFIT])
    each = list(columns(counts, *CAUSES))
    found = cumulative_incidence(HORIZONS, counts["entries"], each[::2], each[1::2])
    np.testing.assert_allclose(
        found.survived[:, 0], packages.kaplan_meier(seen).survival_function_at_times(HORIZONS), rtol=EXACT
    )
    duration, event = split(seen)
    other = packages.statsmodels.CumIncidenceRight(duration, event)
    at = np.searchsorted(other.times, HORIZONS, side="right") - 1
    for j in range(3):
        np.testing.assert_allclose(found.incidence[j, :, 0], other.cinc[j][at], rtol=EXACT)
    # lifelines jitters ties. Ends of an interval put one after another, all before its end and thus before whoever is
    # censored there, leave the sum over the interval what it is.
    before = duration - np.where(event > 0, 0.4 * (1 + np.arange(event.size)) / event.size, 0.0)
    for j in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # censored ones are still tied, which is harmless
            fitter = packages.lifelines.AalenJohansenFitter(calculate_variance=False)
            fitted = fitter.fit(before, event, event_of_interest=j + 1).cumulative_density_.iloc[:, 0]
        reached = fitted.to_numpy()[np.searchsorted(fitted.index.to_numpy(), HORIZONS, side="right") - 1]
        np.testing.assert_allclose(found.incidence[j, :, 0], reached, rtol=EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_margin_calls_and_conditional_survival_are_those_of_the_packages(packages, seed) -> None:
    positions = positions_of(seed)
    counts = arrays(positions)
    calls = event_incidence(HORIZONS, counts["entries"], *columns(counts, "margin_calls"))
    fitted = packages.kaplan_meier(call_records(positions, HORIZONS))
    np.testing.assert_allclose(calls[:, 0], 1 - fitted.survival_function_at_times(HORIZONS).to_numpy(), rtol=EXACT)

    survival = analyse(HORIZONS, counts["entries"], *columns(counts, "liquidations")).survival
    alive = [r for r in records(positions, HORIZONS, [LIQUIDATED]) if r.duration > 8]
    later = packages.kaplan_meier(alive).survival_function_at_times(HORIZONS[2:])
    found = conditional_survival(HORIZONS, survival, given=8)[:, 0]
    np.testing.assert_allclose(found[2:], later, rtol=EXACT)
    assert np.isnan(found[:2]).all() and found[2] == 1


def test_by_hand() -> None:
    # Horizons 1, 2, 4 days. 10 enter; by day 1 two died (8 alive). Of the cohort of day 2 (9 entries, 2 of them dead
    # by day 1, so 7 at risk) 4 are dead: 2 of 7 die, S = 0.8 · 5/7 = 4/7. Of the cohort of day 4 (6, of them 3 dead by
    # day 2) 4 are dead: 1 of 3, S = 4/7 · 2/3 = 8/21.
    counts = np.array([[10, 9, 6], [2, 4, 4], [0, 2, 3]])[..., None]
    found = analyse([1, 2, 4], *counts)
    np.testing.assert_allclose(found.survival[:, 0], [4 / 5, 4 / 7, 8 / 21], rtol=EXACT)
    np.testing.assert_allclose(found.hazard.conditional[:, 0], [1 / 5, 2 / 7, 1 / 3], rtol=EXACT)
    np.testing.assert_allclose(found.hazard.cumulative[:, 0], [0.2, 0.2 + 2 / 7, 0.2 + 2 / 7 + 1 / 3], rtol=EXACT)
    np.testing.assert_allclose(found.hazard.rate[:, 0], [np.log(5 / 4), np.log(7 / 5), np.log(3 / 2) / 2], rtol=EXACT)
    # From 4/7 on day 2 to 8/21 on day 4 it falls by 4/21; to 1/2 by 1/14: 3/8 of two days.
    median = found.median
    assert (median.after.item(), median.by.item()) == (2, 4) and median.time.item() == pytest.approx(2.75, rel=EXACT)
    # Step: 1 + 4/5 + 2·4/7; lower: 4/5 + 4/7 + 2·8/21; linear: halfway.
    mean = [area[-1, 0] for area in found.mean]
    np.testing.assert_allclose(mean, [224 / 105, (224 + 309) / 210, 309 / 105], rtol=EXACT)
    # To day 3, halfway down the last interval: 1 + 4/5 + 4/7; 4/5 + 4/7 + 8/21; (9/10 + 24/35 + (4/7 + 10/21) / 2).
    mean = [area.item() for area in restricted_mean([1, 2, 4], found.survival, to=3)]
    np.testing.assert_allclose(mean, [4 / 5 + 4 / 7 + 8 / 21, 0.9 + 24 / 35 + 11 / 21, 1.8 + 4 / 7], rtol=EXACT)
    # Alive after a day → after two, after four.
    later = conditional_survival([1, 2, 4], found.survival, given=1)[:, 0]
    np.testing.assert_allclose(later, [1, 5 / 7, 10 / 21], rtol=EXACT)


def test_a_median_on_a_tie_is_where_it_is_reached() -> None:
    # Of 10 half live to day 3, and they to day 4; in floats 9/10 · 7/9 · 5/7 = 0.5000000000000001.
    counts = np.array([[10, 10, 10, 10], [1, 3, 5, 5], [0, 1, 3, 5]])[..., None]
    found = analyse([1, 2, 3, 4], *counts)
    assert found.survival[2, 0] > 0.5
    assert (found.median.after.item(), found.median.by.item(), found.median.time.item()) == (2, 3, 3)


NOBODY = [[0], [0], [0]]


def test_empty_cohorts_and_nobody_at_risk_are_nan() -> None:
    # No entries at all; none seen for longer than a day; all dead on day 2 of 3.
    counts = np.array([[NOBODY, NOBODY, NOBODY], [[[8], [0], [0]], [[2], [0], [0]], NOBODY],
                       [[[8], [6], [4]], [[2], [6], [4]], [[0], [1], [4]]]]).swapaxes(0, 1)  # fmt: skip
    found = analyse([1, 2, 3], *counts)
    nan = np.nan
    np.testing.assert_array_equal(found.survival[..., 0], [[nan] * 3, [0.75, nan, nan], [0.75, 0, 0]])
    np.testing.assert_array_equal(found.hazard.conditional[..., 0], [[nan] * 3, [0.25, nan, nan], [0.25, 1, nan]])
    assert np.isposinf(found.hazard.rate[2, 1, 0]) and np.isnan(found.hazard.rate[2, 2, 0])
    assert found.median.status[:, 0].tolist() == [NO_ENTRIES, BEYOND, FOUND]
    np.testing.assert_array_equal(found.median.after[:, 0], [nan, 1, 1])
    np.testing.assert_array_equal(found.median.by[:, 0], [nan, nan, 2])
    np.testing.assert_allclose(found.median.time[:, 0], [nan, nan, 4 / 3], rtol=EXACT)
    np.testing.assert_array_equal(found.mean.upper[..., 0], [[nan] * 3, [1, nan, nan], [1, 1.75, 1.75]])
    np.testing.assert_array_equal(found.mean.lower[..., 0], [[nan] * 3, [0.75, nan, nan], [0.75] * 3])
    later = conditional_survival([1, 2, 3], found.survival, given=2)[..., 0]
    np.testing.assert_array_equal(later, np.full((3, 3), nan))  # none is alive then
    entries, dead, prior = counts
    ends = cumulative_incidence([1, 2, 3], entries, [dead, 0 * dead], [prior, 0 * prior])
    np.testing.assert_array_equal(ends.incidence[0, ..., 0], [[nan] * 3, [0.25, nan, nan], [0.25, 1, 1]])
    np.testing.assert_array_equal(ends.incidence[1, ..., 0], [[nan] * 3, [0, nan, nan], [0, 0, 0]])
    np.testing.assert_array_equal(event_incidence([1, 2, 3], entries, dead, prior), 1 - found.survival)


def test_who_is_censored_does_not_die(packages) -> None:
    """Everyone still alive is censored on day 1: of day 2 nothing is known, though its cohort is not empty."""
    positions = [Position(2, 1, LIQUIDATED, 1), Position(1, 0, 0, 0), Position(1, 0, 0, 0)]
    counts = arrays(positions, 2)
    assert counts["entries"].ravel().tolist() == [3, 1] and counts["liquidations"].ravel().tolist() == [1, 1]
    entries, gone = counts["entries"], list(columns(counts, "liquidations"))
    assert kaplan_meier(entries, *gone).ravel().tolist() == [pytest.approx(2 / 3), 0]  # of record, docs/semantics.md §9
    found = analyse([1, 2], entries, *gone)
    np.testing.assert_allclose(found.survival[:, 0], [2 / 3, np.nan], rtol=EXACT)
    assert np.isnan(found.hazard.rate[1]).all() and np.isnan(found.mean.upper[1]).all()
    assert (found.median.status.item(), found.median.after.item()) == (BEYOND, 1)
    ends = cumulative_incidence([1, 2], entries, gone[:1], gone[1:])
    np.testing.assert_allclose(ends.incidence[0, :, 0], [1 / 3, np.nan], rtol=EXACT)
    np.testing.assert_allclose(event_incidence([1, 2], entries, *gone)[:, 0], [1 / 3, np.nan], rtol=EXACT)
    assert np.isinf(packages.kaplan_meier(records(positions, [1, 2], [LIQUIDATED])).median_survival_time_)


@st.composite
def grids(draw: st.DrawFn) -> tuple[list[float], list[Position]]:
    size = draw(st.integers(1, 5))
    steps = draw(st.lists(st.sampled_from([0.5, 1.0, 3.0, 24.0]), min_size=size, max_size=size))
    event = st.integers(0, size + 1)
    one = st.builds(Position, st.integers(0, size), event, st.integers(1, 3), event)
    positions = draw(st.lists(one, max_size=30))
    return np.cumsum(steps).tolist(), [p if p.end else p._replace(cause=0) for p in positions]


@settings(max_examples=100, deadline=None)
@given(grids())
def test_laws(drawn) -> None:
    horizons, positions = drawn
    counts = arrays(positions, len(horizons))
    entries = counts["entries"]
    found = analyse(horizons, entries, *columns(counts, "liquidations"))
    each = list(columns(counts, *CAUSES))
    ends = cumulative_incidence(horizons, entries, each[::2], each[1::2])
    calls = event_incidence(horizons, entries, *columns(counts, "margin_calls"))
    seen, open_ = ~np.isnan(found.survival[:, 0]), ~np.isnan(ends.survived[:, 0])

    # NaN only where a cohort is empty or nobody is at risk; from there on.
    for known, prior in ((seen, each[1]), (open_, each[1] + each[3] + each[5])):
        assert (known <= (entries[:, 0] > 0)).all() and (np.diff(known.astype(int)) <= 0).all()
        assert known[(entries - prior)[:, 0] > 0].all()
    # Incidences and survival add to 1; nothing falls that should rise.
    np.testing.assert_allclose((ends.incidence.sum(axis=0) + ends.survived)[open_], 1, rtol=EXACT)
    for rising in (-found.survival, -ends.survived, *ends.incidence, calls):
        assert (np.diff(rising[~np.isnan(rising)]) >= 0).all()
    assert (ends.incidence[:, open_] >= 0).all() and np.isnan(ends.incidence[:, ~open_]).all()
    # One cause: Aalen–Johansen is Kaplan–Meier. Nobody censored: every incidence is the rate of its cohort.
    alone = cumulative_incidence(horizons, entries, each[:1], each[1:2])
    np.testing.assert_array_equal(alone.survived, found.survival)
    np.testing.assert_allclose(alone.incidence[0], 1 - found.survival, atol=EXACT)
    whole = arrays([p._replace(window=len(horizons)) for p in positions], len(horizons))
    if positions:
        each = list(columns(whole, *CAUSES))
        plain = cumulative_incidence(horizons, whole["entries"], each[::2], each[1::2]).incidence
        np.testing.assert_allclose(plain, np.stack(each[::2]) / len(positions), atol=EXACT)
    # Hazards give the curve back.
    steps = found.hazard.rate * np.diff(horizons, prepend=0)[:, None]
    alive = seen & (np.append(1.0, found.survival)[:-1] > 0)
    np.testing.assert_allclose(np.exp(-np.cumsum(steps, axis=0))[alive], found.survival[alive], atol=EXACT)
    # Conditional · earlier = later.
    for k, given_at in enumerate(horizons):
        if seen[k] and found.survival[k, 0] > 0:
            later = conditional_survival(horizons, found.survival, given_at)
            np.testing.assert_allclose((later * found.survival[k])[k:], found.survival[k:], rtol=EXACT)
    # Means: bounds in order, at most the limit, growing with it; between the horizons too.
    limits = np.linspace(0, horizons[-1], 8)[1:]
    for to in (None, limits):
        mean = restricted_mean(horizons, found.survival, to)
        upto = np.array(horizons if to is None else to)[:, None]
        known = ~np.isnan(mean.upper)
        for less, more in ((mean.lower, mean.linear), (mean.linear, mean.upper), (mean.upper, upto)):
            assert (less[known] <= more[known] * (1 + EXACT)).all()
        for area in mean:
            assert (np.diff(area[known]) >= -EXACT * upto.max()).all() and (np.isnan(area) == ~known).all()
    # The median lies in its interval, and on either side of it survival is what it says.
    median = found.median
    if median.status.item() == FOUND:
        assert median.after.item() <= median.time.item() <= median.by.item()
        k = horizons.index(median.by.item())
        assert found.survival[k, 0] <= 0.5 + EXACT < np.append(1.0, found.survival)[k] + 2 * EXACT
    else:
        assert (found.survival[seen] > 0.5).all() and (median.status.item() == NO_ENTRIES) == (not seen.any())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=4, max_size=4, unique=True), st.sampled_from([0.25, 24.0]))
def test_scenarios_do_not_see_each_other_and_units_only_scale(seeds, unit) -> None:
    each = [arrays(positions_of(seed, n=30)) for seed in seeds]
    names = ("entries", "liquidations", "prior_liquidations")
    # (2 scenarios, n_horizons, 2 leverages)
    cube = [np.stack([np.hstack([one[n] for one in pair]) for pair in (each[:2], each[2:])]) for n in names]
    many, scaled = analyse(HORIZONS, *cube), analyse([h * unit for h in HORIZONS], *cube)
    for i, counts in enumerate(each):
        one = analyse(HORIZONS, *(counts[n] for n in names))
        at = i // 2, slice(None), slice(i % 2, i % 2 + 1)
        for left, right in zip(
            [one.survival, *one.hazard, *one.mean], [many.survival, *many.hazard, *many.mean], strict=True
        ):
            np.testing.assert_array_equal(left, right[at])
        for left, right in zip(one.median, many.median, strict=True):
            np.testing.assert_array_equal(left, right[i // 2, i % 2 : i % 2 + 1])
    np.testing.assert_allclose(scaled.hazard.rate * unit, many.hazard.rate, rtol=EXACT)
    np.testing.assert_allclose(scaled.mean.linear, many.mean.linear * unit, rtol=EXACT)
    np.testing.assert_allclose(scaled.median.time, many.median.time * unit, rtol=EXACT)


CURVE = np.array([[0.8], [0.4]])
COUNTS = {
    "shapes": ([[8, 8], [6, 6]], [2, 3], [0, 1], "of one shape"),
    "negative": ([8, 6], [-2, 3], [0, 1], "must not be negative"),
    "fraction": ([8, 6], [2.5, 3], [0, 1], "whole numbers"),
    "nan": ([8, 6], [np.nan, 3], [0, 1], "whole numbers"),
    "more dead than entered": ([8, 6], [2, 7], [0, 1], "more positions ended"),
    "cohorts grow": ([6, 8], [2, 3], [0, 1], "entries grow"),
    "prior above the count": ([8, 6], [2, 0], [0, 1], "prior counts exceed"),
    "prior before the first": ([8, 6], [2, 3], [1, 1], "prior counts exceed"),
    "a horizon is missing": ([8, 6], [2, 4], [0, 3], "prior counts exceed"),
    "one horizon too few": ([8], [2], [0], "2 horizons"),
}
"""Entries, ended and prior of horizons 1 and 2 that cannot be those of nested cohorts."""
ARGUMENTS: dict[str, tuple[Callable[[], object], str]] = {
    "horizons fall": (lambda: hazard([2, 1], CURVE), "horizons must be ascending"),
    "horizon of 0": (lambda: hazard([0, 1], CURVE), "horizons must be ascending"),
    "no horizons": (lambda: hazard([], CURVE), "horizons must be ascending"),
    "no prior": (lambda: cumulative_incidence([1, 2], [[8], [6]], [[[2], [3]]], []), "needs its prior"),
    "beyond the grid": (lambda: restricted_mean([1, 2], CURVE, to=3), r"to must lie within \(0, 2\]"),
    "to 0": (lambda: restricted_mean([1, 2], CURVE, to=0), "to must lie within"),
    "to nan": (lambda: restricted_mean([1, 2], CURVE, to=np.nan), "to must lie within"),
    "level": (lambda: quantile_time([1, 2], CURVE, 1.0), "level must lie between 0 and 1"),
    "given": (lambda: conditional_survival([1, 2], CURVE, 1.5), "given must be one of the horizons 1, 2; got 1.5"),
}


@pytest.mark.parametrize("case", COUNTS)
def test_bad_counts_are_refused(case) -> None:
    *counts, message = COUNTS[case]
    with pytest.raises(DataError, match=message):
        survival_curve([1, 2], *(np.reshape(values, (np.shape(values)[0], -1)) for values in counts))


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments_are_refused(case) -> None:
    call, message = ARGUMENTS[case]
    with pytest.raises((ConfigError, DataError), match=message):
        call()
