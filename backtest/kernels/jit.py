"""The one place that configures compilation."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])
Float = NDArray[np.float64]
Int = NDArray[np.int64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

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


@overload
def kernel(function: F) -> F: ...
@overload
def kernel(*, fastmath: bool = ...) -> Callable[[F], F]: ...
def kernel(function: F | None = None, *, fastmath: bool = True) -> F | Callable[[F], F]:
    """Compile a loop: serial, without the GIL, cached. ``fastmath=False`` where NaN is tested for."""
    flags = NO_NAN if fastmath else False
    decorate = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=flags)
    return decorate if function is None else decorate(function)  # type: ignore[no-any-return]
