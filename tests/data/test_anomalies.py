"""What looks wrong is found at its bars, and what only just does not is not; calm markets give no warning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.data.history import PriceHistory
from backtest.data.quality.anomalies import Watch, least_streak
from backtest.data.quality.check import Report, check_history
from backtest.data.quality.funding_schedule import schedule_runs

HOUR = 3_600_000
NAN = float("nan")
Columns = dict[str, np.ndarray]


def calm(count: int = 60) -> Columns:
    """Every bar from 100 to 101, closing at 100.25 and 100.75 in turn: a range of ln 1.01 = 0.00995033."""
    close = np.where(np.arange(count) % 2, 100.75, 100.25)
    return {"high": np.full(count, 101.0), "low": np.full(count, 100.0), "close": close}


def marked(columns: Columns, factor: float = 1.0) -> Columns:
    return columns | {f"mark_{name}": factor * columns[name] for name in ("high", "low", "close")}


def put(columns: Columns, bar: int | slice, **values: float) -> Columns:
    out = {name: column.copy() for name, column in columns.items()}
    for name, value in values.items():
        out[name][bar] = value
    return out


Found = list[tuple[str | None, int, int]]


def found(columns: Columns, rule: str = "") -> Found:
    """Column, first bar and number of bars of each warning."""
    report = check_history(PriceHistory("X", HOUR, 0, dict(columns)))
    return [(one.column, hour_of(one.first), one.bars) for one in report.warnings if rule in one.rule]


def hour_of(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "h").astype(int))


def shifted(columns: Columns, bar: int, factor: float) -> Columns:
    later = np.arange(columns["close"].size) >= bar
    return {name: np.where(later, factor * column, column) for name, column in columns.items()}


def gap(columns: Columns) -> Columns:
    return put(columns, slice(31, 34), high=NAN, low=NAN, close=NAN)


# --- wicks, jumps, and mark away from last ----------------------------------------------------------------------------

WICK = put(marked(calm()), 30, high=151.0)
WIDE = calm() | {"low": np.full(60, 99.0)}
"""ln(101/99) = 0.0200."""


@pytest.mark.parametrize(
    ("within", "beyond", "rule", "warning"),
    [
        # A wick is measured in the ranges around: 101·e^(40·0.00995033) = 150.37 and 100·e^(−40·0.00995033) = 67.17,
        (put(marked(calm()), 30, high=150.0), put(marked(calm()), 30, high=151.0), "", ("high", 30, 1)),
        (put(marked(calm()), 30, low=67.5), put(marked(calm()), 30, low=67.0), "", ("low", 30, 1)),
        # and of a mark price 101·e^(15·0.00995033) = 117.26 and 100·e^(−15·0.00995033) = 86.14.
        (put(marked(calm()), 30, mark_high=117.0), put(marked(calm()), 30, mark_high=118.0), "", ("mark_high", 30, 1)),
        (put(marked(calm()), 30, mark_low=86.5), put(marked(calm()), 30, mark_low=86.0), "", ("mark_low", 30, 1)),
        # Mark confirms half of ln(151/101) = 0.4022, from 101·e^0.2011 = 123.5 on; 124 is beyond 117.26 as well, but
        # last confirms it.
        (put(WICK, 30, mark_high=124.0), put(WICK, 30, mark_high=123.0), "", ("high", 30, 1)),
        # The bar after reaches 140: beyond it are ln(160/140) = 0.13.
        (put(put(calm(), 30, high=160.0), 31, high=140.0), put(calm(), 30, high=160.0), "", ("high", 30, 1)),
        # Beside three missing bars a wick may be longer: 101·e^(2·40·0.00995033) = 223.9.
        (put(gap(calm()), 30, high=223.0), put(gap(calm()), 30, high=225.0), "lies", ("high", 30, 1)),
        # Bar 30 closes at 100.25, and 100.25·e^(15·0.00995033) = 116.38 is what the low of bar 31 must reach.
        (shifted(calm(), 31, 1.163), shifted(calm(), 31, 1.165), "", ("close", 31, 1)),
        # Downwards it is the high: 100.25·e^−0.149255 = 86.35 = 101 · 0.85496.
        (shifted(calm(), 31, 0.856), shifted(calm(), 31, 0.854), "", ("close", 31, 1)),
        # Over three missing bars a price may move by the root of their number: 100.25·e^(2·15·0.00995033) = 135.12.
        (gap(shifted(calm(), 34, 1.351)), gap(shifted(calm(), 34, 1.352)), "jump", ("close", 34, 1)),
        # A jump of both prices was there.
        (shifted(marked(calm()), 31, 1.5), shifted(calm(), 31, 1.5), "", ("close", 31, 1)),
        # A close of −22.7 % that the next bar does not know is a jump: the bars around do not come below 100.
        (calm(), put(calm(), 30, low=80.0, close=80.0), "", ("close", 31, 1)),
        # Mark is far from last: ln 1.051 = 0.0497 and ln 1.0525 = 0.0512; 5 ranges are 0.0498.
        (marked(calm(), 1.051), marked(calm(), 1.0525), "", ("close", 0, 60)),
        # 5 ranges are 0.1000 and ln 1.104 = 0.0989.
        (marked(WIDE, 1.104), marked(WIDE, 1.107), "", ("close", 0, 60)),
    ],
)
def test_what_lies_beyond_its_limit_is_found(
    within: Columns, beyond: Columns, rule: str, warning: tuple[str, int, int]
) -> None:
    assert found(within, rule) == []
    assert found(beyond, rule) == [warning]


def test_a_crash_that_stays_is_none() -> None:
    bars = calm()
    after = {name: np.where(np.arange(60) > 30, 0.45 * column, column) for name, column in bars.items()}
    crash = put(after, 30, low=40.0, close=45.2)
    assert found(crash) == []
    assert found(put(marked(after), 30, low=40.0, close=45.2, mark_low=50.0, mark_close=45.2)) == []


def test_a_jump_of_both_prices_may_be_one_of_units() -> None:
    assert found(shifted(marked(calm()), 31, 1000.0)) == [("close", 31, 1), ("mark_close", 31, 1)]


def test_bars_without_a_range_are_measured_by_their_moves() -> None:
    close = np.where(np.arange(60) % 2, 100.0, 101.0)
    bars = {"high": close, "low": close, "close": close}
    assert found(bars) == []
    assert found(put(bars, 30, high=160.0, low=160.0, close=160.0)) == [("close", 30, 2), ("high", 30, 1)]


def test_a_quiet_bar_among_wide_ones_is_measured_by_them() -> None:
    # ln 1.08 = 0.0770 lies below 5·0.0200.
    quiet = dict.fromkeys(calm(), 100.25) | {f"mark_{name}": 108.27 for name in calm()}
    assert found(put(marked(WIDE), 30, **quiet), "away from mark_close") == []


def test_mark_that_moves_otherwise_is_found() -> None:
    bars = marked(calm(1200))
    assert found(bars) == []
    # A bar late, its closes stand opposite: 511 and 512 moves of two windows; 175 of the third are too few.
    late = bars | {"mark_close": np.roll(bars["mark_close"], 1)}
    assert found(late) == [("mark_close", 0, 1024)]
    assert found(late | {"mark_close": np.where(np.arange(1200) < 512, NAN, late["mark_close"])}) == [
        ("mark_close", 512, 512)
    ]


@pytest.mark.parametrize(("share", "count"), [(0.55, 1), (0.65, 0)])
def test_so_many_bars_must_move_alike(share: float, count: int) -> None:
    bars = marked(calm(512))
    # Of 511 moves these first ones are turned round: each turned close turns the moves on either side.
    turned = np.arange(512) < (1 - share) * 511
    mark = np.where(turned, 201.0 - bars["mark_close"], bars["mark_close"])
    assert len(found(bars | {"mark_close": mark}, "moves with close")) == count


# --- repeats and idle bars --------------------------------------------------------------------------------------------


def flat(columns: Columns, first: int, count: int, **others: float) -> Columns:
    before = float(columns["close"][first - 1])
    return put(columns, slice(first, first + count), high=before, low=before, close=before, **others)


def test_three_flat_bars_are_found_and_two_are_not() -> None:
    assert found(flat(calm(), 30, 2)) == []
    assert found(flat(calm(), 30, 3)) == [("close", 30, 3)]
    assert found(flat(calm(), 57, 3)) == [("close", 57, 3)]  # at the end
    mark = marked(calm())
    mark["mark_high"][30:33] = mark["mark_low"][30:33] = mark["mark_close"][30:33] = mark["mark_close"][29]
    assert found(mark) == [("mark_close", 30, 3)]


def test_flat_bars_with_trades_are_a_quiet_market() -> None:
    bars = flat(calm() | {"volume": np.arange(1.0, 61.0)}, 30, 5)
    assert found(bars) == []
    assert found(put(bars, slice(30, 35), volume=0.0)) == [("close", 30, 5)]
    assert found(put(bars, slice(30, 35), volume=30.0)) == [("close", 30, 5)]  # the whole row of bar 29, filled forward


def test_whole_rows_that_repeat_are_found() -> None:
    bars = put(calm(), slice(30, 33), close=100.75)  # bars 29, 30, 31, 32 alike, and 33 closes there too
    assert found(bars) == [("close", 30, 4)]


def test_flat_bars_must_follow_one_another() -> None:
    # Bars 30 … 32 repeat; 33 is missing, what 34 repeats is not the bar before, and 35 and 36 are two.
    bars = put(flat(calm(), 30, 7), 33, high=NAN, low=NAN, close=NAN)
    assert found(bars, "repeats") == [("close", 30, 3)]


def test_volume_that_is_zero_while_the_price_moves_is_found() -> None:
    bars = calm() | {"volume": np.ones(60)}
    assert found(put(bars, slice(30, 32), volume=0.0)) == []
    assert found(put(bars, slice(30, 33), volume=0.0)) == [("volume", 30, 3)]


def test_a_thin_market_needs_longer_runs() -> None:
    # 500 runs of one repeated bar: 3 of them never go on, so that q is at least 0.01: 1 + log(50,000)/log(100) = 3.35.
    assert least_streak(np.ones(500, np.int64)) == 4
    # Of 100 runs half go on: 1 + log(10,000)/log 2 = 14.3.
    assert least_streak(np.array([1, 2] * 50)) == 15
    # Never more than q = 3/4: 1 + log(10,000)/log(4/3) = 33.01.
    assert least_streak(np.full(100, 12)) == 34


def test_many_short_repeats_are_one_warning() -> None:
    # 120 runs of one bar in 1200 bars are 10 %, none of them is long.
    bars = calm(1200)
    bars["close"][5::10] = bars["close"][4::10]
    (warning,) = check_history(PriceHistory("X", HOUR, 0, bars)).warnings
    assert warning.rule.startswith("in more than 5% of all bars: ")
    assert (warning.bars, warning.value) == (240, "20.0%")  # the bar after such a one closes there too


# --- pieces -----------------------------------------------------------------------------------------------------------


def told(watch: Watch) -> list[tuple[str | None, str, list[int], list[int], list[str]]]:
    return [
        (one.column, one.rule, one.first.tolist(), one.bars.tolist(), [str(one.value(k)) for k in range(one.bars.size)])
        for one in watch.runs()
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_pieces_make_no_difference(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    bars = calm(300)
    bars = marked(bars | {"high": bars["high"] + rng.exponential(0.5, 300)})
    for _ in range(8):
        bar, kind = int(rng.integers(2, 290)), int(rng.integers(5))
        bars = (
            flat(bars, bar, int(rng.integers(1, 7))),
            put(bars, bar, high=101 * float(np.exp(rng.uniform(0.3, 0.7)))),
            shifted(bars, bar, float(rng.choice([0.5, 3.0]))),
            put(bars, slice(bar, bar + int(rng.integers(1, 40))), high=NAN, low=NAN, close=NAN),
            put(bars, slice(bar, bar + 3), mark_close=NAN),
        )[kind]
    times = HOUR * np.flatnonzero(rng.random(300) < 0.95)
    kept = {name: column[times // HOUR] for name, column in bars.items()}
    whole, parts = Watch(HOUR), Watch(HOUR)
    whole.see(times, kept)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True):
        parts.see(times[first:last], {name: column[first:last] for name, column in kept.items()})
    assert told(whole) == told(parts)


def test_of_what_was_seen_before_as_much_as_is_measured_is_kept() -> None:
    # Bar 31 lies between two bars of range 0.00995, and fifteen of the 24 around it have 0.0200: 101·e^0.40 = 150.4
    # would be too far of the first, and 101·e^0.80 = 224.8 is of the others.
    wide = (np.arange(60) < 30) | (np.arange(60) >= 40)
    bars = calm() | {"low": np.where(wide, 99.0, 100.0)}
    for high, warnings in ((200.0, 0), (226.0, 1)):
        watch, columns = Watch(HOUR), put(bars, 31, high=high)
        for bar in range(60):
            watch.see(np.array([HOUR * bar]), {name: column[[bar]] for name, column in columns.items()})
        assert len(told(watch)) == warnings


def test_rows_out_of_order_are_left_aside() -> None:
    bars = put(calm(), 30, high=151.0)
    order = np.array([*range(40), 5, 6, *range(40, 60)])
    watch = Watch(HOUR)
    watch.see(HOUR * order, {name: column[order] for name, column in bars.items()})
    watch.see(HOUR * order[:3], {name: 3 * column[:3] for name, column in bars.items()})
    ((column, _, first, bars, values),) = told(watch)
    assert (column, first, bars, values) == ("high", [30 * HOUR], [1], ["151.0"])


# --- funding ----------------------------------------------------------------------------------------------------------


def charged(hours: list[int], span: tuple[int, int] | None = None, rate: float = 1e-4) -> list[tuple[str, int, int]]:
    """Rule, first hour and number of bars of what looks wrong."""
    first, last = span or (hours[0], hours[-1])
    runs = schedule_runs(HOUR * np.array(hours), np.full(len(hours), rate), (HOUR * first, HOUR * last))
    return [(run.rule, int(run.first[k]) // HOUR, int(run.bars[k])) for run in runs for k in range(run.bars.size)]


OFF, DUE = "charges off the schedule around", "lacks charges that are due"
EIGHT = list(range(0, 160, 8))


def without(hours: list[int], *gone: int) -> list[int]:
    return [hour for hour in hours if hour not in gone]


@pytest.mark.parametrize(
    ("hours", "wrong"),
    [
        (EIGHT, []),
        (without(EIGHT, 72), [(DUE, 72, 1)]),
        (without(EIGHT, 72, 80), [(DUE, 72, 2)]),
        (without(EIGHT, 8), [(DUE, 8, 1)]),
        (without(EIGHT, 144), [(DUE, 144, 1)]),
        (sorted([*EIGHT, 73]), [(OFF, 73, 1)]),  # charged twice
        (sorted([*without(EIGHT, 72), 71]), [(OFF, 71, 1), (DUE, 72, 1)]),  # a bar early
        ([*range(0, 80, 8), *range(80, 120, 4), *range(120, 150)], []),
        ([*range(25), *range(32, 90, 8)], []),
        (without([*range(0, 80, 8), *range(80, 120)], 90), [(DUE, 90, 1)]),
        (without([*range(0, 80, 8), *range(80, 120)], 56), [(DUE, 56, 1)]),
        ([hour + 4 for hour in EIGHT], []),  # at 4, 12 and 20 h
        ([hour + 1 for hour in EIGHT], [("charges every 8h fall off its multiples since the epoch", 1, 20)]),
        (EIGHT[:4], []),  # too few to tell
        (without(EIGHT, 8)[:5], [(DUE, 8, 1)]),
    ],
)
def test_charges_keep_the_schedule_in_force(hours: list[int], wrong: list[tuple[str, int, int]]) -> None:
    assert charged(hours) == wrong


def test_charges_begin_within_three_days_and_end_with_the_bars() -> None:
    later = [hour + 240 for hour in EIGHT]  # 240 … 392
    assert charged(later, (168, 392)) == []  # 72 hours
    assert charged(later, (167, 392)) == [(DUE, 168, 9)]
    assert charged(later, (160, 392)) == [(DUE, 168, 9)]  # one in the first bar falls on no position
    assert charged(later, (240, 399)) == []
    assert charged(later, (240, 400)) == [(DUE, 400, 1)]
    assert charged(later, (240, 424)) == [(DUE, 400, 4)]


def test_rates_in_percent_are_found() -> None:
    assert charged(EIGHT, rate=-0.0019) == []
    ((rule, first, bars),) = charged(EIGHT, rate=-0.0021)
    assert (rule, first, bars) == ("usually charges more than 0.2%; rates are fractions", 0, 20)
    rates = np.full(20, 1e-4)
    rates[[3, 7]] = 0.049, -0.051
    (run,) = schedule_runs(HOUR * np.array(EIGHT), rates, (0, 152 * HOUR))
    assert (run.first.tolist(), run.value(0)) == ([56 * HOUR], -0.051)


def test_bars_longer_than_the_interval_hold_the_charges_of_all_of_it() -> None:
    assert charged(list(range(0, 24 * 30, 24)), rate=3e-4) == []
    assert charged(without(list(range(0, 24 * 30, 24)), 240), rate=3e-4) == [(DUE, 240, 1)]


# --- a market that does nothing wrong ---------------------------------------------------------------------------------


def walk(seed: int, count: int, volatility: float) -> PriceHistory:
    """Bars of a random walk of twenty steps each, with a mark price around it and funding every 8 hours."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.standard_normal((count, 20)) * volatility / 20**0.5).reshape(count, 20)
    start = np.insert(path[:-1, -1], 0, 0.0)
    last = {
        "open": start,
        "high": np.maximum(path.max(axis=1), start),
        "low": np.minimum(path.min(axis=1), start),
        "close": path[:, -1],
    }
    basis = 0.1 * volatility * rng.standard_normal(count)
    mark = {f"mark_{name}": 100 * np.exp(column + basis) for name, column in last.items()}
    funding = np.where(np.arange(count) % 8, NAN, 1e-4 * rng.standard_normal(count))
    volume = rng.exponential(1.0, count)
    prices = {name: 100 * np.exp(column) for name, column in last.items()}
    return PriceHistory("X", HOUR, 0, prices | mark | {"funding_rate": funding, "volume": volume})


def warned(history: PriceHistory) -> Report:
    report = check_history(history)
    assert report.ok
    return report


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), volatility=st.floats(1e-4, 0.05))
def test_a_random_walk_gives_no_warning(seed: int, volatility: float) -> None:
    assert warned(walk(seed, 1500, volatility)).warnings == ()


def test_a_million_bars_give_no_warning() -> None:
    """None in a million: fewer than three per million bars, at 95 % confidence."""
    for seed in range(5):
        assert warned(walk(seed, 200_000, 0.004)).warnings == ()
