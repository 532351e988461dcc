"""What an exchange's public API gives comes whole, whatever its pages are like, or what is missing is said."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from pathlib import Path

import ccxt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.data.dataset import read_history
from backtest.data.quality.check import check
from backtest.errors import ConfigError, DataError
from backtest.ingest.download import ccxt as module
from backtest.ingest.download.ccxt import FetchedCcxt, collect_pages, fetch_ccxt, find_market, rows_by_time
from tests._support.exchange_server import HOUR, LISTED, NOW, Exchange, candle, price, rate, serving
from tests.cli.conftest import typed

VENUES = [("binanceusdm", "BTCUSDT"), ("bybit", "BTCUSDT"), ("okx", "BTC-USDT-SWAP")]
KLINES = "/fapi/v1/klines"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(ccxt.Exchange, "throttle", lambda *_: None)  # its pauses between requests
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange()
    with serving(made):
        yield made


def get(
    exchange: Exchange,
    out: Path,
    name: str = "binanceusdm",
    *symbols: str,
    interval: str = "1h",
    start: str = "2021-03-01",
    end: str | None = None,
    tiers: Path | None = None,
    contract_size: float | None = None,
    overwrite: bool = False,
) -> FetchedCcxt:
    return fetch_ccxt(
        name,
        symbols or ("BTCUSDT",),
        interval,
        start,
        end,
        out=out,
        base_url=exchange.url,
        tiers=tiers,
        contract_size=contract_size,
        overwrite=overwrite,
    )


# --- what comes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("venue", "symbol"), VENUES)
def test_bars_mark_prices_and_charges_are_those_of_the_exchange(exchange, tmp_path, venue, symbol):
    done = get(exchange, tmp_path, venue, symbol, start="2020-12-20").imported[0]
    # listed on 1 January: 31 + 28 + 9 days of 24 bars, 5 of the last day; the bar of 05:00 is not finished at 05:30
    assert (done.rows, done.span) == (68 * 24 + 5, ("2021-01-01T00:00Z", "2021-03-10T04:00Z"))
    assert (done.gaps, done.charges) == (0, 68 * 3 + 1)
    assert f"{venue}: bars from 2021-01-01T00:00Z on; asked for from 2020-12-20T00:00Z" in done.warnings
    history = read_history(tmp_path, symbol, "1h")
    stamps = [LISTED + k * HOUR for k in range(68 * 24 + 5)]
    assert history.start_ms == LISTED
    for k, column in enumerate(("open", "high", "low", "close")):
        assert history.columns[column].tolist() == [float(candle(ms)[k]) for ms in stamps]
        assert history.columns[f"mark_{column}"].tolist() == [float(candle(ms, 1.5)[k]) for ms in stamps]
    assert set(history.columns["volume"]) == {12.5}
    charged = ~np.isnan(history.columns["funding_rate"])
    assert np.flatnonzero(charged).tolist() == list(range(0, len(stamps), 8))
    assert history.columns["funding_rate"][charged].tolist() == [rate(ms) for ms in stamps[::8]]
    assert check(tmp_path).ok


def test_a_range_ends_before_its_end(exchange, tmp_path):
    done = get(exchange, tmp_path, start="2021-03-01T00:30", end="2021-03-01T05:00").imported[0]
    assert done.span == ("2021-03-01T01:00Z", "2021-03-01T04:00Z")


def test_a_range_that_ends_in_the_future_ends_with_the_last_finished_bar(exchange, tmp_path):
    done = get(exchange, tmp_path, start="2021-03-10", end="2021-04-01").imported[0]
    assert done.span == ("2021-03-10T00:00Z", "2021-03-10T04:00Z")


def test_a_later_call_adds_and_what_differs_is_refused_or_overwritten(exchange, tmp_path):
    get(exchange, tmp_path, end="2021-03-03")
    get(exchange, tmp_path, start="2021-03-02", end="2021-03-05")
    assert read_history(tmp_path).n_bars == 4 * 24
    answer = exchange.routes[KLINES]
    dearer = lambda row: [row[0], *(f"{2 * float(value):.1f}" for value in row[1:5]), *row[5:]]  # noqa: E731
    exchange.routes[KLINES] = lambda query: [dearer(row) for row in answer(query)]
    with pytest.raises(DataError, match="column open of the bar of 2021-03-01T00:00Z"):
        get(exchange, tmp_path, end="2021-03-02")
    get(exchange, tmp_path, end="2021-03-02", overwrite=True)
    closes = read_history(tmp_path).columns["close"]
    first = LISTED + 59 * 24 * HOUR  # 1 March
    assert closes[[23, 24]].tolist() == [2 * price(first + 23 * HOUR), price(first + 24 * HOUR)]


def test_two_symbols_by_either_name(exchange, tmp_path):
    done = get(exchange, tmp_path, "binanceusdm", "BTC/USDT:USDT", "ETHUSDT", end="2021-03-02")
    assert [one.path.name for one in done.imported] == ["symbol=BTCUSDT", "symbol=ETHUSDT"]


def test_a_hole_of_the_exchange_stays_a_gap(exchange, tmp_path):
    answer = exchange.routes[KLINES]
    low, high = LISTED + 60 * 24 * HOUR, LISTED + 60 * 24 * HOUR + 9 * HOUR
    exchange.routes[KLINES] = lambda query: [row for row in answer(query) if not low <= row[0] < high]
    done = get(exchange, tmp_path, end="2021-03-04").imported[0]
    history = read_history(tmp_path)
    assert done.rows == history.n_bars == 72  # mark prices are there
    assert np.flatnonzero(np.isnan(history.columns["close"])).tolist() == list(range(24, 33))
    assert "9 bars have a mark price and no last price" in done.warnings


def test_what_the_exchange_does_not_give_is_said(exchange, tmp_path, monkeypatch):
    monkeypatch.setattr(module.ExchangeClient, "can", lambda _, what: what == "fetchOHLCV")
    done = get(exchange, tmp_path, end="2021-03-02").imported[0]
    assert "ccxt has no history of mark prices of binanceusdm" in done.warnings
    assert "ccxt has no funding history of binanceusdm: no position will be charged" in done.warnings
    assert done.coverage.trigger == "last"
    monkeypatch.undo()
    exchange.routes["/fapi/v1/fundingRate"] = lambda _: []
    done = get(exchange, tmp_path / "b", end="2021-03-02").imported[0]
    assert any(text.startswith("binanceusdm gives no funding of BTC/USDT:USDT") for text in done.warnings)
    exchange.routes[KLINES] = lambda _: []
    with pytest.raises(DataError, match="gives no bars of BTC/USDT:USDT from 2021-03-01T00:00Z to 2021-03-02T00:00Z"):
        get(exchange, tmp_path / "c", end="2021-03-02")
    assert not (tmp_path / "c").exists()


# --- pages ------------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    stamps=st.sets(st.integers(0, 59)),
    low=st.integers(0, 30),
    length=st.integers(1, 40),
    window=st.integers(1, 25),
    page=st.integers(1, 9),
    newest=st.booleans(),
    bounded=st.booleans(),
)
def test_all_rows_of_a_range_are_found_whatever_the_pages(stamps, low, length, window, page, newest, bounded):
    """Pages of the oldest or newest rows of what was asked for; those of the oldest may ignore where to end."""
    asked: list[tuple[int, int]] = []

    def ask(first: int, end: int) -> dict[int, tuple[float, ...]]:
        asked.append((first, end))
        there = sorted(ms for ms in stamps if first <= ms and (ms < end or not (bounded or newest)))
        return {ms: (float(ms),) for ms in (there[-page:] if newest else there[:page])}

    found = collect_pages(ask, low, low + length, window, 1, "rows")
    assert found == {ms: (float(ms),) for ms in stamps if low <= ms < low + length}
    assert len(asked) == len(set(asked)) and all(low <= first < end <= low + length for first, end in asked)


def test_a_time_that_is_there_twice_must_agree():
    assert rows_by_time("x", [(LISTED, [1.0, None]), (LISTED, ["1", None])])[LISTED][0] == 1.0
    with pytest.raises(DataError, match=r"x: 2021-01-01T00:00Z is there twice, as \(1.0,\) and \(2.0,\)"):
        rows_by_time("x", [(LISTED, [1.0]), (LISTED, [2.0])])


@pytest.mark.parametrize("stamp", [None, LISTED / 1000, LISTED * 1000, "2021-01-01", LISTED + 0.5])
def test_times_must_be_milliseconds(stamp):
    with pytest.raises(DataError, match="a time must be in milliseconds; got"):
        rows_by_time("x", [(stamp, [1.0])])


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [418, 429, 500, 502, 503])
def test_a_fault_that_passes_is_tried_again(exchange, tmp_path, status):
    exchange.failures = {KLINES: 2 * [(status, {"code": -1003, "msg": "Too many requests"}, {})]}
    assert get(exchange, tmp_path, end="2021-03-02").imported[0].rows == 24
    assert exchange.asked()[KLINES] == 3


def test_a_fault_that_stays_ends_it_after_bounded_tries(exchange, tmp_path):
    exchange.failures = {KLINES: 9 * [(503, {}, {})]}
    with pytest.raises(DataError, match=r"^binanceusdm: the host could not be reached or is overloaded, 5 times: "):
        get(exchange, tmp_path / "data", end="2021-03-02")
    assert exchange.asked()[KLINES] == 5 and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((400, {"code": -1121, "msg": "Invalid symbol."}, {}), "refuses: BadSymbol: .*Invalid symbol"),
        ((302, {}, {"Location": "http://elsewhere.example/"}), "refuses: ExchangeError: .*/fapi/v1/klines"),
        ((200, [["soon", "1", "2", "1", "1", "1"]], {}), "gives no bars of BTC/USDT:USDT"),
    ],
)
def test_an_answer_of_no_use_is_an_error_and_not_repeated(exchange, tmp_path, answer, reason):
    exchange.failures = {KLINES: [answer]}
    with pytest.raises(DataError, match=reason):
        get(exchange, tmp_path / "data", end="2021-03-02")
    assert exchange.asked()[KLINES] == 1 and not (tmp_path / "data").exists()


@pytest.mark.parametrize("body", [b"<html>no such page</html>", b"", b"[[]]", b"{}", b"null"])
@pytest.mark.parametrize("path", [KLINES, "/fapi/v1/exchangeInfo", "/fapi/v1/fundingRate"])
def test_nonsense_is_no_history_and_no_traceback(exchange, tmp_path, path, body):
    exchange.failures = {path: 20 * [(200, body, {})]}
    words = ["--interval", "1h", "--from", "2021-03-01", "--to", "2021-03-02", "--out", tmp_path / "data"]
    done = typed("fetch", "ccxt", "binanceusdm", "BTCUSDT", *words, "--base-url", exchange.url)
    if path == "/fapi/v1/fundingRate" and done.code == 0:
        assert "warning: binanceusdm gives no funding of BTC/USDT:USDT" in done.err
    else:
        assert done.code in (1, 2) and done.err.startswith("error: ") and "Traceback" not in done.err
        assert not (tmp_path / "data").exists()


def test_without_a_network_the_host_is_named(tmp_path):
    with serving(Exchange()) as exchange:
        pass  # its port is free again
    words = ["--interval", "1h", "--from", "2021-03-01", "--out", tmp_path / "data", "--base-url", exchange.url]
    done = typed("fetch", "ccxt", "binanceusdm", "BTCUSDT", *words)
    assert done.code == 1 and done.out == ""
    assert done.err.startswith("error: binanceusdm: the host could not be reached or is overloaded, 5 times: ")
    assert f"{exchange.url}/fapi/v1/exchangeInfo" in done.err and len(done.err.splitlines()) == 1


def test_without_ccxt_it_says_what_to_install(tmp_path, monkeypatch):
    importing: Callable[..., object] = builtins.__import__

    def none(name: str, *more: object) -> object:
        if name == "ccxt":
            raise ModuleNotFoundError("No module named 'ccxt'", name="ccxt")
        return importing(name, *more)

    monkeypatch.setattr(builtins, "__import__", none)
    done = typed("fetch", "ccxt", "okx", "BTC", "--interval", "1h", "--from", "2021-01-01", "--out", tmp_path / "data")
    assert (done.code, done.err) == (2, "error: this needs ccxt: pip install 'liquidation-backtest[ccxt]'\n")


# --- tiers ------------------------------------------------------------------------------------------------------------


def test_tiers_become_a_table(exchange, tmp_path):
    done = get(exchange, tmp_path / "data", "bybit", end="2021-03-02", tiers=tmp_path / "btc.csv")
    assert done.tiers is not None and done.imported[0].rows == 24
    assert (tmp_path / "btc.csv").read_text() == (
        "floor,cap,mmr,deduction,max_leverage\n0,2000000,0.005,0,100\n2000000,10000000,0.01,10000,50\n"
    )


def test_tiers_of_okx_count_contracts_whose_worth_must_be_given(exchange, tmp_path):
    table = tmp_path / "btc.csv"
    with pytest.raises(ConfigError, match="give --contract-size"):
        get(exchange, tmp_path / "data", "okx", "BTC-USDT-SWAP", end="2021-03-02", tiers=table)
    assert not table.exists() and not (tmp_path / "data").exists()
    # 0.01 BTC at 30,000 are 300 quote: 1,000 contracts 300,000, 5,000 contracts 1,500,000
    get(exchange, tmp_path / "data", "okx", "BTC-USDT-SWAP", end="2021-03-02", tiers=table, contract_size=300)
    assert table.read_text().splitlines()[1:] == ["0,300000,0.004,,100", "300000,1500000,0.005,,75"]


def test_tiers_that_need_an_account_are_refused_before_anything_is_asked_for(exchange, tmp_path):
    with pytest.raises(DataError, match=r'^leverage tiers: binanceusdm refuses: .*"apiKey".*; leave --tiers out'):
        get(exchange, tmp_path / "data", tiers=tmp_path / "btc.csv")
    assert exchange.asked()[KLINES] == 0 and not list(tmp_path.iterdir())


def test_a_tier_table_is_replaced_only_if_asked_to(exchange, tmp_path):
    (tmp_path / "btc.csv").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        get(exchange, tmp_path / "data", "bybit", tiers=tmp_path / "btc.csv")
    assert (tmp_path / "btc.csv").read_text() == "mine"
    get(exchange, tmp_path / "data", "bybit", end="2021-03-02", tiers=tmp_path / "btc.csv", overwrite=True)
    assert (tmp_path / "btc.csv").read_text() != "mine"


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exchange": "binanceum"}, "ccxt knows no exchange 'binanceum'; near are .*binanceusdm"),
        ({"interval": "7m"}, "binanceusdm has bars of 1s, 1m, .*; got interval '7m'"),
        ({"interval": "soon"}, "a duration is a whole number"),
        ({"start": "2021-03-02", "end": "2021-03-02"}, "--from must lie before --to"),
        ({"start": "soon"}, "a time is ISO 8601"),
        ({"symbols": ["BTCUSDT", "ETHUSDT"], "tiers": "t.csv"}, "--tiers takes the table of one symbol; got 2"),
        ({"base_url": "ftp://host"}, "must be http:// or https://"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is(exchange, tmp_path, change, message):
    asked = {"exchange": "binanceusdm", "symbols": ["BTCUSDT"], "interval": "1h", "start": "2021-03-01", "end": None}
    asked |= {"out": tmp_path / "data", "base_url": exchange.url} | change
    first = [asked.pop(name) for name in ("exchange", "symbols", "interval", "start", "end")]
    with pytest.raises(ConfigError, match=message):
        fetch_ccxt(*first, **asked)
    assert exchange.requests == [] and not list(tmp_path.iterdir())


def test_symbols_that_are_none_or_one_are_refused(exchange, tmp_path):
    with pytest.raises(ConfigError, match=r"binanceusdm has no symbol 'BTCUSD'; near are .*BTCUSDT"):
        get(exchange, tmp_path, "binanceusdm", "BTCUSD")
    with pytest.raises(ConfigError, match="two of them are one symbol, BTCUSDT"):
        get(exchange, tmp_path, "binanceusdm", "BTCUSDT", "BTC/USDT:USDT")


def test_the_exchange_is_asked_at_its_pace():
    assert module.ExchangeClient.to("okx", None).venue.enableRateLimit is True


def test_nothing_that_is_finished_lies_in_the_range(exchange, tmp_path):
    assert NOW == LISTED + (68 * 24 + 5.5) * HOUR
    with pytest.raises(ConfigError, match="no bar of 1h is finished between --from and --to"):
        get(exchange, tmp_path, start="2021-03-10T05:00")


def test_an_exchanges_symbol_means_the_contract_and_must_be_one():
    def market(symbol: str, own: str, kind: str) -> dict[str, object]:
        return {"symbol": symbol, "id": own, "contract": kind != "spot", "option": kind == "option", "base": "BTC"}

    spot, swap = market("BTC/USDT", "BTCUSDT", "spot"), market("BTC/USDT:USDT", "BTCUSDT", "swap")
    usdc = market("BTC/USDC:USDC", "0", "swap")  # the name of a bare number is the coin's
    known = {str(each["symbol"]): each for each in (spot, swap, usdc)}
    assert find_market("x", known, "BTCUSDT") is swap
    assert find_market("x", known, "BTC/USDT") is spot
    assert find_market("x", known, "BTC") is usdc
    twice = {**known, "BTC/USDT:BTC": market("BTC/USDT:BTC", "BTCUSDT", "swap")}
    with pytest.raises(ConfigError, match="BTCUSDT is several on x; name one: BTC/USDT:USDT, BTC/USDT:BTC"):
        find_market("x", twice, "BTCUSDT")


def test_the_command_says_what_it_did(exchange, tmp_path):
    words = ["--interval", "1h", "--from", "2021-03-01", "--to", "2021-03-02", "--tiers", tmp_path / "btc.csv"]
    done = typed("fetch", "ccxt", "bybit", "BTCUSDT", *words, "--out", tmp_path / "data", "--base-url", exchange.url)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"{tmp_path}/btc.csv: BTC/USDT:USDT, 2 tiers",
        f"{tmp_path}/data/interval=1h/symbol=BTCUSDT: 24 bars, 2021-03-01T00:00Z … 2021-03-01T23:00Z, 0 gaps, "
        "3 charges",
    ]
    assert "BTC/USDT:USDT of bybit is BTCUSDT in the dataset" in done.err
