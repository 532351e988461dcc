"""What a dataset covers over time: last, mark and funding of every series, its gaps and its warnings, on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.data.quality.report import CAP
from backtest.report.plots import style as drawing
from backtest.units import instant_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backtest.arrays import Float
    from backtest.data.quality.coverage import Coverage, Timeline
    from backtest.data.quality.report import DataWarning, Report

GAP, WARNING = drawing.OKABE_ITO[4], drawing.OKABE_ITO[5]
TOP, BOTTOM, BETWEEN = -0.36, 0.38, 0.04
"""Of the lanes in a row, which is 1 high and has its middle at 0, and the space between two."""
WIDTH, TALLEST, LOWEST = 11.0, 0.9, 0.26
"""Inches: of the page, of the row of a single series, and of each of many."""
DAY_MS = 86_400_000


def plot_coverage(report: Report, *, ax: Axes | None = None) -> Axes:
    """One row of time per series: where there are prices, mark prices and charges, where gaps, and what looks wrong.

    Parameters
    ----------
    report : Report
        As `backtest.check` returns it.
    ax : Axes, optional
        Where to draw; a new Figure, as high as the series need, by default.

    Returns
    -------
    Axes
        A lane is paler where more bars are missing. A triangle stands above the middle of the bars that
        a warning is about; those that the report only counts have none.
    """
    count = max(len(report.timelines), 1)
    height = max(LOWEST, TALLEST / count**0.5)
    with drawing.styled():
        if ax is None:
            ax = drawing.new_axes(1, (WIDTH, 1.3 + height * count))[0]
        small = max(6.5, min(10.0, 36 * height))
        kinds = [kind for kind in KINDS if any(kind.share(line).any() for line in report.timelines)]
        labels, notes = [], []
        for row, (line, covered) in enumerate(zip(report.timelines, report.coverage, strict=True)):
            of_it = [one for one in report.warnings if (one.symbol, one.interval) == (line.symbol, line.interval)]
            _draw_lanes(ax, row, line, kinds)
            _draw_warnings(ax, row, of_it)
            labels.append(f"{line.symbol} {line.interval}")
            notes.append(_note(covered, [one for one in of_it if one.column is not None]))
        _axes(ax, report.timelines, labels, small)
        for row, note in enumerate(notes):
            ax.annotate(
                note, (1, row), (6, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points", va="center",
                fontsize=small, annotation_clip=False,
            )  # fmt: skip
        _legend(ax, kinds, report)
    return ax


@dataclass(frozen=True)
class _Kind:
    label: str
    colour: str
    share: Callable[[Timeline], Float]


KINDS = (
    _Kind("last", drawing.OKABE_ITO[0], lambda line: line.last),
    _Kind("mark", drawing.OKABE_ITO[2], lambda line: line.mark),
    _Kind("funding", drawing.OKABE_ITO[3], lambda line: (line.charges > 0).astype(float)),
)


def _days(ms: float) -> float:
    return ms / DAY_MS


def _draw_lanes(ax: Axes, row: int, line: Timeline, kinds: Sequence[_Kind]) -> None:
    """Those of the kinds that are in the picture at all, from top to bottom; grey where there is nothing."""
    start, end = _days(line.start_ms), _days(line.end_ms)
    height = (BOTTOM - TOP + BETWEEN) / max(len(kinds), 1)
    for lane, kind in enumerate(kinds):
        share = kind.share(line)
        if share.any():
            top = row + TOP + lane * height
            bottom = top + height - BETWEEN
            ax.barh((top + bottom) / 2, end - start, bottom - top, start, color=drawing.INK, alpha=0.15, lw=0)
            colours = _colours(share, kind.colour)
            ax.imshow(colours, extent=(start, end, bottom, top), aspect="auto", interpolation="nearest", zorder=2)


def _colours(share: Float, colour: str) -> Float:
    """(1, n, 4) RGBA, as opaque as the share is large."""
    import numpy as np
    from matplotlib.colors import to_rgb

    alpha = np.where(share > 0, 0.3 + 0.7 * share, 0.0)
    return np.concatenate([np.broadcast_to(to_rgb(colour), (share.size, 3)), alpha[:, None]], axis=1)[None]


def _draw_warnings(ax: Axes, row: int, warnings: Sequence[DataWarning]) -> None:
    """Gaps as hatched boxes, those that concern a column as triangles."""
    at = []
    for one in warnings:
        first, last = _days(instant_ms(one.first)), _days(instant_ms(one.last))
        if one.column is None:
            ax.fill_betweenx(
                [row - 0.42, row + 0.42], first, last, facecolor="none", edgecolor=GAP, hatch="////", lw=1.0, zorder=3
            )
        else:
            at.append((first + last) / 2)
    ax.plot(at, [row - 0.44] * len(at), ls="", marker="v", ms=5, color=WARNING, mec="black", mew=0.4, zorder=4)


def _note(covered: Coverage, warnings: Sequence[DataWarning]) -> str:
    """What stands to the right of a row."""
    if not covered.bars:
        return "no bar that can be entered"
    share = 100 * min(1 - covered.missing / covered.bars, 0.9999)
    parts = [f"{share:.2f} % of {covered.bars:,} bars" if covered.missing else "complete"]
    if covered.gaps:
        parts.append(f"{covered.gaps:,} gap{'s' * (covered.gaps != 1)}")
    if warnings:
        capped = max(Counter(one.rule for one in warnings).values()) >= CAP
        parts.append(f"{len(warnings):,}{'+' * capped} warning{'s' * (len(warnings) != 1)}")
    return ", ".join(parts)


def _axes(ax: Axes, lines: tuple[Timeline, ...], labels: list[str], small: float) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first = min((_days(line.start_ms) for line in lines), default=0.0)
    last = max((_days(line.end_ms) for line in lines), default=1.0)
    margin = 0.005 * (last - first)
    ax.set_xlim(first - margin, last + margin)
    ax.set_ylim(max(len(lines), 1) - 0.5, -0.6)
    ax.set_yticks(range(len(labels)), labels, fontsize=small)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.grid(visible=True, axis="x", color=drawing.INK, alpha=0.2, lw=0.6)
    ax.set_xlabel("open time, UTC")


def _legend(ax: Axes, kinds: Sequence[_Kind], report: Report) -> None:
    """Only what is in the picture."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=kind.colour, label=kind.label) for kind in kinds]
    if any(one.column is None for one in report.warnings):
        handles.append(Patch(facecolor="none", edgecolor=GAP, hatch="////", label="gap"))
    if any(one.column is not None for one in report.warnings):
        style: dict[str, Any] = {"ls": "", "marker": "v", "color": WARNING, "mec": "black", "mew": 0.4}
        handles.append(Line2D([], [], **style, label="warning"))
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0.2)
