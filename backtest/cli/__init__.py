"""The command line: parse, call, print; no logic. Modules are imported when a command runs, so that help is quick."""

from __future__ import annotations

import sys

import click

from backtest.cli import datasets, histories, imports, results, rules, run  # noqa: F401  each adds its commands to the group
from backtest.cli.shared import cli
from backtest.errors import BacktestError, DataError

__all__ = ["cli", "main"]


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
