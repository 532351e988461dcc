"""Tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from backtest.report.labels import OWN_LEVERAGE, own_leverage, scenario_axes, scenario_words
from backtest.report.number_format import is_null, percent_text, rate_text, times_text
from backtest.report.scenario_selection import matching, select, usual_leverages
from backtest.stats.schema import axes_fields
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd


NO_WINDOW = "no window fits"
FEW_BLOCKS = "*: too few blocks of history for the interval to say much"
WIDTH = 2000  # labels of policies and portfolios are long, and a cell that is cut says less than a line that wraps


def choices_text(choices: pd.DataFrame) -> str:
    """The choice of each scenario (a line) at each horizon (a column).

    choices : as `backtest.stats.leverage_choice.choose` returns it.
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
    text = "\n".join([title, _table([*axes, *horizons], rows), *_notes(choices, own)])
    return f"{text}\n\n{_earned_text(choices, axes)}" if "growth_mean" in choices else text


def _earned_text(choices: pd.DataFrame, axes: list[str]) -> str:
    """What the chosen leverages earned per position, and where most was earned."""
    lines = []
    for row in choices.to_dict("records"):
        best = "—" if math.isnan(row["growth_leverage"]) else f"{row['growth_leverage']:g}×"
        amounts = [_signed(row["return_mean"]), *(_signed(row[key], 4) for key in ("growth_mean", "insurance_loss"))]
        lines.append([*(_label(row[name]) for name in axes), row["horizon"], *amounts, best])
    header = [*axes, "horizon", "return", "log growth", "fund pays", "most growth at"]
    note = "most growth at: of the leverages that meet the target; —: none of them grows a bankroll"
    return "\n".join(["What it earned per position, in margins, net of everything", _table(header, lines), note])


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
            lines.append([name, *(_entered(line[h]) for h in horizons)])
        parts.append(f"Survival of {scenario_words(same)}\n" + _table(["leverage", *horizons], lines))
    if (table["few_blocks"] & (table["entries"] > 0)).any():
        parts.append(FEW_BLOCKS)
    return "\n".join(parts)


def regimes_text(frame: pd.DataFrame) -> str:
    """Survival with its interval of every label (lines) at the leverages given (columns), scenario by scenario.

    frame : as `Result.regimes` returns it, at one horizon
    """
    parts = []
    axes = [name for name in scenario_axes(frame) if name != "regime"]
    for _, rows in frame.groupby(axes, sort=False, dropna=False):
        lines = []
        for label, line in rows.groupby("regime", sort=False):
            entries = int(line["entries"].max())
            cells = [_rate(row) + "*" * bool(row["few_blocks"]) for row in line.to_dict("records")]
            lines.append([str(label), f"{entries:,}", *(cells if entries else ["no entries"] * len(cells))])
        leverages = [OWN_LEVERAGE if math.isnan(x) else f"{x:g}×" for x in dict.fromkeys(rows["leverage"])]
        title = f"Survival of {scenario_words(rows, ('regime',))} within {rows['horizon'].iloc[0]}"
        parts.append(title + "\n" + _table([frame.attrs["by"], "entries", *leverages], lines))
    notes = []
    if (frame["few_blocks"] & (frame["entries"] > 0)).any():
        notes.append("*: the entries of this label span less than a year and a half; the interval says little")
    return "\n\n".join(parts) + "\n" + "\n".join(notes)


def returns_text(frame: pd.DataFrame) -> str:
    """Mean and quantiles of the return on margin per leverage (lines), scenario by scenario and horizon by horizon.

    frame : as `backtest.returns` returns it
    """
    quantiles = [name for name in frame.columns if name.startswith("return_q")]
    heads = [f"{name.removeprefix('return_q').replace('_', '.')} %" for name in quantiles]
    parts = []
    for _, rows in frame.groupby([*scenario_axes(frame), "horizon"], sort=False, dropna=False):
        lines = []
        for row in rows.to_dict("records"):
            name = OWN_LEVERAGE if math.isnan(row["leverage"]) else f"{row['leverage']:g}×"
            earned = [_signed(row[key]) for key in ("return_mean", *quantiles)]
            further = [_signed(row[key], 4) for key in ("growth_mean", "insurance_loss")]
            lines.append([name, f"{row['entries']:,}", *earned, *further])
        title = f"Return on margin of {scenario_words(rows)}, held for {rows['horizon'].iloc[0]}"
        parts.append(title + "\n" + _table(["leverage", "entries", "mean", *heads, "log growth", "fund pays"], lines))
    share = percent_text(frame.attrs["bankroll_fraction"])
    notes = f"log growth: of a bankroll of which {share} is posted as margin, per position; ruin: it can lose all of it"
    return "\n\n".join(parts) + "\n" + notes


def _signed(share: float, digits: int = 2) -> str:
    """``+1.23 %``."""
    if math.isnan(share):
        return "—"
    if math.isinf(share):
        return "ruin"
    return f"{100 * share:+.{digits}f} %".replace("-", "−")


def episodes_text(episodes: pd.DataFrame, worst: int = 10) -> str:
    """The worst episodes of each scenario, a line each.

    episodes : as `backtest.analysis.liquidation_days.liquidation_episodes` returns it.
    """
    axes = [field.name for field in axes_fields(episodes.columns)]
    parts = []
    for _, rows in episodes.groupby(axes, sort=False, dropna=False):
        first = rows.iloc[0]
        short = first["side"] == "short"
        lines = [
            [
                _days(row["first_day"], row["last_day"]),
                f"{row['hours']:g} h",
                f"{'+' if short else '−'}{percent_text(row['adverse_move'])}"
                if not is_null(row["adverse_move"])
                else "—",
                f"{row['liquidations']:,}",
                percent_text(row["share"]),
                f"{row['recovered']:,}",
                "none" if is_null(row["lived"]) else times_text(row["lived"]),
            ]
            for row in rows.head(worst).to_dict("records")
        ]
        at = "" if is_null(first["leverage"]) else f" at {times_text(first['leverage'])}"
        shown = f"the worst {len(lines)} of {len(rows)} episodes" if len(rows) > 1 else "the one episode"
        title = f"{scenario_words(rows)}\nLiquidations{at} within {first['horizon']}: {shown}"
        header = ["days (UTC)", "lasted", "run-up" if short else "drawdown"]
        parts.append(title + "\n" + _table([*header, "liquidated", "of all", "recovered", "lived up to"], lines))
    if not parts:
        return "No position was liquidated."
    notes = (
        "recovered: worth more than its margin again at the end of its window",
        "lived up to: no liquidation on these days at this leverage or any lower one of the sweep",
    )
    return "\n\n".join(parts) + "\n" + "\n".join(notes)


def _days(first: pd.Timestamp, last: pd.Timestamp) -> str:
    """``2020-03-12``, ``2020-03-12 … 13``: as much of the second date as differs."""
    one, two = first.date().isoformat(), last.date().isoformat()
    if one == two:
        return one
    return f"{one} … {two[8:] if one[:7] == two[:7] else two[5:] if one[:4] == two[:4] else two}"


def required_text(frame: pd.DataFrame) -> str:
    """The largest leverage at each target (a line per scenario and target), and the margin rate below which it fails.

    frame : as `backtest.analysis.required_margin.required_margin` returns it.
    """
    names = (field.name for field in axes_fields(frame.columns))
    axes = [name for name in names if frame[name].nunique(dropna=False) > 1] or _whose(frame)
    horizons = _ascending(frame["horizon"])
    cells: dict[tuple[object, ...], dict[str, str]] = {}
    for row in frame.to_dict("records"):
        key = (*(row[name] for name in axes), rate_text(row["quantile"]))
        cells.setdefault(key, {})[row["horizon"]] = _needed(row)
    lines = [[*(_label(part) for part in key), *(line.get(h, "") for h in horizons)] for key, line in cells.items()]
    title = "Largest leverage at which so many entries are neither rejected nor liquidated (margin rate needed)"
    notes = []
    if (frame["leverage"] >= frame["rejected_from"]).any():
        notes.append("†: some entries cannot be opened at this leverage; they count as not surviving")
    if (frame["critical_leverage"] == 0).any():
        notes.append("none: so many entries cannot be opened at any leverage")
    return "\n".join([title, _table([*axes, "survival", *horizons], lines), *notes])


def resampled_text(frame: pd.DataFrame) -> str:
    """How the choice of each scenario (a line) varies over resampled histories (a column per quantile).

    frame : as `backtest.analysis.walk_forward.resampled_choices` returns it.
    """
    names = (field.name for field in axes_fields(frame.columns))
    axes = [name for name in names if frame[name].nunique(dropna=False) > 1] or _whose(frame)
    lines: dict[tuple[object, ...], list[str]] = {}
    for row in frame.to_dict("records"):
        shares = ["—" if is_null(row[name]) else percent_text(row[name]) for name in ("none", "met")]
        leverages = ["none" if is_null(row[name]) else times_text(row[name]) for name in ("chosen", "leverage")]
        key = tuple(row[name] for name in axes)
        lines.setdefault(key, [*(_label(part) for part in key), *shares, leverages[0]]).append(leverages[1])
    target, horizon = rate_text(frame["target"].iloc[0]), frame["horizon"].iloc[0]
    title = f"Leverage chosen for survival {target} at {horizon} on {frame.attrs['replications']:,} resampled histories"
    quantiles = [percent_text(q) for q in dict.fromkeys(frame["quantile"])]
    notes = ["none: share of histories without a choice; met: share of the choices whose survival ahead met the target"]
    if frame["few_blocks"].any():
        notes.append("—: fewer than ten calendar blocks; nothing is resampled")
    table = _table([*axes, "none", "met", "chosen", *quantiles], list(lines.values()))
    return "\n".join([title, table, *notes])


def _needed(row: Mapping[Hashable, Any]) -> str:
    """``31.24× (3.201 %)``: leverage rounded down, the margin rate up, so that both keep what they promise."""
    if not row["entries"]:
        return "no window fits"
    if math.isnan(row["leverage"]):
        return "none"
    if math.isinf(row["leverage"]):
        return "any (0 %)"
    sign = "†" * (row["leverage"] >= row["rejected_from"])
    margin = _digits(100 * row["required_margin"], math.ceil)
    return f"{_digits(row['leverage'], math.floor):g}×{sign} ({margin:g} %)"


def _digits(value: float, towards: Callable[[float], int]) -> float:
    """Rounded to four digits in one direction."""
    places = 3 - math.floor(math.log10(value))
    return round(towards(value * 10.0**places) / 10.0**places, max(places, 0))


def compare_text(frame: pd.DataFrame) -> str:
    """Differences of survival of two runs: scenarios and usual leverages (lines) at each horizon (a column).

    frame : as `backtest.analysis.compare.compare` returns it.
    """
    axes = [name for name in list(frame.columns[: frame.columns.get_loc("horizon")]) if frame[name].nunique() > 1]
    horizons = _ascending(frame["horizon"])
    shown = [] if frame["leverage"].isna().all() else usual_leverages(frame)
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in frame[frame["leverage"].isin(shown) | frame["leverage"].isna()].to_dict("records"):
        leverage = OWN_LEVERAGE if math.isnan(row["leverage"]) else f"{row['leverage']:g}×"
        cells.setdefault((*(_label(row[name]) for name in axes), leverage), {})[row["horizon"]] = _difference(row)
    lines = [[*key, *(line.get(h, "") for h in horizons)] for key, line in cells.items()]
    confidence = rate_text(frame.attrs["confidence"])
    title = f"Survival of {frame.attrs['other']} less that of {frame.attrs['one']}, in percentage points ({confidence})"
    notes = [f"{name}: {_label(two)}, against {_label(one)}" for name, (one, two) in frame.attrs["differs"].items()]
    if not notes:
        notes.append("the two runs have the same settings")
    if frame["difference"].isna().any():
        notes.append("—: the runs share no block in which both have entries at this horizon")
    if (frame["difference"].notna() & (frame["differing_blocks"] == 0)).any():
        notes.append("=: the runs agree in every calendar block; of what this history does not hold it says nothing")
    if frame["few_blocks"].any():
        notes.append("*: fewer than ten calendar blocks are shared (no interval), or differ (it says little)")
    return "\n".join([title, _table([*axes, "leverage", *horizons], lines), *notes])


def _difference(row: Mapping[Hashable, Any]) -> str:
    """``+0.55 (+0.32 … +0.80)``."""
    if math.isnan(row["difference"]):
        return "—"
    sign = "*" if row["few_blocks"] else ""
    if not row["differing_blocks"]:
        return "=" + sign
    small = 100 * abs(row["difference"])
    digits = 2 if small == 0 or small >= 0.01 else min(8, 1 - math.floor(math.log10(small)))
    middle, low, high = (
        f"{100 * row[name]:+.{digits}f}".replace("-", "−")
        for name in ("difference", "difference_low", "difference_high")
    )
    if math.isnan(row["difference_low"]):
        return f"{middle} (no interval){sign}"
    return f"{middle} ({low} … {high}){sign}"


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
    if (choices["leverage"].isna() & choices["attainable"].notna()).any() and not own:
        notes.append("none (max …): no leverage meets the target; the largest lower bound this history can show")
    if choices["few_blocks"].any():
        notes.append(FEW_BLOCKS)
    if "verdict" in choices and choices["verdict"].nunique() > 1:
        notes.append("worst: each leg at its own worst price at once; close: all at the close; the truth lies between")
    return notes


def _rate(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["survival"]):
        return "—"
    low, high = (percent_text(row[name]).removesuffix(" %") for name in ("survival_low", "survival_high"))
    return f"{percent_text(row['survival'])} ({low}–{high})"


def _entered(row: Mapping[Hashable, Any]) -> str:
    if row["entries"]:
        return _rate(row) + "*" * bool(row["few_blocks"])
    return "all rejected" if row["rejected"] else NO_WINDOW


def _none(attainable: float) -> str:
    return NO_WINDOW if math.isnan(attainable) else f"none (max {percent_text(attainable)})"


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
