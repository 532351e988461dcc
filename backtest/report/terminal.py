"""The tables of a run and of the analyses as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING

from backtest.report.labels import leverage_words, own_leverage, scenario_axes, scenario_words, value_words
from backtest.report.number_format import is_null, percent_text, rate_text, times_text
from backtest.report.scenario_selection import USUAL_LEVERAGES, select, usual_leverages
from backtest.report.tables import (
    NO_WINDOW,
    Cell,
    Grid,
    Row,
    choices_table,
    episodes_table,
    horizon_grid,
    regime_table,
    scenario_label,
    survival_table,
)

if TYPE_CHECKING:
    import pandas as pd

FEW_BLOCKS = "*: too few blocks of history for the interval to say much"
WIDTH = 2000  # labels of policies and portfolios are long: a line that wraps says more than a cell that is cut


def grid_text(grid: Grid) -> str:
    """A table as lines of text, its first column to the left and the others to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(grid.head):
        table.add_column(name, justify="left" if n == 0 else "right", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(cell.line for cell in row))
    out = StringIO()
    Console(file=out, width=WIDTH, color_system=None, markup=False, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def choices_text(choices: pd.DataFrame) -> str:
    """The choice of each scenario (a line) at each horizon (a column), and what it earned where that is known.

    Parameters
    ----------
    choices : DataFrame
        As `Result.choose` returns it.
    """
    own = own_leverage(choices)
    target, confidence = rate_text(choices.attrs["survival"]), rate_text(choices.attrs["confidence"])
    title = f"Largest leverage whose survival is at least {target} with {confidence} confidence"
    if own:
        title = f"Survival of the trades at the leverage each had, and its {confidence} interval"
    grid = choices_table(choices)
    notes = []
    if (choices["leverage"].isna() & choices["attainable"].notna()).any() and not own:
        notes.append("none (max …): no leverage meets the target; the largest lower bound this history can show")
    if grid.few:
        notes.append(FEW_BLOCKS)
    if "verdict" in choices and choices["verdict"].nunique() > 1:
        notes.append("worst: each leg at its own worst price at once; close: all at the close; the truth lies between")
    text = "\n".join([title, grid_text(grid), *notes])
    return f"{text}\n\n{_growth_text(choices)}" if "growth_mean" in choices else text


def _growth_text(choices: pd.DataFrame) -> str:
    """What the chosen leverages earned per position, and where most was earned."""
    label, lines, labels = scenario_label(choices), [], {}
    for row in choices.to_dict("records"):
        labels = {**label(row), "horizon": row["horizon"]}
        best = "–" if is_null(row["growth_leverage"]) else times_text(row["growth_leverage"])
        amounts = [_signed(row["return_mean"]), *(_signed(row[key], 4) for key in ("growth_mean", "insurance_loss"))]
        lines.append([Cell(text) for text in (*labels.values(), *amounts, best)])
    grid = Grid([*labels, "return", "log growth", "fund pays", "most growth at"], lines, len(labels))
    note = "most growth at: of the leverages that meet the target; –: none of them grows a bankroll"
    return "\n".join(["What it earned per position, in margins, net of everything", grid_text(grid), note])


def survival_text(table: pd.DataFrame) -> str:
    """Survival with its interval at usual leverages (lines) and horizons (columns), first scenario of each side.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    """
    parts, few = [], False
    for _, rows in table.groupby(["symbol", "side"], sort=False, dropna=False):
        same = select(rows)
        grid = survival_table(same, usual=USUAL_LEVERAGES)
        few = few or grid.few
        parts.append(f"Survival of {scenario_words(same)}\n{grid_text(grid)}")
    return "\n".join([*parts, *([FEW_BLOCKS] if few else [])])


def regimes_text(frame: pd.DataFrame) -> str:
    """Survival with its interval of every label (lines) at the leverages given (columns), scenario by scenario.

    Parameters
    ----------
    frame : DataFrame
        As `Result.regimes` returns it, at one horizon.
    """
    parts, few = [], False
    axes = [name for name in scenario_axes(frame) if name != "regime"]
    for _, rows in frame.groupby(axes, sort=False, dropna=False):
        grid = regime_table(rows, frame.attrs["by"], list(rows["leverage"].drop_duplicates()))
        few = few or grid.few
        title = f"Survival of {scenario_words(rows, ('regime',))} within {rows['horizon'].iloc[0]}"
        parts.append(f"{title}\n{grid_text(grid)}")
    note = "*: the entries of this label span less than a year and a half; the interval says little"
    return "\n\n".join(parts) + "\n" + (note if few else "")


def returns_text(frame: pd.DataFrame) -> str:
    """Mean and quantiles of the return on margin per leverage (lines), scenario by scenario and horizon by horizon.

    Parameters
    ----------
    frame : DataFrame
        As `backtest.returns` returns it.
    """
    quantiles = [name for name in frame.columns if name.startswith("return_q")]
    heads = [f"{name.removeprefix('return_q').replace('_', '.')} %" for name in quantiles]
    parts = []
    for _, rows in frame.groupby([*scenario_axes(frame), "horizon"], sort=False, dropna=False):
        lines = []
        for row in rows.to_dict("records"):
            earned = [_signed(row[key]) for key in ("return_mean", *quantiles)]
            further = [_signed(row[key], 4) for key in ("growth_mean", "insurance_loss")]
            lines.append(
                [Cell(text) for text in (leverage_words(row["leverage"]), f"{row['entries']:,}", *earned, *further)]
            )
        grid = Grid(["leverage", "entries", "mean", *heads, "log growth", "fund pays"], lines, 1)
        title = f"Return on margin of {scenario_words(rows)}, held for {rows['horizon'].iloc[0]}"
        parts.append(f"{title}\n{grid_text(grid)}")
    share = percent_text(frame.attrs["bankroll_fraction"])
    note = f"log growth: of a bankroll that puts up {share} of itself as margin; ruin: it can lose everything"
    return "\n\n".join(parts) + "\n" + note


def _signed(share: float, digits: int = 2) -> str:
    """``+1.23 %``; an infinite loss is ruin."""
    if is_null(share):
        return "–"
    return "ruin" if math.isinf(share) else f"{100 * share:+.{digits}f} %".replace("-", "−")


def episodes_text(episodes: pd.DataFrame, worst: int = 10) -> str:
    """The worst episodes of each scenario, a line each.

    Parameters
    ----------
    episodes : DataFrame
        As `backtest.liquidation_episodes` returns it.
    worst : int
        How many of each scenario.
    """
    parts = []
    for _, rows in episodes.groupby(scenario_axes(episodes), sort=False, dropna=False):
        first, grid = rows.iloc[0], episodes_table(rows, worst)
        at = "" if is_null(first["leverage"]) else f" at {times_text(first['leverage'])}"
        shown = f"the worst {len(grid.rows)} of {len(rows)} episodes" if len(rows) > 1 else "the one episode"
        title = f"{scenario_words(rows)}\nLiquidations{at} within {first['horizon']}: {shown}"
        parts.append(f"{title}\n{grid_text(grid)}")
    if not parts:
        return "No position was liquidated."
    notes = (
        "recovered: at the end of their window they would have been above their margin again",
        "lived up to: no liquidation on these days at this leverage or any lower one of the sweep",
    )
    return "\n\n".join(parts) + "\n" + "\n".join(notes)


def required_text(frame: pd.DataFrame) -> str:
    """The largest leverage at each target (a line per scenario and target), and the margin rate below which it fails.

    Parameters
    ----------
    frame : DataFrame
        As `backtest.required_margin` returns it.
    """
    label = scenario_label(frame)
    grid = horizon_grid(
        frame,
        [*scenario_axes(frame), "quantile"],
        lambda row: {**label(row), "survival": rate_text(row["quantile"])},
        _required,
        Cell("–"),
    )
    title = "Largest leverage at which so many entries are neither rejected nor liquidated (margin rate needed)"
    notes = []
    if (frame["leverage"] >= frame["rejected_from"]).any():
        notes.append("†: some entries cannot be opened at this leverage; they count as not surviving")
    if (frame["critical_leverage"] == 0).any():
        notes.append("none: so many entries cannot be opened at any leverage")
    return "\n".join([title, grid_text(grid), *notes])


def resampled_text(frame: pd.DataFrame) -> str:
    """How the choice of each scenario (a line) varies over resampled histories (a column per quantile).

    frame : as `backtest.analysis.walk_forward.resampled_choices` returns it.
    """
    label, lines, head = scenario_label(frame), [], [""]
    for _, part in frame.groupby(scenario_axes(frame), sort=False, dropna=False):
        records = part.to_dict("records")
        first, labels = records[0], label(records[0])
        shares = ["—" if is_null(first[name]) else percent_text(first[name]) for name in ("none", "met")]
        leverages = [first["chosen"], *(row["leverage"] for row in records)]
        shown = ["none" if is_null(leverage) else times_text(leverage) for leverage in leverages]
        lines.append([*map(Cell, labels.values()), *map(Cell, (*shares, *shown))])
        head = [*labels, "none", "met", "chosen"]
    target, horizon = rate_text(frame["target"].iloc[0]), frame["horizon"].iloc[0]
    title = f"Leverage chosen for survival {target} at {horizon} on {frame.attrs['replications']:,} resampled histories"
    quantiles = [percent_text(q) for q in dict.fromkeys(frame["quantile"])]
    notes = ["none: share of histories without a choice; met: share of the choices whose survival ahead met the target"]
    if frame["few_blocks"].any():
        notes.append("—: fewer than ten calendar blocks; nothing is resampled")
    return "\n".join([title, grid_text(Grid([*head, *quantiles], lines, len(head) - 3)), *notes])


def _required(row: Row) -> Cell:
    """``31.24× (3.201 %)``: leverage rounded down and the margin rate up, so that both are safe."""
    if not row["entries"]:
        return Cell(NO_WINDOW)
    if is_null(row["leverage"]):
        return Cell("none")
    if math.isinf(row["leverage"]):
        return Cell("any", "0 %")
    sign = "†" * (row["leverage"] >= row["rejected_from"])
    margin = _four_digits(100 * row["required_margin"], math.ceil)
    return Cell(f"{_four_digits(row['leverage'], math.floor):g}×{sign}", f"{margin:g} %")


def _four_digits(value: float, towards: Callable[[float], int]) -> float:
    """Rounded to four digits in one direction."""
    decimals = 3 - math.floor(math.log10(value))
    return round(towards(value * 10.0**decimals) / 10.0**decimals, max(decimals, 0))


def compare_text(frame: pd.DataFrame) -> str:
    """Differences of survival of two runs: scenarios and usual leverages (lines) at each horizon (a column).

    Parameters
    ----------
    frame : DataFrame
        As `backtest.compare` returns it.
    """
    axes, label = scenario_axes(frame), scenario_label(frame)
    shown = [] if frame["leverage"].isna().all() else usual_leverages(frame)
    grid = horizon_grid(
        frame[frame["leverage"].isin(shown) | frame["leverage"].isna()],
        [*axes, "leverage"],
        lambda row: {**label(row), "leverage": leverage_words(row["leverage"])},
        _difference,
        Cell(""),
    )
    confidence = rate_text(frame.attrs["confidence"])
    title = f"Survival of {frame.attrs['other']} less that of {frame.attrs['one']}, in percentage points ({confidence})"
    notes = [
        f"{name}: {value_words(name, two)}, against {value_words(name, one)}"
        for name, (one, two) in frame.attrs["differs"].items()
    ]
    if not notes:
        notes.append("the two runs have the same settings")
    if frame["difference"].isna().any():
        notes.append("–: the runs share no block in which both have entries at this horizon")
    if (frame["difference"].notna() & (frame["differing_blocks"] == 0)).any():
        notes.append("=: the runs agree in every calendar block; of what this history does not hold it says nothing")
    if frame["few_blocks"].any():
        notes.append("*: fewer than ten calendar blocks are shared (no interval), or differ (it says little)")
    return "\n".join([title, grid_text(grid), *notes])


def _difference(row: Row) -> Cell:
    """``+0.55 (+0.32 … +0.80)``."""
    if is_null(row["difference"]):
        return Cell("–")
    few = "*" if row["few_blocks"] else ""
    if not row["differing_blocks"]:
        return Cell("=", mark=few)
    small = 100 * abs(row["difference"])
    digits = 2 if small == 0 or small >= 0.01 else min(8, 1 - math.floor(math.log10(small)))
    middle, low, high = (
        f"{100 * row[name]:+.{digits}f}".replace("-", "−")
        for name in ("difference", "difference_low", "difference_high")
    )
    return Cell(middle, "no interval" if is_null(row["difference_low"]) else f"{low} … {high}", few)
