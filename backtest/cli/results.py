"""Commands that read runs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import click

from backtest.cli._options import cli, emit, json_option, say
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd


@cli.command()
@click.argument("folder", metavar="[DIR]", default="runs", type=click.Path())
@json_option
def runs(folder: str, as_json: bool) -> None:
    """Runs in a folder and below it: finished, running, unfinished (and how to go on) or damaged (what is missing)."""
    from backtest.runs.registry import list_runs, runs_text

    found = list_runs(folder)
    if as_json:
        emit({"folder": folder, "runs": [one.as_dict() for one in found]})
    else:
        say(runs_text(found) if found else f"no runs in {folder}")


@cli.command()
@click.argument("run_directory", metavar="RUN", type=click.Path())
@click.option("--survival", default=0.95, show_default=True, help="Target for the lower bound.")
@click.option("--horizon", help="One horizon of the run; default: each.")
@click.option("--confidence", type=float, help="Of the bounds; default: the run's.")
@click.option("--worst-over", multiple=True, metavar="AXIS", help="Take the worst case over an axis, such as funding.")
@click.option("--by", help="A regime of the run: a choice for each of its labels (--worst-over regime: the worst).")
@json_option
def choose(
    run_directory: str,
    survival: float,
    horizon: str | None,
    confidence: float | None,
    worst_over: tuple[str, ...],
    by: str | None,
    as_json: bool,
) -> None:
    """The largest leverage such that it and every lower one meet the target."""
    from backtest.runs.result import load

    result = load(run_directory)
    choices = result.choose(survival, horizon, confidence, worst_over, by)
    if as_json:
        emit({"run": run_directory, **choices.attrs, "choices": _records(choices)})
    else:
        from backtest.report.labels import noted
        from backtest.report.terminal import choices_text

        say(choices_text(noted(choices, result.info)))


@cli.command()
@click.argument("run_directory", metavar="RUN", type=click.Path())
@click.option("--by", help="One of the regimes of the run; may be left out where there is one.")
@click.option("--leverage", type=float, help="One of the run's; default: the usual ones.")
@click.option("--horizon", help="One horizon of the run; default: the longest.")
@click.option("--confidence", type=float, help="Of the intervals; default: the run's.")
@click.option("--plot", type=click.Path(), help="A .png or .svg file: the first scenario of each side.")
@json_option
def regimes(
    run_directory: str,
    by: str | None,
    leverage: float | None,
    horizon: str | None,
    confidence: float | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Survival by regime: year, hour, volatility at entry, or whatever the run counted apart."""
    from backtest.report.plots.regimes import at_leverage, plot_regimes
    from backtest.report.plots.style import save_plot
    from backtest.report.terminal import regimes_text
    from backtest.runs.result import load

    result = load(run_directory)
    longest = max(result.info["config"]["sweep"]["horizon"], key=duration_ms)
    found = at_leverage(result.regimes(by, horizon or longest, confidence), leverage)
    if plot is not None:
        save_plot(plot_regimes(found), plot)
    if as_json:
        emit({"run": run_directory, **found.attrs, "regimes": _records(found)})
    else:
        say(regimes_text(found))


@cli.command()
@click.argument("runs", metavar="RUN RUN", nargs=2, type=click.Path())
@click.option("--horizon", help="One horizon of both runs; default: each.")
@click.option("--confidence", type=float, help="Of the intervals; default: the first run's.")
@json_option
def compare(runs: tuple[str, str], horizon: str | None, confidence: float | None, as_json: bool) -> None:
    """How much more survived in the second run than in the first, row by row that both have."""
    from backtest.analysis.compare import compare as compare_runs
    from backtest.report.terminal import compare_text
    from backtest.runs.result import load

    found = compare_runs(load(runs[0]), load(runs[1]), horizon, confidence)
    if as_json:
        emit({**found.attrs, "rows": _records(found)})
    else:
        say(compare_text(found))


@cli.command()
@click.argument("run_directory", metavar="RUN", type=click.Path())
@click.option("--survival", default=0.95, show_default=True, help="Target for the lower bound.")
def report(run_directory: str, survival: float) -> None:
    """Write RUN/report.html, one self-contained page."""
    from backtest.analysis.worst_days import worst_days
    from backtest.runs.result import load

    result = load(run_directory)
    say(str(result.report(survival, worst=worst_days(result, survival))))


def _records(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Rows for JSON: null instead of NaN."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
