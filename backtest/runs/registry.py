"""List the runs in a folder and how far each is, from their small files; no table is read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from backtest.data.transaction import lock_holder
from backtest.errors import ConfigError
from backtest.filesystem import Place, Remote, to_place
from backtest.runs.checkpoint import ENTRIES, PLAN, SYMBOLS, TASKS
from backtest.runs.count_files import regime_file, regime_names

State = Literal["finished", "running", "unfinished", "damaged"]
PARTIAL = ".partial"
MAGIC = b"PAR1"
"""The last bytes of a complete Parquet file."""


@dataclass(frozen=True)
class RunState:
    """A run directory, finished or not.

    Attributes
    ----------
    run : str
        Its path.
    state : {"finished", "running", "unfinished", "damaged"}
        Running: another process is at it.
    symbols : list of str
        Symbols, or portfolios.
    scenarios, verdicts : int
        Of a finished run; verdicts: so far.
    wall_seconds : float
        That the work took, or has taken so far, over all attempts.
    finished : str or None
        When, UTC.
    tasks_kept : int
        Tasks that are finished.
    tasks : int or None
        How many there are, or will be about: symbols that are not begun are taken for as many as the others.
    note : str
        What is missing, or how to go on.
    """

    run: str
    state: State
    symbols: list[str]
    scenarios: int = 0
    verdicts: int = 0
    wall_seconds: float = 0.0
    finished: str | None = None
    tasks_kept: int = 0
    tasks: int | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def list_runs(path: str | Place) -> list[RunState]:
    """The runs in a folder and below it, in the order of their paths.

    Parameters
    ----------
    path : str or Path
        Local, or at a URI.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    root = to_place(path)
    if not root.is_dir():
        raise ConfigError(f"{path} is not a folder; name one that holds runs")
    sizes = _sizes(root)
    found: dict[str, list[str]] = {}
    for name in sizes:
        folder = _run_of(PurePosixPath(name))
        if folder is not None:
            found.setdefault(folder, []).append(name.removeprefix(f"{folder}/") if folder != "." else name)
    states = []
    for folder, names in found.items():
        place = root if folder == "." else root / folder
        inside = {name: sizes[name if folder == "." else f"{folder}/{name}"] for name in names}
        states.append(_unfinished(place, inside) if folder.endswith(PARTIAL) else _finished(place, inside))
    return sorted(states, key=lambda state: (state.run, state.state))


def _sizes(root: Place) -> dict[str, int]:
    """Bytes of every file below a folder."""
    if isinstance(root, Remote):
        return {file.below(root): stored.size for file, stored in root.files().items()}
    files = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return {file.relative_to(root).as_posix(): file.lstat().st_size for file in files}


def _run_of(file: PurePosixPath) -> str | None:
    """The run, or unfinished run, that a file belongs to; None if it belongs to none."""
    for folder in reversed(file.parents):
        if folder.name.startswith(".") and folder.name.endswith(PARTIAL):
            return str(folder)
    if file.name in ("run.json", "survival.parquet"):
        return str(file.parent)
    return str(file.parent.parent) if file.parent.name == "blocks" else None


def _finished(place: Place, sizes: dict[str, int]) -> RunState:
    try:
        info = json.loads((place / "run.json").read_bytes())
        symbols = [part["symbol"] for part in info["coverage"]]
        needed = dict.fromkeys(["survival.parquet", *(f"blocks/{name}" for name in _block_files(info))])
        state = RunState(
            str(place),
            "finished",
            symbols,
            len(info["blocks"]) // max(1, len(symbols)),
            info["verdicts"],
            info["wall_seconds"],
            info.get("finished"),
            len(info.get("tasks", [])),
            len(info.get("tasks", [])),
        )
    except OSError:
        return RunState(str(place), "damaged", [], note="run.json is missing; run again")
    except (ValueError, KeyError, TypeError):
        return RunState(str(place), "damaged", [], note="run.json is not that of a run; run again")
    for name in needed:
        if name not in sizes:
            return _damaged(state, f"{name} is missing")
        if not sizes[name] or not _is_whole(place / name):
            return _damaged(state, f"{name} is cut off")
    return state


def _block_files(info: dict[str, Any]) -> Iterator[str]:
    for where in info["blocks"]:
        yield where["file"]
        for regime in regime_names(info):
            yield regime_file(where["file"], regime)


def _is_whole(file: Place) -> bool:
    if isinstance(file, Remote):  # a store keeps files whole
        return True
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - len(MAGIC)))
        return stream.read() == MAGIC


def _damaged(state: RunState, what: str) -> RunState:
    return replace(state, state="damaged", note=f"{what}; run again with --overwrite")


def _unfinished(place: Place, sizes: dict[str, int]) -> RunState:
    run = place.parent / place.name[1:].removesuffix(PARTIAL)
    symbols: list[str] = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        symbols = json.loads((place / PLAN).read_bytes())["symbols"]
    entries = [name for name in sizes if name.startswith(f"{ENTRIES}/{TASKS}/") and name.endswith(".json")]
    done = sum(name.startswith(f"{ENTRIES}/{SYMBOLS}/") for name in sizes)
    kept = [adds for adds in (_adds(place / name) for name in entries) if adds]
    of = {adds["task"]["task"].rpartition("-")[0]: adds["of"] for adds in kept}
    known = sum(of.values())
    holder = lock_holder(run) if isinstance(run, Path) else None
    share = f"{len(kept)} of {'about ' if len(of) < len(symbols) else ''}"
    total = round(known * max(len(symbols), len(of)) / len(of)) if of else None
    note = f"{share}{total} tasks kept" if total else "no task kept"
    if len(symbols) > 1:
        note += f", {done} of {len(symbols)} symbols done"
    if holder is None:
        replacing = " --overwrite" if run.exists() else ""
        note += f"; go on with: backtest run CONFIG --resume{replacing} --out {run}"
    return RunState(
        str(run),
        "unfinished" if holder is None else "running",
        symbols,
        0,
        sum(adds["task"]["verdicts"] for adds in kept),
        round(sum(adds["task"]["seconds"] for adds in kept), 3),
        tasks_kept=len(kept),
        tasks=total,
        note=note,
    )


def _adds(entry: Place) -> dict[str, Any]:
    try:
        return dict(json.loads(entry.read_bytes())["adds"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def runs_text(states: list[RunState]) -> str:
    """A line per run."""
    head = ["run", "state", "symbols", "scenarios", "verdicts", "seconds", "finished"]
    lines = [head, *(_cells(one) for one in states)]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for cells, note in zip(lines, ["", *(one.note for one in states)], strict=True):
        placed = [
            cell.rjust(size) if 1 < n < 6 else cell.ljust(size)
            for n, (cell, size) in enumerate(zip(cells, width, strict=True))
        ]
        texts.append("  ".join([*placed, note]).rstrip())
    return "\n".join(texts)


def _cells(one: RunState) -> list[str]:
    symbols = one.symbols[0] if len(one.symbols) == 1 else f"{len(one.symbols):,}"
    scenarios = f"{one.scenarios:,}" if one.scenarios else ""
    return [one.run, one.state, symbols, scenarios, f"{one.verdicts:,}", f"{one.wall_seconds:,.1f}", one.finished or ""]
