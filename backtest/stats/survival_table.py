"""Counts per scenario, horizon, leverage and calendar block, and the rates that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from backtest.arrays import Bool, Float, Int
from backtest.stats.binomial_interval import survival_interval

Count = Literal[
    "entries", "rejected", "excluded", "margin_calls", "liquidations", "prior_liquidations", "prior_margin_calls"
]
COUNTS: tuple[Count, ...] = get_args(Count)
PRIOR: dict[Count, Count] = {"liquidations": "prior_liquidations", "margin_calls": "prior_margin_calls"}
"""What had happened by the next shorter horizon, over the same cohort."""


Outcome = Literal[
    "stopped", "took_profit", "recovered", "partial_liquidations", "top_ups", "deleverages", "scale_ins",
    "prior_stopped", "prior_took_profit", "equity", "residual", "insurance_loss", "insurance_gain", "fees", "added",
    "log_growth",
]  # fmt: skip
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""How positions ended and what came of them, summed over entries: numbers of positions and of events first, then
amounts as fractions of the initial margin, and the log growth of a bankroll (``statistics.bankroll_fraction``)."""


@dataclass(frozen=True)
class SurvivalTable:
    """Counts of scenarios × horizons × leverages × calendar blocks; tables of other entries are added with ``+``.

    Attributes
    ----------
    counts : (7, n_scenarios, n_horizons, n_leverages, n_blocks) int64
        In the order of `COUNTS`. ``entries`` are those of the horizon's cohort that were not rejected,
        ``prior_liquidations`` those of them that were liquidated by the next shorter horizon (for Kaplan–Meier),
        ``prior_margin_calls`` those that were called by then.
    first_block : int
        Calendar block of column 0: open time of the entry bar over the block length, rounded down. Of a regime's table
        columns are its cells.
    outcomes : (16, n_scenarios, n_horizons, n_leverages, n_blocks) float64, optional
        In the order of `OUTCOMES`, over the entries that were not rejected.

    Examples
    --------
    >>> one = SurvivalTable(np.ones((7, 1, 1, 1, 1), np.int64), first_block=4)
    >>> two = one + SurvivalTable(np.ones((7, 1, 1, 1, 2), np.int64), first_block=4)
    >>> two["entries"].ravel().tolist()
    [2, 1]
    """

    counts: Int
    first_block: int
    outcomes: Float | None = None

    def __getitem__(self, name: Count) -> Int:
        """(n_scenarios, n_horizons, n_leverages, n_blocks) of one of `COUNTS`."""
        out: Int = self.counts[COUNTS.index(name)]
        return out

    @property
    def last_block(self) -> int:
        """One past the last block."""
        return self.first_block + int(self.counts.shape[-1])

    def __add__(self, other: SurvivalTable) -> SurvivalTable:
        if self.counts.shape[:-1] != other.counts.shape[:-1]:
            raise ValueError(
                "tables of different scenarios do not add: scenarios × horizons × leverages is "
                f"{self.counts.shape[1:-1]} here and {other.counts.shape[1:-1]} there"
            )
        first = min(self.first_block, other.first_block)
        last = max(self.last_block, other.last_block)
        counts = np.zeros((*self.counts.shape[:-1], last - first), np.int64)
        both = self.outcomes is not None and other.outcomes is not None
        total = SurvivalTable(counts, first, np.zeros((len(OUTCOMES), *counts.shape[1:])) if both else None)
        total.take(self)
        total.take(other)
        return total

    def take(self, other: SurvivalTable) -> None:
        """Add a table of other entries in place; its blocks must lie within those of this one."""
        span = slice(other.first_block - self.first_block, other.last_block - self.first_block)
        self.counts[..., span] += other.counts
        if self.outcomes is not None and other.outcomes is not None:
            self.outcomes[..., span] += other.outcomes

    def cut(self, first: int, last: int) -> SurvivalTable:
        """The blocks from `first` to `last`, exclusive, of this table."""
        span = slice(first - self.first_block, last - self.first_block)
        return SurvivalTable(self.counts[..., span], first, None if self.outcomes is None else self.outcomes[..., span])

    def __radd__(self, other: int) -> Self:
        """So that ``sum(tables)`` works."""
        if other != 0:
            return NotImplemented
        return self

    def __reduce__(self) -> tuple[Callable[..., SurvivalTable], tuple[NDArray[np.unsignedinteger], int, Float | None]]:
        """Pickled, counts take as few bytes as they need, mostly two of eight."""
        counts = self.counts.astype(np.min_scalar_type(self.counts.max(initial=0)))
        return _unpacked, (counts, self.first_block, self.outcomes)


def _unpacked(counts: NDArray[np.unsignedinteger], first_block: int, outcomes: Float | None) -> SurvivalTable:
    return SurvivalTable(counts.astype(np.int64), first_block, outcomes)


Tables = tuple[SurvivalTable, ...]
"""Counts of the same entries by calendar block, then by the cells of each regime (`backtest.engine.regime_labels`)."""


def merged(one: Tables, two: Tables) -> Tables:
    """Tables of disjoint entries, added up."""
    return tuple(a + b for a, b in zip(one, two, strict=True))


def survival_rate(entries: Int, liquidations: Int) -> Float:
    """``1 − liquidations / entries``, NaN where nothing was entered."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(entries > 0, 1.0 - liquidations / entries, np.nan)


def kaplan_meier(entries: Int, liquidations: Int, prior_liquidations: Int) -> Float:
    """Kaplan–Meier on a grid of horizons (docs/semantics.md §9).

    Parameters
    ----------
    entries, liquidations, prior_liquidations : (..., n_horizons, n_leverages) int64
        Horizons ascending; `prior_liquidations` of each horizon's cohort by the next shorter horizon, 0 for the first.

    Returns
    -------
    (..., n_horizons, n_leverages) float64
        The product of alive(h_k) / alive(h_{k−1}), both in the cohort of h_k; 0 from the first horizon with none
        alive, NaN where a cohort is empty.
    """
    alive = (entries - liquidations).astype(np.float64)
    before = (entries - prior_liquidations).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        step = np.where(before > 0, alive / before, 0.0)
    return np.where(entries > 0, np.cumprod(step, axis=-2), np.nan)


@dataclass(frozen=True)
class Span:
    """What the statistics of a symbol need to know of its grid, in bars.

    Attributes
    ----------
    horizons : tuple of int
        In the order of the table's axis.
    block : int
        Length of a calendar block.
    present : int, or (n_horizons,) int64
        Bars of the grid that have trigger prices; for a regime its share of them, per horizon.
    day : float
        Bars in a day.
    """

    horizons: tuple[int, ...]
    block: int
    present: int | Int
    day: float


@dataclass(frozen=True)
class Estimates:
    """Totals over blocks and the rates that follow, arrays of (n_scenarios, n_horizons, n_leverages)."""

    counts: dict[Count, Int]
    survival: Float
    low: Float
    high: Float
    survival_km: Float
    few_blocks: Bool
    n_eff: Float


def estimate(table: SurvivalTable, span: Span, confidence: float) -> Estimates:
    """Survival, its interval of record and Kaplan–Meier (docs/semantics.md §9)."""
    total: dict[Count, Int] = {name: table[name].sum(axis=-1) for name in COUNTS}
    entries, liquidations = total["entries"], total["liquidations"]
    order = np.argsort(span.horizons)
    km = np.empty(entries.shape)
    km[:, order] = kaplan_meier(entries[:, order], liquidations[:, order], total["prior_liquidations"][:, order])
    n_blocks = table.counts.shape[-1]
    opened = table["entries"].reshape(-1, n_blocks)
    alive = opened - table["liquidations"].reshape(-1, n_blocks)
    horizons = np.broadcast_to(np.array(span.horizons, np.int64)[:, None], entries.shape).reshape(-1)
    present = np.broadcast_to(np.asarray(span.present, np.int64).reshape(-1, 1), entries.shape).reshape(-1)
    bounds = survival_interval(opened, alive, horizons, span.block, present, span.day, confidence)
    low, high = bounds.low.reshape(entries.shape), bounds.high.reshape(entries.shape)
    few, n_eff = bounds.few_blocks.reshape(entries.shape), bounds.n_eff.reshape(entries.shape)
    return Estimates(total, survival_rate(entries, liquidations), low, high, km, few, n_eff)
