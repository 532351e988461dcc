"""Survival in pictures.

Each function draws one scenario of a run's table and returns the Axes. Without an `ax` it makes a Figure of its own,
outside pyplot's state; ``.figure`` shows or saves it. The background is transparent and the ink a middle grey, which
read alike on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from backtest.errors import ConfigError
from backtest.report.labels import scenario_words
from backtest.report.plots.calibration import plot_calibration
from backtest.report.plots.comparison import plot_compared
from backtest.report.plots.liquidation_days import plot_days
from backtest.report.plots.policies import plot_policies
from backtest.report.plots.portfolio_band import plot_band
from backtest.report.plots.regimes import at_leverage, plot_regimes
from backtest.report.plots.required_margin import plot_required
from backtest.report.plots.survival import plot_curves, plot_heatmap, plot_leverage, plot_required_margin
from backtest.report.scenario_selection import Funding, ScenarioKeys, horizons, select

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "Funding",
    "Plots",
    "plot_band",
    "plot_calibration",
    "plot_compared",
    "plot_curves",
    "plot_days",
    "plot_heatmap",
    "plot_leverage",
    "plot_policies",
    "plot_regimes",
    "plot_required",
    "plot_required_margin",
    "scenario_words",
    "select",
]


Arguments = ParamSpec("Arguments")


def _of_table(
    draw: Callable[Concatenate[pd.DataFrame, Arguments], Axes],
) -> Callable[Concatenate[Plots, Arguments], Axes]:
    """A plot of a table as a method, with its signature and docstring."""

    @wraps(draw)
    def method(self: Plots, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Axes:
        return draw(self.table, *args, **kwargs)

    return method


@dataclass(frozen=True)
class Plots:
    """The pictures of one run: ``result.plot.heatmap(side="short")``.

    The keywords ``**scenario`` are those of `ScenarioKeys`: `symbol`, `side`, `maintenance`, `open_fee`, `funding`,
    `size`, `weight`, `policy`, `verdict`; the first of each axis by default.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    outcomes : DataFrame, optional
        The columns of ``outcomes.parquet``, where the run has them.
    by_regime : callable, optional
        `Result.regimes`.
    """

    table: pd.DataFrame
    outcomes: pd.DataFrame | None = None
    by_regime: Callable[[str | None, str | None], pd.DataFrame] | None = None

    leverage = _of_table(plot_leverage)
    heatmap = _of_table(plot_heatmap)
    curves = _of_table(plot_curves)
    required_margin = _of_table(plot_required_margin)
    band = _of_table(plot_band)
    compared = _of_table(plot_compared)

    def regimes(
        self,
        by: str | None = None,
        *,
        horizon: str | None = None,
        leverage: float | None = None,
        ax: Axes | None = None,
        **scenario: Unpack[ScenarioKeys],
    ) -> Axes:
        """Survival by regime at one horizon, the longest by default: see `plot_regimes`.

        Parameters
        ----------
        by : str, optional
            One of the regimes of the run; may be left out where there is one.
        leverage : float, optional
            One of the run's; the usual ones by default.
        """
        if self.by_regime is None:
            raise ConfigError("a table has no regimes; ask a run for them: result.plot.regimes(…)")
        frame = self.by_regime(by, horizon or list(horizons(self.table))[-1])
        return plot_regimes(at_leverage(frame, leverage), ax=ax, **scenario)

    def policies(self, *, horizon: str | None = None, ax: Axes | None = None, **scenario: Unpack[ScenarioKeys]) -> Axes:
        """Survival and mean return against leverage, one curve per policy: see `plot_policies`."""
        if self.outcomes is None:
            raise ConfigError("outcomes were not counted; ask for them with statistics.outcomes = true or sweep.policy")
        return plot_policies(self.outcomes, horizon=horizon, ax=ax, **scenario)
