"""The question put to others, and this package's own answers to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

import backtest as bt
from backtest.analysis.compare import difference_interval
from backtest.config.models import Config
from backtest.config.scenarios import Scenario, expand_scenarios
from backtest.data.history import PriceHistory
from backtest.data.synthetic import demo_history
from backtest.engine.bars import build_grid
from backtest.engine.cohorts import Population
from backtest.engine.count import count_entries
from backtest.engine.count_by_entry import critical_leverages
from backtest.engine.crossings import first_crossings
from backtest.engine.prepare import prepare_entries
from backtest.engine.thresholds import TIE
from backtest.stats.bootstrap import jumps, mean_length, weights
from backtest.stats.curve_interval import curve_interval

Float = NDArray[np.float64]
Int = NDArray[np.int64]

MAINTENANCE = 0.004
LEVERAGES = range(1, 126)
RATES = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.0075)
REPLICATIONS, TAIL = 1_000, 0.025
HOURS = np.unique(np.append(np.arange(1, 49), np.linspace(54, 720, 52).astype(np.int64)))
"""A hundred horizons: every hour of two days, then to 30 days."""


def plain_history(years: float) -> PriceHistory:
    """The generated history as all can read it: traded prices only, missing bars at the close before them."""
    made = demo_history(years=years)
    close = made.columns["close"]
    known = np.maximum.accumulate(np.where(np.isnan(close), 0, np.arange(close.size)))
    columns = {name: made.columns[name] for name in ("open", "high", "low", "close")}
    filled = {name: np.where(np.isnan(values), close[known], values) for name, values in columns.items()}
    return PriceHistory(made.symbol, made.interval_ms, made.start_ms, filled)


def distances() -> Float:
    """How far the price may fall, as a share of the close of the entry, at each leverage."""
    return (1 - TIE) / np.array(LEVERAGES) - MAINTENANCE


@dataclass(frozen=True)
class Asked:
    """A history and the horizon of the question."""

    history: PriceHistory
    horizon: str = "1d"

    @property
    def margin(self) -> bt.Margin:
        """Maintenance of the value at entry; at a call ratio of 1 the margin call is the liquidation."""
        return bt.Margin(basis="entry", margin_call_ratio=1.0)

    @property
    def sweep(self) -> bt.Sweep:
        return bt.Sweep(side=["long"], leverage=LEVERAGES, horizon=[self.horizon], maintenance=[MAINTENANCE])

    @cached_property
    def work(self) -> Population:
        return prepare_entries(Config(sweep=self.sweep, margin=self.margin), build_grid(self.history))

    @cached_property
    def scenario(self) -> Scenario:
        return expand_scenarios(Config(sweep=self.sweep, margin=self.margin))[0]

    @property
    def entries(self) -> int:
        """How many have a whole window."""
        return self.work.bars.size - self.work.horizons[0]

    def whole_run(self) -> Int:
        """(n_leverages,) liquidations, by the public function: intervals and files of a run included."""
        result = bt.run(self.history, self.sweep, margin=self.margin, workers=1)
        return result.table.sort_values("leverage")["liquidations"].to_numpy()

    def counts(self) -> Int:
        """(n_leverages,) liquidations."""
        work = self.work
        tables = [count_entries(work, [self.scenario], chunk)[0]["liquidations"] for chunk in work.chunks()]
        return np.array(sum(table.sum(axis=(0, 1, 3)) for table in tables))

    def verdicts(self) -> NDArray[np.bool_]:
        """(n_entries, n_leverages) whether each dies."""
        work, leverage = self.work, self.work.leverages
        dead = np.empty((leverage.size, work.bars.size), bool)
        for chunk in work.chunks():
            critical = critical_leverages(work, self.scenario, chunk)[0]
            for k, one in enumerate(leverage):
                np.less_equal(critical, one, out=dead[k, chunk])
        return dead.T[: self.entries]

    def bars(self) -> NDArray[np.int32]:
        """(n_entries, n_leverages) bars to the liquidation, 0 where there is none."""
        work = self.work
        found = [first_crossings(work, self.scenario, chunk, calls=False) for chunk in work.chunks(1 << 16)]
        return np.concatenate([one.liquidation for one in found])[: self.entries]


@dataclass(frozen=True)
class Counts:
    """Counts of hourly entries, for curves, and of two runs by calendar block."""

    entries: Int  # (n_scenarios, n_horizons); a scenario is a leverage at a maintenance rate
    dead: Int
    prior: Int
    parts: Int  # (2, 2, n_cells, n_blocks) entries and deaths at the lowest and the highest rate, by horizon × leverage

    def curves(self) -> dict[str, Float]:
        """Kaplan–Meier with Greenwood's error; the interval is worked out too."""
        found = curve_interval(HOURS, *(counts[..., None] for counts in (self.entries, self.dead, self.prior)))
        return {"survival": found.survival[..., 0], "error": found.error[..., 0]}

    @property
    def mean(self) -> int:
        """Blocks in a row, in the mean."""
        return mean_length(self.parts.shape[-1], 1)

    def bounds(self, weight: Float | None = None) -> dict[str, Float]:
        """Of the differences of two survivals; from draws made here where none are given."""
        drawn = weights(self.parts.shape[-1], self.mean, REPLICATIONS, seed=0) if weight is None else weight
        low, high = difference_interval(list(self.parts), jumps(drawn), TAIL)
        return {"low": low, "high": high}


def counts_of(history: PriceHistory) -> Counts:
    """A hundred horizons, eight rates."""
    sweep = bt.Sweep(side=["long"], leverage=LEVERAGES, horizon=[f"{h}h" for h in HOURS], maintenance=RATES)
    config = Config(sweep=sweep, margin=bt.Margin(basis="entry"), entries=bt.Entries(every="1h"))
    work = prepare_entries(config, build_grid(history))
    tables = [sum(count_entries(work, [one], chunk)[0] for chunk in work.chunks()) for one in expand_scenarios(config)]
    names = ("entries", "liquidations", "prior_liquidations")
    curves = [np.concatenate([table[name][0].sum(axis=-1).T for table in tables]) for name in names]
    parts = [[t[name][0].reshape(-1, t.counts.shape[-1]) for name in names[:2]] for t in (tables[0], tables[-1])]
    return Counts(*curves, np.array(parts))
