"""Simulate fixed-b critical values of the Bartlett kernel and write ``backtest/fixed_b.csv``.

The statistic is |W(1)| / sqrt(Q(b)), Q(b) = 2/b · (∫ B² dr − ∫_0^{1−b} B(r) B(r+b) dr), B the Brownian bridge
(Kiefer and Vogelsang 2005). Run: ``python benchmarks/fixed_b.py`` (about two minutes).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

LEVELS = (0.5, 0.8, 0.98, 0.99, 0.995, 0.999)
BANDWIDTHS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
STEPS = 1000
BATCH = 2_000
BATCHES = 150


def statistics(rng: np.random.Generator) -> np.ndarray:
    """(n_bandwidths, BATCH) draws of the statistic."""
    shocks = rng.standard_normal((BATCH, STEPS)) / np.sqrt(STEPS)
    walk = np.cumsum(shocks, axis=1)
    end = walk[:, -1]
    bridge = walk - end[:, None] * (np.arange(1, STEPS + 1) / STEPS)
    square = (bridge**2).mean(axis=1)
    out = np.empty((len(BANDWIDTHS), BATCH))
    for i, b in enumerate(BANDWIDTHS):
        lag = round(b * STEPS)
        cross = (bridge[:, : STEPS - lag] * bridge[:, lag:]).sum(axis=1) / STEPS
        out[i] = np.abs(end) / np.sqrt(2 / b * (square - cross))
    return out


def main() -> None:
    """Write the table, b = 0 by the normal quantile."""
    from scipy.special import ndtri

    rng = np.random.default_rng(2005)
    draws = np.concatenate([statistics(rng) for _ in range(BATCHES)], axis=1)
    lines = ["confidence,b,critical_value"]
    for level in LEVELS:
        lines.append(f"{level},0,{ndtri(0.5 + level / 2):.4f}")
        lines += [
            f"{level},{b},{value:.4f}" for b, value in zip(BANDWIDTHS, np.quantile(draws, level, axis=1), strict=True)
        ]
    target = Path(__file__).parents[1] / "backtest" / "fixed_b.csv"
    target.write_text("\n".join(lines) + "\n")
    check = np.quantile(draws, 0.95, axis=1)
    for b, value in zip(BANDWIDTHS, check, strict=True):
        print(f"95 %, b = {b}: simulated {value:.3f}, printed {1.96 + 2.9694 * b + 0.416 * b**2 - 0.5324 * b**3:.3f}")


if __name__ == "__main__":
    main()
