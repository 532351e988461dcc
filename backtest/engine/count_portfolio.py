"""Portfolio: several symbols on one wallet; a chunk of entries × scenarios → tables (docs/semantics.md §8).

Per unit of gross notional L·W, a portfolio of leverage L is liquidated within h bars if

    (1 − 1e-9)/L − fee·Σ|w_k| ≤ max_t Σ_k max_j (a_k·Z_kj(t) − d_kj) + Σ_k (s_k·|w_k| − a_k·s_k·C_k,i),  a_k = |w_k|/p_k

over the tiers j of each leg: Z_kj = (mmr_j + close_reserve − s_k)·P_k + s_k·C_k and d_kj = D_j/(L·W), as of an
isolated position. Fees, and leverage at a fixed notional, only move the threshold; so does a deduction where one tier
alone is within reach. Where the wallet is fixed and several tiers are, d = D_j/(L·W) differs by leverage, and each has
lines and a pass of its own: 125 leverages under Binance's tables cost 20 times one. (A bar's threshold is one leverage
there too, since 1/L + Σ_k min_j d_kj rises with 1/L, but finding it is a search for each bar.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np

from backtest.arrays import Bool, Float, Int
from backtest.config.portfolio_scenarios import PortfolioScenario
from backtest.engine.adverse_series import funding_paid, split_at_tables, tables_in_force
from backtest.engine.cohorts import Cohort, Horizons
from backtest.engine.kernels.portfolio_max import Field, build_field, padded, search_windows
from backtest.engine.kernels.window_max import LOWEST, adverse_series
from backtest.engine.portfolio import PortfolioPopulation
from backtest.engine.threshold_counts import ThresholdTest, add_reaching, all_thresholds, count_reaching
from backtest.engine.thresholds import TIE, Period, entry_maintenance, entry_rate, exceeds_limits, tiers_in_force
from backtest.stats.survival_table import COUNTS, Count, Tables, merged


@dataclass(frozen=True)
class Leg:
    """Local arrays of one leg in a chunk.

    Attributes
    ----------
    sign, weight : float
        Side s and |w|.
    price, paid : (n_bars,) float64
        Price that triggers, NaN where it is missing; funding paid per unit of base since the chunk's first bar.
    scale : (n_bars,) float64 or None
        Multiplier of the maintenance margin.
    entry : (n_entries,) float64
        Entry prices.
    """

    sign: float
    weight: float
    price: Float
    paid: Float
    scale: Float | None
    entry: Float

    @cached_property
    def price_ratio(self) -> tuple[float, float]:
        """Bounds of P/p over the bars and the entries."""
        if np.isnan(self.price).all():
            return 1.0, 1.0
        return float(np.nanmin(self.price) / self.entry.max()), float(np.nanmax(self.price) / self.entry.min())


@dataclass(frozen=True)
class Local:
    """The bars of a chunk's windows: bars ``start … stop − 1``, counted from there.

    Attributes
    ----------
    bar : (n_entries,) int64
        Bars entered.
    missing : (n_missing,) int64
        Bars that cannot trigger: some leg lacks its prices.
    """

    start: int
    stop: int
    bar: Int
    missing: Int
    legs: tuple[Leg, ...]

    @property
    def scaled(self) -> bool:
        """Whether the maintenance of any leg is scaled: then entries differ in what is rejected."""
        return any(leg.scale is not None for leg in self.legs)


def slice_legs(population: PortfolioPopulation, scenario: PortfolioScenario, chunk: slice) -> Local:
    """Slice the legs; funding is summed from the first entry's bar on."""
    base = population.base
    bars = base.bars[chunk]
    start, stop = int(bars[0]), min(base.grid.n_bars, int(bars[-1]) + max(base.horizons) + 1)
    missing = np.isnan(base.grid.low[start:stop])
    if scenario.verdict == "close":
        missing |= np.logical_or.reduce([np.isnan(grid.close[start:stop]) for grid in population.legs])
    legs = []
    for grid, weight in zip(population.legs, scenario.portfolio.weights, strict=True):
        worst = grid.low if weight > 0 else grid.high
        price = (grid.close if scenario.verdict == "close" else worst)[start:stop]
        legs.append(
            Leg(
                1.0 if weight > 0 else -1.0,
                abs(weight),
                price,
                funding_paid(grid, scenario.funding, start, stop),
                None if grid.scale is None else grid.scale[start:stop],
                grid.entry_price[bars],
            )
        )
    return Local(start, stop, bars - start, np.flatnonzero(missing), tuple(legs))


class LegLine(NamedTuple):
    """A formula of one leg's maintenance, per unit of gross notional: ``g·(rate·a·P + shift) + reserve·a·P + fixed``.

    It is in force from bar `first` to before bar `stop` of the chunk; a leg's maintenance is the largest in force.
    """

    rate: float
    shift: float
    reserve: float
    fixed: float
    first: int
    stop: int


Lines = tuple[tuple[LegLine, ...], ...]
"""The lines of each leg: what one pass over the entries is made for."""


def count_portfolio(population: PortfolioPopulation, scenarios: Sequence[PortfolioScenario], chunk: slice) -> Tables:
    """Count a chunk of entries of one portfolio.

    scenarios : of one group (`group_portfolios`): they differ in fee and size

    Parameters and result as of `backtest.engine.count.count_entries`.
    """
    legs = list(zip(population.legs, scenarios[0].maintenance, strict=True))
    parts = split_at_tables(population.base.bars, legs, chunk)
    if len(parts) > 1:
        return reduce(merged, (count_portfolio(population, scenarios, part) for part in parts))
    base, counted = population.base, population.base.cohorts(chunk)
    local = slice_legs(population, scenarios[0], chunk)
    periods = [tables_in_force(grid, rule, local.start, local.stop) for grid, rule in legs]
    tables = base.empty_tables(chunk, len(scenarios))
    rejected: list[Bool] = []
    passes: dict[Lines, list[ThresholdTest]] = {}
    for i, scenario in enumerate(scenarios):
        fee = scenario.open_fee if base.terms.fees_from_margin else 0.0
        rejected.append(_rejected(scenario, base.leverages, fee, local, periods))
        for by, table in zip(counted, tables, strict=True):
            _count_entries(table.counts[:, i], by, rejected[-1])
        tried = np.flatnonzero(~rejected[-1].all(axis=1)).tolist()
        asked: tuple[tuple[Count, float], ...] = (
            ("liquidations", 1.0),
            ("margin_calls", base.terms.margin_call_ratio),
        )
        for row, ratio in asked:
            for lines, leverage, threshold in _barriers(scenario, base.leverages, tried, fee, ratio, local, periods):
                passes.setdefault(lines, []).append(ThresholdTest(row, i, leverage, threshold))
    for lines, tests in passes.items():
        rates = required_rates(lines, local, counted[0].bars)
        for by, table in zip(counted, tables, strict=True):
            _add_pass(rates, tests, rejected, by, table.counts)
    return tables


def _rejected(
    scenario: PortfolioScenario, leverages: Float, fee: float, local: Local, periods: Sequence[tuple[Period, ...]]
) -> Bool:
    """What could not have been opened: (n_leverages, 1), or (n_leverages, n_entries) under scaled maintenance."""
    too_large = np.zeros(leverages.size, np.bool_)
    held = np.zeros((leverages.size, local.bar.size if local.scaled else 1))
    gross = np.array([scenario.gross(leverage) for leverage in leverages.tolist()])
    for leg, rule, spans in zip(local.legs, scenario.maintenance, periods, strict=True):
        own, notional = spans[0].table, leg.weight * gross
        rate = entry_rate(rule, own, notional)
        if own is not None:
            too_large |= exceeds_limits(own, leverages, notional)
        scale = np.ones(1) if leg.scale is None else leg.scale[local.bar]
        held += leg.weight * (scale * rate[:, None] + rule.close_reserve)
    whole = sum(leg.weight for leg in local.legs)
    return too_large[:, None] | (((1 - TIE) / leverages - fee * whole)[:, None] <= held)


def _barriers(
    scenario: PortfolioScenario,
    leverages: Float,
    tried: Sequence[int],
    fee: float,
    ratio: float,
    local: Local,
    periods: Sequence[tuple[Period, ...]],
) -> Iterator[tuple[Lines, list[int], list[float]]]:
    """Lines and thresholds of leverages that share their lines; maintenance is divided by `ratio`."""
    whole = sum(leg.weight for leg in local.legs)
    # What a fee to close that is posted on top (Bybit UTA) leaves in the margin call, docs/semantics.md §5.
    pairs = list(zip(scenario.maintenance, local.legs, strict=True))
    posted = sum(rule.posted_fee * (1 / ratio - 1) * leg.weight for rule, leg in pairs)
    numerator = 1 - TIE + sum(rule.posted_fee * (1 / ratio - 1) * leg.weight * leg.sign for rule, leg in pairs)
    made: dict[float, tuple[Lines, float]] = {}
    out: dict[Lines, tuple[list[int], list[float]]] = {}
    for j in tried:
        leverage = float(leverages[j])
        gross = scenario.gross(leverage)
        if gross not in made:
            made[gross] = _without_constants(_lines(scenario, gross, ratio, local, periods), local)
        lines, moved = made[gross]
        members, thresholds = out.setdefault(lines, ([], []))
        members.append(j)
        thresholds.append(numerator / leverage - fee * whole - posted - moved)
    for lines, (members, thresholds) in out.items():
        yield lines, members, thresholds


def _lines(
    scenario: PortfolioScenario, gross: float, ratio: float, local: Local, periods: Sequence[tuple[Period, ...]]
) -> Lines:
    """The lines of each leg that can be in force between the bounds of its prices."""
    out = []
    for leg, rule, spans in zip(local.legs, scenario.maintenance, periods, strict=True):
        notional = leg.weight * gross
        lines = []
        for period in spans:
            if rule.basis == "entry":
                rate = leg.weight * (entry_maintenance(rule, period.table, notional) - rule.close_reserve)
                fixed = leg.weight * rule.close_reserve
                lines.append(LegLine(0.0, rate / ratio, 0.0, fixed / ratio, period.first, period.stop))
                continue
            low, high = leg.price_ratio if period.table else (0.0, np.inf)
            reach = (notional * low, notional * high)
            for mmr, deduction in zip(*tiers_in_force(rule, period.table, notional, reach), strict=True):
                rate, shift = float(mmr) / ratio, -float(deduction) / gross / ratio
                lines.append(LegLine(rate, shift, rule.close_reserve / ratio, 0.0, period.first, period.stop))
        out.append(tuple(lines))
    return tuple(out)


def _without_constants(lines: Lines, local: Local) -> tuple[Lines, float]:
    """Lines without what no bar changes, and that part, which moves to the threshold: leverages then share lines."""
    moved, out = 0.0, []
    for leg, own in zip(local.legs, lines, strict=True):
        if len(own) > 1:
            out.append(own)
            continue
        line = own[0]
        moved += line.fixed + (line.shift if leg.scale is None else 0.0)
        out.append((line._replace(fixed=0.0, shift=0.0 if leg.scale is None else line.shift),))
    return tuple(out), moved


def required_rates(lines: Lines, local: Local, horizons: Sequence[int]) -> Float:
    """Required margin rate of each entry within each of ascending horizons: (n_entries, n_horizons)."""
    weight = np.column_stack([leg.weight / leg.entry for leg in local.legs])
    out = np.empty((local.bar.size, len(horizons)))
    search_windows(_field(lines, local), local.bar, weight, np.array(horizons, dtype=np.int64), out)
    for leg, a in zip(local.legs, weight.T, strict=True):
        out += (leg.sign * (leg.weight - a * leg.paid[local.bar]))[:, None]
    return out


def _field(lines: Lines, local: Local) -> Field:
    """The adverse series of every line, `LOWEST` where it is not in force."""
    size = local.stop - local.start
    first = np.cumsum([0, *(len(own) for own in lines)])
    value = np.empty((int(first[-1]), padded(size)))
    value[:, size:] = LOWEST
    shift = np.zeros(value.shape[0])
    pairs = [(leg, line) for leg, own in zip(local.legs, lines, strict=True) for line in own]
    bar_by_bar = any(leg.scale is not None and line.shift for leg, line in pairs)
    moving = np.zeros(value.shape if bar_by_bar else (value.shape[0], 0))
    for k, (leg, line) in enumerate(pairs):
        out = value[k, :size]
        if leg.scale is None:
            adverse_series(leg.price, leg.paid, line.rate + line.reserve - leg.sign, leg.sign, out)
            shift[k] = line.fixed + line.shift
        else:
            rate = leg.scale * line.rate + line.reserve - leg.sign
            out[:] = rate * leg.price + leg.sign * leg.paid
            shift[k] = line.fixed
            if bar_by_bar:
                moving[k, :size] = leg.scale * line.shift
        out[: line.first] = LOWEST
        out[line.stop :] = LOWEST
    value[:, local.missing] = LOWEST
    return build_field(first.astype(np.int64), value, shift, moving, size)


def _members(cohort: Cohort) -> tuple[Int, Int]:
    """Entries of a cohort, and the label of each."""
    length = cohort.runs.stop - cohort.runs.start
    before = np.cumsum(length) - length
    entry = np.arange(length.sum(), dtype=np.int64) + np.repeat(cohort.runs.start - before, length)
    return entry, np.repeat(cohort.runs.label, length)


def _count_entries(counts: Int, horizons: Horizons, rejected: Bool) -> None:
    """Fill entries, rejected and excluded of one scenario: counts (7, n_horizons, n_leverages, n_blocks)."""
    for k, cohort in zip(horizons.axis, horizons.cohorts, strict=True):
        if rejected.shape[1] == 1:
            gone = rejected * cohort.entries
        else:
            entry, label = _members(cohort)
            block, n = label // 2, cohort.entries.size
            gone = np.array([np.bincount(block[refused[entry]], minlength=n) for refused in rejected])
        counts[COUNTS.index("excluded"), k] = cohort.excluded
        counts[COUNTS.index("rejected"), k] = gone
        counts[COUNTS.index("entries"), k] = cohort.entries - gone


def _add_pass(
    rates: Float, tests: Sequence[ThresholdTest], rejected: Sequence[Bool], horizons: Horizons, counts: Int
) -> None:
    """Add the counts of every test of one pass.

    rates : (n_entries, n_horizons)
    """
    thresholds, n_labels = all_thresholds(tests), 2 * horizons.n_blocks
    members = [_members(cohort) for cohort in horizons.cohorts]
    reaching = np.array(
        [count_reaching(rates[entry, h], thresholds, label, n_labels) for h, (entry, label) in enumerate(members)]
    )
    for test in tests:
        refused = rejected[test.scenario]
        if refused.shape[1] == 1:
            add_reaching(counts, horizons, test, reaching[..., np.searchsorted(thresholds, test.threshold)])
            continue
        found = np.zeros((len(members), n_labels, len(test.threshold)), np.int64)
        for h, (entry, label) in enumerate(members):  # entries of one leverage differ in what is rejected
            for k, (j, x) in enumerate(zip(test.leverage, test.threshold, strict=True)):
                dead = (rates[entry, h] >= x) & ~refused[j, entry]
                found[h, :, k] = np.bincount(label[dead], minlength=n_labels)
        add_reaching(counts, horizons, test, found)
