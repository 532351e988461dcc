"""Required margin: how much margin each entry would have needed, without a grid of leverages (docs/semantics.md §3).

Every entry has a rate r: it is liquidated within the horizon, or cannot be opened, exactly at the leverages L with
``1/L ≤ r``. The distribution of r holds the answer at every leverage at once; it is kept entry by entry, one float64
each, for one scenario at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest.analysis.study_inputs import Source, StudyInputs, SymbolEntries, thread_count
from backtest.arrays import Float
from backtest.config.models import Data, Entries, Margin, Sweep
from backtest.config.scenarios import Scenario
from backtest.engine.adverse_series import ChunkSeries, chunk_series
from backtest.engine.cohorts import Population
from backtest.engine.count_by_entry import compile_entries, rates_by_horizon
from backtest.engine.entry_rates import RatePart
from backtest.errors import ConfigError
from backtest.progress import progress
from backtest.runs.executors.thread_pool import map_ordered
from backtest.stats.schema import axes_fields

if TYPE_CHECKING:
    import pandas as pd


QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
EVERY_LEVERAGE = (1e-9, 1e9)
"""Stands in for the leverages of the sweep, so that every tier any leverage can reach has its line."""


@dataclass(frozen=True)
class Sample:
    """What the entries of one scenario needed, at one horizon.

    Attributes
    ----------
    labels : dict
        Symbol and scenario columns, ``horizon``.
    rates : (n_entries,) float64
        Of each entry of the cohort, rejected or not: it is liquidated, or cannot be opened, at the leverages L with
        ``1/L ≤ rate``; 0 at none, inf at all. In no order.
    rejected_from : float
        The leverage from which the first entry cannot be opened.
    """

    labels: dict[str, str | float | None]
    rates: Float
    rejected_from: float


def required_margin(
    source: Source,
    sweep: Sweep | None = None,
    *,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    quantiles: Sequence[float] = QUANTILES,
    workers: int | None = None,
) -> pd.DataFrame:
    """The margin that a share of all entries would have lived on, and the largest leverage at which that share lives.

    Exact, from every entry: no grid of leverages is involved, and ``sweep.leverage`` is not read. Where the entries
    are trades with leverages of their own, the answer is what each would have needed, all at one leverage.

    Parameters
    ----------
    source, sweep, data, entries, margin
        As of `backtest.Study`, or a study.
    quantiles : sequence of float
        Shares of the entries within (0, 1]: quantiles of the margin rate, and so targets for the survival.
    workers : int, optional
        Threads; default: one per core. Results do not depend on it.

    Returns
    -------
    DataFrame
        Scenario columns, ``horizon`` and

        * ``entries``: of the cohort, those that cannot be opened at some leverage included;
        * ``rejected_from``: the leverage from which at least one of them cannot be opened (inf: none);
        * ``quantile``: the share asked for;
        * ``required_margin``: the smallest rate that this share needed no more than (0: they live at any leverage;
          inf: the share contains entries that cannot be opened at all);
        * ``critical_leverage``: its inverse, the leverage from which fewer than this share live: the quantile
          1 − `quantile` of the entries' critical leverages;
        * ``leverage``: the largest one, as a float64, at which at least this share is neither liquidated nor rejected:
          just below the critical one, where the next entry dies. inf where any will do, NaN where none does;
        * ``survival``: the share that lives at ``leverage``, above `quantile` where entries are few or tie.

        All but ``entries`` are NaN where no window fits into the history.

    Raises
    ------
    ConfigError, RuleError, DataError
        As of `backtest.run`, and where no single threshold decides: policies, portfolios, and a fixed margin whose
        tiers stay as they were at entry.

    Notes
    -----
    A rejected entry counts as one that does not live: whoever chooses a leverage wants positions that can be opened and
    are not liquidated. In the counts of a run this survival is ``(entries − liquidations) / (entries + rejected)``,
    which never rises with leverage; at leverages below ``rejected_from`` it is the run's ``survival``.

    The numbers describe the entries there were; an interval for those to come is `Result.choose`'s.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> price = 100 + np.sin(np.arange(500.0))
    >>> bars = {"high": price + 1, "low": price - 1, "close": price}
    >>> history = bt.PriceHistory("WAVE", 3_600_000, 0, bars)
    >>> sweep = bt.Sweep(horizon=["1d"], maintenance=[0.005], side=["long"])
    >>> found = bt.required_margin(history, sweep, quantiles=[0.5, 0.95, 1.0])
    >>> found["leverage"].round(2).tolist()
    [40.16, 29.06, 28.94]
    """
    study = StudyInputs.given(source, sweep, data, entries, margin)
    shares = [float(share) for share in quantiles]
    for share in shares:
        if not 0 < share <= 1:
            raise ConfigError(f"quantiles must be shares within (0, 1]; got {share:g}")
    if not shares:
        raise ConfigError("quantiles must name at least one share within (0, 1]")
    rows = [row for sample in samples(study, thread_count(workers)) for row in _rows(sample, shares)]
    fields = ("rejected_from", "quantile", "required_margin", "critical_leverage", "leverage", "survival")
    schema = pa.schema(
        [
            *axes_fields(rows[0]),
            ("horizon", pa.string()),
            ("entries", pa.int64()),
            *((name, pa.float64()) for name in fields),
        ]
    )
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=schema).to_pandas()
    return frame


def leverage_at(rates: Float, survival: Sequence[float]) -> Float:
    """The largest float64 leverage at which each share of the entries lives; inf: at any, NaN: at none.

    Parameters
    ----------
    rates : (n_entries,) float64
        As of `Sample`; none of them may be NaN.
    survival : sequence of float
        Shares within (0, 1].

    Examples
    --------
    >>> leverage_at(np.array([0.0, 0.05, 0.1, np.inf]), [0.25, 0.5, 0.6, 1.0])
    array([inf, 20., 10., nan])
    """
    ordered = np.sort(rates)
    return np.array([_largest_below(float(ordered[_rank(share, rates.size) - 1])) for share in survival])


def samples(study: StudyInputs, workers: int = 1) -> Iterator[Sample]:
    """What the entries of a study needed: by symbol, scenario and horizon."""
    study.refuse(
        {
            name: f"no single margin rate decides where {why}; leave it out, or sweep leverages with `backtest run`"
            for name, why in (("portfolio", "legs move apart"), ("policy", "rules act between entry and end"))
        }
    )
    sweep = study.config.sweep.model_copy(update={"leverage": EVERY_LEVERAGE})
    config = study.config.model_copy(update={"sweep": sweep})
    for source in study.sources(config):
        yield from _symbol_samples(SymbolEntries.read(config, source, must_enter=True), workers)


def _symbol_samples(entries: SymbolEntries, workers: int) -> Iterator[Sample]:
    own, chunks = entries.scenarios, entries.population.chunks()
    for scenario in own:
        _refuse_many_parts(entries, scenario)

    def needed(task: tuple[Scenario, slice]) -> list[tuple[Float, float]]:
        return _needed(entries, *task)

    with progress(f"required margin of {entries.symbol}", len(own) * len(chunks)) as advance:
        found = map_ordered(needed, ((scenario, chunk) for scenario in own for chunk in chunks), workers)
        for scenario in own:
            parts: list[list[tuple[Float, float]]] = []
            for _ in chunks:
                parts.append(next(found))
                advance(1)
            for h, horizon in enumerate(entries.config.sweep.horizon):
                labels = {"symbol": entries.symbol, **scenario.columns(), "horizon": horizon}
                rates = np.concatenate([part[h][0] for part in parts])
                yield Sample(labels, rates, _inverse(max(part[h][1] for part in parts)))


def _refuse_many_parts(entries: SymbolEntries, scenario: Scenario) -> None:
    """Before any work: one entry of each table tells whether one set of lines answers all leverages."""
    for one, part in entries.parts(scenario, slice(0, entries.population.bars.size)):
        _only_part(entries.population, one, chunk_series(entries.population, slice(part.start, part.start + 1), one))


def _only_part(population: Population, scenario: Scenario, series: ChunkSeries) -> RatePart:
    parts = compile_entries(population, series, scenario, np.array(EVERY_LEVERAGE))
    if len(parts) > 1:
        label = scenario.size.label if scenario.size else ""
        raise ConfigError(
            f"sweep.size: with {label!r} each leverage has tiers of its own under {scenario.maintenance.label!r}, so "
            "no single margin rate decides; give the size as notional, or sweep leverages with `backtest run`"
        )
    return parts[0]


def _needed(entries: SymbolEntries, scenario: Scenario, chunk: slice) -> list[tuple[Float, float]]:
    """Per horizon, in the order of the configuration: the rates of a chunk's cohort, and its greatest floor."""
    population, trades = entries.population, entries.population.trades
    rates: list[list[Float]] = [[] for _ in population.horizons]
    floors = np.zeros(len(population.horizons))
    for one, part in entries.parts(scenario, chunk):
        series = chunk_series(population, part, one)
        lines, members = _only_part(population, one, series), population.members(part, series.weight)
        unit = trades.leverage[part] if trades is not None and trades.own_leverage else np.ones(series.unit_value.size)
        found = rates_by_horizon(population, series, lines.liquidation, members)
        for k, (h, rate) in enumerate(zip(members.axis, found, strict=True)):
            inside = members.inside[k]
            floor = lines.floor[inside] / unit[inside]
            floors[h] = max(floors[h], floor.max(initial=0.0))
            # No margin at all is the least that can be needed.
            rates[h].append(np.maximum(np.maximum(rate[inside] / unit[inside], floor), 0.0))
    return [(np.concatenate(each), float(floor)) for each, floor in zip(rates, floors, strict=True)]


def _rows(sample: Sample, shares: Sequence[float]) -> Iterator[dict[str, str | float | None]]:
    """The rows of one scenario and horizon."""
    rates = sample.rates
    if not rates.size:
        for share in shares:
            yield {**sample.labels, "entries": 0, "quantile": share}
        return
    ordered = np.partition(rates, sorted({_rank(share, rates.size) - 1 for share in shares}))
    for share in shares:
        needed = float(ordered[_rank(share, rates.size) - 1])
        leverage = _largest_below(needed)
        lives = np.count_nonzero(rates <= needed if leverage == math.inf else rates < 1.0 / leverage) / rates.size
        yield {
            **sample.labels,
            "entries": rates.size,
            "rejected_from": sample.rejected_from,
            "quantile": share,
            "required_margin": needed,
            "critical_leverage": _inverse(needed),
            "leverage": leverage,
            "survival": math.nan if math.isnan(leverage) else lives,
        }


def _rank(share: float, n: int) -> int:
    """The least k with ``k/n ≥ share``, as float64 has it."""
    k = min(n, math.ceil(share * n))
    while k > 1 and (k - 1) / n >= share:
        k -= 1
    while k / n < share:
        k += 1
    return max(k, 1)


def _inverse(rate: float) -> float:
    return 1.0 / rate if rate > 0 else math.inf


def _largest_below(rate: float) -> float:
    """The largest float64 L with ``1/L > rate``: the test of every path is ``1/L ≤ rate``."""
    if rate <= 0:
        return math.inf
    if rate == math.inf:
        return math.nan
    leverage = math.nextafter(math.nextafter(1.0 / rate, math.inf), math.inf)
    while 1.0 / leverage <= rate:
        leverage = math.nextafter(leverage, 0.0)
    return leverage
