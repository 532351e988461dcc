"""Write bars into a dataset, piece by piece; all of them appear in one step, or none."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrays import Float, Int
from backtest.arrow import times_to_arrow, to_arrow
from backtest.data.files import files_in
from backtest.data.history import COLUMNS, PriceHistory
from backtest.data.reader import TIME, BarFile, SeriesFiles, open_series
from backtest.data.transaction import Taken, taking
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Place, to_place
from backtest.units import duration_ms, duration_text, instant_text, number_text

ROW_GROUP = 131_072
SOURCES = b"liquidation-backtest.sources"
"""Key of a file's metadata: SHA-256 of the archives whose bars it holds, as a JSON list."""
Existing = Literal["refuse", "add", "replace", "anew"]
"""What happens to existing bars of the symbol: see `adding`."""


@contextmanager
def adding(out: str | Place, symbol: str, interval_ms: int, existing: Existing = "refuse") -> Iterator[Addition]:
    """Add bars of one symbol to a dataset; the end of the block commits all of them in one step, an exception none.

    A reader sees the old or the new state, also after the process was killed. Another writer of the symbol waits a
    moment and is then refused. Years without new bars are not written again.

    Parameters
    ----------
    out : str or Path
        Dataset directory, created where needed.
    symbol : str
    interval_ms : int
        Length of a bar, milliseconds.
    existing : {"refuse", "add", "replace", "anew"}
        If the symbol exists with this interval: "refuse"; "add" joins the bars, which must agree where both have a
        value; "replace" overwrites existing bars, in the columns of the added ones, nulls included; "anew" removes
        all existing bars.

    Yields
    ------
    Addition
        Takes the bars.

    Raises
    ------
    ConfigError
        If the symbol exists and `existing` is "refuse", or symbol or interval cannot name a folder.
    DataError
        If values differ ("add"), an existing file cannot be joined, no bar has any value, or another process writes
        the symbol.

    Examples
    --------
    >>> import tempfile
    >>> def day(close: float, start_ms: int) -> PriceHistory:
    ...     bars = {"high": np.array([12.0]), "low": np.array([8.0]), "close": np.array([close])}
    ...     return PriceHistory("BTCUSDT", 86_400_000, start_ms, bars)
    >>> with tempfile.TemporaryDirectory() as data:
    ...     for close, start_ms in ((9.0, 0), (10.0, 86_400_000)):
    ...         with adding(data, "BTCUSDT", 86_400_000, "add") as addition:
    ...             addition.add(day(close, start_ms))
    ...     open_series(data).files[0].metadata.num_rows
    2
    """
    if not symbol or interval_ms <= 0 or interval_ms % 1000:
        raise ConfigError(
            f"symbol must not be empty and the interval whole seconds, as they name folders; "
            f"got {symbol!r} and {interval_ms} ms"
        )
    target = series_folder(to_place(out), symbol, interval_ms)
    with taking(target) as taken:
        there = files_in(target)
        if existing == "refuse" and there:
            raise ConfigError(
                f"{target} exists; choose another output directory or ask for overwrite, by which new bars take the "
                "place of those there, or for add, which joins what agrees"
            )
        addition = Addition(taken, symbol, interval_ms, existing, there)
        yield addition
        addition._commit()


def imported_digests(folder: Place) -> set[str]:
    """SHA-256 of the archives whose bars a symbol's directory holds, as `Addition.record` wrote them."""
    found: set[str] = set()
    for file in open_series(folder).files if files_in(folder) else ():
        found |= _digests_in(file)
    return found


def _digests_in(file: BarFile) -> set[str]:
    return set(json.loads((file.metadata.metadata or {}).get(SOURCES, b"[]")))


def series_folder(out: Place, symbol: str, interval_ms: int) -> Place:
    """The symbol's directory, below an existing folder of this interval however that spells it (1h, 60m)."""
    name = duration_text(interval_ms)
    if isinstance(out, Path):
        spelled = sorted(folder.name.removeprefix("interval=") for folder in out.glob("interval=*"))
        name = next((text for text in spelled if _same_length(text, interval_ms)), name)
    return out / f"interval={name}" / f"symbol={quote(symbol, safe='')}"


def _same_length(text: str, interval_ms: int) -> bool:
    try:
        return duration_ms(text) == interval_ms
    except ConfigError:
        return False


class Addition:
    """Collects bars for a dataset; made by `adding`.

    Attributes
    ----------
    path : Path, or Remote in an object store
        ``out/interval=…/symbol=…``, which `backtest.read_history` takes as well.
    rows : int
        Bars with any value that were added.
    """

    def __init__(
        self, taken: Taken, symbol: str, interval_ms: int, existing: Existing, there: Collection[Place]
    ) -> None:
        self.path = taken.target
        self.rows = 0
        self._taken, self._symbol, self._interval_ms, self._existing = taken, symbol, interval_ms, existing
        self._first = self._last = -1
        self._year = -1
        self._parts: list[tuple[Int, dict[str, Float]]] = []  # of the current year
        self._file = taken.fresh_name()
        self._replaced = set(there) if existing == "anew" else set()
        self._source: SeriesFiles | None = open_series(self.path) if there and existing != "anew" else None
        self._digests: list[tuple[int, str]] = []  # year and SHA-256 of archives that no file names yet
        self._kept: set[str] = set()  # digests of the year's files that are replaced

    @property
    def span_ms(self) -> tuple[int, int]:
        """Open times of the first and last bar that were added, UTC milliseconds."""
        if not self.rows:
            raise DataError(f"{self._symbol}: no bar was added")
        return self._first, self._last

    def add(self, history: PriceHistory) -> None:
        """Add a piece of the history; it must begin after the end of the piece before.

        Parameters
        ----------
        history : PriceHistory
            Of the symbol and interval; bars without any value are left out.
        """
        if (history.symbol, history.interval_ms) != (self._symbol, self._interval_ms):
            raise ConfigError(
                f"a stretch must be of {self._symbol} at {duration_text(self._interval_ms)}; got {history.symbol} "
                f"at {duration_text(history.interval_ms)}"
            )
        filled = np.zeros(history.n_bars, dtype=np.bool_)
        for values in history.columns.values():
            filled |= ~np.isnan(values)
        rows = np.flatnonzero(filled)
        if not rows.size:
            return
        times = history.start_ms + rows * history.interval_ms
        if self.rows and times[0] <= self._last:
            raise DataError(
                f"{self._symbol}: stretches must follow each other in time; one begins at "
                f"{instant_text(int(times[0]))} after another that ends at {instant_text(self._last)}"
            )
        self._first = self._first if self.rows else int(times[0])
        self._last, self.rows = int(times[-1]), self.rows + int(rows.size)
        years = times.astype("datetime64[ms]").astype("datetime64[Y]").astype(np.int64) + 1970
        for year in np.unique(years):
            if year != self._year:
                self._write_year()
                self._year = int(year)
            part = slice(*np.searchsorted(years, [year, year + 1]))
            here = part if rows.size == history.n_bars else rows[part]  # a slice is no copy
            columns = {name: values[here] for name, values in history.columns.items()}
            self._parts.append((times[part], columns))

    def record(self, digest: str, start_ms: int) -> None:
        """Remember in the dataset that it holds the bars of an archive; `imported_digests` reads it back.

        Parameters
        ----------
        digest : str
            SHA-256 of the archive.
        start_ms : int
            First bar of the archive, UTC milliseconds. Call this before bars of later years are added.
        """
        self._digests.append((int(np.datetime64(start_ms, "ms").astype("datetime64[Y]").astype(int)) + 1970, digest))

    def _commit(self) -> None:
        self._write_year(last=True)
        if not self.rows:
            raise DataError(f"{self._symbol}: no bar has any value; there is nothing to write")
        self._taken.commit(self._replaced)

    def _write_year(self, *, last: bool = False) -> None:
        """Write a complete year: existing rows and the added ones."""
        if not self._parts:
            return
        times, columns = self._joined()
        self._parts.clear()
        for prefix in ("", "mark_"):
            high, low = columns.get(prefix + "high"), columns.get(prefix + "low")
            if high is not None and low is not None and (bad := high < low).any():
                when = instant_text(int(times[np.argmax(bad)]))
                raise DataError(
                    f"{self.path}: {prefix}high lies below {prefix}low in the bar of {when}, where one is there and "
                    "the other added; ask for overwrite with whole bars"
                )
        names = [name for name in COLUMNS if name in columns]
        file = self._taken.new / f"year={self._year}" / self._file
        file.parent.mkdir()
        table = pa.Table.from_arrays(
            [times_to_arrow(times), *(to_arrow(columns[name]) for name in names)], names=[TIME, *names]
        )
        digests = self._kept | {digest for year, digest in self._digests if last or year <= self._year}
        self._digests = [one for one in self._digests if one[1] not in digests]
        self._kept = set()
        if digests:
            table = table.replace_schema_metadata({SOURCES: json.dumps(sorted(digests))})
        pq.write_table(
            table,
            file,
            row_group_size=ROW_GROUP,
            compression="zstd",
            # LZ4 decodes in half the time and takes a third more room; splitting bytes gains on generated prices alone
            use_dictionary=False,  # prices hardly repeat: half the size and a third of the time without
            column_encoding={TIME: "DELTA_BINARY_PACKED"},
        )

    def _joined(self) -> tuple[Int, dict[str, Float]]:
        """Times and columns of the year, existing and added rows joined."""
        there, known = self._there()
        names = {name for _, part in self._parts for name in part} | set(known)
        if not there.size:  # what is added alone is ascending
            parts = [(part, np.full(part.size, np.nan), added) for part, added in self._parts]
            columns = {name: np.concatenate([own.get(name, nothing) for _, nothing, own in parts]) for name in names}
            return np.concatenate([part for part, *_ in parts]), columns
        times = np.unique(np.concatenate([there, *(part for part, _ in self._parts)]))
        columns = {name: np.full(times.size, np.nan) for name in names}
        place = np.searchsorted(times, there)
        for name, values in known.items():
            columns[name][place] = values
        for part, added in self._parts:
            place = np.searchsorted(times, part)
            if self._existing == "add":
                self._refuse_other(part, {name: (columns[name][place], values) for name, values in added.items()})
            for name, values in added.items():
                kept = columns[name][place] if self._existing == "add" else values
                columns[name][place] = np.where(np.isnan(values), kept, values)
        return times, columns

    def _refuse_other(self, times: Int, pairs: dict[str, tuple[Float, Float]]) -> None:
        """Refuse added values that differ from existing ones; the first is named."""
        differ = {name: (old != new) & ~np.isnan(old) & ~np.isnan(new) for name, (old, new) in pairs.items()}
        first = {name: int(np.argmax(bad)) for name, bad in differ.items() if bad.any()}
        if not first:
            return
        name = min(first, key=lambda one: first[one])
        old, new = (values[first[name]] for values in pairs[name])
        count = int(np.any(list(differ.values()), axis=0).sum())
        raise DataError(
            f"{self.path}: column {name} of the bar of {instant_text(int(times[first[name]]))} is {number_text(old)} "
            f"there and {number_text(new)} in what is added ({count:,} such bars); find out which is right: "
            "overwrite takes the new values"
        )

    def _there(self) -> tuple[Int, dict[str, Float]]:
        """Existing rows of the year, whose files are then replaced."""
        low, high = (int(np.datetime64(str(self._year + n), "ms").astype(np.int64)) for n in (0, 1))
        if self._source is None:
            return np.empty(0, np.int64), {}
        for file in self._source.files:
            span = file.span
            if span is None or span[1] < low or span[0] >= high:
                continue
            if span[0] < low or span[1] >= high:
                raise DataError(f"{file.path}: holds bars outside of {self._year}; a file holds bars of one year")
            other = sorted(set(file.types) - {TIME, *COLUMNS})
            if other:
                raise DataError(f"{file.path}: column {other[0]} is unknown and would be lost; remove it first")
            self._replaced.add(file.path)
            if self._existing == "add":
                self._kept |= _digests_in(file)
        return self._source.rows(low, high)
