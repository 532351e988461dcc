"""Files on this machine or in an object store (``s3://bucket/data``): paths, atomic writes, errors without credentials.

A local file is a `pathlib.Path`; a `Remote` has those of its methods that datasets and runs need. Credentials come from
the environment or the store's own configuration. AWS_ENDPOINT_URL is the address of another S3 server.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from backtest.errors import BacktestError, ConfigError, DataError

T = TypeVar("T")
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
_AUTHORITY = re.compile(r"(\b[a-z][a-z0-9+.-]*:/{1,2})[^/\s'\"@]*:?[^/\s'\"@]*@", re.IGNORECASE)
_SECRET = re.compile(r"(AWS|AZURE|GOOGLE|GCS)_\w*(KEY|SECRET|TOKEN|PASSWORD|CONNECTION)")


class Changed(BacktestError):
    """Another process removed or changed a file while it was read; reading again helps.

    This is not a DataError, because the data are not wrong: a check of the data must not report it.
    """


@dataclass(frozen=True, order=True)
class Remote:
    """A file or folder of an object store.

    Examples
    --------
    >>> file = Remote("s3://bucket/data") / "year=2021" / "part-0.parquet"
    >>> str(file.parent), file.name, file.stem
    ('s3://bucket/data/year=2021', 'part-0.parquet', 'part-0')
    """

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str | Path) -> Remote:
        return Remote(f"{self.uri}/{name}")

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def parent(self) -> Remote:
        head = self.uri.rpartition("/")[0]
        return self if head.endswith("/") else Remote(head)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.uri.split("/"))

    def absolute(self) -> Remote:
        return self

    def below(self, folder: Remote) -> str:
        """Path relative to a folder."""
        return self.uri.removeprefix(folder.uri + "/")

    def exists(self) -> bool:
        return self._kind() != 0

    def is_file(self) -> bool:
        return self._kind() == 2

    def is_dir(self) -> bool:
        return self._kind() == 3

    def _kind(self) -> int:
        with remote_errors(self):
            store, path = open_store(self)
            return int(store.get_file_info(path).type.value)

    def size(self) -> int:
        """Bytes of a file."""
        with remote_errors(self):
            store, path = open_store(self)
            return int(store.get_file_info(path).size)

    def files(self) -> dict[Remote, Stored]:
        """All files below a folder, sorted by name; empty if there is no such folder."""
        from pyarrow.fs import FileSelector, FileType

        with remote_errors(self):
            store, path = open_store(self)
            found = store.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
        base = len(path) + 1
        files = (one for one in found if one.type == FileType.File)
        return {
            self / one.path[base:]: Stored(one.size, one.mtime_ns / 1e9 if one.mtime_ns else 0.0)
            for one in sorted(files, key=lambda one: one.path)
        }

    def read_bytes(self) -> bytes:
        with remote_errors(self):
            store, path = open_store(self)
            with store.open_input_file(path) as stream:
                return bytes(stream.read())

    def write_bytes(self, content: bytes) -> None:
        """Write the file in one step: readers never see a part of it."""
        with remote_errors(self):
            store, path = open_store(self)
            with store.open_output_stream(path) as stream:
                stream.write(content)

    def upload(self, file: Path) -> None:
        """Copy a file of this machine to here."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with remote_errors(self):
            store, path = open_store(self)
            copy_files(str(file), path, LocalFileSystem(), store)

    def download(self, file: Path) -> None:
        """Copy it to a file of this machine."""
        from pyarrow.fs import LocalFileSystem, copy_files

        file.parent.mkdir(parents=True, exist_ok=True)
        with remote_errors(self):
            store, path = open_store(self)
            copy_files(path, str(file), store, LocalFileSystem())

    def unlink(self) -> None:
        with remote_errors(self):
            store, path = open_store(self)
            store.delete_file(path)

    def take_folder(self, folder: Path, last: str) -> None:
        """Make this folder equal to one of this machine.

        Readers need the file `last`. It is removed first and uploaded last, so that nobody reads a mixture of old and
        new files.
        """
        before = self.files()
        if self / last in before:
            (self / last).unlink()
        names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
        _at_once(lambda name: (self / name).upload(folder / name), [name for name in names if name != last])
        _at_once(Remote.unlink, [file for file in before if file.below(self) not in names])
        (self / last).upload(folder / last)

    def give_folder(self, folder: Path, left_out: str) -> None:
        """Copy all files except those of one name to a folder of this machine."""
        files = [file for file in self.files() if file.name != left_out]
        _at_once(lambda file: file.download(folder / file.below(self)), files)


def _at_once(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Call `work` on eight items at a time: a store answers slowly, but many requests at once."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(work, items):
            pass


@dataclass(frozen=True)
class Stored:
    """Size of a stored file in bytes, and its time of writing by the clock of the store, in seconds since the epoch."""

    size: int
    written_s: float


Place = Path | Remote


def file_stamp(file: Place) -> tuple[int, ...]:
    """Size and modification time of a file: they change with its content. FileNotFoundError if there is no file."""
    if isinstance(file, Path):
        found = file.stat()
        return found.st_size, found.st_mtime_ns, found.st_ino
    with remote_errors(file):
        store, path = open_store(file)
        info = store.get_file_info(path)
        if not info.is_file:
            raise FileNotFoundError(path)
        return info.size, info.mtime_ns or 0


def to_place(path: str | Place) -> Place:
    """A local path or URI as a `Path` or `Remote`.

    Raises
    ------
    ConfigError
        If the scheme of a URI is unknown, or it holds credentials or options; the message does not repeat them.

    Examples
    --------
    >>> to_place("s3://bucket/data/")
    Remote(uri='s3://bucket/data')
    >>> to_place("data/btc").name
    'btc'
    """
    if not isinstance(path, str):
        return path
    if not is_uri(path):
        return Path(path)
    refuse_credentials(path)
    scheme, _, rest = path.partition("://")
    if scheme == "file":
        if not rest.startswith("/"):
            raise ConfigError(f"a file URI is file:///folder/data; got {path!r}")
        return Path(unquote(rest))
    if scheme not in SCHEMES:
        raise ConfigError(f"a place is a local path or one of {', '.join(SCHEMES)}://bucket/folder; got {path!r}")
    if not rest.strip("/"):
        raise ConfigError(f"a URI names a bucket, such as {scheme}://bucket/data; got {path!r}")
    return Remote(f"{scheme}://{re.sub('/+', '/', rest.strip('/'))}")


def is_uri(path: str) -> bool:
    """Whether a text is a URI, not a local path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def refuse_credentials(uri: str) -> None:
    """Refuse a URI with a user name, password or option: URIs are written into results and messages."""
    parts = urlsplit(uri)
    scheme, user = parts.scheme, parts.netloc.rpartition("@")[0]
    is_container = scheme in ("abfs", "abfss") and ":" not in user  # abfs://container@account…
    is_anonymous = scheme in ("gs", "gcs") and user == "anonymous"
    if ("@" in parts.netloc and not is_container and not is_anonymous) or parts.query or "?" in uri:
        raise ConfigError(
            f"a URI must hold no user name, password or option; got one that does ({scheme}://…); give credentials by "
            "the environment, such as AWS_ACCESS_KEY_ID, or the store's own configuration, and another server by "
            "AWS_ENDPOINT_URL"
        )


def local(path: str | Path, what: str) -> Path:
    """A path that must be on this machine; ConfigError naming the option `what` otherwise."""
    place = to_place(path)
    if isinstance(place, Remote):
        raise ConfigError(f"{what} must be a local path; got {place}")
    return place


def resolved(base: Path, path: str) -> str:
    """A path of a configuration, relative to the folder of its file; a URI is returned unchanged."""
    return path if is_uri(path) else str(base / path)


@contextmanager
def opened(file: Place) -> Iterator[Any]:
    """What Arrow reads a file from: a local path, or an open file of the store."""
    if not isinstance(file, Remote):
        yield file
        return
    store, path = open_store(file)
    with store.open_input_file(path) as source:
        yield source


@contextmanager
def remote_errors(place: Remote) -> Iterator[None]:
    """Turn an error of the store into a DataError without credentials; FileNotFoundError stays."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "does not exist", str(place)) from None
    except OSError as error:  # Arrow's errors of stores are OSErrors
        reason = scrubbed(str(error).strip().split("\n")[0])
        raise DataError(f"{place}: the store answers: {reason}") from None


def scrubbed(text: str) -> str:
    """Remove user names and passwords of URIs, and the values of secret environment variables, from a message."""
    text = _AUTHORITY.sub(r"\1…@", text)
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET.match(name):
            text = text.replace(value, "…").replace(quote(value, safe=""), "…")
    return text


def open_store(place: Remote) -> tuple[Any, str]:
    """Arrow's file system for a file, and the path within it."""
    scheme, _, rest = place.uri.partition("://")
    root, _, path = rest.partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") if scheme == "s3" else None
    store, base = _store(scheme, root, endpoint)
    return store, f"{base}/{path}".strip("/")


@lru_cache(maxsize=8)
def _store(scheme: str, root: str, endpoint: str | None) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    uri = f"{scheme}://{root}"
    if endpoint is not None:
        if not is_uri(endpoint):
            raise ConfigError("AWS_ENDPOINT_URL must be a URL such as http://127.0.0.1:9000")
        parts = urlsplit(endpoint)
        uri += f"?scheme={parts.scheme}&endpoint_override={quote(parts.netloc + parts.path.rstrip('/'), safe='')}"
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        uri += f"&region={quote(region, safe='')}" if region else ""
    try:
        store, base = FileSystem.from_uri(uri)
    except OSError as error:
        raise DataError(f"{scheme}://{root}: the store answers: {scrubbed(str(error).strip())}") from None
    except ValueError as error:
        raise ConfigError(f"{scheme}://{root}: is not understood ({scrubbed(str(error).strip())})") from None
    return store, base.rstrip("/")


@contextmanager
def atomic_write(target: Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file so that readers see the old content or all of the new content.

    Parameters
    ----------
    target : Path
        The file to write. Its folder must exist.
    durable : bool
        Whether the content must survive a crash of the machine (fsync of the file and of its folder).

    Yields
    ------
    Path
        A new file beside `target` to write to. It replaces `target` at the end of the block. If the block raises, it
        is removed and `target` stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "run.json")) as file:
    ...         _ = file.write_text("{}")
    ...     [file.name for file in Path(folder).iterdir()]
    ['run.json']
    """
    partial = target.with_name(f".{target.name}.{os.urandom(4).hex()}.partial")
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(target)
        if durable:
            sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, document: object, *, durable: bool = True) -> None:
    """Write a JSON file with `atomic_write`."""
    with atomic_write(file, durable=durable) as partial:
        partial.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk (fsync), so that they survive a crash of the machine."""
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


WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or name another disk with --out"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "name a folder that can with --out"),
}


@contextmanager
def writing(place: Place) -> Iterator[None]:
    """Turn errors of a full or read-only disk into a DataError that names the run and what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = WHAT_TO_DO.get(error.errno or 0, "see to it, or name another folder with --out")
        raise DataError(f"{place}: cannot be written ({reason}); {advice}") from error
