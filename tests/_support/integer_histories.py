"""Histories made of integers alone: no library's random stream and no logarithm decides a price."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import backtest as bt

HOUR = 3_600_000
START = 1_640_995_200_000  # 2022-01-01T00:00Z


def draws(seed: int) -> Iterator[int]:
    """Pseudo-random integers from 0 to 2³¹ − 1, by a linear congruential generator."""
    state = seed
    while True:
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        yield state >> 33


def integer_history(symbol: str, seed: int, n_bars: int, start_ms: int = START) -> bt.PriceHistory:
    """Hourly bars with last and mark prices in whole units of quote, funding every eight hours and one gap.

    One bar in about 60 moves up to twenty times as far as the others, so that every leverage meets its end.
    """
    draw = draws(seed)
    names = ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close", "volume")
    columns: dict[str, list[float]] = {name: [] for name in (*names, "funding_rate")}
    close, mark = 20_000, 20_003
    for t in range(n_bars):
        opened, mark_opened = close, mark
        far = 20 if next(draw) % 60 == 0 else 1
        step = (next(draw) % 601 - 300) * far + (20_000 - close) // 200  # in 1/100,000 of the price, back to 20,000
        close += close * max(min(step, 9_000), -9_000) // 100_000
        mark = close + next(draw) % 7 - 3
        up, down = close * (next(draw) % 300) // 100_000, close * (next(draw) % 300) // 100_000
        high, low = max(opened, close) + up, min(opened, close) - down
        marks = (mark_opened, max(mark_opened, mark, high - 5), min(mark_opened, mark, low + 5), mark)
        for name, value in zip(names, (opened, high, low, close, *marks, next(draw) % 1000), strict=True):
            columns[name].append(float(value))
        columns["funding_rate"].append((next(draw) % 41 - 16) / 100_000 if t % 8 == 0 else float("nan"))
    arrays = {name: np.array(values) for name, values in columns.items()}
    for values in arrays.values():
        values[n_bars // 3 : n_bars // 3 + 5] = np.nan
    return bt.PriceHistory(symbol, HOUR, start_ms, arrays)
