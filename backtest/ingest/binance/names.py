"""Which files of the public Binance archives there are: symbol, interval, kind and period by folder and name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from backtest.errors import ConfigError
from backtest.ingest.messages import Notices
from backtest.ingest.zip_csv import CHECKSUM, member_name
from backtest.units import duration_ms, duration_text

Kind = Literal["last", "mark", "funding"]
FOLDERS: dict[str, Kind | None] = {
    "klines": "last",
    "markpriceklines": "mark",
    "indexpriceklines": None,
    "premiumindexklines": None,
}
"""What bars in a folder of such a name are; None: nothing a history has."""
_PERIOD = r"(?P<year>\d{4})-(?P<month>\d{2})(?:-(?P<day>\d{2}))?"
_NAME = re.compile(rf"(?P<symbol>\w+)-(?P<what>\w+)-{_PERIOD}")
_INTERVAL = re.compile(r"[1-9]\d{0,3}[smhdw]")
_MONTHS = ("1mo", "1M")
_OTHERS = (
    "aggTrades",
    "trades",
    "bookTicker",
    "bookDepth",
    "metrics",
    "liquidationSnapshot",
    "EOHSummary",
    "BVOLIndex",
)
_COIN = re.compile(r"\w+USD_(PERP|\d{6})")
MARKETS = ("um", "cm", "spot")
LISTED = 5


@dataclass(frozen=True)
class Archive:
    """One file.

    Attributes
    ----------
    file : Path
    symbol : str
    kind : {"last", "mark", "funding"} or None
        None where neither folder nor name tell.
    interval_ms : int
        Length of a bar; 0 for funding.
    period_ms : tuple of int, or None
        First millisecond of the month or day that the name tells, and the first one after it.
    market : str or None
        ``"um"``, ``"cm"`` or ``"spot"``.
    """

    file: Path
    symbol: str
    kind: Kind | None
    interval_ms: int
    period_ms: tuple[int, int] | None
    market: str | None


def find_archives(
    sources: Sequence[str | Path], symbols: Sequence[str] | None, interval: str | None, notices: Notices
) -> list[Archive]:
    """Archives in files and folders, of these symbols and this interval, in the order of their paths.

    What is of another kind or unknown is named in `notices`.

    Raises
    ------
    ConfigError
        If a source does not exist, there is no archive, or a symbol or the interval is in none; if a file that is
        named itself tells no symbol and interval and they are not given.
    DataError
        If the zip of such a file is damaged.
    """
    step = None if interval is None else duration_ms(interval)
    found: list[Archive] = []
    for file, named in _files(sources):
        archive = _archive(file)
        if archive == "" and named:
            archive = _renamed(file, symbols, step)
        if isinstance(archive, Archive):
            found.append(archive)
        elif archive:
            notices.note(f"{archive} is not used", file)
        else:
            notices.warn("no archive by its name, which is SYMBOL-INTERVAL-YYYY-MM; not read", file)
    return _chosen(found, sources, symbols, step)


def _chosen(
    found: list[Archive], sources: Sequence[str | Path], symbols: Sequence[str] | None, step: int | None
) -> list[Archive]:
    """Those that are asked for; each symbol must be there."""
    bars = [one for one in found if one.kind != "funding"]
    if not bars:
        where = ", ".join(str(source) for source in sources)
        raise ConfigError(f"{where}: there are no archives of bars, such as klines/BTCUSDT/1m/BTCUSDT-1m-2021-05.zip")
    for symbol in symbols or ():
        if not any(one.symbol == symbol for one in bars):
            raise ConfigError(
                f"symbol: there is no archive of bars of {symbol!r}; {_listed(one.symbol for one in bars)}"
            )
    chosen = [one for one in found if not symbols or one.symbol in symbols]
    if step is None:
        return chosen
    steps = [one.interval_ms for one in chosen if one.kind != "funding"]
    if step not in steps:
        raise ConfigError(
            f"interval: there is no archive of {duration_text(step)} bars; {_listed(map(duration_text, steps))}"
        )
    return [one for one in chosen if one.kind == "funding" or one.interval_ms == step]


def _listed(names: Iterable[str]) -> str:
    every = sorted(set(names))
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return f"there are {', '.join(every[:LISTED])}{more}"


def _files(sources: Sequence[str | Path]) -> Iterator[tuple[Path, bool]]:
    """Files that may be archives, each once, and whether it was named itself."""
    if not sources:
        raise ConfigError("an import needs at least one file or folder")
    seen: set[str] = set()
    for source in map(Path, sources):
        if not source.exists():
            raise ConfigError(f"{source} does not exist; a source is a file or folder of Binance archives")
        for file in [source] if source.is_file() else _walk(source):
            key = os.path.realpath(file)
            hidden = file.name.startswith(".") or file.name.endswith((CHECKSUM, ".part"))
            if key not in seen and not (hidden and source.is_dir()):
                seen.add(key)
                yield file, source.is_file()


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(names))


def _archive(file: Path) -> Archive | str:
    """What folder and name tell; or what it is that is not used, "" where the name tells nothing."""
    told = told_by(file.name)
    if told is None:
        return ""
    symbol, what, period = told
    archive = Archive(file, symbol, None, 0, period, _market(file, symbol))
    if what == "fundingRate":
        return replace(archive, kind="funding")
    if _INTERVAL.fullmatch(what) is None:
        return "an interval of a month, which has no fixed length," if what in _MONTHS else what * (what in _OTHERS)
    folder = _folder(file)
    kind = FOLDERS[folder.lower()] if folder else None
    if folder and kind is None:
        return folder
    return replace(archive, kind=kind, interval_ms=duration_ms(what))


def _renamed(file: Path, symbols: Sequence[str] | None, step: int | None) -> Archive | str:
    """A file whose name tells nothing: by the name of the CSV inside, else by what is given."""
    if file.suffix.lower() not in (".zip", ".csv"):
        raise ConfigError(f"{file}: an archive of Binance ends in .zip or .csv")
    inner = _archive(file.with_name(member_name(file)))
    if isinstance(inner, Archive):
        return replace(inner, file=file)
    if inner:
        return inner
    if symbols is None or len(symbols) != 1 or step is None:
        raise ConfigError(
            f"{file}: its name tells neither symbol nor interval, as that of BTCUSDT-1m-2021-05.zip does; give one "
            "--symbol and --interval"
        )
    folder = _folder(file)
    kind = FOLDERS[folder.lower()] if folder else None
    return Archive(file, symbols[0], kind, step, None, _market(file, symbols[0]))


def told_by(name: str) -> tuple[str, str, tuple[int, int]] | None:
    """Symbol, interval or kind, and period in ms that the name of an archive tells; None if it is none."""
    path = Path(name)
    match = _NAME.fullmatch(path.stem) if path.suffix.lower() in (".zip", ".csv") else None
    period = None if match is None else _period(match)
    return None if match is None or period is None else (match["symbol"], match["what"], period)


def _folder(file: Path) -> str | None:
    """The nearest folder that tells what bars are."""
    return next((part for part in file.absolute().parts[-2::-1] if part.lower() in FOLDERS), None)


def _market(file: Path, symbol: str) -> str | None:
    parts = (part.lower() for part in file.absolute().parts[-2::-1])
    return next((part for part in parts if part in MARKETS), "cm" if _COIN.fullmatch(symbol) else None)


def _period(match: re.Match[str]) -> tuple[int, int] | None:
    """Milliseconds; None if there is no such day."""
    try:
        first = datetime(int(match["year"]), int(match["month"]), int(match["day"] or 1), tzinfo=UTC)
        end = first + timedelta(days=1) if match["day"] else (first + timedelta(days=32)).replace(day=1)
    except (ValueError, OverflowError):
        return None
    return int(first.timestamp()) * 1000, int(end.timestamp()) * 1000
