"""The same scenarios at several bar lengths and triggers, by hand and against single runs."""

from __future__ import annotations

import numpy as np
import pytest

import backtest as bt

MINUTES = 60_000
COUNTS = ["entries", "rejected", "excluded", "margin_calls", "liquidations", "survival"]


def crash() -> bt.PriceHistory:
    """A day of 5-minute bars at 100; in the one that opens at 12:05 the last price touches 80, the mark price 95."""
    flat = np.full(288, 100.0)
    low, mark_low = flat.copy(), flat.copy()
    low[145], mark_low[145] = 80.0, 95.0
    last = {"open": flat, "high": flat, "low": low, "close": flat}
    mark = {"mark_open": flat, "mark_high": flat, "mark_low": mark_low, "mark_close": flat}
    return bt.PriceHistory("CRASH", 5 * MINUTES, 0, {**last, **mark})


SWEEP = bt.Sweep(side=["long"], leverage=[10, 50], horizon=["2h"], maintenance=[0.0])


def test_one_crash_by_hand() -> None:
    found = bt.sensitivity(crash(), SWEEP)
    assert found[["leverage", "interval", "trigger"]].to_numpy().tolist() == [
        [leverage, interval, trigger]
        for leverage in (10.0, 50.0)
        for interval in ("5m", "15m", "1h")
        for trigger in ("mark", "last")
    ]
    # 22 hourly entries have two hours before midnight on hourly bars, of 22:00 (entered at 22:05) 23 would not yet.
    # Within two hours before 12:05 are entered those of 11:00 and 12:00 on 5-minute bars; those of 11:00 and, at 10:15,
    # of 10:00 on 15-minute bars; those of 10:00 and 11:00, at 11:00 and 12:00, on hourly ones.
    assert found["entries"].tolist() == [22] * 12
    last = found[found["trigger"] == "last"]
    assert last["liquidations"].tolist() == [2] * 6
    mark = found[found["trigger"] == "mark"]
    assert mark["liquidations"].tolist() == [0] * 3 + [2] * 3


def test_each_row_is_that_of_a_run_of_its_own() -> None:
    history, intervals = crash(), ["15m", "30m"]
    sweep = bt.Sweep(leverage=[4, 10, 50], horizon=["1h", "3h"], maintenance=[0.0, 0.01])
    found = bt.sensitivity(history, sweep, intervals, ["last"])
    for interval in intervals:
        entries = bt.Entries(every="30m")
        alone = bt.run(bt.resample(history, interval), sweep, data=bt.Data(trigger="last"), entries=entries).table
        part = found[found["interval"] == interval].drop(columns=["interval", "trigger"])
        assert part[COUNTS].to_numpy().tolist() == alone[COUNTS].to_numpy().tolist()
        assert list(part.columns) == list(alone.columns)


def test_all_look_at_what_the_coarsest_bars_cover() -> None:
    whole = crash()
    history = bt.PriceHistory("CUT", 5 * MINUTES, 10 * MINUTES, {k: v[2:-1] for k, v in whole.columns.items()})
    found = bt.sensitivity(history, SWEEP, ["5m", "1h"], ["last"])
    # 01:00 … 23:00: both begin with the bar of 01:00, and the windows end by 23:00.
    assert found["entries"].tolist() == [20, 20] * 2
    narrow = bt.sensitivity(history, SWEEP, ["5m", "1h"], ["last"], data=bt.Data(end="1970-01-01T06:00Z"))
    assert narrow["entries"].tolist() == [3, 3] * 2 and not narrow["liquidations"].any()


@pytest.mark.parametrize(
    ("sweep", "options", "message"),
    [
        ({"policy": [{"confirm_bars": 2}]}, {}, r"sweep\.policy"),
        ({"portfolio": [{"CRASH": 1.0}]}, {}, r"sweep\.portfolio"),
        ({}, {"intervals": ["1h", "60m"]}, "intervals must be given, each once; got 1h, 60m"),
        ({}, {"triggers": []}, "triggers must be given, each once; got none"),
        ({}, {"intervals": ["7m"]}, "multiple of the history's 5m"),
        ({}, {"data": bt.Data(trigger="last")}, r"data\.trigger"),
        ({"horizon": ["30m"]}, {}, r"sweep\.horizon must be a multiple of the bars' 1h"),
    ],
)
def test_impossible_comparisons_are_refused(sweep, options, message) -> None:
    axes = {"leverage": [10], "horizon": ["2h"], "maintenance": [0.0], **sweep}
    with pytest.raises(bt.ConfigError, match=message):
        bt.sensitivity(crash(), bt.Sweep(**axes), **options)
