"""The question put to other programs, this package's own answers, and plain loops in Numba."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray

import backtest as bt
from backtest.analysis.compare import difference_interval
from backtest.arrays import Float, Int
from backtest.config.models import Config
from backtest.config.scenarios import expand_scenarios
from backtest.data.history import PriceHistory
from backtest.data.synthetic import demo_history
from backtest.engine.bars import build_grid
from backtest.engine.count import count_entries
from backtest.engine.count_by_entry import critical_leverages
from backtest.engine.crossings import first_crossings
from backtest.engine.prepare import prepare_entries
from backtest.engine.thresholds import TIE
from backtest.stats.bootstrap import jumps, mean_length, weights
from backtest.stats.curve_interval import curve_interval

MAINTENANCE = 0.004
LEVERAGES = range(1, 126)
DISTANCE: Float = (1 - TIE) / np.array(LEVERAGES) - MAINTENANCE
"""How far the price may fall at each leverage, as a share of the close of the entry."""
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


class Question:
    """Which long positions, opened at every close, see the price at their liquidation level within the horizon?

    Maintenance is a share of the value at entry; at a call ratio of 1 the margin call is the liquidation.
    """

    def __init__(self, history: PriceHistory, horizon: str = "1d") -> None:
        sweep = bt.Sweep(side=["long"], leverage=LEVERAGES, horizon=[horizon], maintenance=[MAINTENANCE])
        self.history, self.low, self.close = history, history.columns["low"], history.columns["close"]
        self.config = Config(sweep=sweep, margin=bt.Margin(basis="entry", margin_call_ratio=1.0))
        self.population = prepare_entries(self.config, build_grid(history))
        self.scenario = expand_scenarios(self.config)[0]
        self.horizon = self.population.horizons[0]
        self.entries = self.population.bars.size - self.horizon  # that have a whole window

    def arrays(self) -> dict[str, object]:
        """The question for other programs."""
        prices = {name: self.history.columns[name] for name in ("open", "high", "low", "close")}
        numbers = {"start_ms": self.history.start_ms, "horizon": self.horizon}
        return {**prices, **numbers, "leverage": np.array(LEVERAGES), "distance": DISTANCE}

    def whole_run(self) -> Int:
        """(n_leverages,) liquidations, by the public function, with the intervals and files of a run."""
        result = bt.run(self.history, self.config.sweep, margin=self.config.margin, workers=1)
        return result.table.sort_values("leverage")["liquidations"].to_numpy()

    def counts(self) -> Int:
        """(n_leverages,) liquidations."""
        tables = [
            count_entries(self.population, [self.scenario], chunk)[0]["liquidations"]
            for chunk in self.population.chunks()
        ]
        return np.array(sum(table.sum(axis=(0, 1, 3)) for table in tables))

    def verdicts(self) -> NDArray[np.bool_]:
        """(n_entries, n_leverages) whether each is liquidated."""
        population, leverage = self.population, self.population.leverages
        dead = np.empty((leverage.size, population.bars.size), bool)
        for chunk in population.chunks():
            critical = critical_leverages(population, self.scenario, chunk)[0]
            for k, one in enumerate(leverage):
                np.less_equal(critical, one, out=dead[k, chunk])
        return dead.T[: self.entries]

    def bars(self) -> NDArray[np.int32]:
        """(n_entries, n_leverages) bars to the liquidation, 0 where there is none."""
        chunks = self.population.chunks(1 << 16)
        found = [first_crossings(self.population, self.scenario, chunk, calls=False).liquidation for chunk in chunks]
        return np.concatenate(found)[: self.entries]


@dataclass(frozen=True)
class Counts:
    """Counts of hourly entries, for curves, and of two runs by calendar block."""

    entries: Int  # (n_scenarios, n_horizons); a scenario is a leverage at a maintenance rate
    dead: Int
    prior: Int
    parts: Int  # (2, 2, n_cells, n_blocks) entries and deaths at the lowest and the highest rate, by horizon × leverage

    def curves(self) -> dict[str, Float]:
        """Kaplan–Meier with Greenwood's error; the interval is computed too."""
        found = curve_interval(HOURS, *(counts[..., None] for counts in (self.entries, self.dead, self.prior)))
        return {"survival": found.survival[..., 0], "error": found.error[..., 0]}

    @cached_property
    def mean(self) -> int:
        """Mean number of consecutive blocks in a draw."""
        return mean_length(self.parts.shape[-1], 1)

    def bounds(self, weight: Float | None = None) -> dict[str, Float]:
        """Of the differences of two survival rates; from draws made here where none are given."""
        drawn = weights(self.parts.shape[-1], self.mean, REPLICATIONS, seed=0) if weight is None else weight
        low, high = difference_interval(list(self.parts), jumps(drawn), TAIL)
        return {"low": low, "high": high}


def count_curves(history: PriceHistory) -> Counts:
    """Counts at a hundred horizons and eight rates."""
    sweep = bt.Sweep(side=["long"], leverage=LEVERAGES, horizon=[f"{h}h" for h in HOURS], maintenance=RATES)
    config = Config(sweep=sweep, margin=bt.Margin(basis="entry"), entries=bt.Entries(every="1h"))
    population = prepare_entries(config, build_grid(history))
    tables = [
        sum(count_entries(population, [one], chunk)[0] for chunk in population.chunks())
        for one in expand_scenarios(config)
    ]
    names = ("entries", "liquidations", "prior_liquidations")
    curves = [np.concatenate([table[name][0].sum(axis=-1).T for table in tables]) for name in names]
    parts = [[t[name][0].reshape(-1, t.counts.shape[-1]) for name in names[:2]] for t in (tables[0], tables[-1])]
    return Counts(*curves, np.array(parts))


@numba.njit(nogil=True, error_model="numpy")
def every_bar(low: Float, close: Float, entries: Int, horizon: int, distance: Float) -> NDArray[np.bool_]:
    """(n_entries, n_leverages) whether each is liquidated: three loops, every bar looked at."""
    dead = np.zeros((entries.size, distance.size), np.bool_)
    for j in range(entries.size):
        for k in range(distance.size):
            level = close[entries[j]] * (1 - distance[k])
            for t in range(entries[j] + 1, entries[j] + horizon + 1):
                dead[j, k] |= low[t] <= level
    return dead


@numba.njit(nogil=True, error_model="numpy")
def one_pass(low: Float, close: Float, entries: Int, horizon: int, distance: Float) -> NDArray[np.int32]:
    """(n_entries, n_leverages) bars to the liquidation, 0: none. One pass for all leverages, with an early exit."""
    bars = np.zeros((entries.size, distance.size), np.int32)
    for j in range(entries.size):
        k = distance.size - 1  # the highest leverage is liquidated first
        level = close[entries[j]] * (1 - distance[k])
        for t in range(entries[j] + 1, entries[j] + horizon + 1):
            if low[t] > level:
                continue
            while k >= 0 and low[t] <= close[entries[j]] * (1 - distance[k]):
                bars[j, k] = t - entries[j]
                k -= 1
            if k < 0:
                break
            level = close[entries[j]] * (1 - distance[k])
    return bars
