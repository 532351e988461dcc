"""Change a symbol's folder in an object store in one step, although a store cannot swap folders.

``_manifest.json`` names the files in use and is written last, in one step. New files get new names, so that no file is
overwritten while somebody reads it. A writer first writes a claim file, and continues only if it then sees no other
claim: of two writers, at least one sees both claims.
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
"""Seconds that a second writer waits for the first."""
STALE_S = 86_400.0
"""Age, seconds, at which a claim of another host is taken to be of a dead process."""
_OURS = re.compile(r"part-[0-9a-f]{16}\.parquet")


def fresh_name() -> str:
    """A file name that was never used before."""
    return f"part-{os.urandom(8).hex()}.parquet"


def in_force(folder: Remote, files: Iterable[Remote]) -> list[Remote]:
    """The Parquet files of a symbol's folder that are in use: all of them if there is no manifest.

    Raises
    ------
    DataError
        If another program put a file there: it must neither be read nor silently ignored.
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
    """Write which files are in use from now on, and which were just replaced."""
    parts = {"files": files, "replaced": replaced}
    text = json.dumps({key: sorted(file.below(folder) for file in some) for key, some in parts.items()}, indent=1)
    (folder / MANIFEST).write_bytes(text.encode())


# --- who writes -------------------------------------------------------------------------------------------------------


def this_process() -> str:
    """JSON text about this process, which it writes into a lock or claim file."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since})


def refuse_second(target: Place, lock: Place, holder: str) -> DataError:
    """Error that names the process that writes, and what to do."""
    try:
        who = json.loads(holder)
        text = f"process {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):
        text = "another process"
    return DataError(f"{target}: is being written by {text} ({lock}); wait until it is done, or end it")


@contextmanager
def claimed(folder: Remote) -> Iterator[Remote]:
    """Hold a claim on a folder; DataError naming the writer that already holds one."""
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
            time.sleep(random.uniform(0.1, 0.4))  # at random, because the other writer may have seen this claim too
        yield mine
    finally:
        _remove(mine)


def _other_claim(folder: Remote, mine: Remote) -> tuple[Remote, str] | None:
    """The claim of another process that may be alive; claims of dead processes are removed."""
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
    """Whether the holder is a process of this host that has ended."""
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
