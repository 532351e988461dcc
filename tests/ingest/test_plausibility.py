"""What is odd about prices and charges is said with its bar and size; what cannot be prices at all is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backtest.data.history import PriceHistory
from backtest.errors import DataError
from backtest.ingest.messages import Notices
from backtest.ingest.plausibility import Doubts, doubt_funding
from tests._support.market import HOUR, T0, Market, market_of

Change = Callable[[dict[str, np.ndarray]], None]


def said(change: Change | None = None, market: Market | None = None, pieces: int = 1) -> tuple[str, ...]:
    """Warnings of a market of 240 hours, in stretches."""
    columns = {name: values.copy() for name, values in (market or market_of(11)).columns().items()}
    if change is not None:
        change(columns)
    doubts, notices = Doubts(), Notices()
    for rows in np.array_split(np.arange(240), pieces):
        part = {name: values[rows] for name, values in columns.items()}
        doubts.add(PriceHistory("X", HOUR, T0 + HOUR * int(rows[0]), part))
    doubts.say(notices)
    return notices.warnings


def put(name: str, bar: int, factor: float) -> Change:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns[name][bar] *= factor

    return change


@pytest.mark.parametrize("seed", range(20))
def test_right_prices_are_not_doubted(seed: int) -> None:
    assert said(market=market_of(seed)) == ()


# The usual range is about 0.8 % an hour: wicks from 10 of them on, opens from 5, mark against last from 5.
@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (put("high", 100, 1.02), ()),
        (
            put("high", 100, 1.12),
            (
                "the high or low of the prices stands alone in 1 bar, most at 2024-01-05T04:00Z, by 12",
                "the highs of mark and last price are far apart in 1 bar, most at 2024-01-05T04:00Z",
            ),
        ),
        (
            put("mark_low", 100, 0.88),
            (
                "the high or low of the mark prices stands alone in 1 bar, most at 2024-01-05T04:00Z",
                "the lows of mark and last price are far apart in 1 bar",
            ),
        ),
    ],
)
def test_a_wick_that_stands_alone(change: Change, texts: tuple[str, ...]) -> None:
    for pieces in (1, 3):
        found = said(change, pieces=pieces)
        assert len(found) == len(texts)
        assert all(any(one.startswith(text) for one in found) for text in texts), found


def test_an_open_off_the_close_before() -> None:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns["open"][50] = columns["high"][50] = columns["close"][49] * 1.08

    found = said(change)
    text = "the open of the prices is far from the close before in 1 bar, most at 2024-01-03T02:00Z, by 8 %"
    assert text in found


def test_a_unit_that_changes_within_a_bar() -> None:
    def change(columns: dict[str, np.ndarray]) -> None:
        for name in ("open", "high", "low", "close"):
            for prefix in ("", "mark_"):
                columns[prefix + name][100:] *= 10
        for prefix in ("", "mark_"):
            columns[prefix + "open"][100] = columns[prefix + "close"][99]
            columns[prefix + "low"][100] = columns[prefix + "low"][99]

    found = said(change)
    text = "the prices change more than 5 times within a bar in 1 bar, most at 2024-01-05T04:00Z, by 8"
    assert any(one.startswith(text) for one in found), found


def test_open_and_close_swapped_in_part_and_in_all() -> None:
    def swap(rows: slice) -> Change:
        def change(columns: dict[str, np.ndarray]) -> None:
            columns["open"][rows], columns["close"][rows] = columns["close"][rows].copy(), columns["open"][rows].copy()

        return change

    assert said(swap(slice(100, 104))) == ()  # a run of three: less than what is doubted
    (found,) = said(swap(slice(100, 110)))
    assert found.startswith(
        "from 2024-01-05T04:00Z on, the close of the prices goes on from the open of the bar before"
    )
    with pytest.raises(DataError, match=r"open and close are swapped \(--column\), or rows run backwards in time"):
        said(swap(slice(0, 240)))


def test_units_of_mark_and_last() -> None:
    def scale(factor: float) -> Change:
        def change(columns: dict[str, np.ndarray]) -> None:
            for name in ("open", "high", "low", "close"):
                columns[f"mark_{name}"] *= factor

        return change

    assert said(scale(1.01)) == ()
    assert any(one.startswith("mark prices are 1.1 times the prices in the median") for one in said(scale(1.1)))
    with pytest.raises(DataError, match=r"mark prices are 0.01 times the prices in the median; .*--price-scale"):
        said(scale(0.01))


def test_volumes_of_nothing() -> None:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns["volume"][:] = 0

    assert said(change) == ("the volume of the prices is 0 in every bar: are they mark prices?",)


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        ([0, 8, 16, 24, 32], None),
        ([0, 8, 16, 17, 18, 19], None),  # from every 8 hours to every hour
        ([0, 1, 2, 10, 18], None),
        ([0, 8, 8.001, 16, 24], "1 funding charges seem to stand there twice, the first at 2024-01-01T08:00Z and"),
        ([-16, -8], "no funding charge falls between the first and the last bar"),
    ],
)
def test_charges(hours: list[float], text: str | None) -> None:
    notices = Notices()
    doubt_funding(np.array([T0 + int(HOUR * hour) for hour in hours]), T0, T0 + 40 * HOUR, notices)
    assert [one[: len(text or "")] for one in notices.warnings] == ([text] if text else [])
