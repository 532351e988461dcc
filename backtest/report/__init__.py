"""A run as one self-contained HTML page: the answer first, then the evidence and what it rests on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from backtest.errors import ConfigError
from backtest.plots.scenario import horizons, matching, select
from backtest.plots.words import UNFUNDED, noted, own_leverage, rate_text, scenario_words, subject, value_words
from backtest.report.assumptions import assumptions
from backtest.report.figures import Picture, band_picture, pictures, policy_picture
from backtest.report.tables import Grid, choices_table, coverage_table, outcome_table, survival_table
from backtest.report.words import Answer, answers, headed

if TYPE_CHECKING:
    import pandas as pd

MOST_SECTIONS = 12  # pairs of symbol and side that get pictures: the page stays below 3 MB


@dataclass(frozen=True)
class Outcomes:
    """What came of the positions of a section in money, at one horizon."""

    horizon: str
    table: Grid
    pictures: list[Picture]
    compared: bool


@dataclass(frozen=True)
class Section:
    """What the page shows of one symbol and side: the first scenario of the other axes."""

    title: str
    who: str
    scenario: str
    answers: list[Answer]
    pictures: list[Picture]
    survival: Grid
    outcomes: Outcomes | None


def write_report(
    table: pd.DataFrame,
    info: Mapping[str, Any],
    choices: pd.DataFrame,
    path: str | os.PathLike[str],
    outcomes: pd.DataFrame | None = None,
) -> Path:
    """Write a run's report: one HTML file that needs nothing beside it.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    info : mapping
        ``run.json``: `config`, `coverage`, `versions`, `fingerprint`.
    choices : DataFrame
        What `choose` returns for the run, with ``attrs["survival"]`` and ``attrs["confidence"]``.
    path : path-like
        The file; written whole or not at all, an older one is replaced.
    outcomes : DataFrame, optional
        The columns of ``outcomes.parquet``, where the run has them.

    Raises
    ------
    ConfigError
        The table has no rows, or the choices do not say which target they answer.
    """
    if missing := {"survival", "confidence"} - set(choices.attrs):
        raise ConfigError(
            f"choices.attrs must hold 'survival' and 'confidence', as choose() sets them; {min(missing)!r} is missing"
        )
    first = select(table)  # refuses a table without rows
    table, choices = noted(table, info), noted(choices, info)
    outcomes = None if outcomes is None else noted(outcomes, info)
    pairs = list(table[["symbol", "side"]].drop_duplicates().itertuples(index=False, name=None))
    fingerprint = info.get("fingerprint", {})
    page = _render(
        {
            "symbols": [value_words("symbol", name) for name in table["symbol"].dropna().unique()],
            "sections": [_section(table, choices, outcomes, *pair) for pair in pairs[:MOST_SECTIONS]],
            "left_out": [subject(*pair) for pair in pairs[MOST_SECTIONS:]],
            "target": rate_text(float(choices.attrs["survival"])),
            "confidence": rate_text(float(choices.attrs["confidence"])),
            "one_scenario": len(first) * len(pairs) == len(table),
            "own_leverage": own_leverage(table),
            "portfolios": "verdict" in table.columns,
            "expires": bool(table.attrs[UNFUNDED]),
            "choices": choices_table(choices),
            "assumptions": assumptions(info),
            "coverage": coverage_table(info),
            "few_blocks": bool(table["few_blocks"].any()),
            "block": info.get("config", {}).get("statistics", {}).get("block", "7d"),
            "verdicts": info.get("verdicts"),
            "versions": dict(info.get("versions", {})),
            "fingerprints": dict(fingerprint) if isinstance(fingerprint, Mapping) else {"data": fingerprint},
        }
    )
    return _write(Path(path), page)


def _section(
    table: pd.DataFrame, choices: pd.DataFrame, outcomes: pd.DataFrame | None, symbol: object, side: object
) -> Section:
    target = float(choices.attrs["survival"])
    both = select(_of(table, symbol, side), every=("verdict",))
    rows = select(both)
    made = _of(choices, symbol, side) if len(choices) else choices
    chosen = select(made, every=("verdict",)) if len(made) else made
    shown = pictures(rows, target)
    if "verdict" in both.columns:
        shown.insert(0, band_picture(both))
    return Section(
        title=headed(subject(symbol, side), side),
        who=subject(symbol, side),
        scenario=headed(scenario_words(rows), side),
        answers=answers(rows, chosen, target, float(choices.attrs["confidence"])) if len(made) else [],
        pictures=shown,
        survival=survival_table(rows, target),
        outcomes=None if outcomes is None else _outcomes(_of(outcomes, symbol, side), rows),
    )


def _of(rows: pd.DataFrame, symbol: object, side: object) -> pd.DataFrame:
    return matching(matching(rows, "symbol", symbol), "side", side)


def _outcomes(outcomes: pd.DataFrame, survival: pd.DataFrame) -> Outcomes:
    """At the longest horizon whose interval rests on enough blocks; at the longest where none does."""
    rows = select(outcomes, every=("policy",))
    known = survival[~survival["few_blocks"]]
    horizon = list(horizons(known if len(known) else survival))[-1]
    at = matching(rows, "horizon", horizon)
    drawn = [] if at["leverage"].isna().all() else [policy_picture(rows, horizon)]
    return Outcomes(horizon, outcome_table(at), drawn, bool(at["policy_cost"].notna().any()))


def _render(context: Mapping[str, object]) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["thousands"] = lambda count: f"{count:,}"
    environment.filters["bound"] = lambda words: words.replace(" %", "\N{NO-BREAK SPACE}%")
    source = files("backtest.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(context)


def _write(path: Path, page: str) -> Path:
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8") as file:
        partial = Path(file.name)
        try:
            file.write(page)
            file.flush()
            partial.chmod(0o644)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return path
