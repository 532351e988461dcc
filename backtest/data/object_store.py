"""The state of a symbol's folder in an object store, which can swap no folders.

``_manifest.json`` names the files that count; it is written last, in one step. New files have names of their own, so
that nothing a reader may be at is written over. Writers keep each other away by claims: each lays down its own and goes
on only if it then sees no other; of two, at least one sees both.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from backtest.errors import DataError
from backtest.filesystem import Changed, Place, Remote, Stored

MANIFEST = "_manifest.json"
WAIT_S = 3.0
"""How long a second writer waits for the first."""
STALE_S = 86_400.0
"""Age from which a claim of another host counts as that of a dead process."""
_OURS = re.compile(r"part-[0-9a-f]{16}\.parquet")


def fresh_name() -> str:
    """A file name that was never used."""
    return f"part-{os.urandom(8).hex()}.parquet"


def in_force(folder: Remote, files: Iterable[Remote]) -> list[Remote]:
    """Those of the Parquet files below a symbol's folder that count: all of them where there is no manifest.

    Raises
    ------
    DataError
        If another program put a file there, which must be neither read nor left out without a word.
    """
    listed = sorted(files)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        named, replaced = ([folder / name for name in manifest[key]] for key in ("files", "replaced"))
    except FileNotFoundError:
        return listed
    except (ValueError, KeyError, TypeError):
        # or it was written between a question for its length and one for its content
        raise Changed(f"{folder / MANIFEST}: is not a manifest; remove it if every file there counts") from None
    for file in listed:
        if file not in named and file not in replaced and not _OURS.fullmatch(file.name):
            raise DataError(
                f"{file}: is not in {folder / MANIFEST}, which says which files count; remove the manifest if all of "
                "them do, or this file"
            )
    return sorted(named)


def write_manifest(folder: Remote, files: Iterable[Remote], replaced: Iterable[Remote]) -> None:
    """Say which files count from now on, and which just ceased to."""
    parts = {"files": files, "replaced": replaced}
    text = json.dumps({key: sorted(file.below(folder) for file in some) for key, some in parts.items()}, indent=1)
    (folder / MANIFEST).write_bytes(text.encode())


# --- who writes -------------------------------------------------------------------------------------------------------


def this_process() -> str:
    """Who holds a lock or claim, for others to read."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since})


def refuse_second(target: Place, lock: Place, holder: str) -> DataError:
    """Another process writes: who it is, and what to do."""
    try:
        who = json.loads(holder)
        text = f"process {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):
        text = "another process"
    return DataError(f"{target}: is being written by {text} ({lock}); wait until it is done, or end it")


@contextmanager
def claimed(folder: Remote) -> Iterator[Remote]:
    """Keep other writers away from a folder; DataError naming the one that is there."""
    mine, until = folder / f"_claim-{os.urandom(8).hex()}.json", time.monotonic() + WAIT_S
    try:
        while True:
            mine.write_bytes(this_process().encode())
            other = _other_claim(folder, mine)
            if other is None:
                break
            _remove(mine)
            if time.monotonic() > until:
                raise refuse_second(folder, *other)
            time.sleep(random.uniform(0.1, 0.4))  # apart from the other, who may see this claim as well
        yield mine
    finally:
        _remove(mine)


def _other_claim(folder: Remote, mine: Remote) -> tuple[Remote, str] | None:
    """A claim of a process that may be alive; those of dead ones are removed."""
    files: Mapping[Remote, Stored] = folder.files()
    claims = {file: stored for file, stored in files.items() if file.name.startswith("_claim-") and file != mine}
    now = files[mine].written_s if mine in files else 0.0
    for file, stored in claims.items():
        try:
            holder = file.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            continue
        if now - stored.written_s > STALE_S or _died(holder):
            _remove(file)
        else:
            return file, holder
    return None


def _died(holder: str) -> bool:
    """Whether a process of this host is not there any more."""
    try:
        who = json.loads(holder)
        if who["host"] != platform.node() or os.name != "posix":
            return False
        os.kill(int(who["pid"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False


def _remove(file: Remote) -> None:
    with suppress(FileNotFoundError):
        file.unlink()
