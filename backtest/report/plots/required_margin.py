"""Survival against any leverage, from the distribution of required margins rather than a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.plots import style
from backtest.report.scenario_selection import ScenarioKeys, horizons, matching, select

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes


def plot_required(
    frame: pd.DataFrame,
    *,
    horizon: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Share of the entries that live against leverage: a step curve per horizon, rejected entries counted as lost.

    Parameters
    ----------
    frame : DataFrame
        As of `backtest.required_margin`. Between two of its leverages the curve stands at the share that is certain, so
        ask for many quantiles, such as ``np.linspace(0.005, 1, 200)``.
    horizon : str or sequence of str, optional
        The horizons to draw, matched by duration; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        The frame has not the columns of `backtest.required_margin`, or no leverage that could be drawn.
    """
    import numpy as np

    if "required_margin" not in frame.columns:
        raise ConfigError("frame must be that of backtest.required_margin; a run's table is drawn by plot_leverage")
    rows = select(frame, **scenario)
    shown = horizons(rows, horizon)
    rows = rows[rows["horizon"].isin(list(shown)) & np.isfinite(rows["leverage"])]
    if rows.empty:
        raise ConfigError("frame must hold a leverage above which entries are lost; every one is null or unbounded")
    low, high = float(rows["leverage"].min()), float(rows["leverage"].max())
    with style.styled():
        ax = style.make_axes(ax)
        ends = []
        for text, colour in zip(shown, style.colours(len(shown)), strict=True):
            curve = matching(rows, "horizon", text).sort_values("leverage")
            if curve.empty:
                continue
            first = float(curve["survival"].iloc[0])
            at, share = style.floats(curve, "leverage", low), style.floats(curve, "survival", first)
            ax.plot(at, share, color=colour, drawstyle="steps-pre", zorder=3)
            ends.append((text, *style.last_point(curve, "leverage", "survival"), colour))
        ends_at = [float(f"{value:.2g}") for value in (low, high)]
        style.leverage_axis(ax, sorted({*ends_at, *(tick for tick in style.TICKS if 1.3 * low < tick < high / 1.3)}))
        ax.set_xlim(low / 1.02, high * 1.02)
        style.share_axis(ax, float(rows["survival"].min()))
        ax.set_ylabel("survived")
        style.title(ax, rows)
        style.end_labels(ax, ends, "held for")
    return ax
