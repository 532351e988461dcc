"""Walk-forward: choose on a past window, hold on the next, over the whole history and over resampled ones.

What is decided at the start of a calendar block knows no outcome early: of the past window the last
``ceil(horizon / block)`` blocks are left out, as windows of entries in them end after the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from backtest.analysis.block_counts import Counts, Plan, block_span, planned, rates, scenarios
from backtest.arrays import Float, Int
from backtest.errors import ConfigError
from backtest.runs.result import Result
from backtest.stats.bootstrap import FEWEST_BLOCKS, draws, mean_length
from backtest.stats.survival_table import SurvivalTable, estimate
from backtest.units import duration_text

if TYPE_CHECKING:
    import pandas as pd


QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)


def walk_forward(
    result: Result,
    *,
    horizon: str,
    survival: float | Sequence[float] = 0.95,
    past: str = "104w",
    ahead: str = "13w",
    confidence: float | None = None,
) -> pd.DataFrame:
    """What choosing on the past would have been worth: promised and realised survival, window after window.

    At the start of a calendar block the leverage is chosen on the entries of the `past` before it, by the rule of
    `Result.choose`; it is then held for every entry of the time `ahead`, at whose end the next choice is made.
    Entries of the last ``ceil(horizon / block)`` blocks before the decision are left out, so that no outcome is known
    early. Of the whole history only the share of bars present, which scales the span of a window, is used before its
    end.

    Parameters
    ----------
    result : Result
    horizon : str
        One of the run.
    survival : float or sequence of float
        Target for the lower bound, or several of them.
    past, ahead : str
        Multiples of the run's ``statistics.block``.
    confidence : float, optional
        Level of the bounds; default: the run's.

    Returns
    -------
    DataFrame
        A row per scenario, target and step: scenario columns, ``horizon, target, step, past_from, decided, until``,
        ``leverage`` (NaN where none met the target: nothing is held), ``past_survival, promised`` (the lower bound on
        the past) and ``past_few_blocks``; ``entries`` ahead, their ``realised`` survival with ``realised_low,
        realised_high, realised_few_blocks``, ``met`` (realised ≥ target; null where nothing was held) and ``refuted``
        (also the upper bound is below the target). The last step may be shorter. ``attrs["left_out"]`` names the
        symbols whose history is too short.

    Raises
    ------
    ConfigError
        If the durations fit neither the run nor each other, or trades have leverages of their own.
    """
    import pandas as pd

    plan = planned(result, horizon, survival, past, ahead, confidence)
    assert plan.past is not None
    rows: list[dict[str, object]] = []
    left_out: dict[str, int] = {}
    for one in scenarios(result, plan):
        if one.n_blocks <= plan.past:
            left_out[one.where.symbol] = one.n_blocks
            continue
        rows += _steps(one, plan, plan.past)
    if not rows:
        have = ", ".join(f"{symbol} {n}" for symbol, n in left_out.items())
        raise ConfigError(
            f"past {past!r} is {plan.past} blocks of {duration_text(plan.block_ms)} and leaves none ahead; "
            f"blocks with entries at {plan.horizon}: {have}"
        )
    out = pd.DataFrame(rows)
    out["met"] = out["met"].astype("boolean")
    out.attrs = {"confidence": plan.confidence, "past": past, "ahead": ahead, "left_out": list(left_out)}
    return out


def _steps(one: Counts, plan: Plan, past: int) -> Iterator[dict[str, object]]:
    """Rows of one scenario."""
    import pandas as pd

    moments = np.arange(past, one.n_blocks, plan.ahead)
    ends = np.minimum(moments + plan.ahead, one.n_blocks)
    before = rates(one, plan, moments - past, moments - plan.gap)
    after = rates(one, plan, moments, ends)
    stamp = partial(pd.Timestamp, unit="ms", tz="UTC")
    nan = float("nan")
    for target in plan.targets:
        chosen = _chosen(before.low, before.entries, target)
        for step, (moment, end, at) in enumerate(zip(moments, ends, chosen, strict=True)):
            held = at >= 0
            here = (step, at)
            low, high = float(after.low[here]), float(after.high[here])
            realised = float(after.survival[here]) if held else nan
            yield {
                "symbol": one.where.symbol,
                **one.where.scenario,
                "horizon": plan.horizon,
                "target": target,
                "step": step,
                "past_from": stamp((one.first_block + int(moment) - past) * plan.block_ms),
                "decided": stamp((one.first_block + int(moment)) * plan.block_ms),
                "until": stamp((one.first_block + int(end)) * plan.block_ms),
                "leverage": float(one.leverage[at]) if held else nan,
                "past_survival": float(before.survival[here]) if held else nan,
                "promised": float(before.low[here]) if held else nan,
                "past_few_blocks": bool(before.few_blocks[here]),
                "entries": int(after.entries[here]) if held else 0,
                "realised": realised,
                "realised_low": low if held else nan,
                "realised_high": high if held else nan,
                "realised_few_blocks": bool(after.few_blocks[here]),
                "met": None if np.isnan(realised) else realised >= target,
                "refuted": held and high < target,
            }


def _chosen(low: Float, entries: Int, target: float) -> Int:
    """Column of the largest leverage that meets the target with all lower ones, −1 where none does: (n_rows,)."""
    meets = (low >= target) & (entries > 0)
    count: Int = np.logical_and.accumulate(meets, axis=-1).sum(axis=-1)
    return count - 1


def calibration(frame: pd.DataFrame, bins: int = 5) -> pd.DataFrame:
    """Promised against realised survival, by bins of what was promised, equally filled.

    Parameters
    ----------
    frame : DataFrame
        As of `walk_forward`, all of it or some scenarios; frames of several targets may be put together.
    bins : int
        Fewer where many promises are equal.

    Returns
    -------
    DataFrame
        ``promised_from, promised_to, steps``, the means ``promised`` (lower bound), ``past_survival`` and
        ``realised``, ``realised_min, realised_max``, and the share of steps ``kept`` (realised ≥ promised), ``met``
        (realised ≥ target) and ``refuted``. Steps of scenarios of one symbol share their weeks: they are not so many
        independent trials.
    """
    import pandas as pd

    if bins < 1:
        raise ConfigError(f"bins must be at least 1; got {bins}")
    held = frame[frame["realised"].notna()].reset_index(drop=True)
    if held.empty:
        raise ConfigError("no leverage was held in any step: none met the target on its past, or had entries ahead")
    edges = np.unique(np.quantile(held["promised"], np.linspace(0, 1, bins + 1)))
    number = np.clip(np.searchsorted(edges, held["promised"], side="right") - 1, 0, max(0, edges.size - 2))
    held = held.assign(kept=held["realised"] >= held["promised"], met=held["met"].astype(bool))
    grouped = held.groupby(number, sort=True)
    out = pd.DataFrame(
        {
            "promised_from": grouped["promised"].min(),
            "promised_to": grouped["promised"].max(),
            "steps": grouped.size(),
            **{name: grouped[name].mean() for name in ("promised", "past_survival", "realised")},
            "realised_min": grouped["realised"].min(),
            "realised_max": grouped["realised"].max(),
            **{name: grouped[name].mean() for name in ("kept", "met", "refuted")},
        }
    )
    return out.reset_index(drop=True)


def resampled_choices(
    result: Result,
    *,
    horizon: str,
    survival: float | Sequence[float] = 0.95,
    past: str | None = None,
    ahead: str = "13w",
    confidence: float | None = None,
    quantiles: Sequence[float] = QUANTILES,
    replications: int | None = None,
) -> pd.DataFrame:
    """How the chosen leverage varies over resampled histories, and the survival that followed each choice.

    Histories are resampled by a stationary block bootstrap over calendar blocks, from ``statistics.seed``; all
    scenarios of a symbol see the same ones. In each the leverage is chosen on the past and
    held on the blocks that follow it, as in `walk_forward`. What no block of the history holds, no resampled one does;
    and what is slower than its stretches (`backtest.stats.bootstrap.mean_length`) is broken up, which makes the lower
    bound on a resampled past somewhat higher: the leverages chosen there lie around ``chosen`` or a little above it.

    Parameters
    ----------
    result, horizon, survival, ahead, confidence
        As of `walk_forward`.
    past : str, optional
        Default: as long as the history.
    quantiles : sequence of float
        Within [0, 1].
    replications : int, optional
        Number of resampled histories, at least 1; default: ``statistics.replications`` of the run.

    Returns
    -------
    DataFrame
        A row per scenario, target and quantile: scenario columns, ``horizon, target, chosen`` (on the history as it
        was, all of it), ``none`` (share of resampled histories in which no leverage met the target), ``met`` (share
        of those that held one whose survival ahead met the target), ``few_blocks`` (fewer than ten: nothing is
        resampled, ``none`` is NaN), ``quantile, leverage`` (the smallest chosen that this share of histories does not
        exceed; NaN where that is none) and ``realised`` (quantile of the survival ahead, where one was held).
    """
    import pandas as pd

    plan = planned(result, horizon, survival, past, ahead, confidence)
    if not quantiles or not all(0 <= q <= 1 for q in quantiles):
        raise ConfigError(f"quantiles must lie within 0 and 1; got {list(quantiles)}")
    statistics = result.info["config"]["statistics"]
    seed = int(statistics["seed"])
    replications = int(statistics["replications"]) if replications is None else replications
    if replications < 1:
        raise ConfigError(f"replications must be ≥ 1; got {replications}")
    rows: list[dict[str, object]] = []
    for one in scenarios(result, plan):
        whole = rates(one, plan, np.array([0]), np.array([one.n_blocks]))
        for target in plan.targets:
            at = int(_chosen(whole.low, whole.entries, target)[0])
            few = one.n_blocks < FEWEST_BLOCKS
            leverage, realised = np.zeros(1), np.full(1, np.nan)
            if not few:
                leverage, realised = _replicated(one, plan, target, replications, seed)
            held = ~np.isnan(realised)
            row = {
                "symbol": one.where.symbol,
                **one.where.scenario,
                "horizon": plan.horizon,
                "target": target,
                "chosen": float(one.leverage[at]) if at >= 0 else float("nan"),
                "none": float("nan") if few else float((leverage == 0).mean()),
                "met": float((realised[held] >= target).mean()) if held.any() else float("nan"),
                "few_blocks": few,
            }
            for q in quantiles:
                largest = float(np.quantile(leverage, q, method="inverted_cdf"))
                rate = float(np.quantile(realised[held], q, method="inverted_cdf")) if held.any() else float("nan")
                rows.append({**row, "quantile": float(q), "leverage": largest or float("nan"), "realised": rate})
    out = pd.DataFrame(rows)
    out.attrs = {"confidence": plan.confidence, "replications": replications, "seed": seed}
    return out


def _replicated(one: Counts, plan: Plan, target: float, replications: int, seed: int) -> tuple[Float, Float]:
    """Chosen leverage (0: none) and survival ahead (NaN: nothing held) of each resampled history."""
    known = one.n_blocks if plan.past is None else plan.past - plan.gap
    past = known + plan.gap
    mean = mean_length(one.n_blocks, plan.bars / plan.block)
    chosen, realised = [], []
    for index in draws(one.n_blocks, past + plan.ahead, mean, replications, seed):
        count = _climbed(one, plan, target, index[:, :known])
        ahead = index[:, past:]
        rate = np.full(len(index), np.nan)
        for at in np.unique(count[count > 0]):
            rows = np.flatnonzero(count == at)
            table = SurvivalTable(one.counts[:, at - 1], 0)
            entries, dead = (table[name][ahead[rows]].sum(axis=1) for name in ("entries", "liquidations"))
            rate[rows] = np.where(entries > 0, 1 - dead / np.maximum(entries, 1), np.nan)
        chosen.append(np.concatenate([[0.0], one.leverage])[count])
        realised.append(rate)
    return np.concatenate(chosen), np.concatenate(realised)


def _climbed(one: Counts, plan: Plan, target: float, index: Int) -> Int:
    """How many leverages meet the target from the lowest on, in each resampled past; each is asked as far as it goes.

    index : (n, n_blocks) of the past
    """
    count = np.zeros(len(index), np.int64)
    climbing = np.arange(len(index))
    span = block_span(one, plan, index.shape[1])
    for at in range(one.leverage.size):
        counts = one.counts[:, at][:, index[climbing]]
        found = estimate(SurvivalTable(counts[:, :, None, None], 0), span, plan.confidence)
        meets = (found.low >= target) & (found.counts["entries"] > 0)
        climbing = climbing[meets[:, 0, 0]]
        if not climbing.size:
            break
        count[climbing] += 1
    return count
