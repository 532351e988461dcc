"""What an unfinished run has finished, and how it becomes a run directory.

Beside the run directory ``NAME`` that is to be lies ``.NAME.partial`` with ``plan.json``, what every part depends on,
``run``, the directory as far as it is, ``rates``, the rows of its table, and ``journal``, an entry per finished part.
The files of a part are written and synced before the entry that names them and their digests takes its place in one
step: an entry that is there stands for files that are whole; anything else is counted again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backtest.config import Config, RuleTiers
from backtest.errors import ConfigError
from backtest.places import Remote

PLAN, RUN, ENTRIES = "plan.json", "run", "journal"
RATES = "rates"
"""Folder beside the run's of the rows of ``survival.parquet``, as far as they are known."""
TASKS, SYMBOLS, FIT = "tasks", "symbols", "fit"
"""Entries of each task and of each symbol or portfolio, and the one that says that all histories were found to fit."""
COMPUTING = ("numpy", "numba", "scipy", "pyarrow")
"""Libraries whose version can change a bit of the result."""


@dataclass(frozen=True)
class Journal:
    """The finished parts of a run that is being written.

    Attributes
    ----------
    folder : Path
        ``.NAME.partial``.
    plan : str
        Digest of ``plan.json``.
    durable : bool
        Whether parts are to outlast the machine's fall; not those of a run in a temporary folder.
    store : Remote, optional
        Folder of an object store that every part is kept in as well, where the run is to lie in one.
    """

    folder: Path
    plan: str = ""
    durable: bool = True
    store: Remote | None = None

    @property
    def run(self) -> Path:
        """The run directory, as far as it is."""
        return self.folder / RUN

    @property
    def finished(self) -> int:
        """Tasks that are kept."""
        return len(list((self.folder / ENTRIES / TASKS).glob("*.json")))

    def before(self, name: str) -> dict[str, Any]:
        """What was kept under a name, whole or not, and whatever it depended on; nothing where nothing was."""
        try:
            read = json.loads((self.folder / ENTRIES / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return read if isinstance(read, dict) else {}

    def kept(self, name: str, depends: object) -> dict[str, Any] | None:
        """What a finished part added to the run; None if it is not whole, or depended on something else."""
        entry = self.before(name)
        try:
            if entry["key"] != self._key(depends):
                return None
            whole = all(_digest(self.folder / file) == digest for file, digest in entry["files"].items())
        except (OSError, KeyError, AttributeError):
            return None
        return dict(entry["adds"]) if whole else None

    def keep(self, name: str, depends: object, files: Sequence[Path], adds: dict[str, Any]) -> None:
        """Keep a part whose files are written."""
        for file in files if self.durable else ():
            sync(file)
        for folder in {file.parent for file in files} if self.durable else ():
            sync(folder)
        digests = {file.relative_to(self.folder).as_posix(): _digest(file) for file in files}
        entry = self.folder / ENTRIES / f"{name}.json"
        write_whole(entry, {"key": self._key(depends), "files": digests, "adds": adds}, self.durable)
        for made in (*files, entry) if self.store else ():
            self.upload(made)

    def files(self, name: str) -> list[Path]:
        """The files of a part that is kept."""
        return [self.folder / file for file in self.before(name)["files"]]

    def upload(self, file: Path) -> None:
        """Copy a file to the object store, if the run is to lie in one."""
        if self.store is not None:
            (self.store / file.relative_to(self.folder).as_posix()).upload(file)

    def drop_others(self) -> None:
        """Remove files that no finished symbol names: what an earlier state of the data left."""
        entries = (self.folder / ENTRIES / SYMBOLS).glob("*.json")
        named = {name for entry in entries for name in json.loads(entry.read_text())["files"]}
        for file in list(self.run.rglob("*")):
            if file.is_file() and file.relative_to(self.folder).as_posix() not in named:
                file.unlink()

    def _key(self, depends: object) -> str:
        return hashlib.sha256(json.dumps([self.plan, depends], sort_keys=True).encode()).hexdigest()


def plan_of(config: Config, symbols: Sequence[str]) -> dict[str, Any]:
    """All that the parts of a run depend on, but for the histories: what two attempts must have in common."""
    return {
        "config": config.model_dump(mode="json", by_alias=True),
        "symbols": list(symbols),
        "files": files_named(config),
        "code": code_version(),
    }


def files_named(config: Config) -> dict[str, str]:
    """Digests of the files that a configuration names beside its dataset."""
    files = [config.entries.file, *(regime.file for regime in config.statistics.regimes)]
    for item in config.sweep.maintenance:
        files.append(item.tiers if isinstance(item, RuleTiers) else item if isinstance(item, str) else None)
    return {file: _digest(Path(file)) for file in files if file is not None and Path(file).is_file()}


def begun(folder: Path, plan: dict[str, Any], *, durable: bool = True, store: Remote | None = None) -> Journal:
    """The journal of a run, begun or taken up again.

    Parameters
    ----------
    folder : Path
        ``.NAME.partial``; what is kept there is taken up if the plan is the same.
    plan : dict
        As of `plan_of`.
    durable, store
        As of `Journal`.

    Raises
    ------
    ConfigError
        If parts of a run with another plan are kept there; what differs is named.
    """
    plan = json.loads(json.dumps(plan))
    file = folder / PLAN
    if Journal(folder).finished:
        before = plan
        with suppress(OSError, ValueError):  # where it cannot be read, the keys of the parts tell all the same
            before = json.loads(file.read_text())
        if found := differences(before, plan):
            raise ConfigError(
                f"{folder}: is of an unfinished run that differs in {'; '.join(found)}: begin anew with --overwrite "
                "and without --resume, or choose another directory"
            )
    else:
        shutil.rmtree(folder, ignore_errors=True)
    for name in (f"{RUN}/blocks", RATES, f"{ENTRIES}/{TASKS}", f"{ENTRIES}/{SYMBOLS}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_whole(file, plan, durable)
    journal = Journal(folder, _digest(file), durable, store)
    journal.upload(file)
    return journal


def differences(before: object, now: object, path: str = "") -> list[str]:
    """What differs between two plans, as a configuration names it, with both values.

    Examples
    --------
    >>> differences({"config": {"sweep": {"side": ["long"]}}}, {"config": {"sweep": {"side": ["short"]}}})
    ['sweep.side (["long"] before, ["short"] now)']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [text for key in keys for text in differences(before.get(key), now.get(key), f"{path}.{key}")]
    if before == now:
        return []
    one, two = (text if len(text) <= 100 else f"{text[:99]}…" for text in map(_text, (before, now)))
    return [f"{path.removeprefix('.').removeprefix('config.')} ({one} before, {two} now)"]


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@cache
def code_version() -> str:
    """Digest of what this package computes with, and the versions of the libraries that compute."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for file in sorted(file for ending in ("py", "toml", "csv") for file in here.rglob(f"*.{ending}")):
        digest.update(f"{file.relative_to(here).as_posix()}\n".encode() + file.read_bytes())
    return f"{digest.hexdigest()[:16]}, {', '.join(f'{name} {version(name)}' for name in COMPUTING)}"


# --- on a disk --------------------------------------------------------------------------------------------------------


def write_whole(file: Path, document: object, durable: bool = True) -> None:
    """Write JSON in one step, so that a reader sees all of it or what was there before."""
    fresh = file.with_name(f"{file.name}.part")
    try:
        fresh.write_text(json.dumps(document, ensure_ascii=False, indent=1))
        if durable:
            sync(fresh)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    if durable:
        sync(file.parent)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, whatever happens to the machine."""
    if path.is_dir() and os.name != "posix":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
