"""Inputs of the policy simulation: bars, tier tables and block-maximum trees over the windows of the entries.

Each tier line becomes an adverse series (docs/semantics.md §3), at the liquidation and at the margin call, and so does
each price that a level of the policy is compared with. All become block-maximum trees of one shape, which
`kernels/policy_loop.py` descends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float, Int
from backtest.config.policies import Policy
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import funding_paid, table_bars
from backtest.engine.cohorts import Population
from backtest.engine.kernels.first_passage import FAN
from backtest.engine.kernels.policy_loop import BAR, Market, fill_maxima
from backtest.engine.kernels.position import ADDITION, LINE, NEVER, PERIOD, RULES, Records
from backtest.engine.kernels.window_max import adverse_series
from backtest.margin.tiers import TierTable


@dataclass(frozen=True)
class Openings:
    """Positions to open: one per entry, in any order.

    Attributes
    ----------
    bar : (n_entries,) int64
        Of the grid; at risk from the next bar on.
    price, leverage : (n_entries,) float64
        Entry price, quote per base.
    last : (n_entries,) int64
        Last bar at risk: windows that reach further are cut there.
    slack : bool
        Whether the maximum leverage may be exceeded by 1e-9 of it: where leverages are computed.
    """

    bar: Int
    price: Float
    leverage: Float
    last: Int
    slack: bool = False


def opened_quantities(scenario: Scenario, entries: Openings) -> Float:
    """Quantities opened: base; inverse: face value in quote."""
    if scenario.face is not None:
        return np.full(entries.bar.size, scenario.face)
    return scenario.notionals(entries.leverage, entries.price) / scenario.unit_value(entries.price)


@dataclass(frozen=True)
class PolicyInputs:
    """Bars, tables and trees that decide the positions of a scenario, from bar `start` of the grid on."""

    start: int
    terms: Records  # (1,) of dtype `RULES`
    market: Market

    def covers(self, population: Population, entries: Openings) -> bool:
        """Whether the windows of these entries lie within these bars."""
        end = min(population.grid.n_bars, int(entries.bar.max()) + max(population.horizons) + 1)
        return self.start <= int(entries.bar.min()) and end <= self.start + self.market.bars.size


def make_policy_inputs(
    population: Population, scenario: Scenario, entries: Sequence[Openings], surplus: str | None = None
) -> PolicyInputs:
    """Bars, tables and trees from the first entry to the end of the longest window.

    Parameters
    ----------
    entries : sequence of Openings
        All that the inputs shall serve, such as the same entries at several leverages.
    surplus : {"trader", "fund"}, optional
        Who keeps what a liquidation leaves; default: as the margin terms say.
    """
    policy, sign = scenario.policy or Policy(), scenario.sign
    first = min(int(e.bar.min()) for e in entries)
    last = max(int(e.bar.max()) for e in entries) + max(population.horizons)
    bars = policy_bars(population, scenario, slice(first, min(population.grid.n_bars, last + 1)))
    terms = policy_rules(population, scenario, surplus or population.terms.surplus)
    rules = terms[0]
    adverse, close = scenario.unit_value(bars["adverse"]), scenario.unit_value(bars["close"])
    # A close confirms in bars that have trigger prices.
    watched = np.where(np.isnan(adverse), np.nan, close) if policy.confirm_bars else adverse
    seen = [adverse, close, *(scenario.unit_value(e.price) for e in entries)]
    rules["lowest"] = min(np.fmin.reduce(unit_values) for unit_values in seen)
    rules["highest"] = max(np.fmax.reduce(unit_values) for unit_values in seen)
    forest = Forest(bars["paid"])
    periods, lines = tier_records(population, scenario, first, adverse.size)
    add_line_trees(
        population, scenario, lines, periods, notional_bounds(scenario, entries, rules), (watched, adverse), forest
    )
    if policy.scale_in:
        rules["adverse_row"] = forest.add(bars["adverse"], -sign)
    if policy.stop_loss:
        rules["stop_row"] = forest.add(bars["stop_adverse"], -sign)
    if policy.take_profit:
        rules["take_row"] = forest.add(bars["favourable"], sign)
    table = np.empty(adverse.size, BAR)
    for name, column in bars.items():
        table[name] = column
    return PolicyInputs(first, terms, Market(table, periods, lines, scale_in_records(policy), *forest.build()))


def policy_bars(population: Population, scenario: Scenario, span: slice) -> dict[str, Float]:
    """Columns of `BAR` over a range of the grid, of one side."""
    grid, policy = population.grid, scenario.policy or Policy()
    price = {name: getattr(grid, name)[span] for name in ("open", "low", "high", "close", "last_open")}
    if any(way and way.on == "last" for way in (policy.stop_loss, policy.take_profit)):
        lost = np.isnan(price["low"] + grid.last_low[span] + grid.last_high[span])
        price |= {name: np.where(lost, np.nan, getattr(grid, name)[span]) for name in ("last_low", "last_high")}
    # Where the trigger is the last price, a stop-loss or take-profit on last is one on the trigger.
    stop, take = (
        "last_" if way and way.on == "last" and grid.trigger == "mark" else ""
        for way in (policy.stop_loss, policy.take_profit)
    )
    bad, good = ("low", "high") if scenario.sign > 0 else ("high", "low")
    known = np.where(np.isnan(price["close"]), -1, np.arange(price["close"].size))
    return {
        "open": price["open"],
        "adverse": price[bad],
        "close": price["close"],
        "stop_open": price[stop + "open"],
        "stop_adverse": price[stop + bad],
        "favourable": price[take + good],
        "paid": funding_paid(grid, scenario.funding, span.start, span.stop, inverse=scenario.inverse),
        "known": np.maximum.accumulate(known),
    }


def policy_rules(population: Population, scenario: Scenario, surplus: str) -> Records:
    """(1,) of dtype `RULES`: terms of the margin and the policy; fields that depend on the bars stay 0."""
    rule, terms, policy = scenario.maintenance, population.terms, scenario.policy or Policy()
    given: dict[str, float | bool | None] = {
        "sign": scenario.sign,
        "lean": scenario.lean,
        "inverse": scenario.inverse,
        "on_entry": rule.basis == "entry",
        "stays": bool(rule.tables) and not rule.tables[0].table.has_deductions,
        "fund": surplus == "fund",
        "close_reserve": rule.close_reserve,
        "posted_fee": rule.posted_fee,
        "beside": scenario.counted_extra if rule.posted_fee else 0.0,
        "call_ratio": terms.margin_call_ratio,
        "taker_fee": scenario.taker_fee,
        "liquidation_fee": terms.liquidation_fee,
        "slippage": terms.liquidation_slippage,
        "confirm_bars": policy.confirm_bars,
    }
    if policy.ladder:
        given |= {"step": policy.ladder.step, "fraction": policy.ladder.fraction, "above": policy.ladder.above}
    if policy.top_up:
        given["target"] = policy.top_up.target_ratio
    if policy.deleverage:
        given["deleverage"] = policy.deleverage.fraction
    if answer := policy.top_up or policy.deleverage:
        given |= {"max_times": answer.max_times, "delay": answer.delay_bars}
    if stop := policy.stop_loss:
        given |= {"stop_at": stop.distance, "stop_of_margin": stop.of == "margin", "stop_slippage": stop.slippage}
    if take := policy.take_profit:
        given |= {"take_at": take.distance, "take_of_margin": take.of == "margin"}
    out = np.zeros(1, RULES)
    for name, value in given.items():
        out[name] = value or 0
    return out


def scale_in_records(policy: Policy) -> Records:
    """Scale-ins, and one that is never reached."""
    scale = policy.scale_in
    pairs = list(zip(scale.distance, scale.multiple, strict=True)) if scale else []
    return np.array([*pairs, (np.nan, 0.0)], ADDITION)


class Forest:
    """Block-maximum trees of one shape over a range of bars; a series that is added twice is built once.

    paid : (n_bars,) C
    """

    def __init__(self, paid: Float) -> None:
        self.paid = paid
        self.rows: dict[tuple[int, float, float], int] = {}
        self.sources: list[tuple[Float, float, float]] = []

    def add(self, price: Float, rate: float, side: float = 0.0) -> int:
        """Row of the tree of ``rate·price + side·C``; a null price is never the largest."""
        key = (id(price), rate, side)
        if key not in self.rows:
            self.rows[key] = len(self.sources)
            self.sources.append((price, rate, side))
        return self.rows[key]

    def build(self) -> tuple[Float, Int]:
        """(n_trees, n_nodes) values, and where each level starts."""
        sizes = [self.paid.size]
        while sizes[-1] > FAN:
            sizes.append(-(-sizes[-1] // FAN))
        level = np.cumsum([0, *sizes])
        values = np.empty((len(self.sources), level[-1]))
        for row, (price, rate, side) in zip(values, self.sources, strict=True):
            adverse_series(price, self.paid, rate, side, row[: price.size])
        fill_maxima(values, level)
        return values, level


def tier_records(population: Population, scenario: Scenario, start: int, n_bars: int) -> tuple[Records, Records]:
    """Periods of the tier tables in force over a range of bars, and their lines; a flat rate is one of each."""
    rule = scenario.maintenance
    lines: list[tuple[float, ...]] = []
    periods: list[tuple[int, int, int]] = []
    if not rule.tables:
        lines, periods = [(rule.flat, 0.0, np.inf, -1, -1)], [(0, 0, 1)]
    first = [int(bar) - start for bar in table_bars(population.grid, rule)]
    for dated, begin, end in zip(rule.tables, first, [*first, n_bars][1:], strict=True):
        if begin < n_bars and end > max(0, begin):
            table: TierTable = dated.table
            deduction = np.zeros(table.mmr.size) if table.deduction is None else table.deduction
            periods.append((max(0, begin), len(lines), len(lines) + table.mmr.size))
            lines += [(*line, -1, -1) for line in zip(table.mmr, deduction, table.cap, strict=True)]
    return np.array([*periods, (NEVER, 0, 0)], PERIOD), np.array(lines, LINE)


def notional_bounds(scenario: Scenario, entries: Sequence[Openings], rules: np.void) -> tuple[float, float]:
    """Bounds of the notionals that the positions can come to."""
    policy = scenario.policy or Policy()
    quantities = [opened_quantities(scenario, e) for e in entries]
    added = sum(policy.scale_in.multiple) if policy.scale_in else 0.0
    least = 0.0 if policy.ladder or policy.deleverage else min(float(q.min()) for q in quantities)
    most = max(float(q.max()) for q in quantities) * (1 + added)
    # A notional that stands on a cap belongs to the tier below: wider than its slack.
    return least * float(rules["lowest"]) * (1 - 1e-8), most * float(rules["highest"]) * (1 + 1e-8)


def add_line_trees(
    population: Population,
    scenario: Scenario,
    lines: Records,
    periods: Records,
    reach: tuple[float, float],
    watched: tuple[Float, Float],
    forest: Forest,
) -> None:
    """Add the adverse series of the lines that a notional within `reach` can come under.

    watched : (n_bars,) each, the unit values at which a position is liquidated, and called
    """
    rule = scenario.maintenance
    stays = bool(rule.tables) and not rule.tables[0].table.has_deductions
    for period in periods[:-1]:
        own = lines[period["start"] : period["stop"]]
        # The line that holds a notional, or is the largest there; sizes between two have lines between theirs.
        if stays:
            near, far = np.minimum(np.searchsorted(own["cap"], reach), own.size - 1)
        else:
            near, far = (int(np.argmax(own["mmr"] * size - own["deduction"])) for size in reach)
        on_entry = rule.basis == "entry"
        ratios = {"breach": 1.0, "call": population.terms.margin_call_ratio}
        for line in own if on_entry else own[near : far + 1]:
            for (name, ratio), unit_value in zip(ratios.items(), watched, strict=True):
                # At entry value maintenance does not move with the mark: it stands in the level.
                rate = 0.0 if on_entry else (line["mmr"] + rule.close_reserve) / ratio
                line[name] = forest.add(unit_value, rate - scenario.lean, scenario.sign)
