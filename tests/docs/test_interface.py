"""docs/interface.md lists the commands, keys, columns and names that there are: none missing, none invented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import backtest
from backtest.cli import cli
from backtest.stats.schema import FURTHER, event_schema, survival_schema

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/interface.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading, its head left out; code marks are stripped."""
    lines = PAGE.split(f"\n{heading}\n", 1)[1].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return table[2:]


def commands(group: click.Command, name: str) -> Iterator[str]:
    """Every command that does something, with the groups before it."""
    if not isinstance(group, click.Group):
        yield name
        return
    for part, command in group.commands.items():
        yield from commands(command, f"{name} {part}")


def configuration_keys() -> list[str]:
    schema = json.loads(CliRunner().invoke(cli, ["schema"]).output)
    tables = {name: schema["$defs"][name.capitalize()] for name in schema["properties"]}
    return [f"{table}.{key}" for table, keys in tables.items() for key in keys["properties"]]


def price_keys() -> list[str]:
    options = [option.name for option in cli.commands["price"].params]
    return [str(name) for name in options if name not in ("json", "document", "as_json")]


@pytest.mark.parametrize(
    ("heading", "there"),
    [
        ("## Commands", sorted(commands(cli, "backtest"))),
        ("## Configuration", sorted(configuration_keys())),
        ("## One position: `backtest price`", sorted(price_keys())),
        ("## Python", sorted(f"bt.{name}" for name in backtest.__all__)),
    ],
)
def test_listed_is_what_exists(heading: str, there: list[str]) -> None:
    assert sorted(row[0] for row in rows(heading)) == there


def test_columns_of_survival() -> None:
    listed = [(row[0], row[1]) for row in rows("### Columns of survival.parquet")]
    assert listed == [(field.name, str(field.type)) for field in survival_schema(FURTHER)]


def test_columns_of_events() -> None:
    scenario = [row[0] for row in rows("### Columns of survival.parquet")]
    listed = [row[0] for row in rows("### Columns of events")]
    there = event_schema(FURTHER, lives=True, trades=True).names
    assert [*scenario[: scenario.index("entries")], *listed] == there


def test_names_of_a_result() -> None:
    """Methods and properties that the last paragraph names exist."""
    text = PAGE.split("\nA `Result` has")[1]
    listed, plots = text.split("`result.plot` has")
    names = re.findall(r"`(\w+)`", listed)
    plot_names = re.findall(r"`(\w+)`", plots)
    fields = {"path", "info"}
    assert names and [name for name in names if name not in fields and not hasattr(backtest.Result, name)] == []
    from backtest.report.plots import Plots

    assert plot_names and [name for name in plot_names if not hasattr(Plots, name)] == []


def test_rule_names() -> None:
    files = {path.stem for path in (ROOT / "backtest/margin/exchanges").glob("*.toml")}
    text = PAGE.split("Rule names:")[1].split("Each is a data file")[0]
    assert set(re.findall(r"`([\w-]+)`", text)) == files
