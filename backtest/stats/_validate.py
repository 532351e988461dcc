"""Counts of nested cohorts, checked: what survival analysis asks of the arrays it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from backtest.arrays import Float, Int
from backtest.errors import ConfigError, DataError


def counted(
    horizons: ArrayLike, entries: ArrayLike, ended: Sequence[ArrayLike], prior_ended: Sequence[ArrayLike]
) -> tuple[Int, list[Int], list[Int]]:
    """Counts as int64, checked to be those of nested cohorts; parameters as of `analysis.cumulative_incidence`.

    Raises
    ------
    DataError
        If shapes differ, a count is negative or no whole number, more ended than entered, cohorts grow with the
        horizon, or those that ended by the next shorter horizon are more than that horizon counts: horizons are
        missing, not ascending, or on another axis than the last but one.
    """
    grid = ascending(horizons)
    opened = whole_numbers("entries", entries)
    causes, before = (
        [whole_numbers(name, v) for v in values] for name, values in (("ended", ended), ("prior", prior_ended))
    )
    if len(causes) != len(before) or not causes:
        raise DataError(f"each of the counts needs its prior: {len(causes)} counts and {len(before)} priors")
    for array in (opened, *causes, *before):
        if array.ndim < 2 or array.shape != opened.shape or array.shape[-2] != grid.size:
            raise DataError(
                f"counts must be (..., {grid.size} horizons, leverages), all of one shape; "
                f"got {opened.shape} and {array.shape}"
            )
    if (sum(causes) > opened).any():
        raise DataError("more positions ended than were entered")
    if (np.diff(opened, axis=-2) > 0).any():
        raise DataError("entries grow with the horizon: cohorts are nested, horizons must be ascending")
    for cause, prior in zip(causes, before, strict=True):
        if (prior > cause).any() or prior[..., 0, :].any() or (prior[..., 1:, :] > cause[..., :-1, :]).any():
            raise DataError(
                "prior counts exceed those of the horizon or of the next shorter one (0 before the first): "
                "all horizons of the run are needed, ascending"
            )
    return opened, causes, before


def whole_numbers(name: str, values: ArrayLike) -> Int:
    """(...) int64 of counts that may have come as floats."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        given = np.asarray(values, np.float64)
        with np.errstate(invalid="ignore"):
            array = given.astype(np.int64)
        if not np.array_equal(array, given):
            raise DataError(f"{name} must be whole numbers")
    if (array < 0).any():
        raise DataError(f"{name} must not be negative")
    return array.astype(np.int64, copy=False)


def ascending(horizons: ArrayLike) -> Float:
    """(n_horizons,) float64, refused unless finite, ascending and > 0."""
    grid = np.asarray(horizons, np.float64)
    if grid.ndim != 1 or not grid.size or not np.all(np.isfinite(grid)) or not np.all(np.diff(grid, prepend=0.0) > 0):
        raise ConfigError(f"horizons must be ascending and > 0; got {grid.tolist()}")
    return grid
