"""Style, scales, curves and labels that the plots share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from backtest.errors import ConfigError
from backtest.report.labels import scenario_words
from backtest.report.number_format import times_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from backtest.arrays import Float

INK = "#757575"  # contrast 4.6 on white, 3.9 on near-black
STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 10,
    "hatch.color": INK,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
OKABE_ITO = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
LEVELS = (0.5, 0.9, 0.95, 0.99)
TITLE_WIDTH = 78
CurveEnd = tuple[str, float, float, str]
"""Label, x, y and colour of a curve at its last known point."""
TICKS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


def styled() -> AbstractContextManager[None]:
    """The plots' look, for as long as the context lasts."""
    import matplotlib

    settings: Any = STYLE
    return matplotlib.rc_context(settings)


def make_axes(ax: Axes | None) -> Axes:
    """The user's Axes, or those of a new Figure that pyplot does not know of."""
    return new_axes(1, (7, 4.5))[0] if ax is None else ax


def new_axes(count: int, size: tuple[float, float]) -> list[Axes]:
    """Axes one above the other, of a new Figure that pyplot does not know of."""
    from matplotlib.axes import Axes as Plain
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")

    class Shown(Plain):
        """Axes that a notebook shows as a picture when they are the value of a cell."""

        def _repr_png_(self) -> bytes:
            return encode_png(self)

    return [figure.add_subplot(count, 1, row + 1, axes_class=Shown) for row in range(count)]


def encode_png(ax: Axes) -> bytes:
    """The Figure of an Axes as a PNG on a white ground, which reads on light and dark pages."""
    out = BytesIO()
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(out, format="png", dpi=110, facecolor="white")
    return out.getvalue()


def save_plot(ax: Axes, path: str) -> None:
    """Write the Figure of an Axes on a white ground."""
    if not path.endswith((".png", ".svg", ".pdf")):
        raise ConfigError(f"--plot must end in .png, .svg or .pdf; got {path!r}")
    ax.get_figure(root=True).savefig(path, dpi=150, facecolor="white")  # type: ignore[union-attr]


def floats(rows: pd.DataFrame, column: str, first: float | None = None) -> Float:
    """A column as float64, with a value put before it where one is given."""
    import numpy as np

    values = rows[column].to_numpy(dtype=float)
    return values if first is None else np.concatenate([[first], values])


def colours(count: int) -> list[str]:
    """As many colours, ordered and safe for colour-blind readers, that show on white and on black."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    return [to_hex(colormaps["viridis"](0.3 + 0.6 * k / (count - 1))) for k in range(count)]


def draw_curve(ax: Axes, rows: pd.DataFrame, x: str, y: str, colour: str, alpha: float = 0.13) -> None:
    """One curve with its band; dashed on either side of a point that has too few blocks.

    Over time (`after_ms`) it starts at 100 % at 0.

    Parameters
    ----------
    alpha : float
        How opaque the band is.
    """
    import numpy as np

    start = 0.0 if x == "after_ms" else None
    top = None if start is None else 1.0
    at, share = floats(rows, x, start), floats(rows, y, top)
    few = np.concatenate([np.zeros(0 if start is None else 1, bool), rows["few_blocks"].to_numpy(dtype=bool)])
    beside = few | np.append(few[1:], False) | np.append(False, few[:-1])
    ax.fill_between(
        at, floats(rows, "survival_low", top), floats(rows, "survival_high", top), color=colour, alpha=alpha, lw=0
    )
    marker = "o" if len(at) <= 15 else ""
    ax.plot(at, np.where(few, np.nan, share), color=colour, marker=marker, ms=3.5, zorder=3)
    if few.any():
        dashed = np.where(beside, share, np.nan)
        ax.plot(at, dashed, color=colour, ls=(0, (3, 2)), marker=marker, ms=3.5, zorder=3)


def draw_curves(
    ax: Axes,
    curves: Mapping[str, pd.DataFrame],
    x: str,
    y: str = "survival",
    palette: Sequence[str] | None = None,
    alpha: float = 0.13,
) -> list[CurveEnd]:
    """A curve with its band for each label, and where each ends, for `end_labels`."""
    ends = []
    for (text, rows), colour in zip(curves.items(), palette or colours(len(curves)), strict=True):
        draw_curve(ax, rows, x, y, colour, alpha)
        ends.append((text, *last_point(rows, x, y), colour))
    return ends


def end_labels(ax: Axes, ends: Sequence[CurveEnd], heading: str) -> None:
    """Labels in a column on the right, apart from each other, each tied to its curve's end."""
    bottom, top = ax.get_ylim()
    drawn = sorted((end for end in reversed(ends) if not math.isnan(end[2])), key=lambda end: round(end[2], 3))
    heights = [0.052 * (top - bottom) * (1 + end[0].count("\n")) for end in drawn]
    gaps = [(one + other) / 2 for one, other in pairwise(heights)]
    placed = [y for _, _, y, _ in drawn]
    for k, gap in enumerate(gaps):
        placed[k + 1] = max(placed[k + 1], placed[k] + gap)
    ceiling = top - 0.02 * (top - bottom)
    for k in range(len(placed) - 1, -1, -1):
        placed[k] = min(placed[k], ceiling)
        ceiling = placed[k] - (gaps[k - 1] if k else 0)
    for (text, x, y, colour), height in zip(drawn, placed, strict=True):
        across = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))[0]
        line = "-" if across > 0.9 else ":"  # a long one would look like a part of the curve
        ax.annotate(
            text,
            xy=(x, y),
            xytext=(1.045, height),
            textcoords=ax.get_yaxis_transform(),
            va="center",
            color=INK,
            arrowprops={"arrowstyle": "-", "color": colour, "ls": line, "lw": 1.2, "relpos": (0, 0.5)}
            | {"shrinkA": 2, "shrinkB": 0},
            annotation_clip=False,
        )
    ax.text(1.045, 1.01, heading, transform=ax.transAxes, va="bottom", color=INK, fontsize="small", alpha=0.9)


def survival_axis(ax: Axes, curves: Sequence[pd.DataFrame], leave_out: Collection[str] = ()) -> None:
    """Percent upwards to 100, from 0 unless all that is shown stays far above; the scenario as the title.

    leave_out : axes that the title does not speak of
    """
    from matplotlib.lines import Line2D

    lows = [float(rows["survival_low"].min()) for rows in curves]
    least = min((low for low in lows if not math.isnan(low)), default=0.0)
    share_axis(ax, least)
    ax.set_ylabel("survived")
    if any((rows["few_blocks"] & rows["survival"].notna()).any() for rows in curves):
        handle = Line2D([], [], color=INK, ls=(0, (3, 2)), label="few blocks: interval says little")
        ax.legend(handles=[handle], loc="lower left")
    title(ax, curves[0], leave_out)


def share_axis(ax: Axes, least: float | None = None) -> None:
    """Percent with a line at each tick; of shares whose smallest is given up to 100, else as wide as what is drawn."""
    if least is not None:
        bottom = 0.0 if least < 0.6 else 0.1 * int(10 * least - 0.5)
        ax.set_ylim(bottom, 1 + 0.015 * (1 - bottom))
    ax.yaxis.set_major_formatter(percent_tick)
    ax.grid(visible=True, axis="y", color=INK, alpha=0.25, lw=0.6)


def title(ax: Axes, rows: pd.DataFrame, leave_out: Collection[str] = (), also: Sequence[str] = ()) -> None:
    """The scenario in words, broken between its parts where it is long, and inside a part that fills a line alone.

    leave_out : axes that are not spoken of; also : what is said besides
    """
    lines = [""]
    for part in [*scenario_words(rows, leave_out).split(" · "), *also]:
        pieces = part.split(", ") if len(part) > TITLE_WIDTH else [part]
        for k, piece in enumerate(pieces):
            end = " · " if k == len(pieces) - 1 else ", "
            if lines[-1] and len(lines[-1]) + len(piece) > TITLE_WIDTH:
                lines.append("")
            lines[-1] += piece + end
    text = "\n".join(line.rstrip() for line in lines).removesuffix(" ·")
    ax.set_title(text, loc="left", fontsize=10, pad=12, color=INK, parse_math=False)


def leverage_axis(ax: Axes, values: Sequence[float]) -> None:
    """Leverage on a log scale where the grid spans a factor of four, ticks at numbers people use."""
    low, high = values[0], values[-1]
    if high / low >= 4:
        ax.set_xscale("log")
    ticks = [tick for tick in TICKS if low <= tick < high / 1.3] if len(values) > 8 else list(values[:-1])
    ax.set_xticks([*ticks, high], [times_text(tick) for tick in [*ticks, high]])
    ax.minorticks_off()
    ax.set_xlabel("leverage")
    if low < high:
        margin = (high / low) ** 0.01 if high / low >= 4 else 1.01
        ax.set_xlim(low / margin, high * margin)


def margin_axis(ax: Axes, leverages: Sequence[float]) -> None:
    """Margin rates 1/leverage in percent, from the largest down, so that leverage grows to the right."""
    low, high = 1 / leverages[-1], 1 / leverages[0]
    if high / low >= 4:
        ax.set_xscale("log")
    round_ones = (tick for tick in TICKS if tick != 3)  # 33.3 % is none, and runs into 50 %
    ticks = [1 / tick for tick in round_ones if leverages[0] <= tick < leverages[-1] / 1.3] or [high]
    ax.set_xticks([*ticks, low], [f"{tick:.3g} %" for tick in (100 * rate for rate in [*ticks, low])])
    ax.minorticks_off()
    ax.set_xlabel("initial margin rate")
    ax.set_xlim(high * 1.02, low / 1.02)


def time_axis(ax: Axes, shown: dict[str, int]) -> None:
    """Time from 0 on a log scale (linear up to the first horizon), ticks at the configured horizons.

    shown : ascending; one too near to the next has a tick without a label
    """
    ax.set_xscale("symlog", linthresh=min(shown.values()), linscale=0.4)
    room = 0.055 * (0.5 + math.log10(max(shown.values()) / min(shown.values())))
    labels: list[str] = []
    last = math.inf
    for text, ms in reversed(shown.items()):
        far = last - math.log10(ms) > room
        last = math.log10(ms) if far else last
        labels.append(text if far else "")
    ax.set_xticks([0, *shown.values()], ["0", *reversed(labels)])
    ax.minorticks_off()
    ax.set_xlabel("time since entry")
    ax.set_xlim(-0.03 * min(shown.values()), 1.05 * max(shown.values()))


def edges(values: Sequence[float]) -> Float:
    """Cell borders halfway between leverages, as ratios: (n + 1,)."""
    import numpy as np

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) == 1:
        return cast("Float", np.exp(logs[0] + np.array([-0.2, 0.2])))
    middle = (logs[1:] + logs[:-1]) / 2
    return cast("Float", np.exp(np.r_[2 * logs[0] - middle[0], middle, 2 * logs[-1] - middle[-1]]))


def draw_heatmap(ax: Axes, values: Sequence[float], survival: Float) -> None:
    """Survival (horizon, leverage) as colour, with contour lines and a colour bar; hatched where it is null."""
    import numpy as np

    count = len(survival)
    ax.axhspan(-0.5, count - 0.5, facecolor="none", edgecolor=INK, hatch="///", lw=0, zorder=0)
    borders = np.arange(count + 1) - 0.5
    cells = np.ma.masked_invalid(survival)
    mesh = ax.pcolormesh(edges(values), borders, cells, cmap="cividis", vmin=0, vmax=1, rasterized=True)
    bar = ax.figure.colorbar(mesh, ax=ax, format=percent_tick, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("survived")
    ax.set_ylim(-0.5, count - 0.5)
    draw_contours(ax, edges(values), survival)


def draw_contours(ax: Axes, borders: Float, survival: Float) -> None:
    """For each of `LEVELS` a line that stands, in every row, where the leverages that all reach it end."""
    import numpy as np
    from matplotlib import colormaps

    count, width = survival.shape
    reach = [np.cumprod(survival >= level, axis=1).sum(axis=1) for level in LEVELS]
    taken: dict[int, list[float]] = {}
    for level, ends in zip(LEVELS, reach, strict=True):
        inside = [
            row for row in range(count) if 0 < ends[row] < width and not np.isnan(survival[row, ends[row]])
        ]  # other lines would run along the frame
        if not inside:
            continue
        at = borders[ends]
        points = [(at[0], -0.5 if 0 in inside else np.nan)]
        for row in range(count):
            points += [(at[row], row - 0.3 if {row - 1, row} & {*inside} else np.nan)]
            points += [(at[row], row if row in inside else np.nan)]
            points += [(at[row], row + 0.3 if {row, row + 1} & {*inside} else np.nan)]
        points += [(at[-1], count - 0.5 if count - 1 in inside else np.nan)]
        ax.plot(*np.transpose(points), color="black", lw=0.9, zorder=3)
        room = [min(abs(np.log(at[row] / x)) for x in (*borders[[0, -1]], *taken.get(row, []))) for row in inside]
        row = inside[int(np.argmax(room))]
        beside = sum(abs(np.log(at[row] / x)) < 0.2 for x in taken.get(row, []))
        taken.setdefault(row, []).append(at[row])
        box = {"facecolor": colormaps["cividis"](level), "edgecolor": "none", "pad": 0.8}
        place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "zorder": 4}
        ax.text(at[row], row - 0.2 * beside, percent_tick(level), color="black", bbox=box, **place)


def percent_tick(share: float, _: object = None) -> str:
    """A tick's label, without decimals unless it has some."""
    return f"{100 * share:.4g} %"


def last_point(rows: pd.DataFrame, x: str, y: str) -> tuple[float, float]:
    """Where a curve ends: its last known point, NaN where it has none."""
    known = rows[rows[y].notna()]
    return (float(known[x].iloc[-1]), float(known[y].iloc[-1])) if len(known) else (float("nan"), float("nan"))
