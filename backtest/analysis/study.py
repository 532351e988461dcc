"""`Study`: one object that holds histories and a sweep, with every question that can be asked of them as a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backtest.analysis import events, liquidation_days, required_margin, returns, sensitivity, worst_days
from backtest.analysis.study_inputs import StudyInputs
from backtest.config.models import Config
from backtest.data.history import PriceHistory, Trigger
from backtest.errors import ConfigError
from backtest.report.html.worst_days import Worst
from backtest.runs.estimate import Estimate, estimate_run
from backtest.runs.executors import worker_count
from backtest.runs.result import Result
from backtest.runs.run import run

if TYPE_CHECKING:
    import pandas as pd


class Study(StudyInputs):
    """Histories and a sweep; each method asks them one question.

    Each method is described at the function of the same name: ``study.returns(workers=2)`` is
    ``backtest.returns(study, workers=2)``.

    Parameters
    ----------
    source, sweep, data, entries, margin, statistics
        As of `backtest.run`; `source` may also be a `Config`.

    Examples
    --------
    >>> import numpy as np
    >>> import backtest as bt
    >>> price = 100 + np.sin(np.arange(500.0))
    >>> bars = {"high": price + 1, "low": price - 1, "close": price}
    >>> history = bt.PriceHistory("WAVE", 3_600_000, 0, bars)
    >>> study = bt.Study(history, bt.Sweep(leverage=[10, 50], horizon=["1d"], maintenance=[0.005], side=["long"]))
    >>> study.run().survival()["1d"].round(3).tolist()
    [1.0, 0.334]
    >>> study.required_margin(quantiles=[1.0])["leverage"].round(2).tolist()
    [28.94]
    """

    def run(
        self,
        out: str | Path | None = None,
        *,
        workers: int | str | None = None,
        scheduler: str | None = None,
        memory: str | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Result:
        """Count every scenario over every entry, as `backtest.run`."""
        tables = self.source if isinstance(self.source, Config) else self
        return run(
            self.histories,
            tables.sweep,
            data=tables.data,
            entries=tables.entries,
            margin=tables.margin,
            statistics=tables.statistics,
            out=out,
            workers=workers,
            scheduler=scheduler,
            memory=memory,
            overwrite=overwrite,
            resume=resume,
        )

    def estimate(self, workers: int | None = None) -> Estimate:
        """Tasks, memory, time and disk that `run` will take, as `backtest.estimate_run`; needs a dataset."""
        if self.config.data.path is None:
            raise ConfigError("an estimate is made from the files of a dataset; give its path instead of histories")
        return estimate_run(self.config, worker_count(workers))

    def events(self, where: str | None = None) -> pd.DataFrame:
        """One row per entry and scenario, as `backtest.events`."""
        return events.events(self, where=where)

    def write_events(
        self, out: str | Path, where: str | None = None, *, everything: bool = False, overwrite: bool = False
    ) -> int:
        """Write the events to a file and count the rows, as `backtest.write_events`."""
        return events.write_events(self, out, where, everything=everything, overwrite=overwrite)

    def returns(
        self,
        leverage: Sequence[float] | None = None,
        quantiles: Sequence[float] = returns.QUANTILES,
        bankroll_fraction: float = 0.1,
        workers: int | None = None,
    ) -> pd.DataFrame:
        """Distribution of the return on margin, as `backtest.returns`."""
        return returns.returns(
            self, leverage=leverage, quantiles=quantiles, bankroll_fraction=bankroll_fraction, workers=workers
        )

    def required_margin(
        self, quantiles: Sequence[float] = required_margin.QUANTILES, workers: int | None = None
    ) -> pd.DataFrame:
        """Required margin rates and critical leverages, as `backtest.required_margin`."""
        return required_margin.required_margin(self, quantiles=quantiles, workers=workers)

    def liquidation_days(self, horizon: str | None = None, where: str | None = None) -> pd.DataFrame:
        """Liquidations per day, as `backtest.liquidation_days`."""
        return liquidation_days.liquidation_days(self, horizon=horizon, where=where)

    def liquidation_episodes(
        self, leverage: float | None = None, horizon: str | None = None, where: str | None = None
    ) -> pd.DataFrame:
        """Episodes with the most liquidations, as `backtest.liquidation_episodes`."""
        return liquidation_days.liquidation_episodes(self, leverage=leverage, horizon=horizon, where=where)

    def worst_days(self, result: Result, survival: float = 0.95) -> Worst:
        """The worst days of a run of this study, for its report, as `backtest.worst_days`."""
        histories = None if isinstance(self.source, str | Path | Config) else self.source
        return worst_days.worst_days(result, survival, histories)

    def sensitivity(
        self,
        intervals: Sequence[str] = sensitivity.INTERVALS,
        triggers: Sequence[Trigger] = sensitivity.TRIGGERS,
        workers: int | None = None,
    ) -> pd.DataFrame:
        """Survival at several bar lengths and triggers, as `backtest.sensitivity`; needs one history in memory."""
        if not isinstance(self.source, PriceHistory) or self.sweep is None:
            raise ConfigError("bar lengths are compared of one history; read it with backtest.read_history")
        return sensitivity.sensitivity(
            self.source,
            self.sweep,
            intervals,
            triggers,
            data=self.data,
            entries=self.entries,
            margin=self.margin,
            statistics=self.statistics,
            workers=workers,
        )
