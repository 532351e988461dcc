"""Commands that turn files into datasets and tier tables."""

from __future__ import annotations

import click

from backtest.cli.shared import cli, overwrite_option, say


@cli.group(name="import")
def import_() -> None:
    """Turn files of an exchange or tool into a dataset or tier table."""


@import_.command()
@click.option("--symbol", required=True)
@click.option("--interval", required=True, help="Length of a bar, such as 1h.")
@click.option("--prices", required=True, type=click.Path(), help="Parquet or CSV: time, open, high, low, close.")
@click.option("--mark", type=click.Path(), help="Mark prices, same columns.")
@click.option("--funding", type=click.Path(), help="Time and funding rate of each charge.")
@click.option("--out", required=True, type=click.Path(), help="Dataset.")
@overwrite_option
def generic(
    symbol: str, interval: str, prices: str, mark: str | None, funding: str | None, out: str, overwrite: bool
) -> None:
    """Parquet or CSV files with prices, mark prices and funding."""
    from backtest.ingest.generic import import_generic

    done = import_generic(symbol, interval, prices, mark=mark, funding=funding, out=out, overwrite=overwrite)
    for note in done.notes:
        click.echo(note, err=True)
    say(f"{done.path}: {done.rows:,} bars, {done.span[0]} … {done.span[1]}, {done.gaps} gaps, {done.charges:,} charges")


@import_.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="A .csv file.")
@click.option("--symbol", help="Which one, as the source spells it; only needed where there are several.")
@click.option("--effective-from", help="Date from which the table is in force, UTC; default: from the beginning.")
@click.option("--contract-size", type=float, help="Worth of one contract in quote (inverse: coin), for OKX.")
@overwrite_option
def tiers(
    sources: tuple[str, ...],
    out: str,
    symbol: str | None,
    effective_from: str | None,
    contract_size: float | None,
    overwrite: bool,
) -> None:
    """Tier table from JSON of Binance, Bybit, OKX, Hyperliquid or ccxt; several files are pages of one answer."""
    from backtest.ingest.tiers import import_tiers

    done = import_tiers(
        sources,
        out,
        symbol=symbol,
        effective_from=effective_from,
        contract_size=contract_size,
        overwrite=overwrite,
    )
    for note in done.notes:
        click.echo(note, err=True)
    say(f"{done.path}: {done.symbol}, {done.tables[0].table.floor.size} tiers of {done.source}")
