"""Verified downloads: files of a server, each with its ``.CHECKSUM``, kept in a folder under the same paths."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote, urlsplit

import httpx
from filelock import FileLock, Timeout

from backtest.errors import ConfigError, DataError
from backtest.ingest.zip_csv import CHECKSUM

PART = ".part"
MOST_BYTES = 512 * 2**20
"""Size from which on an archive is refused: a month of 1-minute bars has about 3 MiB."""
MOST_CHECKSUM_BYTES = 4096
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same question may succeed."""

State = Literal["fetched", "kept", "missing", "refused"]


@dataclass(frozen=True)
class RequestLimits:
    """How many requests a server gets, and how long a download waits for it.

    Attributes
    ----------
    connections : int
        Requests at a time.
    tries : int
        Requests for one file before the download fails.
    first_wait_s, longest_wait_s : float
        The wait after a failed try doubles from the first to the longest; up to half of it is taken off at random. A
        server that asks for a longer wait ends the download.
    silence_s : float
        Seconds without a byte after which a try has failed.
    longest_try_s : float
        Seconds after which a try has failed even if bytes still arrive.
    """

    connections: int = 8
    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    silence_s: float = 20.0
    longest_try_s: float = 900.0


@dataclass(frozen=True)
class Outcome:
    """The result for one file; `reason` says why it was refused."""

    path: str
    state: State
    reason: str = ""


class _Again(Exception):
    """A try that failed and may succeed later, after `wait_s` if the server said so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Unverified(Exception):
    """A file that is not what its checksum says."""


class _Stopped(Exception):
    """Another file ended the download."""


def checked_url(base_url: str) -> str:
    """A server's address without the slash at its end.

    Raises
    ------
    ConfigError
        If it is not http(s), names no host, or holds a user, a query or a fragment.

    Examples
    --------
    >>> checked_url("https://mirror.example/binance/")
    'https://mirror.example/binance'
    """
    try:
        parts = urlsplit(base_url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"the base URL must be http:// or https:// and a host; got {base_url!r}")
    if "@" in parts.netloc:
        raise ConfigError("the base URL must not hold a user or password, which would stand in messages")
    if parts.query or parts.fragment or re.search(r"\s", base_url):
        raise ConfigError(f"the base URL must not hold a query, a fragment or blanks; got {base_url!r}")
    return base_url.rstrip("/")


class Mirror:
    """A folder that mirrors files of a server. As a context manager it locks the folder.

    Parameters
    ----------
    base_url : str
        The only host that is asked: redirects are refused.
    folder : str or Path
        Files are kept by their path on the server. A file is complete if its ``.CHECKSUM`` beside it agrees;
        incomplete files have another name and are removed at the next use.
    limits : RequestLimits, optional

    Raises
    ------
    ConfigError
        If the URL is unsound or the folder cannot be one.
    DataError
        If another process downloads into the folder.
    """

    def __init__(self, base_url: str, folder: str | Path, limits: RequestLimits | None = None) -> None:
        self.base_url = checked_url(base_url)
        self.folder = Path(folder)
        self.limits = limits or RequestLimits()
        self.received = 0
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._not_before = 0.0
        self._lock = FileLock(self.folder / ".lock", timeout=0)

    def __enter__(self) -> Mirror:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(f"archives are kept in a folder; {self.folder} is none and cannot be made") from None
        except Timeout:
            raise DataError(
                f"{self.folder}: another download uses this folder; wait for it or choose another folder"
            ) from None
        for part in self.folder.rglob("*" + PART):  # of a killed download: the lock proves that no process uses it
            part.unlink(missing_ok=True)
        limits = self.limits
        self._client = httpx.Client(
            headers={"User-Agent": f"liquidation-backtest/{version('liquidation-backtest')}"}
            | {"Accept-Encoding": "identity"},  # the checksum is of these bytes
            timeout=httpx.Timeout(limits.silence_s, pool=None),
            limits=httpx.Limits(max_connections=limits.connections),
            follow_redirects=False,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()
        self._lock.release()

    def file(self, path: str) -> Path:
        """Where a file of the server is kept."""
        return self.folder / path

    def checksum(self, path: str) -> str | None:
        """SHA-256 of a file that is there, as its ``.CHECKSUM`` has it; None if there is none that can be read."""
        try:
            return _digest_in(self.file(path + CHECKSUM), path)
        except (OSError, _Unverified):
            return None

    def has(self, path: str) -> bool:
        """Whether file and checksum exist; `bring` compares them."""
        return self.file(path).is_file() and self.file(path + CHECKSUM).is_file()

    def bring(self, paths: Iterable[str], advance: Callable[[int], None] = lambda _: None) -> dict[str, Outcome]:
        """Get files from the folder where they are complete, else from the server.

        Parameters
        ----------
        paths : iterable of str
            Below the base URL.
        advance : callable
            Called with 1 for each file.

        Returns
        -------
        dict of str to Outcome
            A file is ``missing`` if the server has none, and ``refused`` if it differs from its checksum twice.

        Raises
        ------
        DataError
            If the server cannot be reached, fails too often, redirects or sends too much. Complete files stay.
        """
        found: dict[str, Outcome] = {}
        pool = ThreadPoolExecutor(self.limits.connections, thread_name_prefix="download")
        try:
            for done in as_completed([pool.submit(self._have, path) for path in paths]):
                outcome = done.result()
                found[outcome.path] = outcome
                advance(1)
        except (
            BaseException
        ):  # also an interruption: the other threads stop at their next chunk and remove their part files
            self._stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return found

    def _have(self, path: str) -> Outcome:
        """One file, downloaded a second time if its checksum differs."""
        file = self.file(path)
        digest = self.checksum(path)
        if digest is not None and file.is_file() and _digest_of(file) == digest:
            return Outcome(path, "kept")
        try:
            try:
                fetched = self._fetch(path, file)
            except _Unverified:
                fetched = self._fetch(path, file)
        except _Unverified as error:
            return Outcome(path, "refused", str(error))
        return Outcome(path, "fetched" if fetched else "missing")

    def _fetch(self, path: str, file: Path) -> bool:
        """Download file and checksum, compare, then rename both; False if the server has no such file."""
        beside = self.file(path + CHECKSUM)
        parts = [Path(f"{target}{PART}") for target in (file, beside)]
        try:
            if not self._retrieve(path, parts[0], MOST_BYTES):
                return False
            if not self._retrieve(path + CHECKSUM, parts[1], MOST_CHECKSUM_BYTES):
                raise _Unverified(f"the server has no {beside.name} to verify it by")
            wanted, got = _digest_in(parts[1], path), _digest_of(parts[0])
            if got != wanted:
                raise _Unverified(f"its SHA-256 is {got}, {beside.name} says {wanted}")
            parts[1].replace(beside)
            parts[0].replace(file)
            return True
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    def _retrieve(self, path: str, part: Path, most: int) -> bool:
        """Repeat a request until the server answers; False if it has no such file."""
        url = f"{self.base_url}/{quote(path)}"
        reason = ""
        for number in range(self.limits.tries):
            if number:
                self._pause(self._wait_s(number))
            self._pause(self._not_before - time.monotonic())
            try:
                return self._try(url, part, most)
            except _Again as error:
                reason = str(error)
                self._set_wait(url, error.wait_s)
        raise DataError(
            f"{url}: {reason}, {self.limits.tries} times; complete files stay in {self.folder}; run the same command "
            "again to continue"
        )

    def _wait_s(self, number: int) -> float:
        wait = min(self.limits.longest_wait_s, self.limits.first_wait_s * 2.0 ** (number - 1))
        return wait * random.uniform(0.5, 1.0)

    def _set_wait(self, url: str, wait_s: float | None) -> None:
        """Every connection waits as long as the server asks."""
        if wait_s is None:
            return
        if wait_s > self.limits.longest_wait_s:
            raise DataError(f"{url}: the server asks to wait {wait_s:,.0f} s; run the same command later to continue")
        with self._guard:
            self._not_before = max(self._not_before, time.monotonic() + wait_s)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise _Stopped

    def _try(self, url: str, part: Path, most: int) -> bool:
        try:
            with self._client.stream("GET", url) as answer:
                status = answer.status_code
                if status == 404:
                    return False
                if status in BUSY:
                    raise _Again(f"the server answers {status}", _retry_after_s(answer.headers.get("Retry-After")))
                if 300 <= status < 400:
                    there = urlsplit(answer.headers.get("Location", "")).hostname or "another path"
                    raise DataError(f"{url}: redirects to {there}; only the base URL {self.base_url} is asked")
                if status != 200:
                    raise DataError(f"{url}: the server answers {status}, where 200 or 404 is expected")
                self._take(answer, url, part, most)
                return True
        except httpx.TransportError as error:
            raise _Again(_reason(error)) from None

    def _take(self, answer: httpx.Response, url: str, part: Path, most: int) -> None:
        """Write the body; refuse one that is too long or takes too long."""
        until = time.monotonic() + self.limits.longest_try_s
        size = 0
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for chunk in answer.iter_raw():  # without a chunk size, which would wait for full chunks
                size += len(chunk)
                if size > most:
                    raise DataError(f"{url}: is longer than {most:,} bytes, which no such file is")
                file.write(chunk)
                if self._stop.is_set():
                    raise _Stopped
                if time.monotonic() > until:
                    raise _Again(f"not here after {self.limits.longest_try_s:g} s")
        with self._guard:
            self.received += size


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return f"the host could not be reached ({error or type(error).__name__})"
    if isinstance(error, httpx.TimeoutException):
        return "no byte in time"
    return f"the connection broke ({error or type(error).__name__})"


def _retry_after_s(text: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, which is a number or a date; None if it says nothing."""
    if text is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _digest_in(checksum: Path, path: str) -> str:
    """SHA-256 that a ``.CHECKSUM`` file says of the file of this path."""
    words = checksum.read_bytes()[:MOST_CHECKSUM_BYTES].decode("utf-8", "replace").split()
    name = path.rpartition("/")[2]
    if len(words) != 2 or not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]) or words[1].lstrip("*") != name:
        raise _Unverified(f"{name}{CHECKSUM} must hold a SHA-256 and {name}; got {' '.join(words)[:100]!r}")
    return words[0].lower()


def _digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
