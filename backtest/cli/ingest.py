"""Commands that turn files into datasets and tier tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from backtest.cli._options import cli, overwrite_option, say

if TYPE_CHECKING:
    from backtest.ingest.merge import Imported

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
_TARGET = (
    click.option("--symbol", required=True, help="Its name in the dataset."),
    click.option("--interval", required=True, help="Length of a bar, such as 1h."),
    click.option("--out", required=True, type=click.Path(), help="Dataset."),
    click.option("--add", is_flag=True, help="Join what is there; what both have must agree."),
    click.option("--overwrite", is_flag=True, help="New bars take the place of those there; others stay."),
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


def _tell(done: Imported) -> None:
    for note in (*done.notes, *(f"warning: {warning}" for warning in done.warnings)):
        click.echo(note, err=True)
    span = f"{done.span[0]} … {done.span[1]}"
    say(f"{done.path}: {done.rows:,} bars, {span}, {done.gaps} gaps, {done.charges:,} charges")


@import_.command()
@_with(*_TARGET, *_FILES, *_CSV, *_TIMES)
def generic(
    symbol: str,
    interval: str,
    out: str,
    add: bool,
    overwrite: bool,
    prices: tuple[str, ...],
    mark: tuple[str, ...],
    funding: tuple[str, ...],
    columns: tuple[str, ...],
    separator: str | None,
    decimal: str,
    header: bool | None,
    time_format: str | None,
    time_zone: str | None,
    time_unit: str | None,
    stamps: str | None,
    rates: str | None,
    price_scale: float,
) -> None:
    """Parquet, Feather or CSV files of any tool, columns by their names or as told."""
    from backtest.ingest.formats.generic import import_generic
    from backtest.ingest.options import Reading, column_options

    reading = Reading(
        columns=column_options(columns),
        separator={"tab": "\t", "\\t": "\t"}.get(separator or "", separator),
        decimal=decimal,
        header=header,
        time_unit=time_unit,
        time_format=time_format,
        time_zone=time_zone,
        stamps=stamps,
        price_scale=price_scale,
        rates=rates,
    )
    _tell(
        import_generic(symbol, interval, prices, mark, funding, out=out, reading=reading, add=add, overwrite=overwrite)
    )


def _exchange(name: str, help_: str) -> None:
    """One command for a source that differs in how a file is opened only."""

    @import_.command(name=name, help=help_)
    @_with(*_TARGET, _INSTRUMENT, *_FILES, *_TIMES)
    def command(
        symbol: str,
        interval: str,
        out: str,
        add: bool,
        overwrite: bool,
        instrument: str | None,
        prices: tuple[str, ...],
        mark: tuple[str, ...],
        funding: tuple[str, ...],
        time_zone: str | None,
        time_unit: str | None,
        stamps: str | None,
        rates: str | None,
        price_scale: float,
    ) -> None:
        from importlib import import_module

        from backtest.ingest.importer import import_files
        from backtest.ingest.options import Reading

        source = import_module(f"backtest.ingest.formats.{name}")
        reading = Reading(time_zone=time_zone, time_unit=time_unit, stamps=stamps, rates=rates, price_scale=price_scale)
        _tell(
            import_files(
                source.open_table,
                source.SUFFIXES,
                symbol,
                interval,
                prices,
                mark,
                funding,
                out=out,
                instrument=instrument,
                reading=reading,
                add=add,
                overwrite=overwrite,
            )
        )


_exchange("bybit", "Bybit: kline_for_metatrader4 archives, and JSON of the v5 API (kline, mark, funding history).")
_exchange("okx", "OKX: candlestick and swap-rate archives, and JSON of the v5 API (candles, mark, funding history).")
_exchange("hyperliquid", "Hyperliquid: JSON of candleSnapshot and fundingHistory.")
_exchange("ccxt", "ccxt: JSON of fetch_ohlcv, fetch_mark_ohlcv and fetch_funding_rate_history.")


@import_.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True, type=click.Path())
@_with(*_TARGET, _INSTRUMENT)
@click.option("--funding-every", help="Time between charges, such as 1h, where ticks do not tell when they fall.")
def tardis(
    sources: tuple[str, ...],
    symbol: str,
    interval: str,
    out: str,
    add: bool,
    overwrite: bool,
    instrument: str | None,
    funding_every: str | None,
) -> None:
    """Tardis: derivative_ticker files; bars of last and mark price, and funding, from ticks."""
    from backtest.ingest.formats.tardis import import_tardis

    _tell(
        import_tardis(
            symbol,
            interval,
            sources,
            out=out,
            instrument=instrument,
            funding_every=funding_every,
            add=add,
            overwrite=overwrite,
        )
    )


@import_.command()
@click.argument("folder", required=False, type=click.Path())
@click.option("--pair", required=True, help="As freqtrade calls it: BTC/USDT:USDT.")
@click.option("--symbol", help="Its name in the dataset; default: the pair without its marks.")
@_with(*_TARGET[1:])
@click.option("--prices", type=click.Path(), help="Candles, in place of those found in FOLDER.")
@click.option("--mark", type=click.Path(), help="Mark prices, in place of those found in FOLDER.")
@click.option("--funding", type=click.Path(), help="Funding rates, in place of those found in FOLDER.")
def freqtrade(
    folder: str | None,
    pair: str,
    symbol: str | None,
    interval: str,
    out: str,
    add: bool,
    overwrite: bool,
    prices: str | None,
    mark: str | None,
    funding: str | None,
) -> None:
    """freqtrade: what it downloaded of a pair, in FOLDER (user_data/data/<exchange>), Feather, Parquet or JSON."""
    from backtest.ingest.formats.freqtrade import import_freqtrade

    _tell(
        import_freqtrade(
            folder, pair, interval, prices, mark, funding, out=out, symbol=symbol, add=add, overwrite=overwrite
        )
    )


@import_.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Dataset.")
@click.option(
    "--symbol", "symbols", multiple=True, help="Only this one; may be repeated. Names a file that was renamed."
)
@click.option("--interval", help="Only bars of this length, such as 1m. Names a file that was renamed.")
@click.option("--kind", type=click.Choice(["last", "mark"]), help="What bars without volume are if no folder tells.")
@click.option("--add", is_flag=True, help="Join what is there; what both have must agree.")
@click.option("--overwrite", is_flag=True, help="New bars take the place of those there; others stay.")
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
    from backtest.ingest.merge import existing_choice

    existing = existing_choice(add, overwrite)
    for done in import_binance(sources, out, symbols=symbols, interval=interval, kind=kind, existing=existing):
        _tell(done)


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
    from backtest.ingest.tiers.importer import import_tiers

    done = import_tiers(
        sources,
        out,
        symbol=symbol,
        effective_from=effective_from,
        contract_size=contract_size,
        overwrite=overwrite,
        add=add,
    )
    for note in done.notes:
        click.echo(note, err=True)
    say(f"{done.path}: {done.symbol}, {sum(one.table.floor.size for one in done.tables)} tiers of {done.source}")
