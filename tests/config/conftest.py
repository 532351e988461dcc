"""A small history on disk, and configurations that `run` and `events` refuse before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import entries_of, prices, table_of, typed

Refused = Callable[[int, str], str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two days of hourly last prices, ``last.parquet``, and of mark prices alone, ``mark.parquet``."""
    monkeypatch.chdir(tmp_path)
    stamps, columns = prices()
    pq.write_table(table_of(stamps, columns), "last.parquet")
    pq.write_table(table_of(stamps, {f"mark_{name}": values for name, values in columns.items()}), "mark.parquet")
    return tmp_path


@pytest.fixture
def refused(place: Path) -> Refused:
    """Refuse a configuration with an exit code: gives the one message of `run` and `events`.

    Nothing is written, and no symbol is begun.
    """

    def refuse(code: int, text: str) -> str:
        Path("sweep.toml").write_text(text)
        log = place.with_suffix(".log")
        before, messages = entries_of(Path()), set()
        for words in (["run", "--log", log], ["events"]):
            done = typed(words[0], "sweep.toml", "--out", f"new/{words[0]}.csv", *words[1:])
            assert (done.code, done.out) == (code, ""), done
            assert done.err.startswith("error: ") and "Traceback" not in done.err
            assert entries_of(Path()) == before
            messages.add(done.err.removeprefix("error: ").rstrip("\n"))
        assert not log.exists() or "symbol begun" not in log.read_text()
        assert len(messages) == 1
        return str(messages.pop())

    return refuse
