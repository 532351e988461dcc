"""What positions earned: mean and quantiles of the return on margin, and the growth of a bankroll, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest.analysis.study_inputs import Source, StudyInputs, SymbolEntries, thread_count
from backtest.arrays import Float
from backtest.config.models import Config, Data, Entries, Margin, Sweep
from backtest.config.resolve import has_own_leverage
from backtest.config.scenarios import Scenario, split_sides
from backtest.engine.cohorts import Population
from backtest.engine.outcomes import count_ends, log_growth
from backtest.errors import ConfigError
from backtest.progress import progress
from backtest.runs.executors.thread_pool import map_ordered
from backtest.stats.schema import POINT, axes_fields

if TYPE_CHECKING:
    import pandas as pd

Found = dict[tuple[int, int], tuple[Float, Float]]
"""Per horizon and leverage: returns, and what the insurance fund paid."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
NUMBERS_AT_ONCE = 64_000_000
"""Entries × horizons × leverages whose returns are held at once; more leverages take more passes."""


def returns(
    source: Source,
    sweep: Sweep | None = None,
    *,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    leverage: Sequence[float] | None = None,
    quantiles: Sequence[float] = QUANTILES,
    bankroll_fraction: float = 0.1,
    workers: int | None = None,
) -> pd.DataFrame:
    """The distribution of the return on margin at every leverage, exact, from every entry.

    Parameters
    ----------
    source, sweep, data, entries, margin
        As of `backtest.Study`, or a study.
    leverage : sequence of float, optional
        Some of the sweep's; default: all.
    quantiles : sequence of float
        Shares of the entries within (0, 1]: the least return that this share did not exceed.
    bankroll_fraction : float
        Share of a bankroll that is posted as margin, within (0, 1].
    workers : int, optional
        Threads; default: one per core. Results do not depend on it.

    Returns
    -------
    DataFrame
        Scenario columns, ``horizon``, ``leverage`` and

        * ``entries``: those that were not rejected;
        * ``return_mean`` and ``return_q1``, ``return_q5`` …: what was left at the end of the horizon, or at a
          liquidation or other end before it, less what was put in, over the initial margin; net of fees, funding and
          liquidation;
        * ``growth_mean``: the mean of ``log(1 + bankroll_fraction · return)``, −inf where a position can take all of
          the bankroll;
        * ``insurance_loss``: what the insurance fund pays per entry, in initial margins.

        All but ``entries`` are NaN where nothing was entered.

    Raises
    ------
    ConfigError, RuleError, DataError
        As of `backtest.run`, and for portfolios, whose wallets are not followed to money.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> price = 100 + np.sin(np.arange(500.0))
    >>> bars = {"high": price + 1, "low": price - 1, "close": price}
    >>> history = bt.PriceHistory("WAVE", 3_600_000, 0, bars)
    >>> sweep = bt.Sweep(leverage=[5, 60], horizon=["6h"], maintenance=[0.005], side=["long"])
    >>> found = bt.returns(history, sweep, quantiles=[0.05])
    >>> found[["return_q5", "growth_mean"]].round(3).values.tolist()
    [[-0.014, -0.0], [-0.704, -0.056]]
    """
    study = StudyInputs.given(source, sweep, data, entries, margin)
    study.refuse({"portfolio": "portfolios are not followed to what became of them in money; leave it out"})
    config, threads = study.config, thread_count(workers)
    shares, chosen = _checked(config, leverage, quantiles, bankroll_fraction)
    config = config.model_copy(update={"sweep": config.sweep.model_copy(update={"leverage": chosen})})
    symbols = (SymbolEntries.read(config, one, must_enter=True) for one in study.sources(config))
    rows = [row for one in symbols for row in _rows(one, shares, bankroll_fraction, threads)]
    names = ("return_mean", *(_name(share) for share in shares), "growth_mean", "insurance_loss")
    numbers = [pa.field(name, pa.float64()) for name in names]
    schema = pa.schema([*axes_fields(rows[0]), *POINT, ("entries", pa.int64()), *numbers])
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=schema).to_pandas()
    frame.attrs = {"bankroll_fraction": bankroll_fraction}
    return frame


def _checked(
    config: Config, leverage: Sequence[float] | None, quantiles: Sequence[float], bankroll_fraction: float
) -> tuple[list[float], tuple[float, ...]]:
    """The requested quantiles and leverages."""
    shares = [float(share) for share in quantiles]
    if not shares:
        raise ConfigError("quantiles must name at least one share within (0, 1]")
    for name, values in (("quantiles", shares), ("bankroll_fraction", [bankroll_fraction])):
        for value in values:
            if not 0 < value <= 1:
                raise ConfigError(f"{name} must lie within (0, 1]; got {value:g}")
    known = tuple(config.sweep.leverage)
    for value in leverage or ():
        if value not in known:
            raise ConfigError(f"leverage must be of the sweep's {known[0]:g} … {known[-1]:g}; got {value:g}")
    return shares, tuple(float(x) for x in leverage) if leverage else known


def _name(share: float) -> str:
    """``return_q5``, ``return_q99_9``."""
    return "return_q" + f"{100 * share:g}".replace(".", "_")


def _rows(
    entries: SymbolEntries, shares: Sequence[float], fraction: float, workers: int
) -> Iterator[dict[str, str | float | None]]:
    """Rows by scenario, horizon and leverage, in the order of a run's rows."""
    config, population, own = entries.config, entries.population, entries.scenarios
    size = max(1, NUMBERS_AT_ONCE // (population.bars.size * len(population.horizons)))
    groups = [population.leverages[i : i + size] for i in range(0, population.leverages.size, size)]
    shown, chunks = not has_own_leverage(config), population.chunks()
    with progress(f"returns of {entries.symbol}", len(own) * len(groups) * len(chunks)) as advance:
        for scenario in own:
            rows: dict[tuple[int, float], dict[str, str | float | None]] = {}
            for group in groups:
                part = replace(population, leverages=group)
                tasks = ((part, scenario, chunk) for chunk in chunks)
                for (h, k), (earned, lost) in _joined(map_ordered(_found, tasks, workers), advance).items():
                    rows[h, group[k]] = _numbers(earned, lost, shares, fraction)
            for h, horizon in enumerate(config.sweep.horizon):
                for leverage in population.leverages:
                    numbers = rows.get((h, leverage), {"entries": 0})
                    labels = {"symbol": entries.symbol, **scenario.columns(), "horizon": horizon}
                    yield {**labels, "leverage": float(leverage) if shown else None, **numbers}


def _found(task: tuple[Population, Scenario, slice]) -> Found:
    """Returns and losses of the fund of a chunk of entries."""
    population, scenario, chunk = task
    parts: dict[tuple[int, int], list[tuple[Float, Float]]] = {}
    for one in split_sides(scenario):
        for ends in count_ends(population, one, chunk):
            lost = np.asarray(ends.values["insurance_loss"], np.float64)[ends.opened]
            parts.setdefault((ends.horizon, ends.leverage), []).append((ends.returns, lost))
    return {key: _together(pairs) for key, pairs in parts.items()}


def _joined(found: Iterator[Found], advance: Callable[[int], None]) -> Found:
    parts: dict[tuple[int, int], list[tuple[Float, Float]]] = {}
    for one in found:
        advance(1)
        for key, pair in one.items():
            parts.setdefault(key, []).append(pair)
    return {key: _together(pairs) for key, pairs in parts.items()}


def _together(pairs: list[tuple[Float, Float]]) -> tuple[Float, Float]:
    return np.concatenate([earned for earned, _ in pairs]), np.concatenate([lost for _, lost in pairs])


def _numbers(earned: Float, lost: Float, shares: Sequence[float], fraction: float) -> dict[str, str | float | None]:
    """The numbers of one horizon and leverage."""
    if not earned.size:
        return {"entries": 0}
    # The k-th smallest, k/n being the least share that reaches the one asked for: a return that was.
    found = np.quantile(earned, list(shares), method="inverted_cdf")
    return {
        "entries": earned.size,
        "return_mean": float(earned.mean()),
        **{_name(share): float(value) for share, value in zip(shares, found, strict=True)},
        "growth_mean": float(log_growth(earned, fraction).mean()),
        "insurance_loss": float(lost.mean()),
    }
