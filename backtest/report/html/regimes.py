"""Survival by regime, as the page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.report.html.tables import Cell, Grid, survival_cell
from backtest.report.number_format import percent_text, times_text
from backtest.report.scenario_selection import matching, select, usual_leverages

if TYPE_CHECKING:
    import pandas as pd

SHOWN_LEVERAGES = (2.0, 3.0, 5.0, 10.0, 20.0)
MOST_LABELS = 60


def regime_grid(
    name: str, frame: pd.DataFrame, symbol: object, side: object, horizon: str, target: float
) -> Grid | None:
    """A row per label: the largest leverage that meets the target, and survival at the usual leverages.

    Parameters
    ----------
    name : str
        Of the regime.
    frame : DataFrame
        As of `Result.regimes`; its first scenario of the symbol and side is shown.
    horizon : str
        One of the frame's.
    target : float
        For ``survival_low``.
    """
    rows = matching(matching(frame, "symbol", symbol), "side", side)
    if rows.empty or rows["leverage"].isna().all():
        return None
    rows = matching(select(rows, every=("regime",)), "horizon", horizon)
    shown = usual_leverages(rows, SHOWN_LEVERAGES)
    lines = []
    for label, part in rows.groupby("regime", sort=False):
        ordered = part.sort_values("leverage")
        meets = ((ordered["survival_low"] >= target) & (ordered["entries"] > 0)).cummin()
        if meets.any():
            best = Cell(times_text(float(ordered["leverage"][meets].iloc[-1])), strong=True)
        else:
            best = Cell("none", f"can show {percent_text(float(ordered['attainable'].max()))}")
        cells = [survival_cell(matching(ordered, "leverage", value), target) for value in shown]
        lines.append([Cell(str(label)), Cell(f"{int(ordered['entries'].max()):,}"), best, *cells])
    return Grid(
        [name, "entries", "largest", *map(times_text, shown)],
        lines[:MOST_LABELS],
        1,
        max(0, len(lines) - MOST_LABELS),
        "labels: result.regimes() has them all",
    )
