"""How survival depends on the bars and prices that it is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backtest.config.models import Data, Entries, Margin, Statistics, Sweep
from backtest.data.history import PriceHistory, Trigger
from backtest.data.resample import resample
from backtest.errors import ConfigError
from backtest.runs.run import run
from backtest.units import duration_ms, duration_text, instant_text

if TYPE_CHECKING:
    import pandas as pd

INTERVALS = ("5m", "15m", "1h")
TRIGGERS: tuple[Trigger, ...] = ("mark", "last")


def sensitivity(
    history: PriceHistory,
    sweep: Sweep,
    intervals: Sequence[str] = INTERVALS,
    triggers: Sequence[Trigger] = TRIGGERS,
    *,
    data: Data | None = None,
    entries: Entries | None = None,
    margin: Margin | None = None,
    statistics: Statistics | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Survival of the same scenarios at several bar lengths and triggers, all made from one history.

    Coarser bars are made of the finer ones exactly (`backtest.data.resample`), and all look at the span that the
    coarsest bars cover, unless `data` names another.

    **What is comparable.** Between triggers of one interval the entries are the same where both price series are known
    throughout. Between intervals they are not: a position is opened at the close of its bar, which is 5 minutes after
    its open time on 5-minute bars and an hour after it on hourly ones. Entries are therefore those whose bar opens at
    multiples of the coarsest interval (`entries.every`), so that they are as many as they can be, but for windows that
    just do or do not fit at the end; they are entered at other prices, and their windows begin and end by less than the
    coarsest interval apart. What remains is that difference of samples, and what a bar hides: funding falls at the
    open of its bar, and the extreme of a coarse entry bar is not at risk, while that of a finer one after it is.

    Parameters
    ----------
    history : PriceHistory
        Bars at least as short as the shortest interval.
    sweep : Sweep
        Horizons must be multiples of the coarsest interval.
    intervals : sequence of str
        Multiples of the history's, different ones.
    triggers : sequence of {"mark", "last"}
    data, entries, margin, statistics, workers : optional
        As of `backtest.run`; `triggers` stands in the place of ``data.trigger``.

    Returns
    -------
    DataFrame
        As `Result.table`, with the columns ``interval`` and ``trigger`` after ``leverage``; the rows of one scenario,
        horizon and leverage stand next to each other.

    Raises
    ------
    ConfigError
        If there are policies or portfolios, or an interval is none of the history's multiples.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> price = 100 + np.sin(np.arange(2400.0) / 9)
    >>> bars = {"high": price + 0.2, "low": price - 0.2, "close": price}
    >>> history = bt.PriceHistory("WAVE", 300_000, 0, bars)
    >>> sweep = bt.Sweep(side=["long"], leverage=[50, 100], horizon=["1h"], maintenance=[0.004])
    >>> found = bt.sensitivity(history, sweep, ["5m", "1h"], ["last"])
    >>> found.pivot(index="leverage", columns=["trigger", "interval"], values="liquidations").to_numpy().tolist()
    [[0, 0], [78, 82]]
    """
    import pandas as pd

    for axis, kind in (("portfolio", "single positions"), ("policy", "static rules only")):
        if getattr(sweep, axis):
            raise ConfigError(f"sweep.{axis}: bar lengths are compared for {kind}; leave it out")
    if data is not None and data.trigger is not None:
        raise ConfigError(f"data.trigger: name it in triggers, which are compared; got {data.trigger!r}")
    for name, values in (("intervals", [duration_ms(text) for text in intervals]), ("triggers", list(triggers))):
        if not values or len(set(values)) < len(values):
            got = ", ".join(intervals if name == "intervals" else triggers) or "none"
            raise ConfigError(f"{name} must be given, each once; got {got}")
    coarsest = max(intervals, key=duration_ms)
    made = {text: resample(history, text) for text in intervals}
    chosen = entries or Entries()
    if chosen.every is None and chosen.file is None:
        chosen = chosen.model_copy(update={"every": duration_text(duration_ms(coarsest))})
    cut = _within(made[coarsest], data or Data())
    found = []
    for interval, bars in made.items():
        for trigger in triggers:
            seen = cut.model_copy(update={"trigger": trigger, "interval": None})
            found_run = run(
                bars, sweep, data=seen, entries=chosen, margin=margin, statistics=statistics, workers=workers
            )
            table = found_run.table
            place = int(table.columns.get_loc("leverage")) + 1  # type: ignore[arg-type]
            table.insert(place, "interval", interval)
            table.insert(place + 1, "trigger", trigger)
            found.append(table)
    out = pd.concat(found).sort_index(kind="stable").reset_index(drop=True)
    out.attrs = dict(found[0].attrs)
    return out


def _within(coarse: PriceHistory, data: Data) -> Data:
    """The range asked for, else that of the coarsest bars."""
    start, end = coarse.start_ms, coarse.start_ms + coarse.n_bars * coarse.interval_ms
    return data.model_copy(update={"start": data.start or instant_text(start), "end": data.end or instant_text(end)})
