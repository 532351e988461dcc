"""Tables of made-up runs, as survival.parquet and outcomes.parquet have them."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

HORIZONS = {"1d": 24, "8h": 8, "7d": 168}  # not in order of time, as a config may have them
LEVERAGES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 100, 125]
FUNDING = [(1.0, 0.0), (2.0, 0.0001)]


def survival_table(symbol: str = "BTCUSDT", size: str | None = None) -> pd.DataFrame:
    """2 sides × 2 maintenance rates × 2 fundings × 3 horizons × 20 leverages; 125× is always rejected."""
    rows = []
    for side, maintenance, (scale, shift), (horizon, hours), leverage in itertools.product(
        ["long", "short"], ["0.004", "binance-usdm"], FUNDING, HORIZONS.items(), map(float, LEVERAGES)
    ):
        entries = 0 if leverage == 125 else 40_000 - hours
        rejected = 40_000 - hours - entries
        reach = np.exp(-((0.006 * leverage * np.sqrt(hours) / (1.1 if side == "long" else 1.0)) ** 2))
        liquidations = round((1 - reach) * entries)
        survival = 1 - liquidations / entries if entries else np.nan
        low, high = max(0.0, survival - 0.02) + 0 * survival, min(1.0, survival + 0.01) + 0 * survival
        counts = (entries, rejected, 0, liquidations, liquidations)
        scenario = ("BTCUSDT" if symbol is None else symbol, side, maintenance, 0.0002, scale, shift, size)
        rows.append((*scenario, horizon, leverage, *counts, survival, low, high, survival, False))
    columns = (
        "symbol side maintenance open_fee funding_scale funding_shift size horizon leverage entries rejected excluded "
        "margin_calls liquidations survival survival_low survival_high survival_km few_blocks"
    )
    return pd.DataFrame(rows, columns=columns.split())


def portfolio_table() -> pd.DataFrame:
    """One portfolio under both verdicts; at the close more survives."""
    one = survival_table("BTCUSDT=0.6 ETHUSDT=-0.4").query("side == 'long' and maintenance == '0.004'")
    one = one.query("funding_scale == 1").assign(side=None)
    one.insert(7, "verdict", "worst")
    better = {name: (one[name] + 0.04).clip(upper=1.0) for name in ("survival", "survival_low", "survival_high")}
    return pd.concat([one, one.assign(verdict="close", **better)], ignore_index=True)


def outcomes_table() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Survival and outcomes of two policies at two leverages: the stop-loss halves the liquidations."""
    table = survival_table().query("side == 'long' and maintenance == '0.004' and funding_scale == 1")
    table = table.query("leverage in (2, 5)").assign(entries=100, liquidations=20)
    table.insert(7, "policy", "none")
    stopped = table.assign(policy="stop_loss(distance=0.05)", liquidations=10)
    rows = pd.concat([table, stopped], ignore_index=True)
    bare = rows["policy"] == "none"
    outcomes = rows[[*rows.columns[: rows.columns.get_loc("entries") + 1], "liquidations"]].assign(
        survived=np.where(bare, 80, 70),
        stopped=np.where(bare, 0, 20),
        took_profit=0,
        insurance_loss=0.0,
        insurance_gain=0.0,
        fees=0.0,
        return_mean=np.where(bare, 0.02, 0.03),
        policy_cost=np.where(bare, 0.0, -0.01),
    )
    return rows, outcomes
