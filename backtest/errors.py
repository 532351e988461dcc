"""What can go wrong, in a few words: the data, a margin rule, the configuration."""

from __future__ import annotations


class BacktestError(ValueError):
    """Base of every error this package raises on purpose; the message names parameter, rule and value."""


class DataError(BacktestError):
    """A history, dataset or run directory is not what it must be."""


class NoBars(DataError):
    """A range that holds no bar."""


class RuleError(BacktestError):
    """A margin rule or tier table is impossible, or a position is outside of it."""


class ConfigError(BacktestError):
    """An argument or a key of the configuration is unknown, of the wrong type or impossible."""
