"""The tables of a run, each described once: headings and cells as text. Terminal, page and notebook render them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.report.labels import (
    COIN,
    axis_columns,
    axis_words,
    leverage_words,
    own_leverage,
    scenario_axes,
    value_words,
)
from backtest.report.number_format import is_null, percent_text, rate_text, signed_text, times_text
from backtest.report.scenario_selection import curves_by_horizon, horizons, matching, usual_leverages
from backtest.units import duration_text

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[Hashable, Any]
SHOWN_LEVERAGES = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 25.0, 50.0, 75.0, 100.0, 125.0)
REQUIRED_SHARES = (0.5, 0.9, 0.95, 0.99)
MOST_ROWS = 200
FEW = "*"
NO_WINDOW = "no window fits"


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes
    ----------
    text, small : str
        The value, and what stands small beside it, such as an interval.
    mark : str
        A footnote's sign.
    strong : bool
        Whether it meets the target.
    """

    text: str
    small: str = ""
    mark: str = ""
    strong: bool = False

    @property
    def line(self) -> str:
        """All of it on one line: ``99.2 % (98.0–99.9)*``."""
        return f"{self.text} ({self.small}){self.mark}" if self.small else self.text + self.mark


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes
    ----------
    head : list of str
    rows : list of list of Cell
        The first `labels` cells of each say what the row is about.
    labels : int
    left_out : int
        How many rows more there are.
    rest : str
        What they are and where to find them.
    """

    head: list[str]
    rows: list[list[Cell]]
    labels: int
    left_out: int = 0
    rest: str = "scenarios: backtest choose RUN lists them all"

    @property
    def size(self) -> int:
        """About how many characters it takes in the page."""
        return 80 * len(self.rows) * len(self.head)

    @property
    def few(self) -> bool:
        """Whether an interval in it rests on few blocks."""
        return any(cell.mark == FEW for row in self.rows for cell in row)

    def first(self, most: int, rest: str | None = None) -> Grid:
        """Its first rows, so many at most."""
        return Grid(
            self.head, self.rows[:most], self.labels, max(0, len(self.rows) - most), self.rest if rest is None else rest
        )


def horizon_grid(
    frame: pd.DataFrame,
    keys: Sequence[str],
    label: Callable[[Row], dict[str, str]],
    cell: Callable[[Row], Cell],
    absent: Cell,
) -> Grid:
    """A row per value of the keys, a column per horizon.

    Parameters
    ----------
    frame : DataFrame
        One row for each of the keys' values and each horizon.
    keys : sequence of str
        Columns that tell the rows of the table apart.
    label : callable
        A row of the frame → its first cells; heading → text.
    cell : callable
        A row of the frame → the cell at its horizon.
    absent : Cell
        What stands where the frame has no row.
    """
    shown, rows, head = list(horizons(frame)), [], []
    for _, part in frame.groupby(list(keys), sort=False, dropna=False):
        records = part.to_dict("records")
        labels, found = label(records[0]), {str(row["horizon"]): cell(row) for row in records}
        rows.append([*map(Cell, labels.values()), *(found.get(text, absent) for text in shown)])
        head = [*labels, *shown]
    return Grid(head, rows, len(head) - len(shown))


def scenario_label(table: pd.DataFrame) -> Callable[[Row], dict[str, str]]:
    """How rows of the table are labelled, heading → words: by symbol, side and the axes with several values."""
    coin = table.attrs.get(COIN, ())
    whose = ("symbol", "side") if "side" in table and table["side"].notna().any() else ("symbol",)
    shown = {
        axis: columns
        for axis, columns in axis_columns(table).items()
        if axis in whose or table[columns].drop_duplicates().shape[0] > 1
    }
    return lambda row: {axis.replace("_", " "): axis_words(row, columns, coin) for axis, columns in shown.items()}


def choices_table(choices: pd.DataFrame) -> Grid:
    """A row per scenario, a column per horizon: the leverage chosen and the lower bound of its survival.

    Where trades have their own leverages: their survival and its interval.

    Parameters
    ----------
    choices : DataFrame
        As `Result.choose` returns it.
    """
    if choices.empty:
        return Grid([], [], 0)
    cell = survival_cell if own_leverage(choices) else _choice
    return horizon_grid(choices, scenario_axes(choices), scenario_label(choices), cell, Cell("–"))


def _choice(row: Row) -> Cell:
    few = FEW if row["few_blocks"] else ""
    if is_null(row["attainable"]):
        return Cell(NO_WINDOW)
    if is_null(row["leverage"]):
        return Cell("none", f"max {percent_text(row['attainable'])}", few)
    return Cell(times_text(row["leverage"]), f"≥ {percent_text(row['survival_low'])}", few, strong=True)


def survival_cell(row: Row, target: float = math.inf) -> Cell:
    """Survival with its interval, strong where its lower end reaches the target."""
    if is_null(row["survival"]):
        return Cell("all rejected" if row.get("rejected") else NO_WINDOW)
    low, high = (percent_text(row[name]).removesuffix(" %") for name in ("survival_low", "survival_high"))
    few = FEW if row["few_blocks"] else ""
    return Cell(percent_text(row["survival"]), f"{low}–{high}", few, strong=bool(row["survival_low"] >= target))


def survival_table(rows: pd.DataFrame, target: float = math.inf, usual: Sequence[float] = SHOWN_LEVERAGES) -> Grid:
    """Survival and its interval of one scenario: a row per usual leverage, a column per horizon."""
    if rows["leverage"].notna().any():
        rows = rows[rows["leverage"].isin(usual_leverages(rows, usual))].sort_values("leverage")
    return horizon_grid(rows, ["leverage"], _leverage_label, lambda row: survival_cell(row, target), Cell("–"))


def _leverage_label(row: Row) -> dict[str, str]:
    return {"leverage": leverage_words(row["leverage"])}


def regime_table(rows: pd.DataFrame, name: str, leverages: Sequence[float], target: float | None = None) -> Grid:
    """Survival by regime: a row per label, a column per leverage.

    Parameters
    ----------
    rows : DataFrame
        One scenario and horizon of `Result.regimes`.
    name : str
        Of the regime.
    leverages : sequence of float
        Those shown; NaN where trades have their own.
    target : float, optional
        Survival to be reached: adds a column with the largest leverage whose lower bound, and that of every lower one,
        reaches it. The rows then must have every leverage.
    """
    lines = []
    for label, part in rows.groupby("regime", sort=False):
        ordered = part.sort_values("leverage")
        entries = int(ordered["entries"].max())
        cells = [Cell(str(label)), Cell(f"{entries:,}")]
        if target is not None:
            meets = ((ordered["survival_low"] >= target) & (ordered["entries"] > 0)).cummin()
            best = ordered["leverage"][meets]
            shown = f"max {percent_text(ordered['attainable'].max())}" if entries else ""
            cells.append(Cell(times_text(best.iloc[-1]), strong=True) if len(best) else Cell("none", shown))
        for leverage in leverages:
            (row,) = matching(ordered, "leverage", leverage).to_dict("records")
            cells.append(survival_cell(row, target or math.inf) if entries else Cell("no entries"))
        lines.append(cells)
    largest = [] if target is None else ["largest"]
    return Grid([name, "entries", *largest, *map(leverage_words, leverages)], lines, 1)


def episodes_table(episodes: pd.DataFrame, worst: int) -> Grid:
    """The worst episodes of one scenario, a row each; episodes : as `backtest.liquidation_episodes` returns it."""
    short = episodes.iloc[0]["side"] == "short"
    lines = []
    for row in episodes.sort_values("rank").head(worst).to_dict("records"):
        move = "–" if is_null(row["adverse_move"]) else f"{'+' if short else '−'}{percent_text(row['adverse_move'])}"
        lines.append(
            [
                Cell(_days(row["first_day"], row["last_day"])),
                Cell(f"{row['hours']:,g} h"),
                Cell(move),
                Cell(f"{row['liquidations']:,}"),
                Cell(percent_text(row["share"])),
                Cell(f"{row['recovered']:,}"),
                Cell("none" if is_null(row["lived"]) else times_text(row["lived"])),
            ]
        )
    move = "run-up" if short else "drawdown"
    return Grid(["days (UTC)", "lasted", move, "liquidated", "of all", "recovered", "lived up to"], lines, 1)


def _days(first: pd.Timestamp, last: pd.Timestamp) -> str:
    """``2020-03-12``, ``2020-03-12 … 13``: as much of the second date as differs."""
    one, two = first.date().isoformat(), last.date().isoformat()
    if one == two:
        return one
    return f"{one} … {two[8:] if one[:7] == two[:7] else two[5:] if one[:4] == two[:4] else two}"


def margin_table(rows: pd.DataFrame, target: float) -> Grid:
    """The smallest initial margin rate of the grid at which, and at every larger one, a share of the entries survives.

    Parameters
    ----------
    rows : DataFrame
        One scenario of ``survival.parquet``, leverage being an axis.
    target : float
        A share that is shown beside `REQUIRED_SHARES`.
    """
    curves = curves_by_horizon(rows)
    lines = [
        [Cell(rate_text(share)), *(_required(curve, share) for curve in curves.values())]
        for share in sorted({*REQUIRED_SHARES, target})
    ]
    return Grid(["share that survives", *curves], lines, 1)


def _required(curve: pd.DataFrame, share: float) -> Cell:
    meets = (curve["survival"] >= share).cummin()
    leverage = float(curve["leverage"].iloc[max(0, int(meets.sum()) - 1)])
    rate = f"{100 / leverage:.3g} %"
    if not meets.iloc[0]:
        return Cell(f"more than {rate}", f"none at {times_text(leverage)}")
    return Cell(f"at most {rate}" if meets.all() else rate, times_text(leverage))


def outcome_table(rows: pd.DataFrame) -> Grid:
    """How positions ended and what they earned: a row per leverage and policy.

    Parameters
    ----------
    rows : DataFrame
        One scenario and horizon of ``outcomes.parquet``. Columns that are null or 0 throughout are left out.
    """
    shown = [
        (head, column, text)
        for head, column, text in OUTCOME_COLUMNS
        if column in ALWAYS or (rows[column].notna() & (rows[column] != 0)).any()
    ]
    if rows["leverage"].notna().any():
        kept = usual_leverages(rows, SHOWN_LEVERAGES)
        rows = rows[rows["leverage"].isin(kept)].sort_values("leverage", kind="stable")
    heads = ["leverage", *(["policy"] if "policy" in rows.columns else [])]
    lines = []
    for row in rows.to_dict("records"):
        labels = [leverage_words(row["leverage"]), *(value_words(head, row[head]) for head in heads[1:])]
        lines.append([Cell(word) for word in (*labels, *(text(_per_entry(row, column)) for _, column, text in shown))])
    return Grid([*heads, *(head for head, _, _ in shown)], lines, len(heads)).first(MOST_ROWS)


def _per_entry(row: Row, column: str) -> float:
    """A count or amount divided by the entries; columns of means as they are."""
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
    """The data of a run, a row per symbol: span, bars, gaps, entries; info : ``run.json``."""
    head = ["symbol", "trigger", "first bar", "last bar", "bars", "missing", "longest gap", "entries", "excluded"]
    rows = []
    for entry in info.get("coverage", []):
        gap = entry.get("longest_gap_bars")
        length = f"({duration_text(int(gap * info['interval_ms']))})" if gap and "interval_ms" in info else ""
        texts = [value_words("symbol", entry.get("symbol"))]
        texts += [str(entry.get(name, "–")) for name in ("trigger", "first", "last")]
        texts += [_count(entry.get("bars")), _count(entry.get("missing_bars")), f"{_count(gap)} {length}".strip()]
        rows.append([Cell(text) for text in [*texts, _count(entry.get("entries")), _excluded(entry.get("excluded"))]])
    return Grid(head, rows, 1).first(MOST_ROWS, "symbols: run.json has them all")


def _excluded(counts: object) -> str:
    if isinstance(counts, Mapping):
        return ", ".join(f"{name}: {_count(count)}" for name, count in counts.items() if count) or "none"
    return _count(counts)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "–"
