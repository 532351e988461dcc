"""What a dataset holds, told from the footers of its files: no bar is read where they say enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from backtest.data.files import existing, refuse_changed, series_files, unchanged
from backtest.data.reader import BarFile, SeriesFiles
from backtest.filesystem import Place, Remote
from backtest.units import duration_ms, instant_text


@dataclass(frozen=True)
class Holding:
    """One series of a dataset.

    Attributes
    ----------
    symbol, interval : str
    first, last : str or None
        Open times of the first and last row, ISO 8601 UTC; None without rows.
    grid_bars : int
        Bars from the first to the last, missing ones included.
    bars, mark_bars : int
        Those of them with high and low, of the last price (without one of the mark price), and of the mark price.
    charges : int
        Bars with a funding charge.
    files, bytes : int
        Parquet files and their size.
    """

    symbol: str
    interval: str
    first: str | None
    last: str | None
    grid_bars: int
    bars: int
    mark_bars: int
    charges: int
    files: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with ``coverage`` and ``mark``: whether there is a mark price."""
        return {**asdict(self), "coverage": self.coverage, "mark": self.mark_bars > 0}

    @property
    def coverage(self) -> float | None:
        """Share of the grid's bars that are there."""
        return self.bars / self.grid_bars if self.grid_bars else None


def inventory(path: str | Place) -> list[Holding]:
    """The series of a dataset, in the order of symbols and intervals.

    Parameters
    ----------
    path : str or Path
        Dataset directory, part of one, or plain Parquet file, local or at a URI.

    Raises
    ------
    ConfigError
        If there is no such path.
    DataError
        If it holds no dataset or a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from backtest.data.history import PriceHistory
    >>> from backtest.data.dataset import write_history
    >>> price = np.array([11.0, np.nan, 12.0])
    >>> bars = {"high": price, "low": price, "close": price}
    >>> with tempfile.TemporaryDirectory() as data:
    ...     _ = write_history(PriceHistory("BTCUSDT", 3_600_000, 0, bars), data)
    ...     [held] = inventory(data)
    >>> held.bars, held.grid_bars, held.last
    (2, 3, '1970-01-01T02:00Z')
    """
    return unchanged(lambda: _inventory(existing(path)))


def _inventory(root: Place) -> list[Holding]:
    if not root.is_dir():
        return [_holding(SeriesFiles.plain(root))]
    from concurrent.futures import ThreadPoolExecutor

    found = series_files(root)
    order = sorted(found, key=lambda series: (series.symbol, duration_ms(series.interval)))
    paths = [path for series in order for path in found[series]]
    with ThreadPoolExecutor(16) as pool:
        files = dict(zip(paths, pool.map(BarFile.open, paths), strict=True))
    for series in order:
        refuse_changed(found[series])
    return [_holding(SeriesFiles.sort(series, [files[path] for path in found[series]])) for series in order]


def _holding(series: SeriesFiles) -> Holding:
    first, last = series.span or (None, None)
    bars, mark_bars = (
        sum(min(_count_values(file, prefix + name) for name in ("high", "low")) for file in series.files)
        for prefix in ("", "mark_")
    )
    return Holding(
        series.symbol,
        series.name.interval,
        None if first is None else instant_text(first),
        None if last is None else instant_text(last),
        0 if first is None or last is None else (last - first) // series.interval_ms + 1,
        bars or mark_bars,
        mark_bars,
        sum(_count_values(file, "funding_rate") for file in series.files),
        len(series.files),
        sum(_size(file.path) for file in series.files),
    )


def _count_values(file: BarFile, name: str) -> int:
    return sum(file.count_values(group, name) for group in file.groups)


def _size(file: Place) -> int:
    return file.size() if isinstance(file, Remote) else file.stat().st_size


def inventory_text(held: list[Holding]) -> str:
    """A line per series."""
    head = ["symbol", "interval", "first", "last", "bars", "of grid", "mark", "charges", "files", "MiB"]
    lines = [head, *(_cells(one) for one in held)]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    total = f"{len(held):,} series, {sum(one.bytes for one in held) / 2**20:,.1f} MiB"
    texts = ["  ".join(_placed(cell, n, width[n]) for n, cell in enumerate(line)).rstrip() for line in lines]
    return "\n".join([*texts, total])


def _cells(one: Holding) -> list[str]:
    return [
        one.symbol,
        one.interval,
        one.first or "",
        one.last or "",
        f"{one.bars:,}",
        _share(one.bars, one),
        _share(one.mark_bars, one) if one.mark_bars else "no",
        f"{one.charges:,}",
        str(one.files),
        f"{one.bytes / 2**20:,.1f}",
    ]


def _share(bars: int, one: Holding) -> str:
    """Of the grid, rounded down: 100 % is shown only where no bar is missing."""
    return f"{bars * 10_000 // one.grid_bars / 1e4:.2%}" if one.grid_bars else ""


def _placed(cell: str, column: int, width: int) -> str:
    return cell.ljust(width) if column < 4 else cell.rjust(width)
