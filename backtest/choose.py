"""The choice of leverage: the largest one that the evidence supports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.columns import axes_fields
from backtest.errors import ConfigError
from backtest.intervals import attainable_low
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd


def choose(
    table: pd.DataFrame,
    present_bars: dict[str, int],
    interval_ms: int,
    *,
    survival: float = 0.95,
    horizon: str | None = None,
    confidence: float = 0.95,
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

    Returns
    -------
    DataFrame
        Scenario columns, ``horizon, leverage`` (NaN where no leverage meets the target), its ``survival,
        survival_low, survival_high, few_blocks``, and ``attainable``, the largest ``survival_low`` that the history
        can show at all. Where trades have leverages of their own there is none to choose: it is NaN, and the survival
        columns are those of the trades.

    Raises
    ------
    ConfigError
        If the target is not within (0, 1) or the horizon is not of the run.
    """
    import pandas as pd

    if not 0 < survival < 1:
        raise ConfigError(f"survival must lie between 0 and 1, such as 0.95; got {survival:g}")
    if horizon is not None:
        wanted, known = duration_ms(horizon), list(dict.fromkeys(table["horizon"]))
        table = table[[duration_ms(text) == wanted for text in table["horizon"]]]
        if table.empty:
            raise ConfigError(f"horizon must be one of {', '.join(known)} in this run; got {horizon!r}")
    axes = [*(field.name for field in axes_fields(table.columns)), "horizon"]
    rows = []
    for key, part in table.groupby(axes, sort=False, dropna=False):
        ordered = part.sort_values("leverage")
        best, most = _best(ordered, survival), ordered.iloc[int(ordered["entries"].to_numpy().argmax())]
        attainable = attainable_low(
            int(most["entries"]),
            duration_ms(str(most["horizon"])) // interval_ms,
            present_bars[str(most["symbol"])],
            bool(most["few_blocks"]),
            confidence,
        )
        row: dict[str, object] = dict(zip(axes, key, strict=True))
        for name in ("leverage", "survival", "survival_low", "survival_high"):
            row[name] = np.nan if best is None else best[name]
        row["few_blocks"] = bool((most if best is None else best)["few_blocks"])
        row["attainable"] = attainable
        rows.append(row)
    out = pd.DataFrame(rows)
    out.attrs = {"survival": survival, "confidence": confidence}
    return out


def _best(ordered: pd.DataFrame, survival: float) -> pd.Series[Any] | None:
    """The row of the largest leverage that meets the target with all lower ones; the only row of trades' own."""
    if ordered["leverage"].isna().all():
        return ordered.iloc[0]
    meets = ((ordered["survival_low"] >= survival) & (ordered["entries"] > 0)).to_numpy()
    count = int(meets.size if meets.all() else np.argmin(meets))
    return ordered.iloc[count - 1] if count else None
