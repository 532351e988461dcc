"""Public archives of Binance on the disk: klines, mark prices and funding become a dataset, month by month."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from backtest.data.writer import Existing
from backtest.errors import BacktestError, ConfigError, DataError
from backtest.ingest.binance.names import Archive, Kind, find_archives
from backtest.ingest.binance.overlaps import join_archives, merge_charges
from backtest.ingest.binance.rows import ArchiveRows, read_part
from backtest.ingest.merge import Imported, Piece, write_pieces
from backtest.ingest.messages import Notices
from backtest.ingest.options import Request
from backtest.progress import progress
from backtest.units import duration_text

AHEAD_BYTES = 1 << 25
"""Of archives that are read ahead of the month that is written."""


def import_binance(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    symbols: Sequence[str] | None = None,
    interval: str | None = None,
    kind: Kind | None = None,
    existing: Existing = "refuse",
    show_progress: bool | None = None,
) -> tuple[Imported, ...]:
    """Merge archives as data.binance.vision has them into a dataset.

    Parameters
    ----------
    sources : path, or sequence of them
        Zips or CSVs, or folders that hold some anywhere below: klines and markPriceKlines of any interval (monthly,
        daily, or both), and fundingRate. A ``.CHECKSUM`` beside a file is verified.
    out : str or Path
        Dataset directory.
    symbols : sequence of str, optional
        Those to take; default: all. One names the symbol of a file that was renamed.
    interval : str, optional
        The one to take, such as ``"1m"``; default: all. Names that of a file that was renamed.
    kind : {"last", "mark"}, optional
        What bars are whose folder does not tell and whose volume is 0 throughout.
    existing : {"refuse", "add", "replace", "anew"}
        What happens to bars that are there: see `backtest.data.writer.adding`.
    show_progress : bool, optional
        Default: where standard error is a terminal.

    Returns
    -------
    tuple of Imported
        One per symbol and interval; each is written whole or not at all.

    Raises
    ------
    DataError
        With file, column, row and value; if two files disagree on a bar, both.
    ConfigError
        If a source or symbol does not exist, the kind of a file must be told, or the symbol is in the dataset already.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "klines", "BTCUSDT-1d-2021-05-01.csv")
    ...     file.parent.mkdir()
    ...     _ = file.write_text("1619827200000,57697,58458,56956,57797,24,1619913599999,1387000,9,12,693500,0\\n")
    ...     import_binance(file, Path(folder, "data"))[0].span
    ('2021-05-01T00:00Z', '2021-05-01T00:00Z')
    """
    if kind not in (None, "last", "mark"):
        raise ConfigError(f"kind must be last or mark; got {kind!r}")
    notices = Notices()
    given = [sources] if isinstance(sources, str | Path) else sources
    archives = find_archives(given, symbols, interval, notices)
    series = sorted({(one.symbol, one.interval_ms) for one in archives if one.kind != "funding"})
    done: list[Imported] = []
    with progress("importing", len(archives), show_progress) as advance:
        for symbol, step in series:
            own = [one for one in archives if one.symbol == symbol and one.interval_ms in (0, step)]
            try:
                request = Request(symbol, duration_text(step), out, existing)
                done.append(_import_one(own, request, kind, notices, advance))
            except BacktestError as error:
                if not done:
                    raise
                written = ", ".join(str(one.path) for one in done)
                raise type(error)(f"{error}\nwritten before that: {written}") from error
            notices = Notices()
    return tuple(done)


def _import_one(
    archives: Sequence[Archive], request: Request, kind: Kind | None, notices: Notices, advance: Callable[[int], None]
) -> Imported:
    """One symbol and interval."""
    _check_market(archives, notices)
    funding = [one for one in archives if one.kind == "funding"]
    # Unpacking and parsing leave Python's lock, so that threads share the processors.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        charged = [part for group in _read_ahead(pool, [[one] for one in funding], None, advance) for part in group]
        charges = merge_charges(charged, notices)
        months = _by_month([one for one in archives if one.kind != "funding"], kind)
        pieces = _pieces(_read_ahead(pool, months, kind, advance), charged, request.symbol, notices)
        return write_pieces(request, pieces, charges, notices)


def _pieces(
    groups: Iterable[Sequence[ArchiveRows]], charged: Sequence[ArchiveRows], symbol: str, notices: Notices
) -> Iterator[Piece]:
    """Bars of one group of archives after the other; those of funding are named with the first."""
    verified, files, has_mark, named = 0, 0, False, charged
    for parts in groups:
        files += len(parts)
        verified += sum(part.digest is not None for part in parts)
        last = join_archives([part for part in parts if part.kind == "last"], notices)
        mark = join_archives([part for part in parts if part.kind == "mark"], notices)
        has_mark |= mark is not None
        digests = [(part.digest, int(part.times[0])) for part in (*named, *parts) if part.digest is not None]
        named = ()
        yield Piece(last, mark, tuple(digests))
    notices.note(f"{verified:,} of {files:,} files of bars were verified by a .CHECKSUM beside them")
    if not has_mark:
        notices.warn(f"there are no mark prices of {symbol}: liquidations will be judged by the last price")
    if not charged:
        notices.warn(f"there is no funding of {symbol}: no position will be charged")


def _check_market(archives: Sequence[Archive], notices: Notices) -> None:
    """One symbol comes from one market."""
    by_market: dict[str, Archive] = {}
    for one in archives:
        if one.market is not None:
            by_market.setdefault(one.market, one)
    if len(by_market) > 1:
        one, other = list(by_market.values())[:2]
        raise DataError(
            f"{one.file} and {other.file} are of two markets, {one.market} and {other.market}; import one of them"
        )
    if "cm" in by_market:
        notices.note(f"{archives[0].symbol} is COIN-M: its volume counts contracts, its prices are in USD")


# --- reading ----------------------------------------------------------------------------------------------------------


def _by_month(archives: Sequence[Archive], kind: Kind | None) -> list[list[Archive]]:
    """Files whose months overlap, together; in the order of time."""
    months = []
    for one in archives:
        if one.period_ms is None:  # a renamed file tells by its rows
            times = read_part(one, kind).times
            span = int(times[0]), int(times[-1])
        else:
            span = one.period_ms[0], one.period_ms[1] - 1
        low, high = (int(np.datetime64(ms, "ms").astype("datetime64[M]").astype(int)) for ms in span)
        months.append((low, high, span[0] - span[1], one))
    groups: list[list[Archive]] = []
    end = -1
    for low, high, _, one in sorted(months, key=lambda month: (*month[:3], str(month[3].file))):  # the longest first
        if low > end:
            groups.append([])
        groups[-1].append(one)
        end = max(end, high)
    return groups


def _read_ahead(
    pool: ThreadPoolExecutor, groups: Sequence[Sequence[Archive]], kind: Kind | None, advance: Callable[[int], None]
) -> Iterator[list[ArchiveRows]]:
    """The parts of each group, while others are being read; what lies in memory is bounded."""
    waiting: deque[list[Future[ArchiveRows]]] = deque()
    sizes: deque[int] = deque()
    todo = iter(groups)
    while True:
        while sum(sizes) < AHEAD_BYTES and (group := next(todo, None)) is not None:
            waiting.append([pool.submit(read_part, one, kind) for one in group])
            sizes.append(sum(_weight(one) for one in group))
        if not waiting:
            return
        parts = [future.result() for future in waiting.popleft()]
        sizes.popleft()
        advance(len(parts))
        yield parts


def _weight(archive: Archive) -> int:
    """About the bytes of its zip."""
    size = archive.file.stat().st_size
    return size if archive.file.suffix.lower() == ".zip" else size // 4
