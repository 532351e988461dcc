"""A run as the value of a notebook's cell: the choice, survival, and a picture of it."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

from backtest.report.html.tables import Cell, Grid, choices_table, survival_table
from backtest.report.labels import own_leverage, scenario_words
from backtest.report.number_format import rate_text
from backtest.report.plots import plot_curves, plot_heatmap
from backtest.report.plots.style import encode_png
from backtest.report.scenario_selection import select

if TYPE_CHECKING:
    import pandas as pd


def result_html(title: str, table: pd.DataFrame, choices: pd.DataFrame) -> str:
    """The choice of every scenario; survival of the first scenario, as a picture and as a table.

    Parameters
    ----------
    title : str
        The run in a line.
    table : DataFrame
        The columns of ``survival.parquet``.
    choices : DataFrame
        As of `backtest.stats.leverage_choice.choose`.
    """
    target, confidence = float(choices.attrs["survival"]), rate_text(float(choices.attrs["confidence"]))
    rows = select(table)
    first, own = scenario_words(rows), own_leverage(rows)
    ax = plot_curves(rows) if rows["leverage"].isna().all() else plot_heatmap(rows)
    chosen = f"Largest leverage whose survival is at least {rate_text(target)} with {confidence} confidence"
    if own:
        chosen = f"Survival of the trades at the leverage each had; below it the lower end of its {confidence} interval"
    few = ". † Few blocks: it says little" if rows["few_blocks"].any() else ""
    parts = [
        f"<p><b>{escape(title)}</b></p>",
        f"<p>{escape(chosen)}</p>{_table(choices_table(choices))}",
        _image(encode_png(ax), f"Survival of {first}"),
        f"<p>Survival of {escape(first)}, below it the {escape(confidence)} interval{few}</p>",
        _table(survival_table(rows, target)),
    ]
    return "\n".join(parts)


def _image(png: bytes, alt: str) -> str:
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return f'<img alt="{escape(alt)}" style="width:100%;max-width:44rem" src="{source}">'


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in grid.head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in grid.rows)
    more = f"<p>{grid.left_out:,} more scenarios: result.choose() has them all.</p>" if grid.left_out else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(cell: Cell) -> str:
    small = f"<br><small>{escape(cell.small)}</small>" if cell.small else ""
    return f"<td>{escape(cell.text)}{small}</td>"
