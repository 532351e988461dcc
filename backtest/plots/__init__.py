"""Survival in pictures: against leverage, over time, and both at once.

Each function draws one scenario of a run's table (the columns of ``survival.parquet``) and returns the Axes; without
an `ax` it makes a Figure of its own, outside pyplot's state, so that ``.figure`` is all that is left to show or save.
Background is transparent and ink a middle grey, which read alike on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backtest.plots import drawing
from backtest.plots.scenario import (
    Funding,
    curves_by_leverage,
    horizons,
    leverages,
    scenario_words,
    select,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "Funding",
    "Plots",
    "plot_curves",
    "plot_heatmap",
    "plot_leverage",
    "plot_required_margin",
    "scenario_words",
    "select",
]


def plot_leverage(
    table: pd.DataFrame,
    *,
    symbol: str | None = None,
    side: str | None = None,
    maintenance: float | str | None = None,
    open_fee: float | None = None,
    funding: Funding | None = None,
    size: str | None = None,
    horizon: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Survival against leverage: one curve per horizon, its interval as a band.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    symbol, side, maintenance, open_fee, funding, size : optional
        The scenario, as in `select`; the first of each axis by default.
    horizon : str or sequence of str, optional
        The horizons to draw, matched by duration; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.

    Returns
    -------
    Axes
        Dashed where the history holds too few blocks for an interval worth the name.
    """
    rows = select(
        table, symbol=symbol, side=side, maintenance=maintenance, open_fee=open_fee, funding=funding, size=size
    )
    shown, grid = horizons(rows, horizon), leverages(rows)
    rows = rows[rows["horizon"].isin(list(shown))]
    curves = {text: rows[rows["horizon"] == text].sort_values("leverage") for text in shown}
    with drawing.styled():
        ax = drawing.axes_of(ax)
        ends = []
        for (text, curve), colour in zip(curves.items(), drawing.colours(len(curves)), strict=True):
            drawing.draw_curve(ax, curve, "leverage", "survival", colour)
            ends.append((text, *drawing.last_point(curve, "leverage", "survival"), colour))
        drawing.leverage_axis(ax, grid)
        drawing.survival_axis(ax, list(curves.values()))
        drawing.end_labels(ax, ends, "held for")
    return ax


def plot_heatmap(
    table: pd.DataFrame,
    *,
    symbol: str | None = None,
    side: str | None = None,
    maintenance: float | str | None = None,
    open_fee: float | None = None,
    funding: Funding | None = None,
    size: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Survival as colour over leverage and horizon, with lines at 99, 95, 90 and 50 %.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    symbol, side, maintenance, open_fee, funding, size : optional
        The scenario, as in `select`; the first of each axis by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.

    Returns
    -------
    Axes
        Hatched where no position was counted; a horizon with too few blocks says so beside its row.
    """
    rows = select(
        table, symbol=symbol, side=side, maintenance=maintenance, open_fee=open_fee, funding=funding, size=size
    )
    shown, grid = horizons(rows), leverages(rows)
    values = rows.pivot(index="horizon", columns="leverage", values="survival").reindex(index=list(shown), columns=grid)
    few = rows.groupby("horizon")["few_blocks"].any()
    with drawing.styled():
        ax = drawing.axes_of(ax)
        drawing.draw_cells(ax, grid, values.to_numpy(dtype=float))
        drawing.leverage_axis(ax, grid)
        ax.set_xlim(*drawing.edges(grid)[[0, -1]])
        ax.set_yticks(range(len(shown)), [f"{text}\nfew blocks" if few[text] else text for text in shown])
        ax.tick_params(axis="y", length=0)
        ax.set_ylabel("held for")
        drawing.title(ax, rows)
    return ax


def plot_curves(
    table: pd.DataFrame,
    *,
    symbol: str | None = None,
    side: str | None = None,
    maintenance: float | str | None = None,
    open_fee: float | None = None,
    funding: Funding | None = None,
    size: str | None = None,
    leverage: float | Sequence[float] | None = None,
    horizon: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Survival over time, Kaplan–Meier over the run's horizons: one curve per leverage.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    symbol, side, maintenance, open_fee, funding, size : optional
        The scenario, as in `select`; the first of each axis by default.
    leverage : float or sequence of float, optional
        The leverages to draw; those of 2, 3, 5, 10, 20, 50 that the run has by default.
    horizon : str, optional
        The last horizon to draw; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.

    Returns
    -------
    Axes
        The band is the interval of each horizon's cohort; dashed where there are too few blocks for one.
    """
    rows = select(
        table, symbol=symbol, side=side, maintenance=maintenance, open_fee=open_fee, funding=funding, size=size
    )
    shown = horizons(rows)
    if horizon is not None:
        (last,) = horizons(rows, horizon).values()
        shown = {text: ms for text, ms in shown.items() if ms <= last}
    rows = rows[rows["horizon"].isin(list(shown))].assign(after_ms=rows["horizon"].map(shown))
    curves = curves_by_leverage(rows, leverage)
    with drawing.styled():
        ax = drawing.axes_of(ax)
        ends = []
        for (text, curve), colour in zip(curves.items(), drawing.colours(len(curves)), strict=True):
            drawing.draw_curve(ax, curve, "after_ms", "survival_km", colour)
            ends.append((text, *drawing.last_point(curve, "after_ms", "survival_km"), colour))
        drawing.time_axis(ax, shown)
        drawing.survival_axis(ax, list(curves.values()))
        drawing.end_labels(ax, ends, "leverage")
    return ax


def plot_required_margin(
    table: pd.DataFrame,
    *,
    symbol: str | None = None,
    side: str | None = None,
    maintenance: float | str | None = None,
    open_fee: float | None = None,
    funding: Funding | None = None,
    size: str | None = None,
    horizon: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distribution of the required margin rate, the smallest initial margin rate that survives (semantics.md §3).

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``; the distribution is known at the margin rates 1/leverage of its grid.
    symbol, side, maintenance, open_fee, funding, size : optional
        The scenario, as in `select`; the first of each axis by default.
    horizon : str or sequence of str, optional
        The horizons to draw, matched by duration; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.

    Returns
    -------
    Axes
        Share of entries whose required margin rate is below the one on the axis, one curve per horizon.
    """
    rows = select(
        table, symbol=symbol, side=side, maintenance=maintenance, open_fee=open_fee, funding=funding, size=size
    )
    shown, grid = horizons(rows, horizon), leverages(rows)
    rows = rows[rows["horizon"].isin(list(shown))].assign(margin_rate=lambda frame: 1 / frame["leverage"])
    curves = {text: rows[rows["horizon"] == text].sort_values("margin_rate") for text in shown}
    with drawing.styled():
        ax = drawing.axes_of(ax)
        ends = []
        for (text, curve), colour in zip(curves.items(), drawing.colours(len(curves)), strict=True):
            drawing.draw_curve(ax, curve, "margin_rate", "survival", colour)
            first = curve.iloc[::-1]
            ends.append((text, *drawing.last_point(first, "margin_rate", "survival"), colour))
        drawing.margin_axis(ax, grid)
        drawing.survival_axis(ax, list(curves.values()))
        ax.set_ylabel("needed no more")
        drawing.end_labels(ax, ends, "held for")
    return ax


@dataclass(frozen=True)
class Plots:
    """The pictures of one run's table: ``result.plot.heatmap(side="short")``.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    """

    table: pd.DataFrame

    def leverage(
        self,
        *,
        symbol: str | None = None,
        side: str | None = None,
        maintenance: float | str | None = None,
        open_fee: float | None = None,
        funding: Funding | None = None,
        size: str | None = None,
        horizon: str | Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Survival against leverage: one curve per horizon, its interval as a band.

        Parameters
        ----------
        symbol, side, maintenance, open_fee, funding, size : optional
            The scenario, as in `select`; the first of each axis by default.
        horizon : str or sequence of str, optional
            The horizons to draw, matched by duration; all by default.
        ax : Axes, optional
            Where to draw; a new Figure by default.

        Returns
        -------
        Axes
            Dashed where the history holds too few blocks for an interval worth the name.
        """
        return plot_leverage(
            self.table,
            symbol=symbol,
            side=side,
            maintenance=maintenance,
            open_fee=open_fee,
            funding=funding,
            size=size,
            horizon=horizon,
            ax=ax,
        )

    def heatmap(
        self,
        *,
        symbol: str | None = None,
        side: str | None = None,
        maintenance: float | str | None = None,
        open_fee: float | None = None,
        funding: Funding | None = None,
        size: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Survival as colour over leverage and horizon, with lines at 99, 95, 90 and 50 %.

        Parameters
        ----------
        symbol, side, maintenance, open_fee, funding, size : optional
            The scenario, as in `select`; the first of each axis by default.
        ax : Axes, optional
            Where to draw; a new Figure by default.

        Returns
        -------
        Axes
            Hatched where no position was counted; a horizon with too few blocks says so beside its row.
        """
        return plot_heatmap(
            self.table,
            symbol=symbol,
            side=side,
            maintenance=maintenance,
            open_fee=open_fee,
            funding=funding,
            size=size,
            ax=ax,
        )

    def curves(
        self,
        *,
        symbol: str | None = None,
        side: str | None = None,
        maintenance: float | str | None = None,
        open_fee: float | None = None,
        funding: Funding | None = None,
        size: str | None = None,
        leverage: float | Sequence[float] | None = None,
        horizon: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Survival over time, Kaplan–Meier over the run's horizons: one curve per leverage.

        Parameters
        ----------
        symbol, side, maintenance, open_fee, funding, size : optional
            The scenario, as in `select`; the first of each axis by default.
        leverage : float or sequence of float, optional
            The leverages to draw; those of 2, 3, 5, 10, 20, 50 that the run has by default.
        horizon : str, optional
            The last horizon to draw; all by default.
        ax : Axes, optional
            Where to draw; a new Figure by default.

        Returns
        -------
        Axes
            The band is the interval of each horizon's cohort; dashed where there are too few blocks for one.
        """
        return plot_curves(
            self.table,
            symbol=symbol,
            side=side,
            maintenance=maintenance,
            open_fee=open_fee,
            funding=funding,
            size=size,
            leverage=leverage,
            horizon=horizon,
            ax=ax,
        )

    def required_margin(
        self,
        *,
        symbol: str | None = None,
        side: str | None = None,
        maintenance: float | str | None = None,
        open_fee: float | None = None,
        funding: Funding | None = None,
        size: str | None = None,
        horizon: str | Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Distribution of the smallest initial margin rate that survives: see `plot_required_margin`."""
        return plot_required_margin(
            self.table,
            symbol=symbol,
            side=side,
            maintenance=maintenance,
            open_fee=open_fee,
            funding=funding,
            size=size,
            horizon=horizon,
            ax=ax,
        )
