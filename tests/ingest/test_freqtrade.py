"""freqtrade: files of a pair are found by either naming; a rate is the open of its row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backtest.data.dataset import read_history
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats.freqtrade import import_freqtrade
from backtest.ingest.options import BarFiles
from tests._support.layouts import LAYOUTS
from tests._support.market import HOUR, T0, market_of

REAL = Path(__file__).parents[2].parent / "shared/data/formats"
Renamed = Callable[[dict[str, str]], Path]
NEW = ("BTC_USDT_USDT-1h-futures", "BTC_USDT_USDT-1h-mark", "BTC_USDT_USDT-8h-funding_rate")


@pytest.fixture
def renamed(tmp_path: Path) -> Renamed:
    def write(names: dict[str, str]) -> Path:
        layout = LAYOUTS["freqtrade-json"]
        layout.write(tmp_path / "from", layout.docs(market_of(5)))
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        for old, new in names.items():
            (tmp_path / "data" / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "from" / "futures" / f"{old}.json.gz", tmp_path / "data" / new)
        return tmp_path / "data"

    return write


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("place", ["", "futures/"])
def test_both_namings_are_found(tmp_path: Path, renamed: Renamed, older: bool, place: str) -> None:
    names = {name: place + (name.replace("_USDT_USDT", "_USDT") if older else name) + ".json.gz" for name in NEW}
    done = import_freqtrade(renamed(names), "BTC/USDT:USDT", "1h", out=tmp_path / "out")
    assert (done.rows, done.charges, done.warnings) == (240, 30, ())
    bars = read_history(tmp_path / "out")
    assert bars.symbol == "BTCUSDT"
    for name, values in market_of(5).columns().items():
        np.testing.assert_array_equal(bars.columns[name], values, err_msg=name)


def test_candles_without_a_type_are_those_of_the_spot_market(tmp_path: Path, renamed: Renamed) -> None:
    folder = renamed({NEW[0]: "BTC_USDT-1h.json.gz", NEW[2]: "futures/BTC_USDT-8h-funding_rate.json.gz"})
    done = import_freqtrade(folder, "BTC/USDT:USDT", "1h", out=tmp_path / "out", symbol="B")
    assert (done.rows, done.charges) == (240, 30)
    assert any("is of the spot market by its name" in warning for warning in done.warnings)
    done = import_freqtrade(folder, "BTC/USDT", "1h", out=tmp_path / "out")
    assert not done.warnings


def test_mark_prices_of_another_interval_are_not_used_and_said(tmp_path: Path, renamed: Renamed) -> None:
    folder = renamed({NEW[0]: f"{NEW[0]}.json.gz", NEW[1]: "BTC_USDT_USDT-8h-mark.json.gz"})
    done = import_freqtrade(folder, "BTC/USDT:USDT", "1h", out=tmp_path / "out")
    text = "mark is there at another interval only and is not used: BTC_USDT_USDT-8h-mark.json.gz"
    assert done.warnings == (text,)


def test_what_is_not_there_or_twice(tmp_path: Path, renamed: Renamed) -> None:
    folder = renamed({NEW[0]: f"{NEW[0]}.json.gz"})
    with pytest.raises(ConfigError, match=r"no candles of BTC/USDT:USDT at 5m; files of the pair are BTC_USDT_USDT-1h"):
        import_freqtrade(folder, "BTC/USDT:USDT", "5m", out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"there are no candles of ETH/USDT:USDT at 1h; files of the pair are none"):
        import_freqtrade(folder, "ETH/USDT:USDT", "1h", out=tmp_path / "out")
    shutil.copy(folder / f"{NEW[0]}.json.gz", folder / f"{NEW[0]}.json")
    with pytest.raises(ConfigError, match=r"more than one file for prices; name one with --prices"):
        import_freqtrade(folder, "BTC/USDT:USDT", "1h", out=tmp_path / "out")
    one = folder / f"{NEW[0]}.json.gz"
    assert import_freqtrade(folder, "BTC/USDT:USDT", "1h", BarFiles(one), out=tmp_path / "out").rows == 240
    with pytest.raises(ConfigError, match=r"nowhere is no folder"):
        import_freqtrade(tmp_path / "nowhere", "BTC/USDT:USDT", "1h", out=tmp_path / "out")


def test_files_of_another_interval_are_refused(tmp_path: Path, renamed: Renamed) -> None:
    folder = renamed({NEW[0]: "BTC_USDT_USDT-5m-futures.json.gz"})
    with pytest.raises(DataError, match=r"has no two bars 5m apart; the closest are 1h: is --interval right"):
        import_freqtrade(folder, "BTC/USDT:USDT", "5m", out=tmp_path / "out")


def test_funding_given_for_candles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BTC_USDT_USDT-8h-futures.json").write_text(json.dumps([[T0 + 8 * HOUR, 0.0001, 0, 0, 0, 0]]))
    with pytest.raises(DataError, match=r"column high must be > 0; got 0 in row 0"):
        import_freqtrade(tmp_path, "BTC/USDT:USDT", "8h", out=tmp_path / "out")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real files here")
def test_real_files(tmp_path: Path) -> None:
    done = import_freqtrade(REAL, "XRP/USDT:USDT", "1h", out=tmp_path)
    assert (done.rows, done.charges, done.span[0]) == (100, 10, "2021-11-17T01:00Z")
    assert read_history(tmp_path).columns["open"][0] == 1.0801
    files = [REAL / f"BTC_USDT_USDT-8h-{kind}.feather" for kind in ("mark", "mark", "funding_rate")]
    done = import_freqtrade(None, "BTC/USDT:USDT", "8h", BarFiles(*files), out=tmp_path)
    assert (done.rows, done.charges) == (1_379, 1_379)
    assert any("volume is 0 while the price moves" in warning for warning in done.warnings)
