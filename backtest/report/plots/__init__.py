"""Survival in pictures: against leverage, over time, and both at once.

Each function draws one scenario of a run's table (the columns of ``survival.parquet``) and returns the Axes; without
an `ax` it makes a Figure of its own, outside pyplot's state, so that ``.figure`` is all that is left to show or save.
Background is transparent and ink a middle grey, which read alike on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.labels import scenario_words
from backtest.report.plots import style
from backtest.report.plots.calibration import plot_calibration
from backtest.report.plots.comparison import plot_compared
from backtest.report.plots.liquidation_days import plot_days
from backtest.report.plots.policies import plot_policies
from backtest.report.plots.portfolio_band import plot_band
from backtest.report.plots.regimes import at_leverage, plot_regimes
from backtest.report.plots.required_margin import plot_required
from backtest.report.scenario_selection import Funding, ScenarioKeys, curves_by_leverage, horizons, leverages, select

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "Funding",
    "Plots",
    "Selection",
    "plot_band",
    "plot_calibration",
    "plot_compared",
    "plot_curves",
    "plot_days",
    "plot_heatmap",
    "plot_leverage",
    "plot_policies",
    "plot_regimes",
    "plot_required",
    "plot_required_margin",
    "scenario_words",
    "select",
]


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
        Dashed where the history holds too few blocks for an interval worth the name.
    """
    rows = select(table, **scenario)
    shown, grid = horizons(rows, horizon), leverages(rows)
    rows = rows[rows["horizon"].isin(list(shown))]
    curves = {text: rows[rows["horizon"] == text].sort_values("leverage") for text in shown}
    with style.styled():
        ax = style.make_axes(ax)
        ends = []
        for (text, curve), colour in zip(curves.items(), style.colours(len(curves)), strict=True):
            style.draw_curve(ax, curve, "leverage", "survival", colour)
            ends.append((text, *style.last_point(curve, "leverage", "survival"), colour))
        style.leverage_axis(ax, grid)
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
        style.draw_cells(ax, grid, values.to_numpy(dtype=float))
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
        ends = []
        for (text, curve), colour in zip(curves.items(), style.colours(len(curves)), strict=True):
            style.draw_curve(ax, curve, "after_ms", "survival_km", colour)
            ends.append((text, *style.last_point(curve, "after_ms", "survival_km"), colour))
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
    rows = select(table, **scenario)
    shown, grid = horizons(rows, horizon), leverages(rows)
    rows = rows[rows["horizon"].isin(list(shown))].assign(margin_rate=lambda frame: 1 / frame["leverage"])
    curves = {text: rows[rows["horizon"] == text].sort_values("margin_rate") for text in shown}
    with style.styled():
        ax = style.make_axes(ax)
        ends = []
        for (text, curve), colour in zip(curves.items(), style.colours(len(curves)), strict=True):
            style.draw_curve(ax, curve, "margin_rate", "survival", colour)
            first = curve.iloc[::-1]
            ends.append((text, *style.last_point(first, "margin_rate", "survival"), colour))
        style.margin_axis(ax, grid)
        style.survival_axis(ax, list(curves.values()))
        ax.set_ylabel("needed no more")
        style.end_labels(ax, ends, "held for")
    return ax


@dataclass(frozen=True)
class Plots:
    """The pictures of one run: ``result.plot.heatmap(side="short")``.

    The keywords ``**scenario`` are those of `ScenarioKeys`: `symbol`, `side`, `maintenance`, `open_fee`, `funding`,
    `size`, `weight`, `policy`, `verdict`; the first of each axis by default.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    outcomes : DataFrame, optional
        The columns of ``outcomes.parquet``, where the run has them.
    by_regime : callable, optional
        `Result.regimes`.
    """

    table: pd.DataFrame
    outcomes: pd.DataFrame | None = None
    by_regime: Callable[[str | None, str | None], pd.DataFrame] | None = None

    def leverage(
        self,
        *,
        horizon: str | Sequence[str] | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival against leverage, one curve per horizon: see `plot_leverage`."""
        return plot_leverage(self.table, horizon=horizon, ax=ax, **scenario)

    def heatmap(self, *, ax: Axes | None = None, **scenario: Unpack[ScenarioKeys]) -> Axes:
        """Survival as colour over leverage and horizon: see `plot_heatmap`."""
        return plot_heatmap(self.table, ax=ax, **scenario)

    def curves(
        self,
        *,
        leverage: float | Sequence[float] | None = None,
        horizon: str | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival over time, one curve per leverage: see `plot_curves`."""
        return plot_curves(self.table, leverage=leverage, horizon=horizon, ax=ax, **scenario)

    def required_margin(
        self,
        *,
        horizon: str | Sequence[str] | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Distribution of the smallest initial margin rate that survives: see `plot_required_margin`."""
        return plot_required_margin(self.table, horizon=horizon, ax=ax, **scenario)

    def band(
        self,
        *,
        horizon: str | Sequence[str] | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival of a portfolio between its two verdicts, against leverage: see `plot_band`."""
        return plot_band(self.table, horizon=horizon, ax=ax, **scenario)

    def compared(
        self,
        axis: str,
        *,
        horizon: str | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival against leverage, one curve per value of an axis: see `plot_compared`."""
        return plot_compared(self.table, axis, horizon=horizon, ax=ax, **scenario)

    def regimes(
        self,
        by: str | None = None,
        *,
        horizon: str | None = None,
        leverage: float | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival by regime, at one leverage or the usual ones: see `plot_regimes`; the longest horizon by default."""
        if self.by_regime is None:
            raise ConfigError("a table has no regimes; ask a run for them: result.plot.regimes(…)")
        frame = self.by_regime(by, horizon or list(horizons(self.table))[-1])
        return plot_regimes(at_leverage(frame, leverage), ax=ax, **scenario)

    def policies(
        self,
        *,
        horizon: str | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival and mean return against leverage, one curve per policy: see `plot_policies`."""
        if self.outcomes is None:
            raise ConfigError("outcomes were not counted; ask for them with statistics.outcomes = true or sweep.policy")
        return plot_policies(self.outcomes, horizon=horizon, ax=ax, **scenario)
