"""The text of a size, weight or policy in results, written and parsed."""

from __future__ import annotations

import pytest

import backtest as bt
from backtest.config.labels import parse_label
from backtest.config.policies import Policy, VolatilityTarget


@pytest.mark.parametrize(
    ("part", "label", "parsed"),
    [
        (bt.Size(notional=1e4), "notional=10000", {"notional": "10000"}),
        (bt.Size(margin=90, extra=40.5), "margin=90 extra=40.5", {"margin": "90", "extra": "40.5"}),
        (VolatilityTarget(), "1", {"1": ""}),
        (
            VolatilityTarget(target=0.6, window="30d", cap=2.0),
            "target=0.6 window=30d cap=2",
            {"target": "0.6", "window": "30d", "cap": "2"},
        ),
        (Policy(), "none", {"none": ""}),
        (
            Policy(confirm_bars=3, stop_loss={"distance": 0.05, "on": "last"}),
            "confirm_bars=3 stop_loss(distance=0.05 on=last)",
            {"confirm_bars": "3", "stop_loss": "distance=0.05 on=last"},
        ),
        (
            Policy(scale_in={"distance": [0.03, 0.06], "multiple": [1, 2.5]}),
            "scale_in(distance=0.03/0.06 multiple=1/2.5)",
            {"scale_in": "distance=0.03/0.06 multiple=1/2.5"},
        ),
    ],
)
def test_labels_are_written_and_parsed(part: bt.Size | Policy, label: str, parsed: dict[str, str]) -> None:
    assert part.label == label
    assert parse_label(label) == parsed
