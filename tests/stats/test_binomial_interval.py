"""Laws of the interval of record, whatever the counts; docs/intervals.md holds the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.errors import ConfigError
from backtest.stats.binomial_interval import LEVELS, attainable_low, survival_interval


@st.composite
def counts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Entries and survivors of a few rows over up to 120 blocks, from dull to clustered, with empty blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_rows, n_blocks = draw(st.integers(1, 4)), draw(st.integers(1, 120))
    entries = rng.integers(0, draw(st.sampled_from([2, 24, 168])) + 1, (n_rows, n_blocks))
    entries[:, rng.random(n_blocks) < draw(st.sampled_from([0.0, 0.4]))] = 0
    rate = rng.beta(draw(st.sampled_from([0.05, 1.0, 50.0])), draw(st.sampled_from([0.02, 1.0])), (n_rows, n_blocks))
    return entries, rng.binomial(entries, rate)


@settings(max_examples=150, deadline=None)
@given(counts(), st.sampled_from([1, 24, 168, 720]), st.sampled_from([24, 168]), st.data())
def test_bounds_hold_the_rate_and_widen_with_confidence(pair, horizon, block, data) -> None:
    entries, survived = pair
    span = data.draw(st.integers(block, 2 * block * entries.shape[1]))
    total = entries.sum(axis=1)
    some = total > 0
    before = None
    for confidence in LEVELS:
        found = survival_interval(entries, survived, horizon, block, span, 24, confidence)
        assert np.isnan(found.low[~some]).all()
        assert found.few_blocks[~some].all()
        rate = survived.sum(axis=1)[some] / total[some]
        low, high, trials = found.low[some], found.high[some], found.n_eff[some]
        assert ((low >= 0) & (low <= rate) & (rate <= high) & (high <= 1)).all()
        assert (trials <= np.minimum(total[some], 2 * span / max(horizon, 48)) * (1 + 1e-12)).all()
        if before is not None:
            assert (low <= before[0] + 1e-12).all()
            assert (high >= before[1] - 1e-12).all()
        before = low, high


@settings(max_examples=60, deadline=None)
@given(counts())
def test_deaths_mirror_survival_and_rows_do_not_mix(pair) -> None:
    entries, survived = pair
    horizons = np.arange(1, entries.shape[0] + 1) * 24
    found = survival_interval(entries, survived, horizons, 168, 20_000, 24, 0.95)
    mirror = survival_interval(entries, entries - survived, horizons, 168, 20_000, 24, 0.95)
    np.testing.assert_allclose(found.low, 1 - mirror.high, atol=1e-9)
    for row, horizon in enumerate(horizons):
        one = survival_interval(entries[[row]], survived[[row]], int(horizon), 168, 20_000, 24, 0.95)
        np.testing.assert_allclose([one.low[0], one.high[0]], [found.low[row], found.high[row]], rtol=1e-9)


@pytest.mark.parametrize("horizon", [1, 24, 168, 720])
def test_a_history_without_a_loss_shows_the_attainable_bound(horizon: int) -> None:
    for weeks in (8, 30, 260):
        span = weeks * 168
        cohort = np.maximum(0, np.minimum(168, span - horizon - 168 * np.arange(weeks)))[None, :]
        found = survival_interval(cohort, cohort, horizon, 168, span, 24, 0.95)
        low = attainable_low(int(cohort.sum()), horizon, 168, span, 24, 0.95)
        assert found.low[0] == pytest.approx(low)
        if weeks == 260:
            assert low == pytest.approx(0.025 ** (max(horizon, 48) / span))
            assert not found.few_blocks[0]
    assert math.isnan(attainable_low(0, 24, 168, 1000, 24, 0.95))


def test_untested_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="tabulated levels"):
        survival_interval(np.ones((1, 20), np.int64), np.ones((1, 20), np.int64), 1, 1, 20, 24, 0.97)
