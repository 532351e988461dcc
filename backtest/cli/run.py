"""Commands that make a run."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from backtest.cli._options import cli, config_argument, emit, json_option, overwrite_option, say, workers_option


def threads_or_dask(context: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    """A number as such, or ``dask:N``."""
    if value is None or re.fullmatch(r"dask:[1-9]\d*", value):
        return value
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a valid integer, nor dask:N with N ≥ 1") from None


@cli.command()
@click.option("--out", default="runs/demo", show_default=True, help="Run directory, replaced each time.")
@workers_option
def demo(out: str, workers: int | None) -> None:
    """Generate five years of 1-minute bars, sweep them, print the leverage table, write the report."""
    from backtest.cli.demo import run_demo
    from backtest.report.terminal import choices_text, survival_text

    result, page = run_demo(out, workers, lambda line: click.echo(line, err=True))
    say(survival_text(result.table))
    say("\n" + choices_text(result.choose(survival=0.95)))
    say(f"\nrun     {result.place}\nreport  {page}")


@cli.command()
@config_argument
@click.option("--out", type=click.Path(), help="Run directory; default: runs/<config stem>-<UTC time>.")
@click.option(
    "--workers",
    metavar="N|dask:N",
    callback=threads_or_dask,
    help="Threads, or dask:N for N processes; default: a thread per core.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask scheduler, such as tcp://10.0.0.1:8786.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run; finished tasks are not counted again.")
@click.option("--memory", help="Memory that the run may take, such as 2GiB; default: a quarter of the machine's.")
@click.option("--dry-run", is_flag=True, help="Print what the run will take, and stop.")
@click.option("--log", type=click.Path(), help="A file to which one line of JSON per event is appended.")
@overwrite_option
@json_option
def run(
    config: str,
    out: str | None,
    workers: int | str | None,
    scheduler: str | None,
    resume: bool,
    memory: str | None,
    dry_run: bool,
    log: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Sweep every scenario over every entry."""
    from backtest.logs import logged, tell
    from backtest.runs.estimate import check_disk, check_memory, estimate_run
    from backtest.runs.run import run as run_sweep
    from backtest.runs.run_directory import default_directory, unfinished_directory

    plan = estimate_run(config, workers, memory)
    check_memory(plan, memory)
    if not resume:  # the directory of a run that is resumed has most of its files already
        check_disk(plan, out or "runs")
    if dry_run:
        if as_json:
            emit(plan.as_dict())
        else:
            say(plan.text())
        return
    if sys.stderr.isatty():  # as progress: where somebody looks
        click.echo(plan.text(), err=True)
    out = out or str(unfinished_directory(config) if resume else default_directory(config))
    with logged(log):
        tell("run planned", plan.as_dict())
        result = run_sweep(
            config,
            out=out,
            workers=workers,
            scheduler=scheduler,
            memory=memory,
            overwrite=overwrite,
            resume=resume,
        )
    if as_json:
        emit({"run": str(result.place), **result.info})
        return
    _report(str(result.place), result.info)


def _report(place: str, info: dict[str, Any]) -> None:
    """What was counted, for people."""
    for part in info["coverage"]:
        lost = [f"{symbol} {sum(bars):,}" for symbol, bars in part.get("cut", {}).items() if sum(bars)]
        missing = f", {part['missing_bars']:,} missing" if part["missing_bars"] else ""
        say(
            f"{part['symbol']}: {part['entries']:,} entries in {part['bars']:,} bars{missing}, {part['first']} … "
            f"{part['last']}, trigger {part['trigger']}, {part['funding_charges']:,} funding charges"
            + (f"; bars outside the common span: {', '.join(lost)}" if lost else "")
        )
    kept = sum(task["kept"] for task in info.get("tasks", ()))
    before = f", {kept:,} of {len(info['tasks']):,} tasks in attempts before" if kept else ""
    say(f"{info['verdicts']:,} verdicts in {info['wall_seconds']:.1f} s{before}")
    say(f"{place}\nnext: backtest choose {place}   or: backtest report {place}")


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Versions, threads, cache, memory, and what is slow or wrong on this machine. Exit 1 if something is wrong."""
    from backtest.cli.doctor import diagnose

    found = diagnose()
    if as_json:
        emit(found.as_dict())
    else:
        say(found.text())
    if found.wrong:
        raise SystemExit(1)
