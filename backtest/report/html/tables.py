"""The report's tables, as text ready to be set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.report.labels import COIN, OWN_LEVERAGE, funding_words, own_leverage, scenario_axes, value_words
from backtest.report.number_format import is_null, percent_text, rate_text, signed_text, times_text
from backtest.report.scenario_selection import horizons, matching, usual_leverages
from backtest.units import duration_text

if TYPE_CHECKING:
    import pandas as pd

SHOWN_LEVERAGES = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 25.0, 50.0, 75.0, 100.0, 125.0)
REQUIRED_SHARES = (0.5, 0.9, 0.95, 0.99)
MOST_ROWS = 200
FEW = " †"


@dataclass(frozen=True)
class Cell:
    """One value with what stands small beside it; `strong` where it meets the target."""

    text: str
    small: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: its head, and rows that begin with `labels` cells of heading."""

    head: list[str]
    rows: list[list[Cell]]
    labels: int
    left_out: int = 0
    rest: str = "scenarios: backtest choose RUN lists them all"

    @property
    def size(self) -> int:
        """About how many characters it takes."""
        return 80 * len(self.rows) * len(self.head)

    @property
    def few(self) -> bool:
        """Whether an interval in it rests on few blocks."""
        return any(FEW in cell.small for row in self.rows for cell in row)


def choices_table(choices: pd.DataFrame) -> Grid:
    """A row per scenario, a column per horizon: the leverage chosen and the lower bound of its survival."""
    if choices.empty:
        return Grid([], [], 0)
    shown = list(horizons(choices))
    axes = scenario_axes(choices)
    whose = ("symbol",) if choices["side"].isna().all() else ("symbol", "side")
    varying = [axis for axis in axes if axis in whose or choices[axis].nunique(dropna=False) > 1]
    own, coin, rows = own_leverage(choices), choices.attrs.get(COIN, ()), []
    for _, part in choices.groupby(axes, sort=False, dropna=False):
        labels = axis_words(part.iloc[0], varying, part.iloc[0]["maintenance"] in coin)
        found = {str(row["horizon"]): row for _, row in part.iterrows()}
        rows.append([*map(Cell, labels.values()), *(_choice(found.get(text), own) for text in shown)])
    return Grid([*labels, *shown], rows[:MOST_ROWS], len(labels), max(0, len(rows) - MOST_ROWS))


def axis_words(row: pd.Series[Any], axes: list[str], coin: bool) -> dict[str, str]:
    """The scenario's values on some axes, those of funding as one; head → words. coin : margins are in coin."""
    words = {}
    for axis in axes:
        if axis.startswith("funding_"):
            text = funding_words(float(row["funding_scale"]), float(row["funding_shift"]))
            words["funding"] = text.removeprefix("funding ").replace("no funding", "none")
        else:
            words[axis.replace("_", " ")] = value_words(axis, row[axis], coin=coin)
    return words


def _choice(row: pd.Series[Any] | None, own: bool) -> Cell:
    if row is None:
        return Cell("–")
    if own:
        return Cell(percent_text(float(row["survival"])), f"≥ {percent_text(float(row['survival_low']))}")
    if is_null(row["leverage"]):
        return Cell("none", f"can show {percent_text(float(row['attainable']))}")
    return Cell(times_text(float(row["leverage"])), f"≥ {percent_text(float(row['survival_low']))}", strong=True)


def survival_table(rows: pd.DataFrame, target: float) -> Grid:
    """Survival and its interval of one scenario: a row per usual leverage, a column per horizon."""
    shown = list(horizons(rows))
    lines = []
    for value in _shown_leverages(rows):
        line = matching(rows, "leverage", value)
        cells = [survival_cell(matching(line, "horizon", text), target) for text in shown]
        lines.append([_leverage(value), *cells])
    return Grid(["leverage", *shown], lines, 1)


def required_table(rows: pd.DataFrame, target: float) -> Grid:
    """The margin rate on which a share of the entries lives: the smallest of the grid such that all larger ones do.

    rows : one scenario, leverage being an axis
    """
    shown = list(horizons(rows))
    curves = {text: matching(rows, "horizon", text).sort_values("leverage") for text in shown}
    lines = [
        [Cell(rate_text(share)), *(_required(curves[text], share) for text in shown)]
        for share in sorted({*REQUIRED_SHARES, target})
    ]
    return Grid(["share that lives", *shown], lines, 1)


def _required(curve: pd.DataFrame, share: float) -> Cell:
    """curve : one horizon, by leverage"""
    meets = (curve["survival"] >= share).cummin()
    leverage = float(curve["leverage"].iloc[max(0, int(meets.sum()) - 1)])
    if not meets.iloc[0]:
        return Cell(f"more than {_rate(leverage)}", f"none at {times_text(leverage)}")
    return Cell(("at most " if meets.all() else "") + _rate(leverage), times_text(leverage))


def _rate(leverage: float) -> str:
    """The initial margin rate of a leverage."""
    return f"{100 / leverage:.3g} %"


def _shown_leverages(rows: pd.DataFrame) -> list[float]:
    """The usual leverages of the rows; NaN where each trade has its own."""
    return [math.nan] if rows["leverage"].isna().all() else usual_leverages(rows, SHOWN_LEVERAGES)


def _leverage(value: float) -> Cell:
    return Cell(OWN_LEVERAGE if math.isnan(value) else times_text(value))


def survival_cell(rows: pd.DataFrame, target: float) -> Cell:
    """Survival with its interval, † where it rests on few blocks; rows : the one row, if there is one."""
    if rows.empty or is_null(rows.iloc[0]["survival"]):
        return Cell("–", "no entry")
    row = rows.iloc[0]
    low, high = percent_text(float(row["survival_low"])), percent_text(float(row["survival_high"]))
    few = FEW if row["few_blocks"] else ""
    return Cell(
        percent_text(float(row["survival"])),
        f"{low.removesuffix(' %')} – {high.removesuffix(' %')}{few}",
        strong=bool(row["survival_low"] >= target),
    )


def outcome_table(rows: pd.DataFrame) -> Grid:
    """How positions ended and what came of them: a row per leverage and policy, of one scenario and horizon.

    rows : of ``outcomes.parquet``; columns without anything to tell are left out
    """
    shown = [
        (head, column, text)
        for head, column, text in OUTCOME_COLUMNS
        if column in ALWAYS or (rows[column].notna() & (rows[column] != 0)).any()
    ]
    policies = "policy" in rows.columns
    lines = []
    for value in _shown_leverages(rows):
        for _, row in matching(rows, "leverage", value).iterrows():
            labels = [_leverage(value), *([Cell(value_words("policy", row["policy"]))] if policies else [])]
            lines.append([*labels, *(Cell(text(_per_entry(row, column))) for _, column, text in shown)])
    heads = ["leverage", *(["policy"] if policies else [])]
    return Grid(
        [*heads, *(head for head, _, _ in shown)], lines[:MOST_ROWS], len(heads), max(0, len(lines) - MOST_ROWS)
    )


def _per_entry(row: pd.Series[Any], column: str) -> float:
    """A count or amount over the entries; the means are that already."""
    if column in ("return_mean", "policy_cost"):
        return float(row[column])
    return float(row[column]) / row["entries"] if row["entries"] else math.nan


def _unsigned(amount: float) -> str:
    return signed_text(amount).removeprefix("+")


OUTCOME_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("survived", "survived", percent_text),
    ("liquidated", "liquidations", percent_text),
    ("stopped", "stopped", percent_text),
    ("took profit", "took_profit", percent_text),
    ("mean return", "return_mean", signed_text),
    ("cost of policy", "policy_cost", _unsigned),
    ("fees", "fees", _unsigned),
    ("fund's loss", "insurance_loss", _unsigned),
    ("fund's gain", "insurance_gain", _unsigned),
)
ALWAYS = ("survived", "liquidations", "return_mean", "insurance_loss")


def coverage_table(info: Mapping[str, Any]) -> Grid:
    """What of each symbol's data there was, a row per symbol."""
    head = ["symbol", "trigger", "first bar", "last bar", "bars", "missing", "longest gap", "entries", "excluded"]
    rows = []
    for entry in info.get("coverage", []):
        gap = entry.get("longest_gap_bars")
        length = f"({duration_text(int(gap * info['interval_ms']))})" if gap and "interval_ms" in info else ""
        texts = [value_words("symbol", entry.get("symbol"))]
        texts += [str(entry.get(name, "–")) for name in ("trigger", "first", "last")]
        texts += [_count(entry.get("bars")), _count(entry.get("missing_bars")), f"{_count(gap)} {length}".strip()]
        rows.append([Cell(text) for text in [*texts, _count(entry.get("entries")), _excluded(entry.get("excluded"))]])
    return Grid(head, rows[:MOST_ROWS], 1, max(0, len(rows) - MOST_ROWS), "symbols: run.json has them all")


def _excluded(counts: object) -> str:
    if isinstance(counts, Mapping):
        return ", ".join(f"{name}: {_count(count)}" for name, count in counts.items() if count) or "none"
    return _count(counts)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "–"
