"""The one place that configures compilation, and keeps what was compiled."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, overload

F = TypeVar("F", bound=Callable[..., object])

NO_NAN = {"nnan", "nsz"}
"""Kernels see no NaN (missing prices are `LOWEST`), which lets maxima use vector instructions. Infinities stay exact;
nothing is reassociated."""


def cache_directory() -> Path:
    """A writable directory named after the kernels' source: numba does not see a *callee* change in another file."""
    here = Path(__file__).parent
    code = hashlib.sha256()
    for path in sorted(here.glob("*.py")):
        code.update(path.read_bytes())
    name = f"liquidation-backtest-{code.hexdigest()[:16]}"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        (base / name).mkdir(parents=True, exist_ok=True)
        if os.access(base / name, os.W_OK):
            return base / name
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"{name}-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_directory()))

import numba  # noqa: E402  (reads NUMBA_CACHE_DIR when it is imported)
from numba.core.caching import FunctionCache, IndexDataCacheFile  # noqa: E402

SEAL = 32
"""Bytes of the digest behind every pickle of the cache; readers of pickles stop before it."""


class SealedFile(IndexDataCacheFile):  # type: ignore[misc]
    """numba's cache file with a digest behind its contents: what a fault of the disk has changed is compiled again.

    Machine code with a flipped bit would run, and answer.
    """

    def _dump(self, obj: object) -> bytes:
        data: bytes = super()._dump(obj)
        return data + hashlib.sha256(data).digest()

    def _load_index(self) -> dict[object, str]:
        version = pickle.dumps(self._version, protocol=-1)
        try:
            with open(self._index_path, "rb") as file:
                head, rest = file.read(len(version)), file.read()
            known: dict[object, str] = super()._load_index() if head == version and sealed(rest) else {}
        except OSError:
            return {}
        return known

    def _load_data(self, name: str) -> object:
        with open(self._data_path(name), "rb") as file:
            data = file.read()
        if not sealed(data):
            raise OSError(f"{name} is damaged")  # as if it were not there
        return super()._load_data(name)


def sealed(data: bytes) -> bool:
    """Whether the digest at the end is that of what stands before it."""
    return len(data) > SEAL and hashlib.sha256(data[:-SEAL]).digest() == data[-SEAL:]


class SealedCache(FunctionCache):  # type: ignore[misc]
    """The compiled forms of one kernel; where they cannot be written, they are compiled once per process."""

    said = False

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        where = self._impl.locator
        self._cache_file = SealedFile(where.get_cache_path(), self._impl.filename_base, where.get_source_stamp())

    def load_overload(self, sig: object, target_context: object) -> object:
        found = super().load_overload(sig, target_context)
        if found is None and not SealedCache.said:
            SealedCache.said = True
            level = logging.WARNING if sys.stderr.isatty() else logging.INFO  # as progress: where somebody looks
            logging.getLogger("backtest").log(level, "compiling the kernels for this machine, once")
        return found

    def save_overload(self, sig: object, data: object) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # a full disk is no reason not to run
            logging.getLogger("backtest").warning(f"what was compiled could not be kept ({error}); see backtest doctor")


@overload
def kernel(function: F) -> F: ...
@overload
def kernel(*, fastmath: bool = ...) -> Callable[[F], F]: ...
def kernel(function: F | None = None, *, fastmath: bool = True) -> F | Callable[[F], F]:
    """Compile a loop: serial, without the GIL, cached. ``fastmath=False`` where NaN is tested for."""
    flags = NO_NAN if fastmath else False
    jit = numba.njit(nogil=True, error_model="numpy", fastmath=flags)

    def decorate(function: F) -> F:
        compiled = jit(function)
        if hasattr(compiled, "_cache"):  # not where compilation is switched off
            compiled._cache = SealedCache(function)
        return compiled  # type: ignore[no-any-return]

    return decorate if function is None else decorate(function)
