"""Change the folder of a symbol in one step or not at all, one writer at a time."""

from __future__ import annotations

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backtest.data import object_store
from backtest.data.object_store import claimed, fresh_name, in_force, refuse_second, this_process, write_manifest
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Place, Remote

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Taken(ABC):
    """A symbol's folder that only this process may change.

    Attributes
    ----------
    target : Place
        The folder; it may not exist yet.
    new : Path
        Empty folder on this machine for the new files.
    """

    def __init__(self, target: Place, new: Path) -> None:
        self.target, self.new = target, new

    @abstractmethod
    def fresh_name(self) -> str:
        """A name for new files that no file had before: a slow reader must not find other bars under a known name."""

    @abstractmethod
    def commit(self, replaced: Collection[Place]) -> None:
        """Make the files in `new` and the existing files, except those in `replaced`, the content of the folder."""


@contextmanager
def taking(target: Place) -> Iterator[Taken]:
    """Lock a folder against other writers, and remove what a killed writer left.

    Raises
    ------
    ConfigError
        If the folder cannot be made.
    DataError
        If another process writes it; the message names that process.
    """
    if isinstance(target, Remote):
        with claimed(target) as claim, TemporaryDirectory(prefix="backtest-") as new:
            yield _InStore(target, Path(new), claim)
        return
    made = [folder for folder in target.parents if not folder.exists()]
    fresh, old = _beside(target, "new"), _beside(target, "old")
    try:
        with locked(target):
            try:
                if old.exists() and not target.exists():  # killed between two renames
                    old.rename(target)
                for left in (old, fresh):
                    shutil.rmtree(left, ignore_errors=True)
                fresh.mkdir()
                yield _Local(target, fresh)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)  # after an exchange it holds the state before
    finally:
        for folder in made:  # innermost first; those that hold something stay
            with suppress(OSError):
                folder.rmdir()


class _InStore(Taken):
    """In an object store: new files are uploaded first, the manifest that names them last."""

    def __init__(self, target: Remote, new: Path, claim: Remote) -> None:
        super().__init__(target, new)
        self._folder, self._claim = target, claim

    def fresh_name(self) -> str:
        return fresh_name()

    def commit(self, replaced: Collection[Place]) -> None:
        folder = self._folder
        before = [file for file in folder.files() if file.name.endswith(".parquet")]
        counted = in_force(folder, before)
        write_manifest(folder, counted, [])  # without a manifest new files would be in use at once
        new = {folder / file.relative_to(self.new).as_posix(): file for file in self.new.glob("year=*/*.parquet")}
        for stored, made in new.items():
            stored.upload(made)
        if not self._claim.exists():
            raise DataError(f"{folder}: another writer took this one for dead; nothing was changed, do it again")
        kept = [file for file in counted if file not in replaced]
        gone = [file for file in before if file not in kept]
        write_manifest(folder, [*kept, *new], gone)
        for file in gone:
            with suppress(FileNotFoundError):
                file.unlink()


class _Local(Taken):
    """On this machine: a new folder replaces the old one."""

    def __init__(self, target: Path, new: Path) -> None:
        super().__init__(target, new)
        self._folder = target

    def fresh_name(self) -> str:
        there = (re.fullmatch(r"part-(\d+)", file.stem) for file in self._folder.glob("year=*/*.parquet"))
        return f"part-{max((int(match[1]) for match in there if match), default=-1) + 1}.parquet"

    def commit(self, replaced: Collection[Place]) -> None:
        target = self._folder
        for folder, _, names in os.walk(target):
            for file in (Path(folder, name) for name in names):
                if file not in replaced:
                    _link(file, self.new / file.relative_to(target))
        if not target.exists():
            self.new.rename(target)
        elif not _exchange(self.new, target):
            old = _beside(target, "old")  # readers look there while the folder is missing
            target.rename(old)
            try:
                self.new.rename(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, kind: str) -> Path:
    """Hidden path beside the folder, which readers of the dataset ignore."""
    return target.with_name(f".{target.name}.{kind}")


def _link(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, copy)
    except OSError:  # a file system without hard links
        shutil.copy2(file, copy)


def _exchange(one: Path, two: Path) -> bool:
    """Swap two directories in one step; False where the system or file system cannot."""
    if os.name != "posix":
        return False
    import ctypes

    libc, paths = ctypes.CDLL(None), (os.fsencode(one), os.fsencode(two))
    if hasattr(libc, "renameat2"):  # Linux: both relative to the working directory, RENAME_EXCHANGE
        return bool(libc.renameat2(-100, paths[0], -100, paths[1], 2) == 0)
    return hasattr(libc, "renamex_np") and libc.renamex_np(*paths, 2) == 0  # macOS: RENAME_SWAP


# --- the lock ---------------------------------------------------------------------------------------------------------


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of a folder, ``.NAME.lock`` beside it; the system releases the lock of a process that dies.

    Raises
    ------
    ConfigError
        If a parent of the folder is a file.
    DataError
        If another process still holds the lock after `object_store.WAIT_S`; the message names that process.
    """
    file = _beside(target, "lock")
    lock = _acquire(target, file)
    try:
        with suppress(OSError):  # Windows lets nobody write to a locked file
            file.write_text(this_process())
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file; the file left there does no harm
            file.unlink()  # before the release: a process that waits for this file sees that it is gone
        lock.release()


def lock_holder(target: Path) -> str | None:
    """What the process that holds the lock of a folder wrote into it; None if no process holds it."""
    from filelock import FileLock, Timeout

    file = _beside(target, "lock")
    if not file.exists():
        return None
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _read_lock(file)
    except OSError:
        return None
    lock.release()
    return None


def _acquire(target: Path, file: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock, until = FileLock(file), time.monotonic() + object_store.WAIT_S
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=max(0.0, until - time.monotonic()), poll_interval=0.02)
            return lock
        except Timeout:
            raise refuse_second(target, file, _read_lock(file)) from None
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(f"out must be a directory that can be written; got {file.parents[1]}") from error
        except FileNotFoundError:  # another writer removed the empty folder between the two steps
            if time.monotonic() > until:
                raise


def _read_lock(file: Path) -> str:
    with suppress(OSError):
        return file.read_text()
    return ""
