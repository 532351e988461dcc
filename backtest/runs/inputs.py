"""The histories of a run: which symbols there are, how each is read, and which are refused before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from backtest.config.models import (
    Config,
    Data,
    RuleTiers,
)
from backtest.config.portfolio_scenarios import PortfolioScenario
from backtest.config.resolve import Histories, has_own_leverage
from backtest.config.scenarios import Scenario, expand_scenarios, resolve_maintenance, scenarios_at
from backtest.config.trades_file import read_trades
from backtest.data.dataset import list_series, read_history
from backtest.data.files import SeriesName, existing, series_files, unchanged
from backtest.data.history import PriceHistory
from backtest.data.reader import SeriesFiles, open_series
from backtest.engine.bars import Grid, build_grid
from backtest.engine.cohorts import Population
from backtest.engine.prepare import _moved, is_charged, open_time_range, prepare_entries, refuse_early, refuse_lacking
from backtest.engine.volatility import maintenance_scale
from backtest.errors import ConfigError, DataError
from backtest.filesystem import Place, file_stamp, to_place
from backtest.units import duration_ms, instant_ms, number_text

T = TypeVar("T")


@dataclass(frozen=True)
class HistorySource:
    """A symbol and how to read its history: whole, or from its opened files in parts."""

    symbol: str
    interval_ms: int
    read: Callable[[], PriceHistory] = field(repr=False)
    files: tuple[Place, ...] = field(default=(), repr=False)
    opened: Callable[[], SeriesFiles] | None = field(default=None, repr=False)

    def stamp(self) -> str | None:
        """Digest of names, sizes and times of its files; None if it has none. The same stamp means the same data."""
        try:
            parts = [(str(file), *file_stamp(file)) for file in self.files]
        except OSError:
            return None
        return hashlib.sha256(repr(parts).encode()).hexdigest() if parts else None

    def size(self) -> float:
        """Bytes of its files, to compare histories by length; 1 if it has none."""
        try:
            return float(sum(file_stamp(file)[0] for file in self.files)) or 1.0
        except OSError:
            return 1.0


def checked_sources(given: Histories, config: Config) -> list[HistorySource]:
    """The symbols of a run, in order, after a check that each history can serve.

    Raises
    ------
    ConfigError, RuleError, DataError
        If a symbol lacks something that the configuration needs.
    """
    sources, scenarios = list_sources(given, config), expand_scenarios(config)

    def look(source: HistorySource) -> Population:
        return prepare_entries(config, read_grid(config, source, scenarios_at(scenarios, source.symbol)))

    refuse_unfit(config, sources, [(source.symbol, partial(look, source)) for source in sources])
    return sources


def list_sources(given: Histories, config: Config) -> list[HistorySource]:
    """The symbols of a run, in order; their histories are not checked."""
    sources = _found(given, config)
    return sources if config.sweep.portfolio else _entered(config, sources)


def refuse_unfit(
    config: Config, sources: Sequence[HistorySource], jobs: Sequence[tuple[str, Callable[[], object]]] = ()
) -> None:
    """Refuse symbols that lack something that the configuration needs, before any work.

    jobs : names of the symbols to check, with a function that raises for an unfit one
    """
    if config.sweep.portfolio:
        return
    _refuse_unopenable(config, sources)
    if len(sources) > 1 and _asks_of_histories(config):
        for _, begin in jobs:
            begin()


def _entered(config: Config, sources: list[HistorySource]) -> list[HistorySource]:
    """The symbols that the trades name; all where they name none."""
    if config.entries.file is None:
        return sources
    file, there = read_trades(config.entries.file), [source.symbol for source in sources]
    if file.symbol is None:
        if len(there) > 1 and not np.isnan(file.price).all():
            raise ConfigError(
                f"{file.path}: entry_price is that of one symbol, and there are {', '.join(there)}; add a column "
                "symbol, or name one with data.symbols"
            )
        return sources
    for row, symbol in enumerate(file.symbol):
        if config.data.symbols is None and symbol not in there:
            raise ConfigError(f"{file.path}: row {row}: symbol must be one of {', '.join(there)}; got {symbol!r}")
    found = [source for source in sources if source.symbol in file.symbol]
    if not found:
        raise ConfigError(f"data.symbols: {file.path} holds no trade of {', '.join(there)}")
    return found


def _refuse_unopenable(config: Config, sources: Sequence[HistorySource]) -> None:
    """Refuse an axis of leverages that no tier allows: every position would be rejected."""
    if any(weight.target is not None for weight in config.sweep.weight) or has_own_leverage(config):
        return  # each entry has its own leverage
    asked = config.sweep.leverage
    for rule in resolve_maintenance(config):
        tables = [dated.table for source in sources for dated in rule.for_symbol(source.symbol).tables]
        limits = [float(table.max_leverage.max()) for table in tables]
        if rule.initial_rate:  # a rate that rises with size allows most at size 0
            limits = [1 / rule.initial_rate]
        if limits and min(asked) > max(limits) * (1 + 1e-9):
            raise ConfigError(
                f"sweep.leverage: no tier of {rule.label!r} allows {number_text(min(asked))}"
                f"{' or more' if len(asked) > 1 else ''}; the largest leverage allowed is {number_text(max(limits))}"
            )


def _asks_of_histories(config: Config) -> bool:
    """Whether a sound history may still be unfit, so that all are checked before the first is swept."""
    sweep, margin = config.sweep, config.margin
    asked = (config.entries.file, config.data.trigger, margin.expiry, margin.maintenance_scale)
    tiers = any(isinstance(item, str | RuleTiers) for item in sweep.maintenance)
    return any(x is not None for x in asked) or tiers or bool(sweep.weight or sweep.policy or _moved(sweep.funding))


def _found(given: Histories, config: Config) -> list[HistorySource]:
    data = config.data
    if not isinstance(given, str | Path):
        return _in_memory(given, data)
    if data.path is None:
        raise ConfigError("data.path must name a dataset or a Parquet file")
    if to_place(data.path).is_file():
        return [_plain_file(data.path, data)]
    found = series_files(existing(data.path))
    interval = _only_interval(found, data)
    present = sorted(name.symbol for name in found if name.interval == interval)
    chosen = _chosen(present, data, f"not in {data.path} at {interval}; there are")
    return [_in_dataset(data, SeriesName(interval, symbol), found) for symbol in chosen]


def _only_interval(found: Mapping[SeriesName, object], data: Data) -> str:
    """The requested interval of a dataset, or its only one."""
    wanted = duration_ms(data.interval) if data.interval else None
    there = sorted({name.interval for name in found}, key=duration_ms)
    intervals = [interval for interval in there if wanted in (None, duration_ms(interval))]
    if len(intervals) != 1:
        got = f"; got {data.interval!r}" if data.interval else ""
        raise ConfigError(f"data.interval must name one of the intervals of {data.path}: {', '.join(there)}{got}")
    return intervals[0]


def _chosen(present: Sequence[str], data: Data, otherwise: str) -> Sequence[str]:
    """The requested symbols; by default all that are present."""
    for symbol in data.symbols or ():
        if symbol not in present:
            raise ConfigError(f"data.symbols: {symbol!r} is {otherwise} {', '.join(present)}")
    return data.symbols or present


def _in_dataset(data: Data, name: SeriesName, found: Mapping[SeriesName, Sequence[Place]]) -> HistorySource:
    path, files = str(data.path), tuple(found[name])

    def there(read: Callable[..., T], *asked: str | None) -> T:
        try:
            return read(path, name.symbol, name.interval, *asked)
        except ConfigError:
            for file in files:
                if not file.exists():
                    raise DataError(f"{file}: was there when the run began and is gone; put it back") from None
            raise

    return HistorySource(
        name.symbol,
        duration_ms(name.interval),
        lambda: there(read_history, data.start, data.end),
        files,
        lambda: unchanged(lambda: there(open_series)),
    )


def _plain_file(path: str, data: Data) -> HistorySource:
    """A plain Parquet file: one symbol, named by the configuration or by the file."""
    if data.symbols is not None and len(data.symbols) > 1:
        raise ConfigError(f"data.symbols: {path} is one Parquet file and holds one symbol; got {len(data.symbols)}")
    symbol = data.symbols[0] if data.symbols else to_place(path).stem
    interval = data.interval or list_series(path)[0].interval

    def read() -> PriceHistory:
        return read_history(path, symbol, interval, data.start, data.end)

    opened = partial(open_series, path, symbol, interval)
    return HistorySource(symbol, duration_ms(interval), read, (to_place(path),), opened)


def _in_memory(given: PriceHistory | Sequence[PriceHistory], data: Data) -> list[HistorySource]:
    histories = [given] if isinstance(given, PriceHistory) else list(given)
    named = {history.symbol: history for history in histories}
    if len({history.interval_ms for history in histories}) != 1 or len(named) != len(histories):
        raise ConfigError("histories of one run must have one interval and different symbols")
    chosen = set(_chosen(list(named), data, "none of"))
    return [
        HistorySource(symbol, history.interval_ms, partial(_same, history))
        for symbol, history in named.items()
        if symbol in chosen
    ]


def _same(history: PriceHistory) -> PriceHistory:
    return history


def read_grid(config: Config, source: HistorySource, scenarios: Sequence[Scenario]) -> Grid:
    """Read a history and lay it on the grid; tier tables must be in force from its first bar on."""
    data, margin = config.data, config.margin
    start, end = open_time_range(data)
    if margin.expiry is not None:
        end = instant_ms(margin.expiry) if end is None else min(end, instant_ms(margin.expiry))
    history = source.read()
    refuse_lacking(config, history)
    grid = build_grid(history, data.trigger, start, end, funding=is_charged(config))
    if margin.contract == "spot":
        grid = replace(grid, scale=None)
    elif margin.maintenance_scale is not None:
        grid = replace(grid, scale=maintenance_scale(grid, margin.maintenance_scale))
    refuse_early(grid.symbol, grid.start_ms, scenarios)
    if grid.scale is not None and any(s.policy for s in scenarios):
        raise DataError(f"{grid.symbol}: sweep.policy is not walked under a maintenance_scale other than 1")
    return grid


def read_portfolio_grids(
    config: Config, sources: Sequence[HistorySource], scenarios: Sequence[PortfolioScenario]
) -> dict[str, Grid]:
    """The grids of all symbols of some portfolios, each read once.

    Raises
    ------
    ConfigError
        If a symbol is not among the sources.
    """
    there = {source.symbol: source for source in sources}
    symbols = dict.fromkeys(symbol for scenario in scenarios for symbol in scenario.portfolio.symbols)
    for symbol in symbols:
        if symbol not in there:
            raise ConfigError(f"sweep.portfolio: there is no {symbol!r}; there are {', '.join(there)}")
    return {symbol: read_grid(config, there[symbol], ()) for symbol in symbols}
