"""Policies compared: the share of positions not liquidated, and their mean return."""

from __future__ import annotations

from math import isnan
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from backtest.errors import ConfigError
from backtest.report.plots import style
from backtest.report.policy_labels import policy_words
from backtest.report.scenario_selection import ScenarioKeys, horizons, leverages, matching, select

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"
LONGEST_HALF = 36


def plot_policies(
    outcomes: pd.DataFrame,
    *,
    horizon: str | None = None,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Survival and mean return on margin against leverage at one horizon, one curve per policy.

    Parameters
    ----------
    outcomes : DataFrame
        The columns of ``outcomes.parquet``.
    horizon : str, optional
        Matched by duration; the longest of the run by default.
    ax : Axes, optional
        Where to draw, in its upper and lower half; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default, but every policy.

    Returns
    -------
    Axes
        Those of survival (one less liquidations over entries; what a stop-loss closed counts as survived); those of
        the returns stand below, the last of ``.figure.axes``.

    Raises
    ------
    ConfigError
        The table is not one of outcomes, or does not hold what was asked for.
    """
    if "return_mean" not in outcomes.columns:
        raise ConfigError("outcomes must have the columns of outcomes.parquet; survival.parquet knows of no returns")
    rows = select(outcomes, every=("policy",), **scenario)
    rows = rows.assign(survival=not_liquidated(rows))
    text = list(horizons(rows, horizon))[-1]
    rows = matching(rows, "horizon", text)
    curves, grid = by_policy(rows), leverages(rows)
    with style.styled():
        rows_of_legend = len(curves) if _long(curves) else (len(curves) + 1) // 2
        above, below = style.new_axes(2, (7, 6 + 0.22 * rows_of_legend)) if ax is None else _halves(ax)
        for half, column in ((above, "survival"), (below, "return_mean")):
            _draw(half, curves, column)
            style.leverage_axis(half, grid)
        style.title(above, rows, leave_out=("policy",), also=[f"held {text}"])
        least = float(rows["survival"].min())
        style.share_axis(above, 0.0 if isnan(least) else least)
        style.share_axis(below)
        above.set(xlabel="", ylabel="not liquidated")
        below.set(ylabel="mean return on margin")
        below.axhline(0, color=style.INK, lw=0.8)
        if len(curves) > 1:
            position: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.22), "alignment": "left"}
            below.legend(**position, ncols=1 if _long(curves) else 2, title="policy")
    return above


def _halves(ax: Axes) -> tuple[Axes, Axes]:
    """The Axes, cut to the upper half of its area, and a new one in the lower half."""
    spec, figure = ax.get_subplotspec(), ax.get_figure()
    if spec is None or figure is None:
        raise ConfigError("ax must stand in a grid of subplots, as of plt.subplots(): two plots share its area")
    halves = spec.subgridspec(2, 1)
    ax.set_subplotspec(halves[0])
    return ax, figure.add_subplot(halves[1])


def not_liquidated(rows: pd.DataFrame) -> pd.Series[float]:
    """Share of the entries that were not liquidated; null where nothing was entered."""
    share = 1 - rows["liquidations"] / rows["entries"].where(rows["entries"] > 0)
    return share.astype(float)


def by_policy(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each policy, lowest leverage first; its words → rows. Without the axis all rows are of one."""
    ordered = rows.sort_values("leverage")
    if "policy" not in rows.columns:
        return {"none": ordered}
    return {policy_words(str(label)): matching(ordered, "policy", label) for label in rows["policy"].unique()}


def _long(curves: dict[str, pd.DataFrame]) -> bool:
    """Whether two names of policies do not fit beside each other."""
    return any(len(words) > LONGEST_HALF for words in curves)


def _draw(ax: Axes, curves: dict[str, pd.DataFrame], column: str) -> None:
    """A curve per policy, set apart by colour and marker; each thinner than the last, so that equal ones show."""
    palette = (*style.OKABE_ITO, style.INK)
    for k, (words, curve) in enumerate(curves.items()):
        thick = 1 - k / len(curves)
        ax.plot(
            curve["leverage"],
            curve[column],
            color=palette[k % len(palette)],
            ls="-" if k < len(palette) else (0, (4, 2)),
            lw=1.2 + 2.2 * thick,
            marker=MARKERS[k % len(MARKERS)],
            markevery=max(1, len(curve) // 12),
            ms=3.5 + 4 * thick,
            label="\n".join(wrap(words, 2 * LONGEST_HALF)),
        )
