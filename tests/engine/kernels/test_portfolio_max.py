"""The largest sum of several series over nested windows, against looking at every bar."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.engine.kernels.portfolio_max import FAN, GROUP, Field, build_field, padded, search_windows
from backtest.engine.kernels.window_max import LOWEST


def every_bar(field: Field, bars: np.ndarray, weight: np.ndarray, horizons: list[int]) -> np.ndarray:
    """The same by definition: a sum per bar, the largest per window."""
    value, moving = field.value[:, : field.n_bars], field.moving[:, : field.n_bars]
    out = np.full((bars.size, len(horizons)), -np.inf)
    for j, bar in enumerate(bars):
        total = np.zeros(field.n_bars)
        for k in range(weight.shape[1]):
            lines = slice(int(field.first[k]), int(field.first[k + 1]))
            with np.errstate(over="ignore"):
                rates = weight[j, k] * value[lines] + field.shift[lines, None]
                total += (rates + moving[lines] if moving.size else rates).max(axis=0)
        for h, horizon in enumerate(horizons):
            out[j, h] = total[bar + 1 : bar + horizon + 1].max(initial=-np.inf)
    return out


def made_field(
    rng: np.random.Generator, n: int, lines: list[int], *, steps: bool, holes: float, moving: bool
) -> tuple[Field, np.ndarray]:
    """Random walks (or few distinct values, for ties), some bars missing in all legs, some lines not in force."""
    walk = np.cumsum(rng.normal(0, 1, (sum(lines), n)), axis=1) - 50
    if steps:
        walk = np.round(walk / 5) * 5
    walk[:, rng.random(n) < holes] = LOWEST
    first = np.cumsum([0, *lines])
    for k, count in enumerate(lines):
        for line in range(first[k], first[k + 1] if count > 1 else first[k]):
            edge = int(rng.integers(0, n))
            walk[line, edge:] = LOWEST  # every line may end: then no bar beyond can trigger
    value = np.full((sum(lines), padded(n)), LOWEST)
    value[:, :n] = walk
    added = rng.normal(0, 3, value.shape) if moving else np.zeros((sum(lines), 0))
    return build_field(first.astype(np.int64), value, rng.normal(0, 2, sum(lines)), added, n), walk


def assert_largest(field: Field, bars: np.ndarray, weight: np.ndarray, horizons: list[int]) -> None:
    out = np.empty((bars.size, len(horizons)))
    search_windows(field, bars.astype(np.int64), weight, np.array(horizons, dtype=np.int64), out)
    want = every_bar(field, bars, weight, horizons)
    nothing = want < -1e100
    assert (out[nothing] < -1e100).all()
    # Sums of the same numbers in the same order, but the compiler may fuse a product and a sum.
    np.testing.assert_allclose(out[~nothing], want[~nothing], rtol=1e-12, atol=1e-10)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_search_finds_the_largest_sum_of_every_window(data) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n = data.draw(st.sampled_from([1, 2, 15, 16, 17, 40, 256, 257, 700, 4_200]))
    lines = data.draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=4))
    steps, moving = data.draw(st.booleans()), data.draw(st.sampled_from([False, False, True]))
    holes = data.draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    field, _ = made_field(rng, n, lines, steps=steps, holes=holes, moving=moving)
    bars = np.arange(0, n, data.draw(st.sampled_from([1, 7, 60]))) if n < 1_000 else np.arange(0, n, 97)
    weight = rng.uniform(0.01, 1, (bars.size, len(lines)))
    if data.draw(st.booleans()):  # neighbours weigh alike
        weight = weight[:1] * np.exp(np.cumsum(rng.normal(0, 0.003, weight.shape), axis=0))
    horizons = data.draw(st.sampled_from([[1], [1, 2, 3], [3, 50, 700], [16, 32, 256, 5_000]]))
    assert_largest(field, bars, weight, horizons)


@pytest.mark.parametrize("level", [1e-8, 1.0, 1e9])
def test_prices_of_any_size_and_missing_ones_do_not_hide_the_others(level) -> None:
    rng = np.random.default_rng(0)
    field, _ = made_field(rng, 3_000, [1, 1, 1], steps=False, holes=0.3, moving=False)
    with np.errstate(over="ignore"):
        value = np.where(field.value == LOWEST, LOWEST, field.value * level)
    scaled = build_field(field.first, value, np.zeros(3), field.moving, field.n_bars)
    bars = np.arange(0, 2_999, 31)
    assert_largest(scaled, bars, rng.uniform(0.5, 1, (bars.size, 3)) / level, [10, 500, 2_000])


def test_groups_of_entries_meet_without_a_seam() -> None:
    """More entries than share a reference, and fewer whose bars lie far apart."""
    rng = np.random.default_rng(1)
    for n, step in ((3 * GROUP, 1), (40_000, 900)):
        field, _ = made_field(rng, n, [1, 1], steps=False, holes=0.01, moving=False)
        bars = np.arange(0, n, step)
        weight = np.exp(np.cumsum(rng.normal(0, 0.01, (bars.size, 2)), axis=0))
        assert_largest(field, bars, weight, [5, 300])


def test_a_constant_series_is_found_at_once_and_padding_is_never_the_largest() -> None:
    n = 5 * FAN + 3
    value = np.full((2, padded(n)), LOWEST)
    value[:, :n] = -7.0
    field = build_field(np.array([0, 1, 2]), value, np.zeros(2), np.zeros((2, 0)), n)
    out = np.empty((n, 2))
    search_windows(field, np.arange(n), np.ones((n, 2)), np.array([1, 1_000]), out)
    assert (out[:-1] == -14.0).all()
    assert (out[-1] < -1e100).all()  # no bar is left
