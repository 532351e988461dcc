"""Which Parquet files a dataset has: find them by series, and notice a commit that happens meanwhile."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from backtest.data.object_store import in_force
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Changed, Place, Remote, to_place
from backtest.units import duration_ms

T = TypeVar("T")
OLD = ".old"
"""``.symbol=X.old`` is the symbol while its writer replaces the folder on a system that cannot swap two folders."""


@dataclass(frozen=True, order=True)
class SeriesName:
    """Name of a series: an interval as its folder spells it (``"1h"``) and a symbol."""

    interval: str
    symbol: str


def existing(path: str | Place) -> Place:
    """The path of a dataset or file; ConfigError if nothing is there."""
    place = to_place(path)
    if not place.exists():
        raise ConfigError(
            f"{path} does not exist; data is a local directory or Parquet file, or a URI such as s3://bucket/data"
        )
    return place


def series_files(root: Place) -> dict[SeriesName, list[Place]]:
    """Parquet files per series below a dataset directory, or one ``interval=…`` or ``symbol=…`` directory of it."""
    folders = _folders(root)
    found: dict[SeriesName, list[Place]] = {}
    for folder, files in folders.items():
        interval, symbol = (unquote(part.partition("=")[2]) for part in (folder.parent.name, folder.name))
        try:
            duration_ms(interval)
        except ConfigError as error:
            raise DataError(f"{folder}: folder interval={interval}: {error}") from None
        if folder.name.startswith("."):
            symbol = symbol.removesuffix(OLD)
        found.setdefault(SeriesName(interval, symbol), []).extend(files)
    if not found:
        raise DataError(f"{root} holds no interval=…/symbol=…/year=…/*.parquet; see `backtest import`")
    return found


def files_in(folder: Place) -> list[Place]:
    """Parquet files of a symbol's directory, ``DATA/interval=…/symbol=…``; none if it does not exist."""
    if isinstance(folder, Path) and not folder.exists():
        return []
    return next(iter(_folders(folder).values()), [])


def _folders(root: Place) -> Mapping[Path, list[Place]] | Mapping[Remote, list[Place]]:
    """Parquet files in use, by directory of a symbol, below a root."""
    if isinstance(root, Remote):
        return _remote_folders(root)
    try:
        return _local_folders(root)
    except FileNotFoundError as error:
        raise Changed(f"{error.filename}: went away while the dataset was read; read it again") from None


def _local_folders(root: Path) -> dict[Path, list[Place]]:
    place, depth = root.absolute(), _depth(root.absolute())
    intervals = sorted(place.glob("interval=*")) if depth == 0 else [place]
    folders = [place] if depth == 2 else [folder for interval in intervals for folder in _symbols(interval)]
    found: dict[Path, list[Place]] = {}
    for folder in folders:
        files = _parquet_files(folder) or _parquet_files(folder)  # a commit may remove the first
        if files:
            found[folder] = [root / file.relative_to(place) for file in files]
    return found


def _parquet_files(folder: Path) -> list[Path]:
    """Sorted by name. A folder that is removed meanwhile raises, which ``glob`` does not in every Python version."""
    with os.scandir(folder) as entries:
        years = sorted(entry.path for entry in entries if entry.name.startswith("year=") and entry.is_dir())
    return [Path(year, name) for year in years for name in sorted(os.listdir(year)) if name.endswith(".parquet")]


def _symbols(interval: Path) -> list[Path]:
    """Directories of symbols. A listing during a rename may lack both names, so two listings must be equal."""
    names, before = _symbol_names(interval), None
    while names != before:
        names, before = _symbol_names(interval), names
    aside = {name for name in names if name.startswith(".") and name[1:].removesuffix(OLD) in names}
    return [interval / name for name in sorted(names - aside)]


def _symbol_names(interval: Path) -> set[str]:
    return {n for n in os.listdir(interval) if n.startswith("symbol=") or (n[:8] == ".symbol=" and n.endswith(OLD))}


def _remote_folders(root: Remote) -> dict[Remote, list[Place]]:
    from concurrent.futures import ThreadPoolExecutor

    pattern = "/".join(("interval=[^/]+", "symbol=[^/]+", "year=[^/]+", r"[^/]+\.parquet")[_depth(root) :])
    listed: dict[Remote, list[Remote]] = {}
    for file in root.files():
        if re.fullmatch(pattern, file.below(root)):
            listed.setdefault(file.parent.parent, []).append(file)
    with ThreadPoolExecutor(16) as pool:  # one small file per symbol
        counted = pool.map(in_force, listed, listed.values())
        return {folder: list(files) for folder, files in zip(listed, counted, strict=True) if files}


def _depth(root: Place) -> int:
    return 2 if root.name.startswith(("symbol=", ".symbol=")) else 1 if root.name.startswith("interval=") else 0


def refuse_changed(files: list[Place]) -> None:
    """Raise `Changed` if a commit happened while these files of a series were listed: they may be of two states.

    Call it after their footers are read. In an object store a manifest lists them in one step.
    """
    folder = files[0].parent.parent
    if isinstance(folder, Path) and {f.parts[-2:] for f in files_in(folder)} != {f.parts[-2:] for f in files}:
        raise Changed(f"{folder}: was written while it was read; read it again")


def unchanged(read: Callable[[], T]) -> T:
    """Result of `read`; it is called again when another process wrote the dataset meanwhile."""
    for attempt in range(20):
        try:
            return read()
        except Changed:
            time.sleep(0.005 * attempt)
    try:
        return read()
    except Changed as error:
        raise DataError(str(error)) from None
