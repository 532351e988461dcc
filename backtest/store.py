"""Read and write the Parquet dataset: ``interval=1h/symbol=BTCUSDT/year=2021/*.parquet``, or one plain file."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.arrow import times_to_arrow, to_arrow
from backtest.dataset import (
    TIME,
    Footer,
    Series,
    check_grid,
    check_order,
    chunk_of,
    existing,
    files_of,
    read_finite,
    read_footer,
    read_group,
    read_times,
    times_in,
)
from backtest.errors import ConfigError, DataError
from backtest.faults import columns_rule
from backtest.history import COLUMNS, MARK, Float, Int, PriceHistory, from_rows
from backtest.units import duration_ms, duration_text, instant_ms, instant_text

ROW_GROUP = 131_072


@dataclass(frozen=True)
class Source:
    """The files of one series, in the order of time."""

    series: Series
    interval_ms: int
    footers: tuple[Footer, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Known columns that at least one file has."""
        return tuple(name for name in COLUMNS if any(name in footer.types for footer in self.footers))


def series_of(path: str | Path) -> list[Series]:
    """What a dataset, a part of one or a plain Parquet file holds.

    Parameters
    ----------
    path : str or Path
        Local directory ``DATA`` or Parquet file.

    Returns
    -------
    list of Series
        Sorted by the text of interval and symbol.

    Raises
    ------
    ConfigError
        If there is no such path, or a plain file has one bar only.
    DataError
        If it holds no bars or cannot be read.
    """
    root = existing(path)
    return sorted(files_of(root)) if root.is_dir() else [_plain(root, None, None).series]


def read_history(
    path: str | Path,
    symbol: str | None = None,
    interval: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> PriceHistory:
    """Bars of one symbol; only the row groups that the range needs are read.

    Parameters
    ----------
    path : str or Path
        Dataset directory or plain Parquet file.
    symbol, interval : str, optional
        Needed where the dataset holds several. A plain file takes any symbol (default: its stem); its interval is by
        default the smallest spacing of open_time.
    start, end : str, optional
        ISO 8601, UTC; start inclusive, end exclusive.

    Returns
    -------
    PriceHistory
        From the first to the last row in the range, missing bars in their place.

    Raises
    ------
    ConfigError
        If the symbol or interval is ambiguous (the choices are listed) or unknown.
    DataError
        If a file is unreadable, lacks a column, is unsorted or off the grid, or holds NaN or ±inf: with file, row and
        column; or if the range is empty.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> bars = {"high": np.array([11.0, 12.0]), "low": np.array([9.0, 8.0]), "close": np.array([10.0, 9.0])}
    >>> with tempfile.TemporaryDirectory() as data:
    ...     _ = write_history(PriceHistory("BTCUSDT", 3_600_000, 0, bars), data)
    ...     read_history(data, end="1970-01-01T01:00Z").columns["close"].tolist()
    [10.0]
    """
    low = None if start is None else instant_ms(start)
    high = None if end is None else instant_ms(end)
    if low is not None and high is not None and low >= high:
        raise ConfigError(f"start must lie before end; got {start} and {end}")
    source = open_series(path, symbol, interval)
    names = source.columns
    lacking = columns_rule({name for footer in source.footers for name in footer.types} - {TIME})
    if lacking is not None:
        raise DataError(f"{source.footers[0].path}: {lacking}")
    times, columns = _rows(source, names, low, high)
    before = {} if low is None else _before(source, columns, low)
    try:
        return from_rows(source.series.symbol, source.interval_ms, times, columns, before, _series_kinds(source))
    except DataError as error:
        raise DataError(f"{path}: {error}; `backtest check {path}` names the rows") from None


def write_history(history: PriceHistory, out: str | Path, overwrite: bool = False) -> Path:
    """Write a symbol's year files, all or nothing; missing bars are left out.

    Parameters
    ----------
    history : PriceHistory
    out : str or Path
        Dataset directory, created where needed.
    overwrite : bool
        Replace the symbol's bars of this interval if there are any.

    Returns
    -------
    Path
        ``out/interval=…/symbol=…``, which `read_history` takes as well.

    Raises
    ------
    ConfigError
        If the symbol is there already and `overwrite` is not given, or symbol or interval cannot name a folder.
    DataError
        If no bar has any value.
    """
    filled = np.zeros(history.n_bars, dtype=np.bool_)
    for values in history.columns.values():
        filled |= ~np.isnan(values)
    rows = np.flatnonzero(filled)
    if not history.symbol or history.interval_ms % 1000:
        raise ConfigError(
            f"symbol must not be empty and the interval whole seconds, as they name folders; "
            f"got {history.symbol!r} and {history.interval_ms} ms"
        )
    if not rows.size:
        raise DataError(f"{history.symbol}: no bar has any value; there is nothing to write")
    folder = Path(out) / f"interval={duration_text(history.interval_ms)}"
    target = folder / f"symbol={quote(history.symbol, safe='')}"
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; choose another output directory or ask for overwrite")
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    fresh = folder / f".{secrets.token_hex(8)}.tmp"  # no glob of the layout matches it, and it is on the same disk
    try:
        fresh.mkdir(parents=True)
        _write_years(history, rows, fresh)
        _put_in_place(fresh, target)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        for parent in made:  # innermost first; one that something else moved into stays
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise ConfigError(f"out must be a directory that can be written; got {out}") from error
        raise
    return target


def _write_years(history: PriceHistory, rows: Int, folder: Path) -> None:
    times = history.start_ms + rows * history.interval_ms
    years = times.astype("datetime64[ms]").astype("datetime64[Y]").astype(np.int64) + 1970
    names = [name for name in COLUMNS if name in history.columns]
    for year in np.unique(years):
        part = slice(*np.searchsorted(years, [year, year + 1]))
        arrays = [times_to_arrow(times[part]), *(to_arrow(history.columns[name][rows[part]]) for name in names)]
        (folder / f"year={year}").mkdir()
        pq.write_table(
            pa.Table.from_arrays(arrays, names=[TIME, *names]),
            folder / f"year={year}" / "part-0.parquet",
            row_group_size=ROW_GROUP,
            compression="zstd",
            use_dictionary=False,  # prices hardly repeat: half the size and a third of the time without
            column_encoding={TIME: "DELTA_BINARY_PACKED"},
        )


def _put_in_place(fresh: Path, target: Path) -> None:
    if not target.exists():
        fresh.rename(target)
        return
    old = fresh.with_suffix(".old")
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def open_series(path: str | Path, symbol: str | None = None, interval: str | None = None) -> Source:
    """The files of the one series that is meant, footers read, their order checked as far as footers tell."""
    root = existing(path)
    if not root.is_dir():
        return _plain(root, symbol, interval)
    found = files_of(root)
    symbols = sorted({series.symbol for series in found})
    chosen = _choose(root, "symbol", symbol, symbols)
    intervals = sorted((s.interval for s in found if s.symbol == chosen), key=duration_ms)
    if interval is not None and interval not in intervals:
        same = [text for text in intervals if duration_ms(text) == duration_ms(interval)]
        interval = same[0] if same else interval
    series = Series(_choose(root, f"interval of {chosen}", interval, intervals), chosen)
    footers = [read_footer(file) for file in found[series]]
    footers.sort(key=_first_time)
    source = Source(series, duration_ms(series.interval), tuple(footers))
    _check_spans(source)
    return source


def _first_time(footer: Footer) -> int:
    """Earliest open_time of a file; read where its footer does not tell."""
    times = [group.span[0] if group.span else int(read_times(footer, group).min()) for group in footer.groups]
    return min(times, default=0)


def _choose(root: Path, what: str, asked: str | None, choices: list[str]) -> str:
    if asked is None and len(choices) == 1:
        return choices[0]
    if asked is None:
        raise ConfigError(f"{root} holds more than one {what}: {', '.join(choices)}; name one")
    if asked not in choices:
        raise ConfigError(f"{root} has no {what} {asked!r}; it holds {', '.join(choices)}")
    return asked


def _plain(file: Path, symbol: str | None, interval: str | None) -> Source:
    footer = read_footer(file)
    step = duration_ms(interval) if interval is not None else _spacing(footer)
    source = Source(Series(interval or duration_text(step), symbol or file.stem), step, (footer,))
    _check_spans(source)
    return source


def _spacing(footer: Footer) -> int:
    times = [read_times(footer, group) for group in footer.groups]
    stamps = np.concatenate([np.empty(0, dtype=np.int64), *times])
    if not stamps.size:
        raise DataError(f"{footer.path}: holds no row")
    if stamps.size < 2:
        raise ConfigError(f"{footer.path}: the interval cannot be told from {stamps.size} bar(s); name it")
    check_order(footer, 0, stamps, None)
    return int(np.diff(stamps).min())


def _check_spans(source: Source) -> None:
    """Row groups must follow each other in time; the offending row is looked for only when a footer says so."""
    spans = [group.span for footer in source.footers for group in footer.groups if group.span]
    if all(one[1] < two[0] for one, two in pairwise(spans)):
        return
    previous = None
    for footer in source.footers:
        for group in footer.groups:
            times = read_times(footer, group)
            check_order(footer, group.first_row, times, previous)
            previous = int(times[-1])


def _rows(source: Source, names: tuple[str, ...], low: int | None, high: int | None) -> tuple[Int, dict[str, Float]]:
    """Times and columns of the rows in ``[low, high)``, from the row groups that may hold some."""
    stamps: list[Int] = []
    pieces: dict[str, list[Float]] = {name: [] for name in names}
    previous = None
    for footer in source.footers:
        there = tuple(name for name in names if name in footer.types)
        for group in footer.groups:
            if group.span and (
                (high is not None and group.span[0] >= high) or (low is not None and group.span[1] < low)
            ):
                continue
            table = read_group(footer, group, (TIME, *there))
            times = times_in(footer, group, table)
            check_order(footer, group.first_row, times, previous)
            previous = int(times[-1])
            check_grid(footer, group, times, source.interval_ms)
            cut = slice(
                0 if low is None else int(np.searchsorted(times, low)),
                times.size if high is None else int(np.searchsorted(times, high)),
            )
            stamps.append(times[cut])
            for name in names:
                values = read_finite(footer, group, table, name) if name in there else np.full(times.size, np.nan)
                pieces[name].append(values[cut])
    if not sum(map(len, stamps)):
        raise DataError(f"{source.footers[0].path}: no bar in the range asked for; {_span_text(source)}")
    return np.concatenate(stamps), {name: np.concatenate(pieces.pop(name)) for name in names}


def _span_text(source: Source) -> str:
    spans = [group.span for footer in source.footers for group in footer.groups if group.span]
    if not spans:
        return f"{source.series.symbol} has no bars"
    first, last = spans[0][0], spans[-1][1] + source.interval_ms
    return f"{source.series.symbol} {source.series.interval} spans {instant_text(first)} … {instant_text(last)}"


def _before(source: Source, columns: dict[str, Float], low: int) -> dict[str, float]:
    """Last known closes before the range, read only if a charge inside it may fall on them (rare)."""
    nothing = np.full(next(iter(columns.values())).size, np.nan)
    no_price = np.isnan(columns.get("mark_open", nothing)) & np.isnan(columns.get("open", nothing))
    charged = np.flatnonzero(no_price & ~np.isnan(columns.get("funding_rate", nothing)))
    found: dict[str, float] = {}
    for name in ("close", "mark_close"):
        known = np.flatnonzero(~np.isnan(columns.get(name, nothing)))
        if name in columns and charged.size and (not known.size or charged[0] <= known[0]):
            value = _last_value(source, name, low)
            if value is not None:
                found[name] = value
    return found


def _last_value(source: Source, name: str, low: int) -> float | None:
    for footer in reversed(source.footers):
        for group in reversed(footer.groups):
            if name not in footer.types or (group.span and group.span[0] >= low):
                continue
            table = read_group(footer, group, (TIME, name))
            earlier = times_in(footer, group, table) < low
            known = np.flatnonzero(earlier & ~np.isnan(values := read_finite(footer, group, table, name)))
            if known.size:
                return float(values[known[-1]])
    return None


def _series_kinds(source: Source) -> frozenset[str]:
    """Which of "last", "mark" the whole history has: from the footers' null counts."""
    kinds = (("last", ("close",)), ("mark", MARK))
    return frozenset(kind for kind, names in kinds if any(_has_value(source, name) for name in names))


def _has_value(source: Source, name: str) -> bool:
    for footer in source.footers:
        for group in footer.groups if name in footer.types else ():
            chunk = chunk_of(footer.metadata, group.index, name)
            if chunk is not None and chunk.is_stats_set and chunk.statistics.has_null_count:
                nulls = chunk.statistics.null_count
            else:  # a footer without statistics
                nulls = read_group(footer, group, (name,)).column(name).null_count
            if nulls < group.rows:
                return True
    return False
