"""What commands share: the group, arguments and options of one meaning, and how a line and a document are printed."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

import click

from backtest.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def _toml(context: click.Context, parameter: click.Parameter, path: str) -> str:
    if not path.endswith(".toml"):
        raise ConfigError(f"CONFIG must be a .toml file; got {path!r}")
    return path


config_argument = click.argument("config", type=click.Path(), callback=_toml)
run_argument = click.argument("run_directory", metavar="RUN", type=click.Path())
workers_option = click.option("--workers", type=int, help="Threads; default: one per core.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="liquidation-backtest")
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def cli(verbose: bool) -> None:
    """Which leverage would have been liquidated, how often and how soon: every entry and every leverage at once."""
    level, lines = logging.INFO if verbose else logging.WARNING, logging.StreamHandler(sys.stderr)
    lines.setLevel(level)  # --log has a file see more
    logging.basicConfig(level=level, format="%(message)s", handlers=[lines])


def say(text: str) -> None:
    """A line for people."""
    click.echo(text)


def emit(document: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def json_rows(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of a frame for JSON: null for NaN, for missing values and for infinities."""
    known = frame.replace([float("inf"), float("-inf")], None).astype(object)
    rows = known.where(known.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
