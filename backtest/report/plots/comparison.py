"""Survival against leverage at one horizon, a curve per value of an axis: exchanges, sides, portfolios side by side."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.plots import style
from backtest.report.scenario_selection import ScenarioKeys, horizons, leverages, matching, select, select_part, varying

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

LABEL_WIDTH = 24
UNLIKE = (0, 3, 2, 4, 5, 1)
"""Indices of `OKABE_ITO` in an order in which neighbours look unlike."""


def plot_compared(
    table: pd.DataFrame,
    axis: str,
    *,
    horizon: str | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Survival against leverage at one horizon: one curve per value of an axis, its interval as a band.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    axis : str
        What is compared, such as ``"side"``, ``"maintenance"``, ``"funding"``; of portfolios ``"symbol"``.
    horizon : str, optional
        Matched by duration; the longest of the run by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`, without `axis`; the first of each other axis by default.

    Returns
    -------
    Axes
        A curve ends where no position could be opened; dashed where there are too few blocks for an interval.

    Raises
    ------
    ConfigError
        The axis has a single value, is chosen too, or is none of the run.
    """
    several = varying(table)
    if axis not in several:
        raise ConfigError(f"axis must be one with several values, {', '.join(several) or 'none here'}; got {axis!r}")
    if scenario.get(axis) is not None:
        raise ConfigError(f"{axis}: its values are compared, none can be chosen; got {scenario.get(axis)!r}")
    text = list(horizons(table, horizon))[-1]
    values = several[axis]
    columns = tuple(values[0][1])
    rows = matching(select(table, every=columns, **scenario), "horizon", text)
    curves = {words: select_part(rows, part).sort_values("leverage") for words, part in values}
    with style.styled():
        ax = style.make_axes(ax)
        palette = [style.OKABE_ITO[k] for k in UNLIKE[: len(curves)]] if len(curves) <= len(UNLIKE) else None
        ends = style.draw_curves(ax, curves, "leverage", palette=palette)
        style.leverage_axis(ax, leverages(rows))
        style.survival_axis(ax, list(curves.values()), leave_out=columns)
        style.title(ax, rows, leave_out=columns, also=[f"held {text}"])
        labels = ["\n".join(line for leg in end[0].split(", ") for line in wrap(leg, LABEL_WIDTH)) for end in ends]
        ends = [(label, x, y, colour) for label, (_, x, y, colour) in zip(labels, ends, strict=True)]
        style.end_labels(ax, ends, axis.replace("_", " "))
    return ax
