"""arch's stationary bootstrap of the difference of two survival rates; run by `peers.py` in its environment.

One function gives the differences of all cells, so that a draw is shared by them. The draws are handed back, for the
same differences to be taken of them here.
"""

from __future__ import annotations

import sys

import numpy as np
from arch.bootstrap import StationaryBootstrap
from numpy.typing import NDArray

from benchmarks.peers_answers import timed, versions

Float = NDArray[np.float64]


def difference(opened: Float, dead: Float, other: Float, gone: Float) -> Float:
    """Survival of the second run less that of the first, (n_cells,)."""
    out: Float = dead.sum(axis=0) / opened.sum(axis=0) - gone.sum(axis=0) / other.sum(axis=0)
    return out


def main() -> None:
    """Answer the counts of the first argument into the second."""
    with np.load(sys.argv[1]) as counts:
        series = [np.ascontiguousarray(table.T, np.float64) for part in counts["parts"] for table in part]
        mean, replications, tail = float(counts["mean"]), int(counts["replications"]), float(counts["tail"])
    n_blocks = len(series[0])

    def bounds() -> Float:
        found = StationaryBootstrap(mean, *series, seed=0).apply(difference, replications)
        out: Float = np.quantile(found, [tail, 1 - tail], axis=0)
        return out

    StationaryBootstrap(mean, *series, seed=0).apply(difference, 10)
    seconds, (low, high) = timed(bounds)
    draws = StationaryBootstrap(mean, np.arange(n_blocks), seed=0).bootstrap(replications)
    weight = np.array([np.bincount(positional[0], minlength=n_blocks) for positional, _ in draws])
    np.savez(sys.argv[2], seconds=seconds, versions=versions(["arch", "numpy"]), low=low, high=high, weight=weight)


if __name__ == "__main__":
    main()
