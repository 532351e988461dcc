"""The answers at the top of the page, a sentence per horizon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backtest.report.labels import own_leverage, subject
from backtest.report.number_format import is_null, percent_text, rate_text, times_text
from backtest.report.scenario_selection import horizons, matching, spread

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answer:
    """One sentence: whose survival and how long, the claim, the evidence; `met`: whether a leverage was found."""

    lead: str
    claim: str
    rest: str
    met: bool = True


def answers(rows: pd.DataFrame, choices: pd.DataFrame, target: float, confidence: float, most: int) -> list[Answer]:
    """The answer for each horizon that was chosen for, shortest first; where they are many, for so many at most.

    Parameters
    ----------
    rows : DataFrame
        One scenario of ``survival.parquet``.
    choices : DataFrame
        The same scenario of what `choose` returns; of a portfolio under both verdicts, ``worst`` leads.
    """
    found = []
    for text in spread(list(horizons(choices)), most):
        made = matching(choices, "horizon", text)
        answer = _answer(matching(rows, "horizon", text), made.iloc[0], target, confidence)
        found.append(replace(answer, rest=answer.rest + _at_close(made)))
    return found


def _answer(rows: pd.DataFrame, choice: pd.Series[Any], target: float, confidence: float) -> Answer:
    lead = f"{_who(choice)}:"
    few = bool(rows["few_blocks"].any())
    warning = " There are too few blocks of history for the interval to say much." if few else ""
    if own_leverage(rows):
        row = rows.iloc[0]
        claim = f"{percent_text(row['survival'])} survived at the leverage each trade had"
        return Answer(lead, claim, f"({_interval(row, confidence)}).{warning}")
    if is_null(choice["leverage"]):
        claim = f"no leverage of the grid reaches {rate_text(target)};"
        if rows["leverage"].isna().all():
            claim = "nothing can be said;"
        return Answer(lead, claim, _shortfall(rows, choice, target) + warning, met=False)
    leverage = float(choice["leverage"])
    top = " Nothing higher was tried." if leverage == float(rows["leverage"].max()) else ""
    row = matching(rows, "leverage", leverage).iloc[0]
    rest = (
        f"would have survived with at least {rate_text(target)}. At {times_text(leverage)}, "
        f"{percent_text(row['survival'])} did ({_interval(choice, confidence)}).{top}{warning}"
    )
    return Answer(lead, f"up to {times_text(leverage)}", rest)


def pivot(rows: pd.DataFrame, choices: pd.DataFrame) -> tuple[str, float | None]:
    """The holding time that says most, and the leverage chosen for it: of one scenario.

    It is the middle one of those that a leverage was chosen for, or of all where there is none; of those whose interval
    rests on enough blocks where any does.
    """
    made = choices[choices["leverage"].notna()] if len(choices) else choices
    chosen = {str(text): float(leverage) for text, leverage in zip(made["horizon"], made["leverage"], strict=True)}
    few = set(rows["horizon"][rows["few_blocks"].astype(bool)])
    every = list(horizons(rows))
    sound = [text for text in every if text not in few]
    met = [text for text in every if text in chosen]
    found = next(among for among in ([text for text in met if text in sound], met, sound, every) if among)
    middle = found[len(found) // 2]
    return middle, chosen.get(middle)


def headed(text: str, side: object) -> str:
    """With a capital where it begins with a word, and not with a symbol: that of trades and portfolios."""
    return text[0].upper() + text[1:] if is_null(side) else text


def _who(choice: pd.Series[Any]) -> str:
    """``Long BTCUSDT held 7d``, ``Trades on BTCUSDT held up to 7d``, ``Portfolio BTCUSDT 60 % long, … held 7d``."""
    symbol, side, horizon = choice["symbol"], choice["side"], choice["horizon"]
    if not is_null(side):
        return f"{str(side).capitalize()} {symbol} held {horizon}"
    exits = "" if "verdict" in choice.index else "up to "  # trades may end before
    return f"{headed(subject(symbol, side), side)} held {exits}{horizon}"


def _at_close(choices: pd.DataFrame) -> str:
    """What the other verdict of a portfolio would have answered."""
    if "verdict" not in choices or not (choices["verdict"] == "close").any():
        return ""
    leverage = matching(choices, "verdict", "close").iloc[0]["leverage"]
    return f" Judged at the closes alone: {'none' if is_null(leverage) else f'up to {times_text(float(leverage))}'}."


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
