"""Adding to a dataset: all of it or nothing, whoever reads, writes or dies meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest.data import object_store, transaction
from backtest.data.dataset import read_history, write_history
from backtest.data.history import PriceHistory
from backtest.data.quality.check import check
from backtest.data.reader import open_series
from backtest.data.writer import Existing, adding
from backtest.errors import ConfigError, DataError
from backtest.units import instant_ms

ROOT = Path(__file__).parents[2]
DAY = 86_400_000
NAN = float("nan")
START = instant_ms("2020-12-30")  # the third bar opens a year
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def bars(close: list[float], start_ms: int = START, **columns: list[float]) -> PriceHistory:
    prices = {"high": np.array(close) + 0.5, "low": np.array(close) - 0.5, "close": np.array(close)}
    return PriceHistory("X", DAY, start_ms, prices | {name: np.array(values) for name, values in columns.items()})


def put(data: Path, existing: Existing, *stretches: PriceHistory) -> tuple[int, tuple[int, int]]:
    with adding(data, "X", DAY, existing) as addition:
        for stretch in stretches:
            addition.add(stretch)
    return addition.rows, addition.span_ms


def everything(data: Path) -> dict[str, int]:
    """Files below a folder, and which ones on the disk."""
    return {str(path.relative_to(data)): path.stat().st_ino for path in sorted(data.rglob("*")) if path.is_file()}


def closes(data: Path) -> list[float]:
    return [None if np.isnan(v) else v for v in read_history(data).columns["close"].tolist()]


# --- what is joined with what -----------------------------------------------------------------------------------------


def test_stretches_are_the_whole(tmp_path: Path) -> None:
    whole = bars([float(n) for n in range(5, 805)], volume=[float(n) for n in range(800)])
    write_history(whole, tmp_path / "whole")
    cuts = [0, 1, 30, 33, 400, 799, 800]
    parts = [
        PriceHistory("X", DAY, START + a * DAY, {name: values[a:b] for name, values in whole.columns.items()})
        for a, b in itertools.pairwise(cuts)
    ]
    assert put(tmp_path / "parts", "refuse", *parts) == (800, (START, START + 799 * DAY))
    for n, part in enumerate(parts):
        put(tmp_path / "one by one", "add" if n else "refuse", part)
    for other in ("parts", "one by one"):
        found = read_history(tmp_path / other)
        assert found.start_ms == START
        for name, values in whole.columns.items():
            np.testing.assert_array_equal(found.columns[name], values)
    layout = [f"interval=1d/symbol=X/year={year}" for year in (2020, 2021, 2022, 2023)]
    assert sorted({str(Path(name).parent) for name in everything(tmp_path / "one by one")}) == layout
    names = ["open_time", "high", "low", "close", "volume"]
    assert pq.read_schema(next((tmp_path / "parts").rglob("*.parquet"))).names == names


def test_bars_that_agree_are_joined_and_a_null_takes_the_value(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0, 11.0, NAN, 13.0], funding_rate=[NAN, 0.1, NAN, NAN]))
    put(tmp_path, "add", bars([11.0, 12.0, NAN, 14.0], START + DAY, volume=[5.0, 6.0, 7.0, 8.0]))
    found = read_history(tmp_path)
    assert found.columns["close"].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]
    np.testing.assert_array_equal(found.columns["funding_rate"], [NAN, 0.1, NAN, NAN, NAN])
    np.testing.assert_array_equal(found.columns["volume"], [NAN, 5.0, 6.0, 7.0, 8.0])


def test_the_first_value_that_differs_is_named(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0, 11.0, 12.0, 13.0], volume=[1.0, 2.0, 3.0, 4.0]))
    before = everything(tmp_path)
    text = (
        r"symbol=X: column volume of the bar of 2020-12-31T00:00Z is 2 there and 2.5 in what is added \(1 such bars\); "
        r".* overwrite"
    )
    with pytest.raises(DataError, match=text):  # before the close of the next year
        put(tmp_path, "add", bars([11.0, 12.5], START + DAY, volume=[2.5, 3.0]))
    assert everything(tmp_path) == before


def test_replaced_bars_take_the_new_values_and_others_stay(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0, 11.0, 12.0, 13.0], funding_rate=[0.1, 0.2, 0.3, 0.4], volume=[1.0] * 4))
    put(tmp_path, "replace", bars([21.0, NAN], START + DAY, funding_rate=[NAN, NAN]))
    found = read_history(tmp_path).columns
    assert found["close"].tolist() == [10.0, 21.0, 12.0, 13.0]  # the second bar added has no value: it is none
    np.testing.assert_array_equal(found["funding_rate"], [0.1, NAN, 0.3, 0.4])  # a null is a value of a bar
    assert found["volume"].tolist() == [1.0] * 4  # a column that was not added


def test_anew_lets_go_of_everything(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0, 11.0, 12.0, 13.0]))
    put(tmp_path, "anew", bars([20.0]))
    assert closes(tmp_path) == [20.0]
    assert [Path(name).parent.name for name in everything(tmp_path)] == ["year=2020"]


def test_only_years_with_new_bars_are_written(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0] * 800))
    note = tmp_path / "interval=1d/symbol=X/readme.txt"
    note.write_text("mine")
    before = everything(tmp_path)
    put(tmp_path, "add", bars([10.0], START + 800 * DAY))
    after = everything(tmp_path)
    assert set(before.items()) - set(after.items()) == {
        (name, inode) for name, inode in before.items() if "year=2023" in name
    }
    assert note.read_text() == "mine"
    assert len(closes(tmp_path)) == 801


def test_other_programs_read_the_layout(tmp_path: Path) -> None:
    import pyarrow.dataset as ds

    put(tmp_path, "refuse", bars([10.0, 11.0, 12.0, 13.0]))
    put(tmp_path, "add", bars([14.0], START + 4 * DAY))
    table = ds.dataset(tmp_path, partitioning="hive").to_table().sort_by("open_time")
    assert table["close"].to_pylist() == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert table["symbol"].to_pylist() == ["X"] * 5
    assert table["year"].to_pylist() == [2020, 2020, 2021, 2021, 2021]


def test_an_interval_spelled_otherwise_is_the_same(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0]))
    (tmp_path / "interval=1d").rename(tmp_path / "interval=24h")
    put(tmp_path, "add", bars([11.0], START + DAY))
    assert closes(tmp_path) == [10.0, 11.0]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_be_added_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0, 11.0]))
    before = everything(tmp_path)
    hourly = PriceHistory("X", DAY // 24, 0, {"close": np.ones(1)})
    other = PriceHistory("Y", DAY, 0, {"close": np.ones(1)})
    lower = PriceHistory("X", DAY, START, {"low": np.array([11.5])})  # the high there is 10.5
    for existing, stretches, error, text in (
        ("refuse", [bars([10.0])], ConfigError, "exists; choose another .* overwrite.* add"),
        ("add", [bars([12.0], START + 2 * DAY), bars([12.0], START + 2 * DAY)], DataError, "must follow each other"),
        ("add", [hourly], ConfigError, "of X at 1d; got X at 1h"),
        ("add", [other], ConfigError, "of X at 1d; got Y at 1d"),
        ("add", [], DataError, "no bar has any value"),
        ("replace", [lower], DataError, "high lies below low in the bar of 2020-12-30"),
    ):
        with pytest.raises(error, match=text):
            put(tmp_path, existing, *stretches)  # type: ignore[arg-type]
        assert everything(tmp_path) == before


def test_an_exception_in_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    put(tmp_path, "refuse", bars([10.0, 11.0]))
    before = everything(tmp_path)
    for error in (RuntimeError("no"), KeyboardInterrupt(), FileExistsError("theirs")):
        with pytest.raises(type(error)), adding(tmp_path, "X", DAY, "replace") as addition:
            addition.add(bars([20.0] * 400))
            raise error
        assert everything(tmp_path) == before
        with pytest.raises(type(error)), adding(tmp_path / "new", "X", DAY) as addition:
            addition.add(bars([20.0] * 400))
            raise error
        assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="nothing to write"), adding(tmp_path / "new", "X", DAY):
        pass
    assert not (tmp_path / "new").exists()


def test_files_that_would_lose_something_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "interval=1d/symbol=X/year=2020"
    folder.mkdir(parents=True)
    times = pa.array([START + n * DAY for n in range(3)], pa.timestamp("ms", "UTC"))
    table = pa.table({"open_time": times, "high": [2.0] * 3, "low": [1.0] * 3, "close": [1.0] * 3})
    pq.write_table(table, folder / "mine.parquet")
    with pytest.raises(DataError, match=r"mine\.parquet: holds bars outside of 2020"):
        put(tmp_path, "add", bars([1.5], START - DAY))
    pq.write_table(table.slice(0, 2).append_column("note", pa.array(["a", "b"])), folder / "mine.parquet")
    with pytest.raises(DataError, match="column note is unknown and would be lost"):
        put(tmp_path, "add", bars([1.5], START - DAY))
    put(tmp_path, "add", bars([1.5], START + 2 * DAY))  # another year: that file stays as it is
    assert closes(tmp_path) == [1.0, 1.0, 1.5]


# --- readers, writers, and those who die ------------------------------------------------------------------------------

WRITER = """
import sys, numpy as np
from backtest.data import transaction
from backtest.data.writer import adding
from backtest.data.history import PriceHistory
DAY = 86_400_000
if sys.argv[2] == "renames":
    transaction._exchange = lambda one, two: False
version = float(sys.argv[3])
def bars(days):
    close = np.full(days, version)
    return PriceHistory("X", DAY, 0, {"high": close, "low": close, "close": close})
def write():
    global version
    version += 1
    # Uneven states have two years, even ones one: a mixture shows in the values or in the number of bars.
    with adding(sys.argv[1], "X", DAY, "anew") as addition:
        addition.add(bars(730 if version % 2 else 365))
"""


FOR_EVER = "write()\nprint('ready', flush=True)\nwhile True: write()"


def writing(data: Path, how: str, version: int, script: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER + script, str(data), how, str(version)]
    writer = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if script == FOR_EVER:
        assert line(writer) == "ready\n"
    return writer


def line(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    return writer.stdout.readline()


def version_of(data: Path) -> int:
    """Which state a dataset is in; it must be one of those that were written."""
    history = read_history(data)
    found = np.unique(history.columns["close"])
    assert found.size == 1, found
    assert history.n_bars == (730 if found[0] % 2 else 365)
    return int(found[0])


@needs_posix
@pytest.mark.parametrize("how", ["exchange", "renames"])
def test_a_reader_sees_the_old_or_the_new_state(tmp_path: Path, how: str) -> None:
    writer = writing(tmp_path, how, 0, FOR_EVER)
    try:
        seen: list[int] = []
        until = time.monotonic() + 1.5
        while time.monotonic() < until or len(set(seen)) < 5:
            seen.append(version_of(tmp_path))
        assert seen == sorted(seen)
        assert all(check(tmp_path).ok for _ in range(20))
    finally:
        writer.kill()
        writer.communicate()


def test_a_listing_that_a_commit_falls_into_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The years are listed before it, the files after it: the new first bar would be seen, the new last one not."""
    put(tmp_path, "refuse", bars([10.0, 11.0, 12.0]))
    listdir, waiting = os.listdir, [True]

    def commit_first(folder: str | Path) -> list[str]:
        if str(folder).endswith("year=2020") and waiting and waiting.pop():
            put(tmp_path, "add", bars([9.0], START - DAY), bars([13.0] * 400, START + 3 * DAY))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", commit_first)
    assert closes(tmp_path) == [9.0, 10.0, 11.0, 12.0] + [13.0] * 400


KILLED_AT = """
import os, signal
write()
done = 0
for point in range(1000):
    child = os.fork()
    if child == 0:
        count = 0
        def step(event, arguments):
            global count
            count += event in ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "open", "os.truncate")
            if count > point:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(step)
        write()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("killed" if status else "done", flush=True)
    if not status:
        break
    sys.stdin.readline()
"""


@needs_posix
@pytest.mark.parametrize("how", ["exchange", "renames"])
def test_killed_at_any_step_the_old_or_the_new_state_is_there(tmp_path: Path, how: str) -> None:
    writer = writing(tmp_path, how, 0, KILLED_AT)
    assert writer.stdin is not None
    states = []
    while line(writer) == "killed\n":
        states.append(version_of(tmp_path))
        if states[-1] == 2:  # the next child must begin from the state before
            put_state(tmp_path, 1)
        writer.stdin.write("\n")
        writer.stdin.flush()
    writer.communicate()
    assert writer.returncode == 0
    assert len(states) > 10
    assert states == sorted(states)
    assert set(states) == {1, 2}  # killed before and after the step that counts
    assert version_of(tmp_path) == 2
    assert not [name for name in os.listdir(tmp_path / "interval=1d") if name.startswith(".")]


def put_state(data: Path, version: int) -> None:
    put(data, "anew", bars([float(version)] * (730 if version % 2 else 365), 0))


@needs_posix
def test_killed_at_any_moment_the_next_writer_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    version = 0
    for _ in range(4):
        writer = writing(tmp_path, "exchange", version, FOR_EVER)
        time.sleep(rng.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert version_of(tmp_path) > version
        version = version_of(tmp_path)
    put_state(tmp_path, version + 1)
    assert version_of(tmp_path) == version + 1
    assert os.listdir(tmp_path / "interval=1d") == ["symbol=X"]


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "WAIT_S", 0.1)
    put(tmp_path, "refuse", bars([10.0]))
    with adding(tmp_path, "X", DAY, "add") as first:
        first.add(bars([11.0], START + DAY))
        with pytest.raises(DataError, match=rf"symbol=X: is being written by process {os.getpid()} on \S+ since 20"):
            put(tmp_path, "add", bars([12.0], START + 2 * DAY))
        holder = json.loads((tmp_path / "interval=1d/.symbol=X.lock").read_text())
        assert (holder["pid"], set(holder)) == (os.getpid(), {"pid", "host", "since"})
        with adding(tmp_path, "Y", DAY) as other:  # another symbol is free
            other.add(PriceHistory("Y", DAY, 0, {"close": np.ones(1), "high": np.ones(1), "low": np.ones(1)}))
    assert read_history(tmp_path, "X").columns["close"].tolist() == [10.0, 11.0]
    assert read_history(tmp_path, "Y").n_bars == 1


@needs_posix
def test_two_writers_both_add(tmp_path: Path) -> None:
    """Each adds fifteen bars of its own, one at a time: none is lost."""
    script = """
for n in range(15):
    with adding(sys.argv[1], "X", DAY, "add") as addition:
        close = np.ones(1)
        start = (2 * n + int(version)) * DAY
        addition.add(PriceHistory("X", DAY, start, {"high": close, "low": close, "close": close}))
"""
    writers = [writing(tmp_path, "exchange", number, script) for number in (0, 1)]
    assert [writer.communicate()[1] or writer.returncode for writer in writers] == [0, 0]
    assert read_history(tmp_path).columns["close"].tolist() == [1.0] * 30
    assert os.listdir(tmp_path / "interval=1d") == ["symbol=X"]


def test_a_file_system_without_links_and_swaps_does_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*paths: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(transaction, "_exchange", lambda one, two: False)
    put(tmp_path, "refuse", bars([10.0] * 400))
    put(tmp_path, "add", bars([11.0], START + 400 * DAY))
    assert closes(tmp_path) == [10.0] * 400 + [11.0]
    assert os.listdir(tmp_path / "interval=1d") == ["symbol=X"]


def test_moved_aside_the_symbol_is_still_read(tmp_path: Path) -> None:
    """The state of a writer that was killed between two renames."""
    put(tmp_path, "refuse", bars([10.0] * 400))
    folder = tmp_path / "interval=1d/symbol=X"
    folder.rename(folder.with_name(".symbol=X.old"))
    assert closes(tmp_path) == [10.0] * 400
    assert open_series(tmp_path, "X", "1d").symbol == "X"
    put(tmp_path, "add", bars([11.0], START + 400 * DAY))
    assert closes(tmp_path) == [10.0] * 400 + [11.0]
    assert os.listdir(tmp_path / "interval=1d") == ["symbol=X"]
