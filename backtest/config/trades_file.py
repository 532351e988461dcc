"""Reads the user's own trades from a Parquet or CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from backtest.arrays import Float, Int
from backtest.errors import ConfigError
from backtest.units import number_text

COLUMNS = ("entry_time", "exit_time", "side", "leverage", "entry_price", "symbol")
OPEN_END = np.iinfo(np.int64).max // 4
MOST_LEVERAGE = 1000.0


@dataclass(frozen=True)
class TradeFile:
    """The trades of a file, in its order.

    Attributes
    ----------
    entry_ms, exit_ms : (n,) int64
        UTC milliseconds; `OPEN_END` where there is no exit.
    sign : (n,) int64 or None
        +1 long, −1 short; None: the file has no sides.
    leverage : (n,) float64 or None
    price : (n,) float64
        Entry price; NaN where the file has none.
    symbol : tuple of str or None
    """

    path: str
    entry_ms: Int
    exit_ms: Int
    sign: Int | None
    leverage: Float | None
    price: Float
    symbol: tuple[str, ...] | None


@lru_cache(maxsize=4)
def _read(path: str, stamp: tuple[int, int]) -> TradeFile:
    table = read_columns(Path(path), "trades")
    unknown = sorted(set(table.column_names) - set(COLUMNS))
    if unknown:
        raise ConfigError(f"{path}: unknown column {unknown[0]!r}; trades have {', '.join(COLUMNS)}")
    if "entry_time" not in table.column_names:
        raise ConfigError(f"{path}: column entry_time is missing; trades have {', '.join(COLUMNS)}")
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise ConfigError(f"{path}: column {name!r} appears twice")
    if not table.num_rows:
        raise ConfigError(f"{path}: holds no trade")
    entry, exits = parse_times(path, table, "entry_time"), parse_times(path, table, "exit_time")
    if (entry == OPEN_END).any():
        raise ConfigError(f"{path}: row {int(np.argmax(entry == OPEN_END))}: entry_time is missing")
    sign, symbol = None, None
    if "side" in table.column_names:
        names = table["side"].to_pylist()
        for row, name in enumerate(names):
            if name not in ("long", "short"):
                raise ConfigError(f"{path}: row {row}: side must be 'long' or 'short'; got {name!r}")
        sign = np.array([1 if name == "long" else -1 for name in names], np.int64)
    if "symbol" in table.column_names:
        names = table["symbol"].to_pylist()
        if None in names:
            raise ConfigError(f"{path}: row {names.index(None)}: symbol is missing")
        symbol = tuple(str(name) for name in names)
    leverage = _numbers(path, table, "leverage", MOST_LEVERAGE)
    if leverage is not None and np.isnan(leverage).any():
        raise ConfigError(f"{path}: row {int(np.argmax(np.isnan(leverage)))}: leverage is missing")
    price = _numbers(path, table, "entry_price", np.inf)
    return TradeFile(
        path, entry, exits, sign, leverage, np.full(entry.size, np.nan) if price is None else price, symbol
    )


def read_trades(path: str | Path) -> TradeFile:
    """Read a file of trades, Parquet or CSV.

    Parameters
    ----------
    path : path
        Columns ``entry_time`` [, ``exit_time``, ``side``, ``leverage``, ``entry_price``, ``symbol``]; times are
        time stamps, UTC where they name no zone.

    Raises
    ------
    ConfigError
        With row, column and value.
    """
    file = Path(path)
    try:
        stat = file.stat()
    except OSError as error:
        raise ConfigError(f"entries.file: {file} cannot be read ({error.strerror})") from None
    return _read(str(file), (stat.st_mtime_ns, stat.st_size))


def read_columns(file: Path, what: str) -> pa.Table:
    """Read a table with times, Parquet or CSV; `what` names its rows in errors."""
    try:
        return pa.csv.read_csv(file) if file.suffix == ".csv" else pq.read_table(file, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{file}: cannot be read as a table of {what}, Parquet or CSV ({error})") from None


def parse_times(path: str, table: pa.Table, name: str) -> Int:
    """UTC milliseconds, `OPEN_END` where null; rounded up, so that the last microsecond of a bar is in that bar."""
    if name not in table.column_names:
        return np.full(table.num_rows, OPEN_END)
    column = table[name]
    if pa.types.is_null(column.type):
        return np.full(table.num_rows, OPEN_END)
    if not pa.types.is_timestamp(column.type):
        raise ConfigError(f"{path}: {name} must hold time stamps, such as 2024-05-01T12:00:00Z; got {column.type}")
    try:
        ns = pc.cast(pc.cast(column, pa.timestamp("ns", column.type.tz)), pa.int64())
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: {name} must lie between 1678 and 2262 ({error})") from None
    known = ns.to_numpy(zero_copy_only=False) if not ns.null_count else ns.fill_null(-1).to_numpy()
    ms = -(-known.astype(np.int64) // 1_000_000)
    return np.where(np.asarray(column.is_null()), OPEN_END, ms)


def _numbers(path: str, table: pa.Table, name: str, most: float) -> Float | None:
    if name not in table.column_names:
        return None
    kind = table[name].type
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in known):
        raise ConfigError(f"{path}: {name} must hold numbers; got {kind}")
    column = pc.cast(table[name], pa.float64())
    values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    null = np.asarray(column.is_null())
    bad = ~null & ~((values > 0) & (values <= most) & np.isfinite(values))
    if bad.any():
        row = int(np.argmax(bad))
        limit = "> 0" if np.isinf(most) else f"within 0…{number_text(most)}"
        raise ConfigError(f"{path}: row {row}: {name} must be {limit}; got {number_text(values[row])}")
    return values
