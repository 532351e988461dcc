"""Put a run directory in its place, whole or not at all; keep an unfinished run beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backtest.data.object_store import claimed
from backtest.data.transaction import locked
from backtest.errors import ConfigError
from backtest.filesystem import Place, Remote, sync, to_place, writing
from backtest.logs import LOG, tell
from backtest.runs.checkpoint import RUN, Journal, begun

OLD = "old"
"""The old run, inside ``.NAME.partial`` while the new one replaces it."""


@dataclass(frozen=True)
class Destination:
    """Where a run will be, and where its finished parts are kept until it is complete.

    Attributes
    ----------
    there : Place
        As the user knows it.
    target : Path
        The directory on this machine: `there`, or a temporary one.
    lasting : bool
        Whether the run outlasts this process.
    keep : TemporaryDirectory, optional
        Holds `target`, as long as the result lives.
    """

    there: Place
    target: Path
    lasting: bool = True
    keep: TemporaryDirectory[str] | None = None

    @classmethod
    def at(cls, out: str | Path | None) -> Destination:
        """A directory of this machine, a folder of an object store, or a temporary directory where none is named."""
        place = None if out is None else to_place(out)
        if isinstance(place, Path):
            target = place if place.name else place.absolute()  # "." has no neighbours
            return cls(target, target)
        keep = TemporaryDirectory(prefix="backtest-")
        target = Path(keep.name) / "run"
        return cls(place or target, target, place is not None, keep)

    @property
    def remote(self) -> Remote | None:
        """The folder of an object store, if the run goes to one."""
        return self.there if isinstance(self.there, Remote) else None

    @property
    def finished(self) -> bool:
        """Whether a finished run is there and no unfinished one is kept."""
        return self.there.exists() and not self.kept

    @property
    def partial(self) -> Path:
        """Folder of the finished parts on this machine."""
        return partial_directory(self.target)

    @property
    def store(self) -> Remote | None:
        """Folder of the finished parts in an object store."""
        there = self.there
        return there.parent / partial_directory(Path(there.name)).name if isinstance(there, Remote) else None

    @property
    def kept(self) -> int:
        """Number of finished tasks that are kept."""
        return Journal(self.partial).finished

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Lock the directory; a place that cannot be written is refused here, before any work."""
        with ExitStack() as stack:
            with writing(self.there):
                stack.enter_context(folders_for(self.target))
                stack.enter_context(locked(self.target))
                settle(self.partial, self.target)
            if self.store is not None:
                stack.enter_context(claimed(self.store))
                self.store.give_folder(self.partial, left_out="")
            yield

    def begin(self, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> Journal:
        """The journal of this run; that of an unfinished run only with `resume`."""
        if self._occupied():
            refuse_existing(self.there, overwrite)
        if self.kept and not resume:
            if not overwrite:
                raise ConfigError(
                    f"{self.there}: of an unfinished run {_tasks(self.kept)} kept; go on with --resume, or begin anew "
                    "with --overwrite"
                )
            self._forget()
        with writing(self.there):
            return begun(self.partial, plan, durable=self.lasting, store=self.store)

    @contextmanager
    def filled(self, journal: Journal) -> Iterator[None]:
        """Put the run in its place when the work inside is done; if it fails, keep what is finished and say so."""
        try:
            yield
            if isinstance(self.there, Remote):
                self.there.take_folder(journal.run, last="run.json")
            with writing(self.there):
                commit(journal, self.target)
        except BaseException as error:
            tell("run stopped", {"error": f"{type(error).__name__}: {error}", "tasks_kept": journal.finished})
            settle(self.partial, self.target)
            if not journal.finished:
                self._forget()
            elif self.lasting:
                more = " --overwrite" if self._occupied() else ""
                LOG.warning(f"{_tasks(journal.finished)} kept; go on with --resume{more} --out {self.there}")
            raise
        self._forget()

    def _occupied(self) -> bool:
        """Whether something is there that is not an interrupted upload of this run."""
        if isinstance(self.there, Remote) and self.kept:
            return (self.there / "run.json").is_file()
        return self.there.exists()

    def _forget(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        for file in () if self.store is None else self.store.files():
            if not file.name.startswith("_claim-"):  # the claim of this process is removed last
                file.unlink()


def _tasks(finished: int) -> str:
    return f"{finished} finished tasks are" if finished > 1 else "1 finished task is"


def partial_directory(target: Path) -> Path:
    """Folder that keeps an unfinished run: ``.NAME.partial`` beside the run directory."""
    return target.with_name(f".{target.name}.partial")


def default_directory(config: str | Path) -> Path:
    """``runs/<config stem>-<UTC time>``."""
    return Path("runs") / f"{Path(config).stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"


def unfinished_directory(config: str | Path) -> Path:
    """The one unfinished run of a configuration that `default_directory` named."""
    stem, partial = Path(config).stem, partial_directory(Path("runs") / "*").name
    folders = sorted(Path("runs").glob(partial.replace("*", f"{stem}-????????T??????Z")))
    found = [folder.with_name(folder.name[1:].removesuffix(".partial")) for folder in folders]
    if len(found) == 1:
        return found[0]
    there = f"runs holds {len(found)} unfinished runs of {stem}" + (f": {', '.join(map(str, found))}" if found else "")
    raise ConfigError(f"--resume: {there}; name the one that is meant with --out")


def refuse_existing(there: Place, overwrite: bool) -> None:
    """Refuse an existing directory, unless it is a run and `overwrite` is set."""
    if not overwrite:
        raise ConfigError(f"{there}: exists already; choose another directory, or ask for --overwrite")
    if not (there / "run.json").is_file():
        raise ConfigError(f"{there}: is not a run directory and is not overwritten; choose another directory")


@contextmanager
def folders_for(target: Path) -> Iterator[None]:
    """Make the parent folders of `target`; remove those made if the work inside fails."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in made:  # innermost first; a folder that is in use stays
            with suppress(OSError):
                folder.rmdir()
        raise


def commit(journal: Journal, target: Path) -> None:
    """Move a finished directory to its place; the old one is removed only when the new one is there."""
    old = journal.folder / OLD
    if journal.durable:
        for path in (*journal.run.iterdir(), journal.run):
            sync(path)
    if target.exists():
        target.rename(old)
    try:
        journal.run.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    if journal.durable:
        sync(target.parent)
    shutil.rmtree(journal.folder, ignore_errors=True)


def settle(partial: Path, target: Path) -> None:
    """Complete a `commit` that was interrupted by a kill."""
    if (partial / OLD).exists():
        if not target.exists():
            (partial / RUN if (partial / RUN).exists() else partial / OLD).rename(target)
    elif (partial / RUN).exists():
        return
    shutil.rmtree(partial, ignore_errors=True)
