"""Parquet or CSV files of bars, mark prices and funding, as most tools write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest.checks import Coverage, check_history
from backtest.errors import DataError
from backtest.faults import row_faults
from backtest.history import LAST, Float, Int, from_rows
from backtest.ingest.tables import check_bars, numbers, read_source, times
from backtest.store import write_history
from backtest.units import duration_ms, instant_text

RATE_NAMES = ("funding_rate", "last_funding_rate", "fundingRate", "rate")


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes
    ----------
    path : Path
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
        As `backtest.checks` reports it.
    notes : tuple of str
        What was understood and decided, for people.
    """

    path: Path
    rows: int
    span: tuple[str, str]
    gaps: int
    charges: int
    coverage: Coverage
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """Columns of one source file, by bar."""

    times: Int
    columns: dict[str, Float]
    notes: tuple[str, ...]


def import_generic(
    symbol: str,
    interval: str,
    prices: str | Path,
    mark: str | Path | None = None,
    funding: str | Path | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
) -> Imported:
    """Merge up to three files of one symbol into a dataset.

    Parameters
    ----------
    symbol : str
    interval : str
        Length of a bar, such as ``"1h"``.
    prices, mark : str or Path
        ``.parquet``, ``.csv`` or ``.csv.gz`` with a time column (open_time, timestamp, time, date, datetime or
        calc_time: the bar's open, UTC) and open, high, low, close; volume is taken from `prices` if there.
    funding : str or Path
        Times and funding_rate, last_funding_rate, fundingRate or rate (fraction, positive: longs pay). A charge belongs
        to the bar that contains its stamp, to the millisecond.
    out : str or Path
        Dataset directory.
    overwrite : bool
        Replace the symbol's bars of this interval.

    Raises
    ------
    DataError
        With file, row (counted from 0, without the header), column, value and rule.
    ConfigError
        If a file does not exist or is of another kind, or the symbol is in the dataset already.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     csv = Path(folder, "bars.csv")
    ...     _ = csv.write_text("time,open,high,low,close\\n2024-01-01T00:00,10,12,9,11\\n2024-01-01T01:00,11,13,10,12")
    ...     import_generic("BTCUSDT", "1h", csv, out=Path(folder, "data")).rows
    2
    """
    step = duration_ms(interval)
    parts = [_bars(prices, step, "")]
    if mark is not None:
        parts.append(_bars(mark, step, "mark_"))
    notes = [note for part in parts for note in part.notes]
    charges = 0
    if funding is not None:
        bars = np.concatenate([part.times for part in parts])
        part, charges = _charges(funding, step, int(bars.min()), int(bars.max()))
        parts.append(part)
        notes += part.notes
    stamps = np.unique(np.concatenate([part.times for part in parts]))
    columns: dict[str, Float] = {}
    for part in parts:
        place = np.searchsorted(stamps, part.times)
        for name, values in part.columns.items():
            columns[name] = np.full(stamps.size, np.nan)
            columns[name][place] = values
    history = from_rows(symbol, step, stamps, columns)
    report = check_history(history)
    if not report.ok:
        raise DataError(f"nothing was written, as the result does not pass the check:\n{report.text()}")
    path = write_history(history, out, overwrite)
    coverage = report.coverage[0]
    span = instant_text(int(stamps[0])), instant_text(int(stamps[-1]))
    notes += _alone(columns)
    return Imported(path, int(stamps.size), span, coverage.gaps, charges, coverage, tuple(notes))


def _bars(file: str | Path, step: int, prefix: str) -> _Part:
    """Times and prices of a file of bars, each rule of a row kept."""
    table = read_source(file)
    stamps, how = times(table)
    if not stamps.size:
        raise DataError(f"{table.file}: there are no rows")
    check_bars(table, stamps, step)
    names = {prefix + name: table.choose((name,)) for name in LAST}
    if not prefix and "volume" in table.columns:
        names["volume"] = "volume"
    read = {name: numbers(table, theirs) for name, theirs in names.items()}
    values = {name: column for name, (column, _) in read.items()}
    for fault in row_faults(values, {name: null for name, (_, null) in read.items()}):
        if fault.bad.any():
            row = int(np.argmax(fault.bad))
            rule, value = fault.rule.replace("mark_", ""), fault.values[row]
            got = f"{value:.10g} in row {row}" if fault.shows_value else f"null in row {row}"
            raise DataError(
                f"{table.where(names[fault.column])} {rule}; got {got} ({int(fault.bad.sum()):,} such rows)"
            )
    return _Part(stamps, values, (how,))


def _charges(file: str | Path, step: int, first: int, last: int) -> tuple[_Part, int]:
    """Rates per bar between the first and the last bar, and the number of charges in them."""
    table = read_source(file)
    stamps, how = times(table)
    name = table.choose(RATE_NAMES)
    rates, _ = numbers(table, name)
    if not np.isfinite(rates).all():
        row = int(np.argmin(np.isfinite(rates)))
        raise DataError(f"{table.where(name)} must be a finite number; got {rates[row]:g} in row {row}")
    notes = [how]
    bars = stamps // step * step
    inside = (bars >= first) & (bars <= last)
    if not inside.all():
        notes.append(
            f"{table.file.name}: {int((~inside).sum()):,} charges before the first or after the last bar left out"
        )
    bars, rates, offsets = bars[inside], rates[inside], (stamps - bars)[inside]
    unique, place, count = np.unique(bars, return_inverse=True, return_counts=True)
    if (count > 1).any():
        notes.append(f"{table.file.name}: {int((count > 1).sum()):,} bars hold several charges, which are summed")
    early = int((step - offsets <= min(60_000, step // 2)).sum())
    if early:
        notes.append(
            f"{table.file.name}: {early:,} charges are stamped within a minute before the end of a bar; "
            "each is charged in the bar that contains its stamp"
        )
    summed = np.bincount(place, weights=rates, minlength=unique.size).astype(np.float64)
    return _Part(unique, {"funding_rate": summed}, tuple(notes)), int(bars.size)


def _alone(columns: dict[str, Float]) -> list[str]:
    """How many rows have one price only, or none."""
    last = ~np.isnan(columns["close"])
    mark = ~np.isnan(columns["mark_close"]) if "mark_close" in columns else last
    counts = (
        (int((last & ~mark).sum()), "bars have a last price and no mark price"),
        (int((mark & ~last).sum()), "bars have a mark price and no last price"),
        (int((~mark & ~last).sum()), "rows have a volume or funding charge and no price"),
    )
    return [f"{count:,} {what}" for count, what in counts if count]
