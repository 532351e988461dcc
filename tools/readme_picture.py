"""Draw the picture of the README from the run of ``backtest demo``: ``python tools/readme_picture.py``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

import backtest as bt

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Survival against leverage, and over time at a few leverages."""
    result = bt.load(ROOT / "runs" / "demo")
    figure = Figure(figsize=(13, 4.8), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    result.plot.leverage(side="long", ax=left)
    result.plot.heatmap(side="long", ax=right)
    figure.savefig(ROOT / "docs" / "survival.png", dpi=110)


if __name__ == "__main__":
    main()
