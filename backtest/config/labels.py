"""The text form of sizes, weights, policies and portfolios in results, such as ``stop_loss(distance=0.05)``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from backtest.units import number_text

Value = str | float | Sequence[float] | Mapping[str, "Value"]


def write_label(parts: Mapping[str, Value]) -> str:
    """Write ``key=value`` for each part; values of a list are joined by ``/``, nested parts stand in brackets.

    Examples
    --------
    >>> write_label({"confirm_bars": 3, "scale_in": {"distance": (0.05, 0.1), "multiple": (1, 2)}})
    'confirm_bars=3 scale_in(distance=0.05/0.1 multiple=1/2)'
    """
    return " ".join(
        f"{key}({write_label(value)})" if isinstance(value, Mapping) else f"{key}={_text(value)}"
        for key, value in parts.items()
    )


def parse_label(label: str) -> dict[str, str]:
    """Split a label into the texts of its parts; those of nested parts can be split again.

    Examples
    --------
    >>> parse_label("confirm_bars=3 top_up(target_ratio=0.4 reserve=1)")
    {'confirm_bars': '3', 'top_up': 'target_ratio=0.4 reserve=1'}
    """
    found = {}
    for part in re.findall(r"\w+\([^)]*\)|\S+", label):
        key, _, value = part[:-1].partition("(") if part.endswith(")") else part.partition("=")
        found[key] = value
    return found


def _text(value: str | float | Sequence[float]) -> str:
    if isinstance(value, str):
        return value
    return number_text(value) if isinstance(value, int | float) else "/".join(map(number_text, value))
