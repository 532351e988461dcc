"""The command line: parse, call, print; no logic. Modules are imported when a command runs, so that help is quick."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from backtest.errors import BacktestError, ConfigError, DataError

F = TypeVar("F", bound=Callable[..., object])
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="liquidation-backtest")
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def cli(verbose: bool) -> None:
    """Which leverage would have been liquidated, how often and how soon: every entry and every leverage at once."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)


def say(text: str) -> None:
    """A line for people."""
    click.echo(text)


def emit(document: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


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


@cli.command()
@click.argument("config", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="A .parquet or .csv file.")
@click.option("--where", help="Such as \"leverage = 20 and side = 'long'\".")
@click.option("--all", "everything", is_flag=True, help="Allow more than 50 million rows.")
@overwrite_option
def events(config: str, out: str, where: str | None, everything: bool, overwrite: bool) -> None:
    """The flags: one row per entry × scenario, when it hit margin call and liquidation."""
    from backtest.config import load_config
    from backtest.events import write_events

    count = write_events(load_config(config), out, where, everything=everything, overwrite=overwrite)
    say(f"{out}: {count:,} rows")


@cli.command()
@click.argument("config", type=click.Path())
@click.option("--leverage", type=float, help="One of the sweep's; may be left out where it has one.")
@click.option("--horizon", help="One of the sweep's; default: the longest.")
@click.option("--side", type=click.Choice(["long", "short"]), help="Default: each.")
@click.option("--where", help="Such as \"maintenance = '0.004'\".")
@click.option("--worst", type=click.IntRange(min=1), default=10, show_default=True, help="Episodes of each scenario.")
@click.option("--plot", type=click.Path(), help="A .png or .svg file: liquidations per day of the first scenario.")
@json_option
def days(
    config: str,
    leverage: float | None,
    horizon: str | None,
    side: str | None,
    where: str | None,
    worst: int,
    plot: str | None,
    as_json: bool,
) -> None:
    """The days that did it: the worst episodes of liquidations at one leverage."""
    from backtest.console import episodes_text
    from backtest.days import liquidation_days, liquidation_episodes
    from backtest.plots.days import plot_days, save_plot

    parts = [f"side = '{side}'" if side else None, f"({where})" if where else None]
    condition = " and ".join(part for part in parts if part) or None
    found = liquidation_episodes(config, leverage=leverage, horizon=horizon, where=condition)
    if plot is not None:
        save_plot(plot_days(liquidation_days(config, horizon=horizon, where=condition), found), plot)
    shown = found[found["rank"] <= worst]
    if as_json:
        emit(
            {
                "config": config,
                "episodes": json.loads(shown.to_json(orient="records", date_format="iso", double_precision=15)),
            }
        )
    else:
        say(episodes_text(found, worst))


@cli.command()
@click.argument("config", type=click.Path())
@click.option(
    "--survival", multiple=True, type=float, default=(0.5, 0.9, 0.95, 0.99), show_default=True,
    help="Share of the entries that shall live; may be given several times.",
)  # fmt: skip
@click.option("--workers", type=int, help="Threads; default: one per core.")
@json_option
def required(config: str, survival: tuple[float, ...], workers: int | None, as_json: bool) -> None:
    """The margin rate that a share of all entries needed, and the largest leverage, between grid points too.

    In JSON null stands for what has no number: with required_margin 0 any leverage will do, with critical_leverage 0
    none does, with 0 entries no window fits into the history.
    """
    from backtest.required import required_margin

    if not config.endswith(".toml"):
        raise ConfigError(f"CONFIG must be a .toml file; got {config!r}")
    frame = required_margin(config, quantiles=survival, workers=workers)
    if as_json:
        known = frame.replace([float("inf")], None).astype(object)
        emit({"config": config, "required": known.where(known.notna(), None).to_dict("records")})
    else:
        from backtest.console import required_text

        say(required_text(frame))


@cli.command()
@click.argument("run_directory", metavar="RUN", type=click.Path())
@click.option("--survival", default=0.95, show_default=True, help="Target for the lower bound.")
@click.option("--horizon", help="One horizon of the run; default: each.")
@click.option("--confidence", type=float, help="Of the bounds; default: the run's.")
@click.option("--worst-over", multiple=True, metavar="AXIS", help="Take the worst case over an axis, such as funding.")
@json_option
def choose(
    run_directory: str,
    survival: float,
    horizon: str | None,
    confidence: float | None,
    worst_over: tuple[str, ...],
    as_json: bool,
) -> None:
    """The largest leverage such that it and every lower one meet the target."""
    from backtest.results import load

    result = load(run_directory)
    choices = result.choose(survival, horizon, confidence, worst_over)
    if as_json:
        rows = choices.astype(object).where(choices.notna(), None).to_dict("records")
        emit({"run": run_directory, **choices.attrs, "choices": rows})
    else:
        from backtest.console import choices_text

        say(choices_text(choices))


@cli.command()
@click.argument("runs", metavar="RUN RUN", nargs=2, type=click.Path())
@click.option("--horizon", help="One horizon of both runs; default: each.")
@click.option("--confidence", type=float, help="Of the intervals; default: the first run's.")
@json_option
def compare(runs: tuple[str, str], horizon: str | None, confidence: float | None, as_json: bool) -> None:
    """How much more survived in the second run than in the first, row by row that both have."""
    from backtest.comparisons import compare as compare_runs
    from backtest.console import compare_text
    from backtest.results import load

    found = compare_runs(load(runs[0]), load(runs[1]), horizon, confidence)
    if as_json:
        emit({**found.attrs, "rows": found.astype(object).where(found.notna(), None).to_dict("records")})
    else:
        say(compare_text(found))


@cli.command()
@click.argument("run_directory", metavar="RUN", type=click.Path())
@click.option("--survival", default=0.95, show_default=True, help="Target for the lower bound.")
def report(run_directory: str, survival: float) -> None:
    """Write RUN/report.html, one self-contained page."""
    from backtest.results import load

    say(str(load(run_directory).report(survival)))


NUMBERS = (
    *("entry_price", "quantity", "leverage", "margin", "wallet", "extra_margin", "funding_paid", "max_leverage"),
    *("mmr", "deduction", "slope", "initial_rate", "taker_fee", "close_reserve", "mark_price"),
    *("other_maintenance", "other_unrealized", "liquidation_ltv", "margin_call_ltv", "interest"),
)


def position_options(function: F) -> F:
    """One option per key of a position."""
    for name in reversed(NUMBERS):
        function = click.option("--" + name.replace("_", "-"), name, type=float)(function)
    for name, help_text in (
        ("tiers", "JSON: [[floor, mmr, deduction], …]."),
        ("symbol", "Takes its latest packaged tier table under the rule."),
        ("basis", "mark or entry."),
        ("contract", "linear, inverse or spot (with the ltv options)."),
        ("side", "long or short."),
        ("rules", "A rule name; see `backtest rules`."),
    ):
        function = click.option("--" + name, name, help=help_text)(function)
    return function


@cli.command()
@position_options
@click.option("--json", "document", help="The position as a JSON object; the answer is then JSON.")
def price(document: str | None, **given: str | float | None) -> None:
    """Margins, liquidation and bankruptcy price of one position."""
    from backtest.rules.price import price_position

    options: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if document is not None:
        if options:
            raise ConfigError(f"--json is a whole position; put {next(iter(options))!r} into it")
        emit(price_position(_json_object("--json", document)))
        return
    if "tiers" in options:
        options["tiers"] = _json("--tiers", str(options["tiers"]))
    for key, value in price_position(options).items():
        say(f"{key:20s} {'—' if value is None else value}")


def _json(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} is not JSON ({error}); got {text!r}") from None


def _json_object(name: str, text: str) -> dict[str, object]:
    found = _json(name, text)
    if not isinstance(found, dict):
        raise ConfigError(f"{name} must be a JSON object; got {text!r}")
    return found


@cli.command()
@json_option
def rules(as_json: bool) -> None:
    """The named margin rules, with the date and source of their formula."""
    from dataclasses import asdict

    from backtest.rules.catalog import rules as known

    if as_json:
        emit([json.loads(json.dumps(asdict(rule), default=str)) for rule in known()])
        return
    for rule in known():
        say(f"{rule.name:16s} {rule.contract:8s} {rule.basis:6s} read {rule.read}  {rule.source}")


@cli.command()
def schema() -> None:
    """The JSON Schema of the configuration."""
    from backtest.config import Config

    emit(Config.model_json_schema())


def main() -> None:
    """Entry point; exit codes: 0 done, 1 data or check failed, 2 arguments or configuration, 130 interrupted."""
    try:
        cli.main(prog_name="backtest", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DataError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except BacktestError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        click.echo(f"error: {error.filename or ''}: {error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
