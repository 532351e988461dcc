"""What a question is asked of: histories with a configuration, and the entries of each symbol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from backtest.config.models import Config, Data, Entries, Margin, Statistics, Sweep
from backtest.config.resolve import Histories, resolve_config, with_trades
from backtest.config.scenarios import Scenario, expand_scenarios, scenarios_at, split_sides
from backtest.engine.adverse_series import split_by_table
from backtest.engine.cohorts import Population
from backtest.engine.prepare import prepare_entries
from backtest.errors import ConfigError
from backtest.runs.inputs import HistorySource, checked_sources, read_grid
from backtest.runs.tasks import no_entries

MOST_CHUNK_BARS = 1 << 22


@dataclass(frozen=True, eq=False)
class StudyInputs:
    """Histories and the tables of a configuration, checked when it is made.

    Parameters
    ----------
    source : path, PriceHistory, sequence of PriceHistory, or Config
        A dataset, a Parquet file or histories in memory, which need `sweep`; or a TOML file or a `Config`, which are
        whole configurations: the other arguments are then refused.
    sweep : Sweep, optional
        The axes.
    data, entries, margin, statistics : optional
        As the tables of the configuration file.

    Raises
    ------
    ConfigError
        If a whole configuration and tables are both given, or neither is.
    """

    source: Histories | Config = field(repr=False)
    sweep: Sweep | None = None
    data: Data | None = field(default=None, kw_only=True)
    entries: Entries | None = field(default=None, kw_only=True)
    margin: Margin | None = field(default=None, kw_only=True)
    statistics: Statistics | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.source, Config):
            for name in ("sweep", "data", "entries", "margin", "statistics"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name}: the source is a whole configuration; put {name} into it")
        _ = self.config

    @classmethod
    def given(
        cls,
        source: Source,
        sweep: Sweep | None = None,
        data: Data | None = None,
        entries: Entries | None = None,
        margin: Margin | None = None,
    ) -> StudyInputs:
        """The inputs of a question; those of a study are taken as they are."""
        if not isinstance(source, StudyInputs):
            return cls(source, sweep, data=data, entries=entries, margin=margin)
        for name, part in (("sweep", sweep), ("data", data), ("entries", entries), ("margin", margin)):
            if part is not None:
                raise ConfigError(f"{name}: the study has its own; make another study with this {name}")
        return source

    @cached_property
    def config(self) -> Config:
        """The configuration as resolved."""
        if isinstance(self.source, Config):
            return with_trades(self.source)
        return resolve_config(self.source, self.sweep, self.data, self.entries, self.margin, self.statistics)

    @property
    def histories(self) -> Histories:
        """Histories in memory, or the path of the configuration or dataset."""
        return (self.source.data.path or "") if isinstance(self.source, Config) else self.source

    def refuse(self, axes: Mapping[str, str]) -> None:
        """Refuse axes of the sweep that the question cannot be asked of; each with its reason."""
        for name, reason in axes.items():
            if getattr(self.config.sweep, name):
                raise ConfigError(f"sweep.{name}: {reason}")

    def sources(self, config: Config | None = None) -> list[HistorySource]:
        """The symbols, after a check that each history can serve the configuration; by default the study's."""
        return checked_sources(self.histories, self.config if config is None else config)


Source = Histories | Config | StudyInputs
"""What the functions of this room take: a study, or the source of one."""


@dataclass(frozen=True)
class SymbolEntries:
    """The entries of one symbol, and the scenarios with its own tier tables."""

    config: Config
    population: Population
    scenarios: list[Scenario]

    @classmethod
    def read(cls, config: Config, source: HistorySource, *, must_enter: bool = False) -> Self:
        """Read a history and find its entries.

        Raises
        ------
        DataError
            If no bar is an entry and `must_enter` asks for one.
        """
        scenarios = scenarios_at(expand_scenarios(config), source.symbol)
        population = prepare_entries(config, read_grid(config, source, scenarios))
        if must_enter and not population.bars.size:
            raise no_entries(config, source.symbol)
        return cls(config, population, scenarios)

    @property
    def symbol(self) -> str:
        """Its name."""
        return self.population.grid.symbol

    def chunks(self, bars: int) -> list[slice]:
        """Chunks of entries, each with about as many entries as `bars` bars would have if every bar were one."""
        per_entry = -(-self.population.grid.n_bars // max(1, self.population.bars.size))
        return self.population.chunks(min(bars * per_entry, MOST_CHUNK_BARS))

    def parts(self, scenario: Scenario, chunk: slice) -> Iterator[tuple[Scenario, slice]]:
        """Each tier table in force in a chunk with each side of the scenario: what is counted at once."""
        for part in split_by_table(self.population, scenario.maintenance, chunk):
            for side in split_sides(scenario):
                yield side, part


def thread_count(workers: int | None) -> int:
    """Requested threads; by default one per core."""
    threads = workers if workers is not None else os.cpu_count() or 1
    if threads < 1:
        raise ConfigError(f"workers must be ≥ 1; got {threads}")
    return threads
