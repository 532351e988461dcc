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
from backtest.plots.scenario import matching, rate_text, scenario_words, select, subject
from backtest.report.figures import Picture, pictures
from backtest.report.tables import Grid, choices_table, coverage_table, survival_table
from backtest.report.words import Answer, answers, assumptions

if TYPE_CHECKING:
    import pandas as pd

MOST_SECTIONS = 12  # pairs of symbol and side that get pictures: the page stays below 3 MB


@dataclass(frozen=True)
class Section:
    """What the page shows of one symbol and side: the first scenario of the other axes."""

    title: str
    scenario: str
    answers: list[Answer]
    pictures: list[Picture]
    survival: Grid


def write_report(
    table: pd.DataFrame, info: Mapping[str, Any], choices: pd.DataFrame, path: str | os.PathLike[str]
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
    pairs = list(table[["symbol", "side"]].drop_duplicates().itertuples(index=False, name=None))
    fingerprint = info.get("fingerprint", {})
    page = _render(
        {
            "symbols": [str(name) for name in table["symbol"].dropna().unique()],
            "sections": [_section(table, choices, symbol, side) for symbol, side in pairs[:MOST_SECTIONS]],
            "left_out": [subject(symbol, side) for symbol, side in pairs[MOST_SECTIONS:]],
            "target": rate_text(float(choices.attrs["survival"])),
            "confidence": rate_text(float(choices.attrs["confidence"])),
            "one_scenario": len(first) * len(pairs) == len(table),
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


def _section(table: pd.DataFrame, choices: pd.DataFrame, symbol: object, side: object) -> Section:
    target = float(choices.attrs["survival"])
    rows = select(matching(matching(table, "symbol", symbol), "side", side))
    made = matching(matching(choices, "symbol", symbol), "side", side) if len(choices) else choices
    return Section(
        title=subject(symbol, side),
        scenario=scenario_words(rows),
        answers=answers(rows, select(made), target, float(choices.attrs["confidence"])) if len(made) else [],
        pictures=pictures(rows, target),
        survival=survival_table(rows, target),
    )


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
