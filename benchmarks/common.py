"""What several benchmarks need: timing, processes that are measured, generated datasets, tables in documents."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from backtest.data.dataset import write_history
from backtest.data.history import PriceHistory
from backtest.data.synthetic import FUNDING_MS, LEVEL, MINUTES_PER_YEAR, TICKS, demo_history

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
MINUTE_MS = 60_000
GIB, MIB = 1 << 30, 1 << 20
SWEEP = """\
[sweep]
leverage = { from = 1, to = 125 }
horizon = ["1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d"]
maintenance = [0.004, 0.005, 0.01, 0.02, 0.05]
"""
"""What the large benchmarks ask: 10 scenarios of 1,000 horizon × leverage pairs."""
LAUNCHER = """
import json, os, sys, time
clock = time.perf_counter()
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), time.perf_counter() - clock, usage.ru_utime + usage.ru_stime,
                  usage.ru_maxrss * 1024]))
"""
"""A small process between this one and the one that is measured, whose peak would begin at the memory of its parent."""


@dataclass(frozen=True)
class Cost:
    """Exit code, seconds, peak of the resident set and standard error of a process."""

    code: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    said: str = ""


def backtest_command(*arguments: object, allowed: Sequence[int] = (0,)) -> Cost:
    """Run ``backtest`` with these arguments in a process of its own; another exit code ends the benchmark."""
    command = [sys.executable, "-m", "backtest", *map(str, arguments)]
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", LAUNCHER, *command],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    cost = Cost(*json.loads(done.stdout), said=done.stderr.strip())
    if cost.code not in allowed:
        sys.exit(f"{' '.join(command)} ended with {cost.code}: {cost.said}")
    return cost


def best(function: Callable[[], object], repeat: int = 5) -> float:
    """Seconds of the quickest of some calls, after one call that compiles."""
    function()
    return min(timed(function)[0] for _ in range(repeat))


def timed(function: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> tuple[float, T]:
    """Seconds of one call, and its result."""
    start = clock()
    out = function()
    return clock() - start, out


def in_turn(
    *calls: Callable[[], object], repeat: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of the quickest call of each; the calls take turns, because other load slows all of them."""
    return [
        min(times) for times in zip(*([timed(call, clock)[0] for call in calls] for _ in range(repeat)), strict=True)
    ]


def history(number: int, n_bars: int, interval_ms: int = MINUTE_MS) -> PriceHistory:
    """A generated perpetual: last and mark price on ticks, funding every 8 hours, a few gaps."""
    symbol = symbol_name(number)
    made = demo_history(number, (n_bars + 2) / MINUTES_PER_YEAR, symbol=symbol, own=1.0)
    columns = {name: values[:n_bars] for name, values in made.columns.items()}
    if interval_ms != MINUTE_MS:  # a shorter bar moves less
        power = math.sqrt(interval_ms / MINUTE_MS)
        for name in set(columns) - {"funding_rate"}:
            columns[name] = np.round(LEVEL * (columns[name] / LEVEL) ** power * TICKS) / TICKS
        columns["funding_rate"] = np.full(n_bars, np.nan)
        columns["funding_rate"][:: FUNDING_MS // interval_ms] = 1e-4
    return PriceHistory(symbol, interval_ms, made.start_ms, columns)


def symbol_name(number: int) -> str:
    """Name of a generated symbol."""
    return f"S{number:03d}USDT"


def symbols_toml(count: int) -> str:
    """The key of a configuration that selects the first symbols."""
    return f"symbols = {json.dumps([symbol_name(n) for n in range(count)])}"


def _write(number: int, folder: Path, n_bars: int, interval_ms: int) -> None:
    write_history(history(number, n_bars, interval_ms), folder, overwrite=True)


def dataset(folder: Path, symbols: int, n_bars: int, interval_ms: int = MINUTE_MS) -> Path:
    """A dataset of generated symbols below `folder`; those that exist already are kept."""
    place = (folder / f"{n_bars}x{interval_ms // 1000}s").absolute()
    found = {path.name for path in place.glob("interval=*/symbol=*")}
    missing = [n for n in range(symbols) if f"symbol={symbol_name(n)}" not in found]
    if missing:
        print(f"generating {len(missing)} × {n_bars:,} bars in {place}", file=sys.stderr, flush=True)
        write = partial(_write, folder=place, n_bars=n_bars, interval_ms=interval_ms)
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            list(pool.map(write, missing))
    return place


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def machine(*packages: str) -> str:
    """The processor, the memory, and the versions of Python and of packages."""
    model = "an unnamed processor"
    if (info := Path("/proc/cpuinfo")).exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        model = next((line.partition(":")[2].strip() for line in lines), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    versions = "".join(f", {name} {version(name)}" for name in packages or ("numpy", "numba", "pyarrow"))
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}{versions}"


def put(file: Path, script: str, text: str) -> None:
    """Replace the text between ``<!-- begin: script -->`` and ``<!-- end: script -->`` in a document.

    Raises
    ------
    SystemExit
        If the document lacks one of the two lines.
    """
    head, begin, rest = file.read_text(encoding="utf-8").partition(f"<!-- begin: {script} -->\n")
    _, end, tail = rest.partition(f"<!-- end: {script} -->")
    if not (begin and end):
        sys.exit(f"{file.name} lacks the lines <!-- begin: {script} --> and <!-- end: {script} -->")
    file.write_text(f"{head}{begin}{text.rstrip()}\n{end}{tail}", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first aligned to the right."""
    rules = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rules, *rows))
