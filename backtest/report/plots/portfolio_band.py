"""Survival of a portfolio between its two verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.plots import style
from backtest.report.scenario_selection import ScenarioKeys, curves_by_horizon, leverages, matching, select

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

LEGEND = ("each leg at its own worst price at once", "up to: all legs at the close")


def plot_band(
    table: pd.DataFrame,
    *,
    horizon: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Survival of a portfolio against leverage: per horizon the area between its two verdicts, ``worst`` as the line.

    With every leg at its own worst price of the bar at once the risk is overstated, with all legs at the close it is
    understated: at this bar length the truth lies between the two.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``, `verdict` among them.
    horizon : str or sequence of str, optional
        The horizons to draw, matched by duration; all by default.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`, without `verdict`; the first of each axis by default.

    Returns
    -------
    Axes
        Dashed where the history holds too few blocks for a reliable interval.

    Raises
    ------
    ConfigError
        The table has not both verdicts: only runs of portfolios do.
    """
    if scenario.get("verdict"):
        raise ConfigError(f"verdict: a band lies between both of them, none can be chosen; got {scenario['verdict']!r}")
    if "verdict" not in table.columns or not {"worst", "close"} <= set(table["verdict"]):
        raise ConfigError(
            "table must hold the verdicts 'worst' and 'close': those of portfolios do (sweep.portfolio); a position of "
            "its own has one verdict and no band"
        )
    rows = verdicts(select(table, every=("verdict",), **scenario))
    curves = curves_by_horizon(rows, horizon)
    with style.styled():
        ax = style.make_axes(ax)
        ends = style.draw_curves(ax, curves, "leverage", alpha=0.3)
        for curve, (*_, colour) in zip(curves.values(), ends, strict=True):
            ax.plot(curve["leverage"], curve["survival_high"], color=colour, lw=0.8, alpha=0.6)
        style.leverage_axis(ax, leverages(rows))
        style.survival_axis(ax, list(curves.values()), leave_out=("verdict",))
        style.end_labels(ax, ends, "held for")
        _legend(ax)
    return ax


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of verdict ``worst``, with the survival under ``close`` as their upper bound and their own as the lower."""
    point = ["horizon", "leverage"]
    close = matching(rows, "verdict", "close").set_index(point)["survival"]
    worst = matching(rows, "verdict", "worst")
    at = list(zip(worst["horizon"], worst["leverage"], strict=True))
    return worst.assign(survival_low=worst["survival"], survival_high=close.reindex(at).to_numpy())


def _legend(ax: Axes) -> None:
    """What line and area are, beside what the axes have to say already."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Line2D([], [], color=style.INK, label=LEGEND[0]), Patch(color=style.INK, alpha=0.3, label=LEGEND[1])]
    if before := ax.get_legend():
        handles += [handle for handle in before.legend_handles if isinstance(handle, Line2D)]
    ax.legend(handles=handles, loc="lower left")
