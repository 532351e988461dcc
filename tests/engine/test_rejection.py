"""The rejection rule (docs/semantics.md §2) by hand, in each of the four ways of counting."""

from __future__ import annotations

import numpy as np
import pytest

import backtest as bt
from tests._support.histories import HOUR

WAYS = {
    "threshold": {},
    "entry": {"weight": [{}]},  # a weight of 1 at every entry
    "policy": {"policy": [{}]},
    "portfolio": {"portfolio": [{"X": 1.0}]},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("mmr", "leverage", "notional", "rejected"),
    [
        (0.01, 20.0, 500.0, False),  # the largest leverage of the tier
        (0.01, 20.001, 500.0, True),
        (0.01, 20.001, 250.0, False),  # the tier below allows 40
        (0.01, 10.0, 1_000 * (1 + 5e-10), False),  # the last cap, within 1e-9
        (0.01, 10.0, 1_000.01, True),
        (0.05, 20.0, 500.0, True),  # E = N/20 = MM: the tie
        (0.05, 19.9, 500.0, False),
        (0.0475, 20.0, 500.0, False),
    ],
)
@pytest.mark.parametrize("fee", [0.0, 0.002])
def test_positions_that_could_not_be_opened_are_rejected(tmp_path, way, mmr, leverage, notional, rejected, fee) -> None:
    file = tmp_path / "tiers.csv"
    file.write_text(f"floor,cap,mmr,max_leverage\n0,250,{mmr},40\n250,1000,{mmr},20\n")
    price = np.full(3, 100.0)
    history = bt.PriceHistory("X", HOUR, 0, {"high": price, "low": price, "close": price})
    side = {} if way == "portfolio" else {"side": ["long"]}
    sweep = bt.Sweep(
        leverage=[leverage], horizon=["1h"], maintenance=[str(file)], size=[bt.Size(notional=notional)],
        open_fee=[fee], **side, **WAYS[way],
    )  # fmt: skip
    table = bt.run([history], sweep).table
    # The fee comes out of the margin: 1/L − fee against mmr.
    expected = rejected or 1 / leverage - fee <= mmr
    assert (table["rejected"] == (2 if expected else 0)).all() and (table["entries"] == (0 if expected else 2)).all()
