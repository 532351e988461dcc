"""Events: one row per entry and scenario, with times of margin call and liquidation, fill price and what was left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.analysis.row_filter import RowFilter, scenario_mask
from backtest.analysis.study_inputs import Source, StudyInputs, SymbolEntries
from backtest.arrays import Bool, Float, Int
from backtest.config.models import Config, Data, Entries, Margin, Sweep
from backtest.config.scenarios import Scenario, expand_scenarios, split_sides
from backtest.engine.cohorts import Population
from backtest.engine.count_by_entry import critical_leverages
from backtest.engine.crossings import first_crossings
from backtest.engine.outcomes import policy_exits, simulate_leverages
from backtest.engine.positions import Exits, Window, close_positions, entry_windows
from backtest.errors import ConfigError
from backtest.filesystem import atomic_write, local
from backtest.progress import progress
from backtest.runs.inputs import HistorySource
from backtest.runs.run_directory import folders_for
from backtest.stats.schema import FURTHER, LIFE_COUNTS, POINT, TIME, axes_fields, event_schema, repeated

if TYPE_CHECKING:
    import pandas as pd

Labels = dict[str, str | float | None]

UNASKED_ROWS = 50_000_000
EVENT_CHUNK_BARS = 1 << 16
ROWS_WRITTEN = 1 << 17


@dataclass(frozen=True)
class EventFilter:
    """Which rows are wanted: whole scenarios that can match, and what is left to test row by row."""

    axes: list[RowFilter]
    rows: list[RowFilter]

    @classmethod
    def parse(cls, text: str | None) -> EventFilter:
        """Split a condition into the part that scenarios decide and the rest."""
        if text is None:
            return cls([], [])
        condition = RowFilter(text)
        condition.require(event_schema(FURTHER, lives=True, trades=True).names)
        names = {field.name for field in (*axes_fields(FURTHER), *POINT)}
        parts = condition.conjuncts()
        return cls([p for p in parts if p.columns <= names], [p for p in parts if not p.columns <= names])

    def wanted(self, config: Config, symbol: str, scenario: Scenario) -> Bool:
        """(n_horizons, n_leverages) combinations of a scenario that can match."""
        return scenario_mask(self.axes, config, symbol, scenario)

    def filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows that satisfy what scenarios cannot decide."""
        for part in self.rows:
            batch = batch.filter(part.mask(batch))
        return batch


def events(
    source: Source,
    sweep: Sweep | None = None,
    *,
    where: str | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
) -> pd.DataFrame:
    """The events as a DataFrame, one row per entry and scenario; `write_events` writes more than fits in memory.

    Parameters
    ----------
    source, sweep, data, entries, margin
        As of `backtest.Study`, or a study.
    where : str, optional
        A condition on the columns, such as ``"leverage = 20 and side = 'long'"``.

    Returns
    -------
    DataFrame
        Columns as in docs/interface.md. Rows are the cohort of each horizon, rejected entries included.

    Raises
    ------
    ConfigError, RuleError, DataError
        As of `backtest.run`, and for portfolios.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> bars = {"high": np.full(4, 101.0), "low": np.array([99.0, 99.0, 85.0, 99.0]), "close": np.full(4, 100.0)}
    >>> history = bt.PriceHistory("DIP", 3_600_000, 0, bars)
    >>> sweep = bt.Sweep(side=["long"], leverage=[10], horizon=["2h"], maintenance=[0.0])
    >>> bt.events(history, sweep)["bars_to_liquidation"].tolist()
    [2, 1]
    """
    study = _checked(StudyInputs.given(source, sweep, data, entries, margin))
    config, selection = study.config, EventFilter.parse(where)
    batches: list[pa.RecordBatch] = []
    for one in study.sources():
        batches += symbol_events(SymbolEntries.read(config, one), selection)
    frame: pd.DataFrame = pa.Table.from_batches(batches, schema=events_schema(config)).to_pandas()
    return frame


events_of = events
"""The former name of `events`."""


def write_events(
    source: Source,
    out: str | Path,
    where: str | None = None,
    *,
    sweep: Sweep | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    everything: bool = False,
    overwrite: bool = False,
) -> int:
    """Write the events to a Parquet or CSV file, chunk by chunk.

    Parameters
    ----------
    source, sweep, data, entries, margin
        As of `backtest.Study`, or a study.
    out : path
        ``.parquet`` or ``.csv``; the file appears when it is complete.
    where : str, optional
        A condition on the columns, such as ``"leverage = 20 and side = 'long'"``.
    everything : bool
        Allow more than 50 million rows without a condition.
    overwrite : bool
        Replace `out` if it exists.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ConfigError
        If the file exists or has another suffix, the condition cannot be parsed, or there are too many rows.
    """
    target = local(out, "--out")
    if target.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out must end in .parquet or .csv; got {target.name!r}")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; choose another file, or ask for --overwrite")
    study = _checked(StudyInputs.given(source, sweep, data, entries, margin))
    config, selection, sources = study.config, EventFilter.parse(where), study.sources()
    scenarios = expand_scenarios(config)
    if not any(selection.wanted(config, one.symbol, scenario).any() for one in sources for scenario in scenarios):
        raise ConfigError(f"--where selects no scenario of the sweep: {where!r}")
    if where is None and not everything:
        _refuse_many_rows(config, sources)
    written = 0
    with (
        folders_for(target),
        atomic_write(target) as partial,
        _writer(partial, target.suffix, events_schema(config)) as writer,
    ):
        for one in sources:
            for table in _coalesced(symbol_events(SymbolEntries.read(config, one), selection)):
                writer.write_table(table)
                written += table.num_rows
    return written


def _checked(study: StudyInputs) -> StudyInputs:
    study.refuse({"portfolio": "events are those of single positions; run it for its survival and band"})
    return study


def _refuse_many_rows(config: Config, sources: Sequence[HistorySource]) -> None:
    n_rows = 0
    for one in sources:
        n_rows += count_rows(SymbolEntries.read(config, one))
        if n_rows > UNASKED_ROWS:
            raise ConfigError(
                f"the events are more than {UNASKED_ROWS:,} rows; narrow them with --where, or ask for --all"
            )


def events_schema(config: Config) -> pa.Schema:
    """Columns of the events of a configuration."""
    first = expand_scenarios(config)[0]
    return event_schema(first.columns(), lives=first.policy is not None, trades=config.entries.file is not None)


def _writer(path: Path, suffix: str, schema: pa.Schema) -> pq.ParquetWriter:
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(path, schema)
    return pq.ParquetWriter(path, schema, compression="zstd")


def count_rows(entries: SymbolEntries) -> int:
    """Rows of all events of a symbol."""
    population, every = entries.population, slice(0, entries.population.bars.size)
    cohorts = 0
    for scenario in entries.scenarios:
        for side in split_sides(scenario):
            weight = population.weights(scenario.weight, every, side.sign)
            cohorts += int(population.members(every, weight).inside.sum())
    return cohorts * population.leverages.size


def symbol_events(entries: SymbolEntries, selection: EventFilter) -> Iterator[pa.RecordBatch]:
    """Events of one symbol: by scenario, chunk of entries, horizon and leverage."""
    population, config, chunks = entries.population, entries.config, entries.chunks(EVENT_CHUNK_BARS)
    with progress(f"events of {entries.symbol}", len(entries.scenarios) * len(chunks)) as advance:
        for scenario in entries.scenarios:
            wanted = selection.wanted(config, entries.symbol, scenario)
            if not wanted.any():
                advance(len(chunks))
                continue
            for chunk in chunks:
                for side, part in entries.parts(scenario, chunk):
                    for batch in _batches(population, config, side, part, wanted):
                        rows = selection.filter(batch)
                        if rows.num_rows:
                            yield rows
                advance(1)


def _coalesced(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of at least `ROWS_WRITTEN` rows each, so that row groups are not too small."""
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
        yield from _policy_batches(population, config, scenario, chunk, wanted)
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


def _policy_batches(
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
