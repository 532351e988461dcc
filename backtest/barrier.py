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
    rate = maintenance.flat if table is None else float(table.maintenance(notional, notional)) / notional
    return rate + maintenance.close_reserve


def is_rejected(scenario: Scenario, leverage: float, fee: float) -> bool:
    """Whether the position could not have been opened (semantics.md §2)."""
    table = scenario.maintenance.table
    notional = notional_of(scenario, leverage)
    if table is not None and (leverage > table.max_leverage_at(notional) or notional > table.last_cap * (1 + TIE)):
        return True
    return (1 - TIE) / leverage - fee <= entry_maintenance(scenario.maintenance, notional)


@dataclass(frozen=True)
class Opened:
    """Positions of a scenario that could be opened, and the test they are put to."""

    scenario: Scenario
    leverage: dict[int, float]  # index into the sweep's leverages → leverage
    fee: float  # share of the notional taken from the margin at entry
    ratio: float  # maintenance is divided by it: 1, or the margin-call ratio
    price_ratio: tuple[float, float]  # bounds of P/p


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
    leverage = {int(j): float(leverages[j]) for j in np.flatnonzero(~rejected)}

    def barriers(ratio: float) -> tuple[Barrier, ...]:
        if not leverage:
            return ()
        opened = Opened(scenario, leverage, fee, ratio, price_ratio)
        return (_entry_barrier(opened),) if scenario.maintenance.basis == "entry" else _mark_barriers(opened)

    return Compiled(rejected, barriers(1.0), barriers(terms.margin_call_ratio))


def _entry_barrier(opened: Opened) -> Barrier:
    """Maintenance at entry value: one line for all leverages, the maintenance stands in the threshold."""
    scenario, s = opened.scenario, opened.scenario.sign
    threshold = [
        (1 - TIE) / leverage
        - opened.fee
        - entry_maintenance(scenario.maintenance, notional_of(scenario, leverage)) / opened.ratio
        for leverage in opened.leverage.values()
    ]
    # A margin call can hold from the start; kernels want thresholds > 0, so both sides are lifted.
    lift = 1.0 - min(threshold) if min(threshold) <= 0 else 0.0
    return Barrier(Lines((-s,), (1.0,), (s + lift,)), tuple(opened.leverage), tuple(x + lift for x in threshold))


def _mark_barriers(opened: Opened) -> tuple[Barrier, ...]:
    """Maintenance at the mark price: one barrier, or one per tier where size follows leverage and tiers stay."""
    table = opened.scenario.maintenance.table

    def kept_tier(j: int) -> int:
        if table is None or table.has_deductions:
            return 0
        return int(table.tier_of(notional_of(opened.scenario, opened.leverage[j])))

    parts = groupby(sorted(opened.leverage, key=kept_tier), key=kept_tier)
    return tuple(_mark_barrier(opened, list(members)) for _, members in parts)


def _mark_barrier(opened: Opened, members: list[int]) -> Barrier:
    """One barrier for leverages that share their tiers."""
    scenario, s, fee = opened.scenario, opened.scenario.sign, opened.fee
    notional = [notional_of(scenario, opened.leverage[j]) for j in members]
    reach = (min(notional) * opened.price_ratio[0], max(notional) * opened.price_ratio[1])
    mmr, deduction = tiers_in_force(scenario.maintenance, notional[0], reach)
    rate = (mmr + scenario.maintenance.close_reserve) / opened.ratio - s
    deduction = deduction / opened.ratio
    inverse = np.array([1.0 / opened.leverage[j] for j in members])
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
    lines = Lines(tuple(rate.tolist()), tuple(weight.tolist()), tuple(shift.tolist()))
    return Barrier(lines, tuple(members), tuple(threshold.tolist()))
