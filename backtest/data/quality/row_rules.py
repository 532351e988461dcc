"""The rules that each row of a price file must keep, and how runs of bars that look wrong are told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.arrays import Bool, Float, Int
from backtest.data.history import LAST, MARK, PRICES

NEEDED = (("close", "high", "low"), ("mark_close", "mark_high", "mark_low"))


def columns_rule(names: Collection[str]) -> str | None:
    """What a file without the columns of one price must have; None if it has them."""
    if any(set(needed) <= set(names) for needed in NEEDED):
        return None
    found = ", ".join(sorted(names)) or "none"
    return f"needs the columns {', '.join(NEEDED[0])} or {', '.join(NEEDED[1])}; found {found}"


@dataclass(frozen=True)
class Fault:
    """A rule of a column, where rows break it, and the column's values."""

    column: str
    rule: str
    bad: Bool
    values: NDArray[Any]
    shows_value: bool = True


def row_faults(values: Mapping[str, Float], nulls: Mapping[str, Bool]) -> Iterator[Fault]:
    """Which rows break which rule.

    Parameters
    ----------
    values : mapping of str to (n_rows,) float64
        Some of `backtest.data.history.COLUMNS`, NaN where null.
    nulls : mapping of str to (n_rows,) bool
        Where a value is null, so that NaN in the file is found.
    """
    for name, column in values.items():
        yield Fault(name, "must be finite or null", ~(np.isfinite(column) | nulls[name]), column)
        if name in PRICES:
            yield Fault(name, "must be > 0", column <= 0, column)
        elif name == "maintenance_scale":
            yield Fault(name, "must be ≥ 0", column < 0, column)
    for names in (LAST, MARK):
        here = [name for name in names if name in values]
        given = np.any([~nulls[name] for name in here], axis=0) if here else np.zeros(0, dtype=np.bool_)
        for name in here:
            rule = f"is null while others of {', '.join(here)} are not"
            yield Fault(name, rule, nulls[name] & given, values[name], shows_value=False)
        open_, high, low, close = names
        if high in values and low in values:
            yield Fault(high, f"must not be below {low}", values[high] < values[low], values[high])
            sound = values[high] >= values[low]  # else every price lies outside, and says nothing new
            for name in (open_, close):
                if name in values:
                    outside = sound & ((values[name] > values[high]) | (values[name] < values[low]))
                    yield Fault(name, f"must lie within {low} … {high}", outside, values[name])


# --- what breaks no rule and still looks wrong ------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """Runs of bars that look wrong by one rule.

    Attributes
    ----------
    column : str or None
    rule : str
    first, last : (n_runs,) int64
        Open times of the first and the last bar of each, ms.
    bars : (n_runs,) int64
        How many bars.
    value : callable
        What stands there, of a run counted from 0.
    """

    column: str | None
    rule: str
    first: Int
    last: Int
    bars: Int
    value: Callable[[int], str | float | None]


def no_value(_: int) -> None:
    """A run that has no value to show."""


def run_ends(times: Int, step_ms: int) -> tuple[Int, Int]:
    """Indices of the first and the last of each run of ascending times that follow one another by a step.

    Examples
    --------
    >>> run_ends(np.array([0, 1, 2, 5, 7, 8]), 1)
    (array([0, 3, 4]), array([2, 3, 5]))
    """
    cuts = np.flatnonzero(np.diff(times) != step_ms)
    if not times.size:
        return cuts, cuts
    return np.append(0, cuts + 1), np.append(cuts, times.size - 1)
