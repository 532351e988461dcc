"""Which leverage would have been liquidated, how often and how soon: every entry and every leverage at once.

>>> import backtest as bt
>>> sweep = bt.Sweep(leverage=range(1, 126), horizon=["1d", "7d"], maintenance=[0.004])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest.analysis.compare import compare
    from backtest.analysis.events import events_of
    from backtest.analysis.liquidation_days import liquidation_days, liquidation_episodes
    from backtest.analysis.required_margin import required_margin
    from backtest.analysis.returns import returns
    from backtest.analysis.sensitivity import sensitivity
    from backtest.analysis.walk_forward import walk_forward
    from backtest.analysis.worst_days import worst_days
    from backtest.config.models import Config, Data, Entries, Funding, Margin, Size, Statistics, Sweep, load_config
    from backtest.data.dataset import read_history, write_history
    from backtest.data.history import PriceHistory
    from backtest.data.quality.check import check
    from backtest.data.resample import resample
    from backtest.errors import BacktestError, ConfigError, DataError, RuleError
    from backtest.ingest.formats.generic import import_generic
    from backtest.runs.result import Result, load
    from backtest.runs.run import run

_HOME = {
    "BacktestError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "RuleError": "errors",
    "PriceHistory": "data.history",
    "Result": "runs.result",
    "load": "runs.result",
    "run": "runs.run",
    "check": "data.quality.check",
    "compare": "analysis.compare",
    "walk_forward": "analysis.walk_forward",
    "worst_days": "analysis.worst_days",
    "import_generic": "ingest.formats.generic",
    "events_of": "analysis.events",
    "liquidation_days": "analysis.liquidation_days",
    "liquidation_episodes": "analysis.liquidation_days",
    "resample": "data.resample",
    "sensitivity": "analysis.sensitivity",
    "required_margin": "analysis.required_margin",
    "returns": "analysis.returns",
    "read_history": "data.dataset",
    "write_history": "data.dataset",
    "Config": "config.models",
    "Data": "config.models",
    "Entries": "config.models",
    "Funding": "config.models",
    "Margin": "config.models",
    "Size": "config.models",
    "Statistics": "config.models",
    "Sweep": "config.models",
    "load_config": "config.models",
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
