"""What every command uses: the group, how a line and a document are printed, options of one meaning."""

from __future__ import annotations

import json
import logging
import sys

import click

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
