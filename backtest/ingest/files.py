"""Files that a user names: found, opened and unpacked; what they unpack to is bounded and never touches the disk."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backtest.errors import ConfigError, DataError
from backtest.ingest.options import Sources
from backtest.ingest.zip_csv import MOST_BYTES, MOST_RATIO, read_csv

CUT = "the last row has no line end; the file may be cut off"
_PIECE = 1 << 22


def list_files(sources: Sources | None, suffixes: tuple[str, ...] = ()) -> list[Path]:
    """All files of a path, a folder (its files of `suffixes`), a pattern with ``*``, or several of these; each once.

    Raises
    ------
    ConfigError
        If one of them names no file.
    """
    if sources is None:
        return []
    found: list[Path] = []
    for source in [sources] if isinstance(sources, str | Path) else sources:
        path = Path(source)
        if path.is_dir():
            here = sorted(one for one in path.iterdir() if one.is_file() and one.name.lower().endswith(suffixes))
        elif path.is_file() or not glob.has_magic(str(source)):
            here = [path]
        else:
            here = sorted(Path(one) for one in glob.glob(str(source), recursive=True) if Path(one).is_file())
        if not here or not all(one.is_file() for one in here):
            raise ConfigError(f"{source} is no file" + (f", nor a folder of {', '.join(suffixes)}" if suffixes else ""))
        found += here
    return list(dict.fromkeys(found))


def inner_name(file: Path) -> str:
    """Name without ``.gz``, in lower case: its suffix tells what is inside."""
    return file.name.lower().removesuffix(".gz")


@contextmanager
def unpacked(file: Path) -> Iterator[IO[bytes]]:
    """The bytes inside ``.gz``, or those of the file itself, one piece after the other.

    Raises
    ------
    DataError
        Also while it is read, if it is damaged.
    """
    try:
        stream: IO[bytes] = gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb")  # type: ignore[assignment]  # noqa: SIM115
        with stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: not a readable .gz file; truncated or damaged ({error})") from error


def ended(file: Path) -> bool:
    """Whether a text file ends with a line end; one that is packed has other means to tell that it is whole."""
    if file.name.lower().endswith((".gz", ".zip")) or not file.stat().st_size:
        return True
    with file.open("rb") as stream:
        stream.seek(-1, 2)
        return bytes(stream.read(1)) in (b"\n", b"\r")


def content(file: Path) -> bytes:
    """All that is inside ``.gz``, a ``.zip`` of one CSV, or the file itself.

    Raises
    ------
    DataError
        If it is damaged, or unpacks to more than `MOST_BYTES`, or than `MOST_RATIO` times its size and 1 MiB.
    """
    if file.name.lower().endswith(".zip"):
        return bytes(read_csv(file).content)
    most = min(MOST_BYTES, MOST_RATIO * file.stat().st_size + (1 << 20))
    pieces, size = [], 0
    with unpacked(file) as stream:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > most:
                raise DataError(f"{file}: unpacks to more than {most:,} bytes, which no prices do; split it")
            pieces.append(piece)
    return b"".join(pieces)
