"""Whatever happens to a run, what it has finished is kept, and what it says is what an undisturbed run says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest.data import object_store
from backtest.data.transaction import locked
from backtest.engine.kernels.jit import sealed
from backtest.runs import run as runner
from backtest.runs import run_directory
from backtest.runs import tasks as jobs
from backtest.runs.executors import thread_pool
from tests._support.kills import content
from tests.runs.conftest import SMALL, TASKS, failing, finishes, info, run, stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")
ROOT = Path(__file__).parents[2]


# --- killed -----------------------------------------------------------------------------------------------------------


def killed(folder: Path, *words: object) -> dict:
    command = [sys.executable, "-m", "tests._support.kills", *map(str, (words[0], folder, *words[1:]))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)


def test_fifty_kills_at_random_times_change_nothing(place: Path) -> None:
    seen = killed(place, "timed", 50, 20261122)
    assert seen.pop("kills") >= 50
    assert seen.pop("kills with some tasks kept") >= 25
    assert seen.pop("runs") >= 1
    assert set(seen.values()) == {0}, seen


def test_kills_while_a_run_takes_its_place_lose_nothing(place: Path) -> None:
    """Before each rename, sync and removal; that of an old run included, which is there until the new one is."""
    Path("sweep.toml").write_text(SMALL)
    for seen in killed(place, "steps").values():
        assert seen.pop("kills") >= 10
        assert set(seen.values()) == {0}, seen


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_asked_to_end_keeps_what_was_finished(
    market: Path, place: Path, monkeypatch, caplog, workers: int
) -> None:
    """`kill`, or a batch system whose time is up: exit 143, which is 128 + SIGTERM."""
    with monkeypatch.context() as patch:
        failing(patch, 10, lambda: signal.raise_signal(signal.SIGTERM))
        assert run("--workers", workers) == (143, "terminated\n")
    assert "10 finished tasks are kept; go on with --resume --out out" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finishes(market, 10)


# --- the disk ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small disk of its own; skips where none may be mounted."""
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


FULL = "cannot be written (No space left on device); make room there, or name another disk with --out"


def test_a_full_disk_keeps_what_was_finished(market: Path, place: Path, caplog) -> None:
    """A disk that fills up again and again, with 100 kB more each time, which is less than the table alone needs."""
    with mounted(place / "disk", "size=64m"):
        ballast, seen = Path("disk/ballast"), []
        while TASKS not in seen:
            used = sum(file.stat().st_blocks * 512 for file in Path("disk").rglob("*") if file != ballast)
            with ballast.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, (64 << 20) - used - 100_000)
            caplog.clear()
            code, said = run("--resume", out="disk/out")
            assert code == 1 and FULL in said
            found = re.search(r"(\d+) finished tasks are kept; go on with --resume --out disk/out", caplog.text)
            seen.append(int(found[1]))
            assert not Path("disk/out").exists()
        ballast.unlink()
        assert len(seen) > 3 and seen == sorted(set(seen))
        assert run("--resume", out="disk/out") == (0, "")
        assert content(Path("disk/out")) == content(market / "whole")


@pytest.mark.parametrize("limit", [9_000, 20_000])
def test_a_limit_on_files_keeps_what_was_finished(market: Path, place: Path, limit: int) -> None:
    """No file may grow beyond it: a few blocks only, or all of them but no table."""
    code = (
        "import resource, sys; from backtest.runs import tasks; tasks.CELLS_PER_TASK = 2_000\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.argv[1:] = 'run sweep.toml --out out --workers 2'.split()\n"
        "from backtest.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot be written (File too large)" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    found = re.search(r"(\d+) finished tasks are kept; go on with --resume --out out", done.stderr)
    assert found is not None
    assert (int(found[1]) == TASKS) == (limit == 20_000)
    finishes(market, int(found[1]))


def test_a_place_that_cannot_be_written_is_refused_at_the_start(place: Path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "count_jobs", lambda *rest: pytest.fail("work was begun"))
    with mounted(place / "disk", "size=1m,ro"):
        for out in ("disk/out", "disk/new/out"):
            code, said = run(out=out)
            assert (code, said) == (
                1,
                f"error: {out}: cannot be written (Read-only file system); name a folder that can with --out\n",
            )
    Path("file").write_text("")
    code, said = run(out="file/out")
    assert code == 1 and said.startswith("error: file/out: cannot be written (")


def test_a_damaged_part_is_counted_again(market: Path, place: Path, monkeypatch) -> None:
    """A block cut off, one changed in one bit, one gone, an entry cut off, one gone; and a plan that is unreadable."""
    stopped(monkeypatch, 20)
    partial = run_directory.partial_directory(Path("out"))
    blocks, entries = partial / "run/blocks", partial / "journal/tasks"
    first = blocks / "AAA-00001.parquet"
    first.write_bytes(first.read_bytes()[:-1])
    second = bytearray((blocks / "BBB-00002.parquet").read_bytes())
    second[len(second) // 2] ^= 1
    (blocks / "BBB-00002.parquet").write_bytes(second)
    (blocks / "CCC-00000.month.parquet").unlink()
    (entries / "CCC-00001.json").write_text('{"key": "')
    (entries / "CCC-00002.json").unlink()
    (partial / "plan.json").write_text("{")
    finishes(market, 15)


# --- the data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True], ids=["truncated", "vanished"])
def test_an_input_that_fails_in_the_middle_is_named_and_nothing_lost(
    market: Path, place: Path, monkeypatch, caplog, gone: bool
) -> None:
    """While AAA is counted BBB is read; CCC, which fails, is not yet: what is under way is finished, 16 of 24 tasks."""
    (file,) = Path("data").rglob("symbol=CCC/*/*.parquet")
    whole = file.read_bytes()

    def spoil() -> None:
        if gone:
            shutil.rmtree("data/interval=1h/symbol=CCC")
        else:
            file.write_bytes(whole[: len(whole) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(thread_pool, "AHEAD", 1)
        failing(patch, 1, spoil)
        code, said = run("--workers", 2)
    assert code == 1
    assert ("CCC" if gone else f"{file}: not a readable Parquet file; truncated") in said, said
    assert "16 finished tasks are kept; go on with --resume --out out" in caplog.text
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(whole)
    finishes(market, 16)


# --- memory, clock, cache, others -------------------------------------------------------------------------------------


def test_a_task_out_of_memory_loses_no_other(market: Path, place: Path, monkeypatch, caplog) -> None:
    real, calls = jobs.count_entries, []

    def count(*words: object) -> object:
        calls.append(words)
        if len(calls) == 12:
            raise MemoryError("Unable to allocate 3.00 GiB")
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "count_entries", count)
        code, said = run("--workers", 1)
    assert (code, said) == (
        1,
        "error: out of memory (Unable to allocate 3.00 GiB); fewer --workers or a smaller --memory need less\n",
    )
    assert "11 finished tasks are kept; go on with --resume --out out" in caplog.text
    finishes(market, 11)


def test_a_clock_that_jumps_disturbs_nothing(market: Path, place: Path, monkeypatch) -> None:
    """The wall clock goes back by years and forth again at every look."""
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1.6e9 + (-1) ** next(jumps) * 1e8)
    monkeypatch.setattr(time, "gmtime", lambda *when, real=time.gmtime: real(*when) if when else real(time.time()))
    with monkeypatch.context() as patch:
        failing(patch, 9, lambda: signal.raise_signal(signal.SIGINT))
        assert run("--log", "log.jsonl") == (130, "\ninterrupted\n")
    assert run("--resume", "--log", "log.jsonl") == (0, "")
    assert content(Path("out")) == content(market / "whole")
    seconds = [value for task in info()["tasks"] for value in (task["seconds"], task["cpu_seconds"])]
    assert min(seconds) >= 0 and 0 < info()["cpu_seconds"] < 600
    assert 0 < sum(task["seconds"] for task in info()["tasks"]) <= info()["wall_seconds"] < 600
    assert len({json.loads(line)["time"][:4] for line in Path("log.jsonl").read_text().splitlines()}) == 2


def test_damaged_kernels_are_compiled_again(market: Path, place: Path) -> None:
    """A flipped bit in the machine code of the sweep gives the same tables, not others."""
    here = Path(os.environ["NUMBA_CACHE_DIR"])
    cache = place / "cache"
    shutil.copytree(here, cache)
    spoilt = list(cache.rglob("window_max.adverse_series-*.nbc"))
    assert spoilt
    for file in spoilt:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert not any(sealed(file.read_bytes()) for file in spoilt)
    code = (
        "import sys; from backtest.runs import tasks; tasks.CELLS_PER_TASK = 2_000\n"
        "sys.argv[1:] = 'run sweep.toml --out out'.split()\nfrom backtest.cli import main; main()"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert content(Path("out")) == content(market / "whole")
    assert any(sealed(file.read_bytes()) for file in spoilt)  # that of this run, compiled anew and kept


def test_two_runs_never_write_one_directory(market: Path, place: Path, monkeypatch) -> None:
    monkeypatch.setattr(object_store, "WAIT_S", 0.1)
    with locked(Path("out").absolute()):
        code, said = run()
    assert code == 1
    assert re.match(
        rf"error: out: is being written by process {os.getpid()} on .* since .*; wait until it is done", said
    )


def test_the_lock_of_a_dead_process_is_no_obstacle(market: Path, place: Path) -> None:
    Path(".out.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00Z"}))
    finishes(market, 0)


def test_the_work_of_all_attempts_is_counted_in_the_times(place: Path, monkeypatch) -> None:
    """Twenty tasks of at least 0.03 s each before the interruption, four quick ones after it."""
    with monkeypatch.context() as patch:
        patch.setattr(
            jobs, "count_entries", lambda *words, real=jobs.count_entries: (time.sleep(0.03), real(*words))[1]
        )
        stopped(patch, 20, "--workers", 1)
    begun = time.perf_counter()
    assert run("--resume") == (0, "")
    last = time.perf_counter() - begun
    before = sum(task["seconds"] for task in info()["tasks"] if task["kept"])
    assert 0.6 <= before <= info()["wall_seconds"] <= before + last
