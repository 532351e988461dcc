"""The stationary bootstrap and its sums, against literal sums and the variance that its inventors worked out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.analysis import compare
from backtest.analysis.compare import difference_interval
from backtest.errors import ConfigError
from backtest.stats.bootstrap import check_level, draws, jumps, mean_length, sums, weights


@settings(max_examples=60, deadline=None)
@given(
    n_blocks=st.integers(1, 130),
    n_rows=st.integers(1, 9),
    most=st.sampled_from([1, 168, 10_080, 2**40]),
    mean=st.sampled_from([1.0, 4.0, 37.5]),
    seed=st.integers(0, 2**32),
)
def test_sums_by_parts_are_the_sums_block_by_block(n_blocks, n_rows, most, mean, seed) -> None:
    """Whole numbers, so that ``==`` holds, minute bars of a week and far beyond."""
    counts = np.random.default_rng(seed).integers(0, most, (n_rows, n_blocks), endpoint=True)
    (index,) = draws(n_blocks, n_blocks, mean, 7, seed)
    weight = weights(n_blocks, mean, 7, seed)
    assert (weight.sum(axis=1) == n_blocks).all()
    found = sums(counts, jumps(weight))
    assert found.tolist() == [[int(row[drawn].sum()) for row in counts] for drawn in index]
    assert found.tolist() == (weight.astype(np.int64) @ counts.T).tolist()


def test_a_long_history_is_some_forty_terms() -> None:
    """2,000 blocks in 20 stretches in the mean: each begins and ends once."""
    jump = jumps(weights(2_000, mean_length(2_000, 1), 200, seed=0))
    assert 30 < jump.nnz / 200 < 50


def slow_interval(parts: list[np.ndarray], weight: np.ndarray, tail: float) -> list[np.ndarray]:
    """Products with all the weights; of each cell the quantiles of the replications that have entries."""
    opened, dead, other, gone = (counts @ weight.T.astype(np.int64) for part in parts for counts in part)
    low, high = (np.full(len(opened), np.nan) for _ in range(2))
    for cell in range(len(opened)):
        known = (opened[cell] > 0) & (other[cell] > 0)
        if known.any():
            one, two = (1 - d[cell, known] / n[cell, known] for n, d in ((opened, dead), (other, gone)))
            ordered = np.sort(two - one)
            for out, q in ((low, tail), (high, 1 - tail)):
                place = q * (ordered.size - 1)
                left, right = ordered[int(place)], ordered[min(int(place) + 1, ordered.size - 1)]
                out[cell] = left + (right - left) * (place - int(place))
                assert out[cell] == pytest.approx(np.quantile(ordered, q), rel=1e-12, abs=1e-15)
    return [low, high]


@pytest.mark.parametrize("cells", [1, 700, 10**9])
@pytest.mark.parametrize(("n_blocks", "filled"), [(2, 1.0), (12, 0.1), (60, 0.03), (300, 1.0)])
def test_bounds_are_those_of_the_slow_form_to_the_last_digit(monkeypatch, n_blocks, filled, cells) -> None:
    """Also where many draws, or all, are without entries, and in whatever chunks."""
    rng = np.random.default_rng(n_blocks)
    parts = []
    for _ in range(2):
        entries = rng.integers(1, 169, (30, n_blocks)) * (rng.random((30, n_blocks)) < filled)
        parts.append(np.stack([entries, rng.binomial(entries, rng.random((30, 1)))]))
    monkeypatch.setattr(compare, "CELLS", cells)
    weight = weights(n_blocks, mean_length(n_blocks, 1), 99, seed=5)
    expected = slow_interval(parts, weight, 0.05)
    np.testing.assert_array_equal(difference_interval(parts, jumps(weight), 0.05), expected)
    assert np.isnan(expected[0]).any() == (filled < 1)


@pytest.mark.parametrize(("n_blocks", "mean"), [(12, 4.0), (60, 4.0), (60, 15.0)])
def test_the_variance_is_the_one_worked_out(n_blocks, mean) -> None:
    """Politis & Romano (1994): Var*(mean) = (C_0 + 2·Σ_i (1 − i/n)·(1 − p)^i·C_i) / n, C_i around the circle."""
    rng = np.random.default_rng(1)
    values = np.round(1_000 + np.cumsum(rng.normal(0, 50, n_blocks))).astype(np.int64)
    away = values - values.mean()
    lag = np.arange(1, n_blocks)
    around = np.array([(away * np.roll(away, -i)).mean() for i in range(n_blocks)])
    expected = (around[0] + 2 * ((1 - lag / n_blocks) * (1 - 1 / mean) ** lag * around[1:]).sum()) / n_blocks
    means = sums(values[None], jumps(weights(n_blocks, mean, 20_000, seed=2)))[:, 0] / n_blocks
    assert means.mean() == pytest.approx(values.mean(), abs=5 * np.sqrt(expected / 20_000))
    assert means.var() == pytest.approx(expected, rel=0.04)  # of 20,000 draws: a standard error of a hundredth


def test_levels_whose_tails_are_not_reached_are_refused() -> None:
    check_level(0.95, 40)  # one replication in each tail
    with pytest.raises(ConfigError, match=r"confidence 0\.95 needs 40 replications .* statistics\.replications is 39"):
        check_level(0.95, 39)
