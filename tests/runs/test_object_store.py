"""Datasets and runs at ``s3://…``, against an S3 server in this process; credentials never show."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest import filesystem
from backtest.data import object_store
from backtest.data.dataset import list_series, read_history
from backtest.data.files import files_in
from backtest.data.inventory import inventory
from backtest.data.object_store import MANIFEST
from backtest.data.quality.check import check
from backtest.data.resample import resample_dataset
from backtest.data.writer import Existing, adding
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Remote, local, resolved, scrubbed, to_place
from backtest.runs import checkpoint
from backtest.runs import run as runner
from backtest.runs.registry import list_runs
from tests._support.histories import HOUR, history_of, random_rows
from tests.cli.conftest import typed

DAY = 24 * HOUR
KEY, SECRET = "AKIDOFTHISTEST", "the-secret/of+this=test"
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server with nothing in it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    one = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    one.start()
    host, port = one.get_host_and_port()
    yield f"http://{host}:{port}"
    one.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """URI of a new bucket, whose credentials stand in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.name)):x}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT"))
    return f"s3://{name}"


def bars(close: float, start_ms: int = 0, count: int = 1) -> bt.PriceHistory:
    price = np.full(count, close)
    return bt.PriceHistory("X", DAY, start_ms, {"high": price, "low": price, "close": price})


def put(data: str, existing: Existing, *stretches: bt.PriceHistory) -> None:
    with adding(data, "X", DAY, existing) as addition:
        for stretch in stretches:
            addition.add(stretch)


def closes(data: str) -> list[float]:
    return read_history(data).columns["close"].tolist()


def remote(uri: str) -> Remote:
    place = to_place(uri)
    assert isinstance(place, Remote)
    return place


def names(folder: str) -> list[str]:
    return [file.name for file in remote(folder).files()]


SWEEP = '[sweep]\nhorizon = ["1d"]\nmaintenance = [0.004]\n'


def config(data: str, sweep: str = SWEEP, file: Path = Path("c.toml")) -> Path:
    file.write_text(f'[data]\npath = "{data}"\n{sweep}')
    return file


# --- datasets ---------------------------------------------------------------------------------------------------------


def test_a_dataset_is_written_added_to_and_read_as_on_a_disk(bucket: str, tmp_path: Path) -> None:
    history = history_of(random_rows(3, 24 * 500))
    both = [f"{bucket}/some data", str(tmp_path / "data")]
    for data in both:
        bt.write_history(history, data)
        with adding(data, "TEST", HOUR, "add") as addition:
            cut = {name: values[-30:] for name, values in history.columns.items()}
            addition.add(bt.PriceHistory("TEST", HOUR, history.start_ms + history.n_bars * HOUR, cut))
        with pytest.raises(ConfigError, match="symbol=TEST exists"):
            bt.write_history(history, data)
        assert [one.path.name for one in resample_dataset(data, ["4h"], data)] == ["symbol=TEST"]
    there, here = (read_history(data, interval="1h", start="1970-03-01", end="1971-02-01T05:00") for data in both)
    assert (there.start_ms, there.n_bars) == (here.start_ms, here.n_bars)
    for name, values in here.columns.items():
        np.testing.assert_array_equal(there.columns[name], values)
    assert list_series(both[0]) == list_series(both[1])
    held = [[(one.interval, one.first, one.last, one.bars, one.charges) for one in inventory(data)] for data in both]
    assert held[0] == held[1]
    assert all(one.bytes > 1000 for one in inventory(both[0]))
    assert check(both[0]).ok
    part = f"{both[0]}/interval=4h/symbol=TEST"
    assert read_history(part).n_bars == read_history(both[1], interval="4h").n_bars


def test_one_parquet_file_is_a_dataset(bucket: str, tmp_path: Path) -> None:
    path = bt.write_history(bars(7.0, 0, 5), tmp_path)
    remote(f"{bucket}/BTC.parquet").upload(path / "year=1970" / "part-0.parquet")
    history = read_history(f"{bucket}/BTC.parquet")
    assert (history.symbol, history.interval_ms, history.n_bars) == ("BTC", DAY, 5)


def test_only_touched_years_are_written_and_old_files_go(bucket: str) -> None:
    data = f"{bucket}/data"
    put(data, "refuse", bars(1.0, 0, 800))
    first = files_in(to_place(data) / "interval=1d/symbol=X")
    put(data, "add", bars(1.0, 800 * DAY))
    second = files_in(to_place(data) / "interval=1d/symbol=X")
    assert [one == two for one, two in zip(first, second, strict=True)] == [True, True, False]
    assert sorted(names(data)) == sorted([*(file.name for file in second), MANIFEST])
    assert closes(data) == [1.0] * 801


def test_a_failure_before_the_manifest_leaves_the_state_before(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it uploads, after some files: they do not count, and the next writer removes them."""
    data = f"{bucket}/data"
    put(data, "refuse", bars(1.0, 0, 400))
    upload, calls = Remote.upload, []

    def fail_second(self: Remote, file: Path) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        upload(self, file)

    monkeypatch.setattr(Remote, "upload", fail_second)
    with pytest.raises(KeyboardInterrupt):
        put(data, "anew", bars(2.0, 0, 800))
    assert closes(data) == [1.0] * 400
    assert len([name for name in names(data) if name.startswith("part-")]) == 3  # one of them does not count
    monkeypatch.setattr(Remote, "upload", upload)
    put(data, "add", bars(1.0, 400 * DAY))
    assert closes(data) == [1.0] * 401
    assert len(names(data)) == 3  # two years and the manifest


def test_a_file_of_another_program_is_neither_read_nor_passed_over(bucket: str, tmp_path: Path) -> None:
    data = f"{bucket}/data"
    folder = remote(data) / "interval=1d/symbol=X"
    path = bt.write_history(bars(2.0, 0, 2), tmp_path)
    (folder / "year=1970/mine.parquet").upload(path / "year=1970" / "part-0.parquet")
    assert closes(data) == [2.0, 2.0]  # without a manifest all count
    put(data, "add", bars(3.0, 2 * DAY))
    assert closes(data) == [2.0, 2.0, 3.0]
    (folder / "year=1971/theirs.parquet").upload(path / "year=1970" / "part-0.parquet")
    with pytest.raises(DataError, match=r"theirs\.parquet: is not in .*_manifest\.json"):
        closes(data)


def test_a_reader_sees_the_old_or_the_new_state_there_too(bucket: str) -> None:
    data = f"{bucket}/data"
    put(data, "refuse", bars(1.0, 0, 365))

    def write() -> None:
        for version in range(2, 12):
            put(data, "anew", bars(float(version), 0, 730 if version % 2 else 365))

    seen = []
    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(write)
        while not writer.done():
            states = np.unique(read_history(data).columns["close"])
            assert states.size == 1, states
            seen.append(int(states[0]))
    writer.result()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert closes(data) == [11.0] * 730


def test_two_writers_there_keep_apart(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = f"{bucket}/data"
    monkeypatch.setattr(object_store, "WAIT_S", 60.0)

    def write(number: int) -> None:
        for n in range(3):
            put(data, "add", bars(1.0, (2 * n + number) * DAY))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, (0, 1)))
    assert closes(data) == [1.0] * 6
    monkeypatch.setattr(object_store, "WAIT_S", 0.1)
    with adding(data, "X", DAY, "add") as addition:
        addition.add(bars(1.0, 6 * DAY))
        with pytest.raises(DataError, match=rf"is being written by process {os.getpid()} on "):
            put(data, "add", bars(1.0, 7 * DAY))
    assert len(closes(data)) == 7


def test_claims_of_dead_writers_are_no_obstacle(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "WAIT_S", 0.1)
    data = f"{bucket}/data"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    claim = remote(data) / "interval=1d/symbol=X/_claim-1.json"
    holder = json.loads(object_store.this_process())
    claim.write_bytes(json.dumps(holder | {"pid": ended.pid}).encode())
    put(data, "add", bars(1.0))
    assert len(names(data)) == 2
    claim.write_bytes(json.dumps(holder | {"host": "elsewhere"}).encode())
    with pytest.raises(DataError, match=r"on elsewhere since .*_claim-1\.json"):
        put(data, "add", bars(1.0, DAY))
    monkeypatch.setattr(object_store, "STALE_S", -1.0)  # as if a day had passed
    put(data, "add", bars(1.0, DAY))
    assert closes(data) == [1.0, 1.0]


def test_a_writer_that_was_taken_for_dead_changes_nothing(bucket: str) -> None:
    data = f"{bucket}/data"
    put(data, "refuse", bars(1.0))
    with pytest.raises(DataError, match="another writer took this one for dead"), adding(data, "X", DAY, "add") as one:
        one.add(bars(1.0, DAY))
        for file in remote(data).files():
            if file.name.startswith("_claim-"):
                file.unlink()
    assert closes(data) == [1.0]


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_reads_and_writes_there(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = f"{bucket}/data"
    history = history_of(random_rows(3, 900, gaps=False), "BTCUSDT")
    bt.write_history(history, data)
    bt.write_history(history, "data")
    for name, path in (("there", data), ("here", "data")):
        config(path, f"{SWEEP}leverage = [2, 20]\n", Path(f"{name}.toml"))
    there = f"{bucket}/runs/one"
    said = typed("run", "there.toml", "--out", there)
    assert (said.code, said.err) == (0, "")
    assert f"backtest choose {there} " in said.out
    assert typed("run", "here.toml", "--out", "here").code == 0
    one, two = bt.load(there), bt.load("here")
    assert one.table.equals(two.table)
    assert one.choose(0.9).equals(two.choose(0.9))
    assert one.table_at(0.99).equals(two.table_at(0.99))  # from blocks/
    assert str(one.place) == there and there in repr(one)
    assert one.info["config"]["data"]["path"] == data
    choices = [json.loads(typed("choose", run, "--json").out)["choices"] for run in (there, "here")]
    assert choices[0] == choices[1]
    assert typed("compare", there, "here").code == 0
    report = typed("report", there)
    assert (report.code, report.out.strip()) == (0, f"{there}/report.html")
    assert b"<html" in to_place(report.out.strip()).read_bytes()
    refused = typed("run", "there.toml", "--out", there)
    assert refused.code == 2 and f"{there}: exists already" in refused.err
    assert typed("run", "there.toml", "--out", there, "--overwrite").code == 0
    assert "report.html" not in names(there)  # that of the run before
    assert typed("check", data).code == 0
    assert typed("data", "list", data).out.splitlines()[1].startswith("BTCUSDT  1h")
    assert "is not a finished run" in typed("choose", f"{bucket}/runs/none").err
    slip = typed("run", "there.toml", "--out", data, "--overwrite")
    assert slip.code == 2 and "is not a run directory and is not overwritten" in slip.err
    assert sorted(os.listdir()) == ["data", "here", "here.toml", "there.toml"]


def test_a_run_that_was_stopped_goes_on_from_what_the_store_keeps(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two sides: stopped after the first; then while the finished run is copied; nothing lies on this machine."""
    monkeypatch.chdir(tmp_path)
    data, out, partial = f"{bucket}/data", f"{bucket}/runs/one", f"{bucket}/runs/.one.partial"
    bt.write_history(history_of(random_rows(3, 900, gaps=False), "BTCUSDT"), data)
    config(data)
    keep, upload = checkpoint.Journal.keep, Remote.upload

    def stop(self: checkpoint.Journal, *words: object) -> None:
        keep(self, *words)
        if str(words[0]).startswith("tasks/"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Journal, "keep", stop)
        patch.setattr(runner, "WAITING", 0)  # so that one knows how many are kept
        assert typed("run", "c.toml", "--out", out).code == 130
    assert f"1 finished task is kept; go on with --resume --out {out}" in caplog.text
    assert names(partial) == ["fit.json", "BTCUSDT-00000.json", "plan.json", *["BTCUSDT-00000.parquet"] * 2]
    assert names(out) == []
    (state,) = list_runs(f"{bucket}/runs")
    assert (state.run, state.state, state.tasks_kept, state.tasks) == (out, "unfinished", 1, 2)
    refused = typed("run", "c.toml", "--out", out)
    assert refused.code == 2 and f"{out}: of an unfinished run 1 finished task is kept" in refused.err

    def fail(self: Remote, file: Path) -> None:
        if self.uri == f"{out}/survival.parquet":
            raise OSError("the store is gone")
        upload(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", fail)
        assert typed("run", "c.toml", "--out", out, "--resume").code == 1
    assert typed("choose", out).code == 1
    assert f"2 finished tasks are kept; go on with --resume --out {out}" in caplog.text
    assert typed("run", "c.toml", "--out", out, "--resume").code == 0
    assert [task["kept"] for task in bt.load(out).info["tasks"]] == [True, True]
    assert names(partial) == [] and os.listdir() == ["c.toml"]
    assert typed("run", "c.toml", "--out", "here").code == 0
    assert bt.load(out).table.equals(bt.load("here").table)
    assert [one.state for one in list_runs(f"{bucket}/runs")] == ["finished"]


def test_run_json_comes_last(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blocks").mkdir()
    for name in ("blocks/a", "blocks/b", "run.json", "survival.parquet"):
        (tmp_path / name).write_text(name)
    uploaded: list[str] = []
    upload = Remote.upload

    def note(self: Remote, file: Path) -> None:
        uploaded.append(self.name)
        upload(self, file)

    monkeypatch.setattr(Remote, "upload", note)
    place = remote(f"{bucket}/run")
    (place / "run.json").write_bytes(b"old")
    (place / "old.parquet").write_bytes(b"old")
    place.take_folder(tmp_path, last="run.json")
    assert uploaded[-1] == "run.json" and len(uploaded) == 4
    assert names(f"{bucket}/run") == ["a", "b", "run.json", "survival.parquet"]


# --- credentials and addresses ----------------------------------------------------------------------------------------

SECRETS = ("hunter2", "AKIAEXAMPLE")
WITH_CREDENTIALS = (
    "s3://AKIAEXAMPLE:hunter2@bucket/data",
    "s3://AKIAEXAMPLE@bucket/data",
    "s3://bucket/data?access_key=AKIAEXAMPLE&secret_key=hunter2",
    "gs://AKIAEXAMPLE:hunter2@bucket/data",
    "abfs://AKIAEXAMPLE:hunter2@account.dfs.core.windows.net/data",
    "https://AKIAEXAMPLE:hunter2@host/data",
    "file://AKIAEXAMPLE:hunter2@host/data",
)


@pytest.mark.parametrize("uri", WITH_CREDENTIALS)
def test_a_uri_with_credentials_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    file = config(uri, file=tmp_path / "c.toml")
    said = [
        typed("check", uri),
        typed("data", "list", uri),
        typed("run", file, "--out", tmp_path / "run"),
        typed("run", file, "--out", uri),
        typed("choose", uri),
        typed("report", uri),
        typed("resample", uri, "--to", "1h", "--out", tmp_path / "out"),
        typed("events", file, "--out", uri),
    ]
    with pytest.raises(ConfigError) as python:
        bt.run(uri, bt.Sweep(horizon=["1d"], maintenance=[0.004]), out=tmp_path / "run")
    with pytest.raises(ConfigError) as data:
        bt.Data(path=uri)
    texts = [str(python.value), str(data.value), *(done.out + done.err for done in said)]
    assert [done.code for done in said] == [2] * len(said)
    for text in texts:
        assert "AWS_ACCESS_KEY_ID" in text
        assert not any(secret in text for secret in SECRETS), text
    assert os.listdir(tmp_path) == ["c.toml"]


def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[data]\npaht = "{WITH_CREDENTIALS[0]}"\n{SWEEP}')
    done = typed("run", file)
    assert done.code == 2 and "paht: is not a known key; got 's3://…@bucket/data'" in done.err


def test_what_the_store_says_is_scrubbed(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bt.write_history(bars(1.0, 0, 3), f"{bucket}/data")
    run = bt.run(f"{bucket}/data", bt.Sweep(horizon=["1d"], maintenance=[0.004]), out=tmp_path / "run")
    assert run.info["config"]["data"]["path"] == f"{bucket}/data"
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or not any(one.encode() in file.read_bytes() for one in (KEY, SECRET)), file
    text = scrubbed(f"InvalidAccessKeyId {KEY} of s3://{KEY}:other@bucket/x, signed with {SECRET}")
    assert text == "InvalidAccessKeyId … of s3://…@bucket/x, signed with …"

    def refuse(place: Remote) -> object:
        raise OSError(f"AWS Error INVALID_ACCESS_KEY_ID {KEY}\nsigned with {SECRET}")

    monkeypatch.setattr(filesystem, "open_store", refuse)
    done = typed("check", f"{bucket}/data")
    assert (done.code, done.err) == (1, f"error: {bucket}/data: the store answers: AWS Error INVALID_ACCESS_KEY_ID …\n")


def test_what_is_not_there_is_said(bucket: str) -> None:
    for path in ("s3://no-such-bucket-here/data", f"{bucket}/data"):
        done = typed("check", path)
        assert done.code == 2 and f"{path} does not exist" in done.err
    with pytest.raises(DataError, match=r"no-such-bucket-here/.*: the store answers: .*NO_SUCH_BUCKET"):
        put("s3://no-such-bucket-here/data", "refuse", bars(1.0))


def test_addresses_are_what_they_look_like(tmp_path: Path) -> None:
    assert to_place("s3://b//data/") == Remote("s3://b/data")
    assert to_place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert to_place("data/x") == Path("data/x")
    assert to_place("gs://anonymous@bucket/x") == Remote("gs://anonymous@bucket/x")
    assert resolved(Path("configs"), "s3://b/data") == "s3://b/data"
    assert resolved(Path("configs"), "data") == "configs/data"
    for uri, text in (
        ("http://host/data", "a place is a local path or one of s3, gs"),
        ("s3://", "a URI names a bucket"),
        ("file://host/data", "file:///folder/data"),
    ):
        with pytest.raises(ConfigError, match=text):
            to_place(uri)
    with pytest.raises(ConfigError, match=r"--out must be a local path; got s3://b/e\.csv"):
        local("s3://b/e.csv", "--out")


class Denies(BaseHTTPRequestHandler):
    """A store that lets nobody in."""

    def _deny(self) -> None:
        text = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _deny

    def log_message(self, *words: object) -> None:
        """Nothing is said."""


def test_a_store_without_permission_is_refused_at_the_start(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bt.write_history(history_of(random_rows(3, 900)), "data")
    config("data")
    monkeypatch.setattr(runner, "count_jobs", lambda *words, **named: pytest.fail("work was begun"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Denies)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        done = typed("run", "c.toml", "--out", f"{bucket}/runs/denied")
    finally:
        server.shutdown()
        server.server_close()
    assert done.code == 1 and f"error: {bucket}/runs/" in done.err and "ACCESS_DENIED" in done.err, done.err
    assert KEY not in done.err and SECRET not in done.err
