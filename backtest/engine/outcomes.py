"""Counting what became of positions in money: of static rules by their closings, of policies by their lives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int, Int32
from backtest.config.scenarios import Scenario, split_sides
from backtest.engine.adverse_series import split_by_table
from backtest.engine.cohorts import Work
from backtest.engine.crossings import first_crossings
from backtest.engine.policy_inputs import Openings, stage_of
from backtest.engine.policy_simulation import Lives, lives_of
from backtest.engine.positions import Exits, close_positions, entry_windows, make_positions
from backtest.stats.survival_table import COUNTS, OUTCOMES, Tables

Cells = dict[str, Float | Int | Int32 | Bool]

SURVIVED, LIQUIDATED, STOPPED, TOOK_PROFIT = 0, 1, 2, 3
"""Outcomes of `Lives`."""
ENTRIES_AT_ONCE = 1 << 15
"""Entries whose events are held at once: at 125 leverages a few dozen megabytes."""


@dataclass(frozen=True)
class Ends:
    """What became of positions at one horizon and leverage; arrays of (n,).

    Attributes
    ----------
    entry : int64
        Place in ``work.bars``.
    horizon, leverage : int
        Places in the work.
    opened : bool
        Not rejected.
    values : dict
        By a name of `COUNTS` or `OUTCOMES`.
    """

    entry: Int
    horizon: int
    leverage: int
    opened: Bool
    values: Cells

    @property
    def returns(self) -> Float:
        """(n_opened,) what was left, less what was put in, over the initial margin."""
        left = np.asarray(self.values["equity"], np.float64)
        added = np.asarray(self.values.get("added", 0.0), np.float64)
        return np.asarray(left - added - 1.0)[self.opened]


def count_outcomes(work: Work, scenarios: Sequence[Scenario], chunk: slice, bankroll_fraction: float) -> Tables:
    """Outcomes of a chunk of entries by calendar block, and the counts of policies; counts of static rules stay 0.

    Parameters and result as of `backtest.engine.count.count_entries`.
    """
    tables = work.empty_tables(chunk, len(scenarios), outcomes=True)
    for i, scenario in enumerate(scenarios):
        totals = Totals(work, tables, i)
        for one in split_sides(scenario):
            if one.policy is not None:
                _count_excluded(work, one, chunk, totals)
            for ends in count_ends(work, one, chunk):
                growth = np.zeros(ends.entry.size)
                growth[ends.opened] = log_growth(ends.returns, bankroll_fraction)
                totals.add(ends, ends.opened, {**ends.values, "log_growth": growth})
                if one.policy is not None:
                    totals.add(ends, ~ends.opened, {"rejected": ~ends.opened})
    return tables


class Totals:
    """The cells of one scenario of tables, to be added to; outcomes are summed in the first, that of the calendar."""

    def __init__(self, work: Work, tables: Tables, scenario: int) -> None:
        self.work, self.tables, self.scenario = work, tables, scenario

    def add(self, ends: Ends, who: Bool, values: Cells) -> None:
        """Add values of the entries `who` to their calendar blocks and cells."""
        at = (self.scenario, ends.horizon, ends.leverage)
        chosen = ends.entry[who]
        for number, table in enumerate(self.tables):
            regime = self.work.regimes[number - 1] if number else None
            place = self.work.blocks(self.work.bars[chosen]) if regime is None else regime.place[chosen]
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


def count_ends(work: Work, scenario: Scenario, chunk: slice) -> Iterator[Ends]:
    """What became of the positions of a scenario of one side, stretch by stretch, horizon by horizon."""
    if scenario.policy is None:
        for part in split_by_table(work, scenario.maintenance, chunk):
            for piece in _pieces(part):
                yield from _closed(work, scenario, piece)
    else:
        for piece in _pieces(chunk):
            yield from _lived(work, scenario, piece)


def _closed(work: Work, scenario: Scenario, piece: slice) -> Iterator[Ends]:
    """Static rules."""
    found = first_crossings(work, scenario, piece)
    for window in entry_windows(work, piece, found.series.weight):
        for leverage in range(work.leverages.size):
            closed = close_positions(work, scenario, found, window, leverage)
            died = closed.liquidation > 0
            gone = np.where(died, closed.insurance, 0.0)
            values: Cells = {
                "recovered": closed.recovered,
                "equity": closed.equity,
                "residual": np.where(died, closed.residual, 0.0),
                "insurance_loss": np.maximum(0.0, -gone),
                "insurance_gain": np.maximum(0.0, gone),
                "fees": closed.fees,
            }
            # A fill of which nothing is known (no level, no open) leaves nothing.
            known: Cells = {name: np.nan_to_num(np.asarray(v, np.float64)) for name, v in values.items()}
            yield Ends(window.place, window.horizon, leverage, ~closed.rejected, known)


def _count_excluded(work: Work, scenario: Scenario, chunk: slice, totals: Totals) -> None:
    """Entries left out for a gap, which no policy follows."""
    members = work.members(chunk, work.weights(scenario.weight, chunk, scenario.sign))
    every = np.arange(chunk.start, chunk.stop)
    for h, out in zip(members.axis, members.excluded, strict=True):
        for leverage in range(work.leverages.size):
            totals.add(Ends(every, h, leverage, ~out, {}), out, {"excluded": out})


def _lived(work: Work, scenario: Scenario, piece: slice) -> Iterator[Ends]:
    """Policies, with their counts."""
    windows = list(entry_windows(work, piece, work.weights(scenario.weight, piece, scenario.sign)))
    order = sorted(range(len(work.horizons)), key=work.horizons.__getitem__)
    for leverage, (kept, lives) in enumerate(lives_by_leverage(work, scenario, piece)):
        for h in order:
            window = windows[h]
            who = np.searchsorted(kept, window.kept)
            opened = ~lives.rejected[who]
            values: Cells = {
                "entries": opened,
                "margin_calls": lives.margin_call[who, h] > 0,
                "liquidations": lives.outcome[who, h] == LIQUIDATED,
                **_outcomes(lives, who, h),
            }
            if h != order[0]:
                before = order[order.index(h) - 1]
                values["prior_liquidations"] = lives.outcome[who, before] == LIQUIDATED
                values["prior_margin_calls"] = lives.margin_call[who, before] > 0
                values["prior_stopped"] = lives.outcome[who, before] == STOPPED
                values["prior_took_profit"] = lives.outcome[who, before] == TOOK_PROFIT
            yield Ends(window.place, h, leverage, opened, values)


def _outcomes(lives: Lives, who: Int, horizon: int) -> Cells:
    """Those of one horizon."""
    insurance, residual = lives.insurance[who, horizon], lives.residual[who, horizon]
    return {
        "stopped": lives.outcome[who, horizon] == STOPPED,
        "took_profit": lives.outcome[who, horizon] == TOOK_PROFIT,
        "recovered": lives.recovered[who, horizon],
        "partial_liquidations": lives.partial_liquidations[who, horizon],
        "top_ups": lives.top_ups[who, horizon],
        "deleverages": lives.deleverages[who, horizon],
        "scale_ins": lives.scale_ins[who, horizon],
        "equity": lives.equity[who, horizon],
        "residual": np.nan_to_num(residual),
        "insurance_loss": np.maximum(0.0, -insurance),
        "insurance_gain": np.maximum(0.0, insurance),
        "fees": lives.fees[who, horizon],
        "added": lives.added[who, horizon],
    }


def lives_by_leverage(work: Work, scenario: Scenario, chunk: slice) -> Iterator[tuple[Int, Lives]]:
    """Per leverage of the sweep, the entries of a chunk that are entered, and what became of them."""
    weight = work.weights(scenario.weight, chunk, scenario.sign)
    kept = np.flatnonzero(~np.isnan(weight))
    if not kept.size:
        return
    bar, price, until = work.bars[chunk][kept], work.entry_price(chunk)[kept], work.until(chunk)[kept]
    last = np.minimum(until, work.grid.n_bars - 1)
    slack = scenario.weight is not None or work.trades is not None
    opened = [Openings(bar, price, float(x) * weight[kept], last, slack) for x in work.leverages]
    stage = stage_of(work, scenario, opened, work.terms.surplus)
    for x, entries in zip(work.leverages, opened, strict=True):
        yield kept, lives_of(work, scenario, chunk, float(x), entries=entries, stage=stage)


def closed_lives(
    work: Work, scenario: Scenario, lives: Lives, who: Int, horizon: int, leverage: Float, entry_price: Float
) -> Exits:
    """The positions `who` of a policy as closings at one horizon.

    leverage, entry_price : (n,) of each of them
    """
    died, ended = lives.outcome[who, horizon] == LIQUIDATED, lives.outcome[who, horizon] != SURVIVED
    insurance = lives.insurance[who, horizon]
    fee = scenario.open_fee if work.terms.fees_from_margin else 0.0
    return Exits(
        lives.rejected[who],
        lives.margin_call[who, horizon].astype(np.int64),
        np.where(died, lives.end[who, horizon], 0).astype(np.int64),
        lives.liquidation_price[who, horizon],
        make_positions(scenario, leverage, fee, entry_price).bankruptcy_price(),
        lives.fill_price[who, horizon],
        np.where(ended, lives.equity[who, horizon] + insurance, np.nan),
        lives.residual[who, horizon],
        insurance,
        lives.recovered[who, horizon],
        lives.equity[who, horizon],
        lives.fees[who, horizon],
    )
