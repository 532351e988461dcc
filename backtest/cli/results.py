"""Commands that read runs."""

from __future__ import annotations

import click

from backtest.cli.shared import cli, emit, json_option, say


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
