"""Files of prices, mark prices and funding laid over each other by bar, checked, and written as one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float
from backtest.data.history import LAST, PriceHistory, from_rows
from backtest.data.quality.check import Checking, Coverage, Report
from backtest.data.quality.import_rules import ImportWatch
from backtest.data.writer import adding
from backtest.errors import DataError
from backtest.filesystem import Place
from backtest.ingest.bars import BarColumns
from backtest.ingest.funding import Charges, by_bar, check_spacing
from backtest.ingest.messages import Notices
from backtest.ingest.options import Request
from backtest.units import instant_text


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes
    ----------
    path : Path, or Remote in an object store
        Directory of the symbol in the dataset.
    rows : int
        Rows written.
    span : tuple of str
        Open times of the first and last row, ISO 8601 UTC.
    gaps : int
        Runs of bars without trigger prices.
    charges : int
        Funding charges taken over.
    coverage : Coverage
        As `backtest.data.quality.check` reports it.
    notes : tuple of str
        What was understood and decided, for people.
    warnings : tuple of str
        What may be wrong with the data.
    """

    path: Place
    rows: int
    span: tuple[str, str]
    gaps: int
    charges: int
    coverage: Coverage
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def write_parts(
    request: Request,
    prices: BarColumns | None,
    mark: BarColumns | None,
    charges: Charges | None,
    notices: Notices,
) -> Imported:
    """Merge prices, mark prices and funding by bar, check the result and write it.

    Raises
    ------
    DataError
        If the result is no sound history.
    ConfigError
        If the symbol is in the dataset already and ``request.existing`` is ``"refuse"``.
    """
    step = request.interval_ms
    parts = [part for part in (prices, mark and _marked(mark)) if part is not None]
    bars = np.concatenate([part.times for part in parts])
    count = 0
    if charges is not None:
        check_spacing(charges.ms, int(bars.min()), int(bars.max()) + step, notices)
        part, count = by_bar(charges, step, int(bars.min()), int(bars.max()), notices)
        parts.append(part)
    history = _merged(request.symbol, step, parts)
    checking = ImportCheck(request.symbol, step)
    checking.add(history)
    report = checking.finish(notices)
    _say_alone(history, notices)
    with adding(request.out, request.symbol, step, request.existing) as addition:
        addition.add(history)
    first, last = addition.span_ms
    span = (instant_text(first), instant_text(last))
    coverage = report.coverage[0]
    return Imported(addition.path, addition.rows, span, coverage.gaps, count, coverage, notices.notes, notices.warnings)


class ImportCheck:
    """The check of an import, piece by piece."""

    def __init__(self, symbol: str, step: int) -> None:
        self._watch = ImportWatch(step)
        self._checking = Checking(symbol, step, self._watch)

    def add(self, history: PriceHistory) -> None:
        """Look at the next bars."""
        self._checking.add(history)

    def finish(self, notices: Notices) -> Report:
        """Tell what looks wrong; DataError if the bars are no sound history, or show that a file was misread."""
        report = self._checking.report()
        if not report.ok:
            raise DataError(f"nothing was written, as the result does not pass the check:\n{report.text()}")
        refusal = self._watch.refusal()
        if refusal is not None:
            raise DataError(f"nothing was written: {refusal}")
        for line in report.warning_lines():
            notices.warn(line)
        return report


def _marked(part: BarColumns) -> BarColumns:
    return BarColumns(part.times, {f"mark_{name}": values for name, values in part.columns.items() if name in LAST})


def _merged(symbol: str, step: int, parts: Sequence[BarColumns]) -> PriceHistory:
    stamps = np.unique(np.concatenate([part.times for part in parts]))
    columns: dict[str, Float] = {}
    for part in parts:
        place = np.searchsorted(stamps, part.times)
        for name, values in part.columns.items():
            columns[name] = np.full(stamps.size, np.nan)
            columns[name][place] = values
    return from_rows(symbol, step, stamps, columns)


def _say_alone(history: PriceHistory, notices: Notices) -> None:
    """How many rows have one price only, or none."""
    nothing = np.zeros(history.n_bars, dtype=np.bool_)
    there = {name: ~np.isnan(values) for name, values in history.columns.items()}
    last = there.get("close", nothing)
    mark = there.get("mark_close", last)
    other = there.get("volume", nothing) | there.get("funding_rate", nothing)
    for rows, what in (
        (last & ~mark, "bars have a last price and no mark price"),
        (mark & ~last, "bars have a mark price and no last price"),
        (other & ~mark & ~last, "rows have a volume or funding charge and no price"),
    ):
        if rows.any():
            notices.warn(f"{int(rows.sum()):,} {what}")
