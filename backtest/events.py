"""The flags: one row per entry × scenario, when it hit margin call and liquidation, and what was left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from backtest.barrier import entry_maintenance, notional_of
from backtest.config import Config, Data, Entries, Margin, Sweep
from backtest.engine import Crossings, first_crossings, parts_of
from backtest.errors import ConfigError
from backtest.history import Grid, PriceHistory
from backtest.progress import progress
from backtest.results import SURVIVAL_SCHEMA
from backtest.rules.tiers import TierTable
from backtest.runner import folders_for
from backtest.sources import Source, config_of, grid_for, sources_of, work_of
from backtest.sweep import Scenario, scenarios_at, scenarios_of
from backtest.where import Where
from backtest.work import Work

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.int64]

UNASKED_ROWS = 50_000_000
EVENT_CHUNK_BARS = 1 << 16
MOST_CHUNK_BARS = 1 << 22
ROWS_WRITTEN = 1 << 17
TIME = pa.timestamp("ms", tz="UTC")
AXES = [SURVIVAL_SCHEMA.field(i) for i in range(9)]
EVENT_SCHEMA = pa.schema(
    [
        *AXES,
        ("entry_time", TIME),
        ("entry_price", pa.float64()),
        ("rejected", pa.bool_()),
        ("liquidation_price", pa.float64()),
        ("bankruptcy_price", pa.float64()),
        ("margin_call_time", TIME),
        ("liquidation_time", TIME),
        ("bars_to_liquidation", pa.int64()),
        ("fill_price", pa.float64()),
        ("residual", pa.float64()),
        ("recovered", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted: whole scenarios that can match, and what is left to test row by row."""

    axes: list[Where]
    rows: list[Where]

    @classmethod
    def parse(cls, text: str | None) -> Selection:
        """Split a condition into the part that scenarios decide and the rest."""
        if text is None:
            return cls([], [])
        condition = Where(text)
        condition.require(EVENT_SCHEMA.names)
        names = {f.name for f in AXES}
        parts = condition.conjuncts()
        return cls([p for p in parts if p.columns <= names], [p for p in parts if not p.columns <= names])

    def wanted(self, symbol: str, scenario: Scenario, config: Config) -> NDArray[np.bool_]:
        """(n_horizons, n_leverages) combinations of a scenario that can match."""
        horizons, leverages = config.sweep.horizon, config.sweep.leverage
        labels = {"symbol": symbol, **scenario.columns()}
        n = len(horizons) * len(leverages)
        columns = [pa.repeat(pa.scalar(labels[f.name], f.type), n) for f in AXES[:7]]
        columns.append(pa.array([h for h in horizons for _ in leverages], pa.string()))
        columns.append(pa.array(list(leverages) * len(horizons), pa.float64()))
        batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema(AXES))
        out = np.ones(n, dtype=np.bool_)
        for part in self.axes:
            out &= part.mask(batch).to_numpy(zero_copy_only=False)
        return out.reshape(len(horizons), len(leverages))

    def filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows that satisfy what scenarios cannot decide."""
        for part in self.rows:
            batch = batch.filter(part.mask(batch))
        return batch


def write_events(
    config: Config, out: str | Path, where: str | None = None, *, everything: bool = False, overwrite: bool = False
) -> int:
    """Write the events of a configuration to a Parquet or CSV file.

    Parameters
    ----------
    config : Config
        As of `load_config`.
    out : path
        ``.parquet`` or ``.csv``; it appears whole or not at all.
    where : str, optional
        A condition on the columns, such as ``"leverage = 20 and side = 'long'"``.
    everything : bool
        Allow more than 50 million rows without a condition.
    overwrite : bool
        Replace `out` where it exists.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ConfigError
        If the file exists or has another suffix, the condition is not one, or the rows are too many.
    """
    target = Path(out)
    if target.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out must end in .parquet or .csv; got {target.name!r}")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; choose another file, or ask for --overwrite")
    selection = Selection.parse(where)
    scenarios = scenarios_of(config)
    sources = sources_of(config.data.path or "", config)
    if not any(selection.wanted(one.symbol, scenario, config).any() for one in sources for scenario in scenarios):
        raise ConfigError(f"--where selects no scenario of the sweep: {where!r}")
    if where is None and not everything:
        n_rows = 0
        for source in sources:
            work, _ = _of_symbol(config, source, scenarios)
            n_rows += count_rows(work, scenarios)
            if n_rows > UNASKED_ROWS:
                raise ConfigError(
                    f"the events are more than {UNASKED_ROWS:,} rows; narrow them with --where, or ask for --all"
                )
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    written = 0
    with folders_for(target):
        try:
            with _writer(partial, target.suffix) as writer:
                for source in sources:
                    work, own = _of_symbol(config, source, scenarios)
                    for table in _coalesced(symbol_events(work, config, own, selection)):
                        writer.write_table(table)
                        written += table.num_rows
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return written


def events_of(
    source: str | Path | PriceHistory | Sequence[PriceHistory],
    sweep: Sweep | None = None,
    *,
    where: str | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
) -> pd.DataFrame:
    """The events as a DataFrame; for more than fits in memory use `write_events`.

    Parameters
    ----------
    source, sweep, data, entries, margin
        As of `backtest.run`.
    where : str, optional
        A condition on the columns, such as ``"leverage = 20 and side = 'long'"``.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> bars = {"high": np.full(4, 101.0), "low": np.array([99.0, 99.0, 85.0, 99.0]), "close": np.full(4, 100.0)}
    >>> history = bt.PriceHistory("DIP", 3_600_000, 0, bars)
    >>> sweep = bt.Sweep(side=["long"], leverage=[10], horizon=["2h"], maintenance=[0.0])
    >>> bt.events_of(history, sweep)["bars_to_liquidation"].tolist()
    [2, 1]
    """
    config = config_of(source, sweep, data, entries, margin)
    selection, scenarios = Selection.parse(where), scenarios_of(config)
    batches: list[pa.RecordBatch] = []
    for one in sources_of(source, config):
        work, own = _of_symbol(config, one, scenarios)
        batches += symbol_events(work, config, own, selection)
    frame: pd.DataFrame = pa.Table.from_batches(batches, schema=EVENT_SCHEMA).to_pandas()
    return frame


def _of_symbol(config: Config, source: Source, scenarios: list[Scenario]) -> tuple[Work, list[Scenario]]:
    """Work of one symbol, and the scenarios with its own tier tables."""
    own = scenarios_at(scenarios, source.symbol)
    return work_of(config, grid_for(config, source, own)), own


def _writer(path: Path, suffix: str) -> pq.ParquetWriter:
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(path, EVENT_SCHEMA)
    return pq.ParquetWriter(path, EVENT_SCHEMA, compression="zstd")


def count_rows(work: Work, scenarios: list[Scenario]) -> int:
    """Rows of all events of a symbol."""
    cohorts = sum(int(cohort_mask(work, work.bars, h).sum()) for h in work.horizons)
    return cohorts * work.leverages.size * len(scenarios)


def cohort_mask(work: Work, bars: Int, horizon: int) -> NDArray[np.bool_]:
    """Entries whose window lies inside the grid, gaps permitting."""
    return (bars + horizon < work.grid.n_bars) & ~work.excluded(bars, horizon)


def symbol_events(
    work: Work, config: Config, scenarios: list[Scenario], selection: Selection
) -> Iterator[pa.RecordBatch]:
    """Events of one symbol: scenario by scenario, stretch by stretch, horizon by horizon, leverage by leverage."""
    per_entry = -(-work.grid.n_bars // max(1, work.bars.size))
    chunks = work.chunks(min(EVENT_CHUNK_BARS * per_entry, MOST_CHUNK_BARS))
    latest_close = _latest_close(work.grid)
    symbol = work.grid.symbol
    with progress(f"events of {symbol}", len(scenarios) * len(chunks)) as advance:
        for scenario in scenarios:
            wanted = selection.wanted(symbol, scenario, config)
            for chunk in (
                [part for c in chunks for part in parts_of(work, scenario.maintenance, c)] if wanted.any() else ()
            ):
                found = first_crossings(work, scenario, chunk)
                for h in np.flatnonzero(wanted.any(axis=1)):
                    kept = np.flatnonzero(cohort_mask(work, work.bars[chunk], work.horizons[h]))
                    window = Window(
                        config.sweep.horizon[h], work.horizons[h], work.bars[chunk][kept], kept, latest_close
                    )
                    for leverage in np.flatnonzero(wanted[h]):
                        batch = selection.filter(_batch(work, scenario, found, window, int(leverage)))
                        if batch.num_rows:
                            yield batch
                advance(1)
            if not wanted.any():
                advance(len(chunks))


@dataclass(frozen=True)
class Window:
    """The cohort of one horizon in a chunk."""

    label: str
    bars: int
    entry_bar: Int  # (n,)
    kept: Int  # (n,) their places in the chunk
    latest_close: Int  # (n_bars,) of `_latest_close`


def _coalesced(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of at least `ROWS_WRITTEN` rows, so that row groups are of a sane size."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= ROWS_WRITTEN:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _batch(work: Work, scenario: Scenario, found: Crossings, window: Window, leverage: int) -> pa.RecordBatch:
    """Rows of one horizon and leverage."""
    grid, horizon, bar, kept = work.grid, window.bars, window.entry_bar, window.kept
    rejected = bool(found.rejected[leverage])
    call, dead = (hits[kept, leverage].astype(np.int64) for hits in (found.margin_call, found.liquidation))
    call, dead = np.where(call > horizon, 0, call), np.where(dead > horizon, 0, dead)
    fee = scenario.open_fee if work.terms.fees_from_margin else 0.0
    position = Positions(scenario, float(work.leverages[leverage]), fee, grid.entry_price[bar])
    paid = found.series.paid
    local = bar - found.series.start
    end = np.where(dead > 0, local + dead, local + horizon)
    price = position.liquidation_price(paid[end] - paid[local], grid.start_ms + (bar - local + end) * grid.interval_ms)
    fill = position.fill(price, grid.open[bar + dead], work.terms.liquidation_slippage)
    left = position.equity(fill, paid[end] - paid[local]) - work.terms.liquidation_fee * position.growth(fill)
    residual = np.maximum(0.0, left * position.leverage)  # an isolated position never loses more than its margin
    last = window.latest_close[bar + horizon]
    held = position.equity(grid.close[last], paid[np.maximum(last - found.series.start, local)] - paid[local])
    recovered = (dead > 0) & (last > bar) & (held > 1 / position.leverage)
    n = kept.size
    labels = {"symbol": grid.symbol, **scenario.columns(), "horizon": window.label}
    labels["leverage"] = float(work.leverages[leverage])

    def known(values: Float | Int, mask: NDArray[np.bool_], kind: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, mask=~mask if not rejected else np.ones(n, np.bool_)).cast(kind or pa.float64())

    def when(offset: Int) -> pa.Array:
        return known(grid.start_ms + (bar + offset) * grid.interval_ms, offset > 0, TIME)

    bankruptcy = position.bankruptcy_price()
    columns = [pa.repeat(pa.scalar(labels[f.name], f.type), n) for f in AXES]
    columns += [
        pa.array(grid.start_ms + (bar + 1) * grid.interval_ms).cast(TIME),
        pa.array(position.entry_price),
        pa.array(np.full(n, rejected)),
        known(price, price > 0),
        known(bankruptcy, (bankruptcy > 0) & np.isfinite(bankruptcy)),
        when(call),
        when(dead),
        known(dead, dead > 0, pa.int64()),
        known(fill, (dead > 0) & ~np.isnan(fill)),
        known(residual, (dead > 0) & ~np.isnan(residual)),
        pa.array(recovered & (not rejected)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT_SCHEMA)


@dataclass(frozen=True)
class Positions:
    """Positions of one scenario and leverage, opened at `entry_price` : (n,); amounts are per unit of notional."""

    scenario: Scenario
    leverage: float
    fee: float
    entry_price: Float

    def worth(self, price: Float) -> Float:
        """What the position's value moves with: P, for inverse contracts 1/P."""
        return 1 / price if self.scenario.inverse else price

    def equity(self, price: Float, paid: Float) -> Float:
        """Margin balance at a price, as a share of the notional; paid : funding since entry, in the unit of worth."""
        entry = self.worth(self.entry_price)
        gain = self.scenario.lean * (self.worth(price) - entry) - self.scenario.sign * paid
        return 1 / self.leverage - self.fee + gain / entry

    def liquidation_price(self, paid: Float, when_ms: Int) -> Float:
        """Price at which equity equals maintenance, the tier being the one at that price; ≤ 0 where there is none.

        paid, when_ms : (n,) funding since entry, and the open time whose tier table is in force
        """
        rule = self.scenario.maintenance
        dates = [-np.inf if dated.effective_from_ms is None else dated.effective_from_ms for dated in rule.tables]
        place = np.maximum(0, np.searchsorted(dates, when_ms, side="right") - 1) if dates else np.zeros(len(paid), int)
        level = np.empty(len(paid))
        for k in np.unique(place):
            members = place == k
            level[members] = self._level(rule.tables[k].table if dates else None, paid[members], members)
        with np.errstate(divide="ignore"):
            return np.where(level > 1e-12 * self.worth(self.entry_price), self.worth(level), -1.0)

    def _level(self, table: TierTable | None, paid: Float, members: NDArray[np.bool_]) -> Float:
        """Worth at which it is liquidated under one tier table, or the flat rate."""
        lean, entry = self.scenario.lean, self.worth(self.entry_price[members])
        rule = self.scenario.maintenance
        notional = notional_of(self.scenario, self.leverage)
        left = 1 / self.leverage - self.fee - self.scenario.sign * paid / entry
        if rule.basis == "entry":
            return entry * (1 + lean * (entry_maintenance(rule, table, notional) - left))
        mmr, deduction = (np.array([rule.flat]), np.zeros(1)) if table is None else table.lines(notional)
        slope = mmr + rule.close_reserve - lean
        roots = (left[:, None] - lean + deduction / notional) / slope
        worst: Float = roots.max(axis=1) if lean > 0 else roots.min(axis=1)
        return entry * worst

    def bankruptcy_price(self) -> Float:
        """Price at which the margin is gone, fees and funding aside; not within (0, ∞) where there is none."""
        with np.errstate(divide="ignore"):
            return self.worth(self.worth(self.entry_price) * (1 - self.scenario.lean / self.leverage))

    def growth(self, price: Float) -> Float:
        """Notional at a price over that at entry."""
        return self.worth(price) / self.worth(self.entry_price)

    def fill(self, price: Float, trigger_open: Float, slippage: float) -> Float:
        """The worse of the liquidation price and the bar's open (a gap is not filled at the level), then slipped."""
        level = np.where(price > 0, price, np.nan)
        worse = np.fmin(level, trigger_open) if self.scenario.sign > 0 else np.fmax(level, trigger_open)
        return worse * (1 - self.scenario.sign * slippage)


def _latest_close(grid: Grid) -> Int:
    """(n_bars,) the latest bar with a trigger close, the bar itself included."""
    out: Int = np.maximum.accumulate(np.where(np.isnan(grid.close), 0, np.arange(grid.n_bars)))
    return out
