"""The judge of every static path: a run, and its events, against the literal walk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of
from tests._support.tiers import TABLES, oracle_tiers
from tests.oracles import statistics as truth
from tests.oracles import volatility
from tests.oracles import walk as oracle
from tests.oracles.trades import Trade, walk_trades


@dataclass(frozen=True)
class JudgedRun:
    """A run, and what the walk must know of it that no row of the results says."""

    sweep: bt.Sweep
    margin: bt.Margin = field(default_factory=bt.Margin)
    data: bt.Data = field(default_factory=bt.Data)
    entries: bt.Entries = field(default_factory=bt.Entries)
    statistics: bt.Statistics = field(default_factory=bt.Statistics)
    terms: dict[str, object] = field(default_factory=dict)  # of the oracle's scenario
    trades: Sequence[Trade] | None = None

    @property
    def parts(self) -> dict[str, object]:
        """Keywords of `bt.run` beside the sweep."""
        return {"data": self.data, "entries": self.entries, "margin": self.margin}


def bars_in(duration: str | None) -> int | None:
    return None if duration is None else duration_ms(duration) // HOUR


def same(got: float, want: float | None, tolerance: float) -> bool:
    return math.isnan(got) if want is None else abs(got - want) <= tolerance


def grid_or_none(made: oracle.Rows, trigger: str | None) -> oracle.Grid | None:
    try:
        return oracle.grid_of(made, trigger=trigger)
    except ValueError:
        return None


def scenario_of(row: pd.Series, margin: bt.Margin, terms: dict[str, object] | None = None) -> oracle.Scenario:
    """A row of the results as the oracle's scenario; `terms` are what the row does not say."""
    given = dict(terms or {})
    words = [] if row["size"] is None else [word.split("=") for word in str(row["size"]).split()]
    label = str(row["maintenance"])
    rule = oracle_tiers(label) if label in TABLES or "maintenance" not in given else given.pop("maintenance")
    scenario = oracle.Scenario(
        side=-1 if row["side"] == "short" else 1,
        leverage=row["leverage"],
        maintenance=rule,
        basis=margin.basis,
        close_reserve=margin.close_reserve,
        open_fee=row["open_fee"],
        fees_from_margin=margin.fees_from_margin,
        funding_scale=row["funding_scale"],
        funding_shift=row["funding_shift"],
        margin_call_ratio=margin.margin_call_ratio,
        contract=margin.contract,
        liquidation_slippage=margin.liquidation_slippage,
        liquidation_fee=margin.liquidation_fee,
        surplus=margin.surplus,
        **{name: float(value) for name, value in words},
    )
    return replace(scenario, **given)


def entry_weights(run: JudgedRun, grid: oracle.Grid, label: str | None) -> list[float | None] | None:
    """The weight of each bar under a volatility target of the sweep."""
    target = next((w for w in run.sweep.weight if w.label == label), None)
    if target is None:
        return None
    if target.target is None:
        return [1.0] * len(grid.open_time_ms)
    return volatility.target_weights(grid, bars_in(target.window), target.target, target.cap)


def walked(run: JudgedRun, grid: oracle.Grid, row: pd.Series, horizon: int) -> tuple[list[oracle.Verdict], int]:
    """The walk's verdicts of a row, and how many entries it excludes."""
    scenario, gap = scenario_of(row, run.margin, run.terms), bars_in(run.data.max_gap)
    if run.trades is not None:
        scenario = replace(scenario, leverage=1.0) if np.isnan(scenario.leverage) else scenario
        return walk_trades(grid, scenario, run.trades, horizon, max_gap_bars=gap)
    every = None if run.entries.every is None else duration_ms(run.entries.every)
    weights = entry_weights(run, grid, row.get("weight"))
    return oracle.walk(grid, scenario, horizon, weights=weights, every_ms=every, max_gap_bars=gap)


def assert_equals_walk(run: JudgedRun, made: oracle.Rows, grid: oracle.Grid, *, events: bool = True) -> None:
    """Counts with ``==``, intervals and Kaplan–Meier of every row; every event."""
    history = history_of(made)
    table = bt.run(history, run.sweep, statistics=run.statistics, **run.parts).table.replace({"size": {np.nan: None}})
    found = bt.events_of(history, run.sweep, **run.parts) if events else None
    axes = [name for name in table.columns[: list(table.columns).index("entries")] if name != "horizon"]
    for key, part in table.groupby(axes, sort=False, dropna=False):
        walks = {}
        for _, row in part.iterrows():
            horizon = bars_in(row["horizon"])
            verdicts, excluded = walked(run, grid, row, horizon)
            walks[horizon] = verdicts
            want = truth.count(verdicts, excluded)
            assert {name: int(row[name]) for name in want} == want, row.to_dict()
            assert_same_interval(row, verdicts, grid, duration_ms(run.statistics.block))
            if found is not None:
                mine = found[found["horizon"] == row["horizon"]]
                for name, value in zip(axes, key, strict=True):
                    mine = mine[mine[name].isna() if pd.isna(value) else mine[name] == value]
                assert_same_events(mine, verdicts, grid)
        km = truth.survival_km(walks)
        for _, row in part.iterrows():
            # A product of at most five rates: 1e-12 is its rounding.
            assert same(row["survival_km"], km[bars_in(row["horizon"])], 1e-12), row.to_dict()


def assert_same_interval(row: pd.Series, verdicts: list[oracle.Verdict], grid: oracle.Grid, block_ms: int) -> None:
    blocks, horizon = truth.block_counts(verdicts, grid, block_ms), bars_in(row["horizon"])
    low, high, few = truth.interval(
        blocks.entries, blocks.survived, horizon, block_ms // HOUR, truth.span_of(grid), 24, 0.95
    )
    for name, value in (("survival_low", low), ("survival_high", high)):
        # Sums of float deviations in another order, then beta quantiles: 1e-9 is far below what a reader sees.
        assert same(row[name], value, 1e-9), (name, row.to_dict(), value)
    assert bool(row["few_blocks"]) == few


def assert_same_events(mine: pd.DataFrame, verdicts: list[oracle.Verdict], grid: oracle.Grid) -> None:
    """The rows of one scenario, horizon and leverage."""
    assert len(mine) == len(verdicts)
    order = mine.sort_values("trade", kind="stable") if "trade" in mine else mine
    for row, want in zip(order.itertuples(), verdicts, strict=True):
        assert (row.rejected, row.recovered) == (want.rejected, want.recovered), (row, want)
        assert row.entry_time.value // 10**6 == want.entry_time_ms
        for name, bar in (("margin_call_time", want.margin_call_bar), ("liquidation_time", want.liquidation_bar)):
            stamp = getattr(row, name)
            assert pd.isna(stamp) if bar is None else stamp.value // 10**6 == grid.open_time_ms[bar], (row, want)
        for name in ("entry_price", "liquidation_price", "bankruptcy_price", "fill_price", "residual", "insurance"):
            value, expected = getattr(row, name), getattr(want, name)
            if name == "liquidation_price" and expected is not None and expected < 1e-12 * row.entry_price:
                expected = None  # what rounding leaves of a level of 0
            # The walk solves for prices in another order of operations; 1e-9 is what the rules ask for.
            assert pd.isna(value) if expected is None else value == pytest.approx(expected, rel=1e-9, abs=1e-9), (
                name, row, want,
            )  # fmt: skip
