"""The days with most liquidations, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backtest.report.html.figures import Picture, days_picture
from backtest.report.labels import subject
from backtest.report.number_format import is_null, percent_text, times_text
from backtest.report.scenario_selection import matching
from backtest.report.tables import Grid, episodes_table

if TYPE_CHECKING:
    import pandas as pd

MOST_EPISODES = 8


@dataclass(frozen=True)
class Worst:
    """Liquidations by day, each symbol and side under one scenario, leverage and horizon.

    Attributes
    ----------
    days, episodes : DataFrame or None
        As `backtest.liquidation_days` and `backtest.liquidation_episodes` return them; ``days.attrs["span"]`` has
        every symbol. None where there is none to show.
    absent : tuple of str
        A sentence for each symbol and side that they lack, and why.
    """

    days: pd.DataFrame | None = None
    episodes: pd.DataFrame | None = None
    absent: tuple[str, ...] = ()


NOT_ASKED = Worst(
    absent=(
        "The histories were not looked at again for this page; backtest report RUN does it, as does "
        "result.report(worst=backtest.worst_days(result)).",
    )
)


@dataclass(frozen=True)
class WorstSection:
    """What the page shows of one symbol and side."""

    title: str
    summary: str
    picture: Picture
    table: Grid


def worst_section(worst: Worst, symbol: object, side: object) -> WorstSection | None:
    """A picture and a table of one symbol and side; None where they are absent."""
    if worst.days is None or worst.episodes is None:
        return None
    found = matching(matching(worst.episodes, "symbol", symbol), "side", side)
    if found.empty:
        return None
    daily = matching(matching(worst.days, "symbol", symbol), "side", side)
    first = found.iloc[0]
    at = "" if is_null(first["leverage"]) else f" at {times_text(float(first['leverage']))}"
    title = f"{subject(symbol, side)}{at}, held {first['horizon']}"
    shown = found.sort_values("rank").head(MOST_EPISODES)
    dead, n_days = int(daily["liquidations"].sum()), len(daily)
    summary = f"{dead:,} positions were liquidated, on {n_days:,} day{'' if n_days == 1 else 's'}" + (
        f"; {percent_text(float(shown['share'].sum()))} of them in the {len(shown)} worst of {len(found):,} episodes."
        if len(found) > len(shown)
        else f", in {len(found)} episode{'' if len(found) == 1 else 's'}."
    )
    table = episodes_table(found, MOST_EPISODES)
    return WorstSection(title, summary, days_picture(worst.days, found, title, table), table)
