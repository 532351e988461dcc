"""Funding charges of a user's files, and the bars they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest.arrays import Float, Int
from backtest.errors import ConfigError, DataError
from backtest.ingest.bars import BarColumns, funding_note, joined
from backtest.ingest.columns import SourceTable, numbers
from backtest.ingest.messages import Notices
from backtest.ingest.options import Reading
from backtest.ingest.plausibility import rates_unit
from backtest.ingest.timestamps import check_order, times


@dataclass(frozen=True)
class Charges:
    """Funding as it is charged.

    Attributes
    ----------
    ms : (n,) int64
        UTC, ascending.
    rates : (n,) float64
        Fractions; longs pay where positive.
    """

    ms: Int
    rates: Float


def parse_charges(tables: Iterable[SourceTable], notices: Notices) -> Charges | None:
    """Funding of all files, ascending; equal charges of overlapping pages are one."""
    found: list[tuple[Int, Float]] = []
    files: list[Path] = []
    reading, zoned = Reading(), True
    for table in tables:
        reading = table.reading
        stamps = times(table)
        funding_note(table, notices)
        notices.note(stamps.how, table.file)
        if not reading.pages:
            check_order(table, stamps.ms)
        name = table.find("rate")
        rates, _ = numbers(table, name)
        if not np.isfinite(rates).all():
            row = int(np.argmin(np.isfinite(rates)))
            raise DataError(f"{table.where(name)} must be a finite number; got {rates[row]:g} in row {row}")
        zoned &= stamps.zoned
        found.append((stamps.ms, rates))
        files.append(table.file)
    if not found:
        return None
    if not zoned:
        if reading.clocks:
            raise ConfigError("the zone of the funding times is not in their files; say --time-zone")
        notices.warn("times of the funding have no offset and are read as UTC; --time-zone says otherwise")
    part = joined([BarColumns(ms, {"funding_rate": rates}) for ms, rates in found], files, reading.pages, notices)
    rates = part.columns["funding_rate"]
    scale = rates_unit(part.times, rates, reading.rates, files[0], notices)
    return Charges(part.times, rates * scale)


def by_bar(charges: Charges, step: int, first: int, last: int, notices: Notices) -> tuple[BarColumns, int]:
    """Rates per bar between the first and the last bar, and the number of charges in them."""
    bars = charges.ms // step * step
    inside = (bars >= first) & (bars <= last)
    if not inside.all():
        notices.note(f"{int((~inside).sum()):,} charges before the first or after the last bar left out")
    bars, rates, offsets = bars[inside], charges.rates[inside], (charges.ms - bars)[inside]
    unique, place, count = np.unique(bars, return_inverse=True, return_counts=True)
    if (count > 1).any():
        notices.note(f"{int((count > 1).sum()):,} bars hold several charges, which are summed")
    early = int((step - offsets <= min(60_000, step // 2)).sum())
    if early:
        notices.note(
            f"{early:,} charges are stamped within a minute before the end of a bar; "
            "each is charged in the bar that contains its stamp"
        )
    summed = np.bincount(place, weights=rates, minlength=unique.size).astype(np.float64)
    return BarColumns(unique, {"funding_rate": summed}), int(bars.size)
