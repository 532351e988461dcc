"""The days that did it, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.report.html.figures import Picture, days_picture
from backtest.report.html.tables import Cell, Grid
from backtest.report.labels import subject
from backtest.report.number_format import is_null, percent_text, times_text
from backtest.report.scenario_selection import matching

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
    table = Grid(
        ["episode", "hours", "move", "liquidated", "of all", "lived"],
        [_cells(row, side) for _, row in shown.iterrows()],
        1,
    )
    return WorstSection(title, summary, days_picture(worst.days, found, title, table), table)


def _cells(row: pd.Series[Any], side: object) -> list[Cell]:
    first, last = (f"{row[name]:%Y-%m-%d}" for name in ("first_day", "last_day"))
    move = "–" if is_null(row["adverse_move"]) else percent_text(float(row["adverse_move"]))
    return [
        Cell(first if first == last else f"{first} – {last[5:] if first[:4] == last[:4] else last}"),
        Cell(f"{row['hours']:,.1f}"),
        Cell(move if move == "–" else ("+" if side == "short" else "−") + move),
        Cell(f"{row['liquidations']:,}", f"{row['recovered']:,} recovered" if row["recovered"] else ""),
        Cell(percent_text(float(row["share"]))),
        Cell("none" if is_null(row["lived"]) else f"up to {times_text(float(row['lived']))}"),
    ]
