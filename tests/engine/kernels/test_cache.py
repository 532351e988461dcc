"""What was compiled is kept, and compiled again where a fault of the disk has changed it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging
import numpy as np
from backtest.engine.kernels.jit import kernel

logging.basicConfig()
logging.getLogger("backtest").setLevel(logging.INFO)

@kernel
def total(values):
    out = 0.0
    for value in values:
        out += value
    return out

print(total(np.arange(5.0)), sum(total.stats.cache_hits.values()))
"""
COMPILING = "compiling the kernels for this machine"


@pytest.fixture
def program(tmp_path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def told(program: Path, cache: Path) -> tuple[str, str]:
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    env.pop("NUMBA_CACHE_DIR", None)
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(program)], env={**env, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr


def test_the_first_run_says_that_it_compiles_and_the_second_does_not(program, tmp_path) -> None:
    out, err = told(program, tmp_path / "cache")
    assert out == "10.0 0" and COMPILING in err
    out, err = told(program, tmp_path / "cache")
    assert out == "10.0 1" and not err


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_compiled_again(program, tmp_path, suffix) -> None:
    """One flipped bit anywhere, or half of the file gone, in the index or in the machine code."""
    told(program, tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob(f"*.{suffix}")
    whole = file.read_bytes()
    generator = random.Random(7)
    for cut in (False, True):
        data = bytearray(whole)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        file.write_bytes(data[: len(data) // 2] if cut else data)
        out, err = told(program, tmp_path / "cache")
        assert out == "10.0 0" and COMPILING in err
    out, err = told(program, tmp_path / "cache")
    assert out == "10.0 1" and not err


def test_a_cache_that_cannot_be_written_stops_nothing(program, tmp_path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    assert told(program, blocked)[0] == "10.0 0"
