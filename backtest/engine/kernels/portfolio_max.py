"""The largest sum of several adverse series over nested windows: what a cross-margin portfolio needs.

An entry weighs leg k by ``a_k = |w_k|/p_k``, every entry differently, so that no running maximum answers them all. But
neighbours weigh nearly alike. A group of entries shares a reference ``r``, the middle of its weights, whose sum of
series ``R_t`` is laid out once; since a leg's value is convex in its weight with the slopes Z of its lines,

    value_t(a) ≤ R_t + Σ_k (a_k − r_k)·(the largest or least Z_k, by the sign of what stands before it)

and maxima of R, of Z_k and minima of Z_k over blocks of FAN, FAN², … bars bound every bar of a block. A block is looked
into only if its bound is above what is found already: the best bar of the entry before is the first guess, of the
blocks pushed together the one with the largest bound goes first.

Bounds from block maxima of the legs alone, ``Σ a_k·max Z_k``, are loose where legs offset each other: the legs of a
hedged portfolio move far more than their sum. Scratch is allocated where it is used, so that the compiler knows that
nothing else lies there: handed in, it cost half as much again. A tuple of arrays handed in per search cost three times
(reference counts).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.arrays import Float, Int
from backtest.engine.kernels.jit import kernel
from backtest.engine.kernels.window_max import LOWEST

FAN = 16
"""Children of a node: two vector registers of bars."""
BITS = 4
"""``FAN = 2 ** BITS``; also more than the levels there are."""
TILE = 512
"""Bars of the reference that are summed together."""
GROUP = 1024
"""Entries that share a reference, at most."""
SPREAD = 2
"""Their bars span at most ``longest window / SPREAD``: the reference costs a pass over the window and the span."""
LEAST_SPAN = 4096
"""Bars that a group may always span."""
NODES = 4
"""A search starts on the highest level of which its range of bars holds so many nodes."""


class Field(NamedTuple):
    """Adverse series of the legs, and their extremes over blocks.

    Bars are padded to whole blocks, and so are the nodes of every level; padding is never the largest.
    """

    first: Int  # (n_legs + 1,) the lines of leg k are first[k] … first[k + 1] − 1
    value: Float  # (n_lines, n_padded) Z, quote per base; LOWEST where not in force or without prices
    shift: Float  # (n_lines,) added to weight·Z
    moving: Float  # (n_lines, n_padded) added too, bar by bar; or (n_lines, 0)
    level: Int  # (n_levels + 1,) where the nodes of FAN, FAN², … bars start
    high: Float  # (n_legs, n_nodes) largest Z of any line of the leg; 0 where a block has none
    low: Float  # (n_legs, n_nodes) least
    n_bars: int


def padded(size: int) -> int:
    """The next multiple of FAN."""
    return -(-size // FAN) * FAN


def build_field(first: Int, value: Float, shift: Float, moving: Float, n_bars: int) -> Field:
    """A field over lines that are laid out already.

    value : (n_lines, padded(n_bars)), LOWEST beyond the last bar
    """
    sizes = [padded(value.shape[1] // FAN)]
    while sizes[-1] > FAN:
        sizes.append(padded(sizes[-1] // FAN))
    level = np.cumsum([0, *sizes]).astype(np.int64)
    high, low = (np.empty((first.size - 1, int(level[-1]))) for _ in range(2))
    block_extremes(first, value, level, high, low)
    return Field(first, value, shift, moving, level, high, low, n_bars)


@kernel
def block_extremes(first: Int, value: Float, level: Int, high: Float, low: Float) -> None:
    """Largest and least Z of each leg in each block; 0 where a block has none at all."""
    for k in range(first.size - 1):
        for node in range(level[1]):
            top = LOWEST
            bottom = -LOWEST
            for line in range(first[k], first[k + 1]):
                for t in range(node * FAN, min(node * FAN + FAN, value.shape[1])):
                    z = value[line, t]
                    top = max(top, z)
                    bottom = min(bottom, z if z != LOWEST else -LOWEST)
            high[k, node] = top
            low[k, node] = bottom
        for up in range(1, level.size - 1):
            for node in range(level[up + 1] - level[up]):
                top = LOWEST
                bottom = -LOWEST
                start = level[up - 1] + node * FAN
                for child in range(start, min(start + FAN, level[up])):
                    top = max(top, high[k, child])
                    bottom = min(bottom, low[k, child])
                high[k, level[up] + node] = top
                low[k, level[up] + node] = bottom
        for node in range(level[-1]):
            if high[k, node] == LOWEST:
                high[k, node] = 0.0
                low[k, node] = 0.0


@kernel
def combine(
    first: Int, value: Float, shift: Float, moving: Float, weight: Float, start: int, size: int, out: Float, part: Float
) -> None:
    """``Σ_k max_lines (weight_k·Z + shift)`` of `size` bars from `start` on.

    weight : (n_legs,); out : (≥ size,) written; part : (≥ size,) scratch
    """
    begin = np.uint64(start)
    n = np.uint64(size)
    for t in range(n):
        out[t] = 0.0
    for k in range(weight.size):
        a = weight[k]
        line = first[k]
        if first[k + 1] == line + 1 and moving.shape[1] == 0:
            b = shift[line]
            for t in range(n):
                out[t] += a * value[line, begin + t] + b
            continue
        for t in range(n):
            part[t] = -np.inf
        for each in range(line, first[k + 1]):
            b = shift[each]
            if moving.shape[1] > 0:
                for t in range(n):
                    part[t] = max(part[t], a * value[each, begin + t] + (b + moving[each, begin + t]))
            else:
                for t in range(n):
                    part[t] = max(part[t], a * value[each, begin + t] + b)
        for t in range(n):
            out[t] += part[t]


@kernel
def reference_maxima(
    first: Int, value: Float, shift: Float, moving: Float, level: Int, weight: Float, start: int, stop: int, out: Float
) -> None:
    """Maxima of the reference's sum over the blocks that touch bars ``start … stop − 1``.

    Blocks that reach beyond hold the maximum of what touches only: no entry of the group looks further.

    weight : (n_legs,) of the reference; out : (n_nodes,)
    """
    total, part = np.empty(TILE), np.empty(TILE)
    low = start // FAN
    high = (stop - 1) // FAN
    for begin in range(low, high + 1, TILE // FAN):
        n = min(high + 1 - begin, TILE // FAN)
        combine(first, value, shift, moving, weight, begin * FAN, n * FAN, total, part)
        for node in range(n):
            top = LOWEST
            for t in range(node * FAN, node * FAN + FAN):
                top = max(top, total[t])
            out[begin + node] = top
    for up in range(1, level.size - 1):
        least = low
        most = high
        low //= FAN
        high //= FAN
        for node in range(low, high + 1):
            top = LOWEST
            for child in range(max(node * FAN, least), min(node * FAN + FAN - 1, most) + 1):
                top = max(top, out[level[up - 1] + child])
            out[level[up] + node] = top


@kernel
def push(
    level: Int, high: Float, low: Float, reference: Float, delta: Float, up: int, start: int, stop: int,
    best: float, bound: Float, stack_bound: Float, stack_node: Int, depth: int,
) -> int:  # fmt: skip
    """Put the nodes ``start … stop − 1`` of a level whose bounds are above `best` on the stack, the largest last.

    delta : (n_legs,) the entry's weights less the reference's
    bound : (n_nodes,) scratch
    stack_bound, stack_node : (n_nodes,) what is still to be looked into; ``node · FAN + level``
    """
    n = np.uint64(stop - start)
    at = np.uint64(level[up] + start)
    for t in range(n):
        bound[t] = reference[at + t]
    for k in range(delta.size):
        d = delta[k]
        if d >= 0:
            for t in range(n):
                bound[t] += d * high[k, at + t]
        else:
            for t in range(n):
                bound[t] += d * low[k, at + t]
    top = best
    for t in range(stop - start):
        here = bound[t]
        if here <= best:
            continue
        place = depth
        if here < top:  # below the largest
            place -= 1
            stack_bound[depth] = stack_bound[place]
            stack_node[depth] = stack_node[place]
        else:
            top = here
        stack_bound[place] = here
        stack_node[place] = ((start + t) << BITS) + up
        depth += 1
    return depth


@kernel
def top_level(bars: int, highest: int) -> int:
    """The level on which a search over so many bars starts."""
    up = 0
    while up < highest and (NODES << (BITS * (up + 2))) <= bars:
        up += 1
    return up


@kernel
def search_group(
    first: Int, value: Float, shift: Float, moving: Float, level: Int, high: Float, low: Float, reference: Float,
    center: Float, n_bars: int, bar: Int, weight: Float, horizon: Int, entry: int, stop_entry: int, hint: Int,
    out: Float,
) -> None:  # fmt: skip
    """`search_windows` for the entries ``entry … stop_entry − 1``, which share a reference.

    center : (n_legs,) weights of the reference
    hint   : (n_horizons,) a bar that is likely to be the largest; not used outside the range
    """
    total, part, delta = np.empty(FAN), np.empty(FAN), np.empty(center.size)
    bound, stack_bound, stack_node = np.empty(level[-1]), np.empty(level[-1]), np.empty(level[-1], np.int64)
    for j in range(entry, stop_entry):
        for k in range(center.size):
            delta[k] = weight[j, k] - center[k]
        best = -np.inf
        start = bar[j] + 1
        for h in range(horizon.size):
            stop = min(bar[j] + horizon[h] + 1, n_bars)
            if start <= hint[h] < stop:
                node = hint[h] // FAN
                combine(first, value, shift, moving, weight[j], node * FAN, FAN, total, part)
                best = max(best, total[hint[h] - node * FAN])
            depth = 0
            if start < stop:
                up = top_level(stop - start, level.size - 2)
                begin = start >> (BITS * (up + 1))
                end = ((stop - 1) >> (BITS * (up + 1))) + 1
                depth = push(
                    level, high, low, reference, delta, up, begin, end, best, bound, stack_bound, stack_node, 0
                )
            while depth > 0:
                depth -= 1
                if stack_bound[depth] <= best:
                    continue
                up = stack_node[depth] % FAN
                node = stack_node[depth] >> BITS
                if up > 0:
                    begin = max(node << BITS, start >> (BITS * up))
                    end = min((node + 1) << BITS, ((stop - 1) >> (BITS * up)) + 1)
                    depth = push(
                        level, high, low, reference, delta, up - 1, begin, end,
                        best, bound, stack_bound, stack_node, depth,
                    )  # fmt: skip
                    continue
                combine(first, value, shift, moving, weight[j], node * FAN, FAN, total, part)
                for t in range(max(start - node * FAN, 0), min(stop - node * FAN, FAN)):
                    if total[t] > best:
                        best = total[t]
                        hint[h] = node * FAN + t
            out[j, h] = best
            start = max(start, stop)


@kernel
def group_end(bar: Int, start: int, span: int) -> int:
    """One past the last entry of the group that starts at `start`."""
    stop = start + 1
    while stop < bar.size and stop - start < GROUP and bar[stop] - bar[start] <= span:
        stop += 1
    return stop


@kernel
def middle(weight: Float, start: int, stop: int, out: Float) -> None:
    """The middle of the range of each leg's weights."""
    for k in range(weight.shape[1]):
        least = weight[start, k]
        most = weight[start, k]
        for j in range(start + 1, stop):
            least = min(least, weight[j, k])
            most = max(most, weight[j, k])
        out[k] = 0.5 * (least + most)


@kernel
def search_windows(field: Field, bar: Int, weight: Float, horizon: Int, out: Float) -> None:
    """Largest ``Σ_k max_lines (weight_k·Z + shift)`` over the bars ``bar + 1 … bar + horizon``, for nested horizons.

    bar     : (n_entries,) ascending
    weight  : (n_entries, n_legs) > 0, base per unit of gross notional
    horizon : (n_horizons,) ascending, bars; windows are cut at the last bar
    out     : (n_entries, n_horizons) written; hugely negative where no bar of the window can trigger

    Oracle: tests/oracles/cross.py.
    """
    first, value, shift, moving = field.first, field.value, field.shift, field.moving
    level, high, low, n_bars = field.level, field.high, field.low, field.n_bars
    longest = horizon[horizon.size - 1]
    reference, center = np.empty(level[-1]), np.empty(weight.shape[1])
    hint = np.full(horizon.size, -1)
    entry = 0
    while entry < bar.size:
        stop_entry = group_end(bar, entry, max(longest // SPREAD, LEAST_SPAN))
        middle(weight, entry, stop_entry, center)
        last = min(bar[stop_entry - 1] + longest + 1, n_bars)
        reference_maxima(first, value, shift, moving, level, center, bar[entry], last, reference)
        search_group(
            first, value, shift, moving, level, high, low, reference,
            center, n_bars, bar, weight, horizon, entry, stop_entry, hint, out,
        )  # fmt: skip
        entry = stop_entry
