"""Scenarios whose positions differ by entry: own leverage, own notional in coin, maintenance that moves with time.

The inequality of docs/semantics.md §3, solved for leverage. A position of weight w (its leverage is w·L) dies where

    1/L ≤ r_i = w_i · max_k (max Z_k − offset_k,i) · scale_k,i

and could not be opened where ``1/L ≤ floor_i``: the same inequality at the entry price, and the limits of its tier.
Both grow with leverage, so the positions that are dead or rejected are those with ``1/L ≤ max(r_i, floor_i)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from backtest.arrays import Bool, Float
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import ChunkSeries
from backtest.engine.kernels.bar_loop import EntryPositions, EntryRule, RiskBars, Tiers
from backtest.engine.thresholds import (
    TIE,
    MarginTerms,
    Period,
    exceeds_limits,
    margin_balance,
    tiers_in_force,
)
from backtest.margin.tiers import TierTable

LEVERAGE_SLACK = TIE
"""An entry's own leverage is a product; it may exceed a tier's maximum by its rounding."""


@dataclass(frozen=True)
class RateLines:
    """Adverse series of a tier each, and what makes rates of their maxima.

    Attributes
    ----------
    adverse : (n_lines, n_bars) float64
        NaN where the line is not in force or the bar has no price.
    offset, scale : (n_lines, n_entries) float64
        `scale` is 0 where an entry is not under the line.
    """

    adverse: Float
    offset: Float
    scale: Float


@dataclass(frozen=True)
class Walk:
    """Arguments of the literal walk, for what has no adverse series."""

    bars: RiskBars
    positions: EntryPositions
    tiers: Tiers
    rule: EntryRule


@dataclass(frozen=True)
class RatePart:
    """Leverages that one set of lines answers.

    Attributes
    ----------
    leverage : tuple of int
        Indices into the sweep's leverages.
    floor : (n_entries,) float64
        Leverages of 1/floor and more are rejected.
    liquidation, margin_call : RateLines or Walk
    """

    leverage: tuple[int, ...]
    floor: Float
    liquidation: RateLines | Walk
    margin_call: RateLines | Walk


@dataclass(frozen=True)
class TierLine:
    """One tier of one table: ``mmr·n − deduction`` from bar `first` to before `stop`, for the entries `kept`."""

    mmr: float
    deduction: float
    first: int
    stop: int
    kept: Bool | None  # (n_entries,); None: all


@dataclass(frozen=True)
class RateTest:
    """One scenario over the entries of a chunk.

    Attributes
    ----------
    fee : float
        Share of the notional taken from the margin at entry.
    notional : (n_entries,) float64
        At entry; where the margin is fixed, at the leverage that is asked about.
    margin : float
        The fixed margin, 0 where the notional is fixed.
    """

    scenario: Scenario
    series: ChunkSeries
    fee: float
    notional: Float
    margin: float

    @property
    def steep(self) -> Float:
        """What the size adds to the maintenance rate, by the slope of the rule; with a fixed margin per leverage."""
        unit_value = self.series.unit_value
        coins = np.ones(unit_value.size) if self.scenario.inverse else 1 / unit_value
        return np.asarray(self.scenario.maintenance.slope * (self.margin or self.notional) * coins)


def compile_rates(
    scenario: Scenario, leverages: Float, terms: MarginTerms, series: ChunkSeries, periods: tuple[Period, ...]
) -> list[RatePart]:
    """Compile a scenario for the entries of a chunk, all of which are under the table of ``periods[0]``.

    With a fixed margin and tiers that stay as they were at entry, each leverage has its own tiers.
    """
    fee = scenario.open_fee if terms.fees_from_margin else 0.0
    margin = (scenario.size.margin or 0.0) if scenario.size else 0.0
    n = series.unit_value.size
    if not margin:
        fixed = 1.0 if scenario.size is None else scenario.size.notional or 0.0
        notional = scenario.face * series.unit_value if scenario.face is not None else np.full(n, fixed)
        test = RateTest(scenario, series, fee, notional, 0.0)
        return [_part(test, tuple(range(leverages.size)), leverages, terms, periods)]
    out = []
    for members in _of_one_tier(scenario, leverages, margin, series, periods):
        notional = margin * leverages[members[-1]] * series.weight
        out.append(_part(RateTest(scenario, series, fee, notional, margin), members, leverages, terms, periods))
    return out


def _of_one_tier(
    scenario: Scenario, leverages: Float, margin: float, series: ChunkSeries, periods: tuple[Period, ...]
) -> list[tuple[int, ...]]:
    """Leverages that share their lines and the form of their limits."""
    order = np.argsort(leverages, kind="stable").tolist()
    own = periods[0].table
    if own is None:
        return [tuple(order)]
    alone = _most_leverage(own, margin) is None
    if not alone and own.has_deductions:
        return [tuple(order)]
    if alone or (series.weight != 1.0).any():
        return [(j,) for j in order]

    def tiers(j: int) -> tuple[int, ...]:
        return tuple(int(p.table.tier_index(margin * leverages[j])) if p.table else 0 for p in periods)

    return [tuple(members) for _, members in groupby(order, key=tiers)]


def _part(
    test: RateTest, members: tuple[int, ...], leverages: Float, terms: MarginTerms, periods: tuple[Period, ...]
) -> RatePart:
    lines = rate_lines(test, leverages[list(members)], periods)
    floor = np.maximum(_opening(test, lines), _limits(test, leverages[list(members)], periods[0].table))
    compiled = [compile_lines(test, lines, ratio) for ratio in (1.0, terms.margin_call_ratio)]
    return RatePart(members, floor, compiled[0], compiled[1])


def rate_lines(test: RateTest, leverages: Float, periods: tuple[Period, ...]) -> list[TierLine]:
    """The tiers that can be in force, of every table in turn."""
    scenario, series = test.scenario, test.series
    reach = _bounds(series.adverse_price)
    notional = test.notional
    if test.margin:
        notional = test.margin * np.outer(leverages[[0, -1]], series.weight)
    bounds = _bounds(notional)
    if scenario.maintenance.basis == "mark":
        low, high = _bounds(notional / series.unit_value)
        bounds = (min(bounds[0], low * reach[0]), max(bounds[1], high * reach[1]))
    out = []
    for period in periods:
        table, first, stop = period.table, period.first, period.stop
        if table is None or table.has_deductions:
            for mmr, deduction in zip(*tiers_in_force(scenario.maintenance, table, 0.0, bounds), strict=True):
                out.append(TierLine(float(mmr), float(deduction), first, stop, None))
            continue
        tier = table.tier_index(np.where(np.isnan(test.notional), 0.0, test.notional))
        out += [TierLine(float(table.mmr[k]), 0.0, first, stop, tier == k) for k in np.unique(tier)]
    return out


def _bounds(values: Float) -> tuple[float, float]:
    """Least and greatest known value."""
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def is_separable(scenario: Scenario, scaled: bool, lines: list[TierLine]) -> bool:
    """Whether maintenance falls into a part of the bar and a part of the entry (docs/semantics.md §3)."""
    if scenario.maintenance.slope:
        return scenario.face is not None and not scaled
    return not scaled or (scenario.maintenance.basis == "mark" and all(line.deduction == 0 for line in lines))


def compile_lines(test: RateTest, lines: list[TierLine], ratio: float) -> RateLines | Walk:
    """Adverse series where there are any; maintenance is divided by `ratio`."""
    scenario, series = test.scenario, test.series
    if scenario.maintenance.spot is not None:
        return _loan(test, ratio)
    if not is_separable(scenario, series.scale is not None, lines):
        return _walk(test, lines, ratio)
    balance, reserve = margin_balance(scenario, ratio), scenario.maintenance.close_reserve
    on_mark = scenario.maintenance.basis == "mark"
    adverse = np.empty((len(lines), series.adverse_price.size))
    offset, scale = (np.empty((len(lines), series.unit_value.size)) for _ in range(2))
    for k, line in enumerate(lines):
        due = line.mmr * (1.0 if series.scale is None else series.scale) + reserve
        rate = (due / ratio if on_mark else 0.0) - scenario.lean
        if scenario.maintenance.slope:  # inverse at a fixed face value: the size is face · value of a unit
            rate = rate + scenario.maintenance.slope * (scenario.face or 0.0) * series.adverse_price / ratio
        adverse[k] = rate * series.adverse_price + scenario.sign * series.paid
        adverse[k, : line.first] = np.nan
        adverse[k, line.stop :] = np.nan
        base = scenario.lean + test.fee + balance.reserve + (0.0 if on_mark else (line.mmr + reserve) / ratio)
        held = balance.held + line.deduction / ratio
        divisor = balance.numerator + (held / test.margin if test.margin else 0.0)
        taken = 0.0 if test.margin else held / test.notional
        offset[k] = series.entries.offset - (base - taken) * series.unit_value
        scale[k] = series.weight / (divisor * series.unit_value)
        if line.kept is not None:
            scale[k, ~line.kept] = 0.0
    return RateLines(adverse, offset, scale)


def _loan(test: RateTest, ratio: float) -> RateLines:
    """Spot margin: debt against assets, both grown to the bar; `ratio` 1 is liquidation (docs/semantics.md §4)."""
    scenario, series = test.scenario, test.series
    spot = scenario.maintenance.spot
    assert spot is not None
    level = (spot.liquidation_ltv if ratio == 1.0 else spot.margin_call_ltv) * (1 - TIE)
    if scenario.sign > 0:
        # (1 − 1/L + fee)·G_t/G_i ≥ ltv·P_t/p
        scale = series.weight * level / series.unit_value
        return RateLines(-series.adverse_price[None], -(1 + test.fee) * series.weight / scale[None], scale[None])
    # P_t·G_t/(p·G_i) ≥ ltv·(1/L + 1 − fee)
    scale = series.weight / (level * series.unit_value)
    return RateLines(series.adverse_price[None], (1 - test.fee) * series.weight / scale[None], scale[None])


def _walk(test: RateTest, lines: list[TierLine], ratio: float) -> Walk:
    scenario, series = test.scenario, test.series
    balance = margin_balance(scenario, ratio)
    n = series.unit_value.size
    scale = np.ones(series.adverse_price.size) if series.scale is None else series.scale
    kept = np.array([np.ones(n, np.bool_) if line.kept is None else line.kept for line in lines])
    return Walk(
        RiskBars(series.adverse_price, scale, scenario.sign * series.paid),
        EntryPositions(
            series.entries.bar, series.until, series.unit_value, series.entries.offset, series.weight,
            test.notional, test.steep,
        ),
        Tiers(
            np.array([line.mmr for line in lines]),
            np.array([line.deduction for line in lines]),
            np.array([line.first for line in lines]),
            np.array([line.stop for line in lines]),
            kept,
        ),
        EntryRule(
            scenario.lean, scenario.maintenance.basis == "entry", scenario.inverse,
            scenario.maintenance.close_reserve, ratio, test.fee + balance.reserve, balance.numerator,
            balance.held, test.margin,
        ),
    )  # fmt: skip


def _opening(test: RateTest, lines: list[TierLine]) -> Float:
    """(n_entries,) the rate at the entry price itself, under the table of the entry's bar."""
    scenario, series = test.scenario, test.series
    if scenario.maintenance.spot is not None:
        worst = compile_lines(test, lines, 1.0)
        assert isinstance(worst, RateLines)
        at_entry = -series.unit_value if scenario.sign > 0 else series.unit_value
        return np.asarray((at_entry - worst.offset[0]) * worst.scale[0])
    balance = margin_balance(scenario, 1.0)
    g = np.ones(series.unit_value.size) if series.scale is None else series.scale[series.entries.bar]
    rest = scenario.maintenance.close_reserve + test.fee
    best = np.full(series.unit_value.size, -np.inf)
    for line in lines:
        if line.first > 0:
            continue
        both = g * line.mmr + rest
        if test.margin:
            held = balance.numerator + (balance.held + g * line.deduction) / test.margin
            rate = both / held
            if scenario.maintenance.slope:
                rate = (both + np.sqrt(both * both + 4 * g * test.steep * held)) / (2 * held)
        else:
            taken = (balance.held + g * line.deduction) / test.notional
            rate = (both + g * test.steep - taken) / balance.numerator
        if line.kept is not None:
            rate = np.where(line.kept, rate, -np.inf)
        best = np.maximum(best, rate)
    return best * series.weight


def _limits(test: RateTest, leverages: Float, table: TierTable | None) -> Float:
    """(n_entries,) 1/L of the largest leverage that tier, last cap and initial rate allow; inf where none is."""
    scenario, weight = test.scenario, test.series.weight
    initial = scenario.maintenance.initial_rate
    out = np.zeros(weight.size)
    if initial is not None:  # L·w·(initial + slope·size) ≤ 1
        if test.margin:
            root = (initial + np.sqrt(initial * initial + 4 * test.steep)) / 2
            out = weight * root / (1 + LEVERAGE_SLACK)
        else:
            out = weight * (initial + test.steep) / (1 + LEVERAGE_SLACK)
    if table is None:
        return out
    notional = np.where(np.isnan(test.notional), 0.0, test.notional)
    most = table.max_leverage_at(notional) * (1 + LEVERAGE_SLACK)
    if not test.margin:
        return np.where(notional > table.last_cap * (1 + TIE), np.inf, np.maximum(out, _beyond(weight / most)))
    allowed = _most_leverage(table, test.margin)
    if len(leverages) == 1 or allowed is None:
        return np.where(exceeds_limits(table, leverages[0] * weight, notional, LEVERAGE_SLACK), np.inf, out)
    return np.maximum(out, _beyond(weight / allowed))


def _beyond(inverse: Float) -> Float:
    """The next float below: a leverage of exactly the limit is allowed."""
    return np.nextafter(inverse, 0.0)


def _most_leverage(table: TierTable, margin: float) -> float | None:
    """The leverage up to which every position of this margin is allowed; None where larger ones are allowed again."""
    most = 0.0
    closed = False
    for floor, cap, limit in zip(table.floor, table.cap, table.max_leverage, strict=True):
        reach = min(limit * (1 + LEVERAGE_SLACK), cap * (1 + TIE) / margin)
        if reach <= floor * (1 + TIE) / margin:
            closed = True
            continue
        if closed:
            return None
        most, closed = reach, reach < cap * (1 + TIE) / margin
    return float(most) if most else None
