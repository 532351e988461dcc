"""vectorbt, and the rolling minimum of the pandas it brings; run by `peers.py` in their environment.

`from_signals` gets a window of closes and lows for each column, as its time grows with the bars of all columns: a
column is the position of one entry at one leverage, opened in the first row and stopped at its liquidation level. Open
and high are left out, which move the price of a stop's fill and not the verdict. The engine is the faster one, of
as few entries at once as stay in the cache (4 and 16 took the same time, 64 half more).

The rolling minimum is that of the lows, and all leverages are compared with how far it lies below the close.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import vectorbt as vbt
from numpy.typing import NDArray

from benchmarks.peers_answers import Answer, Question, question, save, timed

SAMPLE = 200
TOGETHER = 4


def by_signals(asked: Question, entries: NDArray[np.int64]) -> NDArray[np.int32]:
    """Bars to the stop of each entry at each leverage, 0 where it was not met."""
    rows, n = np.arange(asked.horizon + 1)[:, None], asked.leverage.size
    opened = np.zeros((rows.size, 1), bool)
    opened[0] = True
    parts = []
    for at in (entries[i : i + TOGETHER] for i in range(0, entries.size, TOGETHER)):
        close, low = (np.repeat(prices[at + rows], n, axis=1) for prices in (asked.close, asked.low))
        portfolio = vbt.Portfolio.from_signals(
            pd.DataFrame(close, copy=False),
            entries=opened,
            exits=False,
            low=low,
            sl_stop=np.tile(asked.distance, at.size)[None, :],
            size=1.0,
            init_cash=np.inf,
            max_orders=2 * close.shape[1],
            freq="1min",
            engine="rust",
        )
        orders = portfolio.order_records
        stopped = orders[orders["side"] == vbt.portfolio.enums.OrderSide.Sell]
        bars = np.zeros(close.shape[1], np.int32)
        bars[stopped["col"]] = stopped["idx"]
        parts.append(bars.reshape(at.size, n))
    return np.concatenate(parts)


def by_minimum(asked: Question, rolling: Callable[[pd.Series, int], pd.Series]) -> NDArray[np.bool_]:
    """Whether each entry with a whole window dies at each leverage."""
    least = rolling(pd.Series(asked.low), asked.horizon).to_numpy()[asked.horizon :]
    fall = 1 - least / asked.close[: -asked.horizon]
    dead = np.empty((asked.leverage.size, fall.size), bool)
    for k, distance in enumerate(asked.distance):
        np.greater_equal(fall, distance, out=dead[k])
    return dead.T


def main() -> None:
    """Answer the question of the first argument into the second."""
    asked = question(sys.argv[1])
    every, columns = np.arange(asked.close.size - asked.horizon), np.arange(asked.leverage.size)
    some = np.linspace(0, every.size - 1, SAMPLE).astype(np.int64)
    by_signals(asked, some[:TOGETHER])
    answers = [
        Answer(
            "vectorbt `from_signals`, a column per entry × leverage",
            *(found := timed(lambda: by_signals(asked, some), 2))[:1],
            some,
            columns,
            found[1],
        )
    ]
    for what, rolling in (
        ("vectorbt rolling minimum, compared with every leverage", lambda s, n: s.vbt.rolling_min(n, engine="numba")),
        ("pandas rolling minimum, compared with every leverage", lambda s, n: s.rolling(n).min()),
    ):
        rolling(pd.Series(asked.low[:5_000]), asked.horizon)
        seconds, dead = timed(lambda rolling=rolling: by_minimum(asked, rolling), 2)
        answers.append(Answer(what, seconds, every, columns, dead))
    save(sys.argv[2], answers, ["vectorbt", "vectorbt-rust", "numpy", "numba", "pandas"])


if __name__ == "__main__":
    main()
