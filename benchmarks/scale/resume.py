"""What does it cost to resume a run that was killed near its end?

Run: ``python -m benchmarks.scale.resume [--symbols 40] [--years 1] [--at 0.9]``. Histories are generated 1-minute bars
on disk; the run is killed when that share of its tasks is finished, and resumed. The cost is all that passes before the
first task that is not kept runs, beyond what passes before the first task of any run: the check of what is kept, and
the reading of the symbol that was not done. It is given as a share of the time that the kept tasks had taken.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import SWEEP, dataset, symbols_toml

TASKS = 30
"""Of a symbol: side × maintenance × funding."""


def events(log: Path) -> list[tuple[str, float]]:
    """Name and time, in seconds since the epoch, of the events in the whole lines of a log."""
    text = log.read_text() if log.exists() else ""
    found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [(one["event"], datetime.fromisoformat(one["time"]).timestamp()) for one in found]


def between(found: Sequence[tuple[str, float]], first: str, then: str) -> float:
    """Seconds from the first event of a name to the first of another."""
    times = dict(reversed(found))
    return times[then] - times[first]


def start(folder: Path, log: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own."""
    command = [sys.executable, "-m", "backtest", "run", "sweep.toml", "--out", "run", "--log", log, *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)


def measure(folder: Path, symbols: int, bars: int, share: float) -> None:
    """Kill, resume, print."""
    fundings = "funding = [{ scale = 0.0 }, { scale = 1.0 }, { scale = 2.0 }]\n"
    path = dataset(folder, symbols, bars)
    (folder / "sweep.toml").write_text(f'[data]\npath = "{path}"\n{symbols_toml(symbols)}\n{SWEEP}{fundings}')
    process = start(folder, "first.jsonl")
    while sum(name == "task finished" for name, _ in events(folder / "first.jsonl")) < int(share * symbols * TASKS):
        time.sleep(0.1)
        if process.poll() is not None:
            sys.exit("the run ended before it could be killed; use more symbols or years")
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = events(folder / "first.jsonl")
    last_task = max(when for name, when in first if name == "task finished")
    work_s = last_task - dict(reversed(first))["run begun"]
    if start(folder, "second.jsonl", "--resume").wait():
        sys.exit("the run was not resumed")
    second = events(folder / "second.jsonl")
    check_s = between(second, "run planned", "run begun") - between(first, "run planned", "run begun")
    read_s = between(second, "run begun", "symbol begun")
    kept = sum(task["kept"] for task in json.loads((folder / "run" / "run.json").read_text())["tasks"])
    print(f"{symbols} × {bars:,} bars, {symbols * TASKS} tasks; {kept} kept after {work_s:.1f} s of work")
    for what, seconds in (("check", check_s), ("reading of the symbol", read_s), ("both", check_s + read_s)):
        print(f"{what:22} {seconds:7.3f} s  {seconds / work_s:6.2%}")


def main() -> None:
    """Generate and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=40)
    parser.add_argument("--years", type=float, default=1.0)
    parser.add_argument("--at", type=float, default=0.9, help="share of the tasks after which the run is killed")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        measure(Path(folder), given.symbols, round(given.years * 525_960), given.at)


if __name__ == "__main__":
    main()
