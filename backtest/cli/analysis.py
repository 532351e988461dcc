"""The commands `events`, `days`, `required` and `returns`, which read histories, and `resample-choice` of a run."""

from __future__ import annotations

import json

import click

from backtest.cli._options import (
    cli,
    config_argument,
    emit,
    json_option,
    json_rows,
    overwrite_option,
    run_argument,
    say,
    workers_option,
)

USUAL = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@cli.command()
@click.argument("config", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="A .parquet or .csv file.")
@click.option("--where", help="Such as \"leverage = 20 and side = 'long'\".")
@click.option("--all", "everything", is_flag=True, help="Allow more than 50 million rows.")
@overwrite_option
def events(config: str, out: str, where: str | None, everything: bool, overwrite: bool) -> None:
    """One row per entry and scenario: when it hit margin call and liquidation."""
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
    """The days with the most liquidations at one leverage, joined to episodes."""
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
        rows = json.loads(shown.to_json(orient="records", date_format="iso", double_precision=15))
        emit({"config": config, "episodes": rows})
    else:
        say(episodes_text(found, worst))


@cli.command()
@config_argument
@click.option(
    "--survival", multiple=True, type=float, default=(0.5, 0.9, 0.95, 0.99), show_default=True,
    help="Share of the entries that shall live; may be given several times.",
)  # fmt: skip
@workers_option
@json_option
def required(config: str, survival: tuple[float, ...], workers: int | None, as_json: bool) -> None:
    """The margin rate that a share of all entries needed, and the largest leverage, between grid points too.

    In JSON null stands for what has no number: with required_margin 0 any leverage will do, with critical_leverage 0
    none does, with 0 entries no window fits into the history.
    """
    from backtest.analysis.required_margin import required_margin

    frame = required_margin(config, quantiles=survival, workers=workers)
    if as_json:
        emit({"config": config, "required": json_rows(frame)})
    else:
        from backtest.report.terminal import required_text

        say(required_text(frame))


@cli.command()
@config_argument
@click.option(
    "--leverage", multiple=True, type=float, help="One of the sweep's, several times; default: the usual ones."
)
@click.option("--fraction", default=0.1, show_default=True, help="Of a bankroll, posted as margin.")
@workers_option
@json_option
def returns(config: str, leverage: tuple[float, ...], fraction: float, workers: int | None, as_json: bool) -> None:
    """What positions earned on their margin, net of everything: mean, quantiles, growth of a bankroll."""
    from backtest.analysis.returns import returns as returns_of
    from backtest.config.models import load_config

    swept = load_config(config).sweep.leverage
    usual = tuple(x for x in swept if x in USUAL) or swept
    frame = returns_of(config, leverage=leverage or usual, bankroll_fraction=fraction, workers=workers)
    if as_json:
        emit({"config": config, **frame.attrs, "returns": json_rows(frame)})
    else:
        from backtest.report.terminal import returns_text

        say(returns_text(frame))


@cli.command("resample-choice")
@run_argument
@click.option("--horizon", required=True, help="One horizon of the run.")
@click.option("--survival", default=0.95, show_default=True, help="Target for the lower bound.")
@click.option("--past", help="Length of the history that the choice is made on; default: all of it.")
@click.option("--ahead", default="13w", show_default=True, help="Time that the chosen leverage is held afterwards.")
@click.option("--replications", type=int, help="Number of resampled histories; default: the run's.")
@json_option
def resample_choice(
    run_directory: str,
    horizon: str,
    survival: float,
    past: str | None,
    ahead: str,
    replications: int | None,
    as_json: bool,
) -> None:
    """How the chosen leverage would vary if the history were drawn again.

    Blocks of the run's calendar are resampled; on each resampled history the leverage is chosen as by `backtest choose`
    and held on the blocks that follow.
    """
    from backtest.analysis.walk_forward import resampled_choices
    from backtest.report.terminal import resampled_text
    from backtest.runs.result import load

    found = resampled_choices(
        load(run_directory), horizon=horizon, survival=survival, past=past, ahead=ahead, replications=replications
    )
    if as_json:
        emit({"run": run_directory, **found.attrs, "rows": json_rows(found)})
    else:
        say(resampled_text(found))
