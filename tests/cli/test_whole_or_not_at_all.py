"""What a command writes appears whole or not at all, and replaces only what it was told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, entries_of, spawned, typed
from tests.cli.test_path import silent

HALF_A_MINUTE = 30
SLOWED = """\
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
import backtest.{module} as module
real = module.{name}
def slow(*arguments):
    open("{marker}", "w").close()
    time.sleep({nap})
    return real(*arguments)
module.{name} = slow
from backtest.cli import main
main()
"""
"""The command line with one of its loops slowed down, so that an interrupt falls inside."""


def interrupted(place: Path, module: str, name: str, *words: str) -> tuple[int, str, str]:
    """Exit code and output of a command that is interrupted in its work."""
    marker = place / "at-work"
    code = SLOWED.format(module=module, name=name, marker=marker, nap=0.5)
    command = [sys.executable, "-c", code, *words]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + HALF_A_MINUTE
    while not marker.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HALF_A_MINUTE)
    marker.unlink()
    return process.returncode, out, err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_exits_with_130_and_leaves_nothing(place: Path, workers: str) -> None:
    before = entries_of(place)
    words = ["run", "sweep.toml", "--out", "new/folders/run", "--workers", workers]
    code, out, err = interrupted(place, "runs.tasks", "count_entries", *words)
    assert (code, out, err.strip()) == (130, "", "interrupted")
    assert entries_of(place) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_interrupted_events_exit_with_130_and_leave_nothing(place: Path) -> None:
    before = entries_of(place)
    code, out, err = interrupted(
        place, "analysis.events", "first_crossings", "events", "sweep.toml", "--out", "new/e.parquet"
    )
    assert (code, out, err.strip()) == (130, "", "interrupted")
    assert entries_of(place) == before


@pytest.mark.parametrize("step", ["runs.checkpoint.write_blocks", "runs.run.rate_rows", "runs.run_directory.commit"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "overwrite"])
def test_a_run_that_fails_inside_leaves_what_was_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: str, there: bool
) -> None:
    if there:
        silent(typed("run", "sweep.toml", "--out", "runs/one"))
    before = entries_of(place)
    kept = (place / "runs/one/run.json").read_bytes() if there else b""

    def fail(*arguments: object) -> None:
        raise MemoryError("full")

    monkeypatch.setattr(f"backtest.{step}", fail)
    failed = typed("run", "sweep.toml", "--out", "runs/one", *(["--overwrite"] if there else []))
    assert (failed.code, failed.out) == (1, "")
    assert "error: out of memory (full); fewer --workers or a smaller --memory need less" in failed.err
    left = [entry for entry in entries_of(place) if ".one.partial" not in entry]
    assert left == before or left == sorted([*before, "runs"])
    assert not there or (place / "runs/one/run.json").read_bytes() == kept
    monkeypatch.undo()
    # Parts that were finished before the fault are kept, out of sight, and taken up again.
    finished = step != "runs.checkpoint.write_blocks"
    assert (place / "runs/.one.partial").exists() == finished
    if finished:
        monkeypatch.setattr("backtest.runs.checkpoint.write_blocks", fail)
    monkeypatch.chdir(place)
    silent(typed("run", "sweep.toml", "--out", "runs/one", *(["--overwrite"] if there else []), "--resume"))
    assert not (place / "runs/.one.partial").exists()


def test_the_old_run_stays_when_the_new_one_cannot_take_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    silent(typed("run", "sweep.toml", "--out", "one"))
    before, old = entries_of(place), (place / "one/run.json").read_bytes()
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "run" and self.parent.name == ".one.partial":
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    done = typed("run", "sweep.toml", "--out", "one", "--overwrite")
    assert (done.code, done.out) == (1, "")
    assert "error: one: cannot be written (No space left on device); make room there" in done.err
    assert "2 finished tasks are kept; go on with --resume --overwrite --out one" in caplog.text
    assert [name for name in entries_of(place) if ".one.partial" not in name] == before
    assert (place / "one/run.json").read_bytes() == old
    monkeypatch.undo()
    monkeypatch.chdir(place)
    silent(typed("run", "sweep.toml", "--out", "one", "--overwrite", "--resume"))
    assert entries_of(place) == before
    assert all(task["kept"] for task in json.loads((place / "one/run.json").read_text())["tasks"])


def test_events_that_fail_inside_leave_what_was_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "e.csv").write_text("mine")
    before = entries_of(place)
    monkeypatch.setattr("backtest.analysis.events._batch", lambda *arguments: 1 / 0)
    for out in ("e.csv", "new/e.parquet"):
        with pytest.raises(ZeroDivisionError):
            typed("events", "sweep.toml", "--out", out, "--overwrite")
    assert entries_of(place) == before
    assert (place / "e.csv").read_text() == "mine"


def test_existing_output_is_refused_without_overwrite(place: Path, market: Path) -> None:
    commands = {
        "run": ["run", "sweep.toml", "--out", "run"],
        "events": ["events", "sweep.toml", "--out", "e.parquet"],
        "data": ["import", "generic", "--symbol", "X", "--interval", "1h", "--prices", market / "prices.parquet"],
    }
    commands["data"] += ["--out", "data"]
    for out, words in commands.items():
        assert typed(*words).code == 0
        before = {name: (place / name).read_bytes() for name in entries_of(place) if (place / name).is_file()}
        done = typed(*words)
        assert (done.code, done.out) == (2, "")
        assert " exists" in done.err, out
        assert {name: (place / name).read_bytes() for name in before} == before
        again = typed(*words, "--overwrite")
        assert again.code == 0, again.err
    assert not [name for name in entries_of(place) if Path(name).name.startswith(".")]


@pytest.mark.parametrize("out", ["data", "notes.txt", "."])
def test_overwrite_replaces_runs_only(place: Path, out: str) -> None:
    """A slip such as ``--out data --overwrite`` must not cost a user the dataset."""
    (place / "data").mkdir()
    (place / "data" / "prices.parquet").write_text("years of work")
    (place / "notes.txt").write_text("mine")
    before = entries_of(place)
    done = typed("run", "sweep.toml", "--out", out, "--overwrite")
    assert (done.code, done.out) == (2, "")
    assert "is not a run directory and is not overwritten" in done.err
    assert entries_of(place) == before


def test_an_overwritten_run_is_the_new_one(place: Path) -> None:
    silent(typed("run", "sweep.toml", "--out", "run"))
    (place / "run" / "report.html").write_text("of the old run")
    (place / "sweep.toml").write_text(CONFIG.replace("50]", "50, 100]"))
    info = json.loads(silent(typed("run", "sweep.toml", "--out", "run", "--overwrite", "--json")))
    assert info["config"]["sweep"]["leverage"] == [2.0, 10.0, 50.0, 100.0]
    assert not (place / "run" / "report.html").exists()
    assert json.loads((place / "run" / "run.json").read_text())["config"] == info["config"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("survival.parquet", b"PAR1 half a file", r"run/survival.parquet: cannot be read"),
        ("survival.parquet", None, "survival.parquet is missing; the run is not whole, run it again"),
        ("run.json", b"{", "run/run.json: is not JSON"),
        ("run.json", b"\xff\xfe", "run/run.json: is not JSON"),
        ("run.json", b"[]", "run/run.json: is not that of a run"),
        ("run.json", None, "run: is not a run directory (run.json: No such file or directory)"),
    ],
)
def test_a_spoilt_run_is_one_clear_error(place: Path, file: str, content: bytes | None, message: str) -> None:
    silent(typed("run", "sweep.toml", "--out", "run"))
    (place / "run" / file).unlink()
    if content is not None:
        (place / "run" / file).write_bytes(content)
    for words in (["choose", "run"], ["report", "run"]):
        done = typed(*words)
        assert (done.code, done.out) == (1, "")
        assert message in done.err
    assert not (place / "run" / "report.html").exists()


def test_progress_is_not_shown_where_nobody_looks(place: Path) -> None:
    assert spawned("run", "sweep.toml", "--out", "run", cwd=place).err == ""
