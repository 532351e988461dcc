"""How often do intervals of survival rates cover the truth on simulated markets? Tables for docs/coverage.md.

Run: ``python -m benchmarks.truth.interval_coverage [--quick] [--write]``; ``--write`` puts them into the document.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass

if __name__ == "__main__":
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, put, table
from benchmarks.truth import markets
from benchmarks.truth.interval_forms import FORMS, Form, record

Float = NDArray[np.float64]
Int = NDArray[np.int64]

LEVELS = (0.5, 0.8, 0.95, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
FREQUENT, EDGE, RARE = slice(0, 2), slice(2, 3), slice(3, None)
SEED = 20_240
"""Not the seed on which the form was chosen."""


@dataclass(frozen=True)
class Market:
    """A kind of market, the half-life of its volatility in days, and the years that are seen of it."""

    kind: str
    half_life: float
    years: float

    @property
    def seed(self) -> int:
        """The same for the same market."""
        return SEED + 1000 * markets.KINDS.index(self.kind) + round(10 * self.half_life + self.years * 2)


@dataclass(frozen=True)
class Scores:
    """Of one form on one market: (n_horizons, n_levels) means over the samples."""

    covered: Float
    width: Float
    flagged: Float
    unseen: Float
    """Samples that saw nothing and cover, and (last axis) samples that saw nothing."""


Counts = dict[str, tuple[Int, Int]]


def score(form: Form, counts: Counts, years: float, confidence: float = 0.95) -> Scores:
    """Apply a form to every sample; the truth is the mean over all of them."""
    shape = (len(counts), len(LEVELS))
    covered, width, flagged, unseen = np.empty(shape), np.empty(shape), np.empty(shape), np.empty((*shape, 2))
    span = round(years * markets.YEAR)
    for i, (name, (entries, survived)) in enumerate(counts.items()):
        for k in range(len(LEVELS)):
            truth = survived[k].sum() / (entries.sum() * survived.shape[1])
            horizon = markets.HORIZONS[name]
            low, high, few = form(entries, survived[k], horizon, markets.BLOCK, span, markets.DAY, confidence)
            inside = (low <= truth) & (truth <= high)
            nothing = survived[k].sum(axis=1) == entries.sum()
            covered[i, k], width[i, k], flagged[i, k] = inside.mean(), np.median(high - low), few.mean()
            unseen[i, k] = (inside & nothing).sum(), nothing.sum()
    return Scores(covered, width, flagged, unseen)


def percent(values: Float) -> str:
    """Mean and range over horizons and levels."""
    return f"{100 * values.mean():.0f} ({100 * values.min():.0f}–{100 * values.max():.0f})"


def summary_row(market: Market, before: Scores, now: Scores) -> list[str]:
    """One market: coverage before and now by how frequent liquidations are."""
    row = [market.kind, f"{market.half_life:g}", f"{market.years:g}"]
    for part in (FREQUENT, EDGE, RARE):
        row += [percent(before.covered[:, part]), percent(now.covered[:, part])]
    for each in (before, now):
        covers, seen = each.unseen[:, RARE].sum(axis=(0, 1))
        row.append(f"{100 * covers / seen:.0f}" if seen >= 100 else "–")
    day = list(markets.HORIZONS).index("24h")
    row.append(" ".join(f"{now.width[day, k] / before.width[day, k]:.1f}" for k in (0, 2, 4)))
    row.append(f"{100 * now.flagged.mean():.0f}")
    return row


def day_row(market: Market, form: str, scores: Scores) -> list[str]:
    """Coverage at the 24-hour horizon by survival rate, and median widths."""
    day = list(markets.HORIZONS).index("24h")
    row = [market.kind, f"{market.half_life:g}", f"{market.years:g}", form]
    row += [f"{100 * x:.1f}" for x in scores.covered[day]]
    return [*row, " ".join(f"{scores.width[day, k]:.3f}" for k in (0, 2, 4))]


def all_markets(quick: bool) -> list[Market]:
    """Those simulated, in the order of the tables."""
    if quick:
        return [Market("smooth", h, y) for h in (5, 40) for y in (1, 2, 6)] + [Market("shaken", 40, 2)]
    found = [Market("smooth", h, y) for h in (5, 10, 20, 40, 60) for y in (0.5, 1, 2, 4, 6)]
    return found + [Market(kind, h, y) for kind in ("shaken", "switching") for h in (10, 40) for y in (1, 2, 4, 6)]


COMPARED = {Market("smooth", 5, 2), Market("smooth", 40, 2), Market("smooth", 40, 6)}
LEVELLED = {Market("smooth", 10, 4), Market("smooth", 40, 2), Market("smooth", 40, 6)}


def study(quick: bool) -> str:
    """Simulate, score and lay out."""
    n_paths = 250 if quick else 1000
    summary, by_day, compared, levelled = [], [], [], []
    for market in all_markets(quick):
        began = time.perf_counter()
        counts = markets.simulate(market.kind, market.half_life, market.years, n_paths, LEVELS, market.seed)
        simulated = time.perf_counter() - began
        before, now = score(FORMS["before"][1], counts, market.years), score(record, counts, market.years)
        summary.append(summary_row(market, before, now))
        by_day += [day_row(market, "before", before), day_row(market, "now", now)]
        if market in COMPARED:
            compared += [day_row(market, text, score(form, counts, market.years)) for text, form in FORMS.values()]
        if market in LEVELLED:
            for confidence in (0.8, 0.9, 0.99):
                found = score(record, counts, market.years, confidence)
                levelled.append([*summary_row(market, now, found)[:3], f"{confidence:g}"])
                levelled[-1] += [percent(found.covered[:, part]) for part in (FREQUENT, EDGE, RARE)]
        text = f"{market.kind} {market.half_life:g} d, {market.years:g} y: {simulated:.0f} s simulating, "
        print(text + f"{time.perf_counter() - began - simulated:.0f} s scoring", file=sys.stderr, flush=True)
    error = 100 * np.sqrt(0.05 * 0.95 / n_paths)
    place = ["market", "half-life, d", "years"]
    classes = ["S 0.5–0.8", "S 0.95", "S 0.99–0.9999"]
    both = [f"{name} {when}" for name in (*classes, "unseen") for when in ("before", "now")]
    rates = [f"{level:g}" for level in LEVELS]
    parts = [
        f"{n_paths} samples per market; a single coverage of 95 % has a standard error of {error:.1f} points. "
        "Coverage in per cent, the mean over horizons of 1h, 8h, 24h, 3d, 7d and 30d and the rates named, in brackets "
        "the lowest and the highest. *Unseen*: of the samples with S ≥ 0.99 that saw no liquidation, those that cover. "
        "*Width*: median now over before at 24h and S = 0.5, 0.95, 0.995. *Flagged*: share with `few_blocks`.",
        "### All markets\n\n" + table([*place, *both, "width", "flagged"], summary),
        "### The 24-hour horizon, by survival rate\n\n"
        + table([*place, "form", *rates, "width at 0.5 0.95 0.995"], by_day),
        "### Forms compared at the 24-hour horizon\n\n"
        + table([*place, "form", *rates, "width at 0.5 0.95 0.995"], compared),
        "### Other levels of confidence\n\n" + table([*place, "level", *classes], levelled),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Parse, study, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer markets and samples")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/coverage.md")
    arguments = parser.parse_args()
    text = study(arguments.quick)
    print(text)
    if arguments.write:
        put(ROOT / "docs" / "coverage.md", "benchmarks/truth/interval_coverage.py", text)


if __name__ == "__main__":
    main()
