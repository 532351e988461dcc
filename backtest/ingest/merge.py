"""Prices, mark prices and funding merged by bar, checked, and written into a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float, Int
from backtest.data.history import LAST, PriceHistory, from_rows
from backtest.data.quality.check import Checking, Coverage
from backtest.data.quality.import_rules import ImportWatch
from backtest.data.writer import adding
from backtest.errors import DataError
from backtest.filesystem import Place
from backtest.ingest.bars import BarColumns
from backtest.ingest.funding import Charges, by_bar, check_charges
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


@dataclass(frozen=True)
class Piece:
    """Bars of a span of time; SHA-256 and first bar, UTC milliseconds, of the archives that they come from."""

    prices: BarColumns | None
    mark: BarColumns | None
    digests: tuple[tuple[str, int], ...] = ()


def write_pieces(request: Request, pieces: Iterable[Piece], charges: Charges | None, notices: Notices) -> Imported:
    """Merge prices, mark prices and funding by bar, check them and write them.

    Parameters
    ----------
    request : Request
    pieces : iterable of Piece
        In the order of time; only one is in memory at a time.
    charges : Charges or None
    notices : Notices
        Takes what the bars show.

    Raises
    ------
    DataError
        If the result is no sound history; nothing is written then.
    ConfigError
        If the symbol is in the dataset already and ``request.existing`` is ``"refuse"``.
    """
    step, count, span = request.interval_ms, 0, None
    funding = None if charges is None else by_bar(charges, step)
    watch, presence = ImportWatch(step), np.zeros(4, np.int64)
    checking = Checking(request.symbol, step, watch)
    with adding(request.out, request.symbol, step, request.existing) as addition:
        for piece in pieces:
            parts = [part for part in (piece.prices, piece.mark and _marked(piece.mark)) if part is not None]
            first, last = min(int(part.times[0]) for part in parts), max(int(part.times[-1]) for part in parts)
            if funding is not None:  # charges between two pieces belong to the second
                here = slice(*np.searchsorted(funding.times, [first if span is None else span[1] + 1, last + 1]))
                parts.append(BarColumns(funding.times[here], {"funding_rate": funding.columns["funding_rate"][here]}))
            span = (first if span is None else span[0], last)
            history = _merged(request.symbol, step, parts)
            checking.add(history)
            presence += _presence(history)
            for digest, start_ms in piece.digests:
                addition.record(digest, start_ms)
            addition.add(history)
        if charges is not None and span is not None:
            count = check_charges(charges, step, span, notices)
        report = checking.report()
        if not report.ok:
            raise DataError(f"nothing was written, as the result does not pass the check:\n{report.text()}")
        refusal = watch.refusal()
        if refusal is not None:
            raise DataError(f"nothing was written: {refusal}")
    for line in (*report.warning_lines(), *_presence_lines(*presence.tolist())):
        notices.warn(line)
    coverage = report.coverage[0]
    ends = instant_text(addition.span_ms[0]), instant_text(addition.span_ms[1])
    return Imported(addition.path, addition.rows, ends, coverage.gaps, count, coverage, notices.notes, notices.warnings)


def _marked(part: BarColumns) -> BarColumns:
    return BarColumns(part.times, {f"mark_{name}": values for name, values in part.columns.items() if name in LAST})


def _merged(symbol: str, step: int, parts: Sequence[BarColumns]) -> PriceHistory:
    times = np.sort(np.concatenate([part.times for part in parts]), kind="stable")  # np.unique would hash: slow
    times = times[np.concatenate(([True], times[1:] > times[:-1]))]
    columns: dict[str, Float] = {}
    for part in parts:
        if part.times.size == times.size:
            columns |= part.columns
            continue
        place = np.searchsorted(times, part.times)
        for name, values in part.columns.items():
            columns[name] = np.full(times.size, np.nan)
            columns[name][place] = values
    return from_rows(symbol, step, times, columns)


def _presence(history: PriceHistory) -> Int:
    """(4,) int64: bars with both prices, with a last price alone, with a mark price alone, and rows without either."""
    nothing = np.zeros(history.n_bars, dtype=np.bool_)
    there = {name: ~np.isnan(values) for name, values in history.columns.items()}
    last, mark = there.get("close", nothing), there.get("mark_close", nothing)
    other = there.get("volume", nothing) | there.get("funding_rate", nothing)
    return np.array([np.sum(rows) for rows in (last & mark, last & ~mark, mark & ~last, other & ~mark & ~last)])


def _presence_lines(both: int, last: int, mark: int, neither: int) -> Iterator[str]:
    if last and both + mark:
        yield f"{last:,} bars have a last price and no mark price"
    if mark:
        yield f"{mark:,} bars have a mark price and no last price"
    if neither:
        yield f"{neither:,} rows have a volume or funding charge and no price"
