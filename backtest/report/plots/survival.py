"""Survival of one scenario: against leverage, over time, both at once, and against the initial margin rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backtest.report.plots import style
from backtest.report.scenario_selection import (
    ScenarioKeys,
    curves_by_horizon,
    curves_by_leverage,
    horizons,
    leverages,
    select,
)

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes


def plot_leverage(
    table: pd.DataFrame,
    *,
    horizon: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Survival against leverage: one curve per horizon, its interval as a band.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    horizon : str or sequence of str, optional
        The horizons to draw, matched by duration; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Returns
    -------
    Axes
        Dashed where the history holds too few blocks for a reliable interval.
    """
    rows = select(table, **scenario)
    curves = curves_by_horizon(rows, horizon)
    with style.styled():
        ax = style.make_axes(ax)
        ends = style.draw_curves(ax, curves, "leverage")
        style.leverage_axis(ax, leverages(rows))
        style.survival_axis(ax, list(curves.values()))
        style.end_labels(ax, ends, "held for")
    return ax


def plot_heatmap(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Survival as colour over leverage and horizon, with lines at 99, 95, 90 and 50 %.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Returns
    -------
    Axes
        Hatched where no position was counted; a horizon with too few blocks says so beside its row.
    """
    rows = select(table, **scenario)
    shown, grid = horizons(rows), leverages(rows)
    values = rows.pivot(index="horizon", columns="leverage", values="survival").reindex(index=list(shown), columns=grid)
    few = (rows["few_blocks"] & rows["survival"].notna()).groupby(rows["horizon"]).any()
    with style.styled():
        ax = style.make_axes(ax)
        style.draw_heatmap(ax, grid, values.to_numpy(dtype=float))
        style.leverage_axis(ax, grid)
        ax.set_xlim(*style.edges(grid)[[0, -1]])
        ax.set_yticks(range(len(shown)), [f"{text}\nfew blocks" if few[text] else text for text in shown])
        ax.tick_params(axis="y", length=0)
        ax.set_ylabel("held for")
        style.title(ax, rows)
    return ax


def plot_curves(
    table: pd.DataFrame,
    *,
    leverage: float | Sequence[float] | None = None,
    horizon: str | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Survival over time, Kaplan–Meier over the run's horizons: one curve per leverage.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    leverage : float or sequence of float, optional
        The leverages to draw; those of 2, 3, 5, 10, 20, 50 that the run has by default.
    horizon : str, optional
        The last horizon to draw; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Returns
    -------
    Axes
        The band is the interval of each horizon's cohort; dashed where there are too few blocks for one.
    """
    rows = select(table, **scenario)
    shown = horizons(rows)
    if horizon is not None:
        (last,) = horizons(rows, horizon).values()
        shown = {text: ms for text, ms in shown.items() if ms <= last}
    rows = rows[rows["horizon"].isin(list(shown))].assign(after_ms=rows["horizon"].map(shown))
    curves = curves_by_leverage(rows, leverage)
    with style.styled():
        ax = style.make_axes(ax)
        ends = style.draw_curves(ax, curves, "after_ms", "survival_km")
        style.time_axis(ax, shown)
        style.survival_axis(ax, list(curves.values()))
        style.end_labels(ax, ends, "leverage")
    return ax


def plot_required_margin(
    table: pd.DataFrame,
    *,
    horizon: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Distribution of the required margin rate, the smallest initial margin rate that survives (docs/semantics.md §3).

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``; the distribution is known at the margin rates 1/leverage of its grid.
    horizon : str or sequence of str, optional
        The horizons to draw, matched by duration; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Returns
    -------
    Axes
        Share of entries whose required margin rate is below the one on the axis, one curve per horizon.
    """
    rows = select(table, **scenario).assign(margin_rate=lambda frame: 1 / frame["leverage"])
    curves = curves_by_horizon(rows, horizon)
    with style.styled():
        ax = style.make_axes(ax)
        ends = style.draw_curves(ax, curves, "margin_rate")
        style.margin_axis(ax, leverages(rows))
        style.survival_axis(ax, list(curves.values()))
        ax.set_ylabel("needed no more")
        style.end_labels(ax, ends, "held for")
    return ax
