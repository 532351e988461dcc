"""A run, read back: tables, the choice, pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.analysis_frames import (
    conditional_frame,
    count_columns,
    hazard_frame,
    incidence_frame,
    time_frame,
)
from backtest.choose import choose
from backtest.columns import axes_fields, outcome_schema, repeated, survival_schema
from backtest.errors import ConfigError, DataError
from backtest.intervals import check_confidence
from backtest.plots.words import noted
from backtest.survival import COUNTS, OUTCOMES, Estimates, Span, SurvivalTable, estimate
from backtest.units import MS_PER_UNIT, duration_ms

if TYPE_CHECKING:
    import pandas as pd

    from backtest.plots import Plots


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run.

    Attributes
    ----------
    path : Path
        The run directory.
    info : dict
        ``run.json``.

    Examples
    --------
    >>> import backtest as bt
    >>> result = bt.load("runs/demo")                      # doctest: +SKIP
    >>> result.choose(survival=0.95, horizon="7d")         # doctest: +SKIP
    """

    path: Path
    info: dict[str, Any]
    _keep: TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """``survival.parquet`` as a DataFrame, one row per scenario, horizon and leverage."""
        file = self.path / "survival.parquet"
        try:
            frame: pd.DataFrame = pq.read_table(file).to_pandas()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{file}: cannot be read ({error}); run again") from None
        return noted(frame, self.info)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """``outcomes.parquet`` as a DataFrame: how positions ended and what came of them in money.

        Totals over the entries, amounts in initial margins; ``return_mean`` is per entry and net of fees and funding,
        ``policy_cost`` what a policy took from it.
        """
        file = self.path / "outcomes.parquet"
        if not self.has_outcomes:
            raise ConfigError(f"{self.path}: outcomes were not counted; ask for them with statistics.outcomes = true")
        frame: pd.DataFrame = pq.read_table(file).to_pandas()
        return noted(frame, self.info)

    @property
    def has_outcomes(self) -> bool:
        """Whether the run followed positions to what became of them in money."""
        return (self.path / "outcomes.parquet").is_file()

    def survival(self) -> pd.DataFrame:
        """Survival rates: scenario axes and leverage as index, horizons as columns, in the order of the run."""
        axes = [field.name for field in axes_fields(self.table.columns)]
        wide = self.table.set_index([*axes, "leverage", "horizon"])["survival"].unstack("horizon", sort=False)
        return wide[list(self.info["config"]["sweep"]["horizon"])]

    @cached_property
    def _counts(self) -> dict[str, np.ndarray]:
        """Totals over blocks, in the order of the table's rows."""
        sweep = self.info["config"]["sweep"]
        size = len(sweep["horizon"]), len(sweep["leverage"])
        return count_columns(read_blocks(self.path, where, *size) for where in blocks_of(self.info))

    def hazard(self) -> pd.DataFrame:
        """Hazard per interval between horizons: see `backtest.analysis_frames.hazard_frame`."""
        return hazard_frame(self.table, self._counts)

    def times(self, to: str | None = None) -> pd.DataFrame:
        """Median survival time and restricted mean: see `backtest.analysis_frames.time_frame`."""
        return time_frame(self.table, to=to, counts=self._counts)

    def conditional(self, given: str) -> pd.DataFrame:
        """Survival of those alive at a horizon: see `backtest.analysis_frames.conditional_frame`."""
        return conditional_frame(self.table, given, self._counts)

    def incidence(self) -> pd.DataFrame:
        """Incidence of competing outcomes and of margin calls: see `backtest.analysis_frames.incidence_frame`."""
        return incidence_frame(self.table, self._counts)

    def choose(
        self,
        survival: float = 0.95,
        horizon: str | None = None,
        confidence: float | None = None,
        worst_over: Sequence[str] = (),
    ) -> pd.DataFrame:
        """The largest leverage such that it and every lower one of the grid have ``survival_low`` ≥ `survival`.

        Parameters
        ----------
        survival : float
            Target for the lower bound.
        horizon : str, optional
            Default: each horizon of the run.
        confidence : float, optional
            Level of the bounds; default: the run's. Another one is computed from ``blocks/``.
        worst_over : sequence of str
            Axes whose worst case counts, such as ``["funding", "side"]``.

        Returns
        -------
        DataFrame
            See `backtest.choose.choose`.
        """
        own = float(self.info["config"]["statistics"]["confidence"])
        level = own if confidence is None else confidence
        table = self.table if level == own else self.table_at(level)
        present = {entry["symbol"]: int(entry["present_bars"]) for entry in self.info["coverage"]}
        interval = int(self.info["interval_ms"])
        block = duration_ms(self.info["config"]["statistics"]["block"])
        return choose(
            table,
            present,
            interval,
            survival=survival,
            horizon=horizon,
            confidence=level,
            block_ms=block,
            worst_over=worst_over,
        )

    def table_at(self, confidence: float) -> pd.DataFrame:
        """The table with bounds at another level of confidence, from the counts in ``blocks/``."""
        check_confidence(confidence)
        frame: pd.DataFrame = pa.Table.from_batches(list(survival_rows(self.path, self.info, confidence))).to_pandas()
        return frame

    @property
    def plot(self) -> Plots:
        """Plots of the table: ``plot.leverage()``, ``plot.heatmap()``, ``plot.curves()``."""
        from backtest.plots import Plots

        return Plots(self.table, self.outcomes if self.has_outcomes else None)

    def report(self, survival: float = 0.95, path: str | Path | None = None) -> Path:
        """Write the run as one self-contained HTML page.

        Parameters
        ----------
        survival : float
            Target of the choice that the page leads with.
        path : path, optional
            Default: ``report.html`` in the run directory.
        """
        from backtest.report import write_report

        counted = self.outcomes if self.has_outcomes else None
        return write_report(self.table, self.info, self.choose(survival), path or self.path / "report.html", counted)

    def __repr__(self) -> str:
        symbols = ", ".join(entry["symbol"] for entry in self.info["coverage"])
        return (
            f"Result({symbols}: {len(self.info['blocks'])} scenarios, {self.info['verdicts']:,} verdicts, {self.path})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        from backtest.console import choices_text, leverage_text

        text = "\n\n".join([repr(self), choices_text(self.choose()), leverage_text(self.table)])
        return f"<pre style='line-height:1.25;overflow-x:auto'>{escape(text)}</pre>"


def load(path: str | Path) -> Result:
    """A run directory, back as a result.

    Raises
    ------
    DataError
        If the directory does not hold a finished run.
    """
    folder = Path(path)
    try:
        info = json.loads((folder / "run.json").read_text())
    except OSError as error:
        raise DataError(f"{folder}: is not a run directory (run.json: {error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{folder / 'run.json'}: is not JSON ({error}); run again") from None
    if not isinstance(info, dict) or not {"config", "coverage", "blocks", "interval_ms"} <= info.keys():
        raise DataError(f"{folder / 'run.json'}: is not that of a run; run again")
    if not (folder / "survival.parquet").is_file():
        raise DataError(f"{folder}: survival.parquet is missing; the run is not whole, run it again")
    return Result(folder, info)


@dataclass(frozen=True)
class Blocks:
    """Where the counts of a scenario per calendar block lie: a row group of a file under ``blocks/``."""

    symbol: str
    scenario: dict[str, str | float | None]
    file: str
    row_group: int


def blocks_of(info: dict[str, Any]) -> list[Blocks]:
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

    return SurvivalTable(read(COUNTS), first, read(OUTCOMES) if OUTCOMES[0] in group.column_names else None)


def write_blocks(
    file: Path, table: SurvivalTable, scenarios: list[dict[str, str | float | None]], axes: pa.Table, block_ms: int
) -> None:
    """Write counts per calendar block, a row group per scenario.

    Parameters
    ----------
    axes : Table
        ``horizon`` and ``leverage`` of each row of a scenario.
    """
    size = table.counts.shape[-1]
    columns = axes_fields(scenarios[0])[1:]
    cells = dict(zip(COUNTS, table.counts, strict=True))
    if table.outcomes is not None:
        cells |= zip(OUTCOMES, table.outcomes, strict=True)
    lists = [pa.field(name, pa.list_(pa.from_numpy_dtype(values.dtype), size)) for name, values in cells.items()]
    stamp = pa.field("first_block_start", pa.timestamp("ms", tz="UTC"))
    metadata = {"first_block": str(table.first_block), "block_ms": str(block_ms)}
    schema = pa.schema([*columns, *axes.schema, stamp, *lists], metadata)
    start = pa.scalar(table.first_block * block_ms, stamp.type)
    with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as writer:
        for i, scenario in enumerate(scenarios):
            labels = repeated(columns, scenario, axes.num_rows)
            values = [pa.FixedSizeListArray.from_arrays(pa.array(v[i].reshape(-1)), size) for v in cells.values()]
            arrays = [*labels, *(column.combine_chunks() for column in axes.columns)]
            arrays += [pa.repeat(start, axes.num_rows), *values]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def axes_of(info: dict[str, Any]) -> pa.Table:
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
    axes = axes_of(info)
    sweep, interval = info["config"]["sweep"], int(info["interval_ms"])
    horizons = tuple(duration_ms(text) // interval for text in sweep["horizon"])
    block = duration_ms(info["config"]["statistics"]["block"]) // interval
    present = {entry["symbol"]: int(entry["present_bars"]) for entry in info["coverage"]}
    for where in blocks_of(info):
        table = read_blocks(folder, where, len(horizons), len(sweep["leverage"]))
        span = Span(horizons, block, present[where.symbol], MS_PER_UNIT["d"] / interval)
        found = estimate(table, span, confidence)
        yield _batch(where, axes, found)


def outcome_rows(folder: Path, info: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """Rows of ``outcomes.parquet``, scenario by scenario, from ``blocks/``.

    What a policy cost is the mean return without it (policy ``none``, where the axis holds it) less that with it.
    """
    axes, sweep = axes_of(info), info["config"]["sweep"]
    size = len(sweep["horizon"]), len(sweep["leverage"])
    plain: dict[tuple[object, ...], np.ndarray] = {}
    for bare in (True, False):  # first those that the others are compared with
        for where in blocks_of(info):
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
    cells["policy_cost"] = np.full(axes.num_rows, np.nan) if plain is None else plain - cells["return_mean"]
    arrays = repeated(axes_fields(labels), labels, axes.num_rows)
    arrays += [column.combine_chunks() for column in axes.columns]
    for column in list(schema)[len(arrays) :]:
        values = cells[column.name].astype(column.type.to_pandas_dtype())
        arrays.append(pa.array(values, mask=np.isnan(values)))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _batch(where: Blocks, axes: pa.Table, found: Estimates) -> pa.RecordBatch:
    labels = {"symbol": where.symbol, **where.scenario}
    arrays = repeated(axes_fields(labels), labels, axes.num_rows)
    arrays += [column.combine_chunks() for column in axes.columns]
    arrays += [pa.array(found.counts[name].reshape(-1)) for name in COUNTS[:5]]
    arrays += [
        pa.array(values.reshape(-1), mask=np.isnan(values.reshape(-1)))
        for values in (found.survival, found.low, found.high, found.survival_km)
    ]
    arrays.append(pa.array(found.few_blocks.reshape(-1)))
    return pa.RecordBatch.from_arrays(arrays, schema=survival_schema(labels))
