"""§1 of docs/semantics.md: the rows of a history, and the regular grid that is made of them."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

Column = list[float | None] | None


@dataclass(frozen=True)
class Rows:
    """§1: the rows of a history file; None for a list is an absent column, for an element a null."""

    interval_ms: int
    open_time_ms: list[int]
    open: Column = None
    high: Column = None
    low: Column = None
    close: Column = None
    mark_open: Column = None
    mark_high: Column = None
    mark_low: Column = None
    mark_close: Column = None
    funding_rate: Column = None
    maintenance_scale: Column = None


@dataclass(frozen=True)
class Grid:
    """§1: the regular grid, every bar in its place; missing bars hold None (and scale 1)."""

    interval_ms: int
    open_time_ms: list[int]
    entry_price: list[float | None]
    trigger_open: list[float | None]
    trigger_high: list[float | None]
    trigger_low: list[float | None]
    trigger_close: list[float | None]
    funding_rate: list[float | None]
    funding_price: list[float | None]
    scale: list[float]
    settled: bool = False  # §4, dated futures: the last bar is the settlement bar e

    def has_trigger(self, t: int) -> bool:
        """§1: a bar has trigger prices when low and high of the trigger are both non-null."""
        return self.trigger_low[t] is not None and self.trigger_high[t] is not None

    def is_entry(self, t: int) -> bool:
        """§1: a bar without an entry price is no entry, nor is one without trigger prices."""
        return self.entry_price[t] is not None and self.has_trigger(t)

    def last_bar(self, i: int, horizon_bars: int) -> int | None:
        """§2, §4: the last bar at risk of an entry at i; None where the window is censored or holds no bar.

        A window that reaches past the settlement bar is cut there; any other may not reach past the grid.
        """
        last = len(self.open_time_ms) - 1
        if i + horizon_bars <= last:
            return i + horizon_bars
        return last if self.settled and i < last else None


def at(column: Column, row: int | None) -> float | None:
    """§1: the value of a column in a row; null where the column or the row is absent."""
    return None if column is None or row is None else column[row]


def has_value(*columns: Column) -> bool:
    """§1: whether any of the columns holds any value."""
    return any(value is not None for column in columns if column is not None for value in column)


def check(rows: Rows) -> None:
    """§1: open times sorted, unique, on multiples of the interval; NaN or ±inf in any column is an error."""
    times = rows.open_time_ms
    if any(b <= a for a, b in pairwise(times)) or any(time % rows.interval_ms for time in times):
        raise ValueError("open_time must be sorted, unique and a multiple of the interval")
    for name in ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close",
                 "funding_rate", "maintenance_scale"):  # fmt: skip
        column: Column = getattr(rows, name)
        if column is None:
            continue
        if len(column) != len(times):
            raise ValueError(f"{name}: {len(column)} values for {len(times)} rows")
        for row, value in enumerate(column):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name}: {value} in row {row}")


def funding_price_of(rows: Rows, trigger_close: Column, row: int) -> float:
    """§1: mark_open, else open, else the trigger close of the latest earlier bar that has one."""
    # mark_open comes first whatever the trigger is: the page names the columns, not the trigger's open.
    for price in (at(rows.mark_open, row), at(rows.open, row)):
        if price is not None:
            return price
    for earlier in range(row - 1, -1, -1):
        price = at(trigger_close, earlier)
        if price is not None:
            return price
    raise ValueError(f"funding without any price at {rows.open_time_ms[row]}")


def grid_of(
    rows: Rows,
    trigger: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    expiry_ms: int | None = None,
) -> Grid:
    """§1: choose the series once per history, cut to [start, end), then put every bar in its place.

    §4, dated futures: with an expiry the history is cut to the bars that open before it, and no funding is read.
    """
    check(rows)
    if expiry_ms is not None:
        end_ms = expiry_ms if end_ms is None else min(end_ms, expiry_ms)
        rows = replace(rows, funding_rate=None)
    if trigger is None:
        has_mark = has_value(rows.mark_open, rows.mark_high, rows.mark_low, rows.mark_close)
        trigger = "mark" if has_mark else "last"
    if trigger == "mark":
        t_open, t_high, t_low, t_close = rows.mark_open, rows.mark_high, rows.mark_low, rows.mark_close
    elif trigger == "last":
        t_open, t_high, t_low, t_close = rows.open, rows.high, rows.low, rows.close
    else:
        raise ValueError(f"trigger: {trigger!r}")
    # "the last close if the history has it": read as a close column with any value, as is said of mark.
    entry = rows.close if has_value(rows.close) else rows.mark_close

    first: int | None = None
    last: int | None = None
    for row, time in enumerate(rows.open_time_ms):
        if (start_ms is not None and time < start_ms) or (end_ms is not None and time >= end_ms):
            continue
        if at(entry, row) is None or at(t_low, row) is None or at(t_high, row) is None:
            continue
        first = row if first is None else first
        last = row
    if first is None or last is None:
        raise ValueError("no bar has both an entry price and trigger prices")

    row_at = {time: row for row, time in enumerate(rows.open_time_ms)}
    times = list(range(rows.open_time_ms[first], rows.open_time_ms[last] + 1, rows.interval_ms))
    placed = [row_at.get(time) for time in times]
    rate: list[float | None] = [None]
    price: list[float | None] = [None]
    for row_or_none in placed[1:]:  # a charge in or before the first bar (or past the last) is not read
        charged = at(rows.funding_rate, row_or_none)
        rate.append(charged)
        if charged is None or row_or_none is None:
            price.append(None)
        else:
            price.append(funding_price_of(rows, t_close, row_or_none))
    scales = [at(rows.maintenance_scale, r) for r in placed]
    return Grid(
        interval_ms=rows.interval_ms,
        open_time_ms=times,
        entry_price=[at(entry, r) for r in placed],
        trigger_open=[at(t_open, r) for r in placed],
        trigger_high=[at(t_high, r) for r in placed],
        trigger_low=[at(t_low, r) for r in placed],
        trigger_close=[at(t_close, r) for r in placed],
        funding_rate=rate,
        funding_price=price,
        scale=[1.0 if g is None else g for g in scales],
        settled=expiry_ms is not None and times[-1] + rows.interval_ms >= expiry_ms,
    )
