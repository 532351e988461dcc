"""Import of one symbol from files of any format: read, bring onto UTC, merge, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from backtest.errors import ConfigError
from backtest.ingest.bars import Bars, parse_bars
from backtest.ingest.clock_alignment import find_lag, zone_by_mark
from backtest.ingest.columns import SourceTable
from backtest.ingest.files import list_files
from backtest.ingest.funding import parse_charges
from backtest.ingest.merge import Imported, Piece, write_pieces
from backtest.ingest.messages import Notices
from backtest.ingest.options import BarFiles, Kind, Request, Sources, offset_text
from backtest.units import duration_text, instant_text


@dataclass(frozen=True)
class Format:
    """How the files of one source are read.

    Attributes
    ----------
    open_table : callable
        Reads one file; its columns bear the names that `backtest.ingest.columns.NAMES` knows.
    suffixes : tuple of str
        Files that are taken from a folder.
    """

    open_table: Callable[[Path, Kind, Request], SourceTable]
    suffixes: tuple[str, ...]


def import_files(source: Format, request: Request, files: BarFiles, notices: Notices | None = None) -> Imported:
    """Read the files of one symbol, and merge them into a dataset.

    Parameters
    ----------
    source : Format
        ``FORMAT`` of a module of `backtest.ingest.formats`.
    request : Request
        Symbol, interval, dataset, and how the files are read.
    files : BarFiles
        ``prices`` are required.
    notices : Notices, optional
        What finding the files showed.

    Raises
    ------
    DataError
        With file, row (counted from 0, without a header), column, value and rule.
    ConfigError
        If a file does not exist or is of another kind, the symbol is in the dataset already, or the files do not tell
        what must be told: the option that does is named.
    """
    step, notices = request.interval_ms, notices or Notices()

    def tables(kind: Kind, sources: Sources | None) -> Iterator[SourceTable]:
        return (source.open_table(file, kind, request) for file in list_files(sources, source.suffixes))

    price_tables, mark_tables = tables("prices", files.prices), tables("mark", files.mark)
    funding_tables = tables("funding", files.funding)
    prices, mark = parse_bars(price_tables, step, notices), parse_bars(mark_tables, step, notices)
    if prices is None:
        raise ConfigError("prices: needs at least one file")
    prices = _on_utc(prices, mark, step, notices)
    if mark is not None:
        mark = _on_utc(mark, prices, step, notices)
        _check_aligned(prices, mark, step)
    charges = parse_charges(funding_tables, notices)
    return write_pieces(request, [Piece(prices.part, None if mark is None else mark.part)], charges, notices)


# --- zones and alignment ----------------------------------------------------------------------------------------------


def _on_utc(bars: Bars, other: Bars | None, step: int, notices: Notices) -> Bars:
    """Bars of an unknown zone in UTC: found by the other prices if possible, else read as UTC with a warning."""
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
            (notices.note if zone in (bars.clocks or ("UTC",)) else notices.warn)(text)
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
    notices.warn(f"times of the {what} have no offset and are read as UTC; --time-zone says otherwise")
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
