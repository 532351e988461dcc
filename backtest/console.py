"""Tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from backtest.columns import axes_fields
from backtest.plots.scenario import matching, select, usual_leverages
from backtest.plots.words import OWN_LEVERAGE, is_null, own_leverage, percent_text, rate_text, scenario_words
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd


WIDTH = 2000  # labels of policies and portfolios are long, and a cell that is cut says less than a line that wraps


def choices_text(choices: pd.DataFrame) -> str:
    """The choice of each scenario (a line) at each horizon (a column).

    choices : as `backtest.choose.choose` returns it.
    """
    own = own_leverage(choices)
    names = (field.name for field in axes_fields(choices.columns))
    axes = [name for name in names if choices[name].nunique(dropna=False) > 1] or _whose(choices)
    horizons = _ascending(choices["horizon"])
    cells: dict[tuple[object, ...], dict[str, str]] = {}
    for row in choices.to_dict("records"):
        few = row["few_blocks"] and not math.isnan(row["attainable"])
        cells.setdefault(tuple(row[name] for name in axes), {})[row["horizon"]] = _choice(row, own) + "*" * few
    rows = [[*(_label(part) for part in key), *(line.get(h, "") for h in horizons)] for key, line in cells.items()]
    target, confidence = rate_text(choices.attrs["survival"]), rate_text(choices.attrs["confidence"])
    title = f"Largest leverage whose survival is at least {target} with {confidence} confidence"
    if own:
        title = f"Survival of the trades at the leverage each had, and its {confidence} interval"
    return "\n".join([title, _table([*axes, *horizons], rows), *_notes(choices, own)])


def leverage_text(table: pd.DataFrame) -> str:
    """Survival with its interval at chosen leverages (lines) and horizons (columns), first scenario of each side."""
    parts = []
    for _, rows in table.groupby(["symbol", "side"], sort=False, dropna=False):
        same = select(rows)
        horizons = _ascending(same["horizon"])
        lines = []
        for leverage in [math.nan] if same["leverage"].isna().all() else usual_leverages(same):
            line = {row["horizon"]: row for row in matching(same, "leverage", leverage).to_dict("records")}
            name = OWN_LEVERAGE if math.isnan(leverage) else f"{leverage:g}×"
            lines.append([name, *(_rate(line[h]) for h in horizons)])
        parts.append(f"Survival of {scenario_words(same)}\n" + _table(["leverage", *horizons], lines))
    return "\n".join(parts)


def _whose(choices: pd.DataFrame) -> list[str]:
    """The columns that name the only scenario; a portfolio, and trades of either side, have no side."""
    return ["symbol"] if choices["side"].isna().all() else ["symbol", "side"]


def _choice(row: Mapping[Hashable, Any], own: bool) -> str:
    if own:
        return _rate(row) if not math.isnan(row["attainable"]) else _none(row["attainable"])
    return f"{row['leverage']:g}×" if not math.isnan(row["leverage"]) else _none(row["attainable"])


def _notes(choices: pd.DataFrame, own: bool) -> list[str]:
    """What the signs in the table mean, of those that are there."""
    notes = []
    if choices["leverage"].isna().any() and not own:
        notes.append("none (max …): no leverage meets the target; the largest lower bound this history can show")
    if choices["few_blocks"].any():
        notes.append("*: too few blocks of history for the interval to say much")
    if "verdict" in choices and choices["verdict"].nunique() > 1:
        notes.append("worst: each leg at its own worst price at once; close: all at the close; the truth lies between")
    return notes


def _rate(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["survival"]):
        return "—"
    low, high = (percent_text(row[name]).removesuffix(" %") for name in ("survival_low", "survival_high"))
    return f"{percent_text(row['survival'])} ({low}–{high})"


def _none(attainable: float) -> str:
    return "no window fits" if math.isnan(attainable) else f"none (max {percent_text(attainable)})"


def _label(value: object) -> str:
    if is_null(value):
        return "—"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ascending(horizons: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(horizons), key=duration_ms)


def _table(header: list[str], rows: list[list[str]]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(header):
        table.add_column(name, justify="left" if n == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    out = StringIO()
    Console(file=out, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
