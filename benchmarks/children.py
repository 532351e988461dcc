"""Runs of the command line in processes of their own, on generated histories: what they took, and where it went."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from backtest.data.dataset import write_history
from backtest.data.history import PriceHistory
from backtest.data.synthetic import FUNDING_MS, LEVEL, MINUTES_PER_YEAR, TICKS, demo_history

ROOT = Path(__file__).parents[1]
MINUTE_MS = 60_000
LAUNCHER = """
import json, os, sys, time
begun, clock = time.time(), time.perf_counter()
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
wall = time.perf_counter() - clock
try:
    lines = open(f"/proc/{child}/io").read().splitlines()
    read = int(dict(line.split(": ") for line in lines)["rchar"])
except OSError:
    read = 0
_, status, usage = os.wait4(child, 0)
print(json.dumps({
    "code": os.waitstatus_to_exitcode(status), "begun": begun, "wall_s": wall, "user_s": usage.ru_utime,
    "system_s": usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024, "read_bytes": read,
}))
"""
"""Between this process and the run: the peak of a child of a large process begins at that of its parent."""


@dataclass(frozen=True)
class Measured:
    """What a process took.

    Attributes
    ----------
    code : int
        Its exit code.
    begun : float
        Seconds since the epoch.
    wall_s, user_s, system_s : float
    peak_bytes : int
        Of its resident set.
    read_bytes : int
        Through calls that read; 0 where the system does not tell.
    said : str
        On standard error.
    events : list of dict
        Of its log.
    """

    code: int
    begun: float
    wall_s: float
    user_s: float
    system_s: float
    peak_bytes: int
    read_bytes: int
    said: str = ""
    events: list[dict[str, object]] = field(default_factory=list, repr=False)

    @property
    def cpu_s(self) -> float:
        """Of all its threads."""
        return self.user_s + self.system_s

    def first(self, event: str) -> dict[str, object]:
        """The first event of a name."""
        return next(one for one in self.events if one["event"] == event)

    def phases(self) -> dict[str, float]:
        """Seconds until the run begins, before each symbol's first task, of tasks, of the final tables, and after."""
        found = dict.fromkeys(("start", "before a symbol's tasks", "tasks", "tables", "end"), 0.0)
        last = self.begun
        kinds = {"run begun": "start", "symbol begun": "before a symbol's tasks", "task finished": "tasks"}
        kinds |= {"run finished": "tables"}
        for event in self.events:
            if event["event"] in kinds:
                now = datetime.fromisoformat(str(event["time"])).timestamp()
                found[kinds[str(event["event"])]] += now - last
                last = now
        found["end"] = self.begun + self.wall_s - last
        return found


def measured(config: Path, out: Path, workers: int, memory: str | None = None, words: Sequence[str] = ()) -> Measured:
    """Run a configuration in a fresh process, replacing what is in `out`."""
    log = out.with_suffix(".jsonl")
    log.unlink(missing_ok=True)
    limit = [] if memory is None else ["--memory", memory]
    command = [sys.executable, "-m", "backtest", "run", str(config), "--out", str(out), "--overwrite"]
    command += ["--workers", str(workers), "--log", str(log), *limit, *words]
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", LAUNCHER, *command],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Measured(**json.loads(done.stdout), said=done.stderr.strip(), events=events)


def history(number: int, n_bars: int, interval_ms: int = MINUTE_MS) -> PriceHistory:
    """Invented bars of a perpetual swap: last and mark price on a tick, funding every 8 hours, a few gaps."""
    symbol = f"S{number:03d}USDT"
    made = demo_history(number, (n_bars + 2) / MINUTES_PER_YEAR, symbol=symbol, own=1.0)
    quicker = math.sqrt(interval_ms / MINUTE_MS)
    columns = {}
    for name, values in made.columns.items():
        columns[name] = values[:n_bars]
        if interval_ms != MINUTE_MS and name != "funding_rate":  # a shorter bar moves less
            columns[name] = np.round(LEVEL * (values[:n_bars] / LEVEL) ** quicker * TICKS) / TICKS
    if interval_ms != MINUTE_MS:
        columns["funding_rate"] = np.full(n_bars, np.nan)
        columns["funding_rate"][:: FUNDING_MS // interval_ms] = 1e-4
    return PriceHistory(symbol, interval_ms, made.start_ms, columns)


def _write(number: int, folder: Path, n_bars: int, interval_ms: int) -> None:
    write_history(history(number, n_bars, interval_ms), folder, overwrite=True)


def dataset(folder: Path, symbols: int, n_bars: int, interval_ms: int = MINUTE_MS) -> Path:
    """A dataset of so many symbols and bars each, below `folder`; what is there already is taken."""
    place = folder / f"{n_bars}x{interval_ms // 1000}s"
    there = {path.name for path in place.glob("interval=*/symbol=*")}
    missing = [n for n in range(symbols) if f"symbol=S{n:03d}USDT" not in there]
    if missing:
        print(f"generating {len(missing)} × {n_bars:,} bars in {place}", file=sys.stderr, flush=True)
        write = partial(_write, folder=place, n_bars=n_bars, interval_ms=interval_ms)
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            list(pool.map(write, missing))
    return place


def bytes_of(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def machine() -> str:
    """The machine and the versions, for the foot of a table."""
    model = "an unnamed processor"
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "pyarrow"))
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}, {libraries}"


def put(file: Path, name: str, text: str) -> None:
    """Put text between the markers ``<!-- name -->`` and ``<!-- end of name -->`` of a document."""
    old = file.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, rest = old.split(begin)
    file.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    rules = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rules, *rows))
