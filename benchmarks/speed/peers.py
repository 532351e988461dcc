"""How fast are other programs at the same question, and are their answers equal to this package's?

Run: ``python -m benchmarks.speed.peers [--write] [--venvs DIR]``; ``--write`` puts the tables into README.md. The other
programs are installed, in the versions below, into virtual environments under DIR (default: the user's cache; two
minutes and 2.5 GB the first time), and each runs in a process of its own. One that cannot be installed or run is a row
that says why. With all installed it takes two minutes.

The question: two years of generated 1-minute bars, a long position opened at every close (or a sample of them) at each
of 125 leverages, maintenance 0.4 % of the value at entry (jesse knows no other), no fee, no funding, traded prices;
which of them see the price at their liquidation level within a day? And of the counts: curves with their errors, and
bounds of the differences of two runs from the stationary bootstrap.

All are warm and use one thread; time is that of the processor. Ratios are to this package's answer of the same kind:
how many are liquidated (counts), whether each is, or in which bar.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    for _name in ("NUMBA", "RAYON", "OMP", "OPENBLAS", "MKL"):
        os.environ[f"{_name}_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, machine, put
from benchmarks.speed.peers_here import (
    DISTANCE,
    HOURS,
    LEVERAGES,
    REPLICATIONS,
    TAIL,
    Question,
    count_curves,
    every_bar,
    one_pass,
    plain_history,
)
from benchmarks.speed.peers_there import Answer, timed

YEARS = 2.0
STATISTICS = ("lifelines==0.30.3", "arch==8.0.0", "numpy==2.4.6", "pandas==2.3.3", "scipy==1.17.1")
ENVIRONMENTS = {
    "vectorbt": ("vectorbt==1.2.0", "vectorbt-rust==1.2.0", "numpy==2.4.6", "numba==0.68.1", "pandas==3.1.1"),
    "jesse": ("jesse==3.5.3", "numpy==1.26.4", "pandas==2.2.3"),
    "lifelines": STATISTICS,
    "arch": STATISTICS,
}
"""Exact versions; they cannot be installed together."""


class FailedError(Exception):
    """Why a program has no figures, in words."""


def call(command: Sequence[str], cwd: Path | None = None) -> None:
    """Run a command; FailedError with its last error line."""
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=900, check=True, cwd=cwd)
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        lines = [line for line in lines if "error" in line.lower()] or lines
        raise FailedError(lines[-1].strip() if lines else f"exit code {error.returncode}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedError(str(error)) from error


def install(pins: Sequence[str], folder: Path) -> str:
    """The Python of an environment with these packages, made if it is not there."""
    key = hashlib.sha256("\n".join(pins).encode()).hexdigest()[:16]
    place = folder / key
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (place / "installed").is_file():
        print(f"installing {', '.join(pins)} into {place}", file=sys.stderr, flush=True)
        named = (shutil.which(f"python3.{minor}") for minor in (11, 12))
        base = sys.executable if sys.version_info[:2] in {(3, 11), (3, 12)} else next(filter(None, named), None)
        if base is None:
            raise FailedError("could not be installed: no Python 3.11 or 3.12 on this machine")
        try:
            call([base, "-m", "venv", "--clear", str(place)])
            call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins])
        except FailedError as error:
            raise FailedError(f"could not be installed: {error}") from error
        (place / "installed").touch()
    return str(python)


def ask(name: str, arrays: Mapping[str, Any], folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays that a program of `peers_there` answers with."""
    python = install(ENVIRONMENTS[name], folder)
    print(f"asking {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as population:  # jesse leaves files where it runs
        given, out = Path(population, "given.npz"), Path(population, "out.npz")
        np.savez(given, **arrays)
        packages = [pin.partition("==")[0] for pin in ENVIRONMENTS[name]]
        script = Path(__file__).with_name("peers_there.py")
        try:
            call([python, "-I", str(script), name, str(given), str(out), *packages], cwd=Path(population))
        except FailedError as error:
            raise FailedError(f"could not be run: {error}") from error
        with np.load(out) as found:
            return dict(found)


@dataclass(frozen=True)
class Own:
    """This package's answers, and nanoseconds per verdict of each kind: "counts", "whether", "bar"."""

    ns: dict[str, float]
    lines: list[str]
    dead: NDArray[np.bool_]  # (n_entries, n_leverages)
    bars: NDArray[np.int32]  # (n_entries, n_leverages)


def own(asked: Question) -> Own:
    """Ask this package in four ways, which must agree."""
    ways: list[tuple[str, str, Callable[[], NDArray[Any]], int]] = [
        ("`bt.run`, its intervals and files included", "counts", asked.whole_run, 5),
        ("the engine alone", "counts", asked.counts, 20),
        ("the engine alone", "whether", asked.verdicts, 5),
        ("the engine alone", "bar", asked.bars, 2),
    ]
    size = asked.entries * len(LEVERAGES)
    found = []
    for *_, way, repeat in ways:
        way()  # just before: its memory is kept for the next call
        found.append(timed(way, repeat))
    ns = [seconds / size * 1e9 for seconds, _ in found]
    lines = [
        f"| this package, {what} | {kind} | {size:,} | {figure(each)} | | {figure(each / ns[1])} | |"
        for (what, kind, *_), each in zip(ways, ns, strict=True)
    ]
    whole, counts, dead, bars = (answer for _, answer in found)
    if not ((whole == counts).all() and (counts == dead.sum(axis=0)).all() and (dead == (bars > 0)).all()):
        raise SystemExit("the answers of this package disagree")
    return Own(dict(zip(("counts", "whether", "bar"), ns[1:], strict=True)), lines, dead, bars)


def plain_loops(asked: Question) -> list[Answer]:
    """The plain loops, on a sample of the entries."""
    found = []
    for what, loop, step in (
        ("plain Numba, every bar for every leverage", every_bar, 200),
        ("plain Numba, one pass for all leverages, early exit", one_pass, 10),
    ):
        entries = np.arange(0, asked.entries, step)
        loop(asked.low, asked.close, entries[:1], asked.horizon, DISTANCE)
        answer = timed(partial(loop, asked.low, asked.close, entries, asked.horizon, DISTANCE), 2)
        found.append((what, answer[0], entries, np.arange(len(LEVERAGES)), answer[1]))
    return found


def compare(asked: Question, answer: Answer, mine: Own) -> str:
    """The row of an answer, with the number of verdicts that differ.

    Of those that differ, ties are counted: the price came to the level up to the rounding of floats.
    """
    what, seconds, entries, columns, theirs = answer
    kind = "whether" if theirs.dtype == bool else "bar"
    ours = mine.dead if kind == "whether" else mine.bars
    unlike = np.argwhere(ours[np.ix_(entries, columns)] != theirs)
    ties = 0
    for entry, column in zip(entries[unlike[:, 0]], columns[unlike[:, 1]], strict=True):
        window = asked.low[entry + 1 : entry + 1 + asked.horizon]
        ties += bool((np.abs(window / asked.close[entry] - (1 - DISTANCE[column])) < 1e-9).any())
    each = seconds / theirs.size * 1e9
    over = f"{figure(each / mine.ns[kind])} | {figure(each / mine.ns['counts'])}"
    differing = f"{len(unlike):,}" + (f" ({ties:,} ties, which floats decide)" if len(unlike) else "")
    return f"| {what} | {kind} | {theirs.size:,} | {figure(each)} | {over} | {differing} |"


def sweep_table(asked: Question, folder: Path) -> tuple[list[str], list[str]]:
    """Lines of the first table, and versions."""
    mine = own(asked)
    lines = [
        "| which positions die within a day | answer | verdicts | ns each | × the same here | × the counts "
        "| differing |",
        "|---|---|--:|--:|--:|--:|--:|",
        *mine.lines,
        *(compare(asked, answer, mine) for answer in plain_loops(asked)),
    ]
    used = []
    for name in ("vectorbt", "jesse"):
        try:
            found = ask(name, asked.arrays(), folder)
        except FailedError as error:
            lines.append(failed(name, error, 6))
            continue
        for i in count():
            if f"{i} what" not in found:
                break
            arrays = (found[f"{i} {field}"] for field in ("entries", "columns", "verdicts"))
            lines.append(compare(asked, (str(found[f"{i} what"]), float(found[f"{i} seconds"]), *arrays), mine))
        used.append(str(found["versions"]))
    return lines, used


def statistics_table(asked: Question, folder: Path) -> tuple[list[str], list[str]]:
    """Lines of the second table, and versions."""
    counts = count_curves(asked.history)
    given = {**vars(counts), "hours": HOURS, "mean": counts.mean, "replications": REPLICATIONS, "tail": TAIL}
    cells = counts.parts.shape[2]
    lines = ["| statistics of the counts | numbers | here | there | ratio | differing |", "|---|--:|--:|--:|--:|--:|"]
    curves = f"Kaplan–Meier curves, errors, intervals of {len(counts.entries):,} × {HOURS.size} horizons"
    draws = f"stationary bootstrap of {cells:,} differences, {REPLICATIONS:,} replications"
    used = []
    for name, what, way in (("lifelines", curves, counts.curves), ("arch", draws, counts.bounds)):
        way()
        here, ours = timed(way, 5)
        try:
            theirs = ask(name, given, folder)
        except FailedError as error:
            lines.append(failed(name, error, 5))
            continue
        if name == "arch":
            ours = counts.bounds(theirs["weight"].astype(float))  # of the same draws
        there = float(theirs["seconds"])
        unlike = sum(int((~np.isclose(ours[key], theirs[key], rtol=1e-8, atol=1e-12)).sum()) for key in ours)
        size = sum(values.size for values in ours.values())
        lines.append(
            f"| {what}: {name} | {size:,} | {here:.2g} s | {there:.2g} s | {figure(there / here)} | {unlike:,} |"
        )
        used.append(str(theirs["versions"]))
    return lines, used


def figure(value: float) -> str:
    """Three digits."""
    return f"{float(f'{value:.3g}'):,.15g}"


def failed(name: str, error: FailedError, columns: int) -> str:
    """A row that says why there are no figures."""
    return f"| {name}: {str(error).replace('|', '/')} |" + " |" * columns


def main() -> None:
    """Ask all, print the tables."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liquidation-backtest" / "peers"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--venvs", type=Path, default=cache, help="where the others are installed (%(default)s)")
    options = parser.parse_args()
    asked = Question(plain_history(YEARS))
    sweep, statistics = (make(asked, options.venvs.resolve()) for make in (sweep_table, statistics_table))
    head = [
        f"One run on one machine: {machine('numpy', 'numba', 'scipy')}. All warm, processor time of one thread.",
        f"{YEARS:g} years of generated 1-minute bars, a long at every close or at a sample of them, leverages 1 … 125,",
        "maintenance 0.4 % of the value at entry, no fee, no funding. An answer says how many die (counts), whether",
        "each does, or in which bar; *the same here* is this package's answer of that kind. *Differing* are verdicts",
        "that are not this package's; of the statistics, curves, Greenwood's errors and bounds from the same draws,",
        "numbers that are more than 1e-8 of their size away.",
    ]
    versions = f"The others: {'; '.join(dict.fromkeys(sweep[1] + statistics[1]))}."
    text = "\n".join([*head, "", *sweep[0], "", *statistics[0], "", versions])
    print(text)
    if options.write:
        put(ROOT / "README.md", "benchmarks/speed/peers.py", text)


if __name__ == "__main__":
    main()
