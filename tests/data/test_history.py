"""PriceHistory and its grid, by hand (docs/semantics.md §1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backtest.data.history import COLUMNS, PriceHistory, from_rows
from backtest.engine.bars import build_grid
from backtest.errors import ConfigError, DataError

HOUR = 3_600_000
NAN = float("nan")


def history(start_ms: int = 0, before: dict[str, float] | None = None, **columns: list[float]) -> PriceHistory:
    arrays = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    return PriceHistory("X", HOUR, start_ms, arrays, before or {})


def last(*closes: float) -> dict[str, list[float]]:
    """A last price of which low, high are 1 below and above the close."""
    return {"high": [c + 1 for c in closes], "low": [c - 1 for c in closes], "close": list(closes)}


def mark(*closes: float) -> dict[str, list[float]]:
    return {"mark_" + name: values for name, values in last(*closes).items()}


# --- what a history refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": [1.0]}, "X: unknown column 'price'; a history has open, high"),
        ({}, "X: the history is empty"),
        ({"close": []}, "X: the history is empty"),
        ({"close": [1.0, 2.0], "low": [1.0]}, r"column low has shape \(1,\), expected \(2,\)"),
        ({"close": [1.0, 0.0]}, "column close must be > 0; got 0 in the bar of 1970-01-01T01:00Z"),
        ({"mark_low": [-1.0]}, "column mark_low must be > 0; got -1"),
        ({"close": [np.inf]}, "column close must be finite; got inf"),
        ({"funding_rate": [-np.inf]}, "column funding_rate must be finite; got -inf"),
        ({"maintenance_scale": [-0.5]}, "column maintenance_scale must be ≥ 0; got -0.5"),
        ({"high": [1.0, 2.0], "low": [1.0, 3.0]}, "column high lies below low; got 2 in the bar of 1970-01-01T01:00Z"),
        ({"mark_high": [2.0], "mark_low": [3.0]}, "column mark_high lies below mark_low; got 2"),
        ({"close": [-1.0, 1.0, -1.0]}, r"\(2 such bars\)"),
        ({"start_ms": 60_000, "close": [1.0]}, "open_time 1970-01-01T00:01Z is not a multiple of the interval 1h"),
    ],
)
def test_a_bad_history_is_refused_with_column_rule_and_value(columns: dict[str, list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        history(**columns)


@pytest.mark.parametrize("interval", [0, -HOUR])
def test_the_interval_must_be_positive(interval: int) -> None:
    with pytest.raises(DataError):
        PriceHistory("X", interval, 0, {"close": np.ones(1)})


def test_columns_are_frozen() -> None:
    with pytest.raises(ValueError, match="read-only"):
        history(close=[1.0]).columns["close"][0] = 2.0


def test_series_says_what_there_is_and_what_was_cut_off() -> None:
    assert history(**last(10)).series == {"last"}
    assert history(**last(10), mark_open=[9.0]).series == {"last", "mark"}
    assert history(close=[NAN], mark_low=[9.0]).series == {"mark"}
    cut = PriceHistory("X", HOUR, 0, {"close": np.ones(1)}, series=frozenset({"mark"}))
    assert cut.series == {"last", "mark"}


# --- rows on the grid -------------------------------------------------------------------------------------------------


def test_missing_bars_keep_their_place() -> None:
    bars = from_rows("X", HOUR, np.array([HOUR, 2 * HOUR, 5 * HOUR]), {"close": np.array([1.0, 2.0, 5.0])})
    assert bars.start_ms == HOUR
    np.testing.assert_array_equal(bars.columns["close"], [1.0, 2.0, NAN, NAN, 5.0])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], "X: the history is empty"),
        ([0, 0], "open_time repeats in row 1, 1970-01-01T00:00Z"),
        ([HOUR, 0], "open_time goes back in time in row 1, 1970-01-01T00:00Z"),
        ([0, 90_000], "open_time 1970-01-01T00:01:30Z in row 1 is not a multiple of the interval 1h"),
    ],
)
def test_rows_off_order_or_grid_are_refused(times: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_rows("X", HOUR, np.array(times, dtype=np.int64), {"close": np.ones(len(times))})


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("as_index", [False, True])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_a_frame_of_any_time_unit_and_zone_is_read(unit: str, as_index: bool, zone: str | None) -> None:
    times = pd.DatetimeIndex(["2024-01-01", "2024-01-01T02:00"], tz="UTC").tz_convert(zone).as_unit(unit)
    frame = pd.DataFrame({"close": [1.0, None]}, index=times)
    if not as_index:
        frame = frame.rename_axis("open_time").reset_index()
    bars = PriceHistory.from_frame(frame, "X", "1h")
    assert bars.start_ms == 1_704_067_200_000
    np.testing.assert_array_equal(bars.columns["close"], [1.0, NAN, NAN])


def test_a_frame_without_times_is_refused() -> None:
    with pytest.raises(DataError, match="open_time must hold timestamps; got int64"):
        PriceHistory.from_frame(pd.DataFrame({"open_time": [0], "close": [1.0]}), "X", "1h")


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_the_trigger_is_mark_where_there_is_any_and_entry_is_the_last_close() -> None:
    both = history(**last(10, 11), **mark(20, 21))
    grid = build_grid(both)
    assert grid.trigger == "mark"
    assert grid.low.tolist() == [19, 20]
    assert grid.entry_price.tolist() == [10, 11]
    assert build_grid(both, "last").low.tolist() == [9, 10]
    assert build_grid(history(**mark(20, 21))).entry_price.tolist() == [20, 21]  # no last close: the mark close
    with pytest.raises(DataError, match="X: trigger 'mark' is asked for, but the history has no mark price"):
        build_grid(history(**last(10)), "mark")


def test_the_grid_runs_from_the_first_to_the_last_bar_with_entry_and_trigger() -> None:
    # bar:          0    1    2    3    4
    # last close    10   11   12   13   -
    # mark low/high -    21   -    23   24      → bars 1 … 3, of which 2 cannot trigger
    bars = history(
        close=[10, 11, 12, 13, NAN],
        mark_low=[NAN, 21, NAN, 23, 24],
        mark_high=[NAN, 22, 30, 24, 25],
    )
    grid = build_grid(bars)
    assert (grid.start_ms, grid.n_bars) == (HOUR, 3)
    assert grid.has_trigger.tolist() == [True, False, True]
    assert grid.entry_bars().tolist() == [0, 2]
    assert grid.longest_gap() == 1


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [
        (None, None, [0, 1, 2, 3]),
        (HOUR, None, [1, 2, 3]),  # start is inclusive
        (HOUR + 1, None, [2, 3]),
        (None, 2 * HOUR, [0, 1]),  # end is exclusive
        (None, 2 * HOUR + 1, [0, 1, 2]),
        (-5 * HOUR, 99 * HOUR, [0, 1, 2, 3]),
        (HOUR, 2 * HOUR, [1]),
    ],
)
def test_the_cut_is_half_open(start: int | None, end: int | None, kept: list[int]) -> None:
    bars = history(**last(10, 11, 12, 13))
    grid = build_grid(bars, start_ms=start, end_ms=end)
    assert grid.start_ms == kept[0] * HOUR
    assert grid.entry_price.tolist() == [10 + bar for bar in kept]


@pytest.mark.parametrize(("start", "end"), [(4 * HOUR, None), (None, 0), (2 * HOUR, HOUR), (99 * HOUR, None)])
def test_a_range_without_a_bar_is_refused_with_the_span(start: int | None, end: int | None) -> None:
    span = "spans 1970-01-01T00:00Z … 1970-01-01T04:00Z"
    with pytest.raises(DataError, match=f"X: no bar with both an entry price and last prices .* {span}"):
        build_grid(history(**last(10, 11, 12, 13)), start_ms=start, end_ms=end)


def test_entries_every_so_often_are_multiples_since_the_epoch() -> None:
    grid = build_grid(history(start_ms=3 * HOUR, **last(*range(10, 20))))  # 03:00 … 12:00
    assert grid.entry_bars(4 * HOUR).tolist() == [1, 5, 9]
    with pytest.raises(ConfigError, match=r"entries\.every must be a multiple of the bars' 1h; got 90m"):
        grid.entry_bars(90 * 60_000)


def test_a_charge_falls_on_mark_open_else_open_else_the_latest_earlier_trigger_close() -> None:
    # The first bar's charge falls on no position and is not read.
    bars = history(
        open=[1, 2, 3, NAN, NAN, 6],
        mark_open=[11, 12, NAN, NAN, NAN, 16],
        **last(10, 10, 10, 10, 10, 10),
        **{name: [*values[:3], NAN, *values[4:]] for name, values in mark(20, 21, 22, 23, 24, 25).items()},
        funding_rate=[0.1, 0.2, 0.3, NAN, 0.5, 0.0],
    )
    grid = build_grid(bars)
    assert grid.charge_bar.tolist() == [1, 2, 4, 5]
    assert grid.charge_rate.tolist() == [0.2, 0.3, 0.5, 0.0]  # 0 is charged, null is not
    assert grid.charge_price.tolist() == [12, 3, 22, 16]  # bar 3 has no mark close: the one of bar 2
    assert build_grid(bars, "last").charge_price.tolist() == [12, 3, 10, 16]
    assert build_grid(bars, end_ms=3 * HOUR).charge_bar.tolist() == [1, 2]  # not after the last bar of the grid


def test_the_price_of_a_charge_may_lie_before_the_cut() -> None:
    # Cut to bars 1 …: bar 1 has low and high but no close, so bar 2's charge falls on the close of bar 0.
    columns = {"high": [11.0, 13, 14], "low": [9.0, 10, 12], "mark_high": [21.0, 23, 24], "mark_low": [19.0, 20, 22]}
    bars = history(close=[10.0, 12, 13], mark_close=[20.0, NAN, 23], funding_rate=[NAN, NAN, 0.1], **columns)
    assert build_grid(bars, start_ms=HOUR).charge_price.tolist() == [20]
    cut = {name: values[1:].tolist() for name, values in bars.columns.items()}
    assert build_grid(history(HOUR, {"mark_close": 20.0, "close": 10.0}, **cut)).charge_price.tolist() == [20]
    with pytest.raises(DataError, match="X: the funding charged in the bar of 1970-01-01T02:00Z has no price"):
        build_grid(history(HOUR, **cut))


def test_a_null_maintenance_scale_is_one() -> None:
    assert build_grid(history(**last(10, 11), maintenance_scale=[NAN, 1.0])).n_bars == 2


def test_columns_have_one_order() -> None:
    assert COLUMNS[:8] == ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close")
