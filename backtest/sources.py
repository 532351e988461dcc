"""From a configuration to the work of each symbol: which histories, which cut of them, which entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backtest.barrier import MarginTerms
from backtest.config import Config, Data, Entries, Margin, Statistics, Sweep, load_config
from backtest.errors import ConfigError, RuleError
from backtest.history import Grid, PriceHistory, grid_of
from backtest.store import read_history, series_of
from backtest.sweep import Scenario, bars_of, horizon_bars
from backtest.units import duration_ms, instant_ms, instant_text
from backtest.work import Work


@dataclass(frozen=True)
class Source:
    """A symbol, and how to get its history when its turn comes."""

    symbol: str
    interval_ms: int
    read: Callable[[], PriceHistory] = field(repr=False)


def config_of(
    source: str | Path | PriceHistory | Sequence[PriceHistory],
    sweep: Sweep | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    statistics: Statistics | None = None,
) -> Config:
    """The configuration of a TOML file, or of a history or dataset with the tables given."""
    parts = {"data": data, "entries": entries, "margin": margin, "statistics": statistics}
    if isinstance(source, str | Path) and Path(source).suffix == ".toml":
        given = [name for name, part in {"sweep": sweep, **parts}.items() if part is not None]
        if given:
            raise ConfigError(f"{source} is a whole configuration; put {given[0]} into the file")
        return load_config(source)
    if sweep is None:
        raise ConfigError("sweep must be given with a history: backtest.Sweep(leverage=…, horizon=…, maintenance=…)")
    if isinstance(source, str | Path):
        parts["data"] = (data or Data()).model_copy(update={"path": str(source)})
    return Config.model_validate({"sweep": sweep, **{k: v for k, v in parts.items() if v is not None}})


def sources_of(given: str | Path | PriceHistory | Sequence[PriceHistory], config: Config) -> list[Source]:
    """The symbols of a run, in order; each history on disk is read when its turn comes."""
    data = config.data
    if not isinstance(given, str | Path):
        return _histories(given, data)
    if data.path is None:
        raise ConfigError("data.path must name a dataset or a Parquet file")
    path = data.path
    if Path(path).is_file():
        return [_plain_file(path, data)]
    found = series_of(path)
    wanted = duration_ms(data.interval) if data.interval else None
    intervals = sorted({s.interval for s in found if wanted in (None, duration_ms(s.interval))}, key=duration_ms)
    if len(intervals) != 1:
        names = ", ".join(sorted({s.interval for s in found}, key=duration_ms))
        got = f"; got {data.interval!r}" if data.interval else ""
        raise ConfigError(f"data.interval must name one of the intervals of {path}: {names}{got}")
    interval = intervals[0]
    present = [s.symbol for s in found if s.interval == interval]
    for symbol in data.symbols or ():
        if symbol not in present:
            raise ConfigError(
                f"data.symbols: {symbol!r} is not in {path} at {interval}; there are {', '.join(present)}"
            )

    def reader(symbol: str) -> Callable[[], PriceHistory]:
        return lambda: read_history(path, symbol, interval, data.start, data.end)

    return [Source(symbol, duration_ms(interval), reader(symbol)) for symbol in data.symbols or present]


def _plain_file(path: str, data: Data) -> Source:
    """A Parquet file: one symbol, named by the configuration or the file; its rows only suggest an interval."""
    if data.symbols is not None and len(data.symbols) > 1:
        raise ConfigError(f"data.symbols: {path} is one Parquet file and holds one symbol; got {len(data.symbols)}")
    symbol = data.symbols[0] if data.symbols else Path(path).stem
    interval = data.interval or series_of(path)[0].interval
    return Source(symbol, duration_ms(interval), lambda: read_history(path, symbol, interval, data.start, data.end))


def _histories(given: PriceHistory | Sequence[PriceHistory], data: Data) -> list[Source]:
    """Histories in memory as sources."""
    histories = [given] if isinstance(given, PriceHistory) else list(given)
    if len({h.interval_ms for h in histories}) != 1 or len({h.symbol for h in histories}) != len(histories):
        raise ConfigError("histories of one run must have one interval and different symbols")
    for symbol in data.symbols or ():
        if symbol not in {h.symbol for h in histories}:
            raise ConfigError(f"data.symbols: {symbol!r} is none of {', '.join(h.symbol for h in histories)}")

    def holder(history: PriceHistory) -> Callable[[], PriceHistory]:
        return lambda: history

    return [
        Source(h.symbol, h.interval_ms, holder(h))
        for h in histories
        if data.symbols is None or h.symbol in data.symbols
    ]


def work_of(config: Config, grid: Grid) -> Work:
    """What the blocks of work of one symbol share."""
    interval = grid.interval_ms
    every = config.entries.every
    gap = config.data.max_gap
    bars_of("statistics.block", duration_ms(config.statistics.block), interval)
    return Work(
        grid,
        grid.entry_bars(duration_ms(every) if every else None),
        tuple(horizon_bars(config.sweep, interval)),
        np.array(config.sweep.leverage),
        duration_ms(config.statistics.block),
        MarginTerms(
            config.margin.fees_from_margin,
            config.margin.margin_call_ratio,
            config.margin.liquidation_slippage,
            config.margin.liquidation_fee,
        ),
        None if gap is None else duration_ms(gap) // interval,
    )


def grid_for(config: Config, source: Source, scenarios: Sequence[Scenario]) -> Grid:
    """Read a symbol's history and cut it; tier tables must be in force from its first bar on."""
    data = config.data
    start = instant_ms(data.start) if data.start else None
    grid = grid_of(source.read(), data.trigger, start, instant_ms(data.end) if data.end else None)
    for maintenance in {id(s.maintenance): s.maintenance for s in scenarios}.values():
        since = maintenance.tables[0].effective_from_ms if maintenance.tables else None
        if since is not None and grid.start_ms < since:
            raise RuleError(
                f"{grid.symbol}: the range starts at {instant_text(grid.start_ms)}, before the first date of the tier "
                f"table {maintenance.label!r}, {instant_text(since)}; cut it with data.start or add an earlier table"
            )
    return grid
