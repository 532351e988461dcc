"""Commands on datasets that are there."""

from __future__ import annotations

import click

from backtest.cli.shared import cli, emit, json_option, say


@cli.command()
@click.argument("data", type=click.Path())
@json_option
def check(data: str, as_json: bool) -> None:
    """Validate a dataset: every problem with file, row and column. Exit 1 if there is one."""
    from backtest.checks import check as check_dataset

    report = check_dataset(data)
    if as_json:
        emit(report.as_dict())
    else:
        say(report.text())
    if not report.ok:
        raise SystemExit(1)
