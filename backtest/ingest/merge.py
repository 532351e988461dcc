"""Files of prices, mark prices and funding laid over each other by bar, checked, and written as one dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from backtest.arrays import Float
from backtest.data.history import LAST, PriceHistory, from_rows
from backtest.data.quality.check import Coverage, check_history
from backtest.data.writer import adding
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Place
from backtest.ingest.bars import BarColumns, Bars, parse_bars
from backtest.ingest.clock_alignment import find_lag, zone_by_mark
from backtest.ingest.columns import SourceTable
from backtest.ingest.funding import Charges, by_bar, parse_charges
from backtest.ingest.messages import Remarks
from backtest.ingest.options import Kind, offset_text
from backtest.ingest.plausibility import Doubts, doubt_funding
from backtest.units import duration_ms, duration_text, instant_text

Existing = Literal["refuse", "add", "replace"]


def existing_choice(add: bool, overwrite: bool) -> Existing:
    """What is to happen to bars that are there."""
    if add and overwrite:
        raise ConfigError("add and overwrite exclude each other")
    return "add" if add else "replace" if overwrite else "refuse"


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


def import_tables(
    symbol: str,
    interval: str,
    tables: dict[Kind, Iterable[SourceTable]],
    *,
    out: str | Place,
    existing: Existing = "refuse",
    remarks: Remarks | None = None,
) -> Imported:
    """The common way of every source whose files hold one row per bar or charge."""
    step = duration_ms(interval)
    remarks = remarks or Remarks()
    prices = parse_bars(tables["prices"], step, remarks)
    mark = parse_bars(tables.get("mark", ()), step, remarks)
    if prices is None:
        raise ConfigError("prices: needs at least one file")
    prices = _on_utc(prices, mark, step, remarks)
    if mark is not None:
        mark = _on_utc(mark, prices, step, remarks)
        _check_aligned(prices, mark, step)
    charges = parse_charges(tables.get("funding", ()), remarks)
    return write_parts(
        symbol,
        step,
        prices.part,
        None if mark is None else mark.part,
        charges,
        out=out,
        existing=existing,
        remarks=remarks,
    )


# --- zones and alignment ----------------------------------------------------------------------------------------------


def _on_utc(bars: Bars, other: Bars | None, step: int, remarks: Remarks) -> Bars:
    """Bars of an unknown zone moved onto UTC: by the other prices where these tell, else as UTC if none is asked."""
    if bars.zoned:
        return bars
    what = "prices" if bars.kind == "prices" else "mark prices"
    within = int(bars.part.times[0] % step)  # a zone shows where it stands off the grid of bars longer than an hour
    if other is not None and other.zoned:
        mine, theirs = bars.part, other.part
        ahead = zone_by_mark(mine.times - within, mine.columns["close"], theirs.times, theirs.columns["close"], step)
        if ahead is not None:
            zone = offset_text(ahead + within)
            other_ = "mark prices" if bars.kind == "prices" else "prices"
            text = f"the clock of the {what} is {zone}: there they move with the {other_}, whose zone is known"
            (remarks.note if zone in (bars.clocks or ("UTC",)) else remarks.warn)(text)
            return replace(bars, part=replace(mine, times=mine.times - ahead - within), zoned=True)
    if bars.clocks:
        raise ConfigError(
            f"the zone of the {what} is not in their files, and readers found {' and '.join(bars.clocks)}; say "
            "--time-zone, or give --mark prices of the same bars whose zone is known, which decide it"
        )
    if within:
        raise ConfigError(
            f"times of the {what} have no offset and are not UTC: they are {duration_text(within)} past multiples of "
            f"{duration_text(step)}; say --time-zone"
        )
    remarks.warn(f"times of the {what} have no offset and are read as UTC; --time-zone says otherwise")
    return replace(bars, zoned=True)


def _check_aligned(prices: Bars, mark: Bars, step: int) -> None:
    found = find_lag(prices.part.times, prices.part.columns["close"], mark.part.times, mark.part.columns["close"], step)
    if found is not None and found[0]:
        lag, since = found
        side = "after" if lag > 0 else "before"
        raise ConfigError(
            f"from {instant_text(since)} on the prices move {duration_text(abs(lag) * step)} {side} the mark prices: "
            "one of them is stamped in another zone (--time-zone) or at the other end of its bars (--stamps)"
        )


# --- the dataset ------------------------------------------------------------------------------------------------------


def write_parts(
    symbol: str,
    step: int,
    prices: BarColumns | None,
    mark: BarColumns | None,
    charges: Charges | None,
    *,
    out: str | Place,
    existing: Existing,
    remarks: Remarks,
) -> Imported:
    """Merge by bar, check, doubt and write.

    Raises
    ------
    DataError
        If the result is no sound history.
    ConfigError
        If the symbol is in the dataset already and `existing` is ``"refuse"``.
    """
    parts = [part for part in (prices, mark and _marked(mark)) if part is not None]
    bars = np.concatenate([part.times for part in parts])
    count = 0
    if charges is not None:
        doubt_funding(charges.ms, int(bars.min()), int(bars.max()) + step, remarks)
        part, count = by_bar(charges, step, int(bars.min()), int(bars.max()), remarks)
        parts.append(part)
    history = _merged(symbol, step, parts)
    report = check_history(history)
    if not report.ok:
        raise DataError(f"nothing was written, as the result does not pass the check:\n{report.text()}")
    doubts = Doubts()
    doubts.add(history)
    doubts.say(remarks)
    for warning in report.warnings:
        remarks.warn(str(warning).removeprefix("warning: "))
    for more in report.warnings_left_out:
        remarks.warn(f"{more.file}: {more.count:,} more like this: {more.rule}")
    _say_alone(history, remarks)
    with adding(out, symbol, step, existing) as addition:
        addition.add(history)
    first, last = addition.span_ms
    span = (instant_text(first), instant_text(last))
    coverage = report.coverage[0]
    return Imported(addition.path, addition.rows, span, coverage.gaps, count, coverage, remarks.notes, remarks.warnings)


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


def _say_alone(history: PriceHistory, remarks: Remarks) -> None:
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
            remarks.warn(f"{int(rows.sum()):,} {what}")
