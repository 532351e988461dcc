"""The answers of other programs; `peers` runs this file in an environment of each: ``peers_there.py NAME IN OUT``.

vectorbt and jesse get the question of `peers_here.Question`: prices, the bars of the horizon, the leverages and how far
the price may fall at each. lifelines and arch get the counts of `peers_here.Counts`. This file imports nothing of this
package, and each function imports its own program.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
Answer = tuple[str, float, np.ndarray, np.ndarray, np.ndarray]
"""What, seconds, (n_entries,) bars, (n_columns,) leverages, (n_entries, n_columns) verdicts or bars to liquidation."""


def timed(function: Callable[[], Any], repeat: int = 1) -> tuple[float, Any]:
    """Processor seconds of the quickest call, and the last result: all programs are kept to one thread."""
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        out = function()
        seconds.append(time.process_time() - start)
    return min(seconds), out


def vectorbt(asked: Arrays) -> list[Answer]:
    """`from_signals` on a column per entry × leverage, and rolling minima compared with every leverage.

    `from_signals` gets a window of closes and lows for each column, because its time grows with the bars of all
    columns. It works on 4 entries at once, which stay in the cache (16 took the same time, 64 half more).
    """
    import pandas as pd
    import vectorbt as vbt

    close, low, distance, horizon = *(asked[name] for name in ("close", "low", "distance")), int(asked["horizon"])
    every, columns, rows = np.arange(close.size - horizon), np.arange(distance.size), np.arange(horizon + 1)[:, None]

    def by_signals(entries: np.ndarray) -> np.ndarray:
        parts = []
        for at in (entries[i : i + 4] for i in range(0, entries.size, 4)):
            closes, lows = (np.repeat(prices[at + rows], columns.size, axis=1) for prices in (close, low))
            portfolio = vbt.Portfolio.from_signals(
                pd.DataFrame(closes, copy=False),
                entries=rows == 0,
                exits=False,
                low=lows,
                sl_stop=np.tile(distance, at.size)[None, :],
                size=1.0,
                init_cash=np.inf,
                max_orders=2 * closes.shape[1],
                freq="1min",
                engine="rust",
            )
            orders = portfolio.order_records
            stopped = orders[orders["side"] == vbt.portfolio.enums.OrderSide.Sell]
            bars = np.zeros(closes.shape[1], np.int32)
            bars[stopped["col"]] = stopped["idx"]
            parts.append(bars.reshape(at.size, -1))
        return np.concatenate(parts)

    def by_minimum(rolling: Callable[[pd.Series], pd.Series]) -> np.ndarray:
        fall = 1 - rolling(pd.Series(low)).to_numpy()[horizon:] / close[:-horizon]
        return np.array([fall >= one for one in distance]).T

    some = np.linspace(0, every.size - 1, 200).astype(np.int64)
    by_signals(some[:4])
    found = [("vectorbt `from_signals`, a column per entry × leverage", *timed(lambda: by_signals(some), 2))]
    for what, rolling in (
        ("vectorbt", lambda series: series.vbt.rolling_min(horizon, engine="numba")),
        ("pandas", lambda series: series.rolling(horizon).min()),
    ):
        rolling(pd.Series(low[:5_000]))
        seconds, dead = timed(lambda rolling=rolling: by_minimum(rolling), 2)
        found.append((f"{what} rolling minimum, compared with every leverage", seconds, dead))
    return [(what, s, every if len(dead) == every.size else some, columns, dead) for what, s, dead in found]


def jesse(asked: Arrays) -> list[Answer]:
    """A strategy that buys at the close of a day and sells a day later; one that is gone before was liquidated.

    Futures with isolated margin, whose maintenance jesse sets at 0.4 % of the value at entry. Asked twice: a run of two
    days per entry and leverage, and a run of the whole history per leverage, with an entry every day.
    """
    import jesse.helpers as jh
    from jesse.research import backtest
    from jesse.strategies import Strategy

    exchange, symbol, leverages = "Bybit USDT Perpetual", "BTC-USDT", (5, 10, 15, 20, 25, 33, 50, 75, 100, 125)
    died: list[bool] = []

    class HoldADay(Strategy):  # type: ignore[misc]
        def should_long(self) -> bool:
            return True

        def should_cancel_entry(self) -> bool:
            return False

        def go_long(self) -> None:
            self.buy = 1, self.price

        def on_open_position(self, order: object) -> None:
            died.append(True)

        def update_position(self) -> None:
            died[-1] = False  # still open
            self.liquidate()

    def held(candles: np.ndarray, leverage: int) -> list[bool]:
        died.clear()
        config = {"starting_balance": 1e9, "fee": 0, "type": "futures", "futures_leverage": leverage}
        config |= {"futures_leverage_mode": "isolated", "exchange": exchange, "warm_up_candles": 0}
        routes = [{"exchange": exchange, "strategy": HoldADay, "symbol": symbol, "timeframe": "1D"}]
        series = {jh.key(exchange, symbol): {"exchange": exchange, "symbol": symbol, "candles": candles}}
        backtest(config, routes, [], series, fast_mode=True)
        return died[:-1]  # the position of the last close is not followed

    close, day = asked["close"], int(asked["horizon"])
    prices = [asked[name] for name in ("open", "close", "high", "low")]
    candles = np.column_stack([asked["start_ms"] + 60_000.0 * np.arange(close.size), *prices, np.ones(close.size)])
    columns = np.searchsorted(asked["leverage"], leverages)
    held(candles[: 3 * day], leverages[0])
    days = np.arange(day - 1, close.size - day, day)
    whole, some = candles[: (days.size + 1) * day], days[:: days.size // 20][:20]
    daily = timed(lambda: np.array([held(whole, leverage) for leverage in leverages]).T)
    alone = timed(lambda: np.array([[held(candles[i + 1 - day : i + 1 + day], k)[0] for k in leverages] for i in some]))
    return [
        ("jesse research backtest, a run per entry × leverage", alone[0], some, columns, alone[1]),
        ("jesse research backtest, a run per leverage, daily entries", daily[0], days, columns, daily[1]),
    ]


def lifelines(counts: Arrays) -> dict[str, Any]:
    """Kaplan–Meier curves with Greenwood's errors, a fit per scenario of weighted records that are prepared before."""
    from lifelines import KaplanMeierFitter

    hours, fits = counts["hours"], []
    records = []
    for entries, dead, prior in zip(counts["entries"], counts["dead"], counts["prior"], strict=True):
        weight = np.concatenate([dead - prior, entries - dead - np.append((entries - prior)[1:], 0)])
        some = weight > 0
        records.append((np.tile(hours, 2)[some], np.repeat([True, False], hours.size)[some], weight[some]))

    def fit_all() -> list[Any]:
        return [KaplanMeierFitter().fit(time, event, weights=weight) for time, event, weight in records]

    KaplanMeierFitter().fit(*records[0][:2], weights=records[0][2])
    seconds, fits = timed(fit_all)
    survival = np.array([one.survival_function_at_times(hours).to_numpy() for one in fits])
    at = [np.searchsorted(one.timeline, hours, side="right") - 1 for one in fits]
    spread = np.array([one._cumulative_sq_.to_numpy()[i] for one, i in zip(fits, at, strict=True)])
    return {"seconds": seconds, "survival": survival, "error": survival * spread**0.5}


def arch(counts: Arrays) -> dict[str, Any]:
    """Bounds of the differences of two survival rates by the stationary bootstrap, and the weights of its draws."""
    from arch.bootstrap import StationaryBootstrap

    series = [np.ascontiguousarray(table.T, np.float64) for part in counts["parts"] for table in part]
    mean, replications, tail, n_blocks = *(counts[k].item() for k in ("mean", "replications", "tail")), len(series[0])

    def difference(opened: np.ndarray, dead: np.ndarray, other: np.ndarray, gone: np.ndarray) -> Any:
        return dead.sum(axis=0) / opened.sum(axis=0) - gone.sum(axis=0) / other.sum(axis=0)

    def bounds() -> np.ndarray:
        found = StationaryBootstrap(mean, *series, seed=0).apply(difference, replications)
        return np.quantile(found, [tail, 1 - tail], axis=0)

    StationaryBootstrap(mean, *series, seed=0).apply(difference, 10)
    seconds, (low, high) = timed(bounds)
    draws = StationaryBootstrap(mean, np.arange(n_blocks), seed=0).bootstrap(replications)
    weight = np.array([np.bincount(positional[0], minlength=n_blocks) for positional, _ in draws])
    return {"seconds": seconds, "low": low, "high": high, "weight": weight}


def main() -> None:
    """Answer a file with a file."""
    name, given, out = sys.argv[1:4]
    with np.load(given) as found:
        answer = globals()[name](dict(found))
    if isinstance(answer, list):
        fields = ("what", "seconds", "entries", "columns", "verdicts")
        answer = {
            f"{i} {field}": value for i, row in enumerate(answer) for field, value in zip(fields, row, strict=True)
        }
    used = ", ".join(f"{package} {version(package)}" for package in sys.argv[4:])
    np.savez(out, versions=used, **answer)


if __name__ == "__main__":
    main()
