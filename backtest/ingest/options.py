"""What an import is asked for: symbol, interval and dataset, files, and how to read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backtest.data.writer import Existing
from backtest.errors import ConfigError
from backtest.filesystem import Place
from backtest.units import duration_ms

Sources = str | Path | Sequence[str | Path]
"""Files, folders or patterns with ``*``."""

Kind = Literal["prices", "mark", "funding"]
KINDS: tuple[Kind, ...] = ("prices", "mark", "funding")
FIELDS = ("time", "open", "high", "low", "close", "volume", "rate")
TIME_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Reading:
    """How a file is read; what is None is detected from the file and told in a note.

    Attributes
    ----------
    columns : mapping of str to str
        The file's name of `FIELDS`, or its number counted from 1; ``"mark.open"`` is that of the mark files alone.
        Two names joined by ``+`` are one text (a date and a time).
    separator, decimal : str, optional
        Of CSV; the decimal mark is a point unless said.
    header : bool, optional
        Whether the first row holds names.
    time_unit : str, optional
        ``"s"``, ``"ms"``, ``"us"`` or ``"ns"`` of numeric times.
    time_format : str, optional
        As of ``strptime``, for times that are text.
    time_zone : str, optional
        Of times without an offset: ``"UTC"``, ``"UTC+3"`` or a name such as ``"Asia/Shanghai"``.
    clocks : tuple of str
        Zones that files of this source are known to have without saying so. The zone must then be given, or found
        by comparison with mark prices; another one than these gives a warning.
    stamps : str, optional
        Whether times are those of the bars' ``"open"`` or ``"close"``.
    price_scale : float
        Prices are multiplied by it.
    rates : str, optional
        Whether funding rates are a ``"fraction"`` or ``"percent"``.
    pages : bool
        Whether files are pages that overlap: rows in any order, equal rows once.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    decimal: str = "."
    header: bool | None = None
    time_unit: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    clocks: tuple[str, ...] = ()
    stamps: str | None = None
    price_scale: float = 1.0
    rates: str | None = None
    pages: bool = False

    def __post_init__(self) -> None:
        for key, allowed in (("time_unit", TIME_UNITS), ("stamps", ("open", "close")), ("rates", RATES)):
            value = getattr(self, key)
            if value is not None and value not in allowed:
                raise ConfigError(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
        for name in self.columns:
            kind, _, field_ = name.rpartition(".")
            if field_ not in FIELDS or kind not in ("", *KINDS):
                raise ConfigError(
                    f"column: {name!r} is none of {', '.join(FIELDS)}, alone or after {'., '.join(KINDS)}."
                )
        if not 0 < self.price_scale < float("inf"):
            raise ConfigError(f"price_scale must be a finite number > 0; got {self.price_scale:g}")
        for key, value in (("separator", self.separator), ("decimal", self.decimal)):
            if value is not None and (len(value) != 1 or value in '"\r\n' or not value.isascii()):
                raise ConfigError(f"{key} must be one character; got {value!r}")
        if self.time_zone is not None:
            offset_ms(self.time_zone)

    def named(self, kind: Kind, name: str) -> tuple[str, bool] | None:
        """The file's name of a column as the user gave it, and whether for this kind of file in particular."""
        own = self.columns.get(f"{kind}.{name}")
        if own is not None:
            return own, True
        general = self.columns.get(name)
        return None if general is None else (general, kind == "prices")


RATES = ("fraction", "percent")


@dataclass(frozen=True)
class BarFiles:
    """The files of one symbol: prices, mark prices and funding rates."""

    prices: Sources | None = None
    mark: Sources | None = None
    funding: Sources | None = None


@dataclass(frozen=True)
class Request:
    """What to import.

    Attributes
    ----------
    symbol : str
        Its name in the dataset.
    interval : str
        Length of a bar, such as ``"1h"``.
    out : str or Path
        Dataset directory.
    existing : {"refuse", "add", "replace", "anew"}
        What happens to bars of the symbol that are there: see `backtest.data.writer.adding`.
    instrument : str, optional
        Name of the symbol in the files. Default: the symbol, written with or without marks such as ``/``, ``-`` and
        ``SWAP``.
    reading : Reading
        How the files are read.
    """

    symbol: str
    interval: str
    out: str | Place
    existing: Existing = "refuse"
    instrument: str | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def interval_ms(self) -> int:
        return duration_ms(self.interval)


def existing_choice(add: bool, overwrite: bool) -> Existing:
    """The two flags ``add`` and ``overwrite`` as one value."""
    if add and overwrite:
        raise ConfigError("add and overwrite exclude each other")
    return "add" if add else "replace" if overwrite else "refuse"


def column_options(texts: Sequence[str]) -> dict[str, str]:
    """``["time=Date", "open=Open"]`` as a mapping.

    Examples
    --------
    >>> column_options(["time=Date", "mark.close=3"])
    {'time': 'Date', 'mark.close': '3'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, theirs = text.partition("=")
        if not equals or not theirs:
            raise ConfigError(f"column must read NAME=COLUMN, such as time=Date; got {text!r}")
        if name in found:
            raise ConfigError(f"column: {name} is given twice, as {found[name]!r} and {theirs!r}")
        found[name] = theirs
    return found


def offset_ms(zone: str) -> int | None:
    """Milliseconds that a zone of one offset is ahead of UTC; None where it changes with the season.

    Raises
    ------
    ConfigError
        If there is no such zone.

    Examples
    --------
    >>> offset_ms("UTC+3") / 3_600_000, offset_ms("-05:30") / 3_600_000
    (3.0, -5.5)
    """
    match = re.fullmatch(r"(?:UTC|GMT)?\s*([+-])(\d{1,2})(?::?([0-5]\d))?", zone, re.IGNORECASE)
    if match is not None and int(match[2]) <= 14:
        minutes = 60 * int(match[2]) + int(match[3] or 0)
        return (-1 if match[1] == "-" else 1) * minutes * 60_000
    if zone.upper() in ("UTC", "GMT", "Z"):
        return 0
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"time_zone must be UTC, an offset such as UTC+3, or a name such as Asia/Shanghai; got {zone!r}"
        ) from None
    return None


def offset_text(ms: int) -> str:
    """``UTC``, ``UTC+3``, ``UTC-05:30``.

    Examples
    --------
    >>> offset_text(0), offset_text(10_800_000), offset_text(-19_800_000)
    ('UTC', 'UTC+3', 'UTC-05:30')
    """
    if not ms:
        return "UTC"
    hours, minutes = divmod(abs(ms) // 60_000, 60)
    return f"UTC{'-' if ms < 0 else '+'}" + (f"{hours:02}:{minutes:02}" if minutes else str(hours))
