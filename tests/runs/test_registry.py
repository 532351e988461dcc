"""The list of runs says of each what can be done with it; the log of a run says what happened, line by line."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import backtest as bt
from backtest.data.transaction import locked
from backtest.runs import checkpoint
from backtest.runs import run as runner
from backtest.runs.registry import RunState, list_runs
from tests._support.histories import history_of, random_rows
from tests.cli.conftest import typed

CONFIG = """\
[data]
path = "data"
[sweep]
leverage = [2, 20]
horizon = ["1d"]
maintenance = [0.004, 0.02]
[statistics]
regimes = ["month"]
"""
"""Two symbols × two sides × two maintenances: eight tasks."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, symbol in enumerate(("AAA", "BBB")):
        bt.write_history(history_of(random_rows(seed, 400), symbol), "data")
    Path("sweep.toml").write_text(CONFIG)
    return tmp_path


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, *words: object) -> None:
    """Run until so many tasks are kept."""
    keep, seen = checkpoint.Journal.keep, []

    def keeping(self: checkpoint.Journal, name: str, *rest: object) -> None:
        keep(self, name, *rest)
        seen.append(name)
        if sum(one.startswith("tasks/") for one in seen) == after:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Journal, "keep", keeping)
        patch.setattr(runner, "WAITING", 0)  # so that one knows how many are kept
        assert typed("run", "sweep.toml", *words).code == 130


def only() -> RunState:
    (state,) = list_runs("runs")
    return state


def test_a_finished_run_is_listed_with_its_size(place: Path) -> None:
    assert typed("run", "sweep.toml", "--out", "runs/a/one").code == 0
    state, info = only(), json.loads(Path("runs/a/one/run.json").read_text())
    assert (state.run, state.state, state.symbols, state.scenarios) == ("runs/a/one", "finished", ["AAA", "BBB"], 4)
    assert (state.verdicts, state.wall_seconds) == (info["verdicts"], info["wall_seconds"])
    assert (state.tasks_kept, state.tasks, state.note) == (8, 8, "")
    assert list_runs("runs/a/one") == [state]
    lines = typed("runs").out.splitlines()
    assert lines[1].split() == [
        *("runs/a/one", "finished", "2", "4", f"{info['verdicts']:,}", f"{info['wall_seconds']:,.1f}"),
        info["finished"],
    ]
    assert json.loads(typed("runs", "--json").out)["runs"][0]["finished"] == info["finished"]


def test_an_unfinished_run_is_listed_with_how_to_go_on(place: Path, monkeypatch) -> None:
    """Of AAA one of four tasks, so of both about two of eight; then all four, and two of BBB's: six of eight."""
    interrupted(monkeypatch, 1, "--out", "runs/one")
    state = only()
    assert (state.state, state.tasks_kept, state.tasks) == ("unfinished", 1, 8)
    go_on = "go on with: backtest run CONFIG --resume --out runs/one"
    assert state.note == f"1 of about 8 tasks kept, 0 of 2 symbols done; {go_on}"
    interrupted(monkeypatch, 5, "--out", "runs/one", "--resume")
    assert only().note == f"6 of 8 tasks kept, 1 of 2 symbols done; {go_on}"
    with locked(Path("runs/one")):
        assert (only().state, only().note) == ("running", "6 of 8 tasks kept, 1 of 2 symbols done")
    words = only().note.split("backtest ")[1].replace("CONFIG", "sweep.toml").split()
    assert typed(*words).code == 0
    assert (only().state, only().tasks_kept) == ("finished", 8)
    interrupted(monkeypatch, 3, "--out", "runs/one", "--overwrite")
    replaced, replacing = list_runs("runs")
    assert (replaced.state, replacing.state) == ("finished", "unfinished")
    assert replacing.note.endswith("--resume --overwrite --out runs/one")


@pytest.mark.parametrize(
    ("name", "left", "note"),
    [
        ("run.json", None, "run.json is missing; run again"),
        ("run.json", 100, "run.json is not that of a run; run again"),
        ("survival.parquet", None, "survival.parquet is missing; run again with --overwrite"),
        ("survival.parquet", 100, "survival.parquet is cut off; run again with --overwrite"),
        ("blocks/BBB-00002.parquet", None, "blocks/BBB-00002.parquet is missing; run again with --overwrite"),
        ("blocks/BBB-00002.parquet", 0, "blocks/BBB-00002.parquet is cut off; run again with --overwrite"),
        ("blocks/AAA-00000.month.parquet", None, "blocks/AAA-00000.month.parquet is missing; run again with"),
    ],
)
def test_a_damaged_run_is_listed_with_what_is_missing(place: Path, name: str, left: int | None, note: str) -> None:
    assert typed("run", "sweep.toml", "--out", "runs/one").code == 0
    file = Path("runs/one") / name
    whole = file.read_bytes()
    file.unlink()
    if left is not None:
        file.write_bytes(whole[:left])
    assert only().state == "damaged" and only().note.startswith(note)
    assert note in typed("runs").out


def test_what_is_no_run_is_not_listed(place: Path) -> None:
    assert typed("runs", "data").out == "no runs in data\n"
    done = typed("runs")
    assert (done.code, done.err) == (2, "error: runs is not a folder; name one that holds runs\n")


# --- the log ----------------------------------------------------------------------------------------------------------


def lines_of(file: str) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_a_log_has_a_line_per_event(place: Path, monkeypatch) -> None:
    interrupted(monkeypatch, 5, "--out", "one", "--log", "log.jsonl")
    assert typed("run", "sweep.toml", "--out", "one", "--resume", "--log", "log.jsonl").err == ""
    lines = lines_of("log.jsonl")
    begun = [line["symbol"] for line in lines if line["event"] == "symbol begun"]  # while others are counted
    assert begun == ["AAA", "BBB", "BBB"]
    assert [line["event"] for line in lines if line["event"] != "symbol begun"] == [
        *("run planned", "run begun", *["task finished"] * 4, "run stopped", "message"),
        *("run planned", "run begun", *["task finished"] * 3, "run finished"),
    ]
    assert all(line["time"].endswith("Z") and line["level"] == "info" for line in lines if line["event"] != "message")
    (message,) = (line for line in lines if line["event"] == "message")
    assert message["level"] == "warning" and message["text"].startswith(
        "5 finished tasks are kept; go on with --resume"
    )
    info = json.loads(Path("one/run.json").read_text())
    told = {line["task"]: line for line in lines if line["event"] == "task finished"}
    assert len(told) == 7  # the fifth was kept, but not yet told when it was interrupted
    for task in info["tasks"]:
        if task["task"] in told:
            assert {key: told[task["task"]][key] for key in task if key != "kept"}.items() <= task.items()
    assert lines[-1]["verdicts"] == info["verdicts"] == sum(task["verdicts"] for task in info["tasks"])
    assert sum(task["rows"] for task in info["tasks"]) == 2 * 4 * 2


def test_a_log_that_cannot_be_written_is_refused_at_the_start(place: Path) -> None:
    done = typed("run", "sweep.toml", "--out", "one", "--log", "nowhere/log.jsonl")
    assert done.code == 1
    assert done.err == (
        "error: nowhere/log.jsonl: cannot be written (No such file or directory); name another file with --log\n"
    )
    assert not Path("one").exists()


def test_a_log_that_fails_later_ends_and_the_run_does_not(place: Path, monkeypatch, caplog) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = typed("run", "sweep.toml", "--out", "one", "--log", "/dev/full")
    assert done.code == 0 and "Logging error" not in done.err
    assert caplog.text.count("/dev/full: the log cannot be written ([Errno 28] No space left on device)") == 1


def test_verbose_says_the_same_on_standard_error(place: Path) -> None:
    from tests.cli.conftest import spawned

    quiet = spawned("run", "sweep.toml", "--out", "one", "--log", "log.jsonl", cwd=place)
    assert (quiet.code, quiet.err) == (0, "")
    said = spawned("-v", "run", "sweep.toml", "--out", "two", cwd=place)
    assert said.code == 0
    assert [line.split(":")[0] for line in said.err.splitlines()] == [line["event"] for line in lines_of("log.jsonl")]
    assert said.err.splitlines()[2] == "symbol begun: symbol AAA, parts 1, tasks 4, tasks_kept 0, bars 400, entries 371"


def test_portfolios_of_many_legs_have_files_too(tmp_path: Path) -> None:
    """Their names are longer than a file's may be."""
    symbols = [f"COIN{n:02d}USDT" for n in range(20)]
    histories = [history_of(random_rows(n, 120, gaps=False), symbol) for n, symbol in enumerate(symbols)]
    sweep = bt.Sweep(portfolio=[dict.fromkeys(symbols, 0.05)], leverage=[3], horizon=["6h"], maintenance=[0.01])
    result = bt.run(histories, sweep, out=tmp_path / "run")
    assert len(result.table) == 2 and len(result.info["blocks"][0]["symbol"]) > 255
    (state,) = list_runs(tmp_path)
    assert state.state == "finished"
