"""Commands that make a run."""

from __future__ import annotations

import click

from backtest.cli.shared import cli, emit, json_option, overwrite_option, say
from backtest.errors import ConfigError


@cli.command()
@click.option("--out", default="runs/demo", show_default=True, help="Run directory, replaced each time.")
@click.option("--workers", type=int, help="Threads; default: one per core.")
def demo(out: str, workers: int | None) -> None:
    """Generate five years of 1-minute bars, sweep them, print the leverage table, write the report."""
    from backtest.console import choices_text, leverage_text
    from backtest.demo import run_demo

    result, page = run_demo(out, workers, lambda line: click.echo(line, err=True))
    say(leverage_text(result.table))
    say("\n" + choices_text(result.choose(survival=0.95)))
    say(f"\nrun     {result.path}\nreport  {page}")


@cli.command()
@click.argument("config", type=click.Path())
@click.option("--out", type=click.Path(), help="Run directory; default: runs/<config stem>-<UTC time>.")
@click.option("--workers", type=int, help="Threads; default: one per core.")
@overwrite_option
@json_option
def run(config: str, out: str | None, workers: int | None, overwrite: bool, as_json: bool) -> None:
    """Sweep every scenario over every entry."""
    from backtest.runner import default_directory
    from backtest.runner import run as run_sweep

    if not config.endswith(".toml"):
        raise ConfigError(f"CONFIG must be a .toml file; got {config!r}")
    result = run_sweep(config, out=out or default_directory(config), workers=workers, overwrite=overwrite)
    if as_json:
        emit({"run": str(result.path), **result.info})
        return
    info = result.info
    for part in info["coverage"]:
        lost = [f"{symbol} {sum(bars):,}" for symbol, bars in part.get("cut", {}).items() if sum(bars)]
        missing = f", {part['missing_bars']:,} missing" if part["missing_bars"] else ""
        say(
            f"{part['symbol']}: {part['entries']:,} entries in {part['bars']:,} bars{missing}, {part['first']} … "
            f"{part['last']}, trigger {part['trigger']}, {part['funding_charges']:,} funding charges"
            + (f"; bars outside the common span: {', '.join(lost)}" if lost else "")
        )
    say(f"{info['verdicts']:,} verdicts in {info['wall_seconds']:.1f} s")
    say(f"{result.path}\nnext: backtest choose {result.path}   or: backtest report {result.path}")
