"""The literal walk, for maintenance that does not separate into a part of the bar and a part of the entry.

Three rules need it (docs/semantics.md §3): a maintenance scale with deductions or on entry basis, and a rate that
slopes with size. Every entry looks at every bar of its window, once for all leverages and horizons.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.arrays import Bool, Float, Int, Int32
from backtest.engine.kernels.jit import kernel


class RiskBars(NamedTuple):
    """The bars at risk, in the margin's currency (quote; coin for inverse contracts)."""

    unit_value: Float  # (n_bars,) at the worst trigger price, NaN where missing
    scale: Float  # (n_bars,) multiplier g of the maintenance margin
    paid: Float  # (n_bars,) s·C


class EntryPositions(NamedTuple):
    """Entries; amounts per unit of notional unless said otherwise."""

    bar: Int  # (n,)
    until: Int  # (n,) last bar at risk
    unit_value: Float  # (n,) at entry
    paid: Float  # (n,) s·C at entry
    weight: Float  # (n,) leverage of the entry over that of the sweep
    notional: Float  # (n,) at entry; not read where the margin is fixed
    steep: Float  # (n,) what the size adds to the maintenance rate; per unit of leverage where the margin is fixed


class Tiers(NamedTuple):
    """Lines ``mmr·n − deduction``, of dated tables one set after the other."""

    mmr: Float
    deduction: Float
    first: Int  # (n_lines,) first bar it is in force
    stop: Int
    kept: Bool  # (n_lines, n) whether an entry is under it


class EntryRule(NamedTuple):
    """The rest of the inequality; see `backtest.engine.entry_rates`."""

    lean: float
    entry_basis: bool
    squared: bool  # the sloping part grows with the square of the unit value (inverse) rather than with it
    reserve: float
    ratio: float
    fee: float
    numerator: float
    held: float
    margin: float  # fixed margin, 0 where the notional is fixed


@kernel(fastmath=False)
def rate_at(bars: RiskBars, positions: EntryPositions, tiers: Tiers, rule: EntryRule, i: int, t: int) -> float:
    """The largest 1/L that dies at bar t, entry i: ``required margin rate · weight``."""
    grown = bars.unit_value[t] / positions.unit_value[i]
    based = 1.0 if rule.entry_basis else grown
    rest = rule.reserve * based / rule.ratio - rule.lean * (grown - 1.0) + rule.fee
    rest += (bars.paid[t] - positions.paid[i]) / positions.unit_value[i]
    g = bars.scale[t] / rule.ratio
    steep = positions.steep[i] * g * (grown * grown if rule.squared else grown)
    best = -np.inf
    for k in range(tiers.mmr.size):
        if t < tiers.first[k] or t >= tiers.stop[k] or not tiers.kept[k, i]:
            continue
        due = g * tiers.mmr[k] * based
        if rule.margin == 0.0:
            taken = (g * tiers.deduction[k] + rule.held) / positions.notional[i]
            rate = (due + steep + rest - taken) / rule.numerator
        else:
            held = rule.numerator + (rule.held + g * tiers.deduction[k]) / rule.margin
            rate = (due + rest) / held
            if steep > 0.0:  # the rate grows with leverage: the root of steep·L² + (due + rest)·L − held
                both = due + rest
                rate = (both + np.sqrt(both * both + 4.0 * steep * held)) / (2.0 * held)
        best = max(best, rate)
    return float(best * positions.weight[i])


@kernel(fastmath=False)
def walk_rates(
    bars: RiskBars,
    positions: EntryPositions,
    tiers: Tiers,
    rule: EntryRule,
    horizon: Int,
    threshold: Float,
    rate: Float,
    hit: Int32,
) -> None:
    """Largest rate within each horizon, and the first bar at which it reaches each threshold.

    horizon   : (n_horizons,) ascending, bars
    threshold : (m,) ascending
    rate      : (n_horizons, n) written
    hit       : (n, m) int32 written, bars from the entry; 0 where it never happens
    """
    for i in range(positions.bar.size):
        best = -np.inf
        reached = 0
        t = positions.bar[i]
        for h in range(horizon.size):
            stop = min(positions.bar[i] + horizon[h], positions.until[i], bars.unit_value.size - 1)
            while t < stop:
                t += 1
                if bars.unit_value[t] == bars.unit_value[t]:
                    best = max(best, rate_at(bars, positions, tiers, rule, i, t))
                    while reached < threshold.size and best >= threshold[reached]:
                        hit[i, reached] = t - positions.bar[i]
                        reached += 1
            rate[h, i] = best
