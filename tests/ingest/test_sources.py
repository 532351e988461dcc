"""Every source: its files become the market that they hold, or are refused by name; nothing is touched unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backtest.cli import cli
from backtest.data.dataset import read_history
from backtest.data.quality.check import check
from backtest.data.writer import Existing
from backtest.errors import ConfigError, DataError
from backtest.ingest.clock_alignment import find_lag, zone_by_mark
from backtest.ingest.files import list_files
from backtest.ingest.formats import bybit, ccxt
from backtest.ingest.importer import import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Request, existing_choice
from tests._support.layouts import LAYOUTS, Layout
from tests._support.market import HOUR, T0, Market, market_of
from tests._support.mutations import KINDS, run

Written = Callable[..., Path]


@pytest.fixture(scope="module")
def market() -> Market:
    return market_of(7)


@pytest.fixture
def written(tmp_path: Path, market: Market) -> Written:
    """The folder of a source's files, rows of one of them changed where asked."""

    def write(name: str, change: Callable[[list], None] | None = None) -> Path:
        docs = LAYOUTS[name].docs(market)
        if change is not None:
            change(docs)
        LAYOUTS[name].write(tmp_path / "in", docs)
        return tmp_path / "in"

    return write


def assert_market(out: Path, layout: Layout, market: Market) -> None:
    """Every value, and no other."""
    got, truth = read_history(out), layout.truth(market)
    assert (got.start_ms, got.n_bars) == (T0, len(market.stamps))
    assert {name for name, values in got.columns.items() if not np.isnan(values).all()} == set(truth)
    for name, values in truth.items():
        np.testing.assert_array_equal(got.columns[name], values, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_files_of_every_source_become_what_they_hold(tmp_path: Path, market: Market, layout: Layout) -> None:
    layout.write(tmp_path / "in", layout.docs(market))
    done = layout.load(tmp_path / "in", tmp_path / "out")
    assert_market(tmp_path / "out", layout, market)
    assert done.rows == 240
    assert done.charges == 30 - layout.first_charge
    assert done.span == ("2024-01-01T00:00Z", "2024-01-10T23:00Z")
    assert check(tmp_path / "out").ok
    doubts = [warning for warning in done.warnings if "ends before the month" not in warning]
    assert not doubts


def test_spoilt_files_are_refused_or_warned_of(tmp_path: Path) -> None:
    found = run(312, 1_000_000, tmp_path)
    wrong = [one for one in found if one[3].verdict == "WRONG"]
    assert not wrong
    assert {kind for _, kind, _, _ in found} == set(KINDS)
    verdicts = [one[3].verdict for one in found]
    assert verdicts.count("refused") > 150
    assert verdicts.count("warned") > 50


# --- what is there ----------------------------------------------------------------------------------------------------


def taken(folder: Path, out: Path, existing: Existing = "refuse") -> Imported:
    files = [folder / name for name in ("ohlcv.json", "mark.json", "funding.json")]
    return import_files(ccxt.FORMAT, Request("BTCUSDT", "1h", out, existing), BarFiles(*files))


def test_bars_that_are_there_are_refused_joined_or_replaced(tmp_path: Path, market: Market, written: Written) -> None:
    out = tmp_path / "out"

    def part(rows: slice) -> Callable[[list], None]:
        def change(docs: list) -> None:
            for doc in docs[:2]:
                doc.rows = doc.rows[rows]

        return change

    taken(written("ccxt", part(slice(0, 150))), out)
    with pytest.raises(ConfigError, match=r"exists"):
        taken(written("ccxt"), out)
    assert read_history(out).n_bars == 150
    taken(written("ccxt", part(slice(100, 240))), out, "add")
    assert_market(out, LAYOUTS["ccxt"], market)

    def other(docs: list) -> None:
        docs[0].rows = docs[0].rows[200:]
        docs[0].rows[0][2] = "99999"
        docs[1].rows = docs[1].rows[200:]

    with pytest.raises(DataError, match=r"2024-01-09T08:00Z"):
        taken(written("ccxt", other), out, "add")
    assert_market(out, LAYOUTS["ccxt"], market)
    done = taken(written("ccxt", other), out, "replace")
    assert read_history(out).columns["high"][200] == 99999
    assert any("beyond open and close" in warning for warning in done.warnings)
    with pytest.raises(ConfigError, match=r"add and overwrite exclude each other"):
        taken(written("ccxt"), out, existing_choice(add=True, overwrite=True))


def test_a_refused_import_leaves_nothing(tmp_path: Path, written: Written) -> None:
    def spoil(docs: list) -> None:
        docs[1].rows[5][3] = "-1"

    with pytest.raises(DataError, match=r"mark.json: column low must be > 0; got -1 in row 5"):
        taken(written("ccxt", spoil), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- files ------------------------------------------------------------------------------------------------------------


def test_sources_are_files_folders_or_patterns(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt", "d.json"):
        (tmp_path / name).write_text("x")
    names = lambda found: [path.name for path in found]  # noqa: E731
    assert names(list_files(tmp_path, (".csv", ".txt"))) == ["a.csv", "b.csv", "c.txt"]
    assert names(list_files(str(tmp_path / "*.csv"))) == ["a.csv", "b.csv"]
    assert names(list_files([tmp_path / "d.json", tmp_path / "d.json"])) == ["d.json"]
    assert list_files(None) == []
    with pytest.raises(ConfigError, match=r"no.csv is no file"):
        list_files(tmp_path / "no.csv")
    with pytest.raises(ConfigError, match=r"is no file, nor a folder of .zip"):
        list_files(tmp_path, (".zip",))


def test_what_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    import gzip

    # 64 MiB of commas pack to 64 KiB: more than a hundred times as much, and no prices
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(b"," * (64 << 20)))
    with pytest.raises(DataError, match=r"p.csv.gz: unpacks to more than"):
        import_files(bybit.FORMAT, Request("X", "1m", tmp_path / "out"), BarFiles(tmp_path / "p.csv.gz"))


def test_files_of_another_instrument_are_refused(tmp_path: Path, written: Written) -> None:
    folder = written("ccxt")
    files = BarFiles(folder / "ohlcv.json", None, folder / "funding.json")
    with pytest.raises(ConfigError, match=r"holds BTC/USDT:USDT; give --instrument, which of them is ETHUSDT"):
        import_files(ccxt.FORMAT, Request("ETHUSDT", "1h", tmp_path / "out"), files)
    named = Request("coin", "1h", tmp_path / "out", instrument="BTC/USDT:USDT")
    done = import_files(ccxt.FORMAT, named, files)
    assert done.charges == 30


# --- two prices move together -----------------------------------------------------------------------------------------


def test_the_lag_between_two_prices() -> None:
    rng = np.random.default_rng(3)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 500)))
    other = price * np.exp(rng.normal(0, 0.001, 500))
    minutes = 60_000 * np.arange(500)
    assert find_lag(minutes, price, minutes, other, 60_000) == (0, 0)
    assert find_lag(minutes + 60_000, price, minutes, other, 60_000) == (1, 0)  # stamped at the close
    assert find_lag(minutes - 180 * 60_000, price, minutes, other, 60_000)[0] == -180
    assert zone_by_mark(minutes + 180 * 60_000, price, minutes, other, 60_000) == 3 * HOUR
    assert zone_by_mark(minutes + 60_000, price, minutes, other, 60_000) is None  # a minute is no zone
    # nothing in common, too few bars, no move at all: undecided
    assert find_lag(minutes, price, minutes, other[::-1], 60_000) is None
    assert find_lag(minutes[:40], price[:40], minutes[:40], other[:40], 60_000) is None
    assert find_lag(minutes, np.full(500, 5.0), minutes, np.full(500, 5.0), 60_000) is None


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "bybit-rest",
            ["bybit", "--prices", "{}/kline.json", "--mark", "{}/mark.json", "--funding", "{}/funding.json"],
        ),
        ("okx-rest", ["okx", "--prices", "{}/candles.json", "--mark", "{}/mark.json", "--funding", "{}/funding.json"]),
        ("hyperliquid", ["hyperliquid", "--prices", "{}/candles.json", "--funding", "{}/funding.json"]),
        ("ccxt", ["ccxt", "--prices", "{}/ohlcv.json", "--mark", "{}/mark.json", "--funding", "{}/funding.json"]),
        ("tardis", ["tardis", "{}/2024-01-01_BTCUSDT.csv.gz"]),
        ("freqtrade-json", ["freqtrade", "{}", "--pair", "BTC/USDT:USDT"]),
        ("generic-csv", ["generic", "--prices", "{}/p.csv", "--mark", "{}/m.csv", "--funding", "{}/f.csv"]),
    ],
)
def test_the_commands(tmp_path: Path, market: Market, written: Written, name: str, words: list[str]) -> None:
    folder, layout = written(name), LAYOUTS[name]
    symbol = [] if name == "freqtrade-json" else ["--symbol", "BTC" if name == "hyperliquid" else "BTCUSDT"]
    asked = ["import", *(word.format(folder) for word in words), *symbol, "--interval", "1h"]
    done = CliRunner().invoke(cli, [*asked, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    charges = 30 - layout.first_charge
    assert done.stdout.endswith(f"240 bars, 2024-01-01T00:00Z … 2024-01-10T23:00Z, 0 gaps, {charges} charges\n")
    assert "since the epoch" in done.stderr
    assert_market(tmp_path / "out", layout, market)
    again = CliRunner().invoke(cli, [*asked, "--out", str(tmp_path / "out")])
    assert isinstance(again.exception, ConfigError)
    assert CliRunner().invoke(cli, [*asked, "--out", str(tmp_path / "out"), "--add"]).exit_code == 0
    assert CliRunner().invoke(cli, [*asked, "--out", str(tmp_path / "out"), "--overwrite"]).exit_code == 0
    assert_market(tmp_path / "out", layout, market)
