"""Policies: a scenario and a chunk of entries → the end of each position (docs/semantics.md §7).

A position's state is laid out at its entry, what it can meet over the bars of the chunk becomes a forest of
block-maximum trees, and `kernels/policy_loop.py` follows it from event to event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtest.arrays import Bool, Float, Int32
from backtest.config.policies import Policy
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import table_bars
from backtest.engine.cohorts import Population
from backtest.engine.kernels.policy_loop import RESULT, simulate
from backtest.engine.kernels.position import NEVER, POSITION, Records
from backtest.engine.policy_inputs import Openings, PolicyInputs, make_policy_inputs, opened_quantities
from backtest.engine.thresholds import TIE, rejected_positions
from backtest.errors import ConfigError


@dataclass(frozen=True)
class SimulatedPositions:
    """The ends of the positions of a chunk; (n_entries, n_horizons) each, horizons in the order of the configuration.

    Rejected positions have no outcome and no events; their amounts and prices are NaN.

    Attributes
    ----------
    rejected : (n_entries,) bool
    outcome : int8
        0 survived, 1 liquidated, 2 stopped, 3 took profit.
    end, margin_call : int32
        Bars from the entry to the closing and to the first margin call; 0 where there is none.
    liquidation_price, fill_price : float64
        Quote per base; in the last state of the position, and at which it was closed; NaN where there is none.
    equity, residual, insurance, fees, added : float64
        Fractions of the initial margin. `residual` is NaN unless liquidated.
    recovered : bool
        Liquidated, but had it been held, its equity would stand above all that was posted at the end of the window.
    partial_liquidations, top_ups, deleverages, scale_ins : int32
    """

    rejected: Bool
    outcome: NDArray[np.int8]
    end: Int32
    margin_call: Int32
    liquidation_price: Float
    fill_price: Float
    equity: Float
    residual: Float
    insurance: Float
    fees: Float
    added: Float
    recovered: Bool
    partial_liquidations: Int32
    top_ups: Int32
    deleverages: Int32
    scale_ins: Int32


def grid_openings(population: Population, chunk: slice, leverage: float) -> Openings:
    """The entries of a chunk at the grid's prices, at one leverage."""
    bar = population.bars[chunk]
    last = np.full(bar.size, population.grid.n_bars - 1)
    return Openings(bar, population.grid.entry_price[bar], np.full(bar.size, leverage), last)


def simulate_policy(
    population: Population,
    scenario: Scenario,
    chunk: slice,
    leverage: float,
    *,
    entries: Openings | None = None,
    inputs: PolicyInputs | None = None,
) -> SimulatedPositions:
    """Follow the positions of a chunk of entries, at one leverage, through the policy of a scenario.

    Parameters
    ----------
    chunk : slice
        Of ``population.bars``.
    entries : Openings, optional
        With own prices, leverages or last bars; `chunk` and `leverage` are then not read.
    inputs : PolicyInputs, optional
        Of `make_policy_inputs`, where it serves several leverages.

    Raises
    ------
    ConfigError
        If the scenario's maintenance is none that a policy can act on.
    """
    check_policy(population, scenario)
    entries = grid_openings(population, chunk, leverage) if entries is None else entries
    horizons = np.array(sorted(population.horizons), dtype=np.int64)
    out = np.zeros((entries.bar.size, horizons.size), RESULT)
    rejected = np.zeros(entries.bar.size, np.bool_)
    if entries.bar.size:
        inputs = make_policy_inputs(population, scenario, [entries]) if inputs is None else inputs
        if not inputs.covers(population, entries):
            raise ValueError("the inputs do not cover these entries; call make_policy_inputs with all of them")
        positions = opening_records(population, scenario, entries, inputs)
        simulate(inputs.market, inputs.terms, positions, horizons, out)
        rejected = positions["rejected"].copy()
    for name in ("liquidation_price", "fill_price", "equity", "residual", "insurance", "fees", "added"):
        out[name][rejected] = np.nan
    column = np.searchsorted(horizons, population.horizons)
    return SimulatedPositions(rejected, **{name: out[name][:, column] for name in RESULT.names or ()})


def check_policy(population: Population, scenario: Scenario) -> None:
    """Refuse what docs/semantics.md §7 says nothing of."""
    rule = scenario.maintenance
    for given, what in (
        (rule.slope, "slopes with size"),
        (rule.spot, "is a loan-to-value"),
        (population.grid.scale is not None, "is scaled"),
    ):
        if given:
            raise ConfigError(f"sweep.policy: not under a maintenance that {what} ({rule.label!r})")


def opening_records(population: Population, scenario: Scenario, entries: Openings, inputs: PolicyInputs) -> Records:
    """The state of each position at its entry; bars count from the start of the inputs."""
    bar = entries.bar - inputs.start
    notional = scenario.notionals(entries.leverage, entries.price)
    fee = scenario.open_fee if population.terms.fees_from_margin else 0.0
    margin = notional / entries.leverage + scenario.counted_extra
    fee_to_close = notional * (1 - scenario.lean / entries.leverage) * scenario.maintenance.posted_fee
    policy = scenario.policy or Policy()
    positions = np.zeros(entries.bar.size, POSITION)
    for name, values in (
        ("bar", bar),
        ("last", np.minimum(entries.last, population.grid.n_bars - 1) - inputs.start),
        ("since", bar),
        ("paid", inputs.market.bars["paid"][bar]),
        ("price", entries.price),
        ("leverage", entries.leverage),
        ("entry", scenario.unit_value(entries.price)),
        ("value", notional),
        ("initial", margin),
        ("margin", margin),
        ("posted_fee", fee_to_close),
        ("tier", NEVER),
        ("balance", margin - fee * notional),
        ("fees", fee * notional),
        ("reserve", policy.top_up.reserve * margin if policy.top_up else 0.0),
        ("answer", NEVER),
        ("next_distance", inputs.market.additions["distance"][0]),
        ("fill_price", np.nan),
        ("rejected", rejected_entries(population, scenario, entries, fee)),
    ):
        positions[name] = values
    positions["quantity"] = positions["first_quantity"] = opened_quantities(scenario, entries)
    return positions


def rejected_entries(population: Population, scenario: Scenario, entries: Openings, fee: float) -> Bool:
    """(n_entries,) positions that could not have been opened, each by the table of its own bar."""
    rule, notional = scenario.maintenance, scenario.notionals(entries.leverage, entries.price)
    slack = TIE if entries.slack else 0.0
    if not rule.tables:
        return rejected_positions(scenario, None, entries.leverage, notional, fee, slack)
    period = np.searchsorted(table_bars(population.grid, rule), entries.bar, side="right") - 1
    out = np.zeros(entries.bar.size, np.bool_)
    for k, dated in enumerate(rule.tables):
        own = period == k
        out[own] = rejected_positions(scenario, dated.table, entries.leverage[own], notional[own], fee, slack)
    return out
