"""Which leverage would have been liquidated, how often and how soon: every entry and every leverage at once.

>>> import backtest as bt
>>> sweep = bt.Sweep(leverage=range(1, 126), horizon=["1d", "7d"], maintenance=[0.004])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest.analysis.compare import compare
    from backtest.analysis.events import events, events_of, write_events
    from backtest.analysis.liquidation_days import (
        liquidation_days,
        liquidation_episodes,
    )
    from backtest.analysis.required_margin import required_margin
    from backtest.analysis.returns import returns
    from backtest.analysis.sensitivity import sensitivity
    from backtest.analysis.study import Study
    from backtest.analysis.walk_forward import resampled_choices, walk_forward
    from backtest.analysis.worst_days import worst_days
    from backtest.config.models import (
        Config,
        Data,
        Entries,
        Funding,
        Margin,
        Size,
        Statistics,
        Sweep,
        load_config,
    )
    from backtest.config.policies import Policy
    from backtest.data.dataset import read_history, write_history
    from backtest.data.history import PriceHistory
    from backtest.data.quality.check import check
    from backtest.data.resample import resample
    from backtest.data.synthetic import demo_history
    from backtest.errors import (
        BacktestError,
        ConfigError,
        DataError,
        RuleError,
    )
    from backtest.ingest.binance.importer import import_binance
    from backtest.ingest.download.binance import fetch_binance
    from backtest.ingest.formats.generic import import_generic
    from backtest.ingest.tiers.importer import tiers_csv
    from backtest.margin.liquidation import price
    from backtest.margin.packaged_tiers import packaged_tables
    from backtest.margin.tiers import DatedTable, TierTable
    from backtest.report.plots import plot_days, plot_required
    from backtest.runs.estimate import estimate_run
    from backtest.runs.registry import list_runs
    from backtest.runs.result import Result, load
    from backtest.runs.run import run

_NAMES = {
    "errors": "BacktestError ConfigError DataError RuleError",
    "config.models": "Config Data Entries Funding Margin Size Statistics Sweep load_config",
    "config.policies": "Policy",
    "margin.tiers": "DatedTable TierTable",
    "margin.liquidation": "price",
    "margin.packaged_tiers": "packaged_tables",
    "data.history": "PriceHistory",
    "data.dataset": "read_history write_history",
    "data.synthetic": "demo_history",
    "data.quality.check": "check",
    "data.resample": "resample",
    "ingest.formats.generic": "import_generic",
    "ingest.binance.importer": "import_binance",
    "ingest.download.binance": "fetch_binance",
    "ingest.tiers.importer": "tiers_csv",
    "runs.result": "Result load",
    "runs.run": "run",
    "runs.estimate": "estimate_run",
    "runs.registry": "list_runs",
    "report.plots": "plot_days plot_required",
    "analysis.study": "Study",
    "analysis.events": "events events_of write_events",
    "analysis.required_margin": "required_margin",
    "analysis.returns": "returns",
    "analysis.liquidation_days": "liquidation_days liquidation_episodes",
    "analysis.worst_days": "worst_days",
    "analysis.sensitivity": "sensitivity",
    "analysis.compare": "compare",
    "analysis.walk_forward": "resampled_choices walk_forward",
}
"""Public names by the module that defines them."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [
    "BacktestError", "Config", "ConfigError", "Data", "DataError", "DatedTable", "Entries", "Funding", "Margin",
    "Policy", "PriceHistory", "Result", "RuleError", "Size", "Statistics", "Study", "Sweep", "TierTable", "check",
    "compare", "demo_history", "estimate_run", "events", "events_of", "fetch_binance", "import_binance",
    "import_generic", "liquidation_days", "liquidation_episodes", "list_runs", "load", "load_config",
    "packaged_tables", "plot_days", "plot_required", "price", "read_history", "required_margin", "resample",
    "resampled_choices", "returns", "run", "sensitivity", "tiers_csv", "walk_forward", "worst_days", "write_events",
    "write_history",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: `import backtest` alone loads neither numba nor matplotlib."""
    if name not in _MODULES:
        raise AttributeError(f"module 'backtest' has no attribute {name!r}")
    value: object = getattr(import_module(f"backtest.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
