"""Commands that turn files into datasets and tier tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from backtest.cli._options import cli, overwrite_option, say

if TYPE_CHECKING:
    from backtest.ingest.merge import Imported
    from backtest.ingest.options import BarFiles, Request

_Command = TypeVar("_Command", bound=Callable[..., Any])


@cli.group(name="import")
def import_() -> None:
    """Turn files of an exchange or tool into a dataset or tier table."""


# --- what the importers of bars share ---------------------------------------------------------------------------------

_FILE = "file, folder or pattern in quotes; may be repeated."
_FILES = (
    click.option("--prices", required=True, multiple=True, type=click.Path(), help=f"Prices: {_FILE}"),
    click.option("--mark", multiple=True, type=click.Path(), help=f"Mark prices: {_FILE}"),
    click.option("--funding", multiple=True, type=click.Path(), help=f"Funding rates: {_FILE}"),
)
_EXISTING = (
    click.option("--add", is_flag=True, help="Join what is there; what both have must agree."),
    click.option("--overwrite", is_flag=True, help="New bars take the place of those there; others stay."),
)
_TARGET = (
    click.option("--symbol", required=True, help="Its name in the dataset."),
    click.option("--interval", required=True, help="Length of a bar, such as 1h."),
    click.option("--out", required=True, type=click.Path(), help="Dataset."),
    *_EXISTING,
)
_INSTRUMENT = click.option("--instrument", help="Name of the symbol in the files, where it is another.")
_TIMES = (
    click.option("--time-zone", help="Of times without an offset: UTC+3, Asia/Shanghai …"),
    click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), help="Of numeric times."),
    click.option("--stamps", type=click.Choice(["open", "close"]), help="Which end of a bar its time is."),
    click.option("--rates", type=click.Choice(["fraction", "percent"]), help="Unit of the funding rates."),
    click.option("--price-scale", type=float, default=1.0, help="Prices are multiplied by it."),
)
_CSV = (
    click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="time=Date, open=2, mark.close=c …"),
    click.option("--separator", help="Of CSV columns."),
    click.option("--decimal", default=".", help="Decimal mark of CSV numbers."),
    click.option("--header/--no-header", default=None, help="Whether the first row of a CSV holds names."),
    click.option("--time-format", help="Of times that are text, such as '%d/%m/%Y %H:%M'."),
)


def _with(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options at once, in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _request(given: Mapping[str, Any]) -> Request:
    """What to import, from the options of a command."""
    from dataclasses import fields

    from backtest.ingest.options import Reading, Request, column_options, existing_choice

    reading = {field.name: given[field.name] for field in fields(Reading) if field.name in given}
    if "columns" in reading:
        reading["columns"] = column_options(reading["columns"])
        reading["separator"] = {"tab": "\t", "\\t": "\t"}.get(reading["separator"] or "", reading["separator"])
    return Request(
        given["symbol"],
        given["interval"],
        given["out"],
        existing_choice(given["add"], given["overwrite"]),
        given.get("instrument"),
        Reading(**reading),
    )


def _files(given: Mapping[str, Any]) -> BarFiles:
    from backtest.ingest.options import BarFiles

    return BarFiles(given["prices"], given["mark"], given["funding"])


def tell_imported(done: Imported) -> None:
    """Print notes and warnings on standard error, and what was written."""
    for note in (*done.notes, *(f"warning: {warning}" for warning in done.warnings)):
        click.echo(note, err=True)
    span = f"{done.span[0]} … {done.span[1]}"
    say(f"{done.path}: {done.rows:,} bars, {span}, {done.gaps} gaps, {done.charges:,} charges")


@import_.command()
@_with(*_TARGET, *_FILES, *_CSV, *_TIMES)
def generic(**given: Any) -> None:
    """Parquet, Feather or CSV files of any tool, columns by their names or as told."""
    from backtest.ingest.formats.generic import FORMAT
    from backtest.ingest.importer import import_files

    tell_imported(import_files(FORMAT, _request(given), _files(given)))


def _exchange(name: str, help_: str) -> None:
    """One command for a source that differs only in how a file is opened."""

    @import_.command(name=name, help=help_)
    @_with(*_TARGET, _INSTRUMENT, *_FILES, *_TIMES)
    def command(**given: Any) -> None:
        from backtest.ingest.importer import import_files

        source = import_module(f"backtest.ingest.formats.{name}").FORMAT
        tell_imported(import_files(source, _request(given), _files(given)))


_exchange("bybit", "Bybit: kline_for_metatrader4 archives, and JSON of the v5 API (kline, mark, funding history).")
_exchange("okx", "OKX: candlestick and swap-rate archives, and JSON of the v5 API (candles, mark, funding history).")
_exchange("hyperliquid", "Hyperliquid: JSON of candleSnapshot and fundingHistory.")
_exchange("ccxt", "ccxt: JSON of fetch_ohlcv, fetch_mark_ohlcv and fetch_funding_rate_history.")


@import_.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True, type=click.Path())
@_with(*_TARGET, _INSTRUMENT)
@click.option("--funding-every", help="Time between charges, such as 1h, where ticks do not tell when they fall.")
def tardis(sources: tuple[str, ...], funding_every: str | None, **given: Any) -> None:
    """Tardis: derivative_ticker files; bars of last and mark price, and funding, from ticks."""
    from backtest.ingest.formats.tardis import import_tardis

    tell_imported(import_tardis(_request(given), sources, funding_every))


@import_.command()
@click.argument("folder", required=False, type=click.Path())
@click.option("--pair", required=True, help="As freqtrade calls it: BTC/USDT:USDT.")
@click.option("--symbol", help="Its name in the dataset; default: the pair without its marks.")
@_with(*_TARGET[1:])
@click.option("--prices", type=click.Path(), help="Candles, in place of those found in FOLDER.")
@click.option("--mark", type=click.Path(), help="Mark prices, in place of those found in FOLDER.")
@click.option("--funding", type=click.Path(), help="Funding rates, in place of those found in FOLDER.")
def freqtrade(folder: str | None, pair: str, symbol: str | None, interval: str, out: str, **given: Any) -> None:
    """freqtrade: what it downloaded of a pair, in FOLDER (user_data/data/<exchange>), Feather, Parquet or JSON."""
    from backtest.ingest.formats.freqtrade import import_freqtrade
    from backtest.ingest.options import existing_choice

    existing = existing_choice(given["add"], given["overwrite"])
    tell_imported(import_freqtrade(folder, pair, interval, _files(given), out=out, symbol=symbol, existing=existing))


@import_.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Dataset.")
@click.option(
    "--symbol", "symbols", multiple=True, help="Only this one; may be repeated. Names a file that was renamed."
)
@click.option("--interval", help="Only bars of this length, such as 1m. Names a file that was renamed.")
@click.option("--kind", type=click.Choice(["last", "mark"]), help="What bars without volume are if no folder tells.")
@_with(*_EXISTING)
def binance(
    sources: tuple[str, ...],
    out: str,
    symbols: tuple[str, ...],
    interval: str | None,
    kind: Literal["last", "mark"] | None,
    add: bool,
    overwrite: bool,
) -> None:
    """Public archives of Binance: files or folders of zips or CSVs, klines, markPriceKlines and fundingRate."""
    from backtest.ingest.binance.importer import import_binance
    from backtest.ingest.options import existing_choice

    existing = existing_choice(add, overwrite)
    for done in import_binance(sources, out, symbols=symbols, interval=interval, kind=kind, existing=existing):
        tell_imported(done)


@import_.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="A .csv file.")
@click.option("--symbol", help="Which one, as the source spells it; only needed where there are several.")
@click.option("--effective-from", help="Date from which the table is in force, UTC; default: from the beginning.")
@click.option("--contract-size", type=float, help="Worth of one contract in quote (inverse: coin), for OKX.")
@click.option("--add", is_flag=True, help="Put the table beside those of other dates in the file.")
@overwrite_option
def tiers(
    sources: tuple[str, ...],
    out: str,
    symbol: str | None,
    effective_from: str | None,
    contract_size: float | None,
    add: bool,
    overwrite: bool,
) -> None:
    """Tier table from JSON of Binance, Bybit, OKX, Hyperliquid or ccxt; several files are pages of one answer."""
    from backtest.ingest.options import existing_choice
    from backtest.ingest.tiers.importer import import_tiers

    existing = existing_choice(add, overwrite)
    done = import_tiers(
        sources, out, symbol=symbol, effective_from=effective_from, contract_size=contract_size, existing=existing
    )
    for note in done.notes:
        click.echo(note, err=True)
    say(f"{done.path}: {done.symbol}, {sum(one.table.floor.size for one in done.tables)} tiers of {done.source}")
