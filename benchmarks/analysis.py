"""Survival analysis and the bootstrap against lifelines and arch, from one run on one machine.

Run: ``python benchmarks/analysis.py [--quick]``; needs the extra ``test``, and ``pip install arch``.

* Kaplan–Meier with intervals, hazards, medians and restricted means of 10,000 scenarios at 100 horizons, from counts of
  8,760 hourly entries each. lifelines fits a sample of the scenarios, from weighted records (200 rows each, not 8,760).
* Stationary block bootstrap of the difference of two survival rates in 5,000 cells over 2,000 calendar blocks: 1,000
  replications, each of four tables of counts. arch resamples a few times. Products of the weights with the counts, to
  which summation by parts must be equal, are timed beside it.

The times of the others for all are in proportion. All give the same curves, errors, medians and means, and arch, whose
draws are others, intervals as wide; or the benchmark fails. Each time is the least of several calls; this package's
are of one thread, matrix products and arch have all.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import warnings
from importlib.metadata import version

import lifelines
import numpy as np
from lifelines.utils import restricted_mean_survival_time
from numpy.typing import NDArray
from timing import best

from backtest.analysis.compare import difference_interval
from backtest.stats.bootstrap import jumps, mean_length, weights
from backtest.stats.curve_interval import CurveInterval, curve_interval
from backtest.stats.survival_curve import (
    conditional_survival,
    cumulative_incidence,
    event_incidence,
    hazard,
    quantile_time,
    restricted_mean,
)

try:
    import arch.bootstrap
except ImportError:
    sys.exit("benchmarks/analysis.py compares with arch, which is no dependency: pip install arch")

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Counts = tuple[Int, Int, Int]

HOURS = np.unique(np.append(np.arange(1, 49), np.linspace(54, 720, 52).astype(np.int64)))
"""A hundred horizons: every hour of two days, then to 30 days."""
ENTRIES = 8_760
N_BLOCKS, N_CELLS, REPLICATIONS, TAIL = 2_000, 5_000, 1_000, 0.025


def cohorts(n: int, seed: int = 0) -> Counts:
    """Entries, liquidations and prior ones, (n, n_horizons, 1); the last entries see shorter windows only.

    Each scenario has a hazard of its own; of the dead as of the living, chance says who is not seen for longer.
    """
    rng = np.random.default_rng(seed)
    chance = 1 - np.exp(-np.outer(10 ** rng.uniform(-5, -1.5, n), np.diff(HOURS, prepend=0)))
    entries = np.broadcast_to(ENTRIES - HOURS, (n, HOURS.size))
    dead, prior = np.zeros((2, n, HOURS.size), np.int64)
    for k in range(HOURS.size):
        if k:
            gone, opened = dead[:, k - 1], entries[:, k - 1]
            prior[:, k] = gone - rng.hypergeometric(gone, opened - gone, opened - entries[:, k])
        dead[:, k] = prior[:, k] + rng.binomial(entries[:, k] - prior[:, k], chance[:, k])
    return entries[..., None], dead[..., None], prior[..., None]


# --- Kaplan–Meier -----------------------------------------------------------------------------------------------------


def curves(counts: Counts) -> CurveInterval:
    """Curves with intervals of positions worth a trial every two days, or every horizon if that is longer."""
    trials = np.broadcast_to((ENTRIES / np.maximum(HOURS, 48))[:, None], counts[0].shape)
    return curve_interval(HOURS, *counts, trials=trials)


def times(counts: Counts) -> None:
    """What lifelines is asked for besides."""
    survival = curves(counts).survival
    quantile_time(HOURS, survival)
    restricted_mean(HOURS, survival, HOURS[-1])


def everything(counts: Counts) -> None:
    """All estimators: also hazards, three competing ends, margin calls, and a week given a day."""
    entries, dead, prior = counts
    times(counts)
    survival = curves(counts).survival
    hazard(HOURS, survival)
    conditional_survival(HOURS, survival, given=24)
    cumulative_incidence(HOURS, entries, [dead // 3] * 3, [prior // 3] * 3)
    event_incidence(HOURS, entries, dead, prior)


def fitted(counts: Counts) -> list[lifelines.KaplanMeierFitter]:
    """Kaplan–Meier with its interval of each scenario, by lifelines."""
    out = []
    for opened, gone, before in zip(*(values[..., 0] for values in counts), strict=True):
        censored = opened - gone - np.append((opened - before)[1:], 0)
        weight = np.concatenate([gone - before, censored])
        duration, event = np.tile(HOURS, 2), np.repeat([1, 0], HOURS.size)
        some = weight > 0
        out.append(lifelines.KaplanMeierFitter().fit(duration[some], event[some], weights=weight[some]))
    return out


def their_times(found: list[lifelines.KaplanMeierFitter]) -> list[tuple[float, float]]:
    """Median and restricted mean of each, by lifelines."""
    return [(one.median_survival_time_, restricted_mean_survival_time(one, t=HOURS[-1])) for one in found]


def check_curves(counts: Counts) -> None:
    """The same numbers."""
    theirs = fitted(counts)
    ours = curve_interval(HOURS, *counts)
    median, mean = quantile_time(HOURS, ours.survival), restricted_mean(HOURS, ours.survival, HOURS[-1])
    for i, (one, (middle, area)) in enumerate(zip(theirs, their_times(theirs), strict=True)):
        curve = one.survival_function_at_times(HOURS).to_numpy()
        spread = one._cumulative_sq_.to_numpy()[np.searchsorted(one.timeline, HOURS, side="right") - 1]
        np.testing.assert_allclose(ours.survival[i, :, 0], curve, rtol=1e-9)
        np.testing.assert_allclose(ours.error[i, :, 0], curve * np.sqrt(spread), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(mean.upper[i, 0, 0], area, rtol=1e-9)
        np.testing.assert_equal(np.nan_to_num(median.by[i, 0], nan=np.inf), middle)


# --- bootstrap --------------------------------------------------------------------------------------------------------


def runs(n_cells: int, n_blocks: int, seed: int = 1) -> list[Int]:
    """Entries and liquidations of two runs, (2, n_cells, n_blocks) each, hourly entries in blocks of a week."""
    rng = np.random.default_rng(seed)
    entries = rng.integers(0, 169, (n_cells, n_blocks))
    storm = rng.gamma(1.0, 1.0, n_blocks)  # what both runs saw
    share = [np.minimum(1, storm * rng.uniform(0.001, 0.2, (n_cells, 1))) for _ in range(2)]
    return [np.stack([entries, rng.binomial(entries, s)]) for s in share]


def resampled(parts: list[Int], replications: int) -> tuple[Float, Float]:
    """From the draws to the bounds."""
    return difference_interval(parts, jumps(drawn(parts, replications)), TAIL)


def drawn(parts: list[Int], replications: int) -> Float:
    """The weights of the blocks."""
    n_blocks = parts[0].shape[-1]
    return weights(n_blocks, mean_length(n_blocks, 1), replications, seed=0)


def multiplied(parts: list[Int], replications: int) -> tuple[Float, Float]:
    """The same by products of the weights with all counts, a thousand cells at once."""
    weight = drawn(parts, replications).T
    bounds = []
    for i in range(0, parts[0].shape[1], 1_000):
        sums = [part[:, i : i + 1_000].astype(np.float64) @ weight for part in parts]
        rates = [np.where(s[0] > 0, 1 - s[1] / s[0], np.nan) for s in sums]
        ordered = np.sort(rates[1] - rates[0], axis=-1)
        place = [q * (replications - 1) for q in (TAIL, 1 - TAIL)]
        for at in place:
            left, right = ordered[:, int(at)], ordered[:, min(int(at) + 1, replications - 1)]
            bounds.append(left + (right - left) * (at - int(at)))
    return np.concatenate(bounds[::2]), np.concatenate(bounds[1::2])


def by_arch(parts: list[Int], replications: int) -> Float:
    """Low and high bounds, (2, n_cells)."""
    series = [np.ascontiguousarray(counts.T, np.float64) for part in parts for counts in part]
    n_blocks = len(series[0])

    def difference(opened: Float, dead: Float, other: Float, gone: Float) -> Float:
        rate: Float = dead.sum(axis=0) / opened.sum(axis=0) - gone.sum(axis=0) / other.sum(axis=0)
        return rate

    bootstrap = arch.bootstrap.StationaryBootstrap(mean_length(n_blocks, 1), *series, seed=0)
    bounds: Float = np.quantile(bootstrap.apply(difference, replications), [TAIL, 1 - TAIL], axis=0)
    return bounds


def check_bootstrap(parts: list[Int], replications: int) -> None:
    """Equal to the product to the last digit; as wide as by arch within chance (two quantiles of other draws)."""
    ours = resampled(parts, replications)
    np.testing.assert_array_equal(ours, multiplied(parts, replications))
    few = [part[:, :100] for part in parts]
    theirs = by_arch(few, 1_000)
    width = np.subtract(*resampled(few, 1_000)) / np.subtract(*theirs)
    assert abs(np.median(width) - 1) < 0.1, np.median(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the scenarios and cells")
    tenth = 10 if parser.parse_args().quick else 1
    n, n_cells, sample, times_drawn = 10_000 // tenth, N_CELLS // tenth, 200 // tenth, 10
    warnings.simplefilter("ignore")

    counts = cohorts(n)
    some: Counts = (counts[0][:sample], counts[1][:sample], counts[2][:sample])
    check_curves(some)
    curves_s = best(lambda: fitted(some), repeat=2) * n / sample
    times_s = best(lambda: their_times(fitted(some)), repeat=2) * n / sample
    parts = runs(n_cells, N_BLOCKS)
    check_bootstrap(parts, REPLICATIONS)
    arch_s = best(lambda: by_arch(parts, times_drawn), repeat=2) * REPLICATIONS / times_drawn
    # Taken in turn, as the load of the machine may change.
    forms = lambda: resampled(parts, REPLICATIONS), lambda: multiplied(parts, REPLICATIONS)
    bootstrap_s, product_s = np.min([[best(form, repeat=2) for form in forms] for _ in range(3)], axis=0)

    rows = [
        ("Kaplan–Meier, intervals", best(lambda: curves(counts)), "lifelines", curves_s),
        ("  with medians and restricted means", best(lambda: times(counts)), "lifelines", times_s),
        ("  and hazards, competing ends, calls, conditional", best(lambda: everything(counts)), "lifelines", times_s),
        ("bootstrap of a difference", bootstrap_s, "arch", arch_s),
        ("  the same by products of matrices", bootstrap_s, "numpy", product_s),
    ]  # fmt: skip
    print(f"{platform.machine()}, {os.cpu_count()} cores; numpy {np.__version__}, lifelines {version('lifelines')}, "
          f"arch {version('arch')}")  # fmt: skip
    print(f"{n:,} scenarios × {HOURS.size} horizons, the same numbers as lifelines in {sample}")
    print(
        f"{REPLICATIONS:,} replications over {N_BLOCKS:,} blocks × {n_cells:,} cells; arch measured in {times_drawn}\n"
    )
    print(f"| {'what':50} | {'here, s':>8} | {'other':9} | {'other, s':>9} | {'ratio':>8} |")
    print(f"| {'-' * 50} | {'-' * 7}: | {'-' * 9} | {'-' * 8}: | {'-' * 7}: |")
    for what, ours, other, theirs in rows:
        print(f"| {what:50} | {ours:8.3f} | {other:9} | {theirs:9.2f} | {theirs / ours:8,.1f} |")


if __name__ == "__main__":
    main()
