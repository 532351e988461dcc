"""Commands on datasets that are there."""

from __future__ import annotations

from typing import Literal

import click

from backtest.cli._options import cli, emit, json_option, overwrite_option, say
from backtest.errors import ConfigError


@cli.command()
@click.argument("data", type=click.Path())
@click.option("--strict", is_flag=True, help="Exit 1 on a warning, too.")
@click.option("--plot", type=click.Path(), help="A .png, .svg or .pdf file: what is covered, on one page.")
@json_option
def check(data: str, strict: bool, plot: str | None, as_json: bool) -> None:
    """Validate a dataset: every problem with file, row and column. Exit 1 if there is one.

    Warnings name bars that keep every rule and still look wrong: gaps, bars filled forward, spikes, last and mark
    apart, funding off its schedule.
    """
    from backtest.data.quality.check import check as check_dataset

    report = check_dataset(data)
    if plot is not None:
        from backtest.report.plots.coverage import plot_coverage
        from backtest.report.plots.style import save_plot

        save_plot(plot_coverage(report), plot)
    if as_json:
        emit(report.as_dict())
    else:
        say(report.text())
    if not report.ok or (strict and report.warnings):
        raise SystemExit(1)


@cli.group(name="data")
def data_() -> None:
    """What datasets hold."""


@data_.command(name="list")
@click.argument("data", type=click.Path())
@json_option
def list_(data: str, as_json: bool) -> None:
    """Symbols, intervals, spans, coverage, funding charges and sizes of a dataset."""
    from backtest.data.inventory import inventory, inventory_text

    held = inventory(data)
    if as_json:
        emit({"data": data, "series": [one.as_dict() for one in held]})
    else:
        say(inventory_text(held))


@cli.command()
@click.argument("data", type=click.Path())
@click.option("--to", required=True, multiple=True, metavar="INTERVAL", help="Such as 5m; may be given several times.")
@click.option("--out", required=True, type=click.Path(), help="Dataset, which may be DATA.")
@click.option("--symbol", "symbols", multiple=True, help="Default: all.")
@click.option("--interval", help="Bars to take; default: the finest of each symbol.")
@click.option("--add", is_flag=True, help="Join the bars with those there, which must agree.")
@overwrite_option
def resample(
    data: str, to: tuple[str, ...], out: str, symbols: tuple[str, ...], interval: str | None, add: bool, overwrite: bool
) -> None:
    """Coarser bars from finer ones, mark prices and funding included."""
    from backtest.data.resample import resample_dataset
    from backtest.units import instant_text

    if add and overwrite:
        raise ConfigError("--add and --overwrite exclude each other")
    existing: Literal["refuse", "add", "replace"] = "add" if add else "replace" if overwrite else "refuse"
    for done in resample_dataset(data, to, out, symbols=symbols or None, interval=interval, existing=existing):
        first, last = map(instant_text, done.span_ms)
        say(f"{done.path}: {done.rows:,} bars, {first} … {last}")
