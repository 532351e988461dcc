"""The errors of the package: of data, of margin rules, of the configuration."""

from __future__ import annotations

from collections.abc import Iterable


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


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """The hint of an error about an unknown name: the closest known ones, at most so many, or nothing.

    Examples
    --------
    >>> did_you_mean("maintenence", ["maintenance", "margin"])
    " (did you mean 'maintenance'?)"
    """
    import difflib  # errors are imported by everything, help included

    close = difflib.get_close_matches(name, list(known), n=most)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
