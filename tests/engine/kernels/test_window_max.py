"""The compiled loops against plain numpy, window by window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.engine.adverse_series import ChunkSeries, nested_windows
from backtest.engine.count_by_threshold import fill_line
from backtest.engine.kernels import first_passage, window_max
from backtest.engine.kernels.window_max import LOWEST, TILE, EntryArrays, EntryRuns
from backtest.engine.thresholds import TierLines

HORIZONS = [1, 2, 7, 63, 255, 256, 257, 300, 511, 512, 513, 1000, 1024, 1500]


def series_of(seed: int, n: int, missing: float) -> ChunkSeries:
    rng = np.random.default_rng(seed)
    price = np.round(100 + np.cumsum(rng.normal(0, 0.1, n)), 1)
    price[rng.random(n) < missing] = np.nan
    paid = np.cumsum(rng.normal(0, 0.001, n))
    bar = np.arange(n)
    worth = np.abs(rng.normal(100, 5, n))
    return ChunkSeries(0, n, price, paid, EntryArrays(bar, -paid, 1 / worth), worth, np.ones(n), bar + n, None, False)


def naive_adverse(series: ChunkSeries, rate: float, side: float) -> np.ndarray:
    values = rate * series.adverse_price + side * series.paid
    return np.where(np.isnan(values), LOWEST, values)


def naive_required(series: ChunkSeries, lines: TierLines, bar: np.ndarray, horizon: int, side: float) -> np.ndarray:
    """max_k weight_k·(max Z_k − offset)·scale + shift_k, with every window written out."""
    out = np.full(bar.size, -np.inf)
    for k, (rate, weight, shift) in enumerate(zip(lines.rate, lines.weight, lines.shift, strict=True)):
        t = np.arange(series.stop)
        in_force = (t >= lines.first[k]) & (t < lines.stop[k])
        adverse = np.where(in_force, naive_adverse(series, rate, side), LOWEST)
        top = np.array([adverse[b + 1 : b + 1 + horizon].max() for b in bar])
        x = weight * ((top - series.entries.offset[bar]) * series.entries.scale[bar]) + shift
        out = np.maximum(out, x)
    return out


@pytest.mark.parametrize("stride", [1, 5, 400], ids=["dense", "stride", "few"])
@pytest.mark.parametrize("n_lines", [1, 3])
def test_counts_equal_windows_written_out(stride, n_lines) -> None:
    series = series_of(stride + n_lines, 4_000, missing=0.02)
    rates = tuple(1.0 - 0.01 * k for k in range(n_lines))
    weights = tuple(1.0 - 0.001 * k for k in range(n_lines))
    shifts = tuple(-0.98 + 0.008 * k for k in range(n_lines))
    # The second line is in force from bar 700 to 2,600 only, as the table of a dated history.
    first = tuple(700 if k == 1 else 0 for k in range(n_lines))
    stop = tuple(2_600 if k == 1 else 4_000 for k in range(n_lines))
    lines = TierLines(rates, weights, shifts, first, stop)
    bar = np.arange(0, 4_000, stride)
    entries = EntryArrays(bar, series.entries.offset[bar], series.entries.scale[bar])
    thresholds = np.unique(np.concatenate([1 / np.arange(1.0, 126.0), 1 / np.arange(1.0, 126.0) - 0.0005]))
    levels = window_max.build_levels(thresholds)
    adverse = np.empty((n_lines, 4_000))
    for k in range(n_lines):
        fill_line(lines, k, series, -1.0, adverse[k])
    for horizon, window in zip(HORIZONS, nested_windows(adverse.copy(), HORIZONS), strict=True):
        stop = int(np.searchsorted(bar, 4_000 - horizon))
        cuts = np.array([0, stop // 3, stop // 3 + 1, stop])  # runs that start and end anywhere in a tile
        counts = np.zeros((2, thresholds.size + 1), np.int64)
        runs = EntryRuns(cuts[:-1], cuts[1:], np.array([0, 1, 0]))
        window_max.count_windows(window, entries, np.array(lines.weight), np.array(lines.shift), runs, levels, counts)
        x = naive_required(series, lines, bar[:stop], horizon, -1.0)
        want = np.bincount(np.searchsorted(thresholds, x, side="right"), minlength=thresholds.size + 1)
        assert counts.sum(axis=0).tolist() == want.tolist(), horizon
        assert counts[1].sum() == 1
        found = np.empty(stop)
        for k in range(n_lines):
            window_max.window_maxima(window, k, bar[:stop], found)
            assert (found == [adverse[k, b + 1 : b + 1 + horizon].max() for b in bar[:stop]]).all(), horizon


@settings(max_examples=60, deadline=None)
@given(
    thresholds=st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=200, unique=True),
    data=st.data(),
)
def test_every_value_lands_in_its_bin(thresholds, data) -> None:
    """Look-up and comparison agree with a binary search, on the thresholds themselves above all."""
    level = np.sort(np.array(thresholds))
    near = st.sampled_from([*level, *np.nextafter(level, 0), *np.nextafter(level, 99), -1.0, 0.0, -np.inf, 1e9])
    x = np.full(TILE, -np.inf)
    n = data.draw(st.integers(1, TILE))
    x[:n] = data.draw(st.lists(near, min_size=n, max_size=n))
    counts = np.zeros((1, level.size + 1), np.int64)
    window_max.count_tile(x, x.view(np.int64), np.empty(TILE, np.int64), n, window_max.build_levels(level), counts, 0)
    want = np.bincount(np.searchsorted(level, x[:n], side="right"), minlength=level.size + 1)
    assert counts[0].tolist() == want.tolist()


@pytest.mark.parametrize("stride", [1, 3, 50])
def test_first_crossings_equal_a_scan(stride) -> None:
    series = series_of(stride, 1_200, missing=0.05)
    adverse = naive_adverse(series, 0.99, 1.0)
    bar = np.arange(0, 1_199, stride)
    entries = EntryArrays(bar, series.entries.offset[bar], series.entries.scale[bar])
    threshold = np.sort(1 / np.arange(1.0, 60.0)) + 0.9
    limit = 300
    found = np.zeros((2, bar.size, threshold.size), np.int32)
    column = np.arange(threshold.size)
    first_passage.crossings_by_stack(adverse, entries, 1.0, 0.0, threshold, column, limit, found[0])
    first_passage.crossings_by_tree(
        first_passage.build_tree(adverse), entries, 1.0, 0.0, threshold, column, limit, found[1]
    )
    want = np.zeros_like(found[0])
    for j, b in enumerate(bar):
        x = (adverse[b + 1 : b + 1 + limit] - entries.offset[j]) * entries.scale[j]
        for k, level in enumerate(threshold):
            hits = np.flatnonzero(x >= level)
            want[j, k] = hits[0] + 1 if hits.size else 0
    assert (want > 0).any() and (want == 0).any()
    assert (found[0] == want).all()
    assert (found[1] == want).all()


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 700), seed=st.integers(0, 99))
def test_largest_in_a_tree_is_the_largest_of_the_range(n, seed) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, n)
    start = rng.integers(0, n + 1, 50)
    stop = np.minimum(start + rng.integers(0, n + 1, 50), n)
    found = np.empty(50)
    first_passage.largest_in_tree(first_passage.build_tree(values), start, stop, found)
    assert found.tolist() == [values[a:b].max(initial=LOWEST) for a, b in zip(start, stop, strict=True)]


def test_tree_of_one_bar_and_of_whole_levels() -> None:
    for n in (1, 15, 16, 17, 256, 257):
        values = np.arange(float(n))
        tree = first_passage.build_tree(values)
        for start in (0, n // 2, n - 1):
            assert first_passage.first_in_tree(tree, start, n, 0.0, 1.0, 1.0, 0.0, n - 1.0) == n - 1
            assert first_passage.first_in_tree(tree, start, n, 0.0, 1.0, 1.0, 0.0, float(n)) == n
