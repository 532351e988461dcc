"""``backtest demo``: a generated history, the default sweep, the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backtest.analysis.worst_days import worst_days
from backtest.data.dataset import write_history
from backtest.data.synthetic import demo_history
from backtest.filesystem import Place
from backtest.runs.result import Result
from backtest.runs.run import run

DATA = Path("data/demo")
CONFIG = """\
# The sweep of `backtest demo`; edit it and type: backtest run data/demo.toml
[data]
path = "demo"

[sweep]
side = ["long", "short"]
leverage = { from = 1, to = 125 }
horizon = ["1h", "8h", "1d", "7d", "30d"]
maintenance = [0.005]
open_fee = [0.0005]

[statistics]
regimes = ["year", "volatility"]
"""


def run_demo(out: str, workers: int | None, say: Callable[[str], None]) -> tuple[Result, Place]:
    """Generate, sweep and report.

    Parameters
    ----------
    out : str
        Run directory, replaced.
    workers : int, optional
        Threads.
    say : callable
        Told what is being done.

    Returns
    -------
    (Result, Path or Remote)
        The run and its report.
    """
    say(f"generating five years of 1-minute bars into {DATA} (not a real market)")
    write_history(demo_history(), DATA, overwrite=True)
    config = DATA.with_suffix(".toml")
    config.write_text(CONFIG)
    say(f"sweeping {config} (the first run on a machine compiles for half a minute)")
    result = run(config, out=out, workers=workers, overwrite=True)
    return result, result.report(worst=worst_days(result))
