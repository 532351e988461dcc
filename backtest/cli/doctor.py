"""`backtest doctor`: versions, cores, memory, disk and kernel cache of this machine, and what is slow or wrong."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from backtest.runs.memory import memory_bytes

PACKAGES = ("liquidation-backtest", "numpy", "pandas", "numba", "pyarrow", "scipy", "matplotlib", "pydantic")
EXTRAS = {"ipywidgets": "notebook", "ccxt": "ccxt", "distributed": "dask"}
SMALL_MEMORY, SMALL_DISK = 2 << 30, 1 << 30
SLOW_NS = 20.0
"""Per entry and horizon: several times what a machine of the last ten years takes."""
PROBE_BARS = 400_000


@dataclass(frozen=True)
class Diagnosis:
    """Facts about a machine, and what should be fixed.

    Attributes
    ----------
    facts : dict of str to str
    wrong : tuple of str
        What makes runs fail or take far too long, and what to do about each.
    slow : tuple of str
        What costs time only.
    """

    facts: dict[str, str]
    wrong: tuple[str, ...]
    slow: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"ok": not self.wrong, **asdict(self)}

    def text(self) -> str:
        """For people."""
        width = max(map(len, self.facts))
        lines = [f"{name:{width}s}  {value}" for name, value in self.facts.items()]
        lines += [f"wrong: {each}" for each in self.wrong] + [f"slow: {each}" for each in self.slow]
        return "\n".join([*lines, *(() if self.wrong or self.slow else ("nothing is wrong or slow here",))])


def diagnose() -> Diagnosis:
    """Look at versions, threads, the kernels' cache, memory and disk, and time a small sweep on one thread and on all.

    Examples
    --------
    >>> sorted(diagnose().facts)[:3]  # doctest: +SKIP
    ['cores', 'disk', 'kernel cache']
    """
    wrong: list[str] = []
    slow: list[str] = []
    facts = dict(_versions())
    facts["cores"] = _cores(slow)
    facts["memory"] = _memory(slow)
    facts["disk"] = _disk(wrong)
    facts["kernel cache"] = _cache(wrong, slow)
    facts["sweep"] = _speed(slow)
    return Diagnosis(facts, tuple(wrong), tuple(slow))


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in PACKAGES:
        yield name, _version(name)
    for name, extra in EXTRAS.items():
        found = _version(name)
        yield name, found if found != "missing" else f"missing (pip install 'liquidation-backtest[{extra}]')"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _cores(slow: list[str]) -> str:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    share = _cgroup_cores()
    text = f"{cores}, of which this process may use {usable}" if usable < cores else str(cores)
    if share is not None and share < usable:
        slow.append(
            f"a quota allows {share:g} of {usable} cores: runs start {usable} threads that share them; give --workers"
        )
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name) == "1" and usable > 1:
            slow.append(f"{name} is 1: bootstraps use one core; unset it")
    return text


def _cgroup_cores() -> float | None:
    """Cores that the quota of the container allows; None if there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory(slow: list[str]) -> str:
    total = memory_bytes()
    if total is None:
        return "unknown"
    if total < SMALL_MEMORY:
        slow.append(f"{_size(total)} of memory: five years of 1-minute bars take 0.7 GiB; sweep a part of them")
    return _size(total)


def _disk(wrong: list[str]) -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < SMALL_DISK:
        wrong.append(f"{_size(free)} of disk are left here; runs and datasets need more")
    if not os.access(Path.cwd(), os.W_OK):
        wrong.append(f"{Path.cwd()} cannot be written to; give --out a folder that can")
    return f"{_size(free)} free here"


def _cache(wrong: list[str], slow: list[str]) -> str:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        wrong.append("NUMBA_DISABLE_JIT is set: nothing is compiled, a sweep takes a thousand times as long; unset it")
        return "switched off"
    from backtest.engine.kernel_cache import inspect_cache

    cache = inspect_cache()
    folder = cache.folder
    if folder.is_dir() and not os.access(folder, os.W_OK):
        slow.append(f"{folder} cannot be written to: kernels are compiled again each time; set NUMBA_CACHE_DIR")
    elif Path(tempfile.gettempdir()) in folder.parents:
        slow.append(f"the kernel cache is in a temporary folder ({folder}) and may be lost; set XDG_CACHE_HOME")
    if cache.damaged:
        slow.append(f"{cache.damaged} files of the kernel cache are damaged and will be compiled again")
    return f"{folder}, {cache.files} kernels" + ("" if cache.files else " (the first run compiles)")


def _speed(slow: list[str]) -> str:
    """Time a small sweep on one thread and on all of them, after compilation."""
    import numpy as np

    from backtest.config.models import Config, Sweep
    from backtest.config.scenarios import expand_scenarios
    from backtest.data.history import PriceHistory
    from backtest.engine.bars import build_grid
    from backtest.engine.count import count_entries
    from backtest.engine.prepare import prepare_entries
    from backtest.runs.executors.thread_pool import map_ordered

    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 1e-3, PROBE_BARS)))
    bars = {"open": close, "high": close * 1.001, "low": close * 0.999, "close": close}
    sweep = Sweep(side=["long"], leverage=range(1, 126), horizon=["1h", "1d", "7d"], maintenance=[0.005])
    config = Config(sweep=sweep)
    population = prepare_entries(config, build_grid(PriceHistory("PROBE", 60_000, 0, bars)))
    scenarios = expand_scenarios(config)
    chunks = population.chunks(PROBE_BARS // 16)

    def seconds(workers: int) -> float:
        begun = time.perf_counter()
        for _ in map_ordered(lambda chunk: count_entries(population, scenarios, chunk), chunks, workers):
            pass
        return time.perf_counter() - begun

    seconds(1)  # compiles
    one, threads = min(seconds(1) for _ in range(3)), os.cpu_count() or 1
    every = min(seconds(threads) for _ in range(3))
    per_entry = one / (population.bars.size * len(population.horizons)) * 1e9
    if per_entry > SLOW_NS:
        slow.append(f"a sweep takes {per_entry:.0f} ns per entry and horizon: is this machine busy, or throttled?")
    if threads > 1 and one / every < 1 + 0.25 * (min(threads, 4) - 1):
        slow.append(f"{threads} threads are only {one / every:.1f} times as fast as one: other work holds the cores")
    return f"{per_entry:.1f} ns per entry and horizon on one thread, {one / every:.1f} times as fast on {threads}"


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
