"""A run as one self-contained HTML page: the answer first, then the evidence and what it rests on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.errors import ConfigError
from backtest.filesystem import atomic_write
from backtest.report.html.assumptions import assumptions
from backtest.report.html.config_toml import configuration, toml_text
from backtest.report.html.explorer import explorer
from backtest.report.html.figures import Picture, band_picture, pictures, policy_picture
from backtest.report.html.summary import Answer, answers, headed, pivot
from backtest.report.html.worst_days import NOT_ASKED, Worst, WorstSection, worst_section
from backtest.report.labels import UNFUNDED, noted, own_leverage, scenario_words, subject, value_words
from backtest.report.number_format import rate_text
from backtest.report.scenario_selection import horizons, matching, select, spread, usual_leverages
from backtest.report.tables import (
    MOST_ROWS,
    Grid,
    choices_table,
    coverage_table,
    margin_table,
    outcome_table,
    regime_table,
    survival_table,
)
from backtest.units import number_text

if TYPE_CHECKING:
    import pandas as pd

MOST_SECTIONS = 12  # pairs of symbol and side that get pictures
MOST_HORIZONS = 13  # in tables and pictures
MOST_LABELS = 60  # of a regime
REGIME_LEVERAGES = (2.0, 3.0, 5.0, 10.0, 20.0)
MOST_ANSWERS = 7  # sentences of a symbol and side
SECTION_BYTES = 1_600_000  # beside 1 MB for the explorer: the page stays below 3 MB


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
    required: Grid | None
    horizon: str
    regimes: dict[str, Grid]
    outcomes: Outcomes | None
    worst: WorstSection | None

    @property
    def size(self) -> int:
        """About how many characters its pictures and tables take."""
        more = [*(self.outcomes.pictures if self.outcomes else []), *([self.worst.picture] if self.worst else [])]
        tables = [self.survival, *self.regimes.values()]
        return sum(len(picture.svg) for picture in [*self.pictures, *more]) + sum(table.size for table in tables)


@dataclass(frozen=True)
class Shown:
    """The frames that sections are made of, at the holding times that the page shows."""

    table: pd.DataFrame
    choices: pd.DataFrame
    outcomes: pd.DataFrame | None
    regimes: Mapping[str, pd.DataFrame]
    worst: Worst


def write_report(
    table: pd.DataFrame,
    info: Mapping[str, Any],
    choices: pd.DataFrame,
    path: str | os.PathLike[str],
    outcomes: pd.DataFrame | None = None,
    regimes: Mapping[str, pd.DataFrame] | None = None,
    worst: Worst | None = None,
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
    regimes : mapping of str to DataFrame, optional
        Name → what `Result.regimes` returns, for each regime of the run.
    worst : Worst, optional
        The days that did it, as of `backtest.worst_days`.

    Raises
    ------
    ConfigError
        The table has no rows, or the choices do not say which target they answer.
    """
    if missing := {"survival", "confidence"} - set(choices.attrs):
        raise ConfigError(
            f"choices.attrs must hold 'survival' and 'confidence', as choose() sets them; {min(missing)!r} is missing"
        )
    worst = worst or NOT_ASKED
    first = select(table)  # refuses a table without rows
    table, choices = noted(table, info), noted(choices, info)
    pairs = list(table[["symbol", "side"]].drop_duplicates().itertuples(index=False, name=None))
    every = list(horizons(table))
    kept = spread(every, MOST_HORIZONS)
    shown = Shown(
        table[table["horizon"].isin(kept)],
        choices[choices["horizon"].isin(kept)],
        None if outcomes is None else noted(outcomes, info),
        regimes or {},
        worst,
    )
    sections = list(_sections(shown, pairs))
    page = _render(
        {
            "symbols": [value_words("symbol", name) for name in table["symbol"].dropna().unique()],
            "sections": sections,
            "left_out": [subject(*pair) for pair in pairs[len(sections) :]],
            "horizons_shown": len(kept),
            "horizons_left_out": len(every) - len(kept),
            "answers_left_out": len(kept) > MOST_ANSWERS,
            "one_scenario": len(first) * len(pairs) == len(table),
            "own_leverage": own_leverage(table),
            "portfolios": "verdict" in table.columns,
            "expires": bool(table.attrs[UNFUNDED]),
            "explorer": explorer(
                table, float(choices.attrs["survival"]), pivot(*(_first(each, *pairs[0]) for each in (table, choices)))
            ),
            "choices": choices_table(shown.choices).first(MOST_ROWS),
            "absent_days": worst.absent,
            "few_blocks": bool(table["few_blocks"].any()) or any(g.few for s in sections for g in s.regimes.values()),
            **_origin(info, choices.attrs),
        }
    )
    return _write(Path(path), page)


def _origin(info: Mapping[str, Any], asked: Mapping[Any, Any]) -> dict[str, object]:
    """What the page says of the run as a whole; asked : the target and the level of confidence."""
    target, fingerprint, recipe = float(asked["survival"]), info.get("fingerprint", {}), configuration(info)
    return {
        "target": rate_text(target),
        "confidence": rate_text(float(asked["confidence"])),
        "assumptions": assumptions(info),
        "coverage": coverage_table(info),
        "block": info.get("config", {}).get("statistics", {}).get("block", "7d"),
        "verdicts": info.get("verdicts"),
        "recipe": toml_text(recipe),
        "in_memory": not recipe.get("data", {}).get("path"),
        "survival_option": "" if target == 0.95 else f" --survival {number_text(target)}",
        "versions": dict(info.get("versions", {})),
        "fingerprints": dict(list(fingerprint.items())[:MOST_ROWS]),
    }


def _sections(shown: Shown, pairs: list[tuple[object, object]]) -> Iterator[Section]:
    """One for each symbol and side, as many as the page has room for."""
    room = SECTION_BYTES
    for symbol, side in pairs[:MOST_SECTIONS]:
        section = _section(shown, symbol, side)
        room -= section.size
        if room < 0 and (symbol, side) != pairs[0]:
            return
        yield section


def _section(shown: Shown, symbol: object, side: object) -> Section:
    target, confidence = (float(shown.choices.attrs[name]) for name in ("survival", "confidence"))
    both = select(_of(shown.table, symbol, side), every=("verdict",))
    rows = select(both)
    made = _of(shown.choices, symbol, side) if len(shown.choices) else shown.choices
    chosen = select(made, every=("verdict",)) if len(made) else made
    horizon, _ = pivot(rows, select(made) if len(made) else made)
    by_regime = {
        name: _regime(name, _of(frame, symbol, side), horizon, target) for name, frame in shown.regimes.items()
    }
    drawn = pictures(rows, target)
    if "verdict" in both.columns:
        drawn.insert(0, band_picture(both))
    return Section(
        title=headed(subject(symbol, side), side),
        who=subject(symbol, side),
        scenario=headed(scenario_words(rows), side),
        answers=answers(rows, chosen, target, confidence, MOST_ANSWERS) if len(made) else [],
        pictures=drawn,
        survival=survival_table(rows, target),
        required=margin_table(rows, target) if rows["leverage"].notna().any() else None,
        horizon=horizon,
        regimes={name: table for name, table in by_regime.items() if table},
        outcomes=None if shown.outcomes is None else _outcomes(_of(shown.outcomes, symbol, side), rows),
        worst=worst_section(shown.worst, symbol, side),
    )


def _of(rows: pd.DataFrame, symbol: object, side: object) -> pd.DataFrame:
    return matching(matching(rows, "symbol", symbol), "side", side)


def _first(rows: pd.DataFrame, symbol: object, side: object) -> pd.DataFrame:
    """Rows of the first scenario of a symbol and side, if there are any."""
    found = _of(rows, symbol, side)
    return select(found) if len(found) else found


def _regime(name: str, rows: pd.DataFrame, horizon: str, target: float) -> Grid | None:
    """Survival of the first scenario by regime; None where there are no rows, or trades have their own leverages."""
    if rows.empty or rows["leverage"].isna().all():
        return None
    rows = matching(select(rows, every=("regime",)), "horizon", horizon)
    grid = regime_table(rows, name, usual_leverages(rows, REGIME_LEVERAGES), target)
    return grid.first(MOST_LABELS, "labels: result.regimes() has them all")


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
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["thousands"] = lambda count: f"{count:,}"
    environment.filters["bound"] = lambda words: words.replace(" %", "\N{NO-BREAK SPACE}%")
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    plain = {"style": Markup(_source("report.css")), "script": Markup(_source("explorer.js"))}
    return environment.get_template("report.html.j2").render({**context, **plain})


def _source(name: str) -> str:
    return files("backtest.report.html").joinpath(name).read_text(encoding="utf-8")


def _write(path: Path, page: str) -> Path:
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path
