"""The rows that follow from the counts of a run: survival, by regime, outcomes in money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrays import Float
from backtest.engine.regime_labels import RegimeLabels
from backtest.runs.count_files import Blocks, RunCounts
from backtest.stats.binomial_interval import attainable_low, trial_bars
from backtest.stats.schema import axes_fields, outcome_schema, repeated, survival_schema
from backtest.stats.survival_table import COUNTS, OUTCOMES, Estimates, Span, SurvivalTable, estimate


def survival_rows(counts: RunCounts, confidence: float) -> Iterator[pa.RecordBatch]:
    """Rows of ``survival.parquet``, scenario by scenario, at any level of confidence."""
    for where, table in counts.tables():
        labels = {"symbol": where.symbol, **where.scenario}
        yield _batch(labels, counts.axes, estimate(table, counts.span(where.symbol), confidence))


def effective_trials(counts: RunCounts, confidence: float) -> np.ndarray:
    """(n_rows,) float64: independent trials that the entries of each row of ``survival.parquet`` are worth."""
    found = (estimate(table, counts.span(where.symbol), confidence) for where, table in counts.tables())
    return np.concatenate([one.n_eff.reshape(-1) for one in found])


def regime_rows(counts: RunCounts, regime: str, confidence: float) -> Iterator[pa.RecordBatch]:
    """As `survival_rows`, label by label of a regime."""
    for where, table, cells in counts.regime_tables(regime):
        for one in scenario_labels(table, cells, counts.span(where.symbol), confidence):
            batch = _batch({"symbol": where.symbol, **where.scenario, "regime": one.name}, counts.axes, one.found)
            yield batch.append_column("attainable", pa.array(one.attainable.reshape(-1), from_pandas=True))


def write_rates(
    file: Path,
    table: SurvivalTable,
    scenarios: Sequence[dict[str, str | float | None]],
    axes: pa.Table,
    span: Span,
    confidence: float,
) -> None:
    """Write the rows of ``survival.parquet`` that follow from counts in memory, a row group per scenario.

    scenarios : their columns, the symbol first
    """
    with pq.ParquetWriter(file, survival_schema(scenarios[0]), compression="zstd", write_statistics=False) as writer:
        for i, labels in enumerate(scenarios):
            one = SurvivalTable(table.counts[:, i : i + 1], table.first_block)
            writer.write_batch(_batch(labels, axes, estimate(one, span, confidence)))


def rate_rows(counts: RunCounts, folder: Path) -> Iterator[pa.Table]:
    """What `write_rates` wrote into a folder, in the order of ``survival.parquet``."""
    name, file = "", None
    for where in counts.scenarios:
        if file is None or where.file != name:
            name, file = where.file, pq.ParquetFile(folder / where.file)
        yield file.read_row_group(where.row_group)


def outcome_rows(counts: RunCounts) -> Iterator[pa.RecordBatch]:
    """Rows of ``outcomes.parquet``, scenario by scenario.

    What a policy cost is the mean return without it (policy ``none``, where the axis holds it) less that with it.
    """
    plain: dict[tuple[object, ...], np.ndarray] = {
        _but_policy(where): _mean_return(counts.read(where))
        for where in counts.scenarios
        if where.scenario.get("policy") == "none"
    }
    for where, table in counts.tables():
        yield _outcome_batch(where, counts.axes, table, plain.get(_but_policy(where)))


def _but_policy(where: Blocks) -> tuple[object, ...]:
    return (where.symbol, *(value for name, value in where.scenario.items() if name != "policy"))


def _mean_return(table: SurvivalTable) -> np.ndarray:
    """(n_horizons · n_leverages,) mean return: final equity less added margin, over the initial margin, less 1."""
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


@dataclass(frozen=True)
class RegimeLabel:
    """Estimates of the entries of one label, arrays of (1, n_horizons, n_leverages)."""

    name: str
    found: Estimates
    attainable: Float


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
