"""Reads and writes durations, instants and numbers as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from backtest.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_MS = 366_000 * 86_400_000  # a thousand years: in bars of any length it still is an int64
MS_PER_UNIT = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``"1m"``, ``"8h"``, ``"7d"``.

    Examples
    --------
    >>> duration_ms("8h")
    28800000
    """
    match = re.fullmatch(r"(\d+)\s*([smhdw])", text.strip())
    if match is None or int(match[1]) == 0:
        raise ConfigError(f"a duration is a whole number > 0 and one of s, m, h, d, w, such as '8h'; got {text!r}")
    ms = int(match[1]) * MS_PER_UNIT[match[2]]
    if ms > LONGEST_MS:
        raise ConfigError(f"a duration is at most {LONGEST_MS // MS_PER_UNIT['d']} days; got {text!r}")
    return ms


def duration_text(ms: int) -> str:
    """The shortest duration that reads back as `ms`: ``duration_text(3_600_000) == "1h"`` (days, not weeks)."""
    for unit in ("d", "h", "m"):
        if ms % MS_PER_UNIT[unit] == 0:
            return f"{ms // MS_PER_UNIT[unit]}{unit}"
    return f"{ms / 1000:g}s"


def instant_ms(text: str) -> int:
    """Milliseconds since the epoch of an ISO 8601 date or time; without an offset it is UTC.

    Examples
    --------
    >>> instant_ms("2020-01-01")
    1577836800000
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"a time is ISO 8601, such as '2020-01-01' or '2020-01-01T08:00Z'; got {text!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round((moment - EPOCH) / timedelta(milliseconds=1))


def instant_text(ms: int) -> str:
    """ISO 8601 in UTC, to the minute where that is exact: ``2020-01-01T08:00Z``."""
    moment = EPOCH + timedelta(milliseconds=int(ms))
    precise = "minutes" if ms % 60_000 == 0 else "seconds" if ms % 1000 == 0 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precise) + "Z"


def number_text(value: float) -> str:
    """``repr(float)`` without a trailing ``.0``: how numbers are written in labels.

    Examples
    --------
    >>> number_text(10000), number_text(0.004)
    ('10000', '0.004')
    """
    return repr(float(value)).removesuffix(".0")
