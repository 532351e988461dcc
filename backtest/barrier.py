"""A static margin rule compiles to adverse series and thresholds (semantics.md §3).

Linear contract. Per unit of the entry price, a position of leverage L is liquidated before its horizon if

    (1 − 1e-9)/L ≤ max_k (max Z_k − s·C_i)/p + s + fee − D_k/N,      Z_k = (mmr_k + close_reserve − s)·P + s·C

on mark basis, one line k for each tier whose formula can be in force. What does not depend on the bar moves to the
threshold; what depends on the tier stays as ``weight·y + shift`` beside its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from backtest.sweep import Maintenance, Scenario

Float = NDArray[np.float64]
TIE = 1e-9
"""Share of the margin within which equity counts as having reached the maintenance margin (semantics.md §2)."""


@dataclass(frozen=True)
class Lines:
    """Adverse series ``Z_k = rate_k·P + s·C`` and what makes a required margin rate of their maxima.

    ``x = max_k weight_k·((max Z_k − s·C_i)/p_i) + shift_k``
    """

    rate: tuple[float, ...]
    weight: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True)
class Barrier:
    """Positions of leverage ``leverage[j]`` cross at the first bar where ``x ≥ threshold[j]``."""

    lines: Lines
    leverage: tuple[int, ...]  # indices into the sweep's leverages
    threshold: tuple[float, ...]  # > 0


@dataclass(frozen=True)
class Compiled:
    """A scenario, ready for the kernels.

    Attributes
    ----------
    rejected : (n_leverages,) bool
        Positions that could not have been opened.
    liquidation, margin_call : tuple of Barrier
        Together they hold each leverage that is not rejected once.
    """

    rejected: NDArray[np.bool_]
    liquidation: tuple[Barrier, ...]
    margin_call: tuple[Barrier, ...]


@dataclass(frozen=True)
class MarginTerms:
    """What holds for every scenario of a run."""

    fees_from_margin: bool = True
    margin_call_ratio: float = 0.8


def tiers_in_force(maintenance: Maintenance, notional: float, reach: tuple[float, float]) -> tuple[Float, Float]:
    """Maintenance rates and deductions of the tiers that can be in force between ``reach[0]`` and ``reach[1]``.

    A line that another one covers at both ends of the range covers it in between: dropping it is exact.
    """
    if maintenance.table is None:
        return np.array([maintenance.flat]), np.zeros(1)
    mmr, deduction = maintenance.table.lines(notional)
    low, high = (mmr * n - deduction for n in reach)
    kept: list[int] = []
    for k in range(mmr.size):
        if any(low[j] >= low[k] and high[j] >= high[k] for j in kept):
            continue
        kept = [j for j in kept if not (low[k] >= low[j] and high[k] >= high[j])] + [k]
    return mmr[kept], deduction[kept]


def notional_of(scenario: Scenario, leverage: float) -> float:
    """Entry notional, quote; 1 where no size is given (flat rates do not depend on it)."""
    if scenario.size is None:
        return 1.0
    return scenario.size.notional if scenario.size.notional is not None else (scenario.size.margin or 0) * leverage


def entry_maintenance(maintenance: Maintenance, notional: float) -> float:
    """Maintenance margin at the entry price per unit of notional, the close reserve included."""
    table = maintenance.table
    rate = maintenance.flat if table is None else table.maintenance(notional, notional) / notional
    return rate + maintenance.close_reserve


def is_rejected(scenario: Scenario, leverage: float, fee: float) -> bool:
    """Whether the position could not have been opened (semantics.md §2)."""
    table = scenario.maintenance.table
    notional = notional_of(scenario, leverage)
    if table is not None and (
        leverage > table.max_leverage_at(notional) or notional > table.last_cap * (1 + TIE)
    ):
        return True
    return (1 - TIE) / leverage - fee <= entry_maintenance(scenario.maintenance, notional)


def compile_scenario(
    scenario: Scenario, leverages: Float, terms: MarginTerms, price_ratio: tuple[float, float]
) -> Compiled:
    """Lines and thresholds of a scenario.

    Parameters
    ----------
    leverages : (n_leverages,)
    price_ratio : (float, float)
        Bounds of P/p over the bars at risk and the entries: tiers out of reach are left out.
    """
    fee = scenario.open_fee if terms.fees_from_margin else 0.0
    rejected = np.array([is_rejected(scenario, float(x), fee) for x in leverages], dtype=np.bool_)
    open_ones = [int(j) for j in np.flatnonzero(~rejected)]
    build = _entry_barriers if scenario.maintenance.basis == "entry" else _mark_barriers
    made = [
        tuple(build(scenario, leverages, open_ones, fee, ratio, price_ratio)) if open_ones else ()
        for ratio in (1.0, terms.margin_call_ratio)
    ]
    return Compiled(rejected, *made)


def _entry_barriers(
    scenario: Scenario,
    leverages: Float,
    open_ones: list[int],
    fee: float,
    ratio: float,
    price_ratio: tuple[float, float],
) -> list[Barrier]:
    """Maintenance at entry value: one line for all leverages, the maintenance stands in the threshold."""
    del price_ratio  # no tier changes while the position is open
    s = scenario.sign
    threshold = [
        (1 - TIE) / leverages[j]
        - fee
        - entry_maintenance(scenario.maintenance, notional_of(scenario, leverages[j])) / ratio
        for j in open_ones
    ]
    # A margin call can hold from the start; kernels want thresholds > 0, so both sides are lifted.
    lift = max(0.0, 1.0 - min(threshold)) if min(threshold) <= 0 else 0.0
    lines = Lines((-s,), (1.0,), (s + lift,))
    return [Barrier(lines, tuple(open_ones), tuple(float(x + lift) for x in threshold))]


def _mark_barriers(
    scenario: Scenario,
    leverages: Float,
    open_ones: list[int],
    fee: float,
    ratio: float,
    price_ratio: tuple[float, float],
) -> list[Barrier]:
    """Maintenance at the mark price: one barrier, or one per tier where size follows leverage and tiers stay."""
    table = scenario.maintenance.table

    def kept_tier(j: int) -> int:
        if table is None or table.has_deductions:
            return 0
        return table.tier_of(notional_of(scenario, leverages[j]))

    return [
        _mark_barrier(scenario, leverages, list(part), fee, ratio, price_ratio)
        for _, part in groupby(sorted(open_ones, key=kept_tier), key=kept_tier)
    ]


def _mark_barrier(
    scenario: Scenario,
    leverages: Float,
    members: list[int],
    fee: float,
    ratio: float,
    price_ratio: tuple[float, float],
) -> Barrier:
    s = scenario.sign
    notional = [notional_of(scenario, leverages[j]) for j in members]
    reach = (min(notional) * price_ratio[0], max(notional) * price_ratio[1])
    mmr, deduction = tiers_in_force(scenario.maintenance, notional[0], reach)
    rate = tuple(float(m) for m in (mmr + scenario.maintenance.close_reserve) / ratio - s)
    deduction = deduction / ratio
    inverse = np.array([1.0 / leverages[j] for j in members])
    margin = scenario.size.margin if scenario.size else None
    if margin is None:
        weight, shift = np.ones(mmr.size), s - deduction / notional[0]
        threshold = (1 - TIE) * inverse - fee
    elif mmr.size == 1:
        weight, shift = np.ones(1), np.array([s])
        threshold = (1 - TIE + deduction[0] / margin) * inverse - fee
    else:
        # N = margin·L, so D/N shrinks with leverage: divide by what stands before 1/L.
        weight = 1.0 / (1 - TIE + deduction / margin)
        shift = (s + fee) * weight
        threshold = inverse
    lines = Lines(rate, tuple(float(w) for w in weight), tuple(float(b) for b in shift))
    return Barrier(lines, tuple(members), tuple(float(x) for x in threshold))
