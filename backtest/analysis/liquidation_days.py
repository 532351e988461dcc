"""Liquidations by calendar day, and the episodes with the most of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest.analysis.daily_counts import DAY_MS, DayCounts, count_days, leverage_column, scenario_fields
from backtest.analysis.study_inputs import Source, StudyInputs
from backtest.arrays import Int
from backtest.config.models import Config, Data, Entries, Margin, Sweep
from backtest.config.resolve import has_own_leverage
from backtest.engine.bars import Grid
from backtest.errors import ConfigError
from backtest.report.labels import noted
from backtest.stats.schema import POINT, TIME, repeated
from backtest.units import duration_ms, instant_text, number_text

if TYPE_CHECKING:
    import pandas as pd


QUIET_DAYS = 1
"""Most days in a row without a liquidation inside an episode."""

COUNTED = [("liquidations", pa.int64()), ("recovered", pa.int64())]
EPISODE = [
    ("rank", pa.int64()),
    ("first_day", TIME),
    ("last_day", TIME),
    ("hours", pa.float64()),
    ("adverse_move", pa.float64()),
    ("liquidations", pa.int64()),
    ("share", pa.float64()),
    ("recovered", pa.int64()),
    ("lived", pa.float64()),
]


def liquidation_days(
    source: Source,
    sweep: Sweep | None = None,
    *,
    horizon: str | None = None,
    where: str | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
) -> pd.DataFrame:
    """Liquidations per scenario, leverage and UTC calendar day, the day being that of the liquidation.

    Over the days they add up to the liquidations that a run counts at that horizon.

    Parameters
    ----------
    source, sweep, data, entries, margin
        As of `backtest.Study`, or a study.
    horizon : str, optional
        One of the sweep's, matched by duration; default: the longest.
    where : str, optional
        A condition on the scenario columns and `leverage`, such as ``"leverage = 20 and side = 'long'"``.

    Returns
    -------
    DataFrame
        Scenario columns, ``horizon``, ``leverage``, then ``day``, ``liquidations``, and ``recovered``: how many of
        these would have been worth more than their margin at the end of the window. Days without liquidations are left
        out. ``attrs["span"]`` holds the first and the last time of each symbol's bars.

    Raises
    ------
    ConfigError
        If the horizon is none of the sweep's, `where` selects nothing, or there are policies or portfolios.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> low = np.full(48, 99.0)
    >>> low[30] = 85.0
    >>> bars = {"high": np.full(48, 101.0), "low": low, "close": np.full(48, 100.0)}
    >>> history = bt.PriceHistory("DIP", 3_600_000, 0, bars)
    >>> sweep = bt.Sweep(side=["long"], leverage=[5, 10], horizon=["4h"], maintenance=[0.0])
    >>> found = bt.liquidation_days(history, sweep)
    >>> found[["leverage", "day", "liquidations"]].to_string(index=False, header=False)
    '10.0 1970-01-02 00:00:00+00:00 4'
    """
    study = StudyInputs.given(source, sweep, data, entries, margin)
    config = _at_horizon(study, horizon)
    return _days(config, count_days(config, study.sources(config), where))


def liquidation_episodes(
    source: Source,
    sweep: Sweep | None = None,
    *,
    leverage: float | None = None,
    horizon: str | None = None,
    where: str | None = None,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
) -> pd.DataFrame:
    """The episodes that liquidated positions of one leverage, the worst first.

    An episode is a run of UTC days with liquidations at this leverage; a single quiet day does not end it.

    Parameters
    ----------
    source, sweep, horizon, where, data, entries, margin
        As of `liquidation_days`.
    leverage : float, optional
        One of the sweep's; may only be left out where it has one, or where trades have their own.

    Returns
    -------
    DataFrame
        Scenario columns, ``horizon``, ``leverage``, and per scenario from the most liquidations to the fewest:

        * ``rank``, from 1
        * ``first_day``, ``last_day``
        * ``hours`` between the first and the last bar that liquidated
        * ``adverse_move``: the largest fall of the trigger price from a peak (longs; a share of the peak), or the
          largest rise from a trough (shorts; a share of the trough), from the start of the first day to the last bar
          that liquidated. A bar's low falls from the highs before it and from its own open, never from its own high.
          Null for trades with sides of their own.
        * ``liquidations``, and their ``share`` of all of the scenario at this leverage
        * ``recovered``, as of `liquidation_days`
        * ``lived``: the largest leverage of the grid such that neither it nor a lower one was liquidated on these days;
          null where there is none. Its positions may all have been rejected.

    Raises
    ------
    ConfigError
        As of `liquidation_days`, and if the leverage is none of the sweep's.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> low = np.full(48, 99.0)
    >>> low[30] = 85.0
    >>> bars = {"high": np.full(48, 100.0), "low": low, "close": np.full(48, 100.0)}
    >>> history = bt.PriceHistory("DIP", 3_600_000, 0, bars)
    >>> sweep = bt.Sweep(side=["long"], leverage=[5, 10], horizon=["4h"], maintenance=[0.0])
    >>> worst = bt.liquidation_episodes(history, sweep, leverage=10).iloc[0]
    >>> str(worst["first_day"].date()), round(float(worst["adverse_move"]), 3), float(worst["lived"])
    ('1970-01-02', 0.15, 5.0)
    """
    study = StudyInputs.given(source, sweep, data, entries, margin)
    config = _at_horizon(study, horizon)
    at = _leverage_number(config, leverage)
    return _episodes(config, at, count_days(config, study.sources(config), where, at))


def days_and_episodes(study: StudyInputs, leverage: float | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both of one leverage and the sweep's longest horizon, in one pass."""
    config = _at_horizon(study, None)
    at = _leverage_number(config, leverage)
    where = None if leverage is None else f"leverage = {leverage!r}"
    counts = list(count_days(config, study.sources(config), where, at))
    return _days(config, counts), _episodes(config, at, counts)


def _days(config: Config, counts: Iterable[DayCounts]) -> pd.DataFrame:
    """What `liquidation_days` returns, at the leverages asked for."""
    fields = scenario_fields(config)
    tables: list[pa.RecordBatch] = []
    span: dict[str, tuple[str, str]] = {}
    for one in counts:
        span[one.grid.symbol] = _span(one.grid)
        at, day = np.nonzero((one.liquidations > 0) & one.wanted[:, None])
        columns = [
            *repeated([*fields, POINT[0]], one.labels, at.size),
            leverage_column(config, at),
            pa.array((one.first_day + day) * DAY_MS).cast(TIME),
            pa.array(one.liquidations[at, day]),
            pa.array(one.recovered[at, day]),
        ]
        tables.append(pa.RecordBatch.from_arrays(columns, schema=pa.schema([*fields, *POINT, ("day", TIME), *COUNTED])))
    found = noted(pa.Table.from_batches(tables).to_pandas(), {"config": config.model_dump(mode="json", by_alias=True)})
    found.attrs["span"] = span
    return found


def _episodes(config: Config, at: int, counts: Iterable[DayCounts]) -> pd.DataFrame:
    """What `liquidation_episodes` returns, at leverage number `at`."""
    fields = scenario_fields(config)
    tables: list[pa.RecordBatch] = []
    for one in counts:
        rows = _ranked(_episode(one, at, config, first, last) for first, last in _runs(one.liquidations[at]))
        columns = [
            *repeated([*fields, POINT[0]], one.labels, len(rows)),
            leverage_column(config, np.full(len(rows), at)),
            *(pa.array([row[name] for row in rows], kind) for name, kind in EPISODE),
        ]
        tables.append(pa.RecordBatch.from_arrays(columns, schema=pa.schema([*fields, *POINT, *EPISODE])))
    found = pa.Table.from_batches(tables).to_pandas()
    return noted(found, {"config": config.model_dump(mode="json", by_alias=True)})


def _at_horizon(study: StudyInputs, horizon: str | None) -> Config:
    """The configuration at one horizon; refuses sweeps whose liquidations have no single day."""
    study.refuse(
        {
            "portfolio": "days are those of single positions; name the legs as symbols",
            "policy": "days are counted for static rules only; leave it out, or see `events`",
        }
    )
    config = study.config
    asked = config.sweep.horizon
    chosen = max(asked, key=duration_ms) if horizon is None else _matched(asked, horizon)
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"horizon": (chosen,)})})


def _matched(horizons: Sequence[str], asked: str) -> str:
    """The horizon of a sweep that has the duration asked for."""
    for text in horizons:
        if duration_ms(text) == duration_ms(asked):
            return text
    raise ConfigError(f"horizon must be one of sweep.horizon, {', '.join(horizons)}; got {asked!r}")


def _leverage_number(config: Config, leverage: float | None) -> int:
    """The number of a leverage in the sweep's list."""
    grid = config.sweep.leverage
    if has_own_leverage(config):
        if leverage is not None:
            raise ConfigError(f"leverage: each trade has its own, leave it out; got {number_text(leverage)}")
        return 0
    if leverage is None and len(grid) == 1:
        return 0
    if leverage not in grid:
        shown = ", ".join(number_text(x) for x in (grid if len(grid) <= 12 else grid[:6]))
        more = "" if len(grid) <= 12 else f", … {number_text(grid[-1])}"
        got = "none" if leverage is None else number_text(leverage)
        raise ConfigError(f"leverage must be one of sweep.leverage, {shown}{more}; got {got}")
    return grid.index(leverage)


def _span(grid: Grid) -> tuple[str, str]:
    return instant_text(grid.start_ms), instant_text(grid.start_ms + grid.n_bars * grid.interval_ms)


def _runs(liquidations: Int) -> list[tuple[int, int]]:
    """First and last day of each episode."""
    days = np.flatnonzero(liquidations)
    ends = np.flatnonzero(np.diff(days) > QUIET_DAYS + 1)
    starts = np.append(0, ends + 1)[: days.size]
    return [(int(days[a]), int(days[b])) for a, b in zip(starts, np.append(ends, days.size - 1), strict=False)]


Row = dict[str, float | int | None]


def _ranked(rows: Iterator[Row]) -> list[Row]:
    """From the most liquidations to the fewest, the earlier first where they are as many."""
    ordered = sorted(rows, key=lambda row: -(row["liquidations"] or 0))
    return [{**row, "rank": rank} for rank, row in enumerate(ordered, start=1)]


def _episode(one: DayCounts, at: int, config: Config, first: int, last: int) -> Row:
    grid, days = one.grid, slice(first, last + 1)
    edges = (one.first_day + np.array([first, last + 1])) * DAY_MS - grid.start_ms
    start, stop = (int(x) for x in np.clip(-(-edges // grid.interval_ms), 0, grid.n_bars))
    bars = start + np.flatnonzero(one.by_bar[start:stop])
    died = one.liquidations[:, days].sum(axis=1) > 0
    # By leverage, so that one that is rejected or rescued by its tier does not count as having lived through it.
    order = np.argsort(config.sweep.leverage, kind="stable")
    lived = int(np.argmax(died[order])) if died.any() else order.size
    count = int(one.liquidations[at, days].sum())
    known = lived > 0 and not has_own_leverage(config)
    return {
        "first_day": (one.first_day + first) * DAY_MS,
        "last_day": (one.first_day + last) * DAY_MS,
        "hours": float((bars[-1] - bars[0]) * grid.interval_ms / 3_600_000),
        "adverse_move": None if one.scenario.own_side else _move(grid, one.scenario.sign, start, int(bars[-1]) + 1),
        "liquidations": count,
        "share": count / int(one.liquidations[at].sum()),
        "recovered": int(one.recovered[at, days].sum()),
        "lived": config.sweep.leverage[order[lived - 1]] if known else None,
    }


def _move(grid: Grid, sign: float, start: int, stop: int) -> float:
    """Largest move against a side from an extreme of the bars before, or the bar's own open, to a bar's worst price."""
    best, worst = (grid.high, grid.low) if sign > 0 else (grid.low, grid.high)
    reach = np.fmax if sign > 0 else np.fmin
    before = np.append(np.nan, reach.accumulate(best[start:stop])[:-1])
    moves = sign * (1 - worst[start:stop] / reach(before, grid.open[start:stop]))
    return float(np.nanmax(moves)) if np.isfinite(moves).any() else float("nan")
