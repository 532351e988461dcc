"""The worst days of a finished run, for its report: its histories are read again if they have not changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backtest.analysis.liquidation_days import days_and_episodes
from backtest.analysis.study_inputs import StudyInputs
from backtest.config.models import Config
from backtest.config.scenarios import expand_scenarios, scenarios_at
from backtest.data.history import PriceHistory
from backtest.engine.bars import fingerprint
from backtest.errors import BacktestError, DataError
from backtest.report.html import MOST_SECTIONS
from backtest.report.html.config_toml import configuration
from backtest.report.html.summary import pivot
from backtest.report.html.worst_days import Worst
from backtest.report.labels import subject
from backtest.report.scenario_selection import matching, select
from backtest.runs.inputs import HistorySource, checked_sources, read_grid
from backtest.runs.result import Result

if TYPE_CHECKING:
    import pandas as pd

Point = tuple[str, float | None]
"""Horizon, and leverage where it is the run's."""


def worst_days(
    result: Result, survival: float = 0.95, histories: PriceHistory | Sequence[PriceHistory] | None = None
) -> Worst:
    """Liquidations by day of a run's first scenario of each symbol and side, for its report.

    At the longest horizon that a leverage was chosen for, and at that leverage; where none of its positions was
    liquidated, at the next one that lost some.

    Parameters
    ----------
    result : Result
    survival : float
        Target of the choice, as of `Result.report`.
    histories : PriceHistory or sequence of PriceHistory, optional
        Those the run was made from; by default they are read from ``data.path`` of its configuration.

    Returns
    -------
    Worst
        Its ``absent`` says what is not there and why: rules that act between entry and end, several legs, a history
        that is gone, or has changed since.

    Examples
    --------
    >>> import backtest as bt
    >>> result = bt.load("runs/demo")                             # doctest: +SKIP
    >>> result.report(worst=bt.worst_days(result))                # doctest: +SKIP
    """
    recorded = result.info["config"]
    for key, why in (("portfolio", "several legs share a liquidation"), ("policy", "policies act before the end")):
        if recorded["sweep"].get(key):
            return Worst(absent=(f"Days are counted for single positions under static rules; here {why}.",))
    try:
        config = Config.model_validate(configuration(result.info))
        given = histories if histories is not None else recorded["data"]["path"]
        if given is None:
            raise DataError("the run was made from histories in memory; worst_days takes them")
        sources = {source.symbol: source for source in checked_sources(given, config)}
    except (BacktestError, ValueError) as error:
        return Worst(absent=(f"The histories of the run cannot be looked at again: {error}.",))
    return _gathered(list(_found(result, survival, config, sources)))


def _gathered(found: list[tuple[pd.DataFrame, pd.DataFrame] | str]) -> Worst:
    import pandas as pd

    frames = [each for each in found if not isinstance(each, str)]
    absent = tuple(dict.fromkeys(each for each in found if isinstance(each, str)))
    if not frames:
        return Worst(absent=absent)
    days, episodes = (pd.concat(parts, ignore_index=True) for parts in zip(*frames, strict=True))
    days.attrs["span"] = {symbol: span for part, _ in frames for symbol, span in part.attrs["span"].items()}
    return Worst(days, episodes, absent)


def _found(
    result: Result, survival: float, config: Config, sources: dict[str, HistorySource]
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame] | str]:
    """Days and episodes of each symbol and side, or why there are none."""
    choices = result.choose(survival)
    pairs = result.table[["symbol", "side"]].drop_duplicates().head(MOST_SECTIONS)
    read: dict[str, PriceHistory | str] = {}
    for symbol, side in pairs.itertuples(index=False, name=None):
        who = subject(symbol, side)
        rows, made = (select(matching(matching(x, "symbol", symbol), "side", side)) for x in (result.table, choices))
        point = _point(rows, made)
        if point is None:
            yield f"Of {who} no position was liquidated."
            continue
        if symbol not in read:
            read[symbol] = _history(sources.get(symbol), config, result.info["fingerprint"].get(symbol))
        history = read[symbol]
        if isinstance(history, str):
            yield f"{symbol}: {history}"
        else:
            yield _days(history, config, side, point)


def _point(rows: pd.DataFrame, choices: pd.DataFrame) -> Point | None:
    """Where to look, in one scenario; None where nothing was liquidated."""
    horizon, chosen = pivot(rows, choices)
    at = matching(rows, "horizon", horizon).sort_values("leverage")
    died = at[at["liquidations"] > 0]
    if died.empty:
        return None
    if rows["leverage"].isna().all():
        return horizon, None
    enough = died if chosen is None else died[died["leverage"] >= chosen]
    return horizon, float((enough if len(enough) else died.tail(1)).iloc[0]["leverage"])


def _history(source: HistorySource | None, config: Config, expected: str | None) -> PriceHistory | str:
    """A symbol's history if it is that of the run; else what is wrong."""
    if source is None:
        return "its history is no longer in the dataset."
    try:
        history = source.read()
        grid = read_grid(
            config, replace(source, read=lambda: history), scenarios_at(expand_scenarios(config), source.symbol)
        )
    except BacktestError as error:
        return f"its history cannot be read again: {error}."
    if fingerprint(grid) != expected:
        return "its history has changed since the run, so that its days would not be those of the run."
    return history


def _days(history: PriceHistory, config: Config, side: str | None, point: Point) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the first scenario on a side. Leverages above the one asked for tell nothing of the episodes."""
    horizon, leverage = point
    sweep = config.sweep
    first: dict[str, Any] = {name: getattr(sweep, name)[:1] for name in ("maintenance", "open_fee", "funding")}
    first |= {name: getattr(sweep, name)[:1] for name in ("size", "weight") if getattr(sweep, name)}
    if leverage is not None:
        first["leverage"] = tuple(x for x in sweep.leverage if x <= leverage)
    if side is not None:
        first["side"] = (side,)
    one = sweep.model_copy(update={**first, "horizon": (horizon,)})
    data = config.data.model_copy(update={"symbols": (history.symbol,)})
    study = StudyInputs(history, one, data=data, entries=config.entries, margin=config.margin)
    return days_and_episodes(study, leverage)
