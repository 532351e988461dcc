"""The bars of a history that a run looks at, with its trigger and its entry price chosen (docs/semantics.md §1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from xxhash import xxh3_128

from backtest.arrays import Bool, Float, Int
from backtest.data.history import COLUMNS, PriceHistory, Trigger, spread
from backtest.errors import ConfigError, DataError, NoBars
from backtest.units import duration_text, instant_text

PREFIX = {"last": "", "mark": "mark_"}
"""Of the names of a trigger's columns."""


@dataclass(frozen=True)
class Grid:
    """The bars a run looks at: from the first to the last that can be entered and triggered.

    Attributes
    ----------
    symbol : str
    interval_ms, start_ms : int
        Bar length, and open time of bar 0.
    trigger : {"mark", "last"}
        What is compared with the maintenance margin.
    entry_price : (n_bars,) float64
        NaN where there is none.
    open, high, low, close : (n_bars,) float64
        The trigger's, NaN where null; high and low are both there or both NaN.
    charge_bar, charge_rate, charge_price : (n_charges,)
        Funding charged before the extreme of its bar is looked at, with the price it falls on.
    scale : (n_bars,) float64 or None
        Multiplier g of the maintenance margin; None where it is 1 at every bar.
    last_open, last_high, last_low : (n_bars,) float64
        Traded prices, NaN where null; what a stop-loss on the last price watches.
    """

    symbol: str
    interval_ms: int
    start_ms: int
    trigger: Trigger
    entry_price: Float
    open: Float
    high: Float
    low: Float
    close: Float
    charge_bar: Int
    charge_rate: Float
    charge_price: Float
    scale: Float | None
    last_open: Float
    last_high: Float
    last_low: Float

    @property
    def n_bars(self) -> int:
        return self.entry_price.size

    @property
    def has_trigger(self) -> Bool:
        """(n_bars,) bars with low and high of the trigger."""
        return ~np.isnan(self.low)

    def entry_bars(self, every_ms: int | None = None) -> Int:
        """Bars that can be entered: with an entry price and trigger prices, at multiples of `every_ms`."""
        bars = np.flatnonzero(self.has_trigger & ~np.isnan(self.entry_price))
        if every_ms is not None and every_ms != self.interval_ms:
            if every_ms % self.interval_ms:
                raise ConfigError(
                    f"entries.every must be a multiple of the bars' {duration_text(self.interval_ms)}; "
                    f"got {duration_text(every_ms)}"
                )
            bars = bars[(self.start_ms + bars * self.interval_ms) % every_ms == 0]
        return bars.astype(np.int64)

    @cached_property
    def latest_close(self) -> Int:
        """(n_bars,) the latest bar with a trigger close, the bar itself included."""
        out: Int = np.maximum.accumulate(np.where(np.isnan(self.close), 0, np.arange(self.n_bars)))
        return out

    def longest_gap(self) -> int:
        """Bars of the longest run without trigger prices."""
        present = np.flatnonzero(self.has_trigger)
        return int(np.diff(present).max(initial=1)) - 1


def build_grid(
    history: PriceHistory,
    trigger: Trigger | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    *,
    funding: bool = True,
) -> Grid:
    """Cut a history to ``[start_ms, end_ms)`` and choose its series (docs/semantics.md §1); `funding` may be left out.

    Raises
    ------
    DataError
        If the trigger is not in the history, the range holds no bar that can be entered, or a funding charge has no
        price.
    """
    chosen, column = _chosen(history, trigger)
    step = history.interval_ms
    first = 0 if start_ms is None else max(0, -((history.start_ms - start_ms) // step))
    last = history.n_bars if end_ms is None else min(history.n_bars, -((history.start_ms - end_ms) // step))
    bars = np.flatnonzero(_ready(column, chosen)[first : max(first, last)]) + first
    if not bars.size:
        span = f"{instant_text(history.start_ms)} … {instant_text(history.start_ms + history.n_bars * step)}"
        raise NoBars(
            f"{history.symbol}: no bar with both an entry price and {chosen} prices in the range asked for; "
            f"the history spans {span}"
        )
    return _grid(history, chosen, column, slice(int(bars[0]), int(bars[-1]) + 1), 1, funding)


def grid_over(
    history: PriceHistory, trigger: Trigger, start_ms: int, end_ms: int, *, first: bool, funding: bool = True
) -> Grid:
    """``[start_ms, end_ms)`` of a longer grid, whatever of it is missing; `first`: the longer one begins here."""
    step = history.interval_ms
    n_bars, offset = (end_ms - start_ms) // step, (history.start_ms - start_ms) // step
    if (offset, history.n_bars) != (0, n_bars):
        place = np.arange(max(0, offset), min(n_bars, offset + history.n_bars))
        columns = {name: spread(values[place - offset], place, n_bars) for name, values in history.columns.items()}
        history = PriceHistory(history.symbol, step, start_ms, columns, history.before, history.series)
    chosen, column = _chosen(history, trigger)
    return _grid(history, chosen, column, slice(0, n_bars), int(first), funding)


def ready_bars(history: PriceHistory, trigger: Trigger | None = None) -> tuple[Trigger, Int]:
    """The trigger, and the bars that have its prices and an entry price."""
    chosen, column = _chosen(history, trigger)
    return chosen, np.flatnonzero(_ready(column, chosen)).astype(np.int64)


def _chosen(history: PriceHistory, trigger: Trigger | None) -> tuple[Trigger, dict[str, Float]]:
    """The trigger, and all columns with that of the entries, NaN where there are none."""
    chosen: Trigger = trigger or ("mark" if "mark" in history.series else "last")
    if chosen == "mark" and "mark" not in history.series:
        raise DataError(f"{history.symbol}: trigger 'mark' is asked for, but the history has no mark price")
    nothing = np.full(history.n_bars, np.nan)
    column = {name: history.columns.get(name, nothing) for name in COLUMNS}
    return chosen, column | {"entry": column["close"] if "last" in history.series else column["mark_close"]}


def _has_trigger(column: dict[str, Float], trigger: Trigger) -> Bool:
    """With one of high and low alone a bar has no trigger prices, on either side."""
    prefix = PREFIX[trigger]
    return ~(np.isnan(column[prefix + "low"]) | np.isnan(column[prefix + "high"]))


def _ready(column: dict[str, Float], trigger: Trigger) -> Bool:
    return _has_trigger(column, trigger) & ~np.isnan(column["entry"])


def _grid(
    history: PriceHistory, trigger: Trigger, column: dict[str, Float], cut: slice, charged_from: int, funding: bool
) -> Grid:
    """The bars of a cut; charges before its bar `charged_from` fall on nobody."""
    prefix, step = PREFIX[trigger], history.interval_ms
    charged = np.flatnonzero(~np.isnan(column["funding_rate"][cut]))
    charged = charged[(charged >= charged_from) & funding] + cut.start
    price = _charge_price(history, column, prefix, charged)
    scale = np.where(np.isnan(column["maintenance_scale"]), 1.0, column["maintenance_scale"])[cut]
    has_trigger = _has_trigger(column, trigger)
    high, low = (column[prefix + name] for name in ("high", "low"))
    if not has_trigger.all():
        high, low = (np.where(has_trigger, values, np.nan) for values in (high, low))
    return Grid(
        history.symbol,
        step,
        history.start_ms + cut.start * step,
        trigger,
        column["entry"][cut],
        column[prefix + "open"][cut],
        high[cut],
        low[cut],
        column[prefix + "close"][cut],
        (charged - cut.start).astype(np.int64),
        column["funding_rate"][charged],
        price,
        None if (scale == 1.0).all() else scale,
        *(column[name][cut] for name in ("open", "high", "low")),
    )


def _charge_price(history: PriceHistory, column: dict[str, Float], prefix: str, charged: Int) -> Float:
    """Price of each charge: mark open, else open, else the trigger close of the latest earlier bar that has one."""
    price = np.where(np.isnan(column["mark_open"][charged]), column["open"][charged], column["mark_open"][charged])
    lacking = np.isnan(price)
    if lacking.any():
        close = column[prefix + "close"]
        known = np.concatenate(([history.before.get(prefix + "close", np.nan)], close))
        latest = np.maximum.accumulate(np.where(np.isnan(known), 0, np.arange(known.size)))
        price[lacking] = known[latest[charged[lacking]]]
        still = np.isnan(price)
        if still.any():
            bar = int(charged[np.argmax(still)])
            when = instant_text(history.start_ms + bar * history.interval_ms)
            raise DataError(f"{history.symbol}: the funding charged in the bar of {when} has no price to fall on")
    return price


OF_BARS = (
    *("entry_price", "open", "high", "low", "close", "scale"),
    *("last_open", "last_high", "last_low"),
)
"""What a grid holds of each bar."""


class Fingerprint:
    """Digest of every number of a grid that a verdict can depend on, taken part by part.

    It detects changes, not attacks: XXH3 of 128 bits, at the speed of memory.
    """

    def __init__(self) -> None:
        self._head = ""
        self._bars = 0
        self._columns: dict[str, xxh3_128] = {}

    def add(self, grid: Grid, own_bars: int) -> None:
        """Take the first bars of a grid, which follow those that were taken."""
        self._head = self._head or f"{grid.symbol} {grid.interval_ms} {grid.start_ms} {grid.trigger}"
        charges = slice(0, int(np.searchsorted(grid.charge_bar, own_bars)))
        parts = {name: getattr(grid, name)[:own_bars] for name in OF_BARS if getattr(grid, name) is not None}
        parts |= {name: getattr(grid, name)[charges] for name in ("charge_rate", "charge_price")}
        parts["charge_bar"] = grid.charge_bar[charges] + self._bars
        for name, values in parts.items():
            self._columns.setdefault(name, xxh3_128()).update(np.ascontiguousarray(values).data)
        self._bars += own_bars

    def hexdigest(self) -> str:
        """Of all that was taken."""
        parts = [self._head, *(f"{name} {found.hexdigest()}" for name, found in sorted(self._columns.items()))]
        return xxh3_128("\n".join(parts).encode()).hexdigest()


def fingerprint(grid: Grid) -> str:
    """As `Fingerprint`, of a whole grid."""
    found = Fingerprint()
    found.add(grid, grid.n_bars)
    return found.hexdigest()
