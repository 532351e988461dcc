"""Download the public archives of Binance futures for a range of days, and import them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

from backtest.data.writer import Existing, imported_digests, series_folder
from backtest.errors import ConfigError, DataError
from backtest.filesystem import to_place
from backtest.ingest.binance.importer import import_binance
from backtest.ingest.download.mirror import Mirror, Outcome, RequestLimits
from backtest.ingest.merge import Imported
from backtest.progress import progress
from backtest.units import duration_ms, instant_ms

BASE_URL = "https://data.binance.vision"
ARCHIVES = ".archives"
OLD_RECORD = "imported.json"
INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d")
"""Of the archives; 1w and 1mo lie on no grid of equal bars since the epoch."""
LACKING = {
    "klines": "bars without a last price",
    "markPriceKlines": "bars without a mark price",
    "fundingRate": "no funding is charged there",
}
"""What is missing where a kind of archive is."""
LISTED = 20
DAY = timedelta(days=1)
DAY_MS = 86_400_000

Market = Literal["um", "cm"]
Kind = Literal["klines", "markPriceKlines", "fundingRate"]


@dataclass(frozen=True)
class Fetched:
    """Result of a download.

    Attributes
    ----------
    out, archives : Path
        Dataset, and the folder of the archives.
    fetched, kept : int
        Archives downloaded now, and those that were there.
    received : int
        Bytes downloaded.
    imported : tuple of Imported
        One per symbol that something was added of.
    missing : tuple of str
        What the server does not have before the first and after the last day it has of a symbol.
    warnings : tuple of str
        What it does not have in between.
    """

    out: Path
    archives: Path
    fetched: int
    kept: int
    received: int
    imported: tuple[Imported, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class DateSpan:
    """Days from `first` up to and without `end`."""

    first: date
    end: date

    @property
    def days(self) -> list[date]:
        return [self.first + k * DAY for k in range((self.end - self.first).days)]

    @property
    def months(self) -> list[date]:
        """First days of the months that the days lie in."""
        return sorted({day.replace(day=1) for day in self.days})

    def of_month(self, month: date) -> list[date]:
        """Its days in this month."""
        return [day for day in self.days if (day.year, day.month) == (month.year, month.month)]


@dataclass(frozen=True)
class ServerArchive:
    """One file: a symbol's bars or charges of a month or a day.

    Examples
    --------
    >>> ServerArchive("um", "BTCUSDT", "klines", "1m", date(2021, 5, 1)).path
    'data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2021-05.zip'
    """

    market: Market
    symbol: str
    kind: Kind
    interval: str
    start: date
    daily: bool = False

    @property
    def month(self) -> date:
        return self.start.replace(day=1)

    @property
    def path(self) -> str:
        """Below the base URL."""
        grain, period = ("daily", f"{self.start}") if self.daily else ("monthly", f"{self.start:%Y-%m}")
        folder = f"data/futures/{self.market}/{grain}/{self.kind}/{self.symbol}"
        if self.kind == "fundingRate":
            return f"{folder}/{self.symbol}-fundingRate-{period}.zip"
        return f"{folder}/{self.interval}/{self.symbol}-{self.interval}-{period}.zip"


@dataclass
class ArchiveSet:
    """The archives of one kind of one symbol: which to request next, and which were found.

    A month without a monthly file is requested by its days if a month beside it has files. So the years before a
    listing cost one request per month.
    """

    pattern: ServerArchive
    span: DateSpan
    found_files: dict[ServerArchive, Outcome] = field(default_factory=dict)
    asked: set[date] = field(default_factory=set)

    def monthly(self, mirror: Mirror) -> list[ServerArchive]:
        """One archive per month, but the daily ones of a month that is complete in daily files."""
        wanted: list[ServerArchive] = []
        for month in self.span.months:
            one, days = replace(self.pattern, start=month), self._days(month)
            whole = days and not mirror.has(one.path) and all(mirror.has(day.path) for day in days)
            wanted += days if whole else [one]
        return wanted

    def daily(self) -> list[ServerArchive]:
        """Daily archives to request next; empty when nothing is left."""
        if self.pattern.kind == "fundingRate":
            return []
        months = self.span.months
        known = sorted({months.index(archive.month) for archive in self.found_files})
        # Where nothing is known yet: a listing too young for a monthly file, maybe in the month that just ended.
        near = range(known[0] - 1, known[-1] + 2) if known else range(len(months) - 2, len(months))
        there = {months[k] for k in known}
        chosen = [m for k, m in enumerate(months) if k in near and m not in there and m not in self.asked]
        self.asked.update(chosen)
        return [day for month in chosen for day in self._days(month)]

    def take(self, outcomes: Mapping[str, Outcome], archives: Iterable[ServerArchive]) -> None:
        """Keep the files that were found."""
        for archive in archives:
            if outcomes[archive.path].state != "missing":
                self.found_files[archive] = outcomes[archive.path]

    def covered(self) -> set[date]:
        """Days of the span that an archive covers."""
        whole = {archive.month for archive in self.found_files if not archive.daily}
        days = {archive.start for archive in self.found_files if archive.daily}
        return {day for day in self.span.days if day in days or day.replace(day=1) in whole}

    def _days(self, month: date) -> list[ServerArchive]:
        if self.pattern.kind == "fundingRate":
            return []
        return [replace(self.pattern, start=day, daily=True) for day in self.span.of_month(month)]


def fetch_binance(
    symbols: Sequence[str],
    interval: str,
    start: str,
    end: str | None = None,
    *,
    out: str | Path,
    market: str = "um",
    archives: str | Path | None = None,
    base_url: str = BASE_URL,
    overwrite: bool = False,
    limits: RequestLimits | None = None,
) -> Fetched:
    """Download klines, mark-price klines and funding of a range, and write or extend the dataset.

    Every archive is verified by its ``.CHECKSUM``. The dataset records which archives it holds: a second call downloads
    what is missing and imports the new months only.

    Parameters
    ----------
    symbols : sequence of str
        As the archives call them: ``BTCUSDT``, ``BTCUSD_PERP``.
    interval : str
        One of `INTERVALS`.
    start, end : str
        ISO 8601, UTC; start inclusive, end exclusive and by default the beginning of today. Archives are taken whole:
        monthly ones where they are published, else those of the days.
    out : str or Path
        Dataset.
    market : {"um", "cm"}
        USD-M or COIN-M.
    archives : str or Path, optional
        Folder that keeps the archives as the server lays them out; default: ``.archives`` in `out`.
    base_url : str
        The public server or a mirror of it.
    overwrite : bool
        Replace existing bars by those of the archives; without it, existing bars that differ are refused.
    limits : RequestLimits, optional
        Connections, retries and waits; default: at most 8 requests at a time.

    Returns
    -------
    Fetched
        Counts of archives, what was imported per symbol, and what the server does not have.

    Raises
    ------
    ConfigError
        If an argument is impossible.
    DataError
        If the server cannot be reached, has nothing of a symbol, or a file differs from its checksum twice. Nothing is
        imported then, and the downloaded archives are kept for the next call.

    Examples
    --------
    >>> done = fetch_binance(["BTCUSDT"], "1m", "2021-01-01", "2021-03-01", out="data")  # doctest: +SKIP
    >>> done.imported[0].rows  # doctest: +SKIP
    84960
    """
    patterns = _patterns(symbols, interval, market)
    span = _span(start, end)
    if archives is None and "://" in str(out):
        raise ConfigError(f"archives are kept in a local folder; name one with --archives, as the dataset is at {out}")
    with Mirror(base_url, Path(out, ARCHIVES) if archives is None else archives, limits) as mirror:
        archive_sets = [ArchiveSet(pattern, span) for pattern in patterns]
        _fill(mirror, archive_sets)
        missing, warnings = _lacking(archive_sets, base_url)
        imported = [one for own in _by_symbol(archive_sets) for one in _import(mirror, own, out, overwrite)]
        states = [outcome.state for archive_set in archive_sets for outcome in archive_set.found_files.values()]
    fetched, kept = states.count("fetched"), states.count("kept")
    return Fetched(Path(out), mirror.folder, fetched, kept, mirror.received, tuple(imported), missing, warnings)


def _patterns(symbols: Sequence[str], interval: str, market: str) -> list[ServerArchive]:
    if not symbols:
        raise ConfigError("name at least one symbol, such as BTCUSDT")
    if market not in {"um", "cm"}:
        raise ConfigError(f"market must be um (USD-M) or cm (COIN-M); got {market!r}")
    if interval not in INTERVALS:
        raise ConfigError(f"interval must be one of {', '.join(INTERVALS)}; got {interval!r}")
    kinds: tuple[Kind, ...] = ("klines", "markPriceKlines", "fundingRate")
    found = []
    for symbol in dict.fromkeys(symbols):
        if not re.fullmatch(r"\w+", symbol) or symbol != symbol.upper():
            raise ConfigError(
                f"a symbol is spelt as in the archives, such as BTCUSDT (um) or BTCUSD_PERP (cm); got {symbol!r}"
            )
        dated = re.search(r"_\d{6}$", symbol) is not None  # a delivery contract has no funding
        found += [
            ServerArchive("um" if market == "um" else "cm", symbol, kind, interval, date.min)
            for kind in kinds
            if not (dated and kind == "fundingRate")
        ]
    return found


def _span(start: str, end: str | None) -> DateSpan:
    today = datetime.now(UTC).date()
    first = _day(instant_ms(start))
    last = today if end is None else _day(instant_ms(end) + DAY_MS - 1)
    if first >= last:
        raise ConfigError(f"--from must lie before --to; got {start} and {end or today}")
    if first >= today:
        raise ConfigError(
            f"--from must lie before today, {today} UTC, as a day is published after its end; got {start}"
        )
    return DateSpan(first, min(last, today))


def _day(ms: int) -> date:
    return datetime.fromtimestamp(ms // 1000, UTC).date()


def _fill(mirror: Mirror, archive_sets: Sequence[ArchiveSet]) -> None:
    """Download months, then days where months are missing."""
    wanted = {archive_set.pattern: archive_set.monthly(mirror) for archive_set in archive_sets}
    what = "fetching months"
    while any(wanted.values()):
        paths = [archive.path for archives in wanted.values() for archive in archives]
        with progress(what, len(paths)) as advance:
            outcomes = mirror.bring(paths, advance)
        refused = [f"{mirror.file(one.path)}: {one.reason}" for one in outcomes.values() if one.state == "refused"]
        if refused:
            more = f"\nand {len(refused) - LISTED} more" if len(refused) > LISTED else ""
            raise DataError(
                f"{len(refused)} of {len(paths)} files differ from their checksums, downloaded twice; none of them is "
                "kept, and nothing was imported:\n" + "\n".join(refused[:LISTED]) + more
            )
        for archive_set in archive_sets:
            archive_set.take(outcomes, wanted[archive_set.pattern])
        wanted = {archive_set.pattern: archive_set.daily() for archive_set in archive_sets}
        what = "fetching days"


def _by_symbol(archive_sets: Sequence[ArchiveSet]) -> list[list[ArchiveSet]]:
    symbols = dict.fromkeys(archive_set.pattern.symbol for archive_set in archive_sets)
    return [[archive_set for archive_set in archive_sets if archive_set.pattern.symbol == symbol] for symbol in symbols]


def _lacking(archive_sets: Sequence[ArchiveSet], base_url: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Missing archives outside, and inside, of the days that a symbol has bars of."""
    outside, inside = [], []
    for own in _by_symbol(archive_sets):
        symbol = own[0].pattern.symbol
        bars = set().union(*(archive_set.covered() for archive_set in own if archive_set.pattern.kind != "fundingRate"))
        if not bars:
            raise DataError(
                f"{symbol}: {base_url} has no bars of {own[0].pattern.interval} from {own[0].span.first} to "
                f"{own[0].span.end}; is the symbol right, and the market {own[0].pattern.market}?"
            )
        first, last = min(bars), max(bars)
        for archive_set in own:
            gone = [day for day in archive_set.span.days if day not in archive_set.covered()]
            label = f"{symbol} {archive_set.pattern.kind}"
            outside += [f"{label} {run}: before the first day published" for run in _runs(gone, date.min, first)]
            outside += [f"{label} {run}: after the last day published" for run in _runs(gone, last + DAY, date.max)]
            inside += [
                f"{label} {run}: missing on the server, {LACKING[archive_set.pattern.kind]}"
                for run in _runs(gone, first, last + DAY)
            ]
    return tuple(outside), tuple(inside)


def _runs(days: Iterable[date], low: date, high: date) -> Iterator[str]:
    """Runs of consecutive days in ``[low, high)``, as text."""
    chosen = [day for day in days if low <= day < high]
    starts = [k for k, day in enumerate(chosen) if k == 0 or day - chosen[k - 1] != DAY]
    for start, stop in pairwise([*starts, len(chosen)]):
        first, last = chosen[start], chosen[stop - 1]
        yield f"{first}" if first == last else f"{first} … {last}"


def _import(
    mirror: Mirror, archive_sets: Sequence[ArchiveSet], out: str | Path, overwrite: bool
) -> tuple[Imported, ...]:
    """Add one symbol from the first to the last month with an archive that is not in the dataset."""
    symbol, interval = archive_sets[0].pattern.symbol, archive_sets[0].pattern.interval
    found_files = [archive for archive_set in archive_sets for archive in archive_set.found_files]
    digests = {archive.path: mirror.checksum(archive.path) or "" for archive in found_files}
    known = imported_digests(series_folder(to_place(out), symbol, duration_ms(interval)))
    new = [archive.month for archive in found_files if overwrite or digests[archive.path] not in known]
    if not new or (not overwrite and _in_old_record(mirror.folder, f"{interval} {symbol}", str(out), digests)):
        return ()
    sources = [mirror.file(archive.path) for archive in found_files if min(new) <= archive.month <= max(new)]
    existing: Existing = "replace" if overwrite else "add"
    return import_binance(sources, out, symbols=[symbol], interval=interval, existing=existing)


def _in_old_record(folder: Path, series: str, out: str, digests: Mapping[str, str]) -> bool:
    """Whether ``imported.json`` of version 0.1 says that an unchanged dataset holds all archives."""
    try:
        record = json.loads((folder / OLD_RECORD).read_text(encoding="utf-8"))
        entry = record[f"{series} {Path(out).absolute()}"]
        path = Path(entry["path"])
        files = {file.relative_to(path).as_posix(): file.stat() for file in path.rglob("*") if file.is_file()}
        unchanged = {name: [one.st_size, one.st_mtime_ns] for name, one in files.items()} == entry["files"]
        return bool(files) and unchanged and digests.items() <= entry["archives"].items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
