"""Which leverage would have been liquidated, how often and how soon: every entry and every leverage at once.

>>> import backtest as bt
>>> sweep = bt.Sweep(leverage=range(1, 126), horizon=["1d", "7d"], maintenance=[0.004])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest.checks import check
    from backtest.comparisons import compare
    from backtest.config import Config, Data, Entries, Funding, Margin, Size, Statistics, Sweep, load_config
    from backtest.days import liquidation_days, liquidation_episodes
    from backtest.earnings import returns
    from backtest.errors import BacktestError, ConfigError, DataError, RuleError
    from backtest.events import events_of
    from backtest.history import PriceHistory
    from backtest.ingest.generic import import_generic
    from backtest.required import required_margin
    from backtest.resampling import resample
    from backtest.results import Result, load
    from backtest.runner import run
    from backtest.sensitivities import sensitivity
    from backtest.store import read_history, write_history
    from backtest.walkforward import walk_forward
    from backtest.worstdays import worst_days

_HOME = {
    "BacktestError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "RuleError": "errors",
    "PriceHistory": "history",
    "Result": "results",
    "load": "results",
    "run": "runner",
    "check": "checks",
    "compare": "comparisons",
    "walk_forward": "walkforward",
    "worst_days": "worstdays",
    "import_generic": "ingest.generic",
    "events_of": "events",
    "liquidation_days": "days",
    "liquidation_episodes": "days",
    "resample": "resampling",
    "sensitivity": "sensitivities",
    "required_margin": "required",
    "returns": "earnings",
    "read_history": "store",
    "write_history": "store",
    "Config": "config",
    "Data": "config",
    "Entries": "config",
    "Funding": "config",
    "Margin": "config",
    "Size": "config",
    "Statistics": "config",
    "Sweep": "config",
    "load_config": "config",
}

__all__ = [
    "BacktestError",
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "Entries",
    "Funding",
    "Margin",
    "PriceHistory",
    "Result",
    "RuleError",
    "Size",
    "Statistics",
    "Sweep",
    "check",
    "compare",
    "events_of",
    "import_generic",
    "liquidation_days",
    "liquidation_episodes",
    "load",
    "load_config",
    "read_history",
    "required_margin",
    "resample",
    "returns",
    "run",
    "sensitivity",
    "walk_forward",
    "worst_days",
    "write_history",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: `import backtest` alone loads neither numba nor matplotlib."""
    if name not in _HOME:
        raise AttributeError(f"module 'backtest' has no attribute {name!r}")
    value: object = getattr(import_module(f"backtest.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
