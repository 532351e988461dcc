"""A static margin rule compiles to adverse series and thresholds (docs/semantics.md §3).

Linear contract. Per unit of the entry price, a position of leverage L is liquidated before its horizon if

    (1 − 1e-9)/L ≤ max_k (max Z_k − s·C_i)/p + s + fee − D_k/N,      Z_k = (mmr_k + close_reserve − s)·P + s·C

on mark basis, one line k for each tier whose formula can be in force. What does not depend on the bar moves to the
threshold; what depends on the tier stays as ``weight·y + shift`` beside its line.

Inverse contracts are the same in u = 1/P and coin, with −s where s stands beside a price (`Scenario.lean`); funding
keeps its sign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

import numpy as np

from backtest.arrays import Bool, Float
from backtest.config.scenarios import Maintenance, Scenario
from backtest.margin.tiers import TierTable

TIE = 1e-9
"""Share of the margin within which equity counts as having reached the maintenance margin (docs/semantics.md §2)."""


@dataclass(frozen=True)
class TierLines:
    """Adverse series ``Z_k = rate_k·P + s·C`` and what makes a required margin rate of their maxima.

    ``x = max_k weight_k·((max Z_k − s·C_i)/p_i) + shift_k``. A line of a dated table is there only while the table is
    in force: from bar ``first_k`` to before bar ``stop_k`` of the chunk.
    """

    rate: tuple[float, ...]
    weight: tuple[float, ...]
    shift: tuple[float, ...]
    first: tuple[int, ...]
    stop: tuple[int, ...]


@dataclass(frozen=True)
class Period:
    """Bars ``first … stop − 1`` of a chunk, and the tier table in force (None: a flat rate)."""

    table: TierTable | None
    first: int
    stop: int


@dataclass(frozen=True)
class Barrier:
    """Positions of leverage ``leverage[j]`` cross at the first bar where ``x ≥ threshold[j]``."""

    lines: TierLines
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

    rejected: Bool
    liquidation: tuple[Barrier, ...]
    margin_call: tuple[Barrier, ...]


@dataclass(frozen=True)
class MarginTerms:
    """What holds for every scenario of a run; the last three move what is left of a position, not whether it dies."""

    fees_from_margin: bool = True
    margin_call_ratio: float = 0.8
    liquidation_slippage: float = 0.0
    liquidation_fee: float = 0.0
    surplus: Literal["trader", "fund"] = "trader"


def tiers_in_force(
    maintenance: Maintenance, table: TierTable | None, notional: float, reach: tuple[float, float]
) -> tuple[Float, Float]:
    """Maintenance rates and deductions of the tiers that can be in force between ``reach[0]`` and ``reach[1]``.

    A line that another one covers at both ends of the range covers it in between: dropping it is exact.
    """
    if table is None:
        return np.array([maintenance.flat]), np.zeros(1)
    mmr, deduction = table.lines(notional)
    low, high = (mmr * n - deduction for n in reach)
    kept: list[int] = []
    for k in range(mmr.size):
        if any(low[j] >= low[k] and high[j] >= high[k] for j in kept):
            continue
        kept = [j for j in kept if not (low[k] >= low[j] and high[k] >= high[j])] + [k]
    return mmr[kept], deduction[kept]


def entry_rate(maintenance: Maintenance, table: TierTable | None, notional: Float) -> Float:
    """(n,) maintenance margin at the entry price per unit of notional, without the close reserve."""
    if table is None:
        return np.full(notional.shape, maintenance.flat)
    return table.maintenance(notional, notional) / notional


def entry_maintenance(maintenance: Maintenance, table: TierTable | None, notional: float) -> float:
    """Maintenance margin at the entry price per unit of notional, the close reserve included."""
    return float(entry_rate(maintenance, table, np.array([notional]))[0]) + maintenance.close_reserve


def exceeds_limits(table: TierTable, leverage: Float, notional: Float, slack: float = 0.0) -> Bool:
    """Leverage above the maximum of the tier that holds the notional, or notional above the last cap.

    slack : relative; `TIE` where leverages are products (weights, own leverages of trades), which rounding can raise
    """
    too_large: Bool = notional > table.last_cap * (1 + TIE)
    return too_large | (leverage > table.max_leverage_at(notional) * (1 + slack))


def rejected_positions(
    scenario: Scenario, table: TierTable | None, leverage: Float, notional: Float, fee: float, slack: float = 0.0
) -> Bool:
    """(n,) positions that could not have been opened: the limits of their tier, or ``E − MM ≤ 1e-9·M`` at entry.

    This is the rejection rule of docs/semantics.md §2 per unit of notional. `count_portfolio` sums it over legs;
    `entry_rates` solves it for leverage, because there one inequality answers every leverage.

    Parameters
    ----------
    table : TierTable, optional
        In force at the entry bar; None: a flat rate.
    leverage, notional : (n,) float64
    fee : float
        Share of the notional that is taken from the margin at entry.
    slack : float
        As in `exceeds_limits`.
    """
    terms, rule = margin_balance(scenario, 1.0), scenario.maintenance
    rate = entry_rate(rule, table, notional) + rule.close_reserve
    out: Bool = terms.numerator / leverage + terms.held / notional - fee <= rate
    return out if table is None else out | exceeds_limits(table, leverage, notional, slack)


@dataclass(frozen=True)
class Balance:
    """What stands against maintenance in ``numerator/L + held/N ≤ x + reserve``, x the required margin rate.

    Under a posted fee to close of rate c (Bybit UTA) the margin call keeps a rest of it, κ = 1/ratio − 1
    (docs/semantics.md §5); extra margin then moves the bankruptcy price and the fee with it, and counts as ``A/(1 −
    lean·c)``.
    """

    numerator: float
    held: float  # extra wallet balance, in the margin's currency
    reserve: float


def margin_balance(scenario: Scenario, ratio: float) -> Balance:
    """The terms of a scenario, for liquidation (ratio 1) or the margin call."""
    c, kappa = scenario.maintenance.posted_fee, 1 / ratio - 1
    held = scenario.counted_extra if c else scenario.extra * (1 - TIE)
    return Balance(1 - TIE + scenario.lean * c * kappa, held, c * kappa)


@dataclass(frozen=True)
class Opened:
    """Positions of a scenario that could be opened, and the test they are put to."""

    scenario: Scenario
    leverage: dict[int, float]  # by index into the sweep's leverages
    notional: dict[int, float]  # at entry, likewise
    fee: float  # share of the notional taken from the margin at entry
    ratio: float  # maintenance is divided by it: 1, or the margin-call ratio
    price_ratio: tuple[float, float]  # bounds of P/p
    periods: tuple[Period, ...]  # from the entries' own table on

    @cached_property
    def terms(self) -> Balance:
        """What stands against maintenance."""
        return margin_balance(self.scenario, self.ratio)

    def threshold(self, j: int) -> float:
        """What the required margin rate of one leverage must stay below, deductions aside."""
        terms = self.terms
        held = terms.held / self.notional[j] if terms.held else 0.0
        return terms.numerator / self.leverage[j] + held - self.fee - terms.reserve


def compile_scenario(
    scenario: Scenario,
    leverages: Float,
    terms: MarginTerms,
    price_ratio: tuple[float, float],
    periods: tuple[Period, ...],
) -> Compiled:
    """Lines and thresholds of a scenario.

    Parameters
    ----------
    leverages : (n_leverages,)
    price_ratio : (float, float)
        Bounds of P/p over the bars at risk and the entries: tiers out of reach are left out.
    periods : tuple of Period
        The tables in force, in order; the first is that of every entry.
    """
    fee = scenario.open_fee if terms.fees_from_margin else 0.0
    # Without a size it is 1, and flat rates do not depend on it.
    notional = np.ones(leverages.size) if scenario.size is None else scenario.size.entry_notional(leverages)
    rejected = rejected_positions(scenario, periods[0].table, leverages, notional, fee)
    leverage, sizes = ({int(j): float(x[j]) for j in np.flatnonzero(~rejected)} for x in (leverages, notional))

    def barriers(ratio: float) -> tuple[Barrier, ...]:
        opened = Opened(scenario, leverage, sizes, fee, ratio, price_ratio, periods)
        return _entry_barriers(opened) if scenario.maintenance.basis == "entry" else _mark_barriers(opened)

    return Compiled(rejected, barriers(1.0), barriers(terms.margin_call_ratio))


def _entry_barriers(opened: Opened) -> tuple[Barrier, ...]:
    """Maintenance at entry value: one line per table for leverages of one maintenance; mostly all of them."""
    scenario, s = opened.scenario, opened.scenario.lean

    def maintenance(j: int) -> tuple[float, ...]:
        tables = (period.table for period in opened.periods)
        return tuple(entry_maintenance(scenario.maintenance, t, opened.notional[j]) / opened.ratio for t in tables)

    if len(opened.periods) == 1 and opened.leverage:  # the maintenance of each leverage moves to its threshold
        lines = TierLines((-s,), (1.0,), (s,), *_spans(opened.periods, [1]))
        return (_lifted(lines, {j: opened.threshold(j) - maintenance(j)[0] for j in opened.leverage}),)
    out = []
    for rates, members in groupby(sorted(opened.leverage, key=maintenance), key=maintenance):
        same = tuple(members)
        shift = tuple(s + rate for rate in rates)
        lines = TierLines((-s,) * len(rates), (1.0,) * len(rates), shift, *_spans(opened.periods, [1] * len(rates)))
        out.append(_lifted(lines, {j: opened.threshold(j) for j in same}))
    return tuple(out)


def _lifted(lines: TierLines, threshold: dict[int, float]) -> Barrier:
    """A barrier with thresholds > 0, as kernels want them; a margin call can hold from the start."""
    least = min(threshold.values())
    if least <= 0:
        lines = replace(lines, shift=tuple(b + (1.0 - least) for b in lines.shift))
        threshold = {j: x + (1.0 - least) for j, x in threshold.items()}
    return Barrier(lines, tuple(threshold), tuple(threshold.values()))


def _spans(periods: tuple[Period, ...], lines: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First bars and stops of the lines, so many for each period."""
    first = [period.first for period, n in zip(periods, lines, strict=True) for _ in range(n)]
    stop = [period.stop for period, n in zip(periods, lines, strict=True) for _ in range(n)]
    return tuple(first), tuple(stop)


def _mark_barriers(opened: Opened) -> tuple[Barrier, ...]:
    """Maintenance at the mark price: one barrier, or one per tier where size follows leverage and tiers stay."""

    if all(period.table is None or period.table.has_deductions for period in opened.periods):
        return (_mark_barrier(opened, list(opened.leverage)),) if opened.leverage else ()

    def kept_tiers(j: int) -> tuple[int, ...]:
        tables = (period.table for period in opened.periods)
        return tuple(0 if t is None else int(t.tier_index(opened.notional[j])) for t in tables)

    parts = groupby(sorted(opened.leverage, key=kept_tiers), key=kept_tiers)
    return tuple(_mark_barrier(opened, list(members)) for _, members in parts)


def _mark_barrier(opened: Opened, members: list[int]) -> Barrier:
    """One barrier for leverages that share their tiers."""
    scenario, s = opened.scenario, opened.scenario.lean
    notional = [opened.notional[j] for j in members]
    reach = (min(notional) * opened.price_ratio[0], max(notional) * opened.price_ratio[1])
    tiers = [tiers_in_force(scenario.maintenance, period.table, notional[0], reach) for period in opened.periods]
    mmr = np.concatenate([rates for rates, _ in tiers])
    deduction = np.concatenate([deductions for _, deductions in tiers]) / opened.ratio
    rate = (mmr + scenario.maintenance.close_reserve) / opened.ratio - s
    threshold = np.array([opened.threshold(j) for j in members])
    margin = scenario.size.margin if scenario.size else None
    weight, shift = np.ones(mmr.size), np.full(mmr.size, s)
    if margin is None:
        shift -= deduction / notional[0]
    elif mmr.size == 1:
        threshold += [deduction[0] / margin / opened.leverage[j] for j in members]
    else:
        # N = margin·L, so D/N shrinks with leverage: divide by what stands before 1/L.
        terms = opened.terms
        weight = 1.0 / (terms.numerator + (terms.held + deduction) / margin)
        shift = (s + opened.fee + terms.reserve) * weight
        threshold = np.array([1.0 / opened.leverage[j] for j in members])
    spans = _spans(opened.periods, [len(rates) for rates, _ in tiers])
    lines = TierLines(tuple(rate.tolist()), tuple(weight.tolist()), tuple(shift.tolist()), *spans)
    return _lifted(lines, dict(zip(members, threshold.tolist(), strict=True)))
