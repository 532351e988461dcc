"""Runs through dask.distributed equal those of threads, whatever happens to workers and scheduler meanwhile.

All processes are of this machine, at 127.0.0.1.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.errors import ConfigError, DataError
from tests._support.histories import HOUR, history_of, random_rows
from tests.cli.conftest import typed

distributed = pytest.importorskip("distributed")
if sys.platform == "win32":
    pytest.skip("processes are killed by signals", allow_module_level=True)

import dask  # noqa: E402

from backtest.config.models import load_config  # noqa: E402
from backtest.runs import run as runner  # noqa: E402
from backtest.runs.executors import dask_cluster, make_executor  # noqa: E402
from backtest.runs.run import run  # noqa: E402
from backtest.runs.tasks import Job, RunInputs, Task  # noqa: E402
from backtest.runs.worker_task import HELD_PARTS, TaskCounter, describe_data, make_counter, worker_check  # noqa: E402
from backtest.stats.survival_table import COUNTS, SurvivalTable  # noqa: E402
from backtest.units import instant_text  # noqa: E402
from tests._support.processes import ROOT, After, Processes, until  # noqa: E402

SWEEP = """\
[data]
path = "data"
[sweep]
leverage = [3, 11.5, 40]
horizon = ["2h", "1d"]
maintenance = [0.004, "tiers.csv"]
size = [{ notional = 5000.0 }]
funding = [{}, { scale = 2.0 }]
[statistics]
outcomes = true
regimes = [{ by = "weekday" }]
"""
"""2 symbols × 2 sides × 2 rules × 2 fundings: 16 groups, of sums of floats that depend on the order of addition."""
PLAIN = """\
[data]
path = "data"
[sweep]
horizon = ["2h", "1d"]
maintenance = [0.01]
"""
PORTFOLIO = PLAIN + "leverage = [3, 11.5, 40]\nportfolio = [{ AAA = 0.7, BBB = -0.3 }, { AAA = 0.5, BBB = 0.5 }]\n"
TRADES = PLAIN + '[entries]\nfile = "trades.csv"\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, configurations, and the results of threads: ``sweep``, ``portfolio``, ``trades``."""
    folder = tmp_path_factory.mktemp("dask")
    for seed, symbol in enumerate(("AAA", "BBB")):
        bt.write_history(history_of(random_rows(seed, 800, gaps=seed > 0), symbol), folder / "data")
    (folder / "tiers.csv").write_text("floor,cap,mmr,max_leverage\n0,4000,0.005,\n4000,,0.01,\n")
    trades = [f"{instant_text(t * HOUR)},{'long' if t % 2 else 'short'},{5 + t % 7},AAA" for t in range(30, 700, 13)]
    (folder / "trades.csv").write_text("\n".join(["entry_time,side,leverage,symbol", *trades]) + "\n")
    for name, text in (("sweep", SWEEP), ("portfolio", PORTFOLIO), ("trades", TRADES)):
        (folder / f"{name}.toml").write_text(text)
        run(folder / f"{name}.toml", out=folder / name)
    return folder


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits for what is done when its first group is finished."""
    monkeypatch.setattr(runner, "WAITING", 0)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    made = Processes(tmp_path_factory.mktemp("workers"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def two(processes: Processes) -> Processes:
    """The scheduler with two workers of one thread each, whatever the test before has killed."""
    processes.have_workers(2)
    return processes


def same(one: Path, two: Path) -> bool:
    """Whether two runs have the same tables, to the byte."""
    tables = ["survival.parquet", *(["outcomes.parquet"] if (one / "outcomes.parquet").exists() else [])]
    return all((one / table).read_bytes() == (two / table).read_bytes() for table in tables)


# --- the same answer --------------------------------------------------------------------------------------------------


def test_processes_of_this_machine_give_the_bytes_that_threads_give(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("backtest.engine.cohorts.CHUNK_BARS", 200)  # 4 chunks of a group, added in their order
    run(place / "sweep.toml", out=tmp_path / "threads")
    done = typed("run", place / "sweep.toml", "--out", tmp_path / "dask", "--workers", "dask:2")
    assert (done.code, done.err) == (0, "")
    assert same(tmp_path / "dask", tmp_path / "threads")


@pytest.mark.parametrize("name", ["portfolio", "trades"])
def test_a_scheduler_gives_the_bytes_that_threads_give(place, two, tmp_path, name, monkeypatch) -> None:
    monkeypatch.chdir(place)  # paths relative to here mean nothing to the workers
    done = typed("run", f"{name}.toml", "--out", tmp_path / "run", "--scheduler", two.address)
    assert (done.code, done.err) == (0, "")
    assert same(tmp_path / "run", place / name)


def test_an_executor_keeps_order_and_bounds_what_is_under_way(two, monkeypatch) -> None:
    monkeypatch.setattr(dask_cluster, "MOST_PER_BATCH", 5)
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for taken in range(1, 1001):
            yield -taken

    with make_executor(scheduler=two.address) as executor:
        assert executor.workers == 2
        for got, number in enumerate(executor.map(abs, numbers()), 1):
            assert number == got
            # 4 batches per worker are under way, of 5 numbers at most, and one is being given out
            assert taken <= got + 5 * (4 * 2 + 1)
    assert taken == 1000


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """The dataset and its configurations, to be spoilt."""
    return Path(shutil.copytree(place, tmp_path / "copy"))


# --- what happens to machines -----------------------------------------------------------------------------------------


def test_work_of_a_worker_killed_in_the_middle_of_it_is_done_by_the_other(place, two, tmp_path) -> None:
    with After(lambda: two.doom(1)):  # 8 of 16 pieces are with the workers by then, 8 are still to be sent
        run(place / "sweep.toml", out=tmp_path / "run", scheduler=two.address)
    until(lambda: two.killed() == 1, "one worker was killed")
    assert same(tmp_path / "run", place / "sweep")


def test_when_all_workers_are_killed_new_ones_go_on(place, two, tmp_path) -> None:
    def deed() -> None:
        two.kill_workers()
        two.start_worker()

    with After(deed):
        run(place / "sweep.toml", out=tmp_path / "run", scheduler=two.address)
    assert same(tmp_path / "run", place / "sweep")


def test_when_no_worker_comes_what_is_finished_is_kept(place, two, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(dask_cluster, "PATIENCE_S", 1.0)
    with After(two.kill_workers):
        done = typed("run", place / "sweep.toml", "--out", tmp_path / "run", "--scheduler", two.address)
    assert done.code == 1 and "no worker came within 1 s" in done.err and "--resume" in done.err
    assert any("all workers are lost; waiting up to 1 s" in line for line in caplog.messages)
    goes_on_here(place, tmp_path / "run")


def test_a_process_of_this_machine_that_is_killed_is_started_again(place, tmp_path) -> None:
    def deed() -> None:
        (process,) = multiprocessing.active_children()
        process.kill()

    with After(deed):
        run(place / "sweep.toml", out=tmp_path / "run", workers="dask:1")
    assert same(tmp_path / "run", place / "sweep")


def goes_on_here(place: Path, out: Path) -> None:
    """What was finished is kept, and the rest is done by threads; of 16 groups one at least, and never all."""
    assert not out.exists()
    result = run(place / "sweep.toml", out=out, resume=True)
    assert same(out, place / "sweep")
    assert 0 < sum(task["kept"] for task in result.info["tasks"]) < 16


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Processes]:
    """A scheduler with one worker, to be lost."""
    made = Processes(tmp_path)
    try:
        made.have_workers(1)
        yield made
    finally:
        made.close()


def test_when_the_scheduler_is_lost_the_run_goes_on_here_with_resume(place, own, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dask_cluster, "PATIENCE_S", 1.0)

    def deed() -> None:
        own.close()
        monkeypatch.setattr(dask_cluster, "ANSWER_S", 1.0)

    with After(deed):
        done = typed("run", place / "sweep.toml", "--out", tmp_path / "run", "--scheduler", own.address)
    assert done.code == 1 and "no scheduler answered within 1 s" in done.err and "--resume" in done.err
    goes_on_here(place, tmp_path / "run")


def test_a_new_scheduler_at_the_address_goes_on(place, own, tmp_path, caplog) -> None:
    def deed() -> None:
        own.close()
        own.start_scheduler()
        own.start_worker()

    with After(deed):
        run(place / "sweep.toml", out=tmp_path / "run", scheduler=own.address)
    assert same(tmp_path / "run", place / "sweep")
    assert any("a scheduler answers again" in line for line in caplog.messages)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_end_goes_on_at_the_cluster(place, two, tmp_path, sign, code) -> None:
    words = ["run", place / "sweep.toml", "--out", tmp_path / "run", "--scheduler", two.address]
    for again in ((), ("--overwrite",), ("--overwrite",)):  # Python loses what falls into a destructor of dask's
        with After(lambda: signal.raise_signal(sign)):
            ended = typed(*words, *again).code
        if ended:
            break
    assert ended == code
    assert typed(*words, *again, "--resume").code == 0
    assert same(tmp_path / "run", place / "sweep")


def die(item: int) -> int:
    """Work that takes the worker down, as being out of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_work_that_kills_every_worker_stops_the_run_and_a_killed_process_is_started_again() -> None:
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), make_executor("dask:1") as executor:
        with pytest.raises(DataError, match="took several workers down"):
            list(executor.map(die, [1]))
        assert list(executor.map(abs, [-2, 3])) == [2, 3]


class Odd:
    """What a worker with another version of a class may be sent."""

    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("odd",)


def test_what_a_worker_cannot_load_stops_the_run(two) -> None:
    said = "a worker cannot load the package (ValueError: invalid literal for int() with base 10: 'odd'); install"
    with make_executor(scheduler=two.address) as executor, pytest.raises(ConfigError, match=re.escape(said)):
        list(executor.map(Odd(), [1]))


# --- data that are not the same ---------------------------------------------------------------------------------------


def sent(file: Path, number: int) -> tuple[Job, tuple[TaskCounter, Task]]:
    """A job of a configuration, and a task of it as another process gets it, which holds nothing yet."""
    config = load_config(file)
    name, begin = RunInputs.of(file, config).jobs()[number]
    job = begin()
    task = Task(name, 0, tuple(job.groups[-1]), slice(100, 700), describe_data(job.part(0)))
    HELD_PARTS.clear()
    return job, pickle.loads(pickle.dumps((make_counter(config), task)))


def test_a_job_built_again_counts_the_same_and_refuses_files_that_changed(copy) -> None:
    job, (count, task) = sent(copy / "sweep.toml", 1)
    for here, there in zip(job.part(0).count(task.members, task.chunk), count(task), strict=True):
        assert (here.counts == there.counts).all()
        assert here.outcomes is None or (here.outcomes == there.outcomes).all()
    _, (count, task) = sent(copy / "sweep.toml", 1)
    (copy / "tiers.csv").write_text("floor,cap,mmr,max_leverage\n0,4000,0.005,\n4000,,0.02,\n")
    with pytest.raises(DataError, match=r"other data: .*tiers\.csv: found contents of digest .*; expected contents"):
        count(task)


def test_a_worker_that_reads_another_history_says_which(copy) -> None:
    _, (count, task) = sent(copy / "portfolio.toml", 0)
    bt.write_history(history_of(random_rows(9, 800), "BBB"), copy / "data", overwrite=True)
    with pytest.raises(DataError, match=r"BBB: found \d+ bars from 1970.*; expected \d+ bars from 1970"):
        count(task)


def test_a_worker_that_comes_later_with_other_code_stops_the_run(copy) -> None:
    _, (count, task) = sent(copy / "sweep.toml", 0)
    with pytest.raises(ConfigError, match=r"a worker has code \w+, numpy .*; expected 0123, numpy 0\.1; install the"):
        TaskCounter(replace(count.run, code="0123, numpy 0.1"), count.files)(task)


@pytest.mark.parametrize("most", [0, 255, 256, 70_000, 1 << 32, (1 << 63) - 1])
def test_counts_of_any_size_are_sent_whole(most) -> None:
    counts = np.arange(len(COUNTS), dtype=np.int64).reshape(-1, 1, 1, 1, 1)
    counts[0] = most
    there = pickle.loads(pickle.dumps(SurvivalTable(counts, 7)))
    assert there.counts.dtype == np.int64 and (there.counts == counts).all() and there.first_block == 7


# --- refused at the start ---------------------------------------------------------------------------------------------


def test_nobody_at_the_address_is_refused_and_nothing_is_left(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dask_cluster, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in ("127.0.0.1:9", f"tcp://127.0.0.1:{silent.getsockname()[1]}"):
            done = typed("run", place / "sweep.toml", "--out", tmp_path / "new" / "run", "--scheduler", address)
            assert done.code == 2 and f"{address}: a scheduler of dask.distributed is expected there" in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scheduler", "cluster"], "scheduler must be an address such as tcp://10.0.0.1:8786; got 'cluster'"),
        (["--scheduler", "a:1", "--workers", "2"], "leave out workers, or scheduler; got 2"),
        (["--workers", "dask:0"], "'dask:0' is not a valid integer, nor dask:N with N ≥ 1"),
        (["--workers", "dask:"], "'dask:' is not a valid integer, nor dask:N with N ≥ 1"),
        (["--workers", "many"], "'many' is not a valid integer, nor dask:N with N ≥ 1"),
    ],
)
def test_words_that_name_no_workers_are_refused(place, tmp_path, words, message) -> None:
    done = typed("run", place / "sweep.toml", "--out", tmp_path / "run", *words)
    assert done.code == 2 and message in done.err


@pytest.mark.parametrize("workers", ["dask:0", "dask:", "dask:-1", "4", "dask:10000"])
def test_text_is_not_a_number_of_threads(workers) -> None:
    with pytest.raises(ConfigError, match=f"'dask:N' with 1 to 9999 processes; got '{workers}'"):
        make_executor(workers)


def test_histories_in_memory_are_refused() -> None:
    sweep = bt.Sweep(leverage=[3], horizon=["2h"], maintenance=[0.01])
    with pytest.raises(ConfigError, match=r"history in memory .* dataset that all of them see"):
        bt.run(history_of(random_rows(1, 50)), sweep, workers="dask:2")


@pytest.fixture
def refused(place: Path, tmp_path: Path) -> Callable[..., str]:
    """What is said where a cluster is refused; nothing is left behind then."""

    def said(processes: Processes, config: str = "sweep.toml") -> str:
        done = typed("run", place / config, "--out", tmp_path / "run", "--scheduler", processes.address)
        assert done.code == 2 and not (tmp_path / "run").exists()
        assert not list(tmp_path.glob(".run*"))
        return done.err

    return said


def test_a_scheduler_without_workers_is_refused(processes, refused) -> None:
    processes.kill_workers()
    processes.have_workers(0)
    assert "the scheduler has 0 workers, at least 1 is expected; start some with `dask worker tcp" in refused(processes)


@pytest.mark.filterwarnings("ignore:Mismatched versions found")
def test_workers_with_another_numpy_or_another_package_or_none_are_refused(processes, refused, tmp_path) -> None:
    numpy, package, none = (tmp_path / name for name in ("numpy", "package", "none"))
    (numpy / "numpy-0.1.dist-info").mkdir(parents=True)
    (numpy / "numpy-0.1.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 0.1\n")
    shutil.copytree(ROOT / "backtest", package / "backtest", ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "backtest" / "units.py").open("a") as file:
        file.write("# one line more\n")
    (none / "backtest").mkdir(parents=True)
    (none / "backtest" / "__init__.py").write_text('raise ImportError("no such package here")\n')
    said = []
    for folder in (numpy, package, none):
        processes.kill_workers()
        processes.have_workers(1, cwd=folder, packages=folder)
        said.append(refused(processes))
    processes.kill_workers()
    assert all(f"{processes.address}: worker tcp://127.0.0.1" in text for text in said)
    (one, *libraries), (expected, *others) = halves(said[0])
    assert one == expected and libraries == ["numpy 0.1", *others[1:]]
    (one, *libraries), (expected, *others) = halves(said[1])
    assert one != expected and libraries == others
    assert "cannot load the package" in said[2] and "no such package here" in said[2]


def halves(text: str) -> list[list[str]]:
    """Digest of the code and versions, as found and as expected."""
    found = re.search(r" has (.*); expected (.*); install", text)
    assert found, text
    return [half.split(", ") for half in found.groups()]


def test_workers_that_do_not_see_the_dataset_are_refused_by_name(copy, two) -> None:
    needs = worker_check(load_config(copy / "sweep.toml"))
    with make_executor(scheduler=two.address) as executor:
        executor.require(needs)
        (copy / "tiers.csv").unlink()
        with pytest.raises(ConfigError, match=r"worker tcp://127.*tiers\.csv: found nothing; expected"):
            executor.require(needs)
        (copy / "data").rename(copy / "elsewhere")
        with pytest.raises(ConfigError, match=r"worker tcp://127.*data.*every worker must see it"):
            executor.require(needs)


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="a path that leads elsewhere in each process")
def test_a_dataset_that_only_this_process_sees_is_refused(place, two, refused, monkeypatch) -> None:
    monkeypatch.chdir(place)
    (place / "only-here").symlink_to("data")
    (place / "here.toml").write_text(SWEEP.replace('"data"', '"/proc/self/cwd/only-here"'))
    said = refused(two, "here.toml")
    where = r"error: worker tcp://127\.0\.0\.1:\d+: /proc/self/cwd/only-here does not exist"
    assert re.match(where + r".*; every worker must see it, on a shared disk or in an object store\n", said), said
