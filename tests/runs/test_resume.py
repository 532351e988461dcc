"""A run goes on from what it had finished, unless it is no longer the same run, which is said."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import backtest as bt
from backtest.runs import plan
from backtest.runs import tasks as jobs
from tests._support.histories import history_of, random_rows
from tests._support.kills import content
from tests.cli.conftest import typed
from tests.runs.conftest import CONFIG, failing, finishes, info, kept, run, stopped

# --- interrupted ------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_says_how_to_go_on(market: Path, place: Path, monkeypatch, caplog) -> None:
    stopped(monkeypatch, 10)
    assert "10 finished tasks are kept; go on with --resume --out out" in caplog.text
    code, said = run()
    assert code == 2
    assert "out: of an unfinished run 10 finished tasks are kept; go on with --resume, or begin anew" in said
    finishes(market, 10)


def test_what_is_kept_is_dropped_only_when_asked(market: Path, place: Path, monkeypatch) -> None:
    stopped(monkeypatch, 10)
    assert run("--overwrite") == (0, "")
    assert kept() == 0 and content(Path("out")) == content(market / "whole")


def test_a_replacing_run_goes_on_when_it_is_said_twice(market: Path, place: Path, monkeypatch, caplog) -> None:
    """With a finished run there, --resume alone might mean either."""
    assert run() == (0, "")
    before = info()
    stopped(monkeypatch, 5, "--overwrite")
    assert "go on with --resume --overwrite --out out" in caplog.text
    code, said = run("--resume")
    assert (code, info()) == (2, before) and "out: exists already" in said
    finishes(market, 5, "--overwrite")


def test_resume_finds_the_run_that_the_default_named(place: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        failing(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        assert typed("run", "sweep.toml").code == 130
    (unfinished,) = Path("runs").glob(".*.partial")
    assert typed("run", "sweep.toml", "--resume").code == 0
    assert sorted(os.listdir("runs")) == [unfinished.name.removeprefix(".").removesuffix(".partial")]
    done = typed("run", "sweep.toml", "--resume")
    assert (done.code, done.err) == (
        2,
        "error: --resume: runs holds 0 unfinished runs of sweep; name the one that is meant with --out\n",
    )


def test_resuming_a_finished_run_is_that_run(place: Path) -> None:
    assert run() == (0, "")
    before = info()
    assert run("--resume") == (0, "")
    assert info() == before


# --- not the same run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
def test_another_configuration_is_named(place: Path, monkeypatch, finished: bool) -> None:
    if finished:
        assert run()[0] == 0
    else:
        stopped(monkeypatch, 5)
    Path("sweep.toml").write_text(CONFIG.replace("0.02", "0.03").replace("1d", "2d"))
    code, said = run("--resume")
    assert code == 2
    assert 'sweep.horizon (["1h", "1d", "7d"] before, ["1h", "2d", "7d"] now); ' in said
    assert "sweep.maintenance ([0.004, 0.02] before, [0.004, 0.03] now): begin anew with --overwrite and" in said


@pytest.mark.parametrize("finished", [False, True])
def test_another_code_is_named(place: Path, monkeypatch, finished: bool) -> None:
    if finished:
        assert run()[0] == 0
    else:
        stopped(monkeypatch, 5)
    monkeypatch.setattr(plan, "code_version", lambda: "numpy 99")
    code, said = run("--resume")
    assert code == 2 and re.search(r'code \(".*" before, "numpy 99" now\)', said)


def test_another_file_that_the_configuration_names_is_named(place: Path, monkeypatch) -> None:
    """The same configuration, byte by byte, with other tiers behind it."""
    tiers = "floor,cap,mmr,deduction,max_leverage\n0,20000,{},0,125\n"
    Path("tiers.csv").write_text(tiers.format(0.004))
    sized = CONFIG.replace("[0.004, 0.02]", '["tiers.csv"]\nsize = [{ notional = 1000 }]')
    Path("sweep.toml").write_text(sized)
    stopped(monkeypatch, 3)
    Path("tiers.csv").write_text(tiers.format(0.005))
    code, said = run("--resume")
    assert code == 2 and 'files.tiers.csv ("' in said


def test_a_symbol_that_is_gone_is_named(place: Path, monkeypatch) -> None:
    stopped(monkeypatch, 10)
    shutil.rmtree("data/interval=1h/symbol=AAA")
    code, said = run("--resume")
    assert code == 2 and 'symbols (["AAA", "BBB", "CCC"] before, ["BBB", "CCC"] now)' in said


def rewritten(symbol: str, seed: int) -> None:
    bt.write_history(history_of(random_rows(seed, 3_000), symbol), "data", overwrite=True)


@pytest.mark.parametrize(("symbol", "expected"), [("AAA", 2), ("BBB", 8), ("CCC", 10)])
def test_changed_data_are_counted_anew(place: Path, monkeypatch, caplog, symbol: str, expected: int) -> None:
    """Ten tasks: the eight of AAA, and two of BBB."""
    stopped(monkeypatch, 10)
    rewritten(symbol, 99)
    assert run("--resume") == (0, "")
    assert kept() == expected
    assert (f"{symbol}: its data have changed since its first tasks" in caplog.text) == (symbol != "CCC")
    assert typed("run", "sweep.toml", "--out", "anew").code == 0
    assert content(Path("out")) == content(Path("anew"))


def test_data_written_again_as_they_were_are_not(market: Path, place: Path, monkeypatch, caplog) -> None:
    stopped(monkeypatch, 10)
    caplog.clear()
    rewritten("AAA", 0)
    finishes(market, 10)
    assert not caplog.text


def test_changed_data_of_a_finished_run_are_named(place: Path) -> None:
    assert run() == (0, "")
    rewritten("BBB", 99)
    code, said = run("--resume")
    assert code == 2 and re.search(
        r'out: is a finished run that differs in data.BBB \("\w+" before, "\w+" now\): ', said
    )
    rewritten("BBB", 1)
    assert run("--resume") == (0, "")


def test_fewer_tasks_leave_no_file_of_more(place: Path, monkeypatch) -> None:
    """A history that shrank from 18 blocks to 6 has smaller tables, and more of them fit a task."""
    monkeypatch.setattr(jobs, "CELLS_PER_TASK", 60_000)
    stopped(monkeypatch, 8)
    bt.write_history(history_of(random_rows(0, 900), "AAA"), "data", overwrite=True)
    assert run("--resume") == (0, "")
    assert typed("run", "sweep.toml", "--out", "anew").code == 0
    assert [task["task"][:3] for task in info()["tasks"]].count("AAA") < 8
    assert content(Path("out")) == content(Path("anew"))
