"""One file of the public Binance archives as times and numbers, each rule of a row kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from backtest.arrays import Bool, Float, Int
from backtest.arrow import LATEST_MS, arrow_errors, to_floats
from backtest.data.history import LAST
from backtest.data.quality.import_rules import BACKWARDS, runs_backwards
from backtest.errors import ConfigError, DataError
from backtest.ingest.bars import check_rows, mean_outside, refuse_rows
from backtest.ingest.binance.names import Archive, Kind, told_by
from backtest.ingest.zip_csv import Csv, read_csv
from backtest.units import duration_text, instant_text

BARS = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
FUNDING = ("calc_time", "funding_interval_hours", "last_funding_rate")
WORDS = {"last": "klines", "mark": "mark prices", "funding": "funding"}
_UNITS = (("milliseconds", 10**11, 1), ("microseconds", 10**14, 1000))  # name, from which size on, in a millisecond
WIDE = 4
"""High over low that most bars of a file cannot have."""
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 24


@dataclass(frozen=True)
class ArchiveRows:
    """What a file holds, ascending.

    Attributes
    ----------
    archive : Archive
    kind : {"last", "mark", "funding"}
    times : (n,) int64
        UTC milliseconds.
    columns : dict of str to (n,) float64
        Open, high, low, close, and volume where `kind` is ``"last"``; the two last columns of funding.
    notes, warnings : tuple of str
        What was understood, and what may be wrong.
    digest : str or None
        SHA-256 of the file, where a ``.CHECKSUM`` beside it agrees.
    """

    archive: Archive
    kind: Kind
    times: Int
    columns: dict[str, Float]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    digest: str | None


@dataclass(frozen=True)
class _Layout:
    """Names of the columns of a CSV, whether its first row holds them, and the cells of its first row of values."""

    names: tuple[str, ...]
    header: bool
    cells: tuple[str, ...]


def read_part(archive: Archive, kind: Kind | None = None) -> ArchiveRows:
    """Read one file.

    Parameters
    ----------
    archive : Archive
    kind : {"last", "mark"}, optional
        What bars are whose folder does not tell and whose volume is 0 throughout.

    Raises
    ------
    DataError
        With file, column, row (counted from 0, without the header) and value.
    ConfigError
        If it cannot be told whether it holds klines or mark prices.
    """
    csv = read_csv(archive.file)
    _check_name(archive, csv)
    content = csv.content[len(_BOM) :] if bytes(csv.content[:3]) == _BOM else csv.content
    funding = archive.kind == "funding"
    time, *needed = FUNDING if funding else ("open_time", *LAST, "volume")
    layout = _layout(archive.file, content, FUNDING if funding else BARS, (time, *needed))
    if archive.kind == "last" and archive.market != "cm" and "quote_volume" in layout.names:
        needed.append("quote_volume")
    ticks, values = _values(archive.file, content, layout, time, needed)
    times, unit = _times(archive, time, ticks, layout)
    warnings = [] if bytes(content[-1:]) == b"\n" else ["the last row has no line end; the file may be cut off"]
    if funding:
        found: Kind = "funding"
        _check_finite(archive.file, values)
    else:
        _check_rows(archive.file, values)
        _check_direction(archive, times, values)
        found = _kind(archive, kind, values["volume"], content, layout)
        if "quote_volume" in values:
            warnings += _check_mean(archive.file, times, values, values.pop("quote_volume"))
        if found == "mark":
            del values["volume"]
        warnings += _cut_short(archive, times)
    stamped = "charged" if funding else "the open of a bar"
    header = "with" if layout.header else "without"
    how = f"{WORDS[found]} {header} a header row; {time}, {stamped}, is read as UTC in {unit} since the epoch"
    return ArchiveRows(archive, found, times, values, (how,), tuple(warnings), csv.digest)


def _check_name(archive: Archive, csv: Csv) -> None:
    """The CSV in a zip bears the name of the zip."""
    outside, inside = told_by(archive.file.name), told_by(csv.name)
    if outside is not None and inside is not None and outside != inside:
        raise DataError(
            f"{archive.file}: its CSV is named {csv.name}; one of the two names is wrong, and both tell symbol, "
            "interval and period"
        )


def _layout(file: Path, content: pa.Buffer, known: tuple[str, ...], needed: tuple[str, ...]) -> _Layout:
    """By the first rows: an older archive has no header, a newer one has."""
    lines = [line for line in bytes(content[: 1 << 16]).decode("utf-8", "replace").split("\n") if line.strip()][:2]
    if not lines:
        raise DataError(f"{file}: is empty")
    first = tuple(cell.strip().strip('"').lower() for cell in lines[0].split(","))
    if first[0][:1].isdigit():
        if len(first) != len(known):
            raise DataError(
                f"{file}: without a header row it must have the {len(known)} columns {', '.join(known)}; its first row "
                f"has {len(first)}: {lines[0][:120]!r}"
            )
        return _Layout(known, False, first)
    for name in needed:
        if first.count(name) != 1:
            fault = "lacks the column" if name not in first else "has twice the column"
            raise DataError(f"{file}: its header {fault} {name}; found {lines[0][:200]!r}")
    if len(lines) < 2:
        raise DataError(f"{file}: there are no rows")
    return _Layout(first, True, tuple(lines[1].split(",")))


def _values(
    file: Path, content: pa.Buffer, layout: _Layout, time: str, needed: Sequence[str]
) -> tuple[Int, dict[str, Float]]:
    """The column of times and others, as numbers; what is none is refused with its row."""
    types = {time: pa.int64()} | dict.fromkeys(needed, pa.float64())
    block = min(_BLOCK, max(1 << 12, content.size + 1))  # one thread: files are read beside each other
    options = pcsv.ReadOptions(
        use_threads=False, block_size=block, column_names=list(layout.names), skip_rows=int(layout.header)
    )
    # Nothing stands for null, and nothing is quoted: a cell that is no number is a fault.
    convert = pcsv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
    )
    parse = pcsv.ParseOptions(quote_char=False, double_quote=False)
    with arrow_errors(file, "CSV"):
        table = pcsv.read_csv(pa.BufferReader(content), options, parse, convert)
    chunks = [np.frombuffer(c.buffers()[1], np.int64, len(c), 8 * c.offset) for c in table.column(time).chunks]
    return np.concatenate(chunks), {name: to_floats(table.column(name), f"{file}: column {name}")[0] for name in needed}


def _times(archive: Archive, name: str, ticks: Int, layout: _Layout) -> tuple[Int, str]:
    """UTC milliseconds and the unit of the file: ascending, on the grid, within the period that its name tells."""
    file, step, period = archive.file, archive.interval_ms, archive.period_ms
    _refuse(file, name, (ticks < _UNITS[0][1]) | (ticks >= LATEST_MS * 1000), ticks, "be ms or µs from 1973 to 2199")
    unit, _, per_ms = _UNITS[int(ticks[0] >= _UNITS[1][1])]
    other = (ticks >= _UNITS[1][1]) != (per_ms > 1)
    _refuse(file, name, other, ticks, f"keep one unit, which is {unit} in row 0")
    _refuse(file, name, ticks >= LATEST_MS * per_ms, ticks, f"lie before the year 2200 ({unit} are read)")
    if per_ms > 1:
        _refuse(file, name, ticks % per_ms != 0, ticks, f"be whole milliseconds ({unit} are read)")
        ticks //= per_ms
    times = ticks
    late = np.concatenate(([False], times[1:] <= times[:-1]))
    _refuse(file, name, late, times, "ascend and not repeat", is_time=True)
    if step:
        text = duration_text(step)
        _refuse(file, name, times % step != 0, times, f"be multiples of {text} since the epoch", is_time=True)
        _check_close(archive, layout, per_ms)
    if period is not None:
        low, high = period
        span = f"{instant_text(low)} … {instant_text(high)}"
        outside = (times < low) | (times >= high)
        _refuse(file, name, outside, times, f"lie in the period of its name, {span} UTC", is_time=True)
    return times, unit


def _check_close(archive: Archive, layout: _Layout, per_ms: int) -> None:
    """The first bar's close_time is a tick before the next bar: the interval of the name is that of the rows."""
    if "close_time" not in layout.names or len(layout.cells) != len(layout.names):
        return
    row = dict(zip(layout.names, layout.cells, strict=True))
    try:
        length = (int(row["close_time"]) + 1 - int(row["open_time"])) // per_ms
    except ValueError:
        return
    if length != archive.interval_ms:
        raise DataError(
            f"{archive.file}: its first bar lasts {length:,} ms, from open_time {row['open_time']} to close_time "
            f"{row['close_time']}; a bar of {duration_text(archive.interval_ms)} has {archive.interval_ms:,} ms"
        )


def _check_rows(file: Path, values: dict[str, Float]) -> None:
    where = {name: f"{file}: column {name}" for name in values}
    check_rows(where, values, dict.fromkeys(values, np.zeros(values["close"].size, np.bool_)))
    wide = values["high"] > WIDE * values["low"]
    if wide.sum() >= BACKWARDS and 2 * wide.sum() > wide.size:
        raise DataError(
            f"{file}: high is more than {WIDE} times low in {int(wide.sum()):,} of {wide.size:,} bars; are columns "
            "swapped?"
        )


def _check_direction(archive: Archive, times: Int, values: dict[str, Float]) -> None:
    """Refuse a file whose closes continue the open before; where a few do, the check of the whole tells."""
    following = np.diff(times) == archive.interval_ms
    wrong = following & runs_backwards(values["open"], values["close"])
    if wrong.sum() >= BACKWARDS and 2 * wrong.sum() > following.sum():
        raise DataError(
            f"{archive.file}: the close continues the open of the bar before, not the open its close, in "
            f"{int(wrong.sum()):,} of {int(following.sum()):,} bars: columns are swapped, or rows run backwards"
        )


def _check_finite(file: Path, values: dict[str, Float]) -> None:
    for name, column in values.items():
        _refuse(file, name, ~np.isfinite(column), column, "be finite")
    hours = values[FUNDING[1]]
    _refuse(file, FUNDING[1], (hours <= 0) | (hours > 24), hours, "lie within 1 … 24")


def _refuse(file: Path, name: str, bad: Bool, values: Float | Int, rule: str, *, is_time: bool = False) -> None:
    refuse_rows(f"{file}: column {name}", bad, f"must {rule}", values, is_time=is_time)


def _kind(archive: Archive, given: Kind | None, volume: Float, content: pa.Buffer, layout: _Layout) -> Kind:
    """Klines have a volume; what has none is what its folder says, or the user."""
    if (volume > 0).any():
        if archive.kind == "mark":
            raise DataError(
                f"{archive.file}: its folder says mark prices, which have no volume, and its rows have one; are they "
                "klines? Move them into a folder of that name"
            )
        return "last"
    told = archive.kind or given
    if told is None:
        raise ConfigError(
            f"{archive.file}: its folder does not tell what it holds (klines or markPriceKlines do), and its volume is "
            "0 in every row, as that of mark, index and premium prices; say which: --kind mark, or --kind last"
        )
    if told == "last" and _counts(archive.file, content, layout):
        raise DataError(
            f"{archive.file}: is taken for klines, but its volume is 0 in every row and its count is not, as that of "
            "mark, index and premium prices; move it into a folder markPriceKlines, or give --kind mark"
        )
    return told


def _counts(file: Path, content: pa.Buffer, layout: _Layout) -> bool:
    if "count" not in layout.names:
        return False
    _, values = _values(file, content, layout, "open_time", ("count",))
    return bool((values["count"] > 0).any())


def _check_mean(file: Path, times: Int, values: dict[str, Float], quote: Float) -> Sequence[str]:
    """Quote volume over volume is a mean price, which lies between low and high."""
    traded, bad = mean_outside(values, quote)
    count, at, volume = int(bad.sum()), int(np.argmax(bad)), values["volume"]
    if not count:
        return ()
    text = (
        f"quote_volume over volume is a mean price, and outside of low … high in {count:,} of {int(traded.sum()):,} "
        f"bars, first at {instant_text(int(times[at]))}: {quote[at] / volume[at]:.10g} beside "
        f"{values['low'][at]:.10g} … {values['high'][at]:.10g}"
    )
    if 2 * count > traded.sum():
        raise DataError(f"{file}: {text}; columns are swapped, or in another unit")
    return (text,)


def _cut_short(archive: Archive, times: Int) -> Sequence[str]:
    if archive.period_ms is None:
        return ()
    low, high = archive.period_ms
    late, early = times[0] >= low + archive.interval_ms, times[-1] + archive.interval_ms < high
    return [
        text
        for odd, text in (
            (late, "begins after the month or day of its name does"),
            (early, "ends before the month or day of its name does"),
        )
        if odd
    ]
