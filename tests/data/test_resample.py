"""Coarser bars are what the exchange itself would have printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.data.history import PRICES
from backtest.data.resample import resample
from backtest.units import instant_text
from tests._support.histories import HOUR, history_of, random_rows

WRONG_IN_THE_FILES = {"2024-10-28T20:00Z", "2024-10-28T21:00Z", "2025-01-14T15:00Z"}
"""Two hours of the 15-minute files are flat, and one low is missing from them."""
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "binance_um"


def test_bars_are_made_of_the_known_bars_inside_them() -> None:
    nan = np.nan
    columns = {
        "open": np.array([9.0, nan, 2.0, 3.0, 5.0, 7.0, 8.0]),
        "high": np.array([9.0, nan, 4.0, 3.5, 5.5, 7.0, 9.0]),
        "low": np.array([8.0, nan, 1.0, 2.5, 4.5, 6.0, 8.0]),
        "close": np.array([8.5, nan, 3.0, 3.0, 5.0, 6.5, 9.0]),
        "funding_rate": np.array([0.1, nan, 0.01, 0.02, nan, nan, nan]),
        "volume": np.array([1.0, nan, 2.0, 3.0, 4.0, 5.0, 6.0]),
        "maintenance_scale": np.array([1.0, nan, 2.0, 1.0, 0.5, 0.5, 1.0]),
    }
    # Bars of an hour from 02:00: the first whole three-hour bar opens at 03:00, the last hour is left out.
    found = resample(bt.PriceHistory("COIN", HOUR, 2 * HOUR, columns), "3h")
    assert found.start_ms == 3 * HOUR and found.before == {"close": 8.5}
    assert found.columns["open"].tolist() == [2.0, 5.0]
    assert found.columns["high"].tolist() == [4.0, 9.0]
    assert found.columns["low"].tolist() == [1.0, 4.5]
    assert found.columns["close"].tolist() == [3.0, 9.0]
    assert found.columns["funding_rate"][0] == 0.03 and np.isnan(found.columns["funding_rate"][1])
    assert found.columns["volume"].tolist() == [5.0, 15.0]
    assert found.columns["maintenance_scale"].tolist() == [2.0, 1.0]


def test_in_two_steps_as_in_one() -> None:
    history = history_of(random_rows(5, 500))
    once, twice = resample(history, "12h"), resample(resample(history, "4h"), "12h")
    for name in once.columns:
        np.testing.assert_allclose(once.columns[name], twice.columns[name], rtol=1e-15)  # sums of funding


@pytest.mark.parametrize(("interval", "message"), [("90m", "multiple of the history's 1h"), ("52w", "longer than")])
def test_impossible_intervals_are_refused(interval, message) -> None:
    with pytest.raises(bt.ConfigError, match=message):
        resample(history_of(random_rows(5, 500)), interval)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared histories are not there")
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_equal_to_the_independent_hourly_file(symbol, tmp_path) -> None:
    for interval in ("15m", "1h"):
        bt.import_generic(symbol, interval, DATA / f"{symbol}-{interval}.parquet", out=tmp_path / interval)
    fine = resample(bt.read_history(tmp_path / "15m", symbol=symbol), "1h")
    coarse = bt.read_history(tmp_path / "1h", symbol=symbol)
    start, stop = max(fine.start_ms, coarse.start_ms), min(h.start_ms + h.n_bars * HOUR for h in (fine, coarse))
    assert (stop - start) // HOUR > 10_000
    for name in PRICES:
        if name in fine.columns and name in coarse.columns:
            one, two = (
                h.columns[name][(start - h.start_ms) // HOUR : (stop - h.start_ms) // HOUR] for h in (fine, coarse)
            )
            differ = np.flatnonzero((one != two) & ~(np.isnan(one) & np.isnan(two)))
            assert {instant_text(start + int(bar) * HOUR) for bar in differ} <= WRONG_IN_THE_FILES, name
