"""Two runs side by side: differences of survival, with intervals from the calendar blocks that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.arrays import Float, Int
from backtest.errors import ConfigError
from backtest.runs.count_files import Blocks
from backtest.runs.result import Result
from backtest.stats.bootstrap import FEWEST_BLOCKS, check_level, jumps, mean_length, sums, weights
from backtest.stats.schema import axes_fields
from backtest.stats.survival_table import SurvivalTable
from backtest.units import duration_ms, duration_text

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

Value = str | float | None

CELLS = 128_000
"""Resampled sums of a kind, and counts, that are held at once: as many as stay in a processor's cache."""
ABSENT: dict[str, Value] = {"policy": "none"}
"""What a run without the axis has on it, where that is not null."""


@dataclass(frozen=True)
class _Match:
    """What two runs have in common, and what makes them two."""

    columns: list[str]
    pairs: list[tuple[Blocks, Blocks]]
    horizons: list[tuple[str, int, int, int]]
    """Name, length in ms and column in each run."""
    leverages: list[tuple[float, int, int]]
    """Leverage (NaN: of the trades) and column in each run."""
    differs: dict[str, tuple[Any, Any]]
    block_ms: int


def compare(one: Result, other: Result, horizon: str | None = None, confidence: float | None = None) -> pd.DataFrame:
    """Survival of `other` less that of `one`, with its interval, row by row that both have.

    Rows are matched on all scenario columns in which the runs have values in common. Where each run has a single value
    and they differ, such as a policy, that is what is compared; it goes to ``attrs["differs"]``, as do the keys of
    the configurations outside the sweep. Both rates are over the calendar blocks that both runs have; the interval
    holds quantiles of a stationary block bootstrap in which both runs draw the same blocks (``statistics.replications``
    and ``statistics.seed`` of `one`).

    Parameters
    ----------
    one, other : Result
        Runs with blocks of one length.
    horizon : str, optional
        One that both have; default: each of those.
    confidence : float, optional
        Level of the interval; default: that of `one`.

    Returns
    -------
    DataFrame
        Matched scenario columns, ``horizon, leverage, entries_one, entries_other, survival_one, survival_other,
        difference, difference_low, difference_high, blocks`` (shared), ``differing_blocks`` (those in which counts
        differ) and ``few_blocks`` (fewer than ten shared: no interval, its bounds are NaN; or fewer than ten differ but
        some: it says little; where none differs, the runs agree on this history, and nothing more is said). NaN where
        either run has no entries.

    Raises
    ------
    ConfigError
        If block lengths differ, or symbols, scenarios, horizons or leverages have none in common.
    """
    import pandas as pd

    statistics = one.info["config"]["statistics"]
    level = float(statistics["confidence"]) if confidence is None else confidence
    replications, seed = int(statistics["replications"]), int(statistics["seed"])
    check_level(level, replications)
    match = _matched(one, other, horizon)
    tail = (1 - level) / 2
    rows: list[dict[str, object]] = []
    drawn: dict[tuple[int, int], csr_array] = {}
    for pair in match.pairs:
        tables = [run.counts.read(where) for run, where in zip((one, other), pair, strict=True)]
        labels = _labels(pair[0], match.columns)
        mine, theirs = [at for _, at, _ in match.leverages], [at for _, _, at in match.leverages]
        for name, ms, *columns in match.horizons:
            counts = [_counts(tables[0], columns[0], mine), _counts(tables[1], columns[1], theirs)]
            first, last = _shared(counts, [table.first_block for table in tables])
            parts = [
                c[..., max(0, first - t.first_block) : max(0, last - t.first_block)]
                for c, t in zip(counts, tables, strict=True)
            ]
            n_blocks = max(0, last - first)
            key = n_blocks, mean_length(n_blocks, ms / match.block_ms)
            low, high = _nothing(len(match.leverages))
            if n_blocks >= FEWEST_BLOCKS:
                if key not in drawn:
                    drawn[key] = jumps(weights(*key, replications, seed))
                low, high = difference_interval(parts, drawn[key], tail)
            rates = [_rate(part.sum(axis=-1)) for part in parts]
            differing = (parts[0] != parts[1]).any(axis=0).sum(axis=-1)
            for at, (leverage, *_) in enumerate(match.leverages):
                rows.append(
                    {
                        **labels,
                        "horizon": name,
                        "leverage": leverage,
                        "entries_one": int(parts[0][0, at].sum()),
                        "entries_other": int(parts[1][0, at].sum()),
                        "survival_one": rates[0][at],
                        "survival_other": rates[1][at],
                        "difference": rates[1][at] - rates[0][at],
                        "difference_low": low[at],
                        "difference_high": high[at],
                        "blocks": n_blocks,
                        "differing_blocks": int(differing[at]),
                        "few_blocks": bool(n_blocks < FEWEST_BLOCKS or 0 < differing[at] < FEWEST_BLOCKS),
                    }
                )
    out = pd.DataFrame(rows)
    out.attrs = {
        "one": str(one.place),
        "other": str(other.place),
        "differs": match.differs,
        "confidence": level,
        "replications": replications,
        "seed": seed,
    }
    return out


def _counts(table: SurvivalTable, column: int, leverages: list[int]) -> Int:
    """Entries and liquidations at one horizon, (2, n_leverages, n_blocks)."""
    return np.stack([table[name][0, column][leverages] for name in ("entries", "liquidations")])


def _shared(counts: list[Int], first_blocks: list[int]) -> tuple[int, int]:
    """First and one past the last calendar block within what both runs entered; the same number where there is none."""
    begin, end = [], []
    for values, first in zip(counts, first_blocks, strict=True):
        filled = np.flatnonzero(values[0].any(axis=0))
        if not filled.size:
            return 0, 0
        begin.append(first + int(filled[0]))
        end.append(first + int(filled[-1]) + 1)
    return max(begin), max(*begin, min(end))


def _rate(counts: Sequence[Float | Int]) -> Float:
    """Survival from entries and liquidations, NaN without entries."""
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Float = np.where(counts[0] > 0, 1 - counts[1] / counts[0], np.nan)
    return out


def difference_interval(parts: list[Int], jump: csr_array, tail: float) -> tuple[Float, Float]:
    """Quantiles of the difference of two survival rates over resampled histories.

    Parameters
    ----------
    parts : two of (2, n_rows, n_blocks) int64
        Entries and liquidations of each run over the same blocks.
    jump : (replications, n_blocks)
        As of `backtest.stats.bootstrap.jumps`.
    tail : float
        Share of the replications below the lower bound, and above the upper one.

    Returns
    -------
    low, high : (n_rows,) float64
        NaN where no replication has entries in both; of those that have not in a row, none counts.
    """
    n_rows = parts[0].shape[1]
    low, high = _nothing(n_rows)
    step = max(1, CELLS // max(jump.shape))
    for at in (slice(i, i + step) for i in range(0, n_rows, step)):
        mine, theirs = (_rate([sums(counts[at], jump) for counts in part]) for part in parts)
        difference = np.ascontiguousarray((theirs - mine).T)
        difference.sort(axis=-1)  # NaN, of draws without entries, to the end
        known = np.isfinite(difference).sum(axis=-1)
        low[at], high[at] = (_quantile(difference, known, q) for q in (tail, 1 - tail))
    return low, high


def _quantile(ordered: Float, known: Int, q: float) -> Float:
    """Quantile of the first `known` of each row, interpolated; NaN where there are none."""
    place = np.maximum(q * (known - 1), 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(known - 1, 0))
    left, right = (np.take_along_axis(ordered, at[:, None], axis=1)[:, 0] for at in (below, above))
    out: Float = left + (right - left) * (place - below)
    return out


def _nothing(count: int) -> tuple[Float, Float]:
    return np.full(count, np.nan), np.full(count, np.nan)


def _matched(one: Result, other: Result, horizon: str | None) -> _Match:
    """Scenarios, horizons and leverages that both runs have; refused where there are none."""
    runs = one, other
    block_ms = [duration_ms(run.info["config"]["statistics"]["block"]) for run in runs]
    if block_ms[0] != block_ms[1]:
        raise ConfigError(
            f"statistics.block is {_both(*map(duration_text, block_ms))}; runs are compared block by block: "
            "run one of them again with the block of the other"
        )
    places = [run.counts.scenarios for run in runs]
    names = [f.name for f in axes_fields(name for side in places for where in side for name in where.scenario)]
    labels = [[_labels(where, names) for where in side] for side in places]
    columns, differs = [], {}
    for name in names:
        mine, theirs = (list(dict.fromkeys(label[name] for label in side)) for side in labels)
        if set(mine) & set(theirs):
            columns.append(name)
        elif name != "symbol" and len(mine) == len(theirs) == 1:
            differs[name] = (mine[0], theirs[0])
        else:
            raise ConfigError(f"the runs have no {name} in common: {_both(_listed(mine), _listed(theirs))}")
    keyed = {tuple(label[name] for name in columns): where for label, where in zip(labels[1], places[1], strict=True)}
    found = [(where, keyed.get(tuple(label[name] for name in columns))) for label, where in
             zip(labels[0], places[0], strict=True)]  # fmt: skip
    pairs = [(where, twin) for where, twin in found if twin is not None]
    if not pairs:
        raise ConfigError(
            f"the runs have no rows in common: no scenario of one has the {', '.join(columns)} of the other"
        )
    return _Match(
        columns=columns,
        pairs=pairs,
        horizons=_horizons(one, other, horizon),
        leverages=_leverages(one, other),
        differs=differs | _settings(one.info, other.info),
        block_ms=block_ms[0],
    )


def _labels(where: Blocks, names: list[str]) -> dict[str, Value]:
    given = {"symbol": where.symbol, **where.scenario}
    return {name: given.get(name, ABSENT.get(name)) for name in names}


def _horizons(one: Result, other: Result, horizon: str | None) -> list[tuple[str, int, int, int]]:
    """Horizons of both runs in the order of the first, matched by duration."""
    named = [list(run.info["config"]["sweep"]["horizon"]) for run in (one, other)]
    mine, theirs = ({duration_ms(text): i for i, text in enumerate(texts)} for texts in named)
    both = [(named[0][i], ms, i, theirs[ms]) for ms, i in mine.items() if ms in theirs]
    if not both:
        raise ConfigError(f"the runs have no horizon in common: {_both(*map(_listed, named))}")
    if horizon is None:
        return both
    wanted = [entry for entry in both if entry[1] == duration_ms(horizon)]
    if not wanted:
        raise ConfigError(f"horizon must be one of {', '.join(e[0] for e in both)}, as both runs; got {horizon!r}")
    return wanted


def _leverages(one: Result, other: Result) -> list[tuple[float, int, int]]:
    """Leverages of both runs, ascending; those of trades are matched with those of trades."""
    own = [bool(run.info.get("own_leverage")) for run in (one, other)]
    if all(own):
        return [(float("nan"), 0, 0)]
    if any(own):
        raise ConfigError(f"the trades of the {'first' if own[0] else 'second'} run have leverages of their own")
    mine, theirs = (
        {float(x): i for i, x in enumerate(run.info["config"]["sweep"]["leverage"])} for run in (one, other)
    )
    both = [(x, mine[x], theirs[x]) for x in sorted(mine.keys() & theirs.keys())]
    if not both:
        raise ConfigError(f"the runs have no leverage in common: {_both(_listed(list(mine)), _listed(list(theirs)))}")
    return both


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys outside the sweep that the runs do not share, and the bar length where it is another."""
    mine, theirs = (
        {
            f"{section}.{key}": value
            for section in ("data", "entries", "margin")
            for key, value in (info["config"].get(section) or {}).items()
        }
        | {"interval": duration_text(int(info["interval_ms"]))}
        for info in (one, other)
    )
    names = dict.fromkeys([*mine, *theirs])
    return {name: (mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)}


def _both(one: str, other: str) -> str:
    return f"{one} in the first, {other} in the second"


def _listed(values: list[Any], most: int = 6) -> str:
    words = ["none" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(words if len(words) <= most else [*words[: most - 1], "…", words[-1]])
