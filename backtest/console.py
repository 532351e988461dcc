"""Tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from io import StringIO
from typing import TYPE_CHECKING

from backtest.columns import axes_fields
from backtest.plots.scenario import is_null, percent_text, rate_text, scenario_words, select, usual_leverages
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd


def choices_text(choices: pd.DataFrame) -> str:
    """The choice of each scenario (a line) at each horizon (a column).

    choices : as `backtest.choose.choose` returns it.
    """
    names = (field.name for field in axes_fields(choices.columns))
    axes = [name for name in names if choices[name].nunique(dropna=False) > 1] or ["symbol", "side"]
    horizons = _ascending(choices["horizon"])
    cells: dict[tuple[object, ...], dict[str, str]] = {}
    for row in choices.to_dict("records"):
        cell = f"{row['leverage']:g}×" if not math.isnan(row["leverage"]) else _none(row["attainable"])
        few = row["few_blocks"] and not math.isnan(row["attainable"])
        cells.setdefault(tuple(row[name] for name in axes), {})[row["horizon"]] = cell + "*" * few
    rows = [[*(_label(part) for part in key), *(line.get(h, "") for h in horizons)] for key, line in cells.items()]
    target, confidence = choices.attrs["survival"], choices.attrs["confidence"]
    title = f"Largest leverage whose survival is at least {rate_text(target)} with {rate_text(confidence)} confidence"
    notes = []
    if choices["leverage"].isna().any():
        notes.append("none (max …): no leverage meets the target; the largest lower bound this history can show")
    if choices["few_blocks"].any():
        notes.append("*: too few blocks of history for the interval to say much")
    return "\n".join([title, _table([*axes, *horizons], rows), *notes])


def leverage_text(table: pd.DataFrame) -> str:
    """Survival with its interval at chosen leverages (lines) and horizons (columns), first scenario of each side."""
    parts = []
    for _, rows in table.groupby(["symbol", "side"], sort=False, dropna=False):
        same = select(rows)
        horizons = _ascending(same["horizon"])
        lines = []
        for leverage in usual_leverages(same):
            line = {row["horizon"]: row for row in same[same["leverage"] == leverage].to_dict("records")}
            lines.append([f"{leverage:g}×", *(_rate(line[h]) for h in horizons)])
        parts.append(f"Survival of {scenario_words(same)}\n" + _table(["leverage", *horizons], lines))
    return "\n".join(parts)


def _rate(row: Mapping[Hashable, float]) -> str:
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
    Console(file=out, width=200, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
