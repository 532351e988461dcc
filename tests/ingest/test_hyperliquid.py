"""Hyperliquid: candles that say their own interval, and funding with jitter whose interval changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backtest.data.dataset import read_history
from backtest.data.quality.check import check
from backtest.errors import ConfigError, DataError
from backtest.ingest.formats import hyperliquid
from backtest.ingest.importer import import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Request
from tests._support.market import HOUR, T0

REAL = Path(__file__).parents[2].parent / "shared/data/hyperliquid"


def candles(folder: Path, n_bars: int = 48, **other: object) -> Path:
    rows = [
        {"t": T0 + HOUR * k, "T": T0 + HOUR * (k + 1) - 1, "s": "BTC", "i": "1h", "o": str(100 + k), "c": str(101 + k),
         "h": str(102 + k), "l": str(99 + k), "v": "5", "n": 3, **other}
        for k in range(n_bars)
    ]  # fmt: skip
    (folder / "c.json").write_text(json.dumps(rows))
    return folder / "c.json"


def funding(folder: Path, stamps: list[int]) -> Path:
    rows = [{"coin": "BTC", "fundingRate": "0.0000125", "premium": "0.0001", "time": stamp} for stamp in stamps]
    (folder / "f.json").write_text(json.dumps(rows))
    return folder / "f.json"


def take(out: Path, prices: Path, charges: Path | None = None, interval: str = "1h") -> Imported:
    return import_files(hyperliquid.FORMAT, Request("BTC", interval, out), BarFiles(prices, None, charges))


def test_funding_that_changes_from_8_hours_to_one_is_no_doubt(tmp_path: Path) -> None:
    # charges at 0, 8, 16, 24 h with a few ms of jitter, then every hour
    stamps = [T0 + HOUR * k + 37 + k for k in (0, 8, 16, *range(24, 48))]
    done = take(tmp_path / "out", candles(tmp_path), funding(tmp_path, stamps))
    assert done.charges == 27
    charged = np.flatnonzero(~np.isnan(read_history(tmp_path / "out").columns["funding_rate"]))
    assert charged.tolist() == [0, 8, 16, *range(24, 48)]
    assert not done.warnings


def test_a_missing_and_a_double_charge_are_said(tmp_path: Path) -> None:
    stamps = [T0 + HOUR * k for k in range(48) if k != 20]
    done = take(tmp_path / "one", candles(tmp_path), funding(tmp_path, stamps))
    assert any("2024-01-01T20:00Z: funding_rate lacks" in warning for warning in done.warnings)
    stamps = sorted([*(T0 + HOUR * k for k in range(48)), T0 + HOUR * 20 + 5_000])
    done = take(tmp_path / "two", candles(tmp_path), funding(tmp_path, stamps))
    text = "1 funding charges seem to be there twice, the first at 2024-01-01T20:00Z and 2024-01-01T20:00:05Z"
    assert text in done.warnings


def test_candles_of_another_interval_or_coin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c.json: holds candles of 1h, not of --interval 5m"):
        take(tmp_path / "out", candles(tmp_path), interval="5m")
    with pytest.raises(ConfigError, match=r"holds ETH; give --instrument"):
        take(tmp_path / "out", candles(tmp_path, s="ETH"))
    (tmp_path / "c.json").write_text('[{"t": 1}]')
    with pytest.raises(DataError, match=r"c.json: every row must have time, open, high, low, close"):
        take(tmp_path / "out", tmp_path / "c.json")
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(ConfigError, match=r"files of Hyperliquid are read from .json, .json.gz"):
        take(tmp_path / "out", tmp_path / "c.csv")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real histories here")
def test_real_charges_of_three_years(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    bars, charges = (pq.read_table(REAL / f"BTC-{name}.parquet").to_pylist() for name in ("1h", "funding"))
    stamp = lambda row: int(row["timestamp"].timestamp() * 1000 + 0.5)  # noqa: E731
    rows = [
        {"t": stamp(row), "s": "BTC", "i": "1h", "o": repr(row["open"]), "h": repr(row["high"]), "l": repr(row["low"]),
         "c": repr(row["close"]), "v": repr(row["volume"])}
        for row in bars
    ]  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(rows))
    told = [{"coin": "BTC", "fundingRate": repr(row["funding_rate"]), "time": stamp(row)} for row in charges]
    (tmp_path / "f.json").write_text(json.dumps(told))
    done = take(tmp_path / "out", tmp_path / "c.json", tmp_path / "f.json")
    assert (done.rows, done.charges, done.warnings) == (7_793, 7_793, ())
    assert check(tmp_path / "out").ok
