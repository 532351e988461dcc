"""Command line: parse options, call, print. No logic.

In: arguments. Out: text or one JSON document on standard output, and an exit code. Each module adds its commands to the
group `cli` and imports the other rooms only when a command runs, so that help is quick.
"""

from __future__ import annotations

import signal
import sys

import click

from backtest.cli import analysis, data, fetch, ingest, margin, results, run  # noqa: F401  each adds its commands to the group
from backtest.cli._options import cli
from backtest.errors import BacktestError, DataError

__all__ = ["cli", "main"]


class Terminated(BaseException):
    """`kill`, or a batch system whose time is up, asks the process to end."""


def main() -> None:
    """Entry point; exit codes: 0 done, 1 data or check failed, 2 arguments or configuration, 130 and 143 by signals."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(prog_name="backtest", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DataError as error:
        _complain(error)
        sys.exit(1)
    except BacktestError as error:
        _complain(error)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Terminated:
        click.echo("terminated", err=True)
        sys.exit(143)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {named}{error.strerror or error}", err=True)
        sys.exit(1)
    except MemoryError as error:
        said = f" ({error})" if str(error) else ""
        click.echo(f"error: out of memory{said}; fewer --workers or a smaller --memory need less", err=True)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _complain(error: BacktestError) -> None:
    from backtest.filesystem import scrubbed

    click.echo(f"error: {scrubbed(str(error))}", err=True)
