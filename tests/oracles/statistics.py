"""Counts and survival, literally from docs/semantics.md §9; the interval of record from docs/intervals.md."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import NormalDist
from typing import NamedTuple

from scipy.stats import beta  # type: ignore[import-untyped, unused-ignore]
from scipy.stats import t as student  # type: ignore[import-untyped, unused-ignore]

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


LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def ceiling(entries: int, horizon_bars: int, span_bars: int, day_bars: float) -> float:
    """docs/intervals.md, step 1: an independent trial lasts as long as the horizon and at least two days."""
    return min(float(entries), span_bars / max(horizon_bars, 2 * day_bars))


def cosines(blocks: int, weeks: Fraction) -> int:
    """Step 3: the largest q ≥ 3 with q ≤ ⌊T/3⌋ and 125·q³ ≤ weeks²; 3 if there is none."""
    q = 3
    while q + 1 <= blocks // 3 and 125 * (q + 1) ** 3 <= weeks * weeks:
        q += 1
    return q


def effective_trials(
    entries_by_block: Sequence[int],
    survived_by_block: Sequence[int],
    horizon_bars: int,
    block_bars: int,
    span_bars: int,
    day_bars: float,
    *,
    confidence: float,
) -> tuple[float, bool]:
    """docs/intervals.md, steps 1 to 3: n, and whether there are few blocks; at least one entry is needed."""
    first, last = 0, len(entries_by_block) - 1
    while entries_by_block[first] == 0:
        first += 1
    while entries_by_block[last] == 0:
        last -= 1
    n = list(entries_by_block[first : last + 1])
    k = list(survived_by_block[first : last + 1])
    T = len(n)
    entries, survived = sum(n), sum(k)
    weeks = Fraction(T * block_bars) / (7 * Fraction(day_bars))
    few = weeks < 78
    n_0 = ceiling(entries, horizon_bars, span_bars, day_bars)
    if T < 10:
        return min(2.0, n_0), few
    if survived in (0, entries):
        return n_0, few

    S = survived / entries
    r = min(S, 1 - S)
    e = [k[b] - n[b] * S for b in range(T)]
    q = cosines(T, weeks)
    squares = 0.0
    for j in range(1, q + 1):
        a = 0.0
        for b in range(1, T + 1):
            a += e[b - 1] * math.cos(math.pi * j * (b - 0.5) / T)
        squares += (math.sqrt(2) * a) ** 2
    level = 0.5 + confidence / 2
    se = math.sqrt(squares / q) / entries * float(student.ppf(level, q)) / NormalDist().inv_cdf(level)
    n_hat = math.inf if se == 0 else max(2.0, S * (1 - S) / se**2)
    k_hat = min(n_hat, span_bars / horizon_bars) * r
    return min(float(entries), n_hat, n_0 * min(2.0, 1 + k_hat / 40)), few


def clopper_pearson_low(x: float, n: float, tail: float) -> float:
    """Step 4, CP: the lower bound of a rate x in n trials."""
    return 0.0 if x == 0 else float(beta.ppf(tail, x * n, (1 - x) * n + 1))


def lower_bound(x: float, n: float, tail: float) -> float:
    """Step 4, L: the same with the trials that the bound itself implies."""
    f = (1 - x) * n
    trials = n * ((1 + f) / (1 + (1 - clopper_pearson_low(x, n, tail)) * n)) ** (f / (1 + f))
    return clopper_pearson_low(x, trials, tail)


def interval(
    entries_by_block: Sequence[int],
    survived_by_block: Sequence[int],
    horizon_bars: int,
    block_bars: int,
    span_bars: int,
    day_bars: float,
    confidence: float = 0.95,
) -> tuple[float | None, float | None, bool]:
    """docs/intervals.md: the interval of record (low, high) and few_blocks; none without entries."""
    if confidence not in LEVELS:
        raise ValueError(f"no interval at confidence {confidence}")
    entries, survived = sum(entries_by_block), sum(survived_by_block)
    if entries == 0:
        return None, None, True
    n, few = effective_trials(
        entries_by_block, survived_by_block, horizon_bars, block_bars, span_bars, day_bars, confidence=confidence
    )
    tail = (1 - confidence) / 2
    S = survived / entries
    return lower_bound(S, n, tail), 1 - lower_bound(1 - S, n, tail), few
