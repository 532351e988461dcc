"""First crossing of an adverse series over ordered thresholds: when each entry × leverage was liquidated.

Thresholds ascend, so their crossings do too: each search goes on where the one before ended. The test is the very
expression that `windows.required_margin` counts with, so that events add up to the counts to the last one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.arrays import Float, Int, Int32
from backtest.engine.kernels.jit import kernel
from backtest.engine.kernels.window_max import LOWEST, EntryArrays

FAN = 16
"""Children of a node of the block-maximum tree."""
STEPS = 8
"""Records that are tried one by one before the search leaps."""


class Tree(NamedTuple):
    """Block maxima over 1, FAN, FAN², … bars, one level after the other."""

    value: Float  # (n_nodes,)
    level: Int  # (n_levels + 1,) where each level starts


def build_tree(series: Float) -> Tree:
    """Block-maximum tree of one adverse series."""
    levels = [series]
    while levels[-1].size > FAN:
        below = levels[-1]
        padded = np.full(-(-below.size // FAN) * FAN, -np.inf)
        padded[: below.size] = below
        levels.append(padded.reshape(-1, FAN).max(axis=1))
    starts = np.cumsum([0, *(level.size for level in levels)])
    return Tree(np.concatenate(levels), starts.astype(np.int64))


@kernel
def leap(value: Float, at: int, offset: float, scale: float, weight: float, shift: float, threshold: float) -> int:
    """The last place before `at` that reaches the threshold, where `at` does not; values fall from place to place."""
    short = at
    step = 1
    while weight * ((value[at] - offset) * scale) + shift < threshold:
        short = at
        at = max(at - step, 0)
        step *= 2
    while short - at > 1:
        middle = (short + at) // 2
        if weight * ((value[middle] - offset) * scale) + shift < threshold:
            short = middle
        else:
            at = middle
    return at


@kernel
def crossings_by_stack(
    series: Float,
    entries: EntryArrays,
    weight: float,
    shift: float,
    threshold: Float,
    column: Int,
    limit: int,
    out: Int32,
) -> None:
    """Bars from entry to the first ``weight·(Z − offset)·scale + shift ≥ threshold``, for entries at most bars.

    series    : (n_bars,) one line
    threshold : (m,) ascending
    column    : (m,) where in `out` the answer to each threshold belongs
    limit     : longest window, bars
    out       : (n_entries, ·) int32, 0 where it never happens; keeps the earlier of what it holds and what is found

    Going back in time, a stack holds the records of the bars ahead: each larger than all between it and the entry.
    """
    stack = np.empty(series.size + 1, np.int64)
    value = np.empty(series.size + 1)
    value[0] = np.inf  # below the last record: whatever is asked for, it is too far away
    stack[0] = series.size + limit
    depth = 0
    t = series.size
    for j in range(entries.bar.size - 1, -1, -1):
        bar = entries.bar[j]
        while t > bar + 1:
            t -= 1
            z = series[t]
            while depth > 0 and value[depth] <= z:
                depth -= 1
            depth += 1
            stack[depth] = t
            value[depth] = z
        at = depth
        offset = entries.offset[j]
        scale = entries.scale[j]
        x = weight * ((value[at] - offset) * scale) + shift
        for k in range(threshold.size):
            tries = STEPS
            while x < threshold[k] and tries > 0:
                at -= 1
                tries -= 1
                x = weight * ((value[at] - offset) * scale) + shift
            if x < threshold[k]:
                at = leap(value, at, offset, scale, weight, shift, threshold[k])
                x = weight * ((value[at] - offset) * scale) + shift
            bars = stack[at] - bar
            if bars > limit:
                break
            known = out[j, column[k]]
            if known == 0 or bars < known:
                out[j, column[k]] = bars


@kernel
def first_in_tree(
    tree: Tree, start: int, stop: int, offset: float, scale: float, weight: float, shift: float, threshold: float
) -> int:
    """First bar in ``start … stop − 1`` that reaches the threshold, or `stop`."""
    level = 0
    span = 1
    node = start
    top = tree.level.size - 2
    while node * span < stop:
        x = weight * ((tree.value[tree.level[level] + node] - offset) * scale) + shift
        if x >= threshold:
            if level == 0:
                return node
            level -= 1
            span //= FAN
            node *= FAN
            continue
        node += 1
        if level < top and node % FAN == 0:
            level += 1
            span *= FAN
            node //= FAN
    return stop


@kernel
def crossings_by_tree(
    tree: Tree, entries: EntryArrays, weight: float, shift: float, threshold: Float, column: Int, limit: int, out: Int32
) -> None:
    """As `crossings_by_stack`, for few entries: each search descends the tree from its own start."""
    n_bars = tree.level[1]
    for j in range(entries.bar.size):
        bar = entries.bar[j]
        stop = min(bar + limit + 1, n_bars)
        at = bar + 1
        for k in range(threshold.size):
            at = first_in_tree(tree, at, stop, entries.offset[j], entries.scale[j], weight, shift, threshold[k])
            if at == stop:
                break
            known = out[j, column[k]]
            if known == 0 or at - bar < known:
                out[j, column[k]] = at - bar


@kernel
def largest_in_tree(tree: Tree, start: Int, stop: Int, out: Float) -> None:
    """Maximum over bars ``start[i] … stop[i] − 1``; `LOWEST` where there are none.

    start, stop : (n,); out : (n,) written
    """
    top = tree.level.size - 2
    for i in range(start.size):
        best = LOWEST
        t = start[i]
        while t < stop[i]:
            level = 0
            span = 1
            while level < top and t % (span * FAN) == 0 and t + span * FAN <= stop[i]:
                span *= FAN
                level += 1
            best = max(best, tree.value[tree.level[level] + t // span])
            t += span
        out[i] = best
