"""The files of compiled kernels on this machine: where they are and whether they are intact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from backtest.engine.kernels.jit import sealed


@dataclass(frozen=True)
class KernelCache:
    """The folder of compiled kernels, how many files it holds, and how many of them are damaged."""

    folder: Path
    files: int
    damaged: int


def inspect_cache() -> KernelCache:
    """Look at the files of compiled kernels."""
    folder = Path(os.environ["NUMBA_CACHE_DIR"])  # set when the kernels are imported
    files = [file for file in folder.rglob("*.nbc") if file.is_file()]
    return KernelCache(folder, len(files), sum(not sealed(file.read_bytes()) for file in files))
