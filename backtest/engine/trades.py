"""The user's own trades on the grid of a symbol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.config.trades_file import OPEN_END, TradeFile
from backtest.engine.bars import Grid
from backtest.errors import DataError
from backtest.units import instant_text


@dataclass(frozen=True)
class Trades:
    """Trades of one symbol on its grid, in the order of their bars; arrays of (n,).

    Attributes
    ----------
    bar, until : int64
        Entry bar, and last bar at risk.
    sign : int64
        0 where the side is that of the scenario.
    leverage : float64
        1 where it is that of the sweep.
    price : float64
        NaN where the entry price is that of the bar.
    row : int64
        Row of the file, from 0.
    own_leverage : bool
    """

    bar: Int
    until: Int
    sign: Int
    leverage: Float
    price: Float
    row: Int
    own_leverage: bool


def trades_on(grid: Grid, file: TradeFile) -> Trades:
    """The trades of the grid's symbol, on its bars.

    Raises
    ------
    DataError
        Naming the row, if a trade enters outside the grid or where no price is known, or its exit leaves no bar at
        risk.
    """
    rows = np.arange(file.entry_ms.size)
    if file.symbol is not None:
        rows = rows[np.array(file.symbol) == grid.symbol]
    step = grid.interval_ms
    bar = -((grid.start_ms - file.entry_ms[rows]) // step) - 1
    until = np.where(file.exit_ms[rows] == OPEN_END, OPEN_END, -((grid.start_ms - file.exit_ms[rows]) // step) - 1)
    price = file.price[rows]

    def refuse(bad: Bool, why: str, exits: bool = False) -> None:
        if bad.any():
            row = int(rows[np.argmax(bad)])
            when = instant_text(int(file.entry_ms[row]))
            left = f" and left {instant_text(int(file.exit_ms[row]))}" if exits else ""
            raise DataError(
                f"{file.path}: row {row}, {grid.symbol} entered {when}{left}: {why} ({int(bad.sum())} such trades)"
            )

    last = instant_text(grid.start_ms + grid.n_bars * step)
    span = f"{instant_text(grid.start_ms)} … {last}"
    refuse((bar < 0) | (bar >= grid.n_bars), f"lies outside the history, {span}")
    ready = grid.has_trigger & ~np.isnan(grid.entry_price)
    refuse(np.isnan(price) & ~ready[bar], "the bar has no price to enter at; give entry_price")
    refuse(until <= bar, "that leaves no bar at risk; exit_time must lie after the entry's bar", exits=True)
    order = np.argsort(bar, kind="stable")
    sign = np.zeros(rows.size, np.int64) if file.sign is None else file.sign[rows]
    leverage = np.ones(rows.size) if file.leverage is None else file.leverage[rows]
    return Trades(
        bar[order], until[order], sign[order], leverage[order], price[order], rows[order], file.leverage is not None
    )
