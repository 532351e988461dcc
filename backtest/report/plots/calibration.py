"""Promised against realised survival of a walk-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.plots import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_calibration(frame: pd.DataFrame, bins: pd.DataFrame | None = None, *, ax: Axes | None = None) -> Axes:
    """Realised survival against the lower bound that was promised for it: what keeps its promise lies on or above.

    Parameters
    ----------
    frame : DataFrame
        As of `backtest.analysis.walk_forward.walk_forward`: a dot per step in which a leverage was held, with its
        interval.
    bins : DataFrame, optional
        As of `backtest.analysis.walk_forward.calibration`: a diamond at the means of each bin.
    ax : Axes, optional
        Where to draw; a new Figure by default.

    Returns
    -------
    Axes
        Hollow where the realised survival is below the target; both axes in percent, the dashed line where they agree.

    Raises
    ------
    ConfigError
        If no leverage was held in any step.
    """
    held = frame[frame["realised"].notna()]
    if held.empty:
        raise ConfigError("no leverage was held in any step: none met the target on its past, or had entries ahead")
    kept, failed, middle = style.OKABE_ITO[0], style.OKABE_ITO[4], style.OKABE_ITO[3]
    with style.styled():
        ax = style.make_axes(ax)
        low, high = float(held["promised"].min()), float(held["promised"].max())
        margin = max(0.06 * (high - low), 0.002)
        least = float(min(held["realised"].min(), low))
        ax.plot([0, 1], [0, 1], color=style.INK, ls=(0, (3, 2)), lw=1, label="realised as promised")
        ax.vlines(held["promised"], held["realised_low"], held["realised_high"], color=style.INK, lw=0.8, alpha=0.35)
        for met, colour, text in ((True, kept, "target met"), (False, failed, "target missed")):
            part = held[held["met"].astype(bool) == met]
            face = colour if met else "none"
            if len(part):
                label = f"{text}: {len(part)} of {len(held)} steps"
                ax.scatter(
                    part["promised"], part["realised"], s=26, color=face, edgecolors=colour, zorder=3, label=label
                )
        if bins is not None:
            label = "mean of the steps in a bin"
            ax.plot(bins["promised"], bins["realised"], "D", color=middle, mec=style.INK, ms=8, zorder=4, label=label)
        ax.set_xlim(low - margin, high + margin)
        style.share_axis(ax)
        span = 1 - least
        ax.set_ylim(max(0.0, least - max(0.25 * span, 0.01)), 1 + max(0.03 * span, 0.002))
        ax.xaxis.set_major_formatter(style.percent_tick)
        ax.set_xlabel("survival promised: lower bound on the past")
        ax.set_ylabel("survived ahead")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small", borderaxespad=0.2)
    return ax
