"""OKX: the rate that was charged and not the forecast, headers of another encoding, one instrument of many."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from backtest.data.dataset import read_history
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats import okx
from backtest.ingest.importer import import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Request
from tests._support.layouts import OKX_FUNDING
from tests._support.market import HOUR, T0

HEAD = "instrument_name,open,high,low,close,vol,vol_ccy,vol_quote,open_time,confirm\n"


def packed(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        archive.writestr(f"{name}.csv", text.encode(encoding))
    return folder / f"{name}.zip"


def candles(folder: Path, confirm: str = "1111", instrument: str = "BTC-USDT-SWAP") -> Path:
    rows = [
        f"{instrument},{10 + k},{12 + k},{9 + k},{11 + k},500,5,None,{T0 + HOUR * k},{last}\n"
        for k, last in enumerate(confirm)
    ]
    return packed(folder, f"{instrument}-candlesticks-2024-01", HEAD + "".join(rows))


def take(out: Path, prices: object, funding: object = None, instrument: str | None = None) -> Imported:
    request = Request("BTCUSDT", "1h", out, instrument=instrument)
    return import_files(okx.FORMAT, request, BarFiles(prices, None, funding))


def test_the_realised_rate_of_the_instrument_is_charged(tmp_path: Path) -> None:
    text = ",".join(OKX_FUNDING) + "\n"
    for k, rate in ((0, 0.0001), (2, 0.0002)):
        text += f"ETH-USDT-SWAP,SWAP,0.5,0.4,{T0 + HOUR * k}\nBTC-USDT-SWAP,SWAP,0.3,{rate},{T0 + HOUR * k}\n"
    funding = packed(tmp_path, "allswaprate-swaprate-2024-01-01", text, "gbk")
    done = take(tmp_path / "out", candles(tmp_path), funding)
    bars = read_history(tmp_path / "out").columns
    np.testing.assert_array_equal(bars["funding_rate"], [0.0001, np.nan, 0.0002, np.nan])
    np.testing.assert_array_equal(bars["volume"], [5, 5, 5, 5])  # in base, not the 500 contracts
    assert f"{funding.name}: real_funding_rate is what was charged" in done.notes


def test_an_archive_with_one_rate(tmp_path: Path) -> None:
    text = f"instrument_name,funding_rate,funding_time\nBTC-USDT-SWAP,0.0001,{T0}\n"
    done = take(tmp_path / "out", candles(tmp_path), packed(tmp_path, "f", text))
    assert read_history(tmp_path / "out").columns["funding_rate"][0] == 0.0001
    assert "f.zip: has one rate only, which is taken for the one that was charged" in done.notes


def test_the_api_gives_both_rates(tmp_path: Path) -> None:
    rows = [{"instId": "BTC-USDT-SWAP", "fundingRate": "0.3", "realizedRate": "0.0001", "fundingTime": str(T0)}]
    (tmp_path / "f.json").write_text(json.dumps({"code": "0", "data": rows}))
    take(tmp_path / "out", candles(tmp_path), tmp_path / "f.json")
    assert read_history(tmp_path / "out").columns["funding_rate"][0] == 0.0001


def test_bars_that_were_forming_are_left_out_but_not_where_none_is_confirmed(tmp_path: Path) -> None:
    done = take(tmp_path / "one", candles(tmp_path, "1110"))
    assert done.rows == 3
    assert "BTC-USDT-SWAP-candlesticks-2024-01.zip: 1 bars that were still forming are left out" in done.notes
    assert take(tmp_path / "two", candles(tmp_path, "0000")).rows == 4  # archives do not mean it


def test_files_of_another_instrument(tmp_path: Path) -> None:
    prices = candles(tmp_path, instrument="ETH-USDT-SWAP")
    with pytest.raises(ConfigError, match=r"holds ETH-USDT-SWAP; give --instrument, which of them is BTCUSDT"):
        take(tmp_path / "out", prices)
    assert take(tmp_path / "out", prices, instrument="ETH-USDT-SWAP").rows == 4


def test_files_that_are_no_archive_of_okx(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("time,open\n1,2\n")
    with pytest.raises(DataError, match=r"p.csv: must have a header with instrument_name"):
        take(tmp_path / "out", tmp_path / "p.csv")
    (tmp_path / "f.json").write_text('{"code":"50011","msg":"Too Many Requests","data":[]}')
    with pytest.raises(DataError, match=r"code must be 0.*50011.*Too Many Requests"):
        take(tmp_path / "out", tmp_path / "f.json")
    (tmp_path / "e.json").write_text('{"code":"0","data":[]}')
    with pytest.raises(DataError, match=r"there are no rows"):
        take(tmp_path / "out", tmp_path / "e.json")
