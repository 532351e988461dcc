"""What the report says in sentences: the answer per horizon, and what the run assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from backtest.plots.scenario import horizons, is_null, matching, percent_text, rate_text, times_text
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answer:
    """One sentence per horizon: who and how long, the claim, what stands behind it."""

    lead: str
    claim: str
    rest: str
    met: bool = True


def answers(rows: pd.DataFrame, choices: pd.DataFrame, target: float, confidence: float) -> list[Answer]:
    """The answer for each horizon that was chosen for, shortest first.

    Parameters
    ----------
    rows : DataFrame
        One scenario of ``survival.parquet``.
    choices : DataFrame
        The same scenario of what `choose` returns.
    """
    order = list(horizons(choices))
    return [
        _answer(matching(rows, "horizon", text), matching(choices, "horizon", text).iloc[0], target, confidence)
        for text in order
    ]


def _answer(rows: pd.DataFrame, choice: pd.Series[Any], target: float, confidence: float) -> Answer:
    side = "Trades on" if is_null(choice["side"]) else str(choice["side"]).capitalize()
    lead = f"{side} {choice['symbol']} held {choice['horizon']}:"
    few = bool(rows["few_blocks"].any())
    warning = " There are too few blocks of history for the interval to say much." if few else ""
    if rows["leverage"].isna().all():
        row = rows.iloc[0]
        claim = f"{percent_text(row['survival'])} survived at the leverage each trade had"
        return Answer(lead, claim, f"({_interval(row, confidence)}).{warning}")
    if is_null(choice["leverage"]):
        claim = f"no leverage of the grid reaches {rate_text(target)};"
        return Answer(lead, claim, _shortfall(rows, choice, target) + warning, met=False)
    leverage = float(choice["leverage"])
    top = " Nothing higher was tried." if leverage == float(rows["leverage"].max()) else ""
    row = matching(rows, "leverage", leverage).iloc[0]
    rest = (
        f"would have survived with at least {rate_text(target)}. At {times_text(leverage)}, "
        f"{percent_text(row['survival'])} did ({_interval(choice, confidence)}).{top}{warning}"
    )
    return Answer(lead, f"up to {times_text(leverage)}", rest)


def _shortfall(rows: pd.DataFrame, choice: pd.Series[Any], target: float) -> str:
    attainable = float(choice["attainable"])
    if is_null(choice["attainable"]):
        return "this history holds no entry at this horizon."
    if attainable < target:
        return (
            f"this history can show at most {percent_text(attainable)} at this horizon, even without one liquidation. "
            "More history or a shorter horizon can show more."
        )
    lowest = rows.sort_values("leverage").iloc[0]
    return (
        f"at {times_text(float(lowest['leverage']))}, the lowest, {percent_text(float(lowest['survival']))} survived, "
        f"with a lower bound of {percent_text(float(lowest['survival_low']))}. "
        f"This history could show up to {percent_text(attainable)}."
    )


def _interval(row: pd.Series[Any], confidence: float) -> str:
    low, high = percent_text(float(row["survival_low"])), percent_text(float(row.get("survival_high", float("nan"))))
    return f"{rate_text(confidence)} interval " + (
        f"from {low}" if high == "–" else f"{low.removesuffix(' %')} to {high}"
    )


def assumptions(info: Mapping[str, Any]) -> list[str]:
    """The run's configuration as sentences; what it does not hold is not spoken of."""
    config = info.get("config", {})
    data, entries, sweep, margin, statistics = (
        config.get(name) or {} for name in ("data", "entries", "sweep", "margin", "statistics")
    )
    named = [data.get("trigger"), *(entry.get("trigger") for entry in info.get("coverage", []))]
    triggers = sorted({str(name) for name in named if name})
    return [
        *_entry_words(entries, data),
        *_trigger_words(triggers),
        *_margin_words(margin, sweep),
        *_statistics_words(statistics),
    ]


def _entry_words(entries: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    if entries.get("file"):
        words = [f"Positions are the trades of {PurePath(str(entries['file'])).name}."]
    else:
        every = f"each bar whose start is a multiple of {entries['every']}" if entries.get("every") else "every bar"
        words = [f"A position of its own is opened at the close of {every} and is at risk from the next bar on."]
    if data.get("max_gap"):
        words.append(f"Entries whose window holds a gap longer than {data['max_gap']} are left out (excluded).")
    else:
        words.append("Gaps in the data leave no entry out; a missing bar cannot liquidate.")
    return words


def _trigger_words(triggers: list[str]) -> list[str]:
    if not triggers:
        return []
    names = " or ".join({"mark": "mark price", "last": "last traded price"}.get(name, name) for name in triggers)
    return [f"Liquidation looks at the worst {names} within each bar: the low for a long, the high for a short."]


def _margin_words(margin: Mapping[str, Any], sweep: Mapping[str, Any]) -> list[str]:
    words = []
    basis = {"mark": "the notional at the trigger price", "entry": "the notional at entry"}.get(
        str(margin.get("basis"))
    )
    if basis:
        kind = f"{margin['contract']} contracts, " if margin.get("contract") else ""
        words.append(f"Isolated margin, {kind}maintenance margin on {basis}.")
    if reserve := margin.get("close_reserve"):
        words.append(f"A closing fee of {rate_text(reserve)} is kept inside the maintenance margin.")
    elif reserve is not None:
        words.append("No closing fee is kept inside the maintenance margin.")
    if any(not isinstance(item, int | float) for item in sweep.get("maintenance") or ()):
        words.append("A maintenance rule that is a name brings its own tiers, basis and closing fee.")
    if (from_margin := margin.get("fees_from_margin")) is not None:
        paid = "comes out of the posted margin" if from_margin else "is paid from elsewhere, not from the posted margin"
        words.append(f"The opening fee {paid}.")
    if ratio := margin.get("margin_call_ratio"):
        words.append(f"A margin call is counted where maintenance reaches {rate_text(ratio)} of the margin balance.")
    return words


def _statistics_words(statistics: Mapping[str, Any]) -> list[str]:
    if not {"confidence", "block"} <= set(statistics):
        return []
    days = duration_ms(str(statistics["block"])) / 86_400_000
    length = f" ({days:g} days)" if not str(statistics["block"]).endswith("d") else ""
    return [
        f"Intervals hold {rate_text(statistics['confidence'])} two-sided and are made from calendar blocks of "
        f"{statistics['block']}{length}."
    ]
