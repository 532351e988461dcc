"""Real days that markets broke, read by hand, and runs on them held against the literal walk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import backtest as bt
from backtest.ingest.tiers.importer import import_tiers
from backtest.units import duration_ms, instant_ms
from tests._support.histories import HOUR, history_of
from tests._support.judge import assert_same_events, scenario_of
from tests.oracles import statistics as truth
from tests.oracles import walk as oracle
from tests.oracles.trades import Trade, walk_trades

REAL = Path(__file__).parents[2].parent / "shared" / "data"
needs_real = pytest.mark.skipif(not (REAL / "crash_20251010").is_dir(), reason="no real histories here")

Held = float | tuple[oracle.Tier, ...] | oracle.Dated
MINUTES = 60_000
COIN = (
    oracle.Tier(0.0, 5.0, 0.004, 0.0, 125.0),
    oracle.Tier(5.0, 10.0, 0.005, 0.005, 100.0),
    oracle.Tier(10.0, 20.0, 0.01, 0.055, 50.0),
    oracle.Tier(20.0, 100.0, 0.025, 0.355, 20.0),
)
"""Tiers in coin: D_k = D_{k−1} + floor_k·(mmr_k − mmr_{k−1}), so 5·0.001, + 10·0.005, + 20·0.015."""


# --- histories, as the files have them --------------------------------------------------------------------------------


@cache
def rows(symbol: str, start: str, end: str) -> oracle.Rows:
    """Bars of a range: hourly with mark and funding, those of October 2025 of five minutes."""
    crash = REAL / "crash_20251010" / f"{symbol}-5m.parquet"
    late = start.startswith("2025-10") and crash.is_file()
    span = [("timestamp", word, pd.Timestamp(at, tz="UTC")) for word, at in ((">=", start), ("<", end))]

    def frame(file: Path) -> pd.DataFrame:
        return pq.read_table(file, filters=span).to_pandas().set_index("timestamp")

    hourly = REAL / "binance_um" / f"{symbol}-1h"
    parts = {"": frame(crash if late else hourly.with_suffix(".parquet"))}
    columns: dict[str, pd.Series] = {}
    if not late:
        parts["mark_"] = frame(hourly.with_name(f"{symbol}-1h-mark.parquet"))
        charges = frame(hourly.with_name(f"{symbol}-funding.parquet"))["funding_rate"]
        columns["funding_rate"] = charges.groupby(charges.index.floor("h")).sum()
    times = parts[""].index.union(columns.get("funding_rate", parts[""]).index)
    columns |= {p + name: part[name] for p, part in parts.items() for name in ("open", "high", "low", "close")}
    made = {k: [None if np.isnan(v) else float(v) for v in c.reindex(times)] for k, c in columns.items()}
    return oracle.Rows(5 * MINUTES if late else HOUR, [stamp.value // 10**6 for stamp in times], **made)


def btc() -> oracle.Rows:
    """2020-03-12, 10:00: from 7,357 to 5,199 last and 5,621 mark."""
    return rows("BTCUSDT", "2020-03-09", "2020-03-16")


def eth() -> oracle.Rows:
    """2021-05-19, 13:00: down to 1,400.73 last and 1,764.26 mark."""
    return rows("ETHUSDT", "2021-05-16", "2021-05-22")


def sui() -> oracle.Rows:
    """2025-10-10, 21:15 and 21:20: from 2.74 to 0.5669."""
    return rows("SUIUSDT", "2025-10-10T12:00", "2025-10-11T04:00")


def ada() -> oracle.Rows:
    """2025-10-10, 21:15 and 21:20: from 0.65 to 0.2743."""
    return rows("ADAUSDT", "2025-10-10T12:00", "2025-10-11T04:00")


def table_of(rows_of: Sequence[tuple[float, ...]]) -> tuple[oracle.Tier, ...]:
    return tuple(oracle.Tier(*row) for row in rows_of)


def csv_of(path: Path, table: Sequence[oracle.Tier]) -> str:
    """Write a tier table."""
    lines = ["floor,cap,mmr,deduction,max_leverage", *(",".join(map(repr, astuple(tier))) for tier in table)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def published(symbol: str) -> oracle.Dated:
    """The recorded tables of a symbol, as the source holds them."""
    frame = pq.read_table(REAL / "tiers" / "binance_um_tier_history.parquet").to_pandas()
    tables = []
    for when, part in frame[frame["symbol"] == symbol].groupby("snapshot"):
        cap = part["max_notional"].where(part["max_notional"] < 2.0**62, np.inf)
        columns = (part["min_notional"], cap, part["mmr"], part["maint_amount"], part["max_leverage"])
        tables.append((when.value // 10**6, table_of(list(zip(*columns, strict=True)))))
    return oracle.Dated(tuple(tables))


def bybit() -> tuple[oracle.Tier, ...]:
    """Risk limits of ADA: each tier ends at its value and begins at that before."""
    document = json.loads((REAL / "tiers" / "bybit_linear_risk_limit_20260805_BTC_ADA.json").read_text())
    found = [entry for entry in document["result"]["list"] if entry["symbol"] == "ADAUSDT"]
    names = ("riskLimitValue", "maintenanceMargin", "mmDeduction", "maxLeverage")
    values = [[float(entry[name] or 0) for name in names] for entry in found]
    floors = [0.0, *(cap for cap, *_ in values)]
    return table_of([(floor, *rest) for floor, rest in zip(floors, values, strict=False)])


def bybit_csv(folder: Path) -> str:
    """The same by ``backtest import tiers``."""
    source = REAL / "tiers" / "bybit_linear_risk_limit_20260805_BTC_ADA.json"
    return str(import_tiers([source], folder / "ADAUSDT.csv", symbol="ADAUSDT").path)


def dated_csv(path: Path, tables: oracle.Dated) -> str:
    lines = ["effective_from,floor,cap,mmr,deduction,max_leverage"]
    for at, table in tables.tables:
        when = pd.Timestamp(at, unit="ms", tz="UTC").isoformat()
        for tier in table:
            cap = "" if np.isinf(tier.cap) else tier.cap
            lines.append(f"{when},{tier.floor},{cap},{tier.mmr},{tier.deduction},{tier.max_leverage}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


# --- runs against the walk --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A run, and how the walk sees its scenarios."""

    made: oracle.Rows
    sweep: bt.Sweep
    margin: bt.Margin = field(default_factory=bt.Margin)
    entries: bt.Entries = field(default_factory=bt.Entries)
    symbol: str = "TEST"
    tables: Mapping[str, Held] = field(default_factory=dict)  # what a label of maintenance stands for
    terms: Mapping[str, object] = field(default_factory=dict)  # of the oracle's scenario, where no row says them
    grid: Callable[[oracle.Grid], oracle.Grid] = field(default=lambda laid: laid)
    weights: Callable[[oracle.Grid], list[float | None]] | None = None
    trades: Sequence[Trade] | None = None

    def laid(self) -> oracle.Grid:
        expiry = None if self.margin.expiry is None else instant_ms(self.margin.expiry)
        return self.grid(oracle.grid_of(self.made, expiry_ms=expiry))

    def scenario(self, row: Mapping[str, object]) -> oracle.Scenario:
        label = str(row["maintenance"])
        plain = scenario_of(pd.Series({**row, "maintenance": "0"}), self.margin)
        held = self.tables[label] if label in self.tables else 0.0 if label.startswith("ltv") else float(label)
        own = {"leverage": 1.0} if np.isnan(plain.leverage) else {}  # trades have their own
        return replace(plain, **{"maintenance": held, **own, **self.terms})  # type: ignore[arg-type]

    def sweeping(self, **axes: object) -> Case:
        """The same with other axes."""
        return replace(self, sweep=self.sweep.model_copy(update=axes))

    def bars(self, row: Mapping[str, object]) -> int:
        """The horizon of a row."""
        return duration_ms(str(row["horizon"])) // self.made.interval_ms

    def every_ms(self) -> int | None:
        return None if self.entries.every is None else duration_ms(self.entries.every)

    def run(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
        """Rows, events, and the row that each event is one of."""
        history, parts = history_of(self.made, self.symbol), {"margin": self.margin, "entries": self.entries}
        table, events = bt.run(history, self.sweep, **parts).table, bt.events_of(history, self.sweep, **parts)
        axes = list(table.columns[: table.columns.get_loc("entries")])
        keys, theirs = (frame[axes].astype(object).fillna("-").agg(tuple, axis=1) for frame in (table, events))
        return table.replace({"size": {np.nan: None}}), events, theirs.map({key: n for n, key in enumerate(keys)})


def assert_walked(case: Case, least: int = 20) -> pd.DataFrame:
    """Counts with ``==``, events to 1e-9; at least so many liquidations, or it would prove nothing."""
    grid = case.laid()
    table, events, place = case.run()
    weights = case.weights(grid) if case.weights else None
    for n, row in enumerate(table.to_dict("records")):
        scenario, horizon = case.scenario(row), case.bars(row)
        if case.trades is not None:
            verdicts, excluded = walk_trades(grid, scenario, case.trades, horizon)
        else:
            verdicts, excluded = oracle.walk(grid, scenario, horizon, every_ms=case.every_ms(), weights=weights)
        want = truth.count(verdicts, excluded)
        assert {name: row[name] for name in want} == want, row
        assert_same_events(events[place == n], verdicts, grid)
    assert table["liquidations"].sum() >= least and table["margin_calls"].sum() >= table["liquidations"].sum()
    return table
