"""Commands that download histories."""

from __future__ import annotations

import click

from backtest.cli._options import cli, overwrite_option, say
from backtest.cli.ingest import tell_imported

start_option = click.option("--from", "start", required=True, help="First day, UTC, such as 2021-01-01.")
end_option = click.option("--to", "end", help="End, which is not included; default: now.")
interval_option = click.option("--interval", required=True, help="Length of a bar, such as 1m.")
out_option = click.option("--out", required=True, type=click.Path(), help="Dataset, extended where it is there.")


@cli.group()
def fetch() -> None:
    """Download histories into a dataset."""


@fetch.command()
@click.argument("symbols", metavar="SYMBOL…", nargs=-1, required=True)
@interval_option
@start_option
@end_option
@click.option("--market", type=click.Choice(["um", "cm"]), default="um", show_default=True, help="USD-M or COIN-M.")
@out_option
@click.option("--archives", type=click.Path(), help="Folder that keeps the archives; default: OUT/.archives.")
@click.option("--base-url", help="Mirror to ask instead of https://data.binance.vision.")
@click.option(
    "--connections", type=click.IntRange(1, 32), default=8, show_default=True, help="Requests at a time."
)  # fmt: skip
@overwrite_option
def binance(
    symbols: tuple[str, ...],
    interval: str,
    start: str,
    end: str | None,
    market: str,
    out: str,
    archives: str | None,
    base_url: str | None,
    connections: int,
    overwrite: bool,
) -> None:
    """Klines, mark-price klines and funding of the public archives, each file verified by its checksum.

    Months are asked for first, and the days of those that are not published yet. After an interruption the same
    command goes on where it was.
    """
    from backtest.ingest.download.binance import BASE_URL, fetch_binance
    from backtest.ingest.download.mirror import RequestLimits

    done = fetch_binance(
        symbols,
        interval,
        start,
        end,
        out=out,
        market=market,
        archives=archives,
        base_url=base_url or BASE_URL,
        overwrite=overwrite,
        limits=RequestLimits(connections=connections),
    )
    for one in done.imported:
        tell_imported(one)
    for line in done.missing:
        click.echo(line, err=True)
    for line in done.warnings:
        click.echo(f"warning: {line}", err=True)
    new = f"{done.fetched:,} archives fetched ({done.received / 2**20:,.1f} MiB), {done.kept:,} were there"
    say(f"{new}, in {done.archives}" + ("" if done.imported else "; the dataset has them all"))


@fetch.command()
@click.argument("exchange")
@click.argument("symbols", metavar="SYMBOL…", nargs=-1, required=True)
@interval_option
@start_option
@end_option
@out_option
@click.option("--tiers", type=click.Path(), help="A .csv file for the leverage tiers of the one symbol.")
@click.option("--contract-size", type=float, help="Worth of one contract in quote (inverse: coin), for tiers of OKX.")
@click.option("--base-url", help="Host that is asked instead of the exchange's own.")
@overwrite_option
def ccxt(
    exchange: str,
    symbols: tuple[str, ...],
    interval: str,
    start: str,
    end: str | None,
    out: str,
    tiers: str | None,
    contract_size: float | None,
    base_url: str | None,
    overwrite: bool,
) -> None:
    """Bars, mark prices, funding and tiers of any exchange that ccxt knows.

    Symbols are ccxt's (BTC/USDT:USDT) or the exchange's own (BTCUSDT).
    """
    from backtest.ingest.download.ccxt import fetch_ccxt

    done = fetch_ccxt(
        exchange,
        symbols,
        interval,
        start,
        end,
        out=out,
        base_url=base_url,
        tiers=tiers,
        contract_size=contract_size,
        overwrite=overwrite,
    )
    if done.tiers is not None:
        for note in done.tiers.notes:
            click.echo(note, err=True)
        say(f"{done.tiers.path}: {done.tiers.symbol}, {done.tiers.tables[0].table.floor.size} tiers")
    for one in done.imported:
        tell_imported(one)
