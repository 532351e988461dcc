"""Outcomes in money, summed by calendar block: static rules by their exits, policies by their simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int, Int32
from backtest.config.scenarios import Scenario, split_sides
from backtest.engine.adverse_series import split_by_table
from backtest.engine.cohorts import Population
from backtest.engine.crossings import first_crossings
from backtest.engine.policy_inputs import Openings, make_policy_inputs
from backtest.engine.policy_simulation import SimulatedPositions, simulate_policy
from backtest.engine.positions import Exits, close_positions, entry_windows, make_positions
from backtest.stats.survival_table import COUNTS, OUTCOMES, Tables

EndValues = dict[str, Float | Int | Int32 | Bool]

SURVIVED, LIQUIDATED, STOPPED, TOOK_PROFIT = 0, 1, 2, 3
"""Outcomes of `SimulatedPositions`."""
ENTRIES_AT_ONCE = 1 << 15
"""Entries whose events are held at once: at 125 leverages a few dozen megabytes."""


@dataclass(frozen=True)
class Ends:
    """What became of positions at one horizon and leverage; arrays of (n,).

    Attributes
    ----------
    entry : int64
        Index into ``population.bars``.
    horizon, leverage : int
        Indices into the configuration's.
    opened : bool
        Not rejected.
    values : dict
        By a name of `COUNTS` or `OUTCOMES`.
    """

    entry: Int
    horizon: int
    leverage: int
    opened: Bool
    values: EndValues

    @property
    def returns(self) -> Float:
        """(n_opened,) what was left, less what was put in, over the initial margin."""
        left = np.asarray(self.values["equity"], np.float64)
        added = np.asarray(self.values.get("added", 0.0), np.float64)
        return np.asarray(left - added - 1.0)[self.opened]


def count_outcomes(
    population: Population, scenarios: Sequence[Scenario], chunk: slice, bankroll_fraction: float
) -> Tables:
    """Outcomes of a chunk of entries by calendar block, and the counts of policies; counts of static rules stay 0.

    Parameters and result as of `backtest.engine.count.count_entries`.
    """
    tables = population.empty_tables(chunk, len(scenarios), outcomes=True)
    for i, scenario in enumerate(scenarios):
        totals = Totals(population, tables, i)
        for one in split_sides(scenario):
            if one.policy is not None:
                _count_excluded(population, one, chunk, totals)
            for ends in count_ends(population, one, chunk):
                growth = np.zeros(ends.entry.size)
                growth[ends.opened] = log_growth(ends.returns, bankroll_fraction)
                totals.add(ends, ends.opened, {**ends.values, "log_growth": growth})
                if one.policy is not None:
                    totals.add(ends, ~ends.opened, {"rejected": ~ends.opened})
    return tables


class Totals:
    """The counts and sums of one scenario; outcomes are summed by calendar block only."""

    def __init__(self, population: Population, tables: Tables, scenario: int) -> None:
        self.population, self.tables, self.scenario = population, tables, scenario

    def add(self, ends: Ends, who: Bool, values: EndValues) -> None:
        """Add values of the entries `who` to their calendar blocks and regimes."""
        at = (self.scenario, ends.horizon, ends.leverage)
        chosen = ends.entry[who]
        for number, table in enumerate(self.tables):
            regime = self.population.regimes[number - 1] if number else None
            place = self.population.blocks(self.population.bars[chosen]) if regime is None else regime.place[chosen]
            place, n = place - table.first_block, table.counts.shape[-1]
            for name, value in values.items():
                if name in COUNTS:
                    table.counts[COUNTS.index(name)][at] += np.bincount(place, value[who], n).astype(np.int64)
                elif table.outcomes is not None:
                    table.outcomes[OUTCOMES.index(name)][at] += np.bincount(place, value[who], n)


def _pieces(chunk: slice) -> Iterator[slice]:
    for start in range(chunk.start, chunk.stop, ENTRIES_AT_ONCE):
        yield slice(start, min(chunk.stop, start + ENTRIES_AT_ONCE))


def log_growth(returns: Float, bankroll_fraction: float) -> Float:
    """log(1 + f·r): growth of a bankroll of which the fraction f is posted; −inf where nothing is left of it."""
    with np.errstate(divide="ignore"):
        grown: Float = np.log(np.maximum(1.0 + bankroll_fraction * returns, 0.0))
    return grown


def count_ends(population: Population, scenario: Scenario, chunk: slice) -> Iterator[Ends]:
    """Ends of the positions of a scenario of one side, part by part, horizon by horizon."""
    if scenario.policy is None:
        for part in split_by_table(population, scenario.maintenance, chunk):
            for piece in _pieces(part):
                yield from _static_ends(population, scenario, piece)
    else:
        for piece in _pieces(chunk):
            yield from _policy_ends(population, scenario, piece)


def _static_ends(population: Population, scenario: Scenario, piece: slice) -> Iterator[Ends]:
    """Static rules."""
    found = first_crossings(population, scenario, piece)
    for window in entry_windows(population, piece, found.series.weight):
        for leverage in range(population.leverages.size):
            closed = close_positions(population, scenario, found, window, leverage)
            died = closed.liquidation > 0
            gone = np.where(died, closed.insurance, 0.0)
            values: EndValues = {
                "recovered": closed.recovered,
                "equity": closed.equity,
                "residual": np.where(died, closed.residual, 0.0),
                "insurance_loss": np.maximum(0.0, -gone),
                "insurance_gain": np.maximum(0.0, gone),
                "fees": closed.fees,
            }
            # A fill of which nothing is known (no level, no open) leaves nothing.
            known: EndValues = {name: np.nan_to_num(np.asarray(v, np.float64)) for name, v in values.items()}
            yield Ends(window.place, window.horizon, leverage, ~closed.rejected, known)


def _count_excluded(population: Population, scenario: Scenario, chunk: slice, totals: Totals) -> None:
    """Entries left out for a gap, which no policy follows."""
    members = population.members(chunk, population.weights(scenario.weight, chunk, scenario.sign))
    every = np.arange(chunk.start, chunk.stop)
    for h, out in zip(members.axis, members.excluded, strict=True):
        for leverage in range(population.leverages.size):
            totals.add(Ends(every, h, leverage, ~out, {}), out, {"excluded": out})


def _policy_ends(population: Population, scenario: Scenario, piece: slice) -> Iterator[Ends]:
    """Policies, with their counts."""
    windows = list(entry_windows(population, piece, population.weights(scenario.weight, piece, scenario.sign)))
    order = sorted(range(len(population.horizons)), key=population.horizons.__getitem__)
    for leverage, (kept, simulated) in enumerate(simulate_leverages(population, scenario, piece)):
        for h in order:
            window = windows[h]
            who = np.searchsorted(kept, window.kept)
            opened = ~simulated.rejected[who]
            values: EndValues = {
                "entries": opened,
                "margin_calls": simulated.margin_call[who, h] > 0,
                "liquidations": simulated.outcome[who, h] == LIQUIDATED,
                **_outcomes(simulated, who, h),
            }
            if h != order[0]:
                before = order[order.index(h) - 1]
                values["prior_liquidations"] = simulated.outcome[who, before] == LIQUIDATED
                values["prior_margin_calls"] = simulated.margin_call[who, before] > 0
                values["prior_stopped"] = simulated.outcome[who, before] == STOPPED
                values["prior_took_profit"] = simulated.outcome[who, before] == TOOK_PROFIT
            yield Ends(window.place, h, leverage, opened, values)


def _outcomes(simulated: SimulatedPositions, who: Int, horizon: int) -> EndValues:
    """Those of one horizon."""
    insurance, residual = simulated.insurance[who, horizon], simulated.residual[who, horizon]
    return {
        "stopped": simulated.outcome[who, horizon] == STOPPED,
        "took_profit": simulated.outcome[who, horizon] == TOOK_PROFIT,
        "recovered": simulated.recovered[who, horizon],
        "partial_liquidations": simulated.partial_liquidations[who, horizon],
        "top_ups": simulated.top_ups[who, horizon],
        "deleverages": simulated.deleverages[who, horizon],
        "scale_ins": simulated.scale_ins[who, horizon],
        "equity": simulated.equity[who, horizon],
        "residual": np.nan_to_num(residual),
        "insurance_loss": np.maximum(0.0, -insurance),
        "insurance_gain": np.maximum(0.0, insurance),
        "fees": simulated.fees[who, horizon],
        "added": simulated.added[who, horizon],
    }


def simulate_leverages(
    population: Population, scenario: Scenario, chunk: slice
) -> Iterator[tuple[Int, SimulatedPositions]]:
    """Per leverage of the sweep, the entries of a chunk that are entered, and what became of them."""
    weight = population.weights(scenario.weight, chunk, scenario.sign)
    kept = np.flatnonzero(~np.isnan(weight))
    if not kept.size:
        return
    bar, price, until = population.bars[chunk][kept], population.entry_price(chunk)[kept], population.until(chunk)[kept]
    last = np.minimum(until, population.grid.n_bars - 1)
    slack = scenario.weight is not None or population.trades is not None
    opened = [Openings(bar, price, float(x) * weight[kept], last, slack) for x in population.leverages]
    inputs = make_policy_inputs(population, scenario, opened, population.terms.surplus)
    for x, entries in zip(population.leverages, opened, strict=True):
        yield kept, simulate_policy(population, scenario, chunk, float(x), entries=entries, inputs=inputs)


def policy_exits(
    population: Population,
    scenario: Scenario,
    simulated: SimulatedPositions,
    who: Int,
    horizon: int,
    leverage: Float,
    entry_price: Float,
) -> Exits:
    """The positions `who` of a policy as closings at one horizon.

    leverage, entry_price : (n,) of each of them
    """
    died, ended = simulated.outcome[who, horizon] == LIQUIDATED, simulated.outcome[who, horizon] != SURVIVED
    insurance = simulated.insurance[who, horizon]
    fee = scenario.open_fee if population.terms.fees_from_margin else 0.0
    return Exits(
        simulated.rejected[who],
        simulated.margin_call[who, horizon].astype(np.int64),
        np.where(died, simulated.end[who, horizon], 0).astype(np.int64),
        simulated.liquidation_price[who, horizon],
        make_positions(scenario, leverage, fee, entry_price).bankruptcy_price(),
        simulated.fill_price[who, horizon],
        np.where(ended, simulated.equity[who, horizon] + insurance, np.nan),
        simulated.residual[who, horizon],
        insurance,
        simulated.recovered[who, horizon],
        simulated.equity[who, horizon],
        simulated.fees[who, horizon],
    )
