"""What `check` says of real histories: their bad hours and gaps, nothing of their crashes, and of what is spoilt."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from backtest.data.history import PriceHistory, from_rows
from backtest.data.quality.check import check_history
from backtest.units import duration_ms
from tests._support.real import REAL, needs_real

pytestmark = needs_real
HOUR = 3_600_000
BARS = ("open", "high", "low", "close")
Columns = dict[str, np.ndarray]


def read(path: Path) -> tuple[np.ndarray, Columns]:
    table = pq.read_table(path).to_pandas()
    times = table.pop("timestamp").to_numpy("datetime64[ms]").astype(np.int64)
    return times, {name: table[name].to_numpy(dtype=float) for name in table}


@cache
def history(name: str, interval: str) -> PriceHistory:
    """Bars of a file, with mark price and funding where there are some."""
    step = duration_ms(interval)
    parts = [read(REAL / f"{name}.parquet")]
    mark, funding = REAL / f"{name}-mark.parquet", REAL / f"{name.rpartition('-')[0]}-funding.parquet"
    if mark.is_file():
        times, columns = read(mark)
        parts.append((times, {f"mark_{name}": columns[name] for name in BARS}))
    if mark.is_file() and funding.is_file():
        times, columns = read(funding)
        first, last = parts[0][0][[0, -1]]
        inside = (times >= first) & (times <= last)
        parts.append((times[inside] // step * step, {"funding_rate": columns["funding_rate"][inside]}))
    stamps = np.unique(np.concatenate([times for times, _ in parts]))
    merged: Columns = {}
    for times, columns in parts:
        for key, values in columns.items():
            merged[key] = np.full(stamps.size, np.nan)
            merged[key][np.searchsorted(stamps, times)] = values
    return from_rows(name.rpartition("/")[2], step, stamps, merged)


def warned(bars: PriceHistory) -> list[tuple[str | None, str, int]]:
    report = check_history(bars)
    assert report.ok
    return [(one.column, one.first, one.bars) for one in report.warnings]


HOURLY = [f"binance_um/{symbol}USDT-1h" for symbol in ("ADA", "BCH", "BTC", "ETH", "LTC", "SOL", "XRP")]
HOURLY += ["hyperliquid/BTC-1h", "hyperliquid/ETH-1h"]


@pytest.mark.parametrize("name", HOURLY)
def test_nothing_is_said_of_clean_hours(name: str) -> None:
    """BTC 2020-03-12, ETH 2021-05-19, the last-price prints of 2020 that mark does not show, 2025-10-10."""
    assert warned(history(name, "1h")) == []


OUTAGES = [("close", "2023-09-12T08:35Z", 3), ("close", "2024-10-28T20:00Z", 14), ("close", "2025-08-29T06:20Z", 3)]
GAPS = {
    "BTC": [(None, "2022-11-24T17:10Z", 10_738), (None, "2025-04-13T07:20Z", 6_147)],
    "ETH": [
        (None, "2022-11-24T17:10Z", 10_738),
        (None, "2024-05-14T15:45Z", 40_131),
        (None, "2025-04-13T07:20Z", 6_147),
    ],
}


@pytest.mark.parametrize("symbol", ["BTC", "ETH"])
def test_flat_hours_and_gaps_are_found(symbol: str) -> None:
    """From 20:00 to 21:10 on 2024-10-28 nothing was recorded; the two others are outages of the exchange."""
    assert warned(history(f"binance_um/{symbol}USDT-5m", "5m")) == GAPS[symbol] + OUTAGES
    assert warned(history(f"binance_um/{symbol}USDT-15m", "15m")) == [("close", "2024-10-28T20:00Z", 4)]


@pytest.mark.parametrize("symbol", ["SUI", "ADA", "SOL", "DOGE", "XRP"])
def test_a_crash_within_a_bar_is_right(symbol: str) -> None:
    """2025-10-10, SUI down 66 % in one bar of five minutes: only the outage of 2025-08-29 is said."""
    assert warned(history(f"crash_20251010/{symbol}USDT-5m", "5m")) == [("close", "2025-08-29T06:20Z", 3)]


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("binance_um_1m/AVAXUSDT-1m-2025-02", "1m"),
        ("binance_um_1m/FILUSDT-1m-2025-02", "1m"),
        ("binance_um_1m/BTCUSDT-1m-202505", "1m"),
        ("binance_um_1m/ETHUSDT-1m-202505-06", "1m"),
        ("bybit_linear/BTCUSDT-5m", "5m"),
        ("bybit_linear/ETHUSDT-5m", "5m"),
    ],
)
def test_nothing_is_said_of_minutes(name: str, interval: str) -> None:
    assert warned(history(name, interval)) == []


@pytest.mark.parametrize("symbol", ["BTC", "ETH", "SOL"])
def test_of_okx_the_hours_of_maintenance_are_found(symbol: str) -> None:
    found = warned(history(f"okx_swap/{symbol}-USDT-SWAP-5m", "5m"))
    assert {column for column, _, _ in found} == {"close"}
    days = {first[:10] for _, first, _ in found}
    assert {"2022-07-07", "2022-07-14", "2022-11-03", "2022-11-10", "2022-12-18"} <= days
    assert max(bars for _, _, bars in found) in {121, 122, 124}  # 2022-12-18 from 08:30 on


def test_charges_that_hyperliquid_lacks_are_found() -> None:
    """Every 8 hours until 2023-06-08, then every hour, but for three."""
    times, columns = read(REAL / "hyperliquid" / "BTC-funding.parquet")
    bars = times // HOUR * HOUR
    close = np.full(bars.size, 100.0) + np.arange(bars.size) % 2
    known = {"high": close + 1, "low": close - 1, "close": close, "funding_rate": columns["funding_rate"]}
    found = [one for one in warned(from_rows("BTC", HOUR, bars, known)) if one[0] == "funding_rate"]
    days = ("2023-07-02T20:00Z", "2023-08-23T20:00Z", "2024-08-15T13:00Z")
    assert found == [("funding_rate", day, 1) for day in days]


# --- spoilt -----------------------------------------------------------------------------------------------------------


def spoilt(**changes: tuple[slice | int, float | None]) -> list[str | None]:
    """Columns that are doubted after some values of ETH of 2023 are multiplied, or left out."""
    bars = history("binance_um/ETHUSDT-1h", "1h")
    first = (1_672_531_200_000 - bars.start_ms) // HOUR
    columns = {name: column[first : first + 8760].copy() for name, column in bars.columns.items()}
    for name, (place, factor) in changes.items():
        columns[name][place] = np.nan if factor is None else columns[name][place] * factor
    return [column for column, _, _ in warned(PriceHistory("ETH", HOUR, 1_672_531_200_000, columns))]


def alike(names: tuple[str, ...], place: slice | int, factor: float) -> dict[str, tuple[slice | int, float]]:
    return dict.fromkeys(names, (place, factor))


MARK = tuple(f"mark_{name}" for name in BARS)


def test_a_sound_year_is_sound() -> None:
    assert spoilt() == []


@pytest.mark.parametrize("bar", [100, 4000, 8700])
def test_a_digit_too_many_is_found(bar: int) -> None:
    assert spoilt(high=(bar, 10.0)) == ["high"]
    assert spoilt(low=(bar, 0.1)) == ["low"]
    assert spoilt(mark_low=(bar, 0.1)) == ["mark_low"]
    assert set(spoilt(**alike(BARS, bar, 10.0))) == {"high", "close"}
    assert set(spoilt(**alike(BARS + MARK, slice(bar, None), 1000.0))) == {"close", "mark_close"}


def test_a_mark_price_of_another_hour_or_thing_is_found() -> None:
    bars = history("binance_um/ETHUSDT-1h", "1h")
    columns = {name: column[-8760:] for name, column in bars.columns.items()}
    start = bars.start_ms + (bars.n_bars - 8760) * HOUR
    for hours in (1, -1, 8):
        late = columns | {name: np.roll(columns[name], hours) for name in MARK}
        assert "mark_close" in [column for column, _, _ in warned(PriceHistory("ETH", HOUR, start, late))]
    other = history("binance_um/BTCUSDT-1h", "1h")
    mixed = columns | {name: other.columns[name][-8760:] for name in MARK}
    assert "close" in [column for column, _, _ in warned(PriceHistory("ETH", HOUR, start, mixed))]


def test_a_charge_lost_doubled_or_in_percent_is_found() -> None:
    assert spoilt(funding_rate=(800, None)) == ["funding_rate"]
    assert spoilt(funding_rate=(slice(800, 900), None)) == ["funding_rate"]
    assert set(spoilt(funding_rate=(slice(0, None), 100.0))) == {"funding_rate"}
