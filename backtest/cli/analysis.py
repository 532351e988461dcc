"""Commands that ask the histories again."""

from __future__ import annotations

import json

import click

from backtest.cli._options import cli, emit, json_option, overwrite_option, say
from backtest.errors import ConfigError

USUAL = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@cli.command()
@click.argument("config", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="A .parquet or .csv file.")
@click.option("--where", help="Such as \"leverage = 20 and side = 'long'\".")
@click.option("--all", "everything", is_flag=True, help="Allow more than 50 million rows.")
@overwrite_option
def events(config: str, out: str, where: str | None, everything: bool, overwrite: bool) -> None:
    """The flags: one row per entry × scenario, when it hit margin call and liquidation."""
    from backtest.analysis.events import write_events
    from backtest.config.models import load_config

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
    from backtest.analysis.liquidation_days import liquidation_days, liquidation_episodes
    from backtest.report.plots.liquidation_days import plot_days
    from backtest.report.plots.style import save_plot
    from backtest.report.terminal import episodes_text

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
    from backtest.analysis.required_margin import required_margin

    if not config.endswith(".toml"):
        raise ConfigError(f"CONFIG must be a .toml file; got {config!r}")
    frame = required_margin(config, quantiles=survival, workers=workers)
    if as_json:
        known = frame.replace([float("inf")], None).astype(object)
        emit({"config": config, "required": known.where(known.notna(), None).to_dict("records")})
    else:
        from backtest.report.terminal import required_text

        say(required_text(frame))


@cli.command()
@click.argument("config", type=click.Path())
@click.option(
    "--leverage", multiple=True, type=float, help="One of the sweep's, several times; default: the usual ones."
)
@click.option("--fraction", default=0.1, show_default=True, help="Of a bankroll, posted as margin.")
@click.option("--workers", type=int, help="Threads; default: one per core.")
@json_option
def returns(config: str, leverage: tuple[float, ...], fraction: float, workers: int | None, as_json: bool) -> None:
    """What positions earned on their margin, net of everything: mean, quantiles, growth of a bankroll."""
    from backtest.analysis.returns import returns as returns_of
    from backtest.config.models import load_config

    if not config.endswith(".toml"):
        raise ConfigError(f"CONFIG must be a .toml file; got {config!r}")
    swept = load_config(config).sweep.leverage
    usual = tuple(x for x in swept if x in USUAL) or swept
    frame = returns_of(config, leverage=leverage or usual, bankroll_fraction=fraction, workers=workers)
    if as_json:
        known = frame.replace([float("-inf")], None).astype(object)
        emit({"config": config, **frame.attrs, "returns": known.where(known.notna(), None).to_dict("records")})
    else:
        from backtest.report.terminal import returns_text

        say(returns_text(frame))
