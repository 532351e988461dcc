"""The configuration of one question: a TOML file, or histories with the tables given in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backtest.config.models import Config, Data, Entries, Margin, Statistics, Sweep, load_config
from backtest.config.trades_file import read_trades
from backtest.data.history import PriceHistory
from backtest.errors import ConfigError

Histories = str | Path | PriceHistory | Sequence[PriceHistory]
"""Path of a TOML file, a dataset or a Parquet file, or histories in memory."""


def resolve_config(
    source: Histories,
    sweep: Sweep | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    statistics: Statistics | None = None,
) -> Config:
    """The configuration of a TOML file, or of a history or dataset with the tables given.

    Raises
    ------
    ConfigError
        If a TOML file and tables are both given, or neither is.
    """
    parts = {"data": data, "entries": entries, "margin": margin, "statistics": statistics}
    if isinstance(source, str | Path) and Path(source).suffix == ".toml":
        given = [name for name, part in {"sweep": sweep, **parts}.items() if part is not None]
        if given:
            raise ConfigError(f"{source} is a whole configuration; put {given[0]} into the file")
        return with_trades(load_config(source))
    if sweep is None:
        raise ConfigError("sweep must be given with a history: backtest.Sweep(leverage=…, horizon=…, maintenance=…)")
    if isinstance(source, str | Path):
        parts["data"] = (data or Data()).model_copy(update={"path": str(source)})
    return with_trades(Config(sweep=sweep, **{k: v for k, v in parts.items() if v is not None}))


def has_own_leverage(config: Config) -> bool:
    """Whether the entries are trades with leverages of their own."""
    return config.entries.file is not None and read_trades(config.entries.file).leverage is not None


def with_trades(config: Config) -> Config:
    """Sides and leverages of a file of trades replace those axes; having both is refused."""
    if config.entries.file is None:
        return config
    file = read_trades(config.entries.file)
    for key, own in (("side", file.sign), ("leverage", file.leverage)):
        if own is not None and key in config.sweep.model_fields_set:
            raise ConfigError(f"sweep.{key}: the trades of {file.path} have a column {key} of their own; leave one out")
    if file.leverage is None:
        return config
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"leverage": (1.0,)})})
