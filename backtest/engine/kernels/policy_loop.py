"""Simulate positions under path-dependent rules, from event to event, by crossings of block-maximum trees.

Between two events a position is a static one: liquidation, margin call and the levels of stop, take-profit and
scale-in are first crossings of adverse series (docs/semantics.md §3), each a descent of a tree that all positions of a
chunk share. Descents ask for a hair less than the level; the bar that they find is then resolved literally, and where
nothing happens in it the search goes on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.arrays import Float, Int
from backtest.engine.kernels.first_passage import FAN
from backtest.engine.kernels.jit import kernel
from backtest.engine.kernels.position import (
    LIQUIDATED,
    STOPPED,
    SURVIVED,
    TIE,
    TOOK_PROFIT,
    Records,
    answer,
    breach,
    can_answer,
    close,
    equity,
    exit_price,
    heeds_call,
    is_met,
    kept_back,
    largest_line,
    maintenance,
    margin_price,
    period_at,
    scale_in,
    scale_in_price,
    slack,
    tier_index,
    unit_value,
    worse,
)

HAIR = 1e-12
"""Slack of a level that is given, not computed from the margin; and what a descent asks less for."""
NOTHING, CALL, BREACH, STOP_LOSS, SCALE_IN = range(5)

RESULT = np.dtype(
    [
        ("outcome", "i1"),
        ("recovered", "?"),
        ("end", "i4"),
        ("margin_call", "i4"),
        ("partial_liquidations", "i4"),
        ("top_ups", "i4"),
        ("deleverages", "i4"),
        ("scale_ins", "i4"),
        ("liquidation_price", "f8"),
        ("fill_price", "f8"),
        ("equity", "f8"),
        ("residual", "f8"),
        ("insurance", "f8"),
        ("fees", "f8"),
        ("added", "f8"),
    ],
    align=True,
)


BAR = np.dtype(
    [
        ("open", "f8"),  # of the trigger
        ("adverse", "f8"),  # its worst price
        ("close", "f8"),
        ("stop_open", "f8"),  # what a stop-loss watches
        ("stop_adverse", "f8"),
        ("favourable", "f8"),  # what a take-profit watches
        ("paid", "f8"),  # C, per unit of quantity, from the chunk's first bar on
        ("known", "i8"),  # the latest bar with a close, this one included; -1
    ]
)
"""What happens in a bar: prices in quote per base, NaN where null. One line of the cache."""


@kernel
def fill_maxima(forest: Float, level: Int) -> None:
    """Fill block-maximum trees above their lowest level."""
    for row in range(forest.shape[0]):
        for height in range(1, level.size - 1):
            below, above, stop = level[height - 1], level[height], level[height + 1]
            for node in range(stop - above):
                first = below + node * FAN
                top = forest[row, first]
                for child in range(first + 1, min(first + FAN, above)):
                    top = max(top, forest[row, child])
                forest[row, above + node] = top


@kernel
def first_at(forest: Float, level: Int, row: int, start: int, stop: int, threshold: float) -> int:
    """First bar in ``start … stop − 1`` whose value in a tree reaches the threshold, or `stop`."""
    height = 0
    span = 1
    node = start
    top = level.size - 2
    while node * span < stop:
        if forest[row, level[height] + node] >= threshold:
            if height == 0:
                return node
            height -= 1
            span //= FAN
            node *= FAN
            continue
        node += 1
        if height < top and node % FAN == 0:
            height += 1
            span *= FAN
            node //= FAN
    return stop


@kernel(fastmath=False)
def reach(level: float, way: float) -> float:
    """What ``way·price`` must be to reach a level that is given; way : +1 upwards, −1 downwards."""
    return way * level - HAIR * level


@kernel(fastmath=False)
def lines_between(rules: np.record, lines: Records, p: np.record, period: np.record) -> tuple[int, int]:
    """First and last line that can be in force for a position, whatever the mark of the chunk."""
    if rules.stays:
        low = high = tier_index(lines, period, p.value)
    elif rules.on_entry:
        low = high = largest_line(lines, period, p.value)
    else:  # rates never fall from tier to tier: the largest line of a size lies between those of a range around it
        low = largest_line(lines, period, p.quantity * rules.lowest)
        high = largest_line(lines, period, p.quantity * rules.highest)
    return low, high


@kernel(fastmath=False)
def first_breach(
    forest: Float,
    level: Int,
    rules: np.record,
    periods: Records,
    lines: Records,
    p: np.record,
    call: bool,
    start: int,
    stop: int,
) -> int:
    """First bar before `stop` at which the margin may be called, or else gone; or `stop`."""
    size = p.quantity
    ratio = rules.call_ratio if call else 1.0
    kept = kept_back(p, ratio)
    base = (p.balance - kept - slack(rules, p)) / size - rules.lean * p.entry + rules.sign * p.paid
    scale = (abs(p.balance) + abs(kept)) / size + p.entry + abs(p.paid)
    at = period_at(periods, start)
    while periods[at].first < stop:
        period = periods[at]
        at += 1
        end = min(stop, periods[at].first)
        found = end
        low, high = lines_between(rules, lines, p, period)
        for k in range(low, high + 1):
            row = lines[k].call if call else lines[k].breach
            if row < 0:
                continue
            if rules.on_entry:
                least = base - maintenance(rules, lines, p, period, 0.0) / ratio / size
            else:
                least = base + lines[k].deduction / ratio / size
            least -= HAIR * (scale + abs(least))
            found = first_at(forest, level, row, max(start, period.first), found, least)
        if found < end:
            return int(found)
    return stop


@kernel(fastmath=False)
def next_event(
    forest: Float, level: Int, rules: np.record, periods: Records, lines: Records, p: np.record, start: int, stop: int
) -> int:
    """First bar before `stop` at which anything may happen, or `stop`."""
    stop = min(stop, p.answer)
    stop = first_breach(forest, level, rules, periods, lines, p, False, start, stop)
    if heeds_call(rules, p):
        stop = first_breach(forest, level, rules, periods, lines, p, True, start, stop)
    price = exit_price(rules, p, rules.stop_at, rules.stop_of_margin, -1.0)
    if price == price:
        stop = first_at(forest, level, rules.stop_row, start, stop, reach(price, -rules.sign))
    price = exit_price(rules, p, rules.take_at, rules.take_of_margin, 1.0)
    if price == price:
        stop = first_at(forest, level, rules.take_row, start, stop, reach(price, rules.sign))
    price = scale_in_price(rules, p)
    if price == price:
        stop = first_at(forest, level, rules.adverse_row, start, stop, reach(price, -rules.sign))
    return stop


@kernel(fastmath=False)
def nearest(
    bar: np.record,
    rules: np.record,
    lines: Records,
    p: np.record,
    period: np.record,
    path: float,
    stop_path: float,
) -> tuple[int, float]:
    """The event that is met next on the way to the bar's worst price, and where.

    path, stop_path : where the trigger, and what the stop-loss watches, stand; NaN where unknown
    """
    sign = rules.sign
    v = unit_value(bar.adverse, rules.inverse)
    here = path if path == path else bar.adverse
    event, place = NOTHING, np.nan
    at_open = False
    if heeds_call(rules, p) and is_met(rules, lines, p, period, v, bar.paid, rules.call_ratio):
        level = margin_price(rules, lines, p, period, bar.paid, rules.call_ratio)
        event, place = CALL, worse(level, path, sign) if level == level else here
    if rules.confirm_bars == 0 and is_met(rules, lines, p, period, v, bar.paid, 1.0):
        level = margin_price(rules, lines, p, period, bar.paid, 1.0)
        at = worse(level, path, sign) if level == level else here
        at_open = at == bar.open  # a bar that opens beyond the level is a liquidation
        if event == NOTHING or sign * at > sign * place:
            event, place = BREACH, at
    level = exit_price(rules, p, rules.stop_at, rules.stop_of_margin, -1.0)
    if not at_open and -sign * bar.stop_adverse >= reach(level, -sign):
        at = worse(level, stop_path, sign)
        if event == NOTHING or sign * at > sign * place:
            event, place = STOP_LOSS, at
    level = scale_in_price(rules, p)
    if -sign * bar.adverse >= reach(level, -sign):
        at = worse(level, path, sign)
        if event == NOTHING or sign * at > sign * place:
            event, place = SCALE_IN, at
    return event, place


@kernel(fastmath=False)
def call_at(bars: Records, rules: np.record, p: np.record, t: int) -> None:
    """A margin call: its answer, if there is one, waits for the close of a bar that has trigger prices."""
    if p.call == 0:
        p.call = t
    if can_answer(rules, p):
        due = t + rules.delay
        while due < bars.size and not (bars[due].adverse == bars[due].adverse and bars[due].known == due):
            due += 1
        p.answer = due


@kernel(fastmath=False)
def walk_bar(
    bars: Records, rules: np.record, periods: Records, lines: Records, additions: Records, p: np.record, t: int
) -> bool:
    """Everything that happens in one bar, in its order; whether the position is closed."""
    bar = bars[t]
    if bar.adverse != bar.adverse:
        return False
    period = periods[period_at(periods, t)]
    path, stop_path = bar.open, bar.stop_open
    harmed = False
    while True:
        event, place = nearest(bar, rules, lines, p, period, path, stop_path)
        if event == NOTHING:
            break
        if event == CALL:
            call_at(bars, rules, p, t)
        elif event == BREACH:
            if breach(rules, lines, p, period, t, bar.paid, place):
                return True
        elif event == STOP_LOSS:
            fill = place * (1.0 - rules.sign * rules.stop_slippage)
            close(rules, p, STOPPED, t, fill, bar.paid, rules.taker_fee)
            return True
        else:
            scale_in(rules, additions, p, t, bar.paid, place)
        harmed = harmed or event != CALL
        path = place
        stop_path = worse(stop_path, place, rules.sign)
    level = exit_price(rules, p, rules.take_at, rules.take_of_margin, 1.0)
    if not harmed and rules.sign * bar.favourable >= reach(level, rules.sign):
        close(rules, p, TOOK_PROFIT, t, level, bar.paid, rules.taker_fee)
        return True
    return bool(bar.known == t) and at_close(bar, rules, lines, p, period, t)


@kernel(fastmath=False)
def at_close(bar: np.record, rules: np.record, lines: Records, p: np.record, period: np.record, t: int) -> bool:
    """The close of a bar: a confirmed liquidation, then an answer that is due; whether the position is closed."""
    v = unit_value(bar.close, rules.inverse)
    if rules.confirm_bars > 0 and is_met(rules, lines, p, period, v, bar.paid, 1.0):
        p.confirmed = p.confirmed + 1 if p.confirmed_at == t - 1 else 1
        p.confirmed_at = t
        if p.confirmed == rules.confirm_bars:
            p.confirmed = 0
            level = margin_price(rules, lines, p, period, bar.paid, 1.0)
            if breach(rules, lines, p, period, t, bar.paid, worse(level, bar.close, rules.sign)):
                return True
    if p.answer <= t:
        answer(rules, lines, p, period, t, bar.paid, bar.close)
    return False


@kernel(fastmath=False)
def write_result(
    bars: Records, rules: np.record, periods: Records, lines: Records, p: np.record, end: int, out: np.record
) -> None:
    """Write the result of a position over a window that ends at bar `end`."""
    last = end if p.outcome == SURVIVED else p.closed
    period = periods[period_at(periods, last)]
    out.outcome = p.outcome
    out.margin_call = p.call - p.bar if p.call > 0 else 0
    out.partial_liquidations = p.cuts
    out.top_ups = p.top_ups
    out.deleverages = p.deleverages
    out.scale_ins = p.scale_ins
    out.fees = p.fees / p.initial
    out.added = p.added / p.initial
    out.liquidation_price = margin_price(rules, lines, p, period, bars[last].paid, 1.0)
    out.fill_price = p.fill_price
    out.residual = np.nan
    known = bars[end].known
    seen = known > p.bar
    price = bars[known].close if seen else p.price
    paid = bars[max(known, p.since)].paid  # funding that was folded into the balance stays there
    held = equity(rules, p, unit_value(price, rules.inverse), paid)
    if p.outcome == SURVIVED:
        out.equity = held / p.initial
        return
    out.end = last - p.bar
    out.equity = max(0.0, p.left) / p.initial
    if p.outcome in (STOPPED, TOOK_PROFIT):
        out.insurance = min(0.0, p.left) / p.initial
    elif p.outcome == LIQUIDATED:
        out.insurance = p.left / p.initial if rules.fund else min(0.0, p.left) / p.initial
        out.equity = 0.0 if rules.fund else max(0.0, p.left) / p.initial
        out.residual = out.equity
        out.recovered = seen and held > p.margin * (1.0 + TIE)


class Market(NamedTuple):
    """What the positions of a scenario can meet over the bars of a chunk."""

    bars: Records  # (n_bars,) of dtype `BAR`
    periods: Records  # (n_periods + 1,) of dtype `PERIOD`
    lines: Records  # of dtype `LINE`
    additions: Records  # of dtype `ADDITION`, one more than there are
    forest: Float  # (n_trees, n_nodes) block-maximum trees of one shape
    level: Int  # (n_levels + 1,) where each level of a tree starts


@kernel(fastmath=False)
def simulate(market: Market, terms: Records, positions: Records, horizons: Int, out: Records) -> None:
    """Follow each position from event to event, and write what became of it at every horizon.

    terms     : (1,) of dtype `RULES`
    positions : (n_entries,) of dtype `POSITION`, in their state at entry; left in their last state
    horizons  : (n_horizons,) bars, ascending
    out       : (n_entries, n_horizons) of dtype `RESULT`, zeros

    Arrays are taken out of their tuple once, and most of what is handed on is a record, which is but an address:
    tuples of arrays cost 0.4 µs a call, three times a descent (reference counts).
    """
    bars, periods, lines, additions, forest, level = market
    rules = terms[0]
    for j in range(positions.size):
        p = positions[j]
        if p.rejected:
            continue
        written = 0
        t = p.bar
        limit = min(p.bar + horizons[-1], p.last)
        while written < horizons.size:
            t = next_event(forest, level, rules, periods, lines, p, t + 1, limit + 1)
            while written < horizons.size and min(p.bar + horizons[written], p.last) < t:
                end = min(p.bar + horizons[written], p.last)
                write_result(bars, rules, periods, lines, p, end, out[j, written])
                written += 1
            if written < horizons.size and walk_bar(bars, rules, periods, lines, additions, p, t):
                for h in range(written, horizons.size):
                    end = min(p.bar + horizons[h], p.last)
                    write_result(bars, rules, periods, lines, p, end, out[j, h])
                written = horizons.size
