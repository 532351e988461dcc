"""Running maxima over nested horizons, counted against thresholds.

The window of an entry at bar ``i`` is the ``h`` bars ``i+1 … i+h``. Bars lie in tiles of `TILE`. The maximum over a
window longer than a tile is the maximum of three numbers, the tail of its first tile, the whole tiles between and the
head of its last tile, whatever the horizon. Shorter windows are doubled from one horizon to the next (``max over 2h =
max of two h-windows``). Either way one pass over the entries answers a horizon, and the values of a tile stay in the
nearest cache until they are counted.

Doubling for long windows too takes two passes over memory per horizon and was 2× slower. Indices are unsigned where
loops must become vector instructions: numba's test for negative ones prevents it, and a slice costs 20 ns. A finer
look-up table without the second comparison, read value by value, was no faster than the two gathers of `count_tile`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.arrays import Float, Int
from backtest.engine.kernels.jit import kernel

TILE = 512
"""Bars of a tile. Shorter ones pay more for what is done once per tile: 256 costs a sixth more."""
PART = 128
"""Values counted together: neighbours lie between few thresholds."""
FEW = 24
"""Up to so many thresholds between the least and greatest value of a part, comparing beats looking up."""
LOWEST = -np.finfo(np.float64).max
"""Stands for "no price here": finite, so that no arithmetic on it gives NaN, and below every threshold."""


class Windows(NamedTuple):
    """Window maxima of one horizon for every line of a rule, in three parts.

    The window that starts at bar f has the maximum of ``head[f]``, ``tail[f + reach]`` and the whole tiles between.
    """

    head: Float  # (n_lines, n_bars) short: maximum over the horizon; long: to the end of the tile
    tail: Float  # (n_lines, n_bars) short: the same array; long: from the start of the tile
    reach: int  # short: 0; long: horizon - 1
    whole: Float  # (n_lines, n_tiles) maxima of whole tiles
    between: Float  # (n_lines, n_tiles) maxima over ``reach // TILE - 1`` of them (see `widen`)


class EntryArrays(NamedTuple):
    """Positions opened, in the order of their bars."""

    bar: Int  # (n_entries,) ascending
    offset: Float  # (n_entries,) s·C_i, quote per base
    scale: Float  # (n_entries,) 1/p_i


class EntryRuns(NamedTuple):
    """Ranges of entries that are counted together: ``start[r] … stop[r] − 1`` go to row ``label[r]``."""

    start: Int
    stop: Int
    label: Int


class Levels(NamedTuple):
    """Ascending thresholds with a look-up on the leading bits of a float: no threshold lies below its cell's bin."""

    value: Float  # (n_levels + 1,) > 0, the last is +inf
    table: Int  # (n_cells,) number of thresholds ≤ the cell's lower edge
    base: int  # leading bits of the first cell
    shift: int  # bits dropped
    rounds: int  # most thresholds in one cell


def build_levels(thresholds: Float, mantissa_bits: int = 8) -> Levels:
    """Prepare ascending, positive thresholds for `count_windows`."""
    shift = 52 - mantissa_bits
    bits = thresholds.view(np.int64) >> shift
    base = int(bits[0]) - 1
    cells = np.arange(base, int(bits[-1]) + 2, dtype=np.int64)
    table = np.searchsorted(thresholds, (cells << shift).view(np.float64), side="right")
    rounds = int(np.diff(table, append=thresholds.size).max())
    return Levels(np.append(thresholds, np.inf), table.astype(np.int64), base, shift, rounds)


@kernel(fastmath=False)
def adverse_series(price: Float, paid: Float, rate: float, side: float, out: Float) -> None:
    """``Z_t = rate·P_t + side·C_t`` of docs/semantics.md §3, `LOWEST` where the bar has no trigger price.

    price : (n_bars,) the worst trigger price of each bar, NaN where missing
    paid  : (n_bars,) C, the funding paid per unit of base since the start of the chunk
    rate  : maintenance rate + close reserve − side (mark basis), −side (entry basis)
    out   : (n_bars,) written
    """
    for t in range(price.size):
        p = price[t]
        out[t] = rate * p + side * paid[t] if p == p else LOWEST


@kernel
def tile_maxima(series: Float, head: Float, tail: Float, whole: Float) -> None:
    """Maxima from each bar to the end of its tile, from the tile's start to each bar, and of whole tiles.

    series, head, tail : (n_bars,); whole : (ceil(n_bars / TILE),)
    """
    for tile in range(whole.size):
        start = tile * TILE
        stop = min(start + TILE, series.size)
        top = LOWEST
        for t in range(start, stop):
            top = max(top, series[t])
            tail[t] = top
        whole[tile] = top
        top = LOWEST
        for t in range(stop - 1, start - 1, -1):
            top = max(top, series[t])
            head[t] = top


@kernel
def widen(current: Float, scratch: Float, length: int, target: int) -> tuple[Float, Float]:
    """Maxima over `target` values from maxima over `length` ≤ `target`, by doubling.

    current : (n_lines, n) maxima over the `length` values from each on; spare : the same shape, overwritten.
    Returns (maxima over `target`, the other array); the last ``target − 1`` values are of shorter windows.
    """
    while length < target:
        grown = min(length, target - length)
        step = np.uint64(grown)
        for line in range(current.shape[0]):
            size = np.uint64(current.shape[1])
            keep = size - min(step, size)
            for t in range(keep):
                scratch[line, t] = max(current[line, t], current[line, t + step])
            for t in range(keep, size):
                scratch[line, t] = current[line, t]
        current, scratch = scratch, current
        length += grown
    return current, scratch


@kernel
def find_bin(bits: int, levels: Levels) -> int:
    """Number of thresholds ≤ the float with these bits (negative bits: a negative float, below them all)."""
    if bits < 0:
        return 0
    k = int(levels.table[min(max((bits >> levels.shift) - levels.base, 0), levels.table.size - 1)])
    x = np.int64(bits).view(np.float64)
    while levels.value[k] <= x:
        k += 1
    return k


@kernel
def count_tile(x: Float, bits: Int, cells: Int, n: int, levels: Levels, counts: Int, label: int) -> None:
    """Add the `n` values to a histogram: bin k holds ``value[k-1] ≤ x < value[k]``.

    x, bits, cells : (TILE,) the values, the same memory as int64 (floats ≥ 0 are ordered as their bits), scratch
    """
    row = np.uint64(label)
    last = levels.table.size - 1
    for begin in range(0, n, PART):
        end = min(begin + PART, n)
        start = np.uint64(begin)
        stop = np.uint64(end)
        low = bits[start]
        high = bits[start]
        for t in range(start, stop):
            low = min(low, bits[t])
            high = max(high, bits[t])
        least = find_bin(low, levels)
        greatest = find_bin(high, levels)
        if greatest - least <= FEW:
            left = end - begin
            for k in range(least, greatest):
                level = levels.value[k]
                above = 0
                for t in range(start, stop):
                    above += 1 if x[t] >= level else 0
                counts[row, k] += left - above
                left = above
            counts[row, greatest] += left
            continue
        base = levels.base
        shift = levels.shift
        rounds = levels.rounds
        for t in range(start, stop):
            cells[t] = min(max((bits[t] >> shift) - base, 0), last)
        for t in range(start, stop):
            k = levels.table[np.uint64(cells[t])]
            k += 1 if x[t] >= levels.value[np.uint64(k)] else 0
            for _ in range(1, rounds):
                k += 1 if x[t] >= levels.value[np.uint64(k)] else 0
            counts[row, np.uint64(k)] += 1


@kernel
def count_windows(
    windows: Windows, entries: EntryArrays, weight: Float, shift: Float, runs: EntryRuns, levels: Levels, counts: Int
) -> None:
    """Histogram of ``x_i = max_k weight_k·(max Z_k − offset_i)·scale_i + shift_k`` for one horizon, per label.

    weight, shift : (n_lines,)
    runs          : entries whose windows end inside the series
    counts        : (n_labels, n_levels + 1) added to

    Arrays are taken out of their tuples once: handing tuples to a function per tile cost a third more (reference
    counts). Oracle: tests/oracles/walk.py.
    """
    x = np.empty(TILE)
    bits = x.view(np.int64)
    cells = np.empty(TILE, np.int64)
    bar, offset, scale = entries.bar, entries.offset, entries.scale
    head, tail, reach = windows.head, windows.tail, windows.reach
    run_start, run_stop, run_label = runs.start, runs.stop, runs.label
    whole_tiles = reach // TILE
    for run in range(run_start.size):
        j = run_start[run]
        stop = run_stop[run]
        while j < stop:
            first = bar[j] + 1
            tile = first // TILE
            room = (tile + 1) * TILE - first  # windows that start in this tile
            n = min(room, stop - j)
            dense = bar[j + n - 1] - bar[j] == n - 1
            if not dense:
                n = tile_members(bar, j, stop, room)
            # Windows that start `edge` bars later, or more, reach into the next tile and hold one whole tile more.
            edge = room - reach % TILE
            for line in range(head.shape[0]):
                a = weight[line]
                b = shift[line]
                near = windows.between[line, tile + 1] if whole_tiles > 1 else LOWEST
                far = max(near, windows.whole[line, tile + whole_tiles]) if whole_tiles > 0 else LOWEST
                if dense:
                    cut = min(n, max(0, edge))
                    raise_tile(head, tail, offset, scale, x, line, first, reach, j, near, a, b, 0, cut)
                    raise_tile(head, tail, offset, scale, x, line, first, reach, j, far, a, b, cut, n)
                else:
                    for t in range(n):
                        f = bar[j + t] + 1
                        top = max(max(head[line, f], tail[line, f + reach]), near if f - first < edge else far)
                        rate = a * ((top - offset[j + t]) * scale[j + t]) + b
                        x[t] = rate if line == 0 else max(x[t], rate)
            count_tile(x, bits, cells, n, levels, counts, run_label[run])
            j += n


@kernel
def tile_members(bar: Int, j: int, stop: int, room: int) -> int:
    """How many entries from `j` on have windows that start in the tile of the first."""
    n = 1
    while n < TILE and j + n < stop and bar[j + n] < bar[j] + room:
        n += 1
    return n


@kernel
def raise_tile(
    head: Float, tail: Float, offset: Float, scale: Float, x: Float,
    line: int, first: int, reach: int, j: int, inner: float, weight: float, shift: float, start: int, stop: int,
) -> None:  # fmt: skip
    """``x = max(x, weight·(top − offset)·scale + shift)`` for ``x[start:stop]``, entries that follow each other.

    The first line writes, the others raise.
    """
    f = np.uint64(first)
    z = np.uint64(first + reach)
    e = np.uint64(j)
    if line == 0:
        for t in range(np.uint64(start), np.uint64(stop)):
            top = max(max(head[0, f + t], tail[0, z + t]), inner)
            x[t] = weight * ((top - offset[e + t]) * scale[e + t]) + shift
        return
    for t in range(np.uint64(start), np.uint64(stop)):
        top = max(max(head[line, f + t], tail[line, z + t]), inner)
        x[t] = max(x[t], weight * ((top - offset[e + t]) * scale[e + t]) + shift)


@kernel
def window_maxima(windows: Windows, line: int, bar: Int, out: Float) -> None:
    """The maximum of one line over the window after each bar.

    bar : (n_entries,) entries whose windows end inside the series; of the others anything comes out
    out : (n_entries,) written
    """
    head, tail, reach = windows.head, windows.tail, windows.reach
    whole_tiles = reach // TILE
    last = head.shape[1] - 1
    for i in range(bar.size):
        first = min(bar[i] + 1, last)
        end = min(first + reach, last)
        top = max(head[line, first], tail[line, end])
        tile = first // TILE
        inner = end // TILE - tile - 1  # whole tiles inside: whole_tiles or one less
        if whole_tiles > 1 and inner >= whole_tiles - 1:
            top = max(top, windows.between[line, tile + 1])
        if inner == whole_tiles and inner > 0:
            top = max(top, windows.whole[line, tile + whole_tiles])
        out[i] = top
