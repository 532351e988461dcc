"""Other programs asked the same question in one run on one machine, and their answers held against this package's.

Run: ``python benchmarks/peers.py [--write] [--venvs DIR]``; ``--write`` puts the tables into README.md. Needs no more
than this package: the others are installed, in the versions below, into virtual environments under DIR (default: the
user's cache; two minutes and 2.5 GB the first time), and each is run in a process of its own. One that cannot be
installed or run is a row that says why. With all installed it takes two minutes.

The question: two years of generated 1-minute bars, a long position opened at every close (or a sample of them) at each
of 125 leverages, maintenance 0.4 % of the value at entry (jesse knows no other), no fee, no funding, traded prices;
which of them see the price at their liquidation level within a day? And of the counts: curves with their errors, and
bounds of the differences of two runs from the stationary bootstrap.

All are warm and kept to one thread, and time is that of the processor. Ratios are to this package's answer of the same
kind: how many die, whether each does, or in which bar.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Benchmarks are a package here.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    for _name in ("NUMBA", "RAYON", "OMP", "OPENBLAS", "MKL"):
        os.environ[f"{_name}_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_answers import Answer, Question, answers, timed, versions
from benchmarks.peers_environments import ROOT, Environment, FailedError, Peer, asked_of
from benchmarks.peers_ours import HOURS, LEVERAGES, REPLICATIONS, TAIL, Asked, counts_of, distances, plain_history
from benchmarks.peers_walks import every_bar, one_pass

YEARS = 2.0
SPARSE_PASS, SPARSE_EVERY = 10, 200
"""Every n-th entry is walked."""
BEGIN, END = "<!-- peers:begin -->\n", "<!-- peers:end -->"

STATISTICS = Environment(
    "statistics", (11, 12, 13), ("lifelines==0.30.3", "arch==8.0.0", "numpy==2.4.6", "pandas==2.3.3", "scipy==1.17.1")
)
VECTORBT = Environment(
    "vectorbt", (11, 12, 13), ("vectorbt[rust]==1.2.0", "numpy==2.4.6", "numba==0.68.1", "pandas==3.1.1")
)
JESSE = Environment("jesse", (11, 12, 10), ("jesse==3.5.3", "numpy==1.26.4", "pandas==2.2.3"))
"""Together they cannot be installed: each holds NumPy or pandas elsewhere."""

SWEEPERS = (Peer("vectorbt", "peers_vectorbt", VECTORBT), Peer("jesse", "peers_jesse", JESSE))
LIFELINES = Peer("lifelines", "peers_lifelines", STATISTICS)
ARCH = Peer("arch", "peers_arch", STATISTICS)


@dataclass(frozen=True)
class Own:
    """What this package found, and nanoseconds per verdict of each kind of answer."""

    ns: dict[str, float]  # "counts", "whether", "bar"
    lines: list[str]
    dead: NDArray[np.bool_]  # (n_entries, n_leverages)
    bars: NDArray[np.int32]  # (n_entries, n_leverages)


def own(asked: Asked) -> Own:
    """This package, held against itself."""
    ways: list[tuple[str, str, Callable[[], NDArray[Any]], int]] = [
        ("`bt.run`, its intervals and files included", "counts", asked.whole_run, 5),
        ("the engine alone", "counts", asked.counts, 20),
        ("the engine alone", "whether", asked.verdicts, 5),
        ("the engine alone", "bar", asked.bars, 2),
    ]
    size = asked.entries * len(LEVERAGES)
    ns: list[float] = []
    found: list[NDArray[Any]] = []
    for *_, way, repeat in ways:
        way()
        seconds, answer = timed(way, repeat)
        ns.append(seconds / size * 1e9)
        found.append(answer)
    lines = [
        f"| this package, {what} | {kind} | {size:,} | {figure(each)} | | {figure(each / ns[1])} | |"
        for (what, kind, *_), each in zip(ways, ns, strict=True)
    ]
    whole, counts, dead, bars = found
    if not ((whole == counts).all() and (counts == dead.sum(axis=0)).all() and (dead == (bars > 0)).all()):
        raise SystemExit("the answers of this package disagree")
    return Own(dict(zip(("counts", "whether", "bar"), ns[1:], strict=True)), lines, dead, bars)


def walked(asked: Asked) -> list[Answer]:
    """The plain walks."""
    low, close = (asked.history.columns[name] for name in ("low", "close"))
    horizon = asked.work.horizons[0]
    found = []
    for what, walk, step in (
        ("plain Numba, every bar for every leverage", every_bar, SPARSE_EVERY),
        ("plain Numba, one pass for all leverages, early exit", one_pass, SPARSE_PASS),
    ):
        entries = np.arange(0, asked.entries, step)
        walk(low, close, entries[:1], horizon, distances())
        seconds, dead = timed(partial(walk, low, close, entries, horizon, distances()), 2)
        found.append(Answer(what, seconds, entries, np.arange(len(LEVERAGES)), dead))
    return found


def compared(asked: Asked, answer: Answer, mine: Own) -> str:
    """A row of a peer."""
    theirs = answer.found
    kind = "whether" if theirs.dtype == bool else "bar"
    ours = mine.dead if kind == "whether" else mine.bars
    unlike = np.argwhere(ours[np.ix_(answer.entries, answer.columns)] != theirs)
    each = answer.seconds / theirs.size * 1e9
    over = f"{figure(each / mine.ns[kind])} | {figure(each / mine.ns['counts'])}"
    count = differing(asked, answer, unlike)
    return f"| {answer.what} | {kind} | {theirs.size:,} | {figure(each)} | {over} | {count} |"


def differing(asked: Asked, answer: Answer, unlike: NDArray[np.intp]) -> str:
    """How many verdicts differ, and of how many the price came to the level but for the rounding of floats."""
    low, close = (asked.history.columns[name] for name in ("low", "close"))
    ties = 0
    for entry, column in zip(answer.entries[unlike[:, 0]], answer.columns[unlike[:, 1]], strict=True):
        gap = low[entry + 1 : entry + 1 + asked.work.horizons[0]] / close[entry] - (1 - distances()[column])
        ties += bool((np.abs(gap) < 1e-9).any())
    return f"{len(unlike):,}" + (f" ({ties:,} ties, which floats decide)" if len(unlike) else "")


def sweep_table(asked: Asked, folder: Path, work: Path) -> tuple[list[str], list[str]]:
    """Lines of the first table, and versions."""
    mine = own(asked)
    lines = [
        "| which positions die within a day | answer | verdicts | ns each | × the same here | × the counts "
        "| differing |",
        "|---|---|--:|--:|--:|--:|--:|",
        *mine.lines,
        *(compared(asked, answer, mine) for answer in walked(asked)),
    ]
    columns = {name: asked.history.columns[name] for name in ("open", "high", "low", "close")}
    horizon, start = asked.work.horizons[0], asked.history.start_ms
    Question(**columns, start_ms=start, horizon=horizon, leverage=np.array(LEVERAGES), distance=distances()).save(
        work / "question.npz"
    )
    used = []
    for peer in SWEEPERS:
        try:
            found, version = answers(asked_of(peer, work / "question.npz", folder))
        except FailedError as error:
            lines.append(failed(peer, error, 6))
            continue
        lines += [compared(asked, answer, mine) for answer in found]
        used.append(version)
    return lines, used


def figure(value: float) -> str:
    """Three digits."""
    return f"{float(f'{value:.3g}'):,.15g}"


def failed(peer: Peer, error: FailedError, columns: int) -> str:
    """A row that says why there are no figures."""
    return f"| {peer.name}: {str(error).replace('|', '/')} |" + " |" * columns


def statistics_table(asked: Asked, folder: Path, work: Path) -> tuple[list[str], list[str]]:
    """Lines of the second table, and versions."""
    counts = counts_of(asked.history)
    given = work / "counts.npz"
    np.savez(given, **vars(counts), hours=HOURS, mean=counts.mean, replications=REPLICATIONS, tail=TAIL)
    scenarios, differences = (
        f"{len(counts.entries):,} × {HOURS.size} horizons",
        f"{counts.parts.shape[2]:,} differences",
    )
    lines = ["| statistics of the counts | numbers | here | there | ratio | differing |", "|---|--:|--:|--:|--:|--:|"]
    used = []
    for peer, what, call in (
        (LIFELINES, f"Kaplan–Meier curves, errors, intervals of {scenarios}: lifelines", counts.curves),
        (ARCH, f"stationary bootstrap of {differences}, {REPLICATIONS:,} replications: arch", counts.bounds),
    ):
        call()
        here, ours = timed(call, 5)
        try:
            with np.load(asked_of(peer, given, folder)) as found:
                theirs = {name: found[name] for name in found.files}
        except FailedError as error:
            lines.append(failed(peer, error, 5))
            continue
        if peer is ARCH:
            ours = counts.bounds(theirs["weight"].astype(float))  # of the same draws
        there = float(theirs["seconds"])
        unlike = sum(int((~np.isclose(ours[name], theirs[name], rtol=1e-8, atol=1e-12)).sum()) for name in ours)
        size = sum(values.size for values in ours.values())
        lines.append(f"| {what} | {size:,} | {here:.2g} s | {there:.2g} s | {figure(there / here)} | {unlike:,} |")
        used.append(str(theirs["versions"]))
    return lines, used


def machine() -> str:
    """CPU, cores, Python."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            model = next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def page(tables: Iterable[list[str]], used: Iterable[str]) -> str:
    """What stands between the markers."""
    own_versions = versions(["numpy", "numba", "scipy"])
    head = [
        f"One run on one machine ({machine()}), all warm, processor time of one thread.",
        f"{YEARS:g} years of generated 1-minute bars, a long at every close or at a sample of them, leverages 1 … 125,",
        "maintenance 0.4 % of the value at entry, no fee, no funding. An answer says how many die (counts), whether",
        "each does, or in which bar; *the same here* is this package's answer of that kind. *Differing* are verdicts",
        "that are not this package's; of the statistics, curves, Greenwood's errors and bounds from the same draws,",
        "numbers that are more than 1e-8 of their size away.",
    ]
    foot = f"This package with {own_versions}; {'; '.join(dict.fromkeys(used))}."
    return "\n".join([*head, *(line for table in tables for line in ("", *table)), "", foot]) + "\n"


def placed(text: str, between: str) -> str:
    """A text with other words between the markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"README.md lacks the lines {BEGIN.strip()} and {END}")
    return head + begin + between + end + tail


def main() -> None:
    """Ask all, print the tables."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liquidation-backtest" / "peers"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--venvs", type=Path, default=cache, help="where the others are installed (%(default)s)")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    if options.write:
        placed(readme.read_text(), "")
    asked = Asked(plain_history(YEARS))
    with tempfile.TemporaryDirectory() as work:
        tables = [table(asked, options.venvs.resolve(), Path(work)) for table in (sweep_table, statistics_table)]
    text = page((lines for lines, _ in tables), (one for _, used in tables for one in used))
    print(text)
    if options.write:
        readme.write_text(placed(readme.read_text(), text))


if __name__ == "__main__":
    main()
