"""Times of a file as UTC milliseconds: their unit, their zone, and whether they are opens or closes of bars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest.arrays import Bool, Int
from backtest.arrow import LATEST_MS, to_floats, to_times
from backtest.errors import ConfigError, DataError
from backtest.ingest.columns import SourceTable, is_text
from backtest.ingest.options import TIME_UNITS, offset_ms
from backtest.units import duration_text, instant_ms, instant_text

_UNITS = (  # name, size from which on it is meant (the same instant in each, in 1973), milliseconds as a fraction
    ("s", 10**8, 1000, 1),
    ("ms", 10**11, 1, 1),
    ("us", 10**14, 1, 1000),
    ("ns", 10**17, 1, 1_000_000),
)
_OFFSET = r"(?:Z|z|[+-]\d{2}:?\d{2}|[+-]\d{2})\s*$"
_FORMATS = (
    *(f"%Y{mark}%m{mark}%d" for mark in ("-", "/", ".", "")),
    *(f"%d{mark}%m{mark}%Y" for mark in (".", "/", "-")),
    "%m/%d/%Y",
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f")


@dataclass(frozen=True)
class Stamps:
    """Times as they were read.

    Attributes
    ----------
    ms : (n,) int64
        UTC where `zoned`, else of the file's own clock.
    how : str
        For people.
    zoned : bool
        Whether the file or the user says the zone.
    """

    ms: Int
    how: str
    zoned: bool


def times(table: SourceTable) -> Stamps:
    """Milliseconds of a file's time column, in its order.

    Integers are seconds to nanoseconds by their size; text is ISO 8601 or another unmistakable form.

    Raises
    ------
    DataError
        If a time is null, of another unit than the first, or none at all.
    ConfigError
        If the column's form can be read in two ways.
    """
    name = table.find("time")
    where = table.where(name)
    column = table.columns[name]
    how = f"column {table.names[name]} read as "
    zone = table.reading.time_zone
    if is_text(column.type):
        column = _parsed(column, where, table)
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("ms"))
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            if zone is not None and offset_ms(zone) != 0:
                raise ConfigError(f"time_zone {zone}: {where} carries its own offset")
            return Stamps(to_times(column, where), how + "UTC timestamps", True)
        ms = to_times(column, where)
        if zone is None:
            return Stamps(ms, how + "timestamps without an offset", False)
        return Stamps(to_utc(ms, zone, where), how + f"timestamps of {zone}", True)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        ms, unit = _from_numbers(column, where, table.reading.time_unit)
        if zone is None or offset_ms(zone) == 0:
            return Stamps(ms, how + f"{TIME_UNITS[unit]} since the epoch", True)
        return Stamps(to_utc(ms, zone, where), how + f"{TIME_UNITS[unit]} on the clock of {zone}", True)
    raise DataError(f"{where} must hold times; got {kind}")


def to_utc(ms: Int, zone: str, where: str) -> Int:
    """Local times of a zone as UTC. The hour that autumn repeats must occur twice, in order."""
    ahead = offset_ms(zone)
    if ahead is not None:
        return ms - ahead
    local = pa.array(ms, pa.timestamp("ms"))
    try:
        early, late = (
            np.asarray(pc.cast(pc.assume_timezone(local, zone, ambiguous=side), pa.int64()).to_pylist(), np.int64)
            for side in ("earliest", "latest")
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: not a time in {zone} ({str(error).splitlines()[0]}); give a fixed offset") from error
    twice = early != late
    if twice.any():
        _, first, count = np.unique(ms[twice], return_index=True, return_counts=True)
        if (count != 2).any():
            moment = instant_text(int(ms[twice][first[np.argmax(count != 2)]])).removesuffix("Z")
            raise DataError(f"{where}: {moment} came twice in {zone}, and the file does not tell which; give an offset")
        second = np.ones(int(twice.sum()), np.bool_)
        second[first] = False
        early[np.flatnonzero(twice)[second]] = late[twice][second]
    return early.astype(np.int64)


def check_order(table: SourceTable, stamps: Int) -> None:
    """Times must ascend and never repeat."""
    steps = np.diff(stamps)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        rule = "must not repeat" if steps[row - 1] == 0 else "must ascend"
        where = table.where(table.find("time"))
        raise DataError(f"{where} {rule}; got {instant_text(int(stamps[row]))} in row {row}; sort and de-duplicate")


def bar_opens(table: SourceTable, stamps: Int, interval_ms: int) -> tuple[Int, str]:
    """Opens of the bars that times stamp, multiples of the interval, and how that was decided.

    Times a millisecond or a second before multiples are closes; multiples are opens unless the user says closes.
    """
    name = table.find("time")
    said = table.reading.stamps
    known = said or ("open" if "open" in name else "close" if "close" in name or name.startswith("end") else None)
    short = next((short for short in (1, 1000) if stamps.size and ((stamps + short) % interval_ms == 0).all()), 0)
    if short and known != "open":
        stamps, known, why = stamps + short, "close", " (they lie just before the next bar)" if not said else ""
    else:
        why = "" if said or known else "; --stamps close says otherwise"
    off = stamps % interval_ms != 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{table.where(name)} must hold bar {known or 'open'}s, multiples of "
            f"{duration_text(interval_ms)} since the epoch; got {instant_text(int(stamps[row]))} in row {row}; "
            "are --interval and --time-zone right?"
        )
    steps = np.diff(np.sort(stamps))
    steps = steps[steps > 0]
    if steps.size >= 3 and steps.min() > interval_ms:
        raise DataError(
            f"{table.where(name)} has no two bars {duration_text(interval_ms)} apart; "
            f"the closest are {duration_text(int(steps.min()))}: is --interval right?"
        )
    opens = stamps - interval_ms if known == "close" else stamps
    return opens, f"stamps are bar {known or 'open'}s{why}"


# --- text -------------------------------------------------------------------------------------------------------------


def _parsed(column: Any, where: str, table: SourceTable) -> Any:
    """Text as numbers if all of it is, else as timestamps."""
    column = pc.utf8_trim_whitespace(column)
    if table.reading.time_format is not None:
        return _by_format(column, where, table.reading.time_format)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            numeric = kind in (pa.int64(), pa.float64())
            if numeric and not _is_epoch(column):
                continue
            return pc.cast(column, kind)
        except pa.ArrowInvalid:
            continue
    zoned = np.asarray(pc.fill_null(pc.match_substring_regex(column, _OFFSET), False).to_pylist(), np.bool_)
    if zoned.all() or not zoned.any():
        fits = [] if zoned.any() else _fitting(column)
        if len(fits) > 1:
            raise ConfigError(
                f"{where} reads in more ways than one, {' or '.join(fits)}; got {column[0].as_py()!r} in row 0; "
                "say --time-format"
            )
        if fits:
            return _by_format(column, where, fits[0])
    return _one_by_one(column, where)


def _is_epoch(column: Any) -> bool:
    """Whether digits count from the epoch; eight digits are a date, such as 20240131."""
    first = column[0].as_py() if len(column) else None
    return first is None or not (len(first) == 8 and first.isdigit() and first[:2] in ("19", "20", "21"))


def _fitting(column: Any) -> list[str]:
    """Forms that the whole column has; only a day above 12 tells day from month."""
    first = column[0].as_py() if len(column) else None
    if not first:
        return []
    found = []
    for day in _FORMATS:
        for clock in _CLOCKS:
            try:
                datetime.strptime(first.replace("T", " "), day + clock)
            except ValueError:
                continue
            if _strptime(column, day + clock) is not None:
                found.append(day + clock)
    return found


def _strptime(column: Any, form: str) -> Any | None:
    column = pc.replace_substring(column, "T", " ")
    fraction = form.endswith(".%f")
    if fraction:  # Arrow's strptime knows no fractions
        parts = pc.split_pattern(column, ".", max_splits=1, reverse=True)
        column, rest = pc.list_element(parts, 0), pc.list_element(parts, 1)
    try:
        parsed = pc.strptime(column, format=form.removesuffix(".%f"), unit="us")
        if fraction:
            micros = pc.cast(pc.utf8_slice_codeunits(pc.utf8_rpad(rest, 6, "0"), 0, 6), pa.int64())
            parsed = pc.cast(pc.add(pc.cast(parsed, pa.int64()), micros), pa.timestamp("us"))
    except pa.ArrowException:
        return None
    return parsed


def _by_format(column: Any, where: str, form: str) -> Any:
    parsed = _strptime(column, form)
    if parsed is None:
        for row, text in enumerate(column.to_pylist()):
            if text is None or _strptime(pa.chunked_array([pa.array([text])]), form) is None:
                raise DataError(f"{where} must hold times as {form}; got {text!r} in row {row}")
        raise DataError(f"{where} must hold times as {form}")
    if parsed.null_count > column.null_count:
        raise DataError(f"{where} must hold times as {form}")
    return parsed


def _one_by_one(column: Any, where: str) -> Any:
    """Mixed or rarer forms of ISO 8601; without an offset they are UTC beside those that have one."""
    stamps, zoned = [], False
    for row, text in enumerate(column.to_pylist()):
        try:
            stamps.append(instant_ms(text or ""))
            moment = datetime.fromisoformat(text)
        except ConfigError:
            raise DataError(f"{where} must hold ISO 8601 times or integers; got {text!r} in row {row}") from None
        if moment.microsecond % 1000:
            raise DataError(f"{where} must be whole milliseconds; got {text!r} in row {row}")
        zoned |= moment.tzinfo is not None
    return pa.chunked_array([pa.array(stamps, pa.timestamp("ms", "UTC" if zoned else None))])


# --- numbers ----------------------------------------------------------------------------------------------------------


def _from_numbers(column: Any, where: str, said: str | None) -> tuple[Int, str]:
    """Milliseconds of numeric times, and their unit, which the first row decides for all unless the user does."""
    if pa.types.is_floating(column.type):
        values, _ = to_floats(column, where)
        bad = ~(np.abs(values) < 2**63) | (values != np.floor(values))
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{where} must hold ISO 8601 times or integers; got {values[row]} in row {row}")
    if column.null_count:
        row = int(np.argmax(to_floats(column, where)[1]))
        raise DataError(f"{where} must not be null; got null in row {row}")
    ticks = _whole(column)
    size = np.searchsorted([unit[1] for unit in _UNITS], ticks, side="right") - 1
    if said is not None:
        place = list(TIME_UNITS).index(said)
        size = np.full(ticks.size, place)
    unit, _, times_, per_ms = _UNITS[max(0, int(size[0]))] if size.size else _UNITS[1]
    for bad, rule in (
        ((size < 0) | (ticks < 0), "be ISO 8601 or counted since 1970 in s, ms, µs or ns (this is too small)"),
        (size != size[:1], f"keep one unit, which is {TIME_UNITS[unit]} in row 0"),
        (ticks % per_ms != 0, f"be whole milliseconds ({TIME_UNITS[unit]} are read)"),
        (ticks >= LATEST_MS // times_ * per_ms, f"lie before the year 2200 ({TIME_UNITS[unit]} are read)"),
    ):
        _refuse(bad, ticks, where, rule)
    return ticks * times_ // per_ms, unit


def _refuse(bad: Bool, ticks: Int, where: str, rule: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{where} must {rule}; got {ticks[row]} in row {row}")


def _whole(column: Any) -> Int:
    """Integers of a column without nulls."""
    chunks = pc.cast(column, pa.int64()).chunks
    whole = [np.frombuffer(c.buffers()[1], np.int64, len(c), 8 * c.offset) for c in chunks if len(c)]
    return np.concatenate([np.empty(0, np.int64), *whole])
