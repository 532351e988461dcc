"""The counts of a run on disk: per calendar block and per regime, a row group of a Parquet file per scenario."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.engine.regime_labels import RegimeLabels
from backtest.errors import ConfigError, DataError
from backtest.stats.schema import axes_fields, repeated
from backtest.stats.survival_table import COUNTS, OUTCOMES, Span, SurvivalTable
from backtest.units import MS_PER_UNIT, duration_ms

MOST_LETTERS = 100
"""Most letters of a symbol in a file name: portfolios may be long, and file systems allow 255 bytes."""


@dataclass(frozen=True)
class Blocks:
    """Where the counts of a scenario are: a row group of a file under ``blocks/``."""

    symbol: str
    scenario: dict[str, str | float | None]
    file: str
    row_group: int


@dataclass(frozen=True)
class RunCounts:
    """The counts of a run.

    Attributes
    ----------
    folder : Path
        The run directory.
    info : dict
        ``run.json``.
    """

    folder: Path
    info: dict[str, Any]

    @cached_property
    def scenarios(self) -> list[Blocks]:
        """Every scenario, in the order of the rows of ``survival.parquet``."""
        return [Blocks(**entry) for entry in self.info["blocks"]]

    @cached_property
    def axes(self) -> pa.Table:
        """``horizon`` and ``leverage`` of the rows of one scenario."""
        return point_axes(self.info)

    @property
    def confidence(self) -> float:
        """Level of the bounds in ``survival.parquet``."""
        return float(self.info["config"]["statistics"]["confidence"])

    def read(self, where: Blocks) -> SurvivalTable:
        """Counts of one scenario, as `write_blocks` wrote them."""
        path, sweep = self.folder / "blocks" / where.file, self.info["config"]["sweep"]
        try:
            file = pq.ParquetFile(path)
            group = file.read_row_group(where.row_group)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: cannot be read ({error}); run again") from None
        lacking = [name for name in COUNTS if name not in group.column_names]
        if lacking:
            raise DataError(f"{path}: holds no {lacking[0]}; an older version made it, run again")

        def values(names: Sequence[str]) -> np.ndarray:
            columns = [group[name].combine_chunks().values.to_numpy(zero_copy_only=False) for name in names]
            return np.stack(columns).reshape(len(names), 1, len(sweep["horizon"]), len(sweep["leverage"]), -1)

        counts = values(COUNTS).astype(np.int64, copy=False)
        first = int(file.schema_arrow.metadata[b"first_block"])
        return SurvivalTable(counts, first, values(OUTCOMES) if OUTCOMES[0] in group.column_names else None)

    def tables(self) -> Iterator[tuple[Blocks, SurvivalTable]]:
        """Every scenario with its counts."""
        for where in self.scenarios:
            yield where, self.read(where)

    def regime_tables(self, regime: str) -> Iterator[tuple[Blocks, SurvivalTable, RegimeLabels]]:
        """Every scenario with its counts by cell of a regime, and what the cells are."""
        for where in self.scenarios:
            cells = self._read_cells(where.symbol, regime)
            yield where, self.read(replace(where, file=regime_file(where.file, regime))), cells

    def span(self, symbol: str) -> Span:
        """Horizons, block and present bars of a symbol, as the statistics need them."""
        present = {entry["symbol"]: int(entry["present_bars"]) for entry in self.info["coverage"]}
        config = self.info["config"]
        block = config["statistics"]["block"]
        return present_span(config["sweep"]["horizon"], block, int(self.info["interval_ms"]), present[symbol])

    def regime(self, by: str | None) -> str:
        """The requested regime, or the only one; ConfigError if the run has no such one."""
        names = regime_names(self.info)
        if not names:
            raise ConfigError(
                "no regimes were counted; ask for them with statistics.regimes, such as ['year', 'volatility']"
            )
        if by is None and len(names) == 1:
            return names[0]
        if by not in names:
            raise ConfigError(f"by must be one of the regimes of the run: {', '.join(names)}; got {by!r}")
        return by

    def _read_cells(self, symbol: str, regime: str) -> RegimeLabels:
        """One regime of a symbol, without the labels of single entries."""
        file = self.folder / "blocks" / _cells_file(symbol)
        try:
            read = json.loads(file.read_text())[regime]
            block, label, trials = (np.array(read[name], np.int64) for name in ("block", "label", "trials"))
            return RegimeLabels(regime, tuple(read["labels"]), np.empty(0, np.int64), block, label, trials)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{file}: cannot be read ({type(error).__name__}); run again") from None


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


def write_cells(folder: Path, symbol: str, regimes: Sequence[RegimeLabels]) -> Path:
    """Write the block and label of each cell of the regimes of a symbol; return the file."""
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


def present_span(horizon: Sequence[str], block: str, interval_ms: int, present_bars: int) -> Span:
    """Horizons, block and present bars in the units that the statistics need."""
    horizons = tuple(duration_ms(text) // interval_ms for text in horizon)
    return Span(horizons, duration_ms(block) // interval_ms, present_bars, MS_PER_UNIT["d"] / interval_ms)


def regime_names(info: dict[str, Any]) -> list[str]:
    """The regimes of a run."""
    return [str(r["name"] or r["column"] or r["by"]) for r in info["config"]["statistics"].get("regimes", [])]


def file_stem(symbol: str) -> str:
    """File name of a symbol or portfolio: its name, escaped and cut where a file needs it.

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


def _cells_file(symbol: str) -> str:
    return f"{file_stem(symbol)}.regimes.json"
