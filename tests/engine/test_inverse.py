"""Inverse contracts: what the algebra says of them, on numbers worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.data.history import PriceHistory
from tests._support.histories import HOUR, history_of, random_rows

INVERSE = bt.Margin(contract="inverse")


def one_move(price: float) -> PriceHistory:
    """Entry at 100, then a bar that touches `price`."""
    low, high = min(price, 100.0), max(price, 100.0)
    bars = {"high": np.array([100.0, high]), "low": np.array([100.0, low]), "close": np.array([100.0, 100.0])}
    return PriceHistory("COIN", HOUR, 0, bars)


def liquidations(price: float, side: str, leverage: float, mmr: float) -> int:
    sweep = bt.Sweep(side=[side], leverage=[leverage], horizon=["1h"], maintenance=[mmr])
    return int(bt.run(one_move(price), sweep, margin=INVERSE).table["liquidations"].iloc[0])


@pytest.mark.parametrize(("leverage", "mmr"), [(1.0, 0.004), (5.0, 0.01), (50.0, 0.005)])
def test_a_long_dies_at_its_level_in_coin(leverage, mmr) -> None:
    """E = MM: 1/L + 1 − p/P = mmr·p/P, so P = p·(1 + mmr)/(1 + 1/L); at L = 1, mmr = 0.4 %: 50.2."""
    level = 100.0 * (1 + mmr) / (1 + 1 / leverage)
    assert liquidations(level, "long", leverage, mmr) == 1
    assert liquidations(level * (1 + 1e-7), "long", leverage, mmr) == 0


def test_a_short_without_leverage_survives_every_rise_and_a_long_a_large_fall_does_not() -> None:
    assert liquidations(1e6, "short", 1.0, 0.0) == 0
    assert liquidations(49.0, "long", 1.0, 0.0) == 1


def test_an_inverse_long_is_the_linear_short_of_the_inverse_price() -> None:
    """In coin a long gains −Q·Δ(1/P): without funding, and on an entry that is its own scale, verdicts are the same."""
    history = history_of(random_rows(7, 400, funding=False))
    swap = {"open": "open", "close": "close", "high": "low", "low": "high"}
    columns = {p + a: 1 / history.columns[p + b] for p in ("", "mark_") for a, b in swap.items()}
    turned = PriceHistory("TURNED", HOUR, 0, columns)
    axes = {"leverage": [2, 5, 20, 100], "horizon": ["5h", "100h"], "maintenance": [0.004]}
    for side, other in (("long", "short"), ("short", "long")):
        inverse = bt.run(history, bt.Sweep(side=[side], **axes), margin=INVERSE).table
        linear = bt.run(turned, bt.Sweep(side=[other], **axes)).table
        for name in ("entries", "rejected", "margin_calls", "liquidations"):
            assert inverse[name].tolist() == linear[name].tolist()


def test_tiers_in_coin_are_chosen_by_what_the_face_value_is_worth_at_entry(tmp_path: Path) -> None:
    # 1,000 of face at 100 are 10 coin: tier 2, at most 20×; sold at 101 they are 9.9 coin: tier 1, at most 50×.
    (tmp_path / "coin.csv").write_text("floor,cap,mmr,max_leverage\n0,9.95,0.01,50\n9.95,,0.02,20\n")
    sweep = bt.Sweep(
        side=["long"], leverage=[25], horizon=["1h"], maintenance=[str(tmp_path / "coin.csv")],
        size=[bt.Size(notional=1_000.0)],
    )  # fmt: skip
    price = np.array([100.0, 101.0, 101.0])
    history = PriceHistory("COIN", HOUR, 0, {"high": price, "low": price, "close": price})
    row = bt.run(history, sweep, margin=INVERSE).table.iloc[0]
    assert (row["entries"], row["rejected"]) == (1, 1)
