"""The picture of docs/scaling.md: time and peak memory against each axis, with the fitted line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from benchmarks.scaling import Model, Result

MIB = 1 << 20
INK, LINE, TIME, MEMORY = "#222222", "#9a9a9a", "#1f5fa8", "#b2501f"


def position(result: Result, axis: str) -> float:
    """Where a run stands on an axis."""
    case = result.case
    values = {
        "bars": case.bars,
        "symbols": case.symbols,
        "entries": case.size.bars / case.size.every,
        "maintenance rates": case.maintenance,
        "fundings": case.fundings,
        "fees": case.fees,
        "horizons": len(case.horizons),
        "longest horizon": case.size.longest,
        "leverages": case.leverages,
        "workers": case.workers,
    }
    return float(values[axis])


NOT_DRAWN = ("long windows", "outcomes", "--memory")
"""In which more than one thing changes."""
WORDS = {
    "bars": "bars of each of 2 symbols",
    "entries": "entries of each symbol",
    "longest horizon": "longest horizon, bars",
}


def draw(results: Sequence[Result], model: Model, file: Path) -> None:
    """Two rows of small pictures: seconds above, memory below."""
    base = results[0]
    axes = list(dict.fromkeys(r.case.axis for r in results if r.case.axis not in ("base", *NOT_DRAWN)))
    half = -(-len(axes) // 2)
    figure = Figure(figsize=(2.55 * half, 10.5), facecolor="white", layout="constrained")
    panels = figure.subplots(4, half, squeeze=False)
    for panel in panels.flat[:]:
        panel.set_visible(False)
    for n, axis in enumerate(axes):
        runs = [r for r in results if r.case.axis == axis and not r.refused]
        runs = sorted([base, *runs], key=lambda r: position(r, axis))
        at = [position(run, axis) for run in runs]
        top, column = 2 * (n // half), n % half
        found = {
            top: ([r.seconds for r in runs], model.seconds([r.case.size for r in runs]), TIME, "seconds"),
            top + 1: (
                [r.peak_bytes / MIB for r in runs],
                [model.peak_bytes(r.case.size) / MIB for r in runs],
                MEMORY,
                "peak MiB",
            ),
        }
        for row, (measured, modelled, colour, label) in found.items():
            panel = panels[row, column]
            panel.set_visible(True)
            panel.plot(at, modelled, color=LINE, linewidth=1.6, label="model", zorder=1)
            panel.plot(at, measured, "o", color=colour, markersize=5, label="measured", zorder=2)
            panel.set_ylim(0, 1.15 * max(*measured, *modelled))
            if max(at) > 8 * min(at):
                panel.set_xscale("log")
            panel.minorticks_off()
            panel.set_xticks(at, [_tick(value) for value in at])
            panel.tick_params(labelsize=8, colors=INK)
            panel.spines[["top", "right"]].set_visible(False)
            if column == 0:
                panel.set_ylabel(label, fontsize=9, color=INK)
                panel.legend(fontsize=8, frameon=False, loc="lower right")
            if row == top:
                panel.set_title(WORDS.get(axis, axis), fontsize=9.5, color=INK)
    figure.savefig(file, dpi=110)


def _tick(value: float) -> str:
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:g}"
