"""Counting what became of positions in money: of static rules by their closings, of policies by their lives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backtest.closings import Closings, closings_of, windows_of
from backtest.engine import count_block, first_crossings, parts_of
from backtest.entrywise import members_of
from backtest.lives import Lives, lives_of
from backtest.positions import positions_of
from backtest.stage import Openings, stage_of
from backtest.survival import COUNTS, OUTCOMES, SurvivalTable
from backtest.sweep import Scenario, sides_of
from backtest.work import Work

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
Cells = dict[str, Float | Int | NDArray[np.int32] | Bool]

SURVIVED, LIQUIDATED, STOPPED, TOOK_PROFIT = 0, 1, 2, 3
"""Outcomes of `Lives`."""
ENTRIES_AT_ONCE = 1 << 15
"""Entries whose events are held at once: at 125 leverages a few dozen megabytes."""


def count_with_outcomes(work: Work, scenarios: Sequence[Scenario], chunk: slice) -> SurvivalTable:
    """As `count_block`, with the outcomes; policies are followed from event to event.

    scenarios : of one side, maintenance rule and funding
    """
    first, last = (int(b) for b in work.blocks(work.bars[chunk][[0, -1]]))
    shape = (len(scenarios), len(work.horizons), work.leverages.size, last - first + 1)
    table = SurvivalTable(np.zeros((len(COUNTS), *shape), np.int64), first, np.zeros((len(OUTCOMES), *shape)))
    for i, scenario in enumerate(scenarios):
        for one in sides_of(scenario):
            if scenario.policy is None:
                _closings(work, one, chunk, Totals(table, i))
            else:
                for piece in _pieces(chunk):
                    _lives(work, one, piece, Totals(table, i))
    static = [i for i, scenario in enumerate(scenarios) if scenario.policy is None]
    if static:
        table.counts[:, static] = count_block(work, [scenarios[i] for i in static], chunk).counts
    return table


class Totals:
    """The cells of one scenario of a table, to be added to."""

    def __init__(self, table: SurvivalTable, scenario: int) -> None:
        assert table.outcomes is not None
        self.first_block = table.first_block
        self.counts = table.counts[:, scenario]
        self.outcomes = table.outcomes[:, scenario]

    def add(self, block: Int, horizon: int, leverage: int, who: Bool, values: Cells) -> None:
        """Add the values of the entries `who` to their calendar blocks.

        block, who, values : (n,) each; the values by a name of `COUNTS` or `OUTCOMES`
        """
        place, n = block[who] - self.first_block, self.counts.shape[-1]
        for name, value in values.items():
            found = np.bincount(place, value[who], n)
            if name in COUNTS:
                self.counts[COUNTS.index(name), horizon, leverage] += found.astype(np.int64)
            else:
                self.outcomes[OUTCOMES.index(name), horizon, leverage] += found


def _pieces(chunk: slice) -> Iterator[slice]:
    for start in range(chunk.start, chunk.stop, ENTRIES_AT_ONCE):
        yield slice(start, min(chunk.stop, start + ENTRIES_AT_ONCE))


def _closings(work: Work, scenario: Scenario, chunk: slice, totals: Totals) -> None:
    """Outcomes of static rules."""
    for part in parts_of(work, scenario.maintenance, chunk):
        for piece in _pieces(part):
            found = first_crossings(work, scenario, piece)
            for window in windows_of(work, piece, found.series.weight):
                block = work.blocks(window.entry_bar)
                for leverage in range(work.leverages.size):
                    closed = closings_of(work, scenario, found, window, leverage)
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
                    totals.add(block, window.horizon, leverage, ~closed.rejected, known)


def _lives(work: Work, scenario: Scenario, chunk: slice, totals: Totals) -> None:
    """Counts and outcomes of a policy."""
    weight = work.weights(scenario.weight, chunk, scenario.sign)
    windows = list(windows_of(work, chunk, weight))
    members = members_of(work, chunk, weight)
    order, every = list(members.axis), work.blocks(work.bars[chunk])
    for h, out in zip(order, members.excluded, strict=True):
        for leverage in range(work.leverages.size):
            totals.add(every, h, leverage, out, {"excluded": out})
    for leverage, (kept, lives) in enumerate(lives_by_leverage(work, scenario, chunk)):
        for h in order:
            window = windows[h]
            who = np.searchsorted(kept, window.kept)
            block, opened = work.blocks(window.entry_bar), ~lives.rejected[who]
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
            totals.add(block, h, leverage, opened, values)
            totals.add(block, h, leverage, ~opened, {"rejected": ~opened})


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
) -> Closings:
    """The positions `who` of a policy as closings at one horizon.

    leverage, entry_price : (n,) of each of them
    """
    died, ended = lives.outcome[who, horizon] == LIQUIDATED, lives.outcome[who, horizon] != SURVIVED
    insurance = lives.insurance[who, horizon]
    fee = scenario.open_fee if work.terms.fees_from_margin else 0.0
    return Closings(
        lives.rejected[who],
        lives.margin_call[who, horizon].astype(np.int64),
        np.where(died, lives.end[who, horizon], 0).astype(np.int64),
        lives.liquidation_price[who, horizon],
        positions_of(scenario, leverage, fee, entry_price).bankruptcy_price(),
        lives.fill_price[who, horizon],
        np.where(ended, lives.equity[who, horizon] + insurance, np.nan),
        lives.residual[who, horizon],
        insurance,
        lives.recovered[who, horizon],
        lives.equity[who, horizon],
        lives.fees[who, horizon],
    )
