"""A small market on disk, and the command line called in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from backtest.cli import main
from tests._support.histories import HOUR, random_rows
from tests.oracles.walk import Rows

START = 1_577_836_800_000  # 2020-01-01T00:00Z
N_BARS = 1_300
CONFIG = """\
[data]
path = "market"

[sweep]
leverage = [2, 10, 50]
horizon = ["1h", "1d"]
maintenance = [0.004]
"""
"""12 rows: two sides × two horizons × three leverages."""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


def typed(*words: object) -> Done:
    """``backtest WORDS…`` through its entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["backtest", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    finally:
        sys.argv = before
    return Done(code, out.getvalue(), err.getvalue())


def spawned(*words: object, cwd: Path) -> Done:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "backtest", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def entries_of(folder: Path) -> list[str]:
    """Everything below a folder, hidden names included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def bars(rows: Rows, prefix: str = "") -> dict[str, np.ndarray]:
    """Open, high, low and close of a history."""
    return {name: np.array(getattr(rows, prefix + name)) for name in ("open", "high", "low", "close")}


def table_of(stamps: np.ndarray, columns: dict[str, np.ndarray], name: str = "open_time") -> pa.Table:
    """Arrow table of bars."""
    return pa.table({name: pa.array(stamps, pa.timestamp("ms", "UTC")), **{k: pa.array(v) for k, v in columns.items()}})


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``prices.parquet``, ``mark.csv`` and ``funding.csv``, and the dataset ``data`` made of them."""
    folder = tmp_path_factory.mktemp("market")
    rows = random_rows(11, N_BARS)
    stamps = START + np.array(rows.open_time_ms)
    pq.write_table(table_of(stamps, bars(rows)), folder / "prices.parquet")
    pa.csv.write_csv(table_of(stamps, bars(rows, "mark_"), "time"), folder / "mark.csv")
    charged = np.array([rate is not None for rate in rows.funding_rate])
    rates = np.array([rate for rate in rows.funding_rate if rate is not None])
    pa.csv.write_csv(table_of(stamps[charged], {"rate": rates}, "time"), folder / "funding.csv")
    done = typed(*import_words(folder), "--out", folder / "data")
    assert done.code == 0, done.err
    return folder


def import_words(folder: Path) -> list[object]:
    """The import of the market's files."""
    files = ["--prices", folder / "prices.parquet", "--mark", folder / "mark.csv", "--funding", folder / "funding.csv"]
    return ["import", "generic", "--symbol", "BTCUSDT", "--interval", "1h", *files]


@pytest.fixture
def place(tmp_path: Path, market: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a user: ``sweep.toml`` and ``market``, a dataset that may be spoilt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "market").symlink_to(market / "data")
    (tmp_path / "sweep.toml").write_text(CONFIG)
    return tmp_path


def prices(n_bars: int = 48) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times and four sound prices of a plain file."""
    stamps = START + HOUR * np.arange(n_bars)
    close = 100.0 + np.arange(n_bars) % 7
    opened = np.concatenate(([100.0], close[:-1]))
    return stamps, {
        "open": opened,
        "high": np.maximum(opened, close) + 1,
        "low": np.minimum(opened, close) - 1,
        "close": close,
    }
