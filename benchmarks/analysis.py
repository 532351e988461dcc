"""Survival analysis of count tables against a loop of lifelines, from one run on one machine, single thread.

Run: ``python benchmarks/analysis.py [--scenarios N] [--sample N]``; needs the extra ``test``. Counts are those of 8,760
hourly entries per scenario at 13 horizons from an hour to 30 days, each scenario with hazards of its own. lifelines
fits a sample of the scenarios, from weighted records (26 rows each, not 8,760); its time for all is in proportion, and
holds Greenwood's bounds, which are not wanted here. Both give the same curves, means and medians, or the benchmark
fails.
"""

from __future__ import annotations

import argparse
import platform
import warnings

import lifelines
import numpy as np
from lifelines.utils import restricted_mean_survival_time
from timing import best

from backtest.analysis import Analysis, analyse, conditional_survival, cumulative_incidence, event_incidence

HOURS = np.array([1, 2, 4, 8, 12, 24, 48, 72, 120, 168, 336, 504, 720], np.float64)
ENTRIES = 8_760


def counts_of(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries, liquidations and prior ones, (n, n_horizons, 1); the last entries see shorter windows only.

    Positions die in groups of one hazard; of the dead as of the living, the share of each cohort is the same.
    """
    rng = np.random.default_rng(seed)
    chance = 1 - np.exp(-np.outer(10 ** rng.uniform(-5, -1.5, n), HOURS))
    entries = np.broadcast_to(ENTRIES - HOURS.astype(np.int64), (n, HOURS.size))
    # The deaths of the entries of the longest window, and of those that leave before each horizon.
    leaving = -np.diff(entries, axis=1, append=0)
    dead, prior = np.zeros((2, n, HOURS.size), np.int64)
    for k in range(HOURS.size):
        before, last = np.zeros(n, np.int64), np.zeros(n)
        for h in range(k + 1):
            now = before + rng.binomial(leaving[:, k] - before, (chance[:, h] - last) / (1 - last))
            dead[:, h] += now
            prior[:, h] += before
            before, last = now, chance[:, h]
    return entries[..., None], dead[..., None], prior[..., None]


def everything(entries: np.ndarray, dead: np.ndarray, prior: np.ndarray) -> None:
    """All estimators: also three competing ends, margin calls, and a week given a day."""
    found = analyse(HOURS, entries, dead, prior)
    conditional_survival(HOURS, found.survival, given=24)
    third = [dead // 3] * 3, [prior // 3] * 3
    cumulative_incidence(HOURS, entries, *third)
    event_incidence(HOURS, entries, dead, prior)


def loop(entries: np.ndarray, dead: np.ndarray, prior: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
    """Curve, median and mean of each scenario, by lifelines."""
    out = []
    for opened, gone, before in zip(entries[..., 0], dead[..., 0], prior[..., 0], strict=True):
        alive = opened - gone
        censored = alive - np.append((opened - before)[1:], 0)
        weight = np.concatenate([gone - before, censored])
        time_, event = np.tile(HOURS, 2), np.repeat([1, 0], HOURS.size)
        some = weight > 0
        fitted = lifelines.KaplanMeierFitter().fit(time_[some], event[some], weights=weight[some])
        curve = fitted.survival_function_at_times(HOURS).to_numpy()
        mean = restricted_mean_survival_time(fitted, t=HOURS[-1])
        out.append((curve, fitted.median_survival_time_, mean))
    return out


def check(found: Analysis, fitted: list[tuple[np.ndarray, float, float]]) -> None:
    """The same numbers."""
    for i, (curve, median, mean) in enumerate(fitted):
        np.testing.assert_allclose(found.survival[i, :, 0], curve, rtol=1e-9)
        np.testing.assert_allclose(found.mean.upper[i, -1, 0], mean, rtol=1e-9)
        np.testing.assert_equal(np.nan_to_num(found.median.by[i, 0], nan=np.inf), median)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=300, help="scenarios that lifelines fits")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    counts = counts_of(asked.scenarios)
    n = min(asked.sample, asked.scenarios)
    sample = [values[:n] for values in counts]
    check(analyse(HOURS, *sample), loop(*sample))
    ours, all_ours = best(lambda: analyse(HOURS, *counts)), best(lambda: everything(*counts))
    theirs = best(lambda: loop(*sample), repeat=2) * asked.scenarios / n
    print(f"{platform.machine()}, numpy {np.__version__}, lifelines {lifelines.__version__}, one thread")
    print(f"{asked.scenarios:,} scenarios × {HOURS.size} horizons, same numbers as lifelines in {n:,} of them")
    print(f"Kaplan–Meier, hazards, median, restricted means   {1e3 * ours:8.1f} ms")
    print(f"  with competing ends, margin calls, conditional  {1e3 * all_ours:8.1f} ms")
    print(f"lifelines, one scenario after another (× {asked.scenarios / n:.0f})      {1e3 * theirs:8.0f} ms")
    print(f"ratio {theirs / ours:,.0f}")


if __name__ == "__main__":
    main()
