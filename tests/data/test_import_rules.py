"""Signs that a file was misread are told with bar and value; what cannot be prices at all is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backtest.data.history import PriceHistory
from backtest.data.quality.check import Checking
from backtest.data.quality.import_rules import ImportWatch
from tests._support.market import HOUR, T0, Market, market_of

Change = Callable[[dict[str, np.ndarray]], None]


def found(change: Change | None = None, market: Market | None = None, pieces: int = 1) -> tuple[list[str], str | None]:
    """Warnings of a market of 240 hours that comes in pieces, and why it is refused."""
    columns = {name: values.copy() for name, values in (market or market_of(11)).columns().items()}
    if change is not None:
        change(columns)
    watch = ImportWatch(HOUR)
    checking = Checking("X", HOUR, watch)
    for rows in np.array_split(np.arange(240), pieces):
        part = {name: values[rows] for name, values in columns.items()}
        checking.add(PriceHistory("X", HOUR, T0 + HOUR * int(rows[0]), part))
    lines = [line.removeprefix("X, ") for line in checking.report().warning_lines()]
    return lines, watch.refusal()


def put(name: str, bar: int, factor: float) -> Change:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns[name][bar] *= factor

    return change


def swap(rows: slice) -> Change:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns["open"][rows], columns["close"][rows] = columns["close"][rows].copy(), columns["open"][rows].copy()

    return change


def scale_mark(factor: float) -> Change:
    def change(columns: dict[str, np.ndarray]) -> None:
        for name in ("open", "high", "low", "close"):
            columns[f"mark_{name}"] *= factor

    return change


def open_apart(columns: dict[str, np.ndarray]) -> None:
    columns["open"][50] = columns["high"][50] = columns["close"][49] * 1.08


def unit_within_a_bar(columns: dict[str, np.ndarray]) -> None:
    for prefix in ("", "mark_"):
        for name in ("open", "high", "low", "close"):
            columns[prefix + name][100:] *= 10
        columns[prefix + "open"][100] = columns[prefix + "close"][99]
        columns[prefix + "low"][100] = columns[prefix + "low"][99]


def no_volume(columns: dict[str, np.ndarray]) -> None:
    columns["volume"][:] = 0


def wide_bars(columns: dict[str, np.ndarray]) -> None:
    columns["high"] *= 3


@pytest.mark.parametrize("seed", range(20))
def test_right_prices_give_no_warning(seed: int) -> None:
    assert found(market=market_of(seed)) == ([], None)


# The usual range is about 0.8 % an hour: wicks from 10 of them on, opens from 5, mark against last from 5.
@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (put("high", 100, 1.02), ()),
        (
            put("high", 100, 1.12),
            (
                "2024-01-05T04:00Z: high lies more than 10 times the usual range beyond open and close; got",
                "2024-01-05T04:00Z: high lies more than 5 times the usual range away from mark_high; ",
            ),
        ),
        (
            put("mark_low", 100, 0.88),
            (
                "2024-01-05T04:00Z: mark_low lies more than 10 times the usual range beyond open and close; got",
                "2024-01-05T04:00Z: low lies more than 5 times the usual range away from mark_low; ",
            ),
        ),
        (open_apart, ("2024-01-03T02:00Z: open is more than 5 times the usual range away from the close before; ",)),
        (unit_within_a_bar, ("2024-01-05T04:00Z: close changes more than 5 times within the bar; ",)),
        (swap(slice(100, 104)), ()),  # a run of three: less than what is told
        (
            swap(slice(100, 110)),
            ("2024-01-05T04:00Z … 2024-01-05T13:00Z, 10 bars: close continues the open of the bar before: are",),
        ),
        (scale_mark(1.01), ()),
        (scale_mark(1.1), ("240 bars: mark_close is another price than close in the median bar; 1.1 times",)),
        (wide_bars, ("240 bars: high is more than 2 times low in the median bar; 3.0",)),
        (no_volume, ("240 bars: volume is 0 while the price moves",)),
    ],
)
def test_what_shows_a_misread_file(change: Change, texts: tuple[str, ...]) -> None:
    for pieces in (1, 3):
        lines, refusal = found(change, pieces=pieces)
        assert all(any(text in line for line in lines) for text in texts), lines
        assert bool(lines) == bool(texts)
        assert refusal is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (swap(slice(0, 240)), "close continues the open of the bar before in 239 of 240 bars: open and close are swap"),
        (scale_mark(0.01), "mark prices are 0.01 times the prices in the median: they are in another unit (--price-sc"),
    ],
)
def test_what_cannot_be_prices_is_refused(change: Change, text: str) -> None:
    _, refusal = found(change)
    assert (refusal or "").startswith(text)
