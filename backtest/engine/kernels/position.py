"""One position under path-dependent rules: its state, its equity, and what an event does to it.

Amounts are in the margin's currency, prices in quote per base. Formulas are in the value ``v`` of one unit of quantity
(P, of inverse contracts 1/P): linear and inverse contracts then have the same formulas. Places on the path of a bar are
prices, so that the levels of a policy are compared as they are given. Null is NaN. Oracle: tests/oracles/policies.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.engine.kernels.jit import kernel

Records = NDArray[Any]

TIE = 1e-9
"""Share of the margin that counts as nothing left, and slack of a size against a cap (docs/semantics.md §2)."""
NEVER = np.iinfo(np.int64).max
SURVIVED, LIQUIDATED, STOPPED, TOOK_PROFIT = range(4)

POSITION = np.dtype(
    [
        ("bar", "i8"),  # of the entry
        ("last", "i8"),  # last bar at risk
        ("price", "f8"),  # of the first entry
        ("leverage", "f8"),
        ("first_quantity", "f8"),
        ("initial", "f8"),  # margin posted at entry, M0
        ("quantity", "f8"),  # base; inverse: face value in quote
        ("entry", "f8"),  # average value of a unit at entry
        ("value", "f8"),  # of the position at entry worths; at the opening the notional as configured
        ("balance", "f8"),  # posted + realised − fees − funding paid up to `since`
        ("margin", "f8"),  # all that was posted
        ("posted_fee", "f8"),  # fee to close f, on top of the margin; in no equity
        ("tier", "i8"),  # from 0, that a ladder has come down to; `NEVER`: none since the last addition
        ("since", "i8"),  # bar of the last change
        ("paid", "f8"),  # C of that bar
        ("reserve", "f8"),  # left for top-ups
        ("answer", "i8"),  # bar of the pending answer to a margin call
        ("answers", "i8"),  # that were given
        ("confirmed", "i8"),  # closes beyond the level, up to `confirmed_at`, in a row
        ("confirmed_at", "i8"),
        ("next_distance", "f8"),  # of the next scale-in; NaN: there is none
        ("fees", "f8"),
        ("added", "f8"),
        ("call", "i8"),  # bar of the first margin call; 0: none
        ("cuts", "i4"),
        ("top_ups", "i4"),
        ("deleverages", "i4"),
        ("scale_ins", "i4"),
        ("outcome", "i1"),
        ("rejected", "?"),
        ("closed", "i8"),  # bar in which everything went
        ("fill_price", "f8"),  # price at which it did
        ("left", "f8"),  # after it, fees paid
    ],
    align=True,
)


RULES = np.dtype(
    [
        ("sign", "f8"),
        ("lean", "f8"),  # gain of a unit of quantity per rise of its value: sign, inverse −sign
        ("inverse", "?"),
        ("on_entry", "?"),  # maintenance of the entry value, not of the value at mark
        ("stays", "?"),  # no deductions: the tier of the entry value holds, whatever the mark says
        ("fund", "?"),  # keeps what a liquidation leaves
        ("close_reserve", "f8"),
        ("posted_fee", "f8"),  # rate c of a fee to close that is posted on top of the margin
        ("beside", "f8"),  # extra margin that ties leave out
        ("call_ratio", "f8"),
        ("taker_fee", "f8"),
        ("liquidation_fee", "f8"),
        ("slippage", "f8"),  # of a liquidation
        ("confirm_bars", "i8"),
        ("step", "i8"),  # tiers cut at a time, or …
        ("fraction", "f8"),  # … what is cut while the notional is …
        ("above", "f8"),
        ("target", "f8"),  # margin ratio of a top-up
        ("deleverage", "f8"),  # fraction closed
        ("max_times", "i8"),  # answers to a margin call
        ("delay", "i8"),  # bars
        ("stop_at", "f8"),  # distances
        ("take_at", "f8"),
        ("stop_of_margin", "?"),
        ("take_of_margin", "?"),
        ("stop_slippage", "f8"),
        ("lowest", "f8"),  # value of a unit over the chunk
        ("highest", "f8"),
        ("adverse_row", "i8"),  # trees of what scale-ins, stop-loss and take-profit watch
        ("stop_row", "i8"),
        ("take_row", "i8"),
    ],
    align=True,
)
"""Terms of the margin and of the policy; 0 is none."""

PERIOD = np.dtype([("first", "i8"), ("start", "i8"), ("stop", "i8")])
"""A table in force from bar `first` on: the lines ``start … stop − 1``. A last period starts past all bars."""

LINE = np.dtype([("mmr", "f8"), ("deduction", "f8"), ("cap", "f8"), ("breach", "i8"), ("call", "i8")])
"""A tier; `breach` and `call` are the trees of its adverse series, < 0 where it is out of reach."""

ADDITION = np.dtype([("distance", "f8"), ("multiple", "f8")])
"""A scale-in. The last one has distance NaN: there is none."""


@kernel(fastmath=False)
def unit_value(price: float, inverse: bool) -> float:
    """What a position's value moves with; its own inverse."""
    return 1.0 / price if inverse else price


@kernel(fastmath=False)
def worse(one: float, other: float, sign: float) -> float:
    """The price further along an adverse path; the one that is known where one is null."""
    if one != one:
        return other
    return one if other != other or sign * one <= sign * other else other


@kernel(fastmath=False)
def period_at(periods: Records, bar: int) -> int:
    """Period whose table is in force."""
    k = 0
    while periods[k + 1].first <= bar:
        k += 1
    return k


@kernel(fastmath=False)
def tier_index(lines: Records, period: np.record, size: float) -> int:
    """Line of the tier that holds a notional; beyond the last cap it is the last."""
    k = period.start
    last = period.stop - 1
    while k < last and size > lines[k].cap * (1.0 + TIE):
        k += 1
    return int(k)


@kernel(fastmath=False)
def largest_line(lines: Records, period: np.record, size: float) -> int:
    """Line that gives the largest maintenance of a notional."""
    best = period.start
    for k in range(best + 1, period.stop):
        if lines[k].mmr * size - lines[k].deduction > lines[best].mmr * size - lines[best].deduction:
            best = k
    return int(best)


@kernel(fastmath=False)
def maintenance(rules: np.record, lines: Records, p: np.record, period: np.record, v: float) -> float:
    """Maintenance margin at a value of a unit."""
    size = p.value if rules.on_entry else p.quantity * v
    k = tier_index(lines, period, p.value) if rules.stays else largest_line(lines, period, size)
    return float(lines[k].mmr * size - lines[k].deduction + rules.close_reserve * size)


@kernel(fastmath=False)
def equity(rules: np.record, p: np.record, v: float, paid: float) -> float:
    """Margin balance at a value of a unit; paid : C of the bar."""
    return float(p.balance + rules.lean * p.quantity * (v - p.entry) - rules.sign * p.quantity * (paid - p.paid))


@kernel(fastmath=False)
def slack(rules: np.record, p: np.record) -> float:
    """Equity over maintenance that counts as nothing left."""
    return float(TIE * (p.margin - rules.beside))


@kernel(fastmath=False)
def kept_back(p: np.record, ratio: float) -> float:
    """Rest of a posted fee to close f in ``E + f = (MM + f)/ratio``: at a liquidation, ratio 1, it cancels."""
    return float(p.posted_fee * (1.0 / ratio - 1.0))


@kernel(fastmath=False)
def is_met(
    rules: np.record, lines: Records, p: np.record, period: np.record, v: float, paid: float, ratio: float
) -> bool:
    """The verdict: whether the equity has come down to the maintenance over `ratio`."""
    left = equity(rules, p, v, paid) - maintenance(rules, lines, p, period, v) / ratio
    return bool(left - kept_back(p, ratio) <= slack(rules, p))


@kernel(fastmath=False)
def margin_price(rules: np.record, lines: Records, p: np.record, period: np.record, paid: float, ratio: float) -> float:
    """Price at which equity is maintenance over `ratio`, the tier being the one at that price; NaN where there is none.

    Where two tiers meet, or the maintenance of a tier grows faster than the equity falls, there are several: the least
    value, which is the price met last.
    """
    at_zero = p.balance - rules.lean * p.quantity * p.entry - rules.sign * p.quantity * (paid - p.paid)
    at_zero -= kept_back(p, ratio)
    found = np.inf
    start, stop = period.start, period.stop
    if rules.stays:
        start = tier_index(lines, period, p.value)
        stop = start + 1
    if rules.on_entry:
        found = (maintenance(rules, lines, p, period, 0.0) / ratio - at_zero) / (rules.lean * p.quantity)
        start = stop
    for k in range(start, stop):
        rate = (lines[k].mmr + rules.close_reserve) / ratio - rules.lean
        if rate == 0.0:
            continue
        v = (at_zero + lines[k].deduction / ratio) / (rate * p.quantity)
        if v <= 0.0 or v >= found:
            continue
        own = (lines[k].mmr + rules.close_reserve) * p.quantity * v - lines[k].deduction
        if maintenance(rules, lines, p, period, v) - own <= 1e-12 * (p.value + p.quantity * v):
            found = v
    # Below 1e-12 of the entry it is the rounding of 0.
    return unit_value(found, rules.inverse) if 1e-12 * p.entry < found < np.inf else np.nan


@kernel(fastmath=False)
def exit_price(rules: np.record, p: np.record, distance: float, of_margin: bool, way: float) -> float:
    """Level of a stop-loss (way −1) or take-profit (+1); NaN where there is none, or none within (0, ∞)."""
    if distance == 0.0:
        return np.nan
    if of_margin:
        price = unit_value(max(0.0, p.entry + way * rules.lean * distance * p.margin / p.quantity), rules.inverse)
    else:
        price = unit_value(p.entry, rules.inverse) * (1.0 + way * rules.sign * distance)
    return price if 0.0 < price < np.inf else np.nan


@kernel(fastmath=False)
def scale_in_price(rules: np.record, p: np.record) -> float:
    """Level of the next scale-in; NaN where there is none."""
    return float(p.price * (1.0 - rules.sign * p.next_distance))


@kernel(fastmath=False)
def settle(rules: np.record, p: np.record, bar: int, paid: float) -> None:
    """Fold the funding so far into the balance, before a change."""
    p.balance -= rules.sign * p.quantity * (paid - p.paid)
    p.paid = paid
    p.since = bar


@kernel(fastmath=False)
def reduce(rules: np.record, p: np.record, keep: float, v: float, fee: float) -> None:
    """Close all but the share `keep` at a value of a unit; fee : share of the notional closed."""
    gone = p.quantity - keep * p.quantity
    p.balance += rules.lean * gone * (v - p.entry) - fee * gone * v
    p.fees += fee * gone * v
    p.quantity *= keep
    p.value *= keep
    p.posted_fee *= keep


@kernel(fastmath=False)
def step_down(rules: np.record, lines: Records, p: np.record, period: np.record, v: float) -> tuple[float, int]:
    """Share that a breach leaves of the position, 0 unless a ladder cuts it; and the tier that this brings it to."""
    size = p.value if rules.on_entry or rules.stays else p.quantity * v
    if rules.fraction > 0.0:
        return 1.0 - rules.fraction if size > rules.above * (1.0 + TIE) else 0.0, int(p.tier)
    if rules.step == 0:
        return 0.0, int(p.tier)
    tier = min(tier_index(lines, period, size) - period.start, p.tier) - rules.step
    return lines[period.start + tier].cap / size if tier >= 0 else 0.0, int(tier)


@kernel(fastmath=False)
def breach(
    rules: np.record, lines: Records, p: np.record, period: np.record, bar: int, paid: float, place: float
) -> bool:
    """A liquidation at a place on the path: a step down the ladder, or the end (True)."""
    fill = place * (1.0 - rules.sign * rules.slippage)
    v = unit_value(fill, rules.inverse)
    keep, tier = step_down(rules, lines, p, period, v)
    if keep == 0.0:
        close(rules, p, LIQUIDATED, bar, fill, paid, rules.liquidation_fee)
        return True
    settle(rules, p, bar, paid)
    reduce(rules, p, keep, v, rules.liquidation_fee)
    p.tier = tier
    p.cuts += 1
    return False


@kernel(fastmath=False)
def close(rules: np.record, p: np.record, outcome: int, bar: int, fill: float, paid: float, fee: float) -> None:
    """Everything goes; the state stays as it was before, for what is said of it afterwards."""
    v = unit_value(fill, rules.inverse)
    cost = fee * p.quantity * v
    p.outcome = outcome
    p.closed = bar
    p.fill_price = fill
    p.left = equity(rules, p, v, paid) - cost
    p.fees += cost


@kernel(fastmath=False)
def scale_in(rules: np.record, additions: Records, p: np.record, bar: int, paid: float, place: float) -> None:
    """Add the next multiple of the first quantity, with its own margin."""
    v = unit_value(place, rules.inverse)
    more = additions[p.scale_ins].multiple * p.first_quantity
    notional = more * v
    fee = rules.taker_fee * notional
    posted = notional / p.leverage
    settle(rules, p, bar, paid)
    p.balance += posted - fee
    p.fees += fee
    p.margin += posted
    p.added += posted
    p.entry = (p.quantity * p.entry + more * v) / (p.quantity + more)
    p.quantity += more
    p.value += notional
    p.posted_fee += notional * (1.0 - rules.lean / p.leverage) * rules.posted_fee
    p.tier = NEVER
    p.next_distance = additions[p.scale_ins + 1].distance
    p.scale_ins += 1


@kernel(fastmath=False)
def answer(
    rules: np.record, lines: Records, p: np.record, period: np.record, bar: int, paid: float, price: float
) -> None:
    """The answer to a margin call, at the close of a bar."""
    v = unit_value(price, rules.inverse)
    p.answer = NEVER
    if rules.deleverage > 0.0:
        settle(rules, p, bar, paid)
        reduce(rules, p, 1.0 - rules.deleverage, v, rules.taker_fee)
        p.deleverages += 1
        p.answers += 1
        return
    needed = maintenance(rules, lines, p, period, v) / rules.target + kept_back(p, rules.target)
    needed -= equity(rules, p, v, paid)
    more = min(needed, p.reserve)
    if more > 0.0:
        settle(rules, p, bar, paid)
        p.balance += more
        p.margin += more
        p.added += more
        p.reserve -= more
        p.top_ups += 1
        p.answers += 1


@kernel(fastmath=False)
def can_answer(rules: np.record, p: np.record) -> bool:
    """Whether a margin call would be answered."""
    return bool(p.answers < rules.max_times and (rules.deleverage > 0.0 or p.reserve > 0.0))


@kernel(fastmath=False)
def heeds_call(rules: np.record, p: np.record) -> bool:
    """Whether a margin call is looked for: the first one, and any that would be answered; none while one waits."""
    return bool(p.answer == NEVER and (p.call == 0 or can_answer(rules, p)))
