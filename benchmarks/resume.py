"""What it costs to go on with a run that was killed near its end, over the time its finished part had taken.

Run: ``python benchmarks/resume.py [--symbols 40] [--years 1] [--at 0.9]``. Histories are generated 1-minute bars on
disk; the run is killed when such a share of its tasks is finished, and resumed. What counts as the cost is all that
passes before the first task that is not kept is under way, beyond what passes before the first task of any run: the
check of what is kept, and the reading of the symbol that was not done.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import backtest as bt
from backtest.data.synthetic import demo_history

CONFIG = """\
[data]
path = "data"

[sweep]
leverage = { from = 1, to = 125 }
horizon = ["1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d"]
maintenance = [0.004, 0.005, 0.01, 0.02, 0.05]
funding = [{ scale = 0.0 }, { scale = 1.0 }, { scale = 2.0 }]
"""
TASKS = 30
"""Of a symbol: side × maintenance × funding."""


def events(log: Path) -> list[dict[str, object]]:
    """Lines that are whole."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def at(event: dict[str, object]) -> float:
    """Seconds since the epoch of an event."""
    return datetime.fromisoformat(str(event["time"])).timestamp()


def named(events: list[dict[str, object]], name: str) -> dict[str, object]:
    """The first event of a name."""
    return next(event for event in events if event["event"] == name)


def until_begun(events: list[dict[str, object]]) -> float:
    """Seconds from the plan until the work begins."""
    return at(named(events, "run begun")) - at(named(events, "run planned"))


def started(*words: str) -> tuple[float, subprocess.Popen[bytes]]:
    """A run in a process of its own, and when it began."""
    command = [sys.executable, "-m", "backtest", "run", "sweep.toml", "--out", "run", *words]
    return time.time(), subprocess.Popen(command, stdout=subprocess.DEVNULL)


def main() -> None:
    """Generate, kill, resume, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=40)
    parser.add_argument("--years", type=int, default=1)
    parser.add_argument("--at", type=float, default=0.9)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        history = demo_history(years=given.years)
        for n in range(given.symbols):
            bt.write_history(bt.PriceHistory(f"S{n:03d}", 60_000, history.start_ms, dict(history.columns)), "data")
        Path("sweep.toml").write_text(CONFIG)
        bars = given.symbols * history.n_bars
        kill_at = int(given.at * given.symbols * TASKS)
        _, process = started("--log", "first.jsonl")
        while sum(event["event"] == "task finished" for event in events(Path("first.jsonl"))) < kill_at:
            time.sleep(0.1)
            if process.poll() is not None:
                sys.exit("the run ended before it could be killed; ask for more symbols or years")
        process.send_signal(signal.SIGKILL)
        process.wait()
        first = events(Path("first.jsonl"))
        done = [event for event in first if event["event"] == "task finished"]
        start_s, work_s = until_begun(first), at(done[-1]) - at(named(first, "run begun"))

        start, process = started("--log", "second.jsonl", "--resume")
        if process.wait():
            sys.exit("the run was not resumed")
        second = events(Path("second.jsonl"))
        check_s = until_begun(second) - start_s
        read_s = at(named(second, "symbol begun")) - at(named(second, "run begun"))
        info = json.loads(Path("run/run.json").read_text())
        kept = sum(task["kept"] for task in info["tasks"])
        print(f"{bars / 1e6:.0f} million bars, {given.symbols * TASKS} tasks; {kept} kept after {work_s:.1f} s of work")
        print(f"checking what is kept           {check_s:7.3f} s  {check_s / work_s:6.2%}")
        print(f"reading the symbol under way    {read_s:7.3f} s  {read_s / work_s:6.2%}")
        print(f"resume                          {check_s + read_s:7.3f} s  {(check_s + read_s) / work_s:6.2%}")
        print(f"what any start takes            {at(named(second, 'run planned')) - start + start_s:7.3f} s")


if __name__ == "__main__":
    main()
