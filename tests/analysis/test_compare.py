"""Two runs side by side, on block tables worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.terminal import compare_text
from backtest.stats.bootstrap import draws, mean_length
from tests._support.block_runs import block_run
from tests.cli.conftest import typed

FULL = 168
INTERVAL = ["difference_low", "difference", "difference_high"]


def test_identical_runs_differ_by_nothing(tmp_path) -> None:
    dead = np.random.default_rng(0).integers(0, 50, (3, 30))
    one, other = (block_run(tmp_path / name, np.full_like(dead, FULL), dead) for name in "ab")
    frame = bt.compare(one, other)
    assert (frame[INTERVAL] == 0).all(axis=None) and (frame["differing_blocks"] == 0).all()
    assert frame.attrs["differs"] == {} and not frame["few_blocks"].any()
    text = compare_text(frame)
    assert "the two runs have the same settings" in text and "=: the runs agree" in text


def test_shared_blocks_by_hand(tmp_path) -> None:
    """Twelve blocks from 100 and twelve from 102: ten are shared, and what lies outside counts for neither."""
    dead = np.array([168, 168, 10, 0, 0, 0, 0, 0, 0, 0, 0, 32])
    one = block_run(tmp_path / "a", [FULL] * 12, dead, first_block=100)
    other = block_run(tmp_path / "b", [100] * 12, [5, 0, 0, 0, 0, 0, 0, 0, 0, 5, 99, 99], first_block=102)
    (row,) = bt.compare(one, other).to_dict("records")
    assert (row["blocks"], row["entries_one"], row["entries_other"]) == (10, 10 * FULL, 1000)
    assert row["survival_one"] == 1 - 42 / 1680 and row["survival_other"] == 0.99
    assert row["difference"] == pytest.approx(0.015)
    assert row["differing_blocks"] == 10 and not row["few_blocks"]
    (index,) = draws(10, 10, mean_length(10, 1 / 7), 400, seed=7)
    drawn = [1 - b[i].sum() / 1000 - (1 - a[i].sum() / 1680) for i in index
             for a, b in [(dead[2:], np.array([5, 0, 0, 0, 0, 0, 0, 0, 0, 5]))]]  # fmt: skip
    np.testing.assert_allclose([row[INTERVAL[0]], row[INTERVAL[2]]], np.quantile(drawn, [0.025, 0.975]), atol=1e-12)


def test_swapping_the_runs_swaps_the_sign(tmp_path) -> None:
    rng = np.random.default_rng(1)
    one, other = (block_run(tmp_path / n, np.full((4, 30), FULL), rng.integers(0, 90, (4, 30))) for n in "ab")
    there, back = bt.compare(one, other), bt.compare(other, one)
    np.testing.assert_allclose(there[INTERVAL], -back[INTERVAL[::-1]], atol=1e-15)
    pd.testing.assert_frame_equal(bt.compare(one, other), there, check_exact=True)


def test_chunks_change_nothing(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(2)
    one, other = (block_run(tmp_path / n, np.full((5, 30), FULL), rng.integers(0, 90, (5, 30))) for n in "ab")
    whole = bt.compare(one, other)
    monkeypatch.setattr("backtest.analysis.compare.CELLS", 1)
    monkeypatch.setattr("backtest.stats.bootstrap.CHUNK_SIZE", 100)
    pd.testing.assert_frame_equal(bt.compare(one, other), whole, check_exact=True)


def test_draws_without_entries_are_left_out(tmp_path) -> None:
    """One block of twelve holds all trades: wherever it is drawn the difference is the same."""
    entries = [10, *[0] * 10, 10]
    one = block_run(tmp_path / "a", entries, [5, *[0] * 10, 5])
    other = block_run(tmp_path / "b", entries, [2, *[0] * 10, 2])
    (row,) = bt.compare(one, other).to_dict("records")
    np.testing.assert_allclose([row[name] for name in INTERVAL], 0.3)
    assert row["few_blocks"] and row["differing_blocks"] == 2


def test_a_policy_is_what_differs(tmp_path) -> None:
    one = block_run(tmp_path / "a", [FULL] * 12, [9] * 12)
    other = block_run(tmp_path / "b", [FULL] * 12, [3] * 12, policy="stop", margin={"trigger": "last"})
    frame = bt.compare(one, other)
    assert frame.attrs["differs"] == {"policy": ("none", "stop"), "margin.trigger": (None, "last")}
    assert "policy" not in frame and "side" in frame
    assert "policy: stop, against none" in compare_text(frame)
    same = block_run(tmp_path / "c", [FULL] * 12, [3] * 12, policy="none")
    frame = bt.compare(one, same)
    assert frame["policy"].tolist() == ["none"] and frame.attrs["differs"] == {}


def test_leverages_of_both_and_those_of_trades(tmp_path) -> None:
    dead = np.full((3, 12), 4)
    one = block_run(tmp_path / "a", np.full_like(dead, FULL), dead, leverage=(5.0, 2.0, 10.0))
    other = block_run(tmp_path / "b", np.full_like(dead, FULL), dead + np.arange(3)[:, None], leverage=(2.0, 5.0, 7.0))
    frame = bt.compare(one, other)
    assert frame["leverage"].tolist() == [2, 5]
    np.testing.assert_allclose(frame["difference"], [0, -1 / FULL], atol=1e-15)
    trades = [block_run(tmp_path / n, [FULL] * 12, [k] * 12, own=True) for k, n in enumerate("cd")]
    assert bt.compare(*trades)["leverage"].isna().tolist() == [True]
    assert "each its own" in compare_text(bt.compare(*trades))
    with pytest.raises(bt.ConfigError, match="trades of the second run have leverages of their own"):
        bt.compare(one, trades[0])


@pytest.mark.parametrize(
    ("different", "message"),
    [
        ({"symbol": "OTHER"}, "no symbol in common: COIN in the first, OTHER in the second"),
        ({"block": "1d"}, "statistics.block is 7d in the first, 1d in the second"),
        ({"horizon": "2d"}, "no horizon in common: 1d in the first, 2d in the second"),
        ({"leverage": (3.0,)}, "no leverage in common: 1 in the first, 3 in the second"),
    ],
)
def test_runs_that_do_not_fit_are_refused(tmp_path, different, message) -> None:
    one = block_run(tmp_path / "a", [FULL] * 12, [1] * 12)
    with pytest.raises(bt.ConfigError, match=message):
        bt.compare(one, block_run(tmp_path / "b", [FULL] * 12, [1] * 12, **different))


def test_what_cannot_be_asked_is_refused(tmp_path) -> None:
    one = block_run(tmp_path / "a", [FULL] * 12, [1] * 12)
    with pytest.raises(bt.ConfigError, match=r"confidence 0\.999 needs 2,000 replications"):
        bt.compare(one, one, confidence=0.999)
    with pytest.raises(bt.ConfigError, match="confidence must lie between"):
        bt.compare(one, one, confidence=1.0)
    with pytest.raises(bt.ConfigError, match="horizon must be one of 1d"):
        bt.compare(one, one, horizon="2d")


def test_histories_apart_share_nothing_and_say_so(tmp_path) -> None:
    one = block_run(tmp_path / "a", [FULL] * 12, [1] * 12)
    other = block_run(tmp_path / "b", [FULL] * 12, [1] * 12, first_block=50)
    (row,) = bt.compare(one, other).to_dict("records")
    assert row["blocks"] == row["entries_one"] == 0 and row["few_blocks"]
    assert np.isnan([row[name] for name in (*INTERVAL, "survival_one", "survival_other")]).all()
    assert "–" in compare_text(bt.compare(one, other))


def test_from_the_command_line(tmp_path) -> None:
    for name, dead in (("a", 9), ("b", 3)):
        run = block_run(tmp_path / name, [FULL] * 12, [dead] * 12, open_fee=dead / 1000)
        (run.path / "run.json").write_text(json.dumps(run.info))
        (run.path / "survival.parquet").touch()
    done = typed("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, done.err) == (0, "")
    assert "+3.57 (+3.57 … +3.57)" in done.out and "open_fee: 0.3 %, against 0.9 %" in done.out
    document = json.loads(typed("compare", tmp_path / "a", tmp_path / "b", "--horizon", "24h", "--json").out)
    assert document["differs"] == {"open_fee": [0.009, 0.003]}
    assert document["rows"][0]["difference"] == pytest.approx(6 / FULL)
    assert typed("compare", tmp_path / "a").code == 2
    refused = typed("compare", tmp_path / "a", tmp_path / "b", "--horizon", "3d")
    assert refused.code == 2 and "horizon must be one of 1d" in refused.err
