"""Simulate fixed-b critical values of the Bartlett kernel and write ``backtest/fixed_b.csv``.

The statistic is |W(1)| / sqrt(Q(b)), Q(b) = 2/b · (∫ B² dr − ∫_0^{1−b} B(r) B(r+b) dr), B the Brownian bridge
(Kiefer and Vogelsang 2005). Run: ``python benchmarks/fixed_b.py`` (about two minutes).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

LEVELS = (0.5, 0.8, 0.98, 0.99, 0.995, 0.999)
BANDWIDTHS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
STEPS = 1000
BATCH = 2_000
BATCHES = 100


def denominators(rng: np.random.Generator) -> np.ndarray:
    """(n_bandwidths, BATCH) draws of sqrt(Q(b)), independent of W(1)."""
    shocks = rng.standard_normal((BATCH, STEPS)) / np.sqrt(STEPS)
    walk = np.cumsum(shocks, axis=1)
    bridge = walk - walk[:, -1:] * (np.arange(1, STEPS + 1) / STEPS)
    square = (bridge**2).mean(axis=1)
    out = np.empty((len(BANDWIDTHS), BATCH))
    for i, b in enumerate(BANDWIDTHS):
        lag = round(b * STEPS)
        cross = (bridge[:, : STEPS - lag] * bridge[:, lag:]).sum(axis=1) / STEPS
        out[i] = np.sqrt(2 / b * (square - cross))
    return out


def critical(draws: np.ndarray, level: float) -> float:
    """The c at which |W(1)| exceeds c·sqrt(Q) with probability 1 − level: W(1) is integrated out, not drawn."""
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        beyond = 2 * ndtr(-middle * draws).mean()
        low, high = (middle, high) if beyond > 1 - level else (low, middle)
    return low


def main() -> None:
    """Write the table, b = 0 by the normal quantile."""
    rng = np.random.default_rng(2005)
    draws = np.concatenate([denominators(rng) for _ in range(BATCHES)], axis=1)
    lines = ["confidence,b,critical_value"]
    for level in LEVELS:
        lines.append(f"{level},0,{ndtri(0.5 + level / 2):.4f}")
        lines += [f"{level},{b},{critical(draws[i], level):.4f}" for i, b in enumerate(BANDWIDTHS)]
    target = Path(__file__).parents[1] / "backtest" / "fixed_b.csv"
    target.write_text("\n".join(lines) + "\n")
    for i, b in enumerate(BANDWIDTHS):
        printed = 1.96 + 2.9694 * b + 0.416 * b**2 - 0.5324 * b**3
        print(f"95 %, b = {b}: simulated {critical(draws[i], 0.95):.3f}, printed {printed:.3f}")


if __name__ == "__main__":
    main()
