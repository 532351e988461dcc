"""Liquidations per day over time, the worst episodes named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.report.labels import scenario_axes, value_words
from backtest.report.number_format import is_null, percent_text, times_text
from backtest.report.plots import style
from backtest.report.scenario_selection import ScenarioKeys, matching, select

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

LABEL_WIDTH, LABEL_HEIGHT = 0.2, 0.15
"""Of the axis, and of the highest bar."""


def plot_days(
    days: pd.DataFrame,
    episodes: pd.DataFrame,
    *,
    worst: int = 5,
    ax: Axes | None = None,
    **scenario: Unpack[ScenarioKeys],
) -> Axes:
    """Liquidations per UTC day over time, the worst episodes labelled with their day, share and move.

    Parameters
    ----------
    days : DataFrame
        As `backtest.liquidation_days` returns it, at the leverage of the episodes among others.
    episodes : DataFrame
        As `backtest.liquidation_episodes` returns it.
    worst : int
        How many episodes are labelled.
    ax : Axes, optional
        Where to draw; a new Figure by default.
    **scenario
        As `ScenarioKeys`; the first of each axis by default.

    Raises
    ------
    ConfigError
        If there is nothing to show, or the days are of another leverage or horizon.
    """
    rows = select(episodes, **scenario)
    first = rows.iloc[0]
    own = bool(rows["leverage"].isna().all())
    daily = days
    for column in [*scenario_axes(rows), "horizon", "leverage"]:
        daily = matching(daily, column, first[column])
        if daily.empty:
            words = value_words(column, first[column])
            raise ConfigError(f"days hold no liquidations of {column} {words}, that of the episodes")
    with style.styled():
        ax = style.make_axes(ax)
        ax.vlines(daily["day"], 0, daily["liquidations"], color=style.OKABE_ITO[4], lw=1.4)
        _limits(ax, days, daily, str(first["symbol"]))
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.set_ylabel("liquidations per day" + ("" if own else f" at {times_text(first['leverage'])}"))
        ax.grid(visible=True, axis="y", color=style.INK, alpha=0.25, lw=0.6)
        style.title(ax, rows, also=[f"held for {first['horizon']}"])
        _labels(ax, daily, rows.sort_values("rank").head(worst))
    return ax


def _limits(ax: Axes, days: pd.DataFrame, daily: pd.DataFrame, symbol: str) -> None:
    """The whole history, where the days say what it spans."""
    import pandas as pd

    low, high = daily["day"].min(), daily["day"].max() + pd.Timedelta(days=1)
    if symbol in days.attrs.get("span", {}):
        low, high = (pd.Timestamp(text) for text in days.attrs["span"][symbol])
    margin = (high - low) * 0.01
    ax.set_xlim(low - margin, high + margin)


def _labels(ax: Axes, daily: pd.DataFrame, worst: pd.DataFrame) -> None:
    """Day, share and move of each episode above all bars, to the right of a line from its highest day.

    Of two that would meet the earlier one stands higher, so that no line runs through a label.
    """
    from matplotlib.dates import date2num

    low, high = ax.get_xlim()
    top = float(daily["liquidations"].max())
    placed: list[tuple[float, int]] = []
    for row in worst.sort_values("first_day", ascending=False).to_dict("records"):
        inside = daily[daily["day"].between(row["first_day"], row["last_day"])]
        peak = inside.sort_values("liquidations", kind="stable").iloc[-1]
        x, y = float(date2num(peak["day"])), float(peak["liquidations"])  # type: ignore[no-untyped-call]
        near = [level for other, level in placed if other - x < LABEL_WIDTH * (high - low)]
        level = max(near, default=-1) + 1
        placed.append((x, level))
        sign = "+" if row["side"] == "short" else "−"
        words = "" if is_null(row["adverse_move"]) else f", {sign}{percent_text(row['adverse_move'])}"
        text = f"{row['first_day'].date()}\n{percent_text(row['share'])} of all{words}"
        height = top * (1.06 + LABEL_HEIGHT * level)
        ax.vlines(x, y, height + top * LABEL_HEIGHT * 0.8, color=style.INK, lw=0.7)
        ax.annotate(text, (x, height), (4, 0), textcoords="offset points", va="bottom", fontsize=8, color=style.INK)
    ax.set_ylim(0, top * (1.06 + LABEL_HEIGHT * (1 + max((level for _, level in placed), default=-1))))
