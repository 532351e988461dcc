"""jesse's research backtest; run by `peers.py` in its environment, in an empty folder (jesse leaves files).

A strategy that buys at the close of a day and sells a day later, on an exchange of futures with isolated margin, whose
maintenance jesse sets at 0.4 % of the value at entry. A position that is gone before it is sold was liquidated. In the
fast mode a day of minutes is looked at in one step, with the same verdict.

jesse is asked twice: a run of two days per entry and leverage, and a run of the whole history per leverage, with an
entry every day, which shares the start and the end of a run among them.
"""

from __future__ import annotations

import sys

import jesse.helpers as jh
import numpy as np
from jesse.research import backtest
from jesse.strategies import Strategy
from numpy.typing import NDArray

from benchmarks.peers_answers import Answer, Question, question, save, timed

EXCHANGE, SYMBOL = "Bybit USDT Perpetual", "BTC-USDT"
LEVERAGES = (5, 10, 15, 20, 25, 33, 50, 75, 100, 125)
RUNS = 20
died: list[bool] = []
"""Of each position of a run, in order."""


class HoldADay(Strategy):  # type: ignore[misc]
    """Opens at every close of a bar, holds to the next."""

    def should_long(self) -> bool:
        return True

    def should_cancel_entry(self) -> bool:
        return False

    def go_long(self) -> None:
        self.buy = 1, self.price

    def on_open_position(self, order: object) -> None:
        died.append(True)

    def update_position(self) -> None:
        died[-1] = False  # still there
        self.liquidate()


def held(candles: NDArray[np.float64], leverage: int) -> list[bool]:
    """Whether the positions of one run died; that of the last close is not followed."""
    died.clear()
    config = {
        "starting_balance": 1e9,
        "fee": 0,
        "type": "futures",
        "futures_leverage": leverage,
        "futures_leverage_mode": "isolated",
        "exchange": EXCHANGE,
        "warm_up_candles": 0,
    }
    routes = [{"exchange": EXCHANGE, "strategy": HoldADay, "symbol": SYMBOL, "timeframe": "1D"}]
    series = {jh.key(EXCHANGE, SYMBOL): {"exchange": EXCHANGE, "symbol": SYMBOL, "candles": candles}}
    backtest(config, routes, [], series, fast_mode=True)
    return died[:-1]


def candles_of(asked: Question) -> NDArray[np.float64]:
    """In jesse's order: time, open, close, high, low, volume."""
    time_ms = asked.start_ms + 60_000.0 * np.arange(asked.close.size)
    return np.column_stack([time_ms, asked.open, asked.close, asked.high, asked.low, np.ones(time_ms.size)])


def main() -> None:
    """Answer the question of the first argument into the second."""
    asked = question(sys.argv[1])
    day, candles = asked.horizon, candles_of(asked)
    columns = np.searchsorted(asked.leverage, LEVERAGES)
    held(candles[: 3 * day], LEVERAGES[0])

    days = np.arange(day - 1, asked.close.size - day, day)
    whole = candles[: (days.size + 1) * day]
    daily = timed(lambda: np.array([held(whole, leverage) for leverage in LEVERAGES]).T)
    some = days[:: days.size // RUNS][:RUNS]
    alone = timed(lambda: np.array([[held(candles[i + 1 - day : i + 1 + day], k)[0] for k in LEVERAGES] for i in some]))
    save(
        sys.argv[2],
        [
            Answer("jesse research backtest, a run per entry × leverage", alone[0], some, columns, alone[1]),
            Answer("jesse research backtest, a run per leverage, daily entries", daily[0], days, columns, daily[1]),
        ],
        ["jesse", "numpy", "pandas"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
