"""Tardis: ``derivative_ticker`` files, ticks of last and mark price and the funding announced, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from backtest.arrays import Bool, Float, Int
from backtest.arrow import LATEST_MS, arrow_errors, to_floats
from backtest.data.history import LAST
from backtest.errors import ConfigError, DataError
from backtest.ingest.bars import BarColumns
from backtest.ingest.files import CUT, ended, list_files, unpacked
from backtest.ingest.formats.instrument import check_instrument
from backtest.ingest.funding import Charges, rates_unit
from backtest.ingest.merge import Imported, Piece, write_pieces
from backtest.ingest.messages import Notices
from backtest.ingest.options import Request, Sources
from backtest.units import duration_ms, duration_text, instant_text

SUFFIXES = (".csv", ".csv.gz")
TIMES = ("timestamp", "local_timestamp", "funding_timestamp")
NUMBERS = ("funding_rate", "last_price", "mark_price")
BLOCK = 1 << 24
DISORDER_MS = 60_000
"""Ticks come in the order of their arrival, in which the exchange's own stamps go back by seconds at most."""
STALE_MS = 600_000
"""Age of a rate, when it is charged, that gives a warning."""


@dataclass
class _Bars:
    """Bars of one price, in pieces that may share their bars at the edges."""

    pieces: list[tuple[Int, Int, Float, Float, Float, Float]] = field(default_factory=list)

    def add(self, ms: Int, price: Float, step: int) -> None:
        """Ticks in the order of time."""
        known = ~np.isnan(price)
        if not known.any():
            return
        ms, price = ms[known], price[known]
        bars, first = np.unique(ms // step * step, return_index=True)
        last = np.append(first[1:], ms.size) - 1
        self.pieces.append(
            (bars, ms[first], price[first], np.maximum.reduceat(price, first), np.minimum.reduceat(price, first),
             price[last])
        )  # fmt: skip

    def part(self) -> BarColumns | None:
        """One row per bar."""
        if not self.pieces:
            return None
        bars, stamps, open_, high, low, close = (np.concatenate(columns) for columns in zip(*self.pieces, strict=True))
        order = np.lexsort((stamps, bars))
        _, first = np.unique(bars[order], return_index=True)
        last = np.append(first[1:], bars.size) - 1
        values = (
            open_[order][first], np.maximum.reduceat(high[order], first), np.minimum.reduceat(low[order], first),
            close[order][last],
        )  # fmt: skip
        return BarColumns(bars[order][first], dict(zip(LAST, values, strict=True)))


@dataclass
class _Funding:
    """The last rate announced before each charge, and the first one seen after it."""

    before: dict[int, tuple[int, float]] = field(default_factory=dict)
    after: dict[int, float] = field(default_factory=dict)
    unstamped: int = 0

    def add(self, ms: Int, stamps: Int, rates: Float, every_ms: int | None) -> None:
        """Ticks in the order of time; `stamps` is 0 where the file tells none."""
        if every_ms is not None:
            stamps = np.where(stamps == 0, (ms // every_ms + 1) * every_ms, stamps)
        known = ~np.isnan(rates)
        self.unstamped += int((known & (stamps == 0)).sum())
        known &= stamps > 0
        ms, stamps, rates = ms[known], stamps[known], rates[known]
        early = ms < stamps
        for stamp in np.unique(stamps):
            here = np.flatnonzero(early & (stamps == stamp))
            if here.size and int(ms[here[-1]]) >= self.before.get(int(stamp), (-1, 0.0))[0]:
                self.before[int(stamp)] = (int(ms[here[-1]]), float(rates[here[-1]]))
            late = np.flatnonzero(~early & (stamps == stamp))
            if late.size:
                self.after.setdefault(int(stamp), float(rates[late[0]]))

    def charges(self, first_ms: int, last_ms: int, notices: Notices) -> Charges | None:
        """What was charged while there were ticks."""
        due = sorted(stamp for stamp in {*self.before, *self.after} if first_ms <= stamp <= last_ms)
        if not due:
            return None
        late = [stamp for stamp in due if stamp not in self.before]
        if late:
            notices.warn(
                f"{len(late):,} charges were not announced before they fell; the first rate after is taken, "
                f"first at {instant_text(late[0])}"
            )
        stale = [stamp for stamp in due if stamp in self.before and stamp - self.before[stamp][0] > STALE_MS]
        if stale:
            notices.warn(
                f"{len(stale):,} charges fell more than {duration_text(STALE_MS)} after the last rate announced, "
                f"first at {instant_text(stale[0])}"
            )
        rates = [self.before[stamp][1] if stamp in self.before else self.after[stamp] for stamp in due]
        notices.note(f"{len(due):,} charges at funding_timestamp, each at the last funding_rate before it")
        return Charges(np.array(due, np.int64), np.array(rates))


def import_tardis(request: Request, sources: Sources, funding_every: str | None = None) -> Imported:
    """Bars of last and mark price, and funding, from ticks.

    Parameters
    ----------
    request : Request
        Symbol, interval and dataset; its ``reading`` is not used, as ticks tell all.
    sources : str, Path or sequence of them
        ``derivative_ticker`` files, ``.csv`` or ``.csv.gz``, folders or patterns with ``*``.
    funding_every : str, optional
        Time between charges, such as ``"1h"``, where ticks have a rate and no funding_timestamp.

    Raises
    ------
    DataError
        If a file is damaged, its ticks are not in the order of arrival, or prices are none.
    ConfigError
        If files are of another instrument, or do not tell when funding is charged.
    """
    step = request.interval_ms
    every = None if funding_every is None else duration_ms(funding_every)
    notices, last, mark, funding = Notices(), _Bars(), _Bars(), _Funding()
    ticks, spans = 0, list[_Span]()
    exchanges: set[str] = set()
    files = list_files(sources, SUFFIXES)
    for file in files:
        span = _Span(file)
        for columns in _blocks(file, request, exchanges):
            ms = span.take(columns["timestamp"], columns["local_timestamp"])
            order = np.argsort(ms, kind="stable")
            ms = ms[order]
            ticks += ms.size
            last.add(ms, columns["last_price"][order], step)
            mark.add(ms, columns["mark_price"][order], step)
            funding.add(ms, columns["funding_timestamp"][order] // 1000, columns["funding_rate"][order], every)
        if not ended(file):
            notices.warn(CUT, file)
        spans.append(span)
    spans = [span for span in spans if span.last_ms >= 0]
    prices, marks = last.part(), mark.part()
    if not spans or (prices is None and marks is None):
        raise DataError(f"{files[0]}: there are no ticks of {request.instrument or request.symbol} with a price")
    if len(exchanges) > 1:
        raise ConfigError(f"the files are of {', '.join(sorted(exchanges))}; import one exchange at a time")
    _say_spans(spans, ticks, step, notices)
    if funding.unstamped and not funding.before:
        raise ConfigError(
            "ticks have a funding_rate and no funding_timestamp; say the time between charges, such as "
            "--funding-every 1h: each is then charged at the last rate before it"
        )
    charges = funding.charges(min(span.first_ms for span in spans), max(span.last_ms for span in spans), notices)
    if charges is not None:
        rates_unit(charges.ms, charges.rates, None, files[0], notices)
    return write_pieces(request, [Piece(prices, marks)], charges, notices)


# --- one file ---------------------------------------------------------------------------------------------------------


@dataclass
class _Span:
    """What is known of the order of a file's ticks."""

    file: Path
    first_ms: int = -1
    last_ms: int = -1
    rows: int = 0

    def take(self, stamps: Int, arrivals: Int) -> Int:
        """Milliseconds of the next ticks, which must go on where those before ended."""
        for name, ticks in (("timestamp", stamps), ("local_timestamp", arrivals)):
            bad = (ticks < 10**14) | (ticks >= LATEST_MS * 1000)
            if bad.any():
                row = int(np.argmax(bad))
                raise DataError(
                    f"{self.file}: {name} must be microseconds since the epoch; got {ticks[row]} in row "
                    f"{self.rows + row}"
                )
        apart = np.abs(arrivals - stamps) > 3_600_000_000
        if apart.any():
            row = int(np.argmax(apart))
            raise DataError(
                f"{self.file}: timestamp and local_timestamp must be within an hour; they are "
                f"{instant_text(int(stamps[row] // 1000))} and {instant_text(int(arrivals[row] // 1000))} in row "
                f"{self.rows + row}"
            )
        ms = stamps // 1000
        latest = np.maximum.accumulate(np.concatenate(([max(self.last_ms, int(ms[0]))], ms)))[:-1]
        back = ms < latest - DISORDER_MS
        if back.any():
            row = int(np.argmax(back))
            raise DataError(
                f"{self.file}: ticks must come in the order of time; that of row {self.rows + row}, "
                f"{instant_text(int(ms[row]))}, comes after {instant_text(int(latest[row]))}"
            )
        self.first_ms = int(ms.min()) if self.first_ms < 0 else min(self.first_ms, int(ms.min()))
        self.last_ms = max(self.last_ms, int(ms.max()))
        self.rows += ms.size
        return np.asarray(ms, np.int64)


def _blocks(file: Path, request: Request, exchanges: set[str]) -> Iterator[dict[str, Any]]:
    """Ticks of the instrument as columns, block by block: times 0 where blank, numbers NaN."""
    if not file.name.lower().endswith(SUFFIXES):
        raise ConfigError(f"{file}: files of Tardis end in {', '.join(SUFFIXES)}")
    with arrow_errors(file, "CSV"), unpacked(file) as stream:
        options = pcsv.ConvertOptions(
            column_types={
                **dict.fromkeys(TIMES, pa.int64()),
                **dict.fromkeys(NUMBERS, pa.float64()),
                **dict.fromkeys(("exchange", "symbol"), pa.string()),
            },
            include_columns=["exchange", "symbol", *TIMES, *NUMBERS],
            null_values=[""],
        )
        reader = pcsv.open_csv(stream, pcsv.ReadOptions(block_size=BLOCK), convert_options=options)
        while True:
            try:
                table = pa.Table.from_batches([reader.read_next_batch()])
            except StopIteration:
                return
            names = set(table["symbol"].unique().to_pylist())
            exchanges |= {str(name) for name in table["exchange"].unique().to_pylist()}
            if len(names) > 1:
                raise ConfigError(
                    f"{file}: holds ticks of {', '.join(sorted(map(str, names))[:20])}; give files of one symbol"
                )
            for name in names:
                check_instrument(str(name), file, request)
            if table.num_rows:
                yield _columns(file, table)


def _columns(file: Path, table: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in TIMES:
        column = table[name]
        if column.null_count and name != "funding_timestamp":
            raise DataError(f"{file}: {name} must not be blank")
        values = column.combine_chunks().fill_null(0)
        values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
        found[name] = np.frombuffer(values.buffers()[1], np.int64, len(values), 8 * values.offset)
    for name in NUMBERS:
        values, null = to_floats(table[name], f"{file}: column {name}")
        _refuse(file, name, ~(np.isfinite(values) | null), "must be finite", values)
        if name != "funding_rate":
            _refuse(file, name, values <= 0, "must be > 0", values)
        found[name] = values
    stamps = found["funding_timestamp"]
    bad = (stamps != 0) & ((stamps < 10**14) | (stamps >= LATEST_MS * 1000))
    _refuse(file, "funding_timestamp", bad, "must be microseconds since the epoch", stamps)
    return found


def _refuse(file: Path, name: str, bad: Bool, rule: str, values: Any) -> None:
    if bad.any():
        raise DataError(f"{file}: {name} {rule}; got {values[int(np.argmax(bad))]:.15g}")


def _say_spans(spans: list[_Span], ticks: int, step: int, notices: Notices) -> None:
    notices.note(f"{ticks:,} ticks, timestamp read as microseconds since the epoch; bars of {duration_text(step)}")
    spans.sort(key=lambda span: span.first_ms)
    for one, two in pairwise(spans):
        if two.first_ms < one.last_ms - DISORDER_MS:
            notices.warn(f"{one.file.name} and {two.file.name} overlap from {instant_text(two.first_ms)} on")
