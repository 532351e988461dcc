"""Hazards, survival times and incidences of a run's table: `backtest.stats.survival_curve` on DataFrames.

Scenario columns and leverage together name a curve; each must be in the table at every horizon exactly once. A table
may hold some of the scenarios. It may hold some of the horizons only where no prior counts are read.

Curves of liquidation are those of `backtest.stats.survival_curve.survival_curve` where ``prior_liquidations`` are
given. Without them ``survival_km`` is taken, which is 0 also where nobody was at risk any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backtest.arrays import Float
from backtest.errors import ConfigError, DataError
from backtest.stats.curve_interval import curve_interval
from backtest.stats.schema import axis_names
from backtest.stats.survival_curve import (
    BEYOND,
    FOUND,
    conditional_survival,
    cumulative_incidence,
    event_incidence,
    hazard,
    quantile_time,
    restricted_mean,
    survival_curve,
)
from backtest.stats.survival_table import COUNTS, OUTCOMES, SurvivalTable
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd

Counts = Mapping[str, ArrayLike] | None
"""Columns in the order of the rows, as of `count_columns`; they go before those of the table."""
MS_PER_HOUR = 3_600_000
HOURS_PER_DAY = 24.0
ENDS = {"liquidations": "liquidated", "stopped": "stopped", "took_profit": "took_profit"}
"""Competing ends: the column with the count, and the one with its incidence."""


def hazard_frame(table: pd.DataFrame, counts: Counts = None) -> pd.DataFrame:
    """Hazard of liquidation per interval of the grid, one row per row of the table.

    Parameters
    ----------
    table : DataFrame
        With the scenario columns, ``horizon, leverage``, and ``survival_km`` or, here or in `counts`, ``entries,
        liquidations, prior_liquidations``.
    counts : mapping of str to (n_rows,) int, optional
        Columns in the order of the rows, as of `count_columns`; they go before those of the table.

    Returns
    -------
    DataFrame
        Index and order of `table`: scenario columns, ``after`` (the next shorter horizon, where the interval begins;
        ``0`` for the first), ``horizon`` (where it ends), ``leverage``, ``survival`` (the curve),
        ``liquidated_in_interval`` (probability, of those alive at its start), ``hazard_per_day`` and
        ``cumulative_hazard``, as of `backtest.stats.survival_curve.hazard`.
    """
    grid = _grid_of(table)
    curve = _curve_of(_with(table, counts), grid)
    found = hazard(grid.hours, curve)
    out = table[[*grid.axes, "horizon", "leverage"]].copy()
    out.insert(len(grid.axes), "after", np.array(["0", *grid.names])[grid.column])
    out["survival"] = grid.rows(curve)
    out["liquidated_in_interval"] = grid.rows(found.conditional)
    out["hazard_per_day"] = grid.rows(found.rate) * HOURS_PER_DAY
    out["cumulative_hazard"] = grid.rows(found.cumulative)
    return out


def curve_frame(table: pd.DataFrame, counts: Counts, trials: ArrayLike, confidence: float) -> pd.DataFrame:
    """Kaplan–Meier curves with their bounds, one row per row of the table.

    Parameters
    ----------
    table, counts
        As of `hazard_frame`, with ``entries, liquidations, prior_liquidations``.
    trials : (n_rows,) float
        Effective number of independent trials of each row's entries, as of `backtest.runs.tables.effective_trials`.
    confidence : float
        Of the bounds.

    Returns
    -------
    DataFrame
        Index and order of `table`: scenario columns, ``horizon, leverage, entries``, ``effective`` (independent trials
        to which the curve amounts), ``survival`` (the curve) and its bounds ``survival_low, survival_high``, as of
        `backtest.stats.curve_interval.curve_interval`.
    """
    grid, full = _grid_of(table), _with(table, counts).assign(_trials=np.asarray(trials))
    needed = ("entries", "liquidations", "prior_liquidations")
    counted = (grid.cube(full[name]) for name in needed)
    found = curve_interval(grid.hours, *counted, trials=grid.cube(full["_trials"]), confidence=confidence)
    out = full[[*grid.axes, "horizon", "leverage", "entries"]].copy()
    out["effective"], out["survival"] = grid.rows(found.trials), grid.rows(found.survival)
    out["survival_low"], out["survival_high"] = grid.rows(found.low), grid.rows(found.high)
    out.attrs["confidence"] = confidence
    return out


def time_frame(table: pd.DataFrame, to: str | None = None, counts: Counts = None) -> pd.DataFrame:
    """Median and restricted mean survival time, one row per scenario and leverage.

    Parameters
    ----------
    table, counts
        As of `hazard_frame`.
    to : str, optional
        Duration at which the mean is cut off, at most the longest horizon; default: that.

    Returns
    -------
    DataFrame
        Scenario columns, ``leverage``, ``median`` in words (``"8h … 1d"``, ``"beyond 30d"``: survival stays above one
        half as far as any are seen, ``"no entries"``), ``median_hours`` (interpolated), ``median_after_hours`` and
        ``median_by_hours`` (ends of the interval; NaN where there is none), ``mean_to``, ``mean_hours_low, mean_hours,
        mean_hours_high``, as of `backtest.stats.survival_curve.quantile_time` and `restricted_mean`.
    """
    grid = _grid_of(table)
    curve = _curve_of(_with(table, counts), grid)
    median = quantile_time(grid.hours, curve)
    limit = duration_ms(to) / MS_PER_HOUR if to is not None else grid.hours[-1]
    if limit > grid.hours[-1]:
        raise ConfigError(f"to must be at most the longest horizon, {grid.names[-1]}; got {to!r}")
    mean = restricted_mean(grid.hours, curve, limit)
    label = dict(zip([0.0, *grid.hours], ["0", *grid.names], strict=True))
    words = []
    for after, by, status in zip(*(v[:, 0].tolist() for v in (median.after, median.by, median.status)), strict=True):
        if status == FOUND:
            words.append(f"{label[after]} … {label[by]}")
        else:
            words.append(f"beyond {label[after]}" if status == BEYOND else "no entries")
    first = np.unique(grid.group, return_index=True)[1]
    out = table[[*grid.axes, "leverage"]].iloc[first].reset_index(drop=True)
    return out.assign(
        median=words,
        median_hours=median.time[:, 0],
        median_after_hours=median.after[:, 0],
        median_by_hours=median.by[:, 0],
        mean_to=grid.names[-1] if to is None else to,
        mean_hours_low=mean.lower[:, 0, 0],
        mean_hours=mean.linear[:, 0, 0],
        mean_hours_high=mean.upper[:, 0, 0],
    )


def conditional_frame(table: pd.DataFrame, given: str, counts: Counts = None) -> pd.DataFrame:
    """Survival to each longer horizon of those alive at one: alive after a day → alive after a week.

    Parameters
    ----------
    table, counts
        As of `hazard_frame`.
    given : str
        One of the horizons.

    Returns
    -------
    DataFrame
        The rows of longer horizons with their index: scenario columns, ``given, horizon, leverage,
        survival_conditional`` (NaN where the cohort is empty or none is alive at `given`).
    """
    grid = _grid_of(table)
    hours = duration_ms(given) / MS_PER_HOUR
    if hours not in grid.hours:
        raise ConfigError(f"given must be one of {', '.join(grid.names)} in this run; got {given!r}")
    found = conditional_survival(grid.hours, _curve_of(_with(table, counts), grid), hours)
    out = table[[*grid.axes, "horizon", "leverage"]].copy()
    out.insert(len(grid.axes), "given", given)
    out["survival_conditional"] = grid.rows(found)
    return out[grid.hours[grid.column] > hours]


def incidence_frame(table: pd.DataFrame, counts: Counts = None) -> pd.DataFrame:
    """Cumulative incidence of competing ends and of margin calls, one row per row of the table.

    Parameters
    ----------
    table : DataFrame
        With the scenario columns, ``horizon, leverage`` and, here or in `counts`, ``entries, liquidations,
        prior_liquidations``; with ``stopped`` and ``took_profit`` where positions may end so, each with its
        ``prior_…``; with ``margin_calls`` and ``prior_margin_calls`` where their incidence is wanted. All horizons of
        the run.
    counts : mapping of str to (n_rows,) int, optional
        As of `hazard_frame`.

    Returns
    -------
    DataFrame
        Index and order of `table`: scenario columns, ``horizon, leverage, entries``, ``at_risk`` (open at the next
        shorter horizon, of the horizon's cohort), the incidences ``liquidated`` and where counted ``stopped,
        took_profit``, ``survived`` (these add to 1), and ``margin_called``, which is none of these ends.

    Raises
    ------
    DataError
        If a count misses its prior, or priors do not fit the horizons.
    ConfigError
        If the table has policies but does not say which positions were stopped or took profit.
    """
    full = _with(table, counts)
    grid = _grid_of(full)
    if "policy" in full and (full["policy"] != "none").any() and not {"stopped", "took_profit"} <= set(full.columns):
        raise ConfigError("positions of policies may be stopped or take profit: stopped and took_profit are needed too")
    causes = [name for name in ENDS if name in full or name == "liquidations"]
    called = "margin_calls" in full and "prior_margin_calls" in full
    needed = ["entries", *(f"{p}{name}" for name in causes for p in ("", "prior_"))]
    missing = [name for name in needed if name not in full]
    if missing:
        raise DataError(f"incidences need the counts {', '.join(missing)}")
    entries = grid.cube(full["entries"])
    ended, before = ([grid.cube(full[f"{p}{name}"]) for name in causes] for p in ("", "prior_"))
    found = cumulative_incidence(grid.hours, entries, ended, before)
    out = full[[*grid.axes, "horizon", "leverage", "entries"]].copy()
    out["at_risk"] = grid.rows(found.at_risk)
    for name, values in zip(causes, found.incidence, strict=True):
        out[ENDS[name]] = grid.rows(values)
    out["survived"] = grid.rows(found.survived)
    if called:
        calls, earlier = grid.cube(full["margin_calls"]), grid.cube(full["prior_margin_calls"])
        out["margin_called"] = grid.rows(event_incidence(grid.hours, entries, calls, earlier))
    return out


def count_columns(tables: Iterable[SurvivalTable]) -> dict[str, NDArray[Any]]:
    """Totals over calendar blocks as columns, in the order of the rows of ``survival.parquet``.

    Parameters
    ----------
    tables : iterable of SurvivalTable
        One per scenario, in the order of the run.

    Returns
    -------
    dict of str to (n_rows,) int64
        Each of `COUNTS`, and ``stopped, took_profit`` (with priors, if counted there) where there are outcomes.

    Examples
    --------
    >>> count_columns([SurvivalTable(np.ones((len(COUNTS), 1, 2, 1, 3), np.int64), 0)])["entries"].tolist()
    [3, 3]
    """
    found: dict[str, list[NDArray[Any]]] = {}
    for table in tables:
        totals = dict(zip(COUNTS, table.counts.sum(axis=-1), strict=True))
        if table.outcomes is not None:
            ends = (name for name in OUTCOMES if name in ENDS or name.startswith("prior_"))
            totals |= {name: table.outcomes[OUTCOMES.index(name)].sum(axis=-1).astype(np.int64) for name in ends}
        for name, values in totals.items():
            found.setdefault(name, []).append(values.reshape(-1))
    return {name: np.concatenate(values) for name, values in found.items()}


@dataclass(frozen=True)
class _Grid:
    """Where the rows of a table lie among scenarios × horizons, horizons ascending."""

    axes: list[str]
    names: list[str]  # (n_horizons,) as the table writes them
    hours: Float  # (n_horizons,)
    group: NDArray[np.intp]  # (n_rows,) scenario
    column: NDArray[np.intp]  # (n_rows,) horizon

    def cube(self, values: pd.Series[Any]) -> NDArray[Any]:
        """(n_scenarios, n_horizons, 1) of a column."""
        given = values.to_numpy()
        out = np.empty((int(self.group.max(initial=-1)) + 1, self.hours.size, 1), given.dtype)
        out[self.group, self.column, 0] = given
        return out

    def rows(self, cube: NDArray[Any]) -> NDArray[Any]:
        """(n_rows,) back again."""
        out: NDArray[Any] = cube[self.group, self.column, 0]
        return out


def _with(table: pd.DataFrame, counts: Counts) -> pd.DataFrame:
    return table.assign(**{name: np.asarray(values) for name, values in (counts or {}).items()})


def _curve_of(full: pd.DataFrame, grid: _Grid) -> Float:
    if "prior_liquidations" not in full:
        return grid.cube(full["survival_km"])
    given = (grid.cube(full[name]) for name in ("entries", "liquidations", "prior_liquidations"))
    return survival_curve(grid.hours, *given)


def _grid_of(table: pd.DataFrame) -> _Grid:
    if table.empty:
        raise DataError("the table has no rows: there is nothing to analyse")
    axes = axis_names(table.columns)
    names = sorted(dict.fromkeys(table["horizon"]), key=duration_ms)
    place = {name: k for k, name in enumerate(names)}
    column = np.asarray(table["horizon"].map(place), np.intp)
    group = np.asarray(table.groupby([*axes, "leverage"], sort=False, dropna=False).ngroup(), np.intp)
    cells = np.bincount(group * len(names) + column, minlength=(int(group.max()) + 1) * len(names))
    if (cells != 1).any():
        raise DataError("each scenario and leverage must stand at every horizon of the table, and only once")
    hours = np.array([duration_ms(name) for name in names]) / MS_PER_HOUR
    return _Grid(axes, names, hours, group, column)
