"""Stretches of calendar blocks of a run: what is asked of each, and what its counts say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.errors import ConfigError
from backtest.runs.count_files import Blocks
from backtest.runs.result import Result
from backtest.stats.binomial_interval import check_confidence
from backtest.stats.survival_table import Span, SurvivalTable, estimate
from backtest.units import MS_PER_UNIT, duration_ms, duration_text

CELLS = 1_000_000
"""Counts of a kind that are looked at together."""


@dataclass(frozen=True)
class Plan:
    """What is asked of every scenario of a run, in blocks and bars."""

    targets: tuple[float, ...]
    horizon: str
    column: int
    bars: int
    block: int
    past: int | None
    ahead: int
    confidence: float
    block_ms: int
    day: float

    @property
    def gap(self) -> int:
        """Blocks before a decision whose outcomes are not all known yet."""
        return -(-self.bars // self.block)


@dataclass(frozen=True)
class Counts:
    """One scenario at one horizon, its calendar blocks from the first to the last of the cohort.

    Attributes
    ----------
    leverage : (n_leverages,) float64
        Ascending.
    counts : (n_counts, n_leverages, n_blocks) int64
        As of `SurvivalTable`.
    present : int
        Bars of the grid that have trigger prices.
    share : float
        Of all bars of the grid.
    """

    where: Blocks
    leverage: Float
    counts: Int
    first_block: int
    present: int
    share: float

    @property
    def n_blocks(self) -> int:
        """From the first to the last."""
        return int(self.counts.shape[-1])


@dataclass(frozen=True)
class Rates:
    """What a stretch says of each leverage, arrays of (n_stretches, n_leverages)."""

    entries: Int
    survival: Float
    low: Float
    high: Float
    few_blocks: Bool


def rates(one: Counts, plan: Plan, begins: Int, ends: Int) -> Rates:
    """Survival and its interval of record of stretches of blocks, in the order given."""
    shape = (begins.size, one.leverage.size)
    entries, few = np.zeros(shape, np.int64), np.ones(shape, np.bool_)
    survival, low, high = (np.full(shape, np.nan) for _ in range(3))
    lengths = ends - begins
    for length in np.unique(lengths):
        span = block_span(one, plan, int(length))
        same = np.flatnonzero(lengths == length)
        step = max(1, CELLS // (one.leverage.size * int(length)))
        for rows in (same[i : i + step] for i in range(0, same.size, step)):
            parts = one.counts[..., begins[rows][:, None] + np.arange(length)].swapaxes(1, 2)
            found = estimate(SurvivalTable(parts[:, :, None], 0), span, plan.confidence)
            entries[rows], few[rows] = found.counts["entries"][:, 0], found.few_blocks[:, 0]
            survival[rows], low[rows], high[rows] = found.survival[:, 0], found.low[:, 0], found.high[:, 0]
    return Rates(entries, survival, low, high, few)


def block_span(one: Counts, plan: Plan, n_blocks: int) -> Span:
    """The span of as many blocks, at the share of bars that the whole history has, and no more than that has."""
    present = max(1, min(one.present, round(one.share * n_blocks * plan.block)))
    return Span((plan.bars,), plan.block, present, plan.day)


def planned(
    result: Result,
    horizon: str,
    survival: float | Sequence[float],
    past: str | None,
    ahead: str,
    confidence: float | None,
) -> Plan:
    """The request in blocks and bars, checked."""
    info = result.info
    if info.get("own_leverage"):
        raise ConfigError("trades have leverages of their own; there is none to choose")
    targets = tuple(float(s) for s in ([survival] if isinstance(survival, int | float) else survival))
    if not targets or not all(0 < target < 1 for target in targets):
        raise ConfigError(f"survival must lie between 0 and 1, such as 0.95; got {survival}")
    level = float(info["config"]["statistics"]["confidence"] if confidence is None else confidence)
    check_confidence(level)
    known = list(info["config"]["sweep"]["horizon"])
    lengths = [duration_ms(text) for text in known]
    if duration_ms(horizon) not in lengths:
        raise ConfigError(f"horizon must be one of {', '.join(known)} in this run; got {horizon!r}")
    column, interval = lengths.index(duration_ms(horizon)), int(info["interval_ms"])
    block_ms = duration_ms(info["config"]["statistics"]["block"])
    blocks = {}
    for name, text in (("past", past), ("ahead", ahead)):
        if text is not None:
            blocks[name], rest = divmod(duration_ms(text), block_ms)
            if rest:
                raise ConfigError(f"{name} must be a multiple of the run's {duration_text(block_ms)}; got {text!r}")
    plan = Plan(
        targets=targets,
        horizon=known[column],
        column=column,
        bars=lengths[column] // interval,
        block=block_ms // interval,
        past=blocks.get("past"),
        ahead=blocks["ahead"],
        confidence=level,
        block_ms=block_ms,
        day=MS_PER_UNIT["d"] / interval,
    )
    if plan.past is not None and plan.past <= plan.gap:
        raise ConfigError(
            f"past must be longer than {duration_text(plan.gap * block_ms)}: of entries in that time before a decision "
            f"the outcome at {plan.horizon} is not known yet; got {past!r}"
        )
    return plan


def scenarios(result: Result, plan: Plan) -> Iterator[Counts]:
    """Every scenario of the run, as far as its cohort reaches; those without entries are not there."""
    info = result.info
    sweep = info["config"]["sweep"]
    leverage = np.array(sweep["leverage"], np.float64)
    order = np.argsort(leverage)
    bars = {part["symbol"]: (int(part["present_bars"]), int(part["bars"])) for part in info["coverage"]}
    found = False
    for where, table in result.counts.tables():
        seen = table["entries"] + table["rejected"] + table["excluded"]
        cohort = np.flatnonzero(seen[0, plan.column].any(axis=0))
        if not cohort.size:
            continue
        found = True
        counts = table.counts[:, 0, plan.column][:, order, cohort[0] : cohort[-1] + 1]
        first = table.first_block + int(cohort[0])
        present, whole = bars[where.symbol]
        yield Counts(where, leverage[order], counts, first, present, present / whole)
    if not found:
        raise ConfigError(f"horizon {plan.horizon} is longer than the history: no entry has its whole window in it")
