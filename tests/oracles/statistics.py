"""Counts, survival and the interval of record, literally from semantics.md §9."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from scipy.stats import beta  # type: ignore[import-untyped, unused-ignore]

from tests.oracles.walk import Grid, Verdict


def count(verdicts: Sequence[Verdict], excluded: int = 0) -> dict[str, int]:
    """§9: the counts of one horizon's cohort; rejected ones are no entries."""
    counts = {"entries": 0, "rejected": 0, "excluded": excluded, "margin_calls": 0, "liquidations": 0}
    for verdict in verdicts:
        if verdict.rejected:
            counts["rejected"] += 1
            continue
        counts["entries"] += 1
        if verdict.margin_call_bar is not None:
            counts["margin_calls"] += 1
        if verdict.liquidation_bar is not None:
            counts["liquidations"] += 1
    return counts


def survival(verdicts: Sequence[Verdict]) -> float | None:
    """§9: the cohort's rate, 1 − liquidations/entries; None where there are no entries."""
    counts = count(verdicts)
    return None if counts["entries"] == 0 else 1 - counts["liquidations"] / counts["entries"]


def alive_at(verdict: Verdict, bars: int) -> bool:
    """§9: not yet liquidated after so many bars."""
    return verdict.liquidation_bar is None or verdict.liquidation_bar - verdict.entry_bar > bars


def survival_km(cohorts: Mapping[int, Sequence[Verdict]]) -> dict[int, float | None]:
    """§9: Kaplan–Meier on the grid of the horizons (in bars), each with the verdicts of its own cohort."""
    result: dict[int, float | None] = {}
    product = 1.0
    previous = 0
    for horizon in sorted(cohorts):
        cohort = [verdict for verdict in cohorts[horizon] if not verdict.rejected]
        before = sum(alive_at(verdict, previous) for verdict in cohort)
        after = sum(alive_at(verdict, horizon) for verdict in cohort)
        previous = horizon
        # An empty cohort is null even after a horizon with none alive: there is nothing to count there.
        if not cohort:
            result[horizon] = None
            continue
        product = 0.0 if after == 0 else product * after / before
        result[horizon] = product
    return result


class Blocks(NamedTuple):
    """§9: counts per calendar block, from the first to the last with entries, empty ones between included."""

    first: int
    entries: list[int]
    survived: list[int]


def block_counts(verdicts: Sequence[Verdict], grid: Grid, block_ms: int) -> Blocks:
    """§9: blocks aligned to the epoch, labelled by the entry bar's open_time (blocks since then)."""
    entries: dict[int, int] = {}
    survived: dict[int, int] = {}
    for verdict in verdicts:
        if verdict.rejected:
            continue
        label = grid.open_time_ms[verdict.entry_bar] // block_ms
        entries[label] = entries.get(label, 0) + 1
        survived[label] = survived.get(label, 0) + (verdict.liquidation_bar is None)
    if not entries:
        return Blocks(0, [], [])
    labels = range(min(entries), max(entries) + 1)
    return Blocks(labels[0], [entries.get(b, 0) for b in labels], [survived.get(b, 0) for b in labels])


def span_of(grid: Grid) -> int:
    """§9: the bars of the grid that have trigger prices."""
    return sum(grid.has_trigger(t) for t in range(len(grid.open_time_ms)))


def fixed_b(b: float, confidence: float) -> float:
    """§9: the fixed-b critical value, by the printed polynomials."""
    if confidence == 0.95:
        return 1.9600 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3
    if confidence == 0.90:
        return 1.6449 + 2.1859 * b + 0.3142 * b**2 - 0.3427 * b**3
    raise ValueError(f"no critical values at confidence {confidence}")


def effective_trials(
    entries_by_block: Sequence[int],
    survived_by_block: Sequence[int],
    horizon_bars: int,
    block_bars: int,
    span_bars: int,
    *,
    confidence: float,
) -> tuple[float, bool]:
    """§9: n_eff, and whether there are few blocks; at least one entry is needed."""
    first, last = 0, len(entries_by_block) - 1
    while entries_by_block[first] == 0:
        first += 1
    while entries_by_block[last] == 0:
        last -= 1
    n = list(entries_by_block[first : last + 1])
    k = list(survived_by_block[first : last + 1])
    T = len(n)
    entries, survived = sum(n), sum(k)
    n_max = min(float(entries), span_bars / horizon_bars)
    if T < 10:
        return min(2.0, n_max), True
    if survived in (0, entries):
        return n_max, False

    S = survived / entries
    e = [k[b] - n[b] * S for b in range(T)]
    # ⌈0.10·T⌉ and ⌈2·horizon/block⌉ in integers, so that no rounding lifts a whole number.
    M = min(T, max(-(-T // 10), -(-2 * horizon_bars // block_bars)))
    gamma: list[float] = []
    for j in range(M):
        total = 0.0
        for b in range(j, T):
            total += e[b] * e[b - j]
        gamma.append(total / T)
    omega = gamma[0]
    for j in range(1, M):
        omega += 2 * (1 - j / M) * gamma[j]
    omega = max(0.0, omega)
    # z is the exact normal quantile (1.95996…), not the polynomial's rounded value at b = 0.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    se = math.sqrt(T * omega) / entries * fixed_b(M / T, confidence) / z
    if se == 0:
        return n_max, False
    return min(n_max, max(2.0, S * (1 - S) / se**2)), False


def interval(
    entries_by_block: Sequence[int],
    survived_by_block: Sequence[int],
    horizon_bars: int,
    block_bars: int,
    span_bars: int,
    confidence: float = 0.95,
) -> tuple[float | None, float | None, bool]:
    """§9: the interval of record (low, high) and few_blocks; none without entries (T = 0 < 10)."""
    fixed_b(0.0, confidence)  # an untabulated level is refused whatever the counts
    entries, survived = sum(entries_by_block), sum(survived_by_block)
    if entries == 0:
        return None, None, True
    n_eff, few = effective_trials(
        entries_by_block, survived_by_block, horizon_bars, block_bars, span_bars, confidence=confidence
    )
    tail = (1 - confidence) / 2
    k = survived / entries * n_eff
    low = 0.0 if survived == 0 else float(beta.ppf(tail, k, n_eff - k + 1))
    high = 1.0 if survived == entries else float(beta.ppf(1 - tail, k + 1, n_eff - k))
    return low, high, few
