"""A run, read back: tables, the choice, pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.errors import ConfigError, DataError
from backtest.filesystem import Place, Remote, to_place
from backtest.report.labels import noted
from backtest.runs.count_files import RunCounts, regime_names
from backtest.runs.tables import effective_trials, regime_rows, survival_rows
from backtest.stats.binomial_interval import check_confidence
from backtest.stats.frames import (
    conditional_frame,
    count_columns,
    curve_frame,
    hazard_frame,
    incidence_frame,
    time_frame,
)
from backtest.stats.leverage_choice import choose, filter_horizon, with_economics
from backtest.stats.schema import axis_names
from backtest.units import duration_ms

if TYPE_CHECKING:
    import pandas as pd

    from backtest.report.html.worst_days import Worst
    from backtest.report.notebook_widgets import Explorer
    from backtest.report.plots import Plots


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run.

    Attributes
    ----------
    path : Path
        The run directory, or a copy of it on this machine.
    info : dict
        ``run.json``.

    Examples
    --------
    >>> import backtest as bt
    >>> result = bt.load("runs/demo")                      # doctest: +SKIP
    >>> result.choose(survival=0.95, horizon="7d")         # doctest: +SKIP
    """

    path: Path
    info: dict[str, Any]
    _keep: TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)
    _store: Remote | None = None

    @property
    def place(self) -> Place:
        """Where the run lies: `path`, or a folder of an object store."""
        return self._store or self.path

    @cached_property
    def table(self) -> pd.DataFrame:
        """``survival.parquet`` as a DataFrame, one row per scenario, horizon and leverage."""
        file = self.path / "survival.parquet"
        try:
            frame: pd.DataFrame = pq.read_table(file).to_pandas()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{file}: cannot be read ({error}); run again") from None
        return noted(frame, self.info)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """``outcomes.parquet`` as a DataFrame: how positions ended and what came of them in money.

        Totals over the entries, amounts in initial margins; ``return_mean`` is per entry and net of fees and funding,
        ``policy_cost`` what a policy took from it.
        """
        file = self.path / "outcomes.parquet"
        if not self.has_outcomes:
            raise ConfigError(f"{self.place}: outcomes were not counted; ask for them with statistics.outcomes = true")
        frame: pd.DataFrame = pq.read_table(file).to_pandas()
        return noted(frame, self.info)

    @property
    def has_outcomes(self) -> bool:
        """Whether the run followed positions to what became of them in money."""
        return (self.path / "outcomes.parquet").is_file()

    def survival(self) -> pd.DataFrame:
        """Survival rates: scenario axes and leverage as index, horizons as columns, in the order of the run."""
        axes = axis_names(self.table.columns)
        wide = self.table.set_index([*axes, "leverage", "horizon"])["survival"].unstack("horizon", sort=False)
        return wide[list(self.info["config"]["sweep"]["horizon"])]

    @property
    def counts(self) -> RunCounts:
        """The counts per calendar block that everything here follows from."""
        return RunCounts(self.path, self.info)

    @cached_property
    def _totals(self) -> dict[str, np.ndarray]:
        """Totals over blocks, in the order of the table's rows."""
        return count_columns(table for _, table in self.counts.tables())

    def _level(self, confidence: float | None) -> float:
        """The level of confidence that is asked for; default: the run's."""
        level = self.counts.confidence if confidence is None else confidence
        check_confidence(level)
        return level

    def curves(self, confidence: float | None = None) -> pd.DataFrame:
        """Kaplan–Meier with bounds and effective sample size: see `backtest.stats.frames.curve_frame`.

        confidence : of the bounds; default: the run's.
        """
        level = self._level(confidence)
        return curve_frame(self.table, self._totals, effective_trials(self.counts, level), level)

    def hazard(self) -> pd.DataFrame:
        """Hazard per interval between horizons: see `backtest.stats.frames.hazard_frame`."""
        return hazard_frame(self.table, self._totals)

    def times(self, to: str | None = None) -> pd.DataFrame:
        """Median survival time and restricted mean: see `backtest.stats.frames.time_frame`."""
        return time_frame(self.table, to=to, counts=self._totals)

    def conditional(self, given: str) -> pd.DataFrame:
        """Survival of those alive at a horizon: see `backtest.stats.frames.conditional_frame`."""
        return conditional_frame(self.table, given, self._totals)

    def incidence(self) -> pd.DataFrame:
        """Incidence of competing outcomes and of margin calls: see `backtest.stats.frames.incidence_frame`."""
        return incidence_frame(self.table, self._totals)

    def choose(
        self,
        survival: float = 0.95,
        horizon: str | None = None,
        confidence: float | None = None,
        worst_over: Sequence[str] = (),
        by: str | None = None,
    ) -> pd.DataFrame:
        """The largest leverage such that it and every lower one of the grid have ``survival_low`` ≥ `survival`.

        Parameters
        ----------
        survival : float
            Target for the lower bound.
        horizon : str, optional
            Default: each horizon of the run.
        confidence : float, optional
            Level of the bounds; default: the run's. Another one is computed from ``blocks/``.
        worst_over : sequence of str
            Axes whose worst case counts, such as ``["funding", "side"]``, and ``"regime"`` with `by`.
        by : str, optional
            One of the regimes of the run: a choice for each of its labels.

        Returns
        -------
        DataFrame
            See `backtest.stats.leverage_choice.choose`; where outcomes were counted with the columns of
            `backtest.stats.leverage_choice.with_economics` (not for the worst of several scenarios, nor by regime).
        """
        own = self.counts.confidence
        level = own if confidence is None else confidence
        if by is not None:
            table = self.regimes(by, confidence=level)
        else:
            table = self.table if level == own else self.table_at(level)
        choices = self._choose(table, survival, horizon, level, worst_over)
        earned = self.has_outcomes and by is None and not worst_over
        return with_economics(choices, self.outcomes) if earned else choices

    def _choose(
        self,
        table: pd.DataFrame,
        survival: float,
        horizon: str | None,
        confidence: float,
        worst_over: Sequence[str] = (),
    ) -> pd.DataFrame:
        """The choice among rows with bounds at a level of confidence: those of the table, or a part of them."""
        present = {entry["symbol"]: int(entry["present_bars"]) for entry in self.info["coverage"]}
        interval = int(self.info["interval_ms"])
        block = duration_ms(self.info["config"]["statistics"]["block"])
        return choose(
            table,
            present,
            interval,
            survival=survival,
            horizon=horizon,
            confidence=confidence,
            block_ms=block,
            worst_over=worst_over,
        )

    def table_at(self, confidence: float) -> pd.DataFrame:
        """The table with bounds at another level of confidence, from the counts in ``blocks/``."""
        check_confidence(confidence)
        frame: pd.DataFrame = pa.Table.from_batches(list(survival_rows(self.counts, confidence))).to_pandas()
        return frame

    def regimes(
        self, by: str | None = None, horizon: str | None = None, confidence: float | None = None
    ) -> pd.DataFrame:
        """Survival by regime: every label of the entries with its own counts and intervals.

        Parameters
        ----------
        by : str, optional
            One of the regimes of ``statistics.regimes``; may be left out where there is one.
        horizon : str, optional
            Default: each horizon of the run.
        confidence : float, optional
            Level of the bounds; default: the run's.

        Returns
        -------
        DataFrame
            The columns of ``survival.parquet`` with ``regime``, the label, beside the scenario, and ``attainable``, the
            largest ``survival_low`` that the entries of the label can show at all. A label without entries has 0 of
            them and no rates.

        Raises
        ------
        ConfigError
            If the regime was not counted, or the run has no such horizon.
        """
        regime, level = self.counts.regime(by), self._level(confidence)
        batches = list(regime_rows(self.counts, regime, level))
        frame: pd.DataFrame = filter_horizon(pa.Table.from_batches(batches).to_pandas(), horizon)
        frame.attrs = {"by": regime, "confidence": level}
        return frame

    @property
    def plot(self) -> Plots:
        """Plots of the table: ``plot.leverage()``, ``plot.heatmap()``, ``plot.curves()``."""
        from backtest.report.plots import Plots

        return Plots(self.table, self.outcomes if self.has_outcomes else None, self.regimes)

    def explore(self, survival: float = 0.95, horizon: str | None = None) -> Explorer:
        """Widgets for a notebook: pick a scenario, move leverage, horizon and target, and see what follows.

        Needs ipywidgets: ``pip install 'liquidation-backtest[notebook]'``.

        Parameters
        ----------
        survival : float
            Target to begin with.
        horizon : str, optional
            Horizon to begin with; default: the shortest.

        Returns
        -------
        Explorer
            See `backtest.report.notebook_widgets.Explorer`.

        Raises
        ------
        ConfigError
            ipywidgets is not installed, the target is not within (0, 1), or the horizon not of the run.
        """
        from backtest.report.notebook_widgets import explore

        own = self.counts.confidence

        def chosen(rows: pd.DataFrame, target: float, held: str) -> pd.DataFrame:
            return self._choose(rows, target, held, own)

        return explore(self.table, chosen, survival=survival, horizon=horizon, confidence=own)

    def report(self, survival: float = 0.95, path: str | Path | None = None, worst: Worst | None = None) -> Place:
        """Write the run as one self-contained HTML page.

        Parameters
        ----------
        survival : float
            Target of the choice that the page leads with.
        path : path, optional
            Default: ``report.html`` in the run directory.
        worst : Worst, optional
            The days that did it, as of `backtest.worst_days`: they are not in a run, but asked of its histories again.
        """
        from backtest.report.html import write_report

        written = write_report(
            self.table,
            self.info,
            self.choose(survival),
            path or self.path / "report.html",
            self.outcomes if self.has_outcomes else None,
            self._first_regimes(),
            worst,
        )
        if path is not None or self._store is None:
            return written
        (self._store / written.name).upload(written)
        return self._store / written.name

    def _first_regimes(self) -> dict[str, pd.DataFrame]:
        """Every regime of the first scenario of each symbol and side."""
        first: dict[tuple[object, object], dict[str, Any]] = {}
        for entry in self.info["blocks"]:
            first.setdefault((entry["symbol"], entry["scenario"].get("side")), entry)
        few = Result(self.path, {**self.info, "blocks": list(first.values())})
        return {name: few.regimes(name) for name in regime_names(self.info)}

    def __repr__(self) -> str:
        symbols = ", ".join(entry["symbol"] for entry in self.info["coverage"])
        return (
            f"Result({symbols}: {len(self.info['blocks'])} scenarios, {self.info['verdicts']:,} verdicts, {self.place})"
        )

    def _repr_html_(self) -> str:
        from backtest.report.notebook_widgets import result_html

        return result_html(repr(self), self.table, noted(self.choose(), self.info))


def load(path: str | Place) -> Result:
    """A run directory, back as a result; one of an object store is copied to this machine.

    Raises
    ------
    DataError
        If the directory does not hold a finished run.
    """
    place = to_place(path)
    if isinstance(place, Remote):
        return _fetched(place)
    return _loaded(place)


def _fetched(place: Remote) -> Result:
    keep = TemporaryDirectory(prefix="backtest-")
    try:
        before = (place / "run.json").read_bytes()
        place.give_folder(Path(keep.name), left_out="report.html")
        if (place / "run.json").read_bytes() != before:
            raise DataError(f"{place}: was written while it was read; read it again")
    except FileNotFoundError:
        raise DataError(f"{place}: is not a finished run (run.json does not exist)") from None
    return replace(_loaded(Path(keep.name)), _keep=keep, _store=place)


def _loaded(folder: Path) -> Result:
    try:
        info = json.loads((folder / "run.json").read_text())
    except OSError as error:
        raise DataError(f"{folder}: is not a run directory (run.json: {error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{folder / 'run.json'}: is not JSON ({error}); run again") from None
    if not isinstance(info, dict) or not {"config", "coverage", "blocks", "interval_ms"} <= info.keys():
        raise DataError(f"{folder / 'run.json'}: is not that of a run; run again")
    if not (folder / "survival.parquet").is_file():
        raise DataError(f"{folder}: survival.parquet is missing; the run is not whole, run it again")
    return Result(folder, info)
