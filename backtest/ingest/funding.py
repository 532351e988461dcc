"""Funding charges: read from files, checked, and summed by bar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest.arrays import Float, Int
from backtest.errors import ConfigError, DataError
from backtest.ingest.bars import BarColumns, joined, tell_notices
from backtest.ingest.columns import SourceTable, numbers
from backtest.ingest.messages import Notices
from backtest.ingest.options import Reading
from backtest.ingest.timestamps import check_order, times
from backtest.units import instant_text

EIGHT_HOURS_MS = 28_800_000
HIGH_RATE = 0.0012
"""Median funding per 8 hours that gives a warning: it might be percent. Real medians are 0.0015 % to 0.22 %."""


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
        tell_notices(table, notices)
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


def by_bar(charges: Charges, step: int) -> BarColumns:
    """The sum of the rates in each bar that has a charge."""
    bars, place = np.unique(charges.ms // step * step, return_inverse=True)
    summed = np.bincount(place, weights=charges.rates, minlength=bars.size).astype(np.float64)
    return BarColumns(bars, {"funding_rate": summed})


def check_charges(charges: Charges, step: int, span: tuple[int, int], notices: Notices) -> int:
    """How many charges fall between the first and the last bar, and what is odd about them."""
    bars = charges.ms // step * step
    inside = (bars >= span[0]) & (bars <= span[1])
    if not inside.all():
        notices.note(f"{int((~inside).sum()):,} charges before the first or after the last bar left out")
    count = np.unique(bars[inside], return_counts=True)[1]
    if (count > 1).any():
        notices.note(f"{int((count > 1).sum()):,} bars hold several charges, which are summed")
    early = int((step - (charges.ms - bars)[inside] <= min(60_000, step // 2)).sum())
    if early:
        notices.note(
            f"{early:,} charges are stamped within a minute before the end of a bar; "
            "each is charged in the bar that contains its stamp"
        )
    check_spacing(charges.ms[inside], notices)
    return int(inside.sum())


def rates_unit(ms: Int, rates: Float, said: str | None, file: Path, notices: Notices) -> float:
    """The factor that makes rates fractions: 1 unless the user says percent."""
    spacing = float(np.median(np.diff(ms))) if ms.size > 1 else EIGHT_HOURS_MS
    sizes = np.abs(rates[rates != 0]) * EIGHT_HOURS_MS / max(spacing, 60_000)
    scale = 0.01 if said == "percent" else 1.0
    usual = scale * float(np.median(sizes)) if sizes.size else 0.0
    text = f"funding rates are read as {said or 'fraction'}: {100 * usual:.3g} % per 8 hours in the median"
    if usual > HIGH_RATE:
        notices.warn(f"{text}, which is much: are they percent? --rates says which", file)
    else:
        notices.note(f"{text}; --rates percent says otherwise" if said is None else text, file)
    return scale


def check_spacing(inside: Int, notices: Notices) -> None:
    """Warn of charges much closer than those around them, and where there is none."""
    if not inside.size:
        notices.warn("no funding charge falls between the first and the last bar")
    steps = np.round(np.diff(inside) / 60_000)
    if steps.size < 2:
        return
    beside = np.minimum(np.append(steps[1], steps[:-1]), np.append(steps[1:], steps[-2]))
    double = steps < 0.5 * beside
    if double.any():
        at = int(np.argmax(double))
        notices.warn(
            f"{int(double.sum()):,} funding charges seem to be there twice, the first at "
            f"{instant_text(int(inside[at]))} and {instant_text(int(inside[at + 1]))}"
        )
