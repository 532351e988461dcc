"""The choice of leverage: the largest one that the evidence supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.errors import ConfigError
from backtest.stats.binomial_interval import attainable_low
from backtest.stats.schema import axis_names
from backtest.units import MS_PER_UNIT, duration_ms

if TYPE_CHECKING:
    import pandas as pd

ECONOMICS = ("return_mean", "growth_mean", "insurance_loss", "growth_leverage", "growth_best")


def choose(
    table: pd.DataFrame,
    present_bars: dict[str, int],
    interval_ms: int,
    *,
    survival: float = 0.95,
    horizon: str | None = None,
    confidence: float = 0.95,
    block_ms: int = 7 * MS_PER_UNIT["d"],
    worst_over: Sequence[str] = (),
) -> pd.DataFrame:
    """Per scenario and horizon, the largest leverage that meets the target with all lower ones of the grid.

    Parameters
    ----------
    table : DataFrame
        Columns of ``survival.parquet``, bounds at `confidence`.
    present_bars : dict of str to int
        Bars with trigger prices, per symbol.
    interval_ms : int
        Length of a bar.
    survival : float
        Target for ``survival_low``.
    horizon : str, optional
        One duration of the run; default: each.
    confidence : float
        Level of the bounds in `table`.
    block_ms : int
        Length of a calendar block.
    worst_over : sequence of str
        Axes whose worst case counts, such as ``["funding", "side"]``; they are null in what is returned.

    Returns
    -------
    DataFrame
        Scenario columns, ``horizon, leverage`` (NaN where no leverage meets the target), its ``survival,
        survival_low, survival_high, few_blocks``, and ``attainable``, the largest ``survival_low`` that the history
        can show at all. ``next_leverage, next_survival, next_survival_low`` are those of the next step of the grid:
        what one more would have cost. Where trades have leverages of their own there is none to choose: it is NaN, and
        the survival columns are those of the trades.

    Raises
    ------
    ConfigError
        If the target is not within (0, 1), the horizon not of the run, or there is no such axis.
    """
    import pandas as pd

    if not 0 < survival < 1:
        raise ConfigError(f"survival must lie between 0 and 1, such as 0.95; got {survival:g}")
    table = filter_horizon(table, horizon)
    if worst_over:
        table = worst_case(table, worst_over)
    axes = [*axis_names(table.columns), "horizon"]
    rows = []
    for key, part in table.groupby(axes, sort=False, dropna=False):
        ordered = part.sort_values("leverage")
        best, step = _best(ordered, survival)
        most = ordered.iloc[int(ordered["entries"].to_numpy().argmax())]
        attainable = most.get("attainable")
        if attainable is None:  # of a regime it comes with the table
            attainable = attainable_low(
                int(most["entries"]),
                duration_ms(str(most["horizon"])) // interval_ms,
                block_ms // interval_ms,
                present_bars[str(most["symbol"])],
                MS_PER_UNIT["d"] / interval_ms,
                confidence,
            )
        row: dict[str, object] = dict(zip(axes, key, strict=True))
        for name in ("leverage", "survival", "survival_low", "survival_high"):
            row[name] = np.nan if best is None else best[name]
        row["few_blocks"] = bool((most if best is None else best)["few_blocks"])
        row["attainable"] = attainable
        for name in ("leverage", "survival", "survival_low"):
            row[f"next_{name}"] = np.nan if step is None else step[name]
        rows.append(row)
    out = pd.DataFrame(rows)
    out.attrs = {"survival": survival, "confidence": confidence}
    return out


def with_economics(choices: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Choices with the return of the chosen leverage, and the leverage at which the bankroll grew most.

    Parameters
    ----------
    choices : DataFrame
        As `choose` returns it, of every axis.
    outcomes : DataFrame
        ``outcomes.parquet``.

    Returns
    -------
    DataFrame
        With, per entry and in initial margins, ``return_mean`` (net of fees, funding and liquidation), ``growth_mean``
        (log growth of a bankroll that puts up ``statistics.bankroll_fraction`` of itself as margin) and
        ``insurance_loss`` (paid by the fund); ``growth_leverage``, the leverage with the greatest growth among those
        that meet the target, NaN where growth is above 0 at none of them, and its ``growth_best``.
    """
    import pandas as pd

    axes = [*axis_names(outcomes.columns), "horizon"]
    earned = outcomes[[*axes, "leverage", "return_mean", "growth_mean"]].assign(
        insurance_loss=outcomes["insurance_loss"] / outcomes["entries"].where(outcomes["entries"] > 0)
    )
    rows = []
    for choice in choices.to_dict("records"):
        part = earned
        for name in axes:
            same = part[name].isna() if pd.isna(choice[name]) else part[name] == choice[name]
            part = part[same]
        chosen = part[(part["leverage"] == choice["leverage"]) | part["leverage"].isna()]
        row = dict.fromkeys(ECONOMICS, np.nan)
        if len(chosen):
            row |= {name: float(chosen.iloc[0][name]) for name in ("return_mean", "growth_mean", "insurance_loss")}
        meets = part[part["leverage"] <= choice["leverage"]]
        best = meets["growth_mean"].max()
        if best > 0:
            row |= {
                "growth_leverage": float(meets["leverage"][meets["growth_mean"].idxmax()]),
                "growth_best": float(best),
            }
        rows.append(row)
    out = pd.concat([choices, pd.DataFrame(rows, index=choices.index)], axis=1)
    out.attrs = choices.attrs
    return out


def filter_horizon(table: pd.DataFrame, horizon: str | None) -> pd.DataFrame:
    """The rows of one horizon, matched by duration; all of them for None."""
    if horizon is None:
        return table
    wanted, known = duration_ms(horizon), list(dict.fromkeys(table["horizon"]))
    found: pd.DataFrame = table[[duration_ms(text) == wanted for text in table["horizon"]]]
    if found.empty:
        raise ConfigError(f"horizon must be one of {', '.join(known)} in this run; got {horizon!r}")
    return found


def _best(ordered: pd.DataFrame, survival: float) -> tuple[pd.Series[Any] | None, pd.Series[Any] | None]:
    """The row of the largest leverage that meets the target with all lower ones, and the next; of own ones the only."""
    if ordered["leverage"].isna().all():
        return ordered.iloc[0], None
    meets = ((ordered["survival_low"] >= survival) & (ordered["entries"] > 0)).to_numpy()
    count = int(meets.size if meets.all() else np.argmin(meets))
    return ordered.iloc[count - 1] if count else None, ordered.iloc[count] if count < meets.size else None


def worst_case(table: pd.DataFrame, over: Sequence[str]) -> pd.DataFrame:
    """Of the rows that differ in these axes only, the one with the least ``survival_low``; the axes become null.

    A row without entries is worse than any: it shows nothing.

    over : sequence of str
        Scenario columns but the symbol; ``"funding"`` is both of its columns.
    """
    known = axis_names(table.columns)[1:]
    names = [name for axis in over for name in (("funding_scale", "funding_shift") if axis == "funding" else (axis,))]
    for name in names:
        if name not in known:
            raise ConfigError(f"worst_over must hold axes of the run: {', '.join(known)} or funding; got {name!r}")
    low = table["survival_low"].where(table["entries"] > 0, -1.0).fillna(-1.0)
    rest = ["symbol", *(name for name in known if name not in names), "horizon", "leverage"]
    ordered = table.assign(_low=low).sort_values("_low", kind="stable")
    worst = ordered.groupby(rest, sort=False, dropna=False).head(1).sort_index().drop(columns="_low")
    return worst.assign(**{name: None if worst[name].dtype == object else np.nan for name in names})
