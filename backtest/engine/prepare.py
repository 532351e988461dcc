"""From a configuration and a grid to the entries of a symbol, and what a history must hold for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backtest.config.models import Config, Data, Funding
from backtest.config.scenarios import Maintenance, Scenario, horizon_bars, whole_bars
from backtest.config.trades_file import read_trades
from backtest.data.history import PriceHistory
from backtest.engine.bars import Grid
from backtest.engine.cohorts import Population
from backtest.engine.thresholds import MarginTerms
from backtest.engine.trades import trades_on
from backtest.engine.volatility import window_bars
from backtest.errors import DataError, RuleError
from backtest.units import duration_ms, instant_ms, instant_text, number_text


def _moved(funding: Sequence[Funding]) -> list[Funding]:
    """Fundings that are neither the charges as they were nor none."""
    return [each for each in funding if each.shift or each.scale not in (0, 1)]


def prepare_entries(config: Config, grid: Grid) -> Population:
    """The entries of one symbol under a configuration."""
    interval, margin = grid.interval_ms, config.margin
    every, file, gap = config.entries.every, config.entries.file, config.data.max_gap
    whole_bars("statistics.block", duration_ms(config.statistics.block), interval)
    for weight in config.sweep.weight:
        if weight.window is not None:
            window_bars("sweep.weight", weight.window, grid)
    expiry = None if margin.expiry is None else instant_ms(margin.expiry)
    expires_at_end = expiry is not None and grid.start_ms + grid.n_bars * interval >= expiry
    trades = None if file is None else trades_on(grid, read_trades(file))
    bars = grid.entry_bars(duration_ms(every) if every else None) if trades is None else trades.bar
    if expires_at_end:  # an entry at the close that settles it has no bar at risk
        if trades is not None and (bars == grid.n_bars - 1).any():
            raise DataError(f"{grid.symbol}: a trade of {file} enters in the bar that settles it")
        bars = bars[bars < grid.n_bars - 1]
    return Population(
        grid,
        bars,
        tuple(horizon_bars(config.sweep, interval)),
        np.array(config.sweep.leverage),
        duration_ms(config.statistics.block),
        MarginTerms(
            margin.fees_from_margin,
            margin.margin_call_ratio,
            margin.liquidation_slippage,
            margin.liquidation_fee,
            margin.surplus,
        ),
        None if gap is None else duration_ms(gap) // interval,
        expires_at_end,
        trades,
    )


def open_time_range(data: Data) -> tuple[int | None, int | None]:
    """Open times that are asked for, UTC milliseconds, the second exclusive."""
    return (
        None if data.start is None else instant_ms(data.start),
        None if data.end is None else instant_ms(data.end),
    )


def is_charged(config: Config) -> bool:
    """Whether positions pay funding: neither dated futures nor spot do."""
    return config.margin.expiry is None and config.margin.contract != "spot"


def refuse_early(symbol: str, start_ms: int, scenarios: Sequence[Scenario]) -> None:
    """Tier tables must be in force from the first bar on."""
    for maintenance in {id(s.maintenance): s.maintenance for s in scenarios}.values():
        refuse_before_tables(symbol, "the range", start_ms, maintenance)


def refuse_before_tables(symbol: str, what: str, start_ms: int, maintenance: Maintenance) -> None:
    """Refuse bars before the first tier table is in force; `what` names them in the message."""
    since = maintenance.tables[0].effective_from_ms if maintenance.tables else None
    if since is not None and start_ms < since:
        raise RuleError(
            f"{symbol}: {what} starts at {instant_text(start_ms)}, before the first date of the tier table "
            f"{maintenance.label!r}, {instant_text(since)}; cut it with data.start or add an earlier table"
        )


def refuse_lacking(config: Config, history: PriceHistory) -> None:
    """As `refuse_lacking_in`, of a history that was read."""
    cut = config.data.start is not None or config.data.end is not None  # what lies outside the range was not read

    def has(name: str) -> bool:
        return name in history.columns and (cut or not bool(np.isnan(history.columns[name]).all()))

    refuse_lacking_in(config, history.symbol, history.start_ms, has)


def refuse_lacking_in(config: Config, symbol: str, start_ms: int, has: Callable[[str], bool]) -> None:
    """A rule that needs what the history lacks would leave every verdict as it is without it.

    start_ms : where the history begins
    has : whether a column has values
    """
    data, margin = config.data, config.margin

    def lacks(*names: str) -> bool:
        return not all(has(name) for name in names)

    if data.trigger == "last" and lacks("high", "low"):
        raise DataError(
            f"{symbol}: data.trigger: trigger 'last' is asked for, but the history has no last high and low; "
            "import traded prices, or take 'mark'"
        )
    for policy in config.sweep.policy:
        for key, leave in (("stop_loss", policy.stop_loss), ("take_profit", policy.take_profit)):
            if leave is not None and leave.on == "last" and lacks("high", "low"):
                raise DataError(
                    f"{symbol}: sweep.policy: {key} watches on = 'last', but the history has no last high and low; "
                    "import traded prices, or watch on = 'trigger'"
                )
    for each in _moved(config.sweep.funding):
        if lacks("funding_rate"):
            raise DataError(
                f"{symbol}: sweep.funding: scale = {number_text(each.scale)}, shift = {number_text(each.shift)} needs "
                "funding rates, but the history has none; import them (`backtest import generic --funding …`), or take "
                "scale = 0"
            )
    if margin.expiry is not None and instant_ms(margin.expiry) <= start_ms:
        raise DataError(
            f"{symbol}: margin.expiry must lie after the history begins, {instant_text(start_ms)}; got {margin.expiry}"
        )
