"""lifelines' Kaplan–Meier with its interval, scenario by scenario; run by `peers.py` in its environment.

Each fit takes weighted records, a death and a censoring for every horizon, not one record per position; they are
prepared before the clock starts.
"""

from __future__ import annotations

import sys

import numpy as np
from lifelines import KaplanMeierFitter
from numpy.typing import NDArray

from benchmarks.peers_answers import timed, versions

Float = NDArray[np.float64]
Records = tuple[Float, NDArray[np.bool_], NDArray[np.int64]]


def records(hours: Float, entries: NDArray[np.int64], dead: NDArray[np.int64], prior: NDArray[np.int64]) -> Records:
    """Durations, whether they ended in a death, and how many there are of each, of one scenario."""
    censored = entries - dead - np.append((entries - prior)[1:], 0)
    weight = np.concatenate([dead - prior, censored])
    some = weight > 0
    return np.tile(hours, 2)[some], np.repeat([True, False], hours.size)[some], weight[some]


def main() -> None:
    """Answer the counts of the first argument into the second."""
    with np.load(sys.argv[1]) as counts:
        hours, tables = counts["hours"], [counts[name] for name in ("entries", "dead", "prior")]
    prepared = [records(hours, *scenario) for scenario in zip(*tables, strict=True)]
    fit = lambda given: KaplanMeierFitter().fit(given[0], given[1], weights=given[2])  # noqa: E731
    fit(prepared[0])
    seconds, fits = timed(lambda: [fit(given) for given in prepared])
    survival = np.array([one.survival_function_at_times(hours).to_numpy() for one in fits])
    at = [np.searchsorted(one.timeline, hours, side="right") - 1 for one in fits]
    spread = np.array([one._cumulative_sq_.to_numpy()[i] for one, i in zip(fits, at, strict=True)])
    names = ["lifelines", "numpy", "pandas"]
    np.savez(sys.argv[2], seconds=seconds, versions=versions(names), survival=survival, error=survival * spread**0.5)


if __name__ == "__main__":
    main()
