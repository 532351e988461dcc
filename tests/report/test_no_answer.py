"""What cannot be known is said in words, or is null: it never looks like a number. And choosing is monotone."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.analysis.walk_forward import resampled_choices
from backtest.report.terminal import choices_text, compare_text, survival_text
from backtest.stats.leverage_choice import choose
from tests._support.block_runs import block_run
from tests._support.histories import HOUR, history_of, random_rows
from tests._support.run_tables import survival_table
from tests.cli.conftest import typed

FULL = 168
BOUNDS = ["survival", "survival_low", "survival_high"]


@pytest.fixture(scope="module")
def short() -> bt.Result:
    """Twelve days: two blocks of a week, and no window of thirty days."""
    sweep = bt.Sweep(leverage=[2, 20], horizon=["8h", "30d"], maintenance=[0.005])
    return bt.run(history_of(random_rows(11, 300)), sweep)


def test_a_horizon_longer_than_the_history(short) -> None:
    table = short.table[short.table["horizon"] == "30d"]
    assert (table["entries"] == 0).all() and table[[*BOUNDS, "survival_km"]].isna().all(axis=None)
    assert survival_text(short.table).count("no window fits") == 4
    choices = short.choose(survival=0.1, horizon="30d")
    assert choices[["leverage", *BOUNDS, "attainable"]].isna().all(axis=None)
    text = choices_text(choices)
    assert text.count("no window fits") == 2 and "none (max" not in text
    assert set(short.times()["median"]) == {"beyond 8h"}
    assert short.times()["mean_hours"].isna().all()
    with pytest.raises(bt.ConfigError, match="past must be longer than 35d"):
        bt.walk_forward(short, horizon="30d", past="1w", ahead="1w")


def test_a_target_no_leverage_meets(short) -> None:
    choices = short.choose(survival=0.9, horizon="8h")
    assert choices[["leverage", *BOUNDS]].isna().all(axis=None)
    # Two blocks are worth two trials at the most, which show 0.025^(1/2) = 0.158 at best.
    assert choices["attainable"].tolist() == pytest.approx([0.025**0.5] * 2, rel=1e-12)
    text = choices_text(choices)
    assert text.count("none (max 15.8 %)*") == 2
    assert "no leverage meets the target" in text and "too few blocks of history" in text


def test_an_interval_from_two_blocks(short) -> None:
    table = short.table[short.table["horizon"] == "8h"]
    assert table["few_blocks"].all() and (table["survival_high"] - table["survival_low"] > 0.8).all()
    text = survival_text(short.table)
    assert text.count(")*") == 4 and "*: too few blocks of history for the interval to say much" in text


def test_two_blocks_are_not_resampled(tmp_path) -> None:
    """Nine blocks neither; ten are."""
    for n, known in ((2, False), (9, False), (10, True)):
        runs = [
            block_run(tmp_path / f"{name}{n}", [FULL] * n, np.arange(n) + dead) for name, dead in (("a", 1), ("b", 9))
        ]
        frame = bt.compare(*runs)
        assert frame["difference"].item() == pytest.approx(-8 / FULL)
        assert frame[["difference_low", "difference_high"]].notna().all(axis=None) == known
        assert frame["few_blocks"].item() != known
        assert ("−4.76 (no interval)*" in compare_text(frame)) != known
        found = resampled_choices(runs[0], horizon="1d", survival=0.1, ahead="1w")
        assert found[["none", "leverage"]].notna().all(axis=None) == known
        assert (found["few_blocks"] != known).all()


def test_nothing_shared_is_said(tmp_path) -> None:
    one, other = (block_run(tmp_path / str(n), [FULL] * 12, [1] * 12, first_block=n) for n in (0, 50))
    frame = bt.compare(one, other)
    assert frame[["difference", "difference_low", "difference_high"]].isna().all(axis=None)
    assert "–: the runs share no block" in compare_text(frame)


def test_typed_on_the_command_line(short, tmp_path) -> None:
    done = typed("choose", short.path, "--survival", "0.9")
    assert done.code == 0 and "none (max 15.8 %)*" in done.out and "no window fits" in done.out
    assert "nan" not in done.out.lower()
    page = short.report(survival=0.9, path=tmp_path / "report.html").read_text(encoding="utf-8")
    report = " ".join(page.split())
    assert "no leverage of the grid reaches 90 %" in report and "holds no entry at this horizon" in report
    assert "too few blocks of history" in report


def test_all_rejected_is_not_no_window() -> None:
    table = survival_table()
    empty = table.assign(entries=0, rejected=5, few_blocks=True, **dict.fromkeys([*BOUNDS, "survival_km"], np.nan))
    assert "all rejected" in survival_text(empty) and "no window fits" not in survival_text(empty)


# --- choosing ---------------------------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """One scenario; lower bounds fall, rise or are not there at all."""
    table = survival_table().query("side == 'long' and maintenance == '0.004' and horizon == '7d'")
    table = table[table["funding_scale"] == table["funding_scale"].iloc[0]].reset_index(drop=True)
    low = draw(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=len(table), max_size=len(table)))
    return table.assign(survival_low=low, entries=[0 if np.isnan(x) else 100 for x in low])


@settings(max_examples=60, deadline=None)
@given(tables(), st.lists(st.floats(0.001, 0.999), min_size=2, max_size=5))
def test_a_higher_target_never_allows_more(table, targets) -> None:
    """And what is chosen meets the target, as does all below it; the next step does not."""
    found = []
    for target in sorted(targets):
        (row,) = choose(table, {"BTCUSDT": 40_000}, HOUR, survival=target).to_dict("records")
        found.append(0.0 if np.isnan(row["leverage"]) else row["leverage"])
        ordered = table.sort_values("leverage")
        meets = (ordered["survival_low"] >= target).to_numpy()
        assert meets[ordered["leverage"] <= found[-1]].all()
        if not np.isnan(row["next_leverage"]):
            assert row["next_leverage"] > found[-1]
            assert not meets[ordered["leverage"] == row["next_leverage"]].any()
        else:
            assert found[-1] == ordered["leverage"].max()
    assert all(a >= b for a, b in itertools.pairwise(found))
