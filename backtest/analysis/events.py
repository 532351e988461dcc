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

from backtest.analysis.row_filter import Where
from backtest.arrays import Bool, Float, Int
from backtest.config.models import Config, Data, Entries, Margin, Sweep
from backtest.config.resolve import has_own_leverage, resolve_config, with_trades
from backtest.config.scenarios import Scenario, expand_scenarios, scenarios_at, split_sides
from backtest.data.history import PriceHistory
from backtest.engine.adverse_series import split_by_table
from backtest.engine.cohorts import Population
from backtest.engine.count_by_entry import critical_leverages
from backtest.engine.crossings import first_crossings
from backtest.engine.outcomes import policy_exits, simulate_leverages
from backtest.engine.positions import Exits, Window, close_positions, entry_windows
from backtest.engine.prepare import prepare_entries
from backtest.errors import ConfigError
from backtest.filesystem import local
from backtest.progress import progress
from backtest.runs.inputs import HistorySource, checked_sources, read_grid
from backtest.runs.run_directory import folders_for
from backtest.stats.schema import FURTHER, LIFE_COUNTS, POINT, TIME, axes_fields, event_schema, repeated

if TYPE_CHECKING:
    import pandas as pd

Labels = dict[str, str | float | None]

UNASKED_ROWS = 50_000_000
EVENT_CHUNK_BARS = 1 << 16
MOST_CHUNK_BARS = 1 << 22
ROWS_WRITTEN = 1 << 17


@dataclass(frozen=True)
class EventFilter:
    """Which rows are wanted: whole scenarios that can match, and what is left to test row by row."""

    axes: list[Where]
    rows: list[Where]

    @classmethod
    def parse(cls, text: str | None) -> EventFilter:
        """Split a condition into the part that scenarios decide and the rest."""
        if text is None:
            return cls([], [])
        condition = Where(text)
        condition.require(event_schema(FURTHER, lives=True, trades=True).names)
        names = {field.name for field in (*axes_fields(FURTHER), *POINT)}
        parts = condition.conjuncts()
        return cls([p for p in parts if p.columns <= names], [p for p in parts if not p.columns <= names])

    def wanted(self, symbol: str, scenario: Scenario, config: Config) -> Bool:
        """(n_horizons, n_leverages) combinations of a scenario that can match."""
        horizons, leverages = config.sweep.horizon, config.sweep.leverage
        labels = {"symbol": symbol, **scenario.columns()}
        n = len(horizons) * len(leverages)
        fields = axes_fields(labels)
        columns = repeated(fields, labels, n)
        columns.append(pa.array([h for h in horizons for _ in leverages], pa.string()))
        shown = [None] if has_own_leverage(config) else list(leverages)
        columns.append(pa.array(shown * len(horizons), pa.float64()))
        batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema([*fields, *POINT]))
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
    target = local(out, "--out")
    if target.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out must end in .parquet or .csv; got {target.name!r}")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; choose another file, or ask for --overwrite")
    config = with_trades(config)
    _refuse_portfolio(config)
    selection = EventFilter.parse(where)
    scenarios = expand_scenarios(config)
    sources = checked_sources(config.data.path or "", config)
    if not any(selection.wanted(one.symbol, scenario, config).any() for one in sources for scenario in scenarios):
        raise ConfigError(f"--where selects no scenario of the sweep: {where!r}")
    if where is None and not everything:
        n_rows = 0
        for source in sources:
            population, _ = _of_symbol(config, source, scenarios)
            n_rows += count_rows(population, scenarios)
            if n_rows > UNASKED_ROWS:
                raise ConfigError(
                    f"the events are more than {UNASKED_ROWS:,} rows; narrow them with --where, or ask for --all"
                )
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    written = 0
    with folders_for(target):
        try:
            with _writer(partial, target.suffix, events_schema(config, scenarios)) as writer:
                for source in sources:
                    population, own = _of_symbol(config, source, scenarios)
                    for table in _coalesced(symbol_events(population, config, own, selection)):
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
    config = resolve_config(source, sweep, data, entries, margin)
    _refuse_portfolio(config)
    selection, scenarios = EventFilter.parse(where), expand_scenarios(config)
    batches: list[pa.RecordBatch] = []
    for one in checked_sources(source, config):
        population, own = _of_symbol(config, one, scenarios)
        batches += symbol_events(population, config, own, selection)
    frame: pd.DataFrame = pa.Table.from_batches(batches, schema=events_schema(config, scenarios)).to_pandas()
    return frame


def _refuse_portfolio(config: Config) -> None:
    if config.sweep.portfolio:
        raise ConfigError("sweep.portfolio: events are those of single positions; run it for its survival and band")


def _of_symbol(config: Config, source: HistorySource, scenarios: list[Scenario]) -> tuple[Population, list[Scenario]]:
    """Entries of one symbol, and the scenarios with its own tier tables."""
    own = scenarios_at(scenarios, source.symbol)
    return prepare_entries(config, read_grid(config, source, own)), own


def events_schema(config: Config, scenarios: Sequence[Scenario]) -> pa.Schema:
    """Columns of the events of a configuration."""
    first = scenarios[0]
    return event_schema(first.columns(), lives=first.policy is not None, trades=config.entries.file is not None)


def _writer(path: Path, suffix: str, schema: pa.Schema) -> pq.ParquetWriter:
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(path, schema)
    return pq.ParquetWriter(path, schema, compression="zstd")


def count_rows(population: Population, scenarios: list[Scenario]) -> int:
    """Rows of all events of a symbol."""
    every = slice(0, population.bars.size)
    cohorts = 0
    for scenario in scenarios:
        for side in split_sides(scenario):
            weight = population.weights(scenario.weight, every, side.sign)
            cohorts += int(population.members(every, weight).inside.sum())
    return cohorts * population.leverages.size


def symbol_events(
    population: Population, config: Config, scenarios: list[Scenario], selection: EventFilter
) -> Iterator[pa.RecordBatch]:
    """Events of one symbol: scenario by scenario, stretch by stretch, horizon by horizon, leverage by leverage."""
    per_entry = -(-population.grid.n_bars // max(1, population.bars.size))
    chunks = population.chunks(min(EVENT_CHUNK_BARS * per_entry, MOST_CHUNK_BARS))
    symbol = population.grid.symbol
    with progress(f"events of {symbol}", len(scenarios) * len(chunks)) as advance:
        for scenario in scenarios:
            wanted = selection.wanted(symbol, scenario, config)
            if not wanted.any():
                advance(len(chunks))
                continue
            for chunk in chunks:
                for part in split_by_table(population, scenario.maintenance, chunk):
                    for side in split_sides(scenario):
                        for batch in _batches(population, config, side, part, wanted):
                            rows = selection.filter(batch)
                            if rows.num_rows:
                                yield rows
                advance(1)


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


def _batches(
    population: Population, config: Config, scenario: Scenario, chunk: slice, wanted: Bool
) -> Iterator[pa.RecordBatch]:
    """Rows of a chunk: horizon by horizon, leverage by leverage."""
    if scenario.policy is not None:
        yield from _life_batches(population, config, scenario, chunk, wanted)
        return
    found = first_crossings(population, scenario, chunk)
    critical = None if population.trades is None else critical_leverages(population, scenario, chunk)
    for window in entry_windows(population, chunk, found.series.weight):
        for leverage in np.flatnonzero(wanted[window.horizon]).tolist():
            labels = row_labels(population, config, scenario, window.horizon, leverage)
            further = _trade_columns(population, window, critical)
            yield _batch(
                population, labels, window, close_positions(population, scenario, found, window, leverage), further
            )


def _trade_columns(population: Population, window: Window, critical: Float | None) -> list[pa.Array]:
    """The row of each trade in its file, and the leverage from which it would have been liquidated."""
    if population.trades is None:
        return []
    found = np.full(window.kept.size, np.nan) if critical is None else critical[window.horizon, window.kept]
    return [pa.array(population.trades.row[window.place]), pa.array(found, mask=~np.isfinite(found))]


def _life_batches(
    population: Population, config: Config, scenario: Scenario, chunk: slice, wanted: Bool
) -> Iterator[pa.RecordBatch]:
    """Rows of a policy: leverage by leverage, horizon by horizon."""
    weight = population.weights(scenario.weight, chunk, scenario.sign)
    windows = list(entry_windows(population, chunk, weight))
    for leverage, (kept, simulated) in enumerate(simulate_leverages(population, scenario, chunk)):
        for window in windows:
            if wanted[window.horizon, leverage]:
                who, h = np.searchsorted(kept, window.kept), window.horizon
                labels = row_labels(population, config, scenario, h, leverage)
                own = float(population.leverages[leverage]) * weight[window.kept]
                closed = policy_exits(population, scenario, simulated, who, h, own, window.entry_price)
                end = simulated.end[who, h].astype(np.int64)
                when = population.grid.start_ms + (window.entry_bar + end) * population.grid.interval_ms
                names = np.array(["survived", "liquidated", "stopped", "took_profit"])
                further = [
                    pa.array(names[simulated.outcome[who, h]], mask=closed.rejected),
                    pa.array(when, mask=closed.rejected | (end == 0)).cast(TIME),
                    *(
                        pa.array(getattr(simulated, n)[who, h], mask=closed.rejected)
                        for n in ("equity", "fees", "added")
                    ),
                    *(pa.array(getattr(simulated, n)[who, h].astype(np.int64)) for n in LIFE_COUNTS),
                    *_trade_columns(population, window, None),
                ]
                yield _batch(population, labels, window, closed, further)


def row_labels(population: Population, config: Config, scenario: Scenario, horizon: int, leverage: int) -> Labels:
    """The columns that are the same in all rows of a scenario, horizon and leverage."""
    own = population.trades is not None and population.trades.own_leverage
    return {
        "symbol": population.grid.symbol,
        **scenario.columns(),
        "horizon": config.sweep.horizon[horizon],
        "leverage": None if own else float(population.leverages[leverage]),
    }


def _batch(
    population: Population, labels: Labels, window: Window, closed: Exits, further: Sequence[pa.Array] = ()
) -> pa.RecordBatch:
    """Rows of one horizon and leverage; `further` are the columns of a policy and of trades."""
    grid, bar, n = population.grid, window.entry_bar, window.kept.size
    call, dead, price, fill = closed.margin_call, closed.liquidation, closed.liquidation_price, closed.fill_price

    def known(values: Float | Int, mask: Bool, kind: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, mask=~mask | closed.rejected).cast(kind or pa.float64())

    def when(offset: Int) -> pa.Array:
        return known(grid.start_ms + (bar + offset) * grid.interval_ms, offset > 0, TIME)

    bankruptcy = closed.bankruptcy_price
    paid = (dead > 0) & ~np.isnan(closed.left)
    owed = paid | (~np.isnan(closed.left) & ("policy" in labels))  # a stop-loss that a gap overruns leaves a loss too
    columns = repeated([*axes_fields(labels), *POINT], labels, n)
    columns += [
        pa.array(grid.start_ms + (bar + 1) * grid.interval_ms).cast(TIME),
        pa.array(window.entry_price),
        pa.array(closed.rejected),
        known(price, price > 0),
        known(bankruptcy, (bankruptcy > 0) & np.isfinite(bankruptcy)),
        when(call),
        when(dead),
        known(dead, dead > 0, pa.int64()),
        known(fill, ~np.isnan(fill) & ((dead > 0) | ("policy" in labels))),
        known(closed.residual, paid),
        pa.array(closed.recovered & ~closed.rejected),
        known(closed.insurance, owed),
    ]
    columns += further
    schema = event_schema(labels, lives="policy" in labels, trades=population.trades is not None)
    return pa.RecordBatch.from_arrays(columns, schema=schema)
