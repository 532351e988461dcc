"""Read a long history in parts that fit the memory: each has its own entries and the bars of their windows.

Parts end where chunks of entries do (`backtest.engine.cohorts.Population.chunks`), so that no number depends on how
many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from backtest.config.models import Config
from backtest.config.scenarios import Scenario, horizon_bars
from backtest.data.history import COLUMNS, PRICES, PriceHistory, Trigger
from backtest.data.reader import SeriesFiles
from backtest.engine.bars import Grid, grid_over, ready_bars
from backtest.engine.cohorts import CHUNK_BARS
from backtest.engine.prepare import is_charged, open_time_range, refuse_early, refuse_lacking_in
from backtest.errors import NoBars
from backtest.runs.inputs import HistorySource

READ = tuple(name for name in COLUMNS if name not in ("volume", "maintenance_scale"))
PROBE_BARS = 1 << 16
"""Bars read at once while searching for the first and the last bar that can be entered."""

LONG_BARS = 1 << 20
"""Parts need not be longer: arrays of 8 MB, whose memory malloc uses again."""


@dataclass(frozen=True)
class HistoryPart:
    """The entries of ``[start_ms, end_ms)``; their windows end before `until_ms`."""

    start_ms: int
    end_ms: int
    until_ms: int
    first: bool


@dataclass(frozen=True)
class ChunkedHistory:
    """A history that is read in parts.

    Attributes
    ----------
    opened : SeriesFiles
        Its files.
    trigger : {"mark", "last"}
    parts : tuple of HistoryPart
        From the first to the last bar that has an entry price and trigger prices.
    charged : bool
        Whether funding is.
    """

    opened: SeriesFiles
    trigger: Trigger
    parts: tuple[HistoryPart, ...]
    charged: bool

    def grid(self, part: HistoryPart) -> Grid:
        """The bars of a part and of the windows of its entries, equal to those of the whole grid."""
        start, until = part.start_ms, part.until_ms
        try:
            history = self.opened.history(start, until, READ)
        except NoBars:  # the part lies in a gap
            step, kinds = self.opened.interval_ms, self.opened.kinds
            missing = {"close": np.full((until - start) // step, np.nan)}
            history = PriceHistory(self.opened.symbol, step, start, missing, series=kinds)
        return grid_over(history, self.trigger, start, until, first=part.first, funding=self.charged)


def open_chunked(
    config: Config, source: HistorySource, scenarios: Sequence[Scenario], most_bars: int | None
) -> ChunkedHistory | None:
    """Open a history to be read in parts of at most `most_bars` bars; None if it is read whole.

    Raises
    ------
    DataError, RuleError
        As of a history that is read whole.
    """
    if most_bars is None or source.opened is None or needs_whole(config):
        return None
    opened, step, (low, high) = source.opened(), source.interval_ms, open_time_range(config.data)
    if opened.span is None:
        return None
    start, end = opened.span[0], opened.span[1] + step
    start = start if low is None else max(start, -(-low // step) * step)
    end = end if high is None else min(end, high)
    reach = max(horizon_bars(config.sweep, step))
    own = own_bars(most_bars, reach)
    if (end - start) // step <= own or opened.has_value("maintenance_scale"):
        return None
    refuse_lacking_in(config, source.symbol, start, opened.has_value)
    trigger, first, last = _ends(opened, config.data.trigger, start, end)
    refuse_early(source.symbol, first, scenarios)
    size = own * step
    edges = [first, *range(first // (CHUNK_BARS * step) * CHUNK_BARS * step + size, last + step, size), last + step]
    return ChunkedHistory(
        opened,
        trigger,
        tuple(
            HistoryPart(a, b, min(b + reach * step, last + step), a == first) for a, b in pairwise(dict.fromkeys(edges))
        ),
        is_charged(config),
    )


def own_bars(most_bars: int, reach_bars: int) -> int:
    """Bars of a part without those that only its windows reach: whole chunks, at least one.

    Longer parts are no faster, and arrays that are made again and again stay small; but what windows reach is read
    twice, so that it should be a small part.
    """
    own = min(most_bars - reach_bars, max(LONG_BARS, 8 * reach_bars))
    return max(1, own // CHUNK_BARS) * CHUNK_BARS


def needs_whole(config: Config) -> bool:
    """Whether a verdict or a label depends on bars before the entry, or on the whole history."""
    sweep, margin = config.sweep, config.margin
    asked = (config.entries.file, margin.expiry, margin.maintenance_scale)
    moving = any(weight.target is not None for weight in sweep.weight)
    return any(x is not None for x in asked) or moving or bool(sweep.portfolio or config.statistics.regimes)


def _ends(opened: SeriesFiles, trigger: Trigger | None, start: int, end: int) -> tuple[Trigger, int, int]:
    """The trigger, and the first and the last bar with its prices and an entry price."""
    step = opened.interval_ms

    def ready(low: int) -> tuple[Trigger, list[int]]:
        try:
            history = opened.history(low, min(low + PROBE_BARS * step, end), PRICES)
        except NoBars:
            return trigger or "last", []
        chosen, bars = ready_bars(history, trigger)
        return chosen, [history.start_ms + int(bar) * step for bar in bars[[0, -1] if bars.size else []]]

    probes = range(start, end, PROBE_BARS * step)
    found = next(((chosen, times[0]) for chosen, times in map(ready, probes) if times), None)
    if found is None:
        raise NoBars(
            f"{opened.symbol}: no bar with both an entry price and {trigger or 'trigger'} prices in the range "
            f"asked for; {opened.span_text}"
        )
    return *found, next(times[-1] for _, times in map(ready, reversed(probes)) if times)
