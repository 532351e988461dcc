"""The tables of a run directory: counts per calendar block or cell, and the rows that follow from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrays import Float
from backtest.engine.regime_labels import RegimeLabels
from backtest.errors import ConfigError, DataError
from backtest.stats.binomial_interval import attainable_low, trial_bars
from backtest.stats.schema import axes_fields, outcome_schema, repeated, survival_schema
from backtest.stats.survival_table import COUNTS, OUTCOMES, Estimates, Span, SurvivalTable, estimate
from backtest.units import MS_PER_UNIT, duration_ms


@dataclass(frozen=True)
class Blocks:
    """Where the counts of a scenario per calendar block lie: a row group of a file under ``blocks/``."""

    symbol: str
    scenario: dict[str, str | float | None]
    file: str
    row_group: int


def block_counts(info: dict[str, Any]) -> list[Blocks]:
    """Every scenario of a run, in the order of the rows of ``survival.parquet``."""
    return [Blocks(**entry) for entry in info["blocks"]]


def read_blocks(folder: Path, where: Blocks, n_horizons: int, n_leverages: int) -> SurvivalTable:
    """Counts of one scenario, as they were written by `write_blocks`."""
    try:
        file = pq.ParquetFile(folder / "blocks" / where.file)
        group = file.read_row_group(where.row_group)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{folder / 'blocks' / where.file}: cannot be read ({error}); run again") from None
    lacking = [name for name in COUNTS if name not in group.column_names]
    if lacking:
        raise DataError(f"{folder / 'blocks' / where.file}: holds no {lacking[0]}; an older version made it, run again")
    first = int(file.schema_arrow.metadata[b"first_block"])

    def read(names: Sequence[str]) -> np.ndarray:
        values = [group[name].combine_chunks().values.to_numpy(zero_copy_only=False) for name in names]
        return np.stack(values).reshape(len(names), 1, n_horizons, n_leverages, -1)

    counts = read(COUNTS).astype(np.int64, copy=False)
    return SurvivalTable(counts, first, read(OUTCOMES) if OUTCOMES[0] in group.column_names else None)


def write_blocks(
    file: Path,
    table: SurvivalTable,
    scenarios: list[dict[str, str | float | None]],
    axes: pa.Table,
    block_ms: int | None = None,
) -> None:
    """Write counts per calendar block, or per cell of a regime, a row group per scenario.

    Parameters
    ----------
    axes : Table
        ``horizon`` and ``leverage`` of each row of a scenario.
    block_ms : int, optional
        Length of a calendar block; None: the columns are cells.
    """
    size = table.counts.shape[-1]
    columns = axes_fields(scenarios[0])[1:]
    counts = table.counts.astype(np.int32) if table.counts.max(initial=0) < 1 << 31 else table.counts
    cells: dict[str, np.ndarray] = dict(zip(COUNTS, counts, strict=True))
    if table.outcomes is not None:
        cells |= zip(OUTCOMES, table.outcomes, strict=True)
    lists = [pa.field(name, pa.list_(pa.from_numpy_dtype(values.dtype), size)) for name, values in cells.items()]
    metadata, stamps = {"first_block": str(table.first_block)}, []
    if block_ms is not None:
        metadata["block_ms"] = str(block_ms)
        stamps = [pa.field("first_block_start", pa.timestamp("ms", tz="UTC"))]
    schema = pa.schema([*columns, *axes.schema, *stamps, *lists], metadata)
    starts = [pa.scalar(table.first_block * block_ms, stamp.type) for stamp in stamps if block_ms is not None]
    split = [f"{name}.list.element" for name in cells]  # half the time and three quarters of the size
    with pq.ParquetWriter(
        file, schema, compression="zstd", write_statistics=False, use_dictionary=False, use_byte_stream_split=split
    ) as writer:
        for i, scenario in enumerate(scenarios):
            labels = repeated(columns, scenario, axes.num_rows)
            values = [pa.FixedSizeListArray.from_arrays(pa.array(v[i].reshape(-1)), size) for v in cells.values()]
            arrays = [*labels, *(column.combine_chunks() for column in axes.columns)]
            arrays += [*(pa.repeat(start, axes.num_rows) for start in starts), *values]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def point_axes(info: dict[str, Any]) -> pa.Table:
    """``horizon`` and ``leverage`` of the rows of one scenario."""
    horizons, leverages = info["config"]["sweep"]["horizon"], info["config"]["sweep"]["leverage"]
    shown = [None] if info.get("own_leverage") else list(leverages)
    return pa.table(
        {
            "horizon": pa.array([h for h in horizons for _ in leverages], pa.string()),
            "leverage": pa.array(shown * len(horizons), pa.float64()),
        }
    )


def survival_rows(folder: Path, info: dict[str, Any], confidence: float) -> Iterator[pa.RecordBatch]:
    """Rows of ``survival.parquet``, scenario by scenario, estimated from ``blocks/``."""
    axes, sweep = point_axes(info), info["config"]["sweep"]
    for where in block_counts(info):
        table = read_blocks(folder, where, len(sweep["horizon"]), len(sweep["leverage"]))
        labels = {"symbol": where.symbol, **where.scenario}
        yield _batch(labels, axes, estimate(table, _span(info, where.symbol), confidence))


def write_rates(
    file: Path,
    table: SurvivalTable,
    scenarios: Sequence[dict[str, str | float | None]],
    axes: pa.Table,
    span: Span,
    confidence: float,
) -> None:
    """Write the rows of ``survival.parquet`` of counts that are at hand, a row group per scenario.

    scenarios : their columns, the symbol first
    """
    with pq.ParquetWriter(file, survival_schema(scenarios[0]), compression="zstd", write_statistics=False) as writer:
        for i, labels in enumerate(scenarios):
            one = SurvivalTable(table.counts[:, i : i + 1], table.first_block)
            writer.write_batch(_batch(labels, axes, estimate(one, span, confidence)))


def rate_rows(folder: Path, info: dict[str, Any]) -> Iterator[pa.Table]:
    """What `write_rates` wrote into a folder, in the order of ``survival.parquet``."""
    name, file = "", None
    for where in block_counts(info):
        if file is None or where.file != name:
            name, file = where.file, pq.ParquetFile(folder / where.file)
        yield file.read_row_group(where.row_group)


def effective_trials(folder: Path, info: dict[str, Any], confidence: float) -> np.ndarray:
    """(n_rows,) float64: independent trials that the entries of each row of ``survival.parquet`` are worth."""
    sweep = info["config"]["sweep"]
    size = len(sweep["horizon"]), len(sweep["leverage"])
    return np.concatenate(
        [
            estimate(read_blocks(folder, where, *size), _span(info, where.symbol), confidence).n_eff.reshape(-1)
            for where in block_counts(info)
        ]
    )


def regime_rows(folder: Path, info: dict[str, Any], regime: str, confidence: float) -> Iterator[pa.RecordBatch]:
    """As `survival_rows`, label by label of a regime."""
    axes, sweep = point_axes(info), info["config"]["sweep"]
    for where in block_counts(info):
        cells = read_cells(folder / "blocks", where.symbol, regime)
        own = replace(where, file=regime_file(where.file, regime))
        table = read_blocks(folder, own, len(sweep["horizon"]), len(sweep["leverage"]))
        for one in scenario_labels(table, cells, _span(info, where.symbol), confidence):
            batch = _batch({"symbol": where.symbol, **where.scenario, "regime": one.name}, axes, one.found)
            yield batch.append_column("attainable", pa.array(one.attainable.reshape(-1), from_pandas=True))


def _span(info: dict[str, Any], symbol: str) -> Span:
    present = {entry["symbol"]: int(entry["present_bars"]) for entry in info["coverage"]}
    config = info["config"]
    return present_span(
        config["sweep"]["horizon"], config["statistics"]["block"], int(info["interval_ms"]), present[symbol]
    )


def present_span(horizon: Sequence[str], block: str, interval_ms: int, present_bars: int) -> Span:
    """What the statistics need to know of a grid."""
    horizons = tuple(duration_ms(text) // interval_ms for text in horizon)
    return Span(horizons, duration_ms(block) // interval_ms, present_bars, MS_PER_UNIT["d"] / interval_ms)


def outcome_rows(folder: Path, info: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """Rows of ``outcomes.parquet``, scenario by scenario, from ``blocks/``.

    What a policy cost is the mean return without it (policy ``none``, where the axis holds it) less that with it.
    """
    axes, sweep = point_axes(info), info["config"]["sweep"]
    size = len(sweep["horizon"]), len(sweep["leverage"])
    plain: dict[tuple[object, ...], np.ndarray] = {}
    for bare in (True, False):  # first those that the others are compared with
        for where in block_counts(info):
            key = (where.symbol, *(value for name, value in where.scenario.items() if name != "policy"))
            if bare:
                if where.scenario.get("policy") == "none":
                    plain[key] = _mean_return(read_blocks(folder, where, *size))
                continue
            yield _outcome_batch(where, axes, read_blocks(folder, where, *size), plain.get(key))


def _mean_return(table: SurvivalTable) -> np.ndarray:
    """(n_horizons · n_leverages,) mean of what was left, less what was put in, over the initial margin."""
    assert table.outcomes is not None
    total = dict(zip(OUTCOMES, table.outcomes.sum(axis=-1)[:, 0], strict=True))
    entries = table["entries"].sum(axis=-1)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(((total["equity"] - total["added"]) / entries - 1).reshape(-1))


def _outcome_batch(where: Blocks, axes: pa.Table, table: SurvivalTable, plain: np.ndarray | None) -> pa.RecordBatch:
    labels = {"symbol": where.symbol, **where.scenario}
    schema = outcome_schema(labels)
    assert table.outcomes is not None
    cells: dict[str, np.ndarray] = {n: table[n].sum(axis=-1).reshape(-1) for n in ("entries", "liquidations")}
    cells |= {n: v.sum(axis=-1).reshape(-1) for n, v in zip(OUTCOMES, table.outcomes, strict=True)}
    cells["survived"] = cells["entries"] - cells["liquidations"] - cells["stopped"] - cells["took_profit"]
    cells["return_mean"] = _mean_return(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        cells["growth_mean"] = cells["log_growth"] / cells["entries"]
    cells["policy_cost"] = np.full(axes.num_rows, np.nan) if plain is None else plain - cells["return_mean"]
    arrays = repeated(axes_fields(labels), labels, axes.num_rows)
    arrays += [column.combine_chunks() for column in axes.columns]
    for column in list(schema)[len(arrays) :]:
        values = cells[column.name].astype(column.type.to_pandas_dtype())
        arrays.append(pa.array(values, mask=np.isnan(values)))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _batch(labels: dict[str, str | float | None], axes: pa.Table, found: Estimates) -> pa.RecordBatch:
    arrays = repeated(axes_fields(labels), labels, axes.num_rows)
    arrays += [column.combine_chunks() for column in axes.columns]
    arrays += [pa.array(found.counts[name].reshape(-1)) for name in COUNTS[:5]]
    arrays += [
        pa.array(values.reshape(-1), mask=np.isnan(values.reshape(-1)))
        for values in (found.survival, found.low, found.high, found.survival_km)
    ]
    arrays.append(pa.array(found.few_blocks.reshape(-1)))
    return pa.RecordBatch.from_arrays(arrays, schema=survival_schema(labels))


MOST_LETTERS = 100
"""Of a symbol in the name of a file: portfolios may be long, and file systems end at 255 bytes."""


@dataclass(frozen=True)
class RegimeLabel:
    """What became of the entries of one label, arrays of (1, n_horizons, n_leverages)."""

    name: str
    found: Estimates
    attainable: Float


def file_stem(symbol: str) -> str:
    """What the files of a symbol or portfolio are called: its name where a file may have it.

    Examples
    --------
    >>> file_stem("BTC/USDT:USDT")
    'BTC%2FUSDT%3AUSDT'
    """
    name = quote(symbol, safe="")
    return (
        name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    )


def regime_file(blocks: str, regime: str) -> str:
    """The file of a regime beside that of the calendar blocks of the same scenarios."""
    return f"{blocks.removesuffix('.parquet')}.{quote(regime, safe='')}.parquet"


def write_cells(folder: Path, symbol: str, regimes: Sequence[RegimeLabels]) -> Path:
    """Write which block and label each cell of a symbol's regimes is; return the file."""
    document = {
        cells.regime: {
            "labels": list(cells.labels),
            "block": cells.block.tolist(),
            "label": cells.label.tolist(),
            "trials": cells.trials.tolist(),
        }
        for cells in regimes
    }
    file = folder / _cells_file(symbol)
    file.write_text(json.dumps(document, ensure_ascii=False))
    return file


def read_cells(folder: Path, symbol: str, regime: str) -> RegimeLabels:
    """One regime of a symbol, without the places of the entries."""
    file = folder / _cells_file(symbol)
    try:
        read = json.loads(file.read_text())[regime]
        block, label, trials = (np.array(read[name], np.int64) for name in ("block", "label", "trials"))
        return RegimeLabels(regime, tuple(read["labels"]), np.empty(0, np.int64), block, label, trials)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: cannot be read ({type(error).__name__}); run again") from None


def _cells_file(symbol: str) -> str:
    return f"{file_stem(symbol)}.regimes.json"


def regime_names(info: dict[str, Any]) -> list[str]:
    """The regimes of a run."""
    return [str(r["name"] or r["column"] or r["by"]) for r in info["config"]["statistics"].get("regimes", [])]


def regime_named(info: dict[str, Any], by: str | None) -> str:
    """The regime that is meant; ConfigError with those of the run."""
    names = regime_names(info)
    if not names:
        raise ConfigError(
            "no regimes were counted; ask for them with statistics.regimes, such as ['year', 'volatility']"
        )
    if by is None and len(names) == 1:
        return names[0]
    if by not in names:
        raise ConfigError(f"by must be one of the regimes of the run: {', '.join(names)}; got {by!r}")
    return by


def scenario_labels(table: SurvivalTable, cells: RegimeLabels, span: Span, confidence: float) -> Iterator[RegimeLabel]:
    """Each label of a regime, in order.

    table : counts of one scenario by cell
    span : of the whole symbol
    """
    first = int(cells.block.min())
    for number, name in enumerate(cells.labels):
        mine = np.flatnonzero(cells.label == number)
        n_blocks = int(np.ptp(cells.block[mine])) + 1 if mine.size else 1
        counts = np.zeros((*table.counts.shape[:-1], n_blocks), np.int64)
        if mine.size:
            first = int(cells.block[mine[0]])
            counts[..., cells.block[mine] - first] = table.counts[..., mine - table.first_block]
        lengths = np.array([trial_bars(h, span.day) for h in span.horizons])
        present = np.minimum(cells.trials[number] * lengths, span.present)
        own = Span(span.horizons, span.block, present, span.day)
        found = estimate(SurvivalTable(counts, first), own, confidence)
        most = found.counts["entries"].max(axis=(0, 2))
        best = [
            attainable_low(int(n), h, span.block, int(bars), span.day, confidence)
            for n, h, bars in zip(most, span.horizons, present, strict=True)
        ]
        attainable = np.broadcast_to(np.array(best)[None, :, None], found.survival.shape)
        yield RegimeLabel(name, found, attainable)
