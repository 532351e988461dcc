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

from backtest.columns import FURTHER, POINT, TIME, axes_fields, event_schema, repeated
from backtest.config import Config, Data, Entries, Margin, Sweep
from backtest.engine import first_crossings, parts_of
from backtest.entrywise import Crossings, members_of
from backtest.errors import ConfigError
from backtest.history import Grid, PriceHistory
from backtest.positions import fill_price, positions_of
from backtest.progress import progress
from backtest.runner import folders_for
from backtest.series import Series, held_cost
from backtest.sources import Source, config_of, grid_for, has_own_leverage, sources_of, with_trades, work_of
from backtest.sweep import Scenario, scenarios_at, scenarios_of, sides_of
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
        condition.require(event_schema(FURTHER, lives=True, trades=True).names)
        names = {field.name for field in (*axes_fields(FURTHER), *POINT)}
        parts = condition.conjuncts()
        return cls([p for p in parts if p.columns <= names], [p for p in parts if not p.columns <= names])

    def wanted(self, symbol: str, scenario: Scenario, config: Config) -> NDArray[np.bool_]:
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
    target = Path(out)
    if target.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out must end in .parquet or .csv; got {target.name!r}")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; choose another file, or ask for --overwrite")
    config = with_trades(config)
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
            with _writer(partial, target.suffix, schema_of(config, scenarios)) as writer:
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
    frame: pd.DataFrame = pa.Table.from_batches(batches, schema=schema_of(config, scenarios)).to_pandas()
    return frame


def _of_symbol(config: Config, source: Source, scenarios: list[Scenario]) -> tuple[Work, list[Scenario]]:
    """Work of one symbol, and the scenarios with its own tier tables."""
    own = scenarios_at(scenarios, source.symbol)
    return work_of(config, grid_for(config, source, own)), own


def schema_of(config: Config, scenarios: Sequence[Scenario]) -> pa.Schema:
    """Columns of the events of a configuration."""
    first = scenarios[0]
    return event_schema(first.columns(), lives=first.policy is not None, trades=config.entries.file is not None)


def _writer(path: Path, suffix: str, schema: pa.Schema) -> pq.ParquetWriter:
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(path, schema)
    return pq.ParquetWriter(path, schema, compression="zstd")


def count_rows(work: Work, scenarios: list[Scenario]) -> int:
    """Rows of all events of a symbol."""
    every = slice(0, work.bars.size)
    cohorts = 0
    for scenario in scenarios:
        for side in sides_of(scenario):
            weight = work.weights(scenario.weight, every, side.sign)
            cohorts += int(members_of(work, every, weight).inside.sum())
    return cohorts * work.leverages.size


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
            if not wanted.any():
                advance(len(chunks))
                continue
            for chunk in chunks:
                for part in parts_of(work, scenario.maintenance, chunk):
                    for side in sides_of(scenario):
                        found = first_crossings(work, side, part)
                        for leverage, window in _windows(work, config, found, part, wanted, latest_close):
                            batch = selection.filter(_batch(work, side, found, window, leverage))
                            if batch.num_rows:
                                yield batch
                advance(1)


def _windows(
    work: Work, config: Config, found: Crossings, chunk: slice, wanted: NDArray[np.bool_], latest_close: Int
) -> Iterator[tuple[int, Window]]:
    """Horizons and leverages that are wanted, each with the cohort of its horizon."""
    members = members_of(work, chunk, found.series.weight)
    ascending = {axis: k for k, axis in enumerate(members.axis)}
    price, until = work.entry_price(chunk), work.until(chunk)
    for h in np.flatnonzero(wanted.any(axis=1)).tolist():
        kept = np.flatnonzero(members.inside[ascending[h]])
        bar = work.bars[chunk][kept]
        last = np.minimum(bar + work.horizons[h], until[kept])
        label = config.sweep.horizon[h]
        window = Window(label, work.horizons[h], bar, last, kept, kept + chunk.start, price[kept], latest_close)
        for leverage in np.flatnonzero(wanted[h]).tolist():
            yield leverage, window


@dataclass(frozen=True)
class Window:
    """The cohort of one horizon in a chunk; arrays of (n,)."""

    label: str
    bars: int
    entry_bar: Int
    last: Int  # last bar at risk
    kept: Int  # places in the chunk
    place: Int  # places among the entries of the symbol
    entry_price: Float
    latest_close: Int  # (n_bars,) of `_latest_close`

    def cost(self, series: Series, until: Int) -> Float:
        """What holding has cost up to these bars: funding, or the growth of a debt."""
        return held_cost(series, self.entry_bar - series.start, until - series.start)


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
    grid, terms, bar, kept = work.grid, work.terms, window.entry_bar, window.kept
    rejected = found.rejected[kept, leverage]
    call, dead = (hits[kept, leverage].astype(np.int64) for hits in (found.margin_call, found.liquidation))
    call, dead = np.where(call > window.bars, 0, call), np.where(dead > window.bars, 0, dead)
    fee = scenario.open_fee if terms.fees_from_margin else 0.0
    own = float(work.leverages[leverage]) * found.series.weight[kept]
    position = positions_of(scenario, own, fee, window.entry_price)
    end = np.where(dead > 0, bar + dead, window.last)
    scale = np.ones(end.size) if grid.scale is None else grid.scale[end]
    price = position.liquidation_price(window.cost(found.series, end), grid.start_ms + end * grid.interval_ms, scale)
    fill = fill_price(price, grid.open[bar + dead], scenario.sign, terms.liquidation_slippage)
    left = position.equity(fill, window.cost(found.series, end)) - terms.liquidation_fee * position.growth(fill)
    left = left / position.margin
    residual = np.maximum(0.0, left)  # an isolated position never loses more than its margin
    insurance = np.minimum(0.0, left)
    if terms.surplus == "fund":
        residual, insurance = np.zeros_like(left) + 0 * left, left
    last = window.latest_close[window.last]
    held = position.equity(grid.close[last], window.cost(found.series, np.maximum(last, bar)))
    recovered = (dead > 0) & (last > bar) & (held > position.margin)
    n = kept.size
    labels = {"symbol": grid.symbol, **scenario.columns(), "horizon": window.label}
    labels["leverage"] = (
        None if work.trades is not None and work.trades.own_leverage else float(work.leverages[leverage])
    )

    def known(values: Float | Int, mask: NDArray[np.bool_], kind: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, mask=~mask | rejected).cast(kind or pa.float64())

    def when(offset: Int) -> pa.Array:
        return known(grid.start_ms + (bar + offset) * grid.interval_ms, offset > 0, TIME)

    bankruptcy = position.bankruptcy_price()
    closed = (dead > 0) & ~np.isnan(left)
    schema = event_schema(scenario.columns(), trades=work.trades is not None)
    columns = repeated([*axes_fields(labels), *POINT], labels, n)
    columns += [
        pa.array(grid.start_ms + (bar + 1) * grid.interval_ms).cast(TIME),
        pa.array(position.entry_price),
        pa.array(rejected),
        known(price, price > 0),
        known(bankruptcy, (bankruptcy > 0) & np.isfinite(bankruptcy)),
        when(call),
        when(dead),
        known(dead, dead > 0, pa.int64()),
        known(fill, (dead > 0) & ~np.isnan(fill)),
        known(residual, closed),
        pa.array(recovered & ~rejected),
        known(insurance, closed),
    ]
    if work.trades is not None:
        columns.append(pa.array(work.trades.row[window.place]))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _latest_close(grid: Grid) -> Int:
    """(n_bars,) the latest bar with a trigger close, the bar itself included."""
    out: Int = np.maximum.accumulate(np.where(np.isnan(grid.close), 0, np.arange(grid.n_bars)))
    return out
