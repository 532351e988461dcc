"""Survival by regime: a dot and its interval per label, a row of them per leverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.labels import leverage_words
from backtest.report.plots import style
from backtest.report.scenario_selection import ScenarioKeys, leverages, select, usual_leverages

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P")


def at_leverage(frame: pd.DataFrame, leverage: float | None = None) -> pd.DataFrame:
    """The rows of one leverage, or of the usual ones; all where trades have leverages of their own.

    Raises
    ------
    ConfigError
        If the run has no such leverage.
    """
    if frame["leverage"].isna().all():
        return frame
    shown = usual_leverages(frame) if leverage is None else leverages(frame, leverage)
    kept: pd.DataFrame = frame[frame["leverage"].isin(shown)]
    kept.attrs = frame.attrs
    return kept


def plot_regimes(frame: pd.DataFrame, *, ax: Axes | None = None, **scenario: Unpack[ScenarioKeys]) -> Axes:
    """Survival of every label of a regime with its interval, at one or several leverages.

    Parameters
    ----------
    frame : DataFrame
        As `Result.regimes` returns it, at one horizon; `at_leverage` takes the leverages that are shown.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Raises
    ------
    ConfigError
        If the frame holds several horizons.
    """
    rows = select(frame, every=("regime",), **scenario)
    if rows["horizon"].nunique() > 1:
        raise ConfigError("the regimes of one horizon are shown at a time: Result.regimes(by, horizon=…)")
    labels = list(dict.fromkeys(rows["regime"]))
    groups = list(rows.groupby("leverage", dropna=False))[: len(style.OKABE_ITO)]
    with style.styled():
        height = 1.5 + 0.12 * len(labels) * (len(groups) + 1)
        ax = ax if ax is not None else style.new_axes(1, (9.5, min(max(height, 4.5), 16)))[0]
        for number, (leverage, part) in enumerate(groups):
            shift = 0.6 * ((number + 0.5) / len(groups) - 0.5)
            dots = part["regime"].map(labels.index) + shift
            colour = style.OKABE_ITO[number]
            ax.hlines(dots, part["survival_low"], part["survival_high"], color=colour, lw=2, alpha=0.55)
            name = leverage_words(float(str(leverage)))
            ax.plot(part["survival"], dots, MARKERS[number], color=colour, ms=5, label=name)
        entries = rows.groupby("regime", sort=False)["entries"].max()
        ax.set_yticks(range(len(labels)), [f"{one}  (no entries)" if not entries[one] else one for one in labels])
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.grid(visible=True, axis="x", color=style.INK, alpha=0.25, lw=0.6)
        ax.xaxis.set_major_formatter(style.percent_tick)
        ax.set_xlabel("survival")
        ax.set_ylabel(str(frame.attrs.get("by", "regime")))
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="leverage")
        style.title(ax, rows, leave_out=("regime",), also=[f"held for {rows['horizon'].iloc[0]}"])
    return ax
