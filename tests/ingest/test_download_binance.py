"""Public archives come down whole and verified, or not at all; what is there is not asked for again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from backtest.data.dataset import read_history
from backtest.data.quality.check import check
from backtest.errors import ConfigError, DataError
from backtest.ingest.download.binance import Fetched, fetch_binance
from backtest.ingest.download.mirror import CHECKSUM, MOST_BYTES, Mirror, RequestLimits, checked_url
from backtest.ingest.formats.generic import import_generic
from tests._support import archive_server
from tests._support.archive_server import Archives, answers, drops, hangs_up, price, sends, serving
from tests.cli.conftest import typed

HOUR = 3_600_000
T0 = 1_609_459_200_000  # 2021-01-01
QUICK = RequestLimits(connections=4, tries=4, first_wait_s=0.01, longest_wait_s=3.0, silence_s=0.3, longest_try_s=5.0)
BAR = "data/futures/um/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2021-02.zip"
MONTHS = ("2021-01", "2021-02")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def archives() -> Iterator[Archives]:
    """January and February 2021 of BTCUSDT."""
    made = Archives()
    for month in MONTHS:
        made.month("BTCUSDT", month)
    with serving(made):
        yield made


def get(
    archives: Archives,
    folder: Path,
    *symbols: str,
    start: str = "2021-01-01",
    end: str = "2021-03-01",
    limits: RequestLimits = QUICK,
    market: str = "um",
    overwrite: bool = False,
) -> Fetched:
    """A fetch into ``folder/data``; the requests of it alone are counted."""
    archives.requests.clear()
    return fetch_binance(
        symbols or ("BTCUSDT",),
        "1h",
        start,
        end,
        out=folder / "data",
        base_url=archives.url,
        limits=limits,
        market=market,
        overwrite=overwrite,
    )


def halves(folder: Path) -> list[str]:
    """Files that are on their way."""
    return sorted(str(path) for path in folder.rglob("*.part"))


def kept(folder: Path) -> set[str]:
    """Finished archives, by their path on the server."""
    root = folder / "data" / ".archives"
    return {path.relative_to(root).as_posix() for path in root.rglob("*.zip")}


# --- what comes down --------------------------------------------------------------------------------------------------


def test_months_become_bars_mark_prices_and_charges_of_the_dataset(archives, tmp_path):
    done = get(archives, tmp_path)
    # 31 + 28 days of 24 bars and 3 charges; two months of three kinds, each with its checksum
    assert (done.imported[0].rows, done.imported[0].charges) == (59 * 24, 59 * 3)
    assert (done.fetched, done.kept, done.missing, done.warnings) == (6, 0, (), ())
    assert archives.asked() == dict.fromkeys(archives.files, 1)
    history = read_history(tmp_path / "data", "BTCUSDT", "1h")
    assert history.start_ms == T0 and history.n_bars == 59 * 24
    closes = [price(T0 + k * HOUR) for k in range(59 * 24)]
    assert history.columns["close"].tolist() == closes
    assert history.columns["mark_close"].tolist() == [float(f"{close + 1.5:.2f}") for close in closes]
    # 1 January, 00:00, 08:00 and 16:00: 0.0001 + hour · 1e-6 + day · 1e-7
    assert history.columns["funding_rate"][[0, 8, 16]].tolist() == [0.0001001, 0.0001081, 0.0001161]
    assert check(tmp_path / "data").ok
    assert not halves(tmp_path)


def test_a_month_that_is_not_published_comes_by_its_days(archives, tmp_path):
    for day in ("2021-03-01", "2021-03-02"):
        for kind in ("klines", "markPriceKlines"):
            archives.bars("BTCUSDT", day, kind)
    done = get(archives, tmp_path, end="2021-03-05")
    assert done.imported[0].rows == 61 * 24
    # March by month once for each kind, then its four days for bars and mark; funding has no days
    asked = archives.asked()
    assert sum("2021-03" in path and "/monthly/" in path for path in asked) == 3
    days = [path for path in asked if "/daily/" in path and not path.endswith(CHECKSUM)]
    assert sorted(path[-14:-4] for path in days) == sorted(2 * [f"2021-03-0{day}" for day in (1, 2, 3, 4)])
    assert done.missing == (
        "BTCUSDT klines 2021-03-03 … 2021-03-04: after the last day published",
        "BTCUSDT markPriceKlines 2021-03-03 … 2021-03-04: after the last day published",
        "BTCUSDT fundingRate 2021-03-03 … 2021-03-04: after the last day published",
    )
    assert done.warnings == (
        "BTCUSDT fundingRate 2021-03-01 … 2021-03-02: missing on the server, no funding is charged there",
    )


def test_a_listing_too_young_for_a_monthly_file_comes_by_its_days(tmp_path):
    archives = Archives()
    for day in ("2021-02-27", "2021-02-28"):
        archives.bars("NEWUSDT", day)
    with serving(archives):
        done = get(archives, tmp_path, "NEWUSDT", start="2020-01-01", end="2021-03-02")
    assert done.imported[0].rows == 48
    # the months of 2020 are asked for once each and not by their days
    assert not any("/daily/" in path and "-2020-" in path for path in archives.requests)
    assert not [folder for folder in tmp_path.rglob("*") if folder.is_dir() and not list(folder.iterdir())]


def test_days_are_asked_for_back_to_the_first_month_that_has_none(tmp_path):
    archives = Archives()
    archives.month("BTCUSDT", "2021-05")
    for day in ("2021-04-30", "2021-03-31"):  # months that the server has by day only
        archives.bars("BTCUSDT", day)
    with serving(archives):
        done = get(archives, tmp_path, start="2021-01-01", end="2021-06-01")
    assert done.imported[0].rows == 33 * 24
    days = {path[-14:-7] for path in archives.requests if "/daily/klines/" in path and path.endswith(".zip")}
    assert days == {"2021-04", "2021-03", "2021-02"}
    assert "BTCUSDT klines 2021-04-01 … 2021-04-29: missing on the server, bars without a last price" in done.warnings
    assert "BTCUSDT klines 2021-01-01 … 2021-03-30: before the first day published" in done.missing


def test_a_hole_in_the_middle_is_a_warning(archives, tmp_path):
    archives.month("BTCUSDT", "2021-03")
    archives.remove(BAR)
    done = get(archives, tmp_path, end="2021-04-01")
    assert done.warnings == (
        "BTCUSDT klines 2021-02-01 … 2021-02-28: missing on the server, bars without a last price",
    )
    assert done.missing == ()


def test_two_symbols_and_the_coin_market(tmp_path):
    archives = Archives()
    for symbol in ("BTCUSD_PERP", "ETHUSD_PERP"):
        archives.month(symbol, "2021-01", market="cm")
    archives.bars("BTCUSD_210326", "2021-01", market="cm")  # a delivery contract: no funding is asked for
    archives.bars("BTCUSD_210326", "2021-01", "markPriceKlines", market="cm")
    with serving(archives):
        symbols = ("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSD_210326")
        done = get(archives, tmp_path, *symbols, end="2021-02-01", market="cm")
    assert [one.path.name for one in done.imported] == [f"symbol={symbol}" for symbol in symbols]
    assert [one.charges for one in done.imported] == [93, 93, 0]
    assert archives.asked() == dict.fromkeys(archives.files, 1)
    assert done.missing == done.warnings == ()


def test_a_symbol_that_the_server_does_not_know_is_named(archives, tmp_path):
    with pytest.raises(DataError, match=r"^BTCUSD: http://127.* has no bars of 1h from 2021-01-01 to 2021-03-01; is"):
        get(archives, tmp_path, "BTCUSDT", "BTCUSD")
    assert not list((tmp_path / "data").glob("interval=*"))
    assert len(kept(tmp_path)) == 6


# --- only what is missing ---------------------------------------------------------------------------------------------


def test_a_second_call_asks_for_nothing_and_imports_nothing(archives, tmp_path):
    get(archives, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    done = get(archives, tmp_path)
    assert archives.requests == []
    assert (done.fetched, done.kept, done.imported) == (0, 6, ())
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")} == before


def test_new_months_are_added_and_nothing_else_is_read_again(archives, tmp_path):
    get(archives, tmp_path)
    new = archives.month("BTCUSDT", "2021-03")
    done = get(archives, tmp_path, end="2021-04-01")
    assert archives.asked() == dict.fromkeys([*new, *(path + CHECKSUM for path in new)], 1)
    assert done.imported[0].span == ("2021-03-01T00:00Z", "2021-03-31T23:00Z")
    history = read_history(tmp_path / "data")
    assert history.n_bars == 90 * 24 and not np.isnan(history.columns["close"]).any()


def test_funding_that_is_published_later_is_added_to_its_bars(archives, tmp_path):
    late = "data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2021-02.zip"
    archives.remove(late)
    done = get(archives, tmp_path)
    assert done.warnings == (
        "BTCUSDT fundingRate 2021-02-01 … 2021-02-28: missing on the server, no funding is charged there",
    )
    archives.funding("BTCUSDT", "2021-02")
    assert get(archives, tmp_path).warnings == ()
    assert set(archives.requests) == {late, late + CHECKSUM}
    assert np.isfinite(read_history(tmp_path / "data").columns["funding_rate"]).sum() == 59 * 3


def test_days_that_are_complete_are_kept_when_their_month_appears(archives, tmp_path):
    kinds = ("klines", "markPriceKlines")
    for day in range(1, 4):
        for kind in kinds:
            archives.bars("BTCUSDT", f"2021-03-0{day}", kind)
    get(archives, tmp_path, end="2021-03-04")
    archives.month("BTCUSDT", "2021-03")
    get(archives, tmp_path, end="2021-03-04")
    assert all("fundingRate" in path for path in archives.requests)
    get(archives, tmp_path, end="2021-04-01")  # now days are missing: the monthly file has them
    assert {path for path in archives.requests if path.endswith(".zip")} == {
        path for path in archives.files if path.endswith("2021-03.zip") and "fundingRate" not in path
    }
    assert read_history(tmp_path / "data").n_bars == 90 * 24


def test_a_dataset_that_was_changed_since_gets_all_archives_again(archives, tmp_path):
    get(archives, tmp_path)
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    done = get(archives, tmp_path)
    assert archives.requests == []
    assert done.imported[0].rows == 59 * 24


def test_archives_stay_known_beside_bars_of_another_source_until_these_replace_theirs(archives, tmp_path):
    get(archives, tmp_path)
    later = tmp_path / "later.csv"
    for text, how in (("2021-05-01T00:00Z,10,12,9,11", "add"), ("2021-01-05T00:00Z,10,12,9,11", "overwrite")):
        later.write_text(f"open_time,open,high,low,close\n{text}\n")
        import_generic("BTCUSDT", "1h", later, out=tmp_path / "data", **{how: True})
        if how == "add":
            assert get(archives, tmp_path).imported == ()
    with pytest.raises(DataError, match=r"bar of 2021-01-05T00:00Z is 10 there"):
        get(archives, tmp_path)


def test_a_dataset_of_the_version_before_is_not_imported_again(archives, tmp_path):
    """Then ``imported.json`` beside the archives told which of them the dataset holds, and no Parquet file did."""
    get(archives, tmp_path)
    (folder,) = (tmp_path / "data").glob("interval=1h/symbol=BTCUSDT")
    for file in folder.rglob("*.parquet"):
        pq.write_table(pq.read_table(file, partitioning=None).replace_schema_metadata(None), file)
    state = {file.relative_to(folder).as_posix(): file.stat() for file in folder.rglob("*") if file.is_file()}
    root = tmp_path / "data" / ".archives"
    entry = {
        "path": str(folder),
        "files": {name: [one.st_size, one.st_mtime_ns] for name, one in state.items()},
        "archives": {path: (root / (path + CHECKSUM)).read_text().split()[0] for path in kept(tmp_path)},
    }
    (root / "imported.json").write_text(json.dumps({f"1h BTCUSDT {tmp_path / 'data'}": entry}))
    assert get(archives, tmp_path).imported == ()
    archives.month("BTCUSDT", "2021-03")
    assert get(archives, tmp_path, end="2021-04-01").imported[0].rows == 90 * 24  # all are recorded in the dataset
    assert get(archives, tmp_path, end="2021-04-01").imported == ()


def test_an_archive_that_was_spoilt_on_the_disk_is_fetched_again(archives, tmp_path):
    get(archives, tmp_path)
    file = tmp_path / "data" / ".archives" / BAR
    file.write_bytes(file.read_bytes()[:-1])
    done = get(archives, tmp_path)
    assert archives.requests == [BAR, BAR + CHECKSUM]
    assert (done.fetched, done.kept, done.imported) == (1, 5, ())


def test_bars_that_differ_from_the_dataset_are_refused_and_taken_by_overwrite(archives, tmp_path):
    get(archives, tmp_path)
    text = archive_server.bars_csv("2021-02").replace("\n1612137600000,", "\n1612137600000,1", 1)  # 29,xxx → 129,xxx
    lines = text.splitlines()
    cells = lines[1].split(",")
    cells[2] = cells[1]  # the high follows the open
    lines[1] = ",".join(cells)
    archives.put(BAR, archive_server.zipped("BTCUSDT-1h-2021-02.csv", "\n".join(lines) + "\n"))
    (tmp_path / "data" / ".archives" / BAR).unlink()
    with pytest.raises(DataError, match="column open of the bar of 2021-02-01T00:00Z"):
        get(archives, tmp_path)
    was = read_history(tmp_path / "data").columns["open"][31 * 24]
    get(archives, tmp_path, overwrite=True)
    assert read_history(tmp_path / "data").columns["open"][31 * 24] == float(f"1{was:.2f}")


# --- faults of the server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [drops, hangs_up, answers(429), answers(500), answers(503, {"Retry-After": "0"}), archive_server.stalls(0.5)],
    ids=["dropped", "hung up", "429", "500", "503", "stalled"],
)
def test_a_fault_that_passes_is_tried_again(archives, tmp_path, fault):
    archives.faults = {BAR: [fault, fault], BAR + CHECKSUM: [fault]}
    done = get(archives, tmp_path)
    assert (archives.asked()[BAR], archives.asked()[BAR + CHECKSUM]) == (3, 2)
    assert done.imported[0].rows == 59 * 24 and not halves(tmp_path)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (drops, "the connection broke"),
        (hangs_up, "the connection broke"),
        (answers(429), "the server answers 429"),
        (archive_server.stalls(0.5), "no byte in time"),
    ],
)
def test_a_fault_that_stays_ends_the_download_after_bounded_tries(archives, tmp_path, fault, reason):
    archives.faults = {BAR: 9 * [fault]}
    quick = RequestLimits(connections=4, tries=3, first_wait_s=0.01, silence_s=0.3)
    with pytest.raises(DataError, match=rf"BTCUSDT-1h-2021-02.zip: {reason}.*, 3 times; complete files stay in"):
        get(archives, tmp_path, limits=quick)
    assert archives.asked()[BAR] == 3
    assert not halves(tmp_path) and BAR not in kept(tmp_path)
    assert not list((tmp_path / "data").glob("interval=*"))


def test_bytes_that_trickle_in_do_not_hold_a_download_up(archives, tmp_path):
    archives.faults = {BAR: [archive_server.trickles]}
    started = time.monotonic()
    get(archives, tmp_path, limits=RequestLimits(first_wait_s=0.01, silence_s=5.0, longest_try_s=0.3))
    assert time.monotonic() - started < 3  # it goes on for 5 s
    assert archives.asked()[BAR] == 2


def test_retry_after_is_a_pause_of_every_connection(archives, tmp_path):
    archives.faults = {BAR: [answers(429, {"Retry-After": "1"})]}
    started = time.monotonic()
    get(archives, tmp_path)
    assert time.monotonic() - started >= 1.0
    assert archives.asked()[BAR] == 2


def test_retry_after_may_be_a_date(archives, tmp_path):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    archives.faults = {BAR: [answers(503, {"Retry-After": soon})]}
    started = time.monotonic()
    get(archives, tmp_path)
    assert time.monotonic() - started >= 0.9  # dates are whole seconds


def test_a_server_that_asks_to_wait_for_long_ends_the_download(archives, tmp_path):
    archives.faults = {BAR: [answers(429, {"Retry-After": "3600"})] * 4}
    with pytest.raises(DataError, match="asks to wait 3,600 s; run the same command later"):
        get(archives, tmp_path)
    assert archives.asked()[BAR] <= 2  # once; twice where a busy machine answers too late to be heard


def test_a_checksum_that_is_met_the_second_time_is_met(archives, tmp_path):
    good = archives.files[BAR]
    archives.faults = {BAR: [sends(good[:-9])]}  # a truncated zip in good order
    assert get(archives, tmp_path).imported[0].rows == 59 * 24
    assert archives.asked()[BAR] == archives.asked()[BAR + CHECKSUM] == 2


def test_a_file_that_differs_from_its_checksum_twice_is_refused(archives, tmp_path):
    archives.files[BAR] = archives.files[BAR][:-9]
    with pytest.raises(DataError) as error:
        get(archives, tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("1 of 6 files differ from their checksums, downloaded twice")
    assert lines[1].startswith(f"{tmp_path / 'data' / '.archives' / BAR}: its SHA-256 is ")
    assert archives.asked()[BAR] == 2
    assert BAR not in kept(tmp_path) and len(kept(tmp_path)) == 5  # the others are finished
    assert not halves(tmp_path) and not list((tmp_path / "data").glob("interval=*"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must hold a SHA-256 and BTCUSDT-1h-2021-02.zip; got ''"),
        ("<html>no such page</html>", "must hold a SHA-256"),
        (f"{'0' * 64}  BTCUSDT-1h-2021-01.zip", "must hold a SHA-256 and BTCUSDT-1h-2021-02.zip"),
        (f"{'0' * 64}  BTCUSDT-1h-2021-02.zip", f"says {'0' * 64}"),
        (None, "the server has no BTCUSDT-1h-2021-02.zip.CHECKSUM to verify it by"),
    ],
)
def test_a_checksum_that_is_none_verifies_nothing(archives, tmp_path, text, reason):
    if text is None:
        del archives.files[BAR + CHECKSUM]
    else:
        archives.files[BAR + CHECKSUM] = text.encode()
    with pytest.raises(DataError, match=reason):
        get(archives, tmp_path)
    assert BAR not in kept(tmp_path)


def test_a_damaged_zip_with_the_right_checksum_is_refused_by_name(archives, tmp_path):
    archives.put(BAR, archives.files[BAR][:-9])
    with pytest.raises(DataError, match=r"BTCUSDT-1h-2021-02\.zip: not a readable zip"):
        get(archives, tmp_path)
    assert not list((tmp_path / "data").glob("interval=*"))


@pytest.mark.parametrize(
    ("status", "there"), [(301, "http://elsewhere.example/x.zip"), (302, "/other/x.zip"), (308, "//elsewhere.example")]
)
def test_redirects_are_refused(archives, tmp_path, status, there):
    archives.faults = {BAR: [answers(status, {"Location": there})]}
    where = "elsewhere.example" if "elsewhere" in there else "another path"
    with pytest.raises(DataError, match=rf"redirects to {where}; only the base URL http://127\.0\.0\.1"):
        get(archives, tmp_path)
    assert archives.asked()[BAR] == 1


@pytest.mark.parametrize("status", [401, 403])
def test_other_answers_are_named_and_not_repeated(archives, tmp_path, status):
    archives.faults = {BAR: [answers(status)]}
    with pytest.raises(DataError, match=f"BTCUSDT-1h-2021-02.zip: the server answers {status}, where 200 or 404"):
        get(archives, tmp_path)
    assert archives.asked()[BAR] == 1


def test_sizes_are_bounded(archives, tmp_path, monkeypatch):
    assert MOST_BYTES == 512 * 2**20
    archives.faults = {BAR + CHECKSUM: [archive_server.endless]}
    with pytest.raises(DataError, match="CHECKSUM: is longer than 4,096 bytes"):
        get(archives, tmp_path)
    monkeypatch.setattr("backtest.ingest.download.mirror.MOST_BYTES", 100_000)
    archives.faults = {BAR: [archive_server.endless]}
    with pytest.raises(DataError, match=r"2021-02.zip: is longer than 100,000 bytes"):
        get(archives, tmp_path)
    assert not halves(tmp_path)


def test_a_host_that_is_not_there_is_said(tmp_path):
    with serving(Archives()) as archives:
        pass  # its port is free again
    with pytest.raises(DataError, match=r"the host could not be reached .*4 times"):
        get(archives, tmp_path)


def test_no_more_connections_than_asked_for(tmp_path):
    archives = Archives()
    for k in range(1, 6):
        archives.bars("BTCUSDT", f"2021-0{k}")
    archives.delay_s = 0.02
    with serving(archives):
        get(archives, tmp_path, end="2021-06-01", limits=RequestLimits(connections=3))
    assert archives.most_at_a_time == 3


# --- interruption -----------------------------------------------------------------------------------------------------


def words(archives: Archives, folder: Path, *more: object) -> list[object]:
    span = ["--interval", "1h", "--from", "2021-01-01", "--to", "2021-07-01"]
    return ["fetch", "binance", "BTCUSDT", *span, "--out", folder / "data", "--base-url", archives.url, *more]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_goes_on_where_it_was(tmp_path, sign):
    archives = Archives()
    for k in range(1, 7):
        archives.month("BTCUSDT", f"2021-0{k}")
    held = threading.Event()

    def holds(handler, content):  # half of a body; the process is interrupted in it
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        held.set()
        time.sleep(0.5)
        handler.close_connection = True

    late = BAR.replace("2021-02", "2021-05")
    archives.faults = {late: [holds]}
    with serving(archives):
        command = [sys.executable, "-m", "backtest", *map(str, words(archives, tmp_path, "--connections", "2"))]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert held.wait(20)
        time.sleep(0.1)
        process.send_signal(sign)
        _, error = process.communicate(timeout=20)
        finished = {path for path in kept(tmp_path) if (tmp_path / "data" / ".archives" / (path + CHECKSUM)).exists()}
        if sign == signal.SIGINT:
            assert (process.returncode, error.strip().splitlines()[-1]) == (130, "interrupted")
            assert not halves(tmp_path)
        else:
            assert halves(tmp_path)
        assert late not in finished and 4 <= len(finished) < 18
        assert not list((tmp_path / "data").glob("interval=*"))
        archives.requests.clear()
        done = typed(*words(archives, tmp_path))
    assert done.code == 0, done.err
    assert {path for path in archives.asked() if path.endswith(".zip")} == {
        path for path in archives.files if path.endswith(".zip")
    } - finished
    assert set(archives.asked().values()) == {1}
    assert not halves(tmp_path)
    assert read_history(tmp_path / "data").n_bars == 181 * 24  # 31 + 28 + 31 + 30 + 31 + 30 days


def test_what_a_killed_download_left_is_cleared_away(archives, tmp_path):
    left = tmp_path / "data" / ".archives" / f"{BAR.replace('BTC', 'ETH')}.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"PK")
    get(archives, tmp_path)
    assert not halves(tmp_path) and len(kept(tmp_path)) == 6


def test_two_downloads_into_one_folder_do_not_meet(archives, tmp_path):
    with (
        Mirror(archives.url, tmp_path / "data" / ".archives", QUICK),
        pytest.raises(DataError, match="another download uses this folder"),
    ):
        get(archives, tmp_path)
    assert archives.requests == []


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ["btcusdt"]}, "a symbol is spelt as in the archives"),
        ({"symbols": ["../BTCUSDT"]}, "a symbol is spelt as in the archives"),
        ({"symbols": []}, "name at least one symbol"),
        ({"interval": "1w"}, "interval must be one of 1m, 3m"),
        ({"interval": "7m"}, "interval must be one of 1m, 3m"),
        ({"market": "spot"}, r"market must be um \(USD-M\) or cm"),
        ({"start": "yesterday"}, "a time is ISO 8601"),
        ({"start": "2021-03-01"}, "--from must lie before --to; got 2021-03-01 and 2021-03-01"),
        ({"start": "2999-01-01", "end": "2999-02-01"}, "--from must lie before today"),
        ({"base_url": "file:///etc"}, "must be http:// or https:// and a host; got 'file:///etc'"),
        ({"base_url": "data.binance.vision"}, "must be http:// or https://"),
        ({"base_url": "http://"}, "must be http:// or https://"),
        ({"base_url": "http://host:port"}, "must be http:// or https://"),
        ({"base_url": "https://host/?prefix=data"}, "must not hold a query"),
        ({"out": "s3://bucket/data"}, "archives are kept in a local folder; name one with --archives"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is(archives, tmp_path, change, message):
    asked = {"symbols": ["BTCUSDT"], "interval": "1h", "start": "2021-01-01", "end": "2021-03-01"}
    asked |= {"out": tmp_path / "data", "base_url": archives.url} | change
    symbols, interval, start, end = (asked.pop(name) for name in ("symbols", "interval", "start", "end"))
    with pytest.raises(ConfigError, match=message):
        fetch_binance(symbols, interval, start, end, **asked)
    assert archives.requests == [] and not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be_is_refused(archives, tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(ConfigError, match=r"archives are kept in a folder; .*data/\.archives is none"):
        get(archives, tmp_path)
    assert (tmp_path / "data").read_text() == "mine"


def test_a_password_in_the_base_url_is_refused_and_not_shown():
    with pytest.raises(ConfigError) as error:
        checked_url("https://me:secret@host/")
    assert "secret" not in str(error.value)


def test_the_command_says_what_it_did_and_what_is_missing(archives, tmp_path):
    out = tmp_path / "data"
    asked = ["fetch", "binance", "BTCUSDT", "--interval", "1h", "--from", "2021-01-01", "--to", "2021-03-03"]
    asked += ["--out", out, "--base-url", archives.url, "--archives", tmp_path / "zips"]
    done = typed(*asked)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == (
        f"{out}/interval=1h/symbol=BTCUSDT: 1,416 bars, 2021-01-01T00:00Z … 2021-02-28T23:00Z, 0 gaps, 177 charges"
    )
    assert lines[1].startswith("6 archives fetched (0.") and lines[1].endswith(f"0 were there, in {tmp_path}/zips")
    assert "BTCUSDT klines 2021-03-01 … 2021-03-02: after the last day published" in done.err
    assert sorted(path.name for path in (tmp_path / "zips").iterdir()) == [".lock", "data"]
    again = typed(*asked)
    assert again.out == f"0 archives fetched (0.0 MiB), 6 were there, in {tmp_path}/zips; the dataset has them all\n"


def test_a_command_that_fails_says_so_in_a_line(archives, tmp_path):
    archives.files[BAR] = b"no zip"
    done = typed(*words(archives, tmp_path))
    assert done.code == 1 and done.err.startswith("error: 1 of ") and "Traceback" not in done.err
    assert typed("fetch", "binance", "BTCUSDT", "--interval", "1h").code == 2
