"""Documents: the picture of the rooms is current, files and sections that they name exist, examples are accepted."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import backtest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
KINDS = {"data": backtest.Data, "margin": backtest.Margin, "statistics": backtest.Statistics}
SECTIONS = re.findall(r"^## (\d+)\. ", (ROOT / "docs/semantics.md").read_text(), re.MULTILINE)


def test_picture_of_rooms_is_current() -> None:
    """`python docs/draw_rooms.py` draws what is committed."""
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "docs/draw_rooms.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PICTURE.read_text() == script.draw(), "run: python docs/draw_rooms.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(document: Path) -> None:
    """Links, and paths of this repository in code marks."""
    text = document.read_text()
    linked = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    missing = [target for target in linked if not (document.parent / target).exists()]
    if document.name != "CHANGELOG.md":  # it tells of files that were
        named = re.findall(r"`((?:backtest|tests|docs|benchmarks|notebooks|tools)/[\w./-]+)`", text)
        missing += [target for target in named if not (ROOT / target).exists()]
    assert missing == []


def test_cited_sections_exist() -> None:
    """Code and tests cite ``docs/semantics.md §N``."""
    assert ",".join(SECTIONS) == "1,2,3,4,5,6,7,8,9,10"
    wrong = []
    for folder in ("backtest", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            for numbers in re.findall(r"semantics\.md\s+((?:§\d+(?:,\s+)?)+)", file.read_text()):
                wrong += [(str(file), number) for number in re.findall(r"\d+", numbers) if number not in SECTIONS]
    assert wrong == []


def test_glossary_is_alphabetical_and_says_each_term_once() -> None:
    lines = (ROOT / "docs/glossary.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    terms = [row[0].casefold() for row in rows]
    assert len(terms) > 50
    assert terms == sorted(set(terms))
    assert {row[3] for row in rows} <= set(SECTIONS)


def toml_examples() -> list[tuple[str, dict[str, Any]]]:
    """Configurations in README, rules and choosing: blocks, and keys in code marks."""
    found = []
    for name in ("README.md", "docs/rules.md", "docs/choosing.md"):
        text = (ROOT / name).read_text()
        blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL) + re.findall(r"<<'TOML'\n(.*?)TOML", text, re.DOTALL)
        keys = re.findall(r"`((?:sweep|margin|statistics)\.\w+ = [^`]+)`", text)
        found += [
            (f"{name}: {one.split(chr(10))[0]}", tomllib.loads(one)) for one in [*blocks, *keys] if "…" not in one
        ]
    policies = re.findall(r"^\| `(\w+ = [^`]+)` \|", (ROOT / "docs/rules.md").read_text(), re.MULTILINE)
    return found + [(one, {"sweep": {"policy": [tomllib.loads(one)]}}) for one in policies]


EXAMPLES = toml_examples()


@pytest.mark.parametrize("document", [one for _, one in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_examples_of_configurations_are_accepted(document: dict[str, Any]) -> None:
    margin, sweep = document.get("margin", {}), document.get("sweep", {})
    if margin.get("contract") == "spot":
        document = {**document, "margin": {"liquidation_ltv": 0.9, "margin_call_ltv": 0.8, **margin}}
    least = {"horizon": ["1d"], "maintenance": [] if margin.get("contract") == "spot" else [0.004]}
    parts = {table: KINDS[table](**keys) for table, keys in document.items() if table != "sweep"}
    assert backtest.Config(sweep=backtest.Sweep(**{**least, **sweep}), **parts)
