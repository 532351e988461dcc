"""Choosing: the worst case over axes, and what the next step would have cost."""

from __future__ import annotations

import pandas as pd
import pytest

import backtest as bt
from backtest.stats.leverage_choice import worst_case
from tests._support.histories import history_of, random_rows


@pytest.fixture(scope="module")
def result() -> bt.Result:
    sweep = bt.Sweep(
        leverage=[2, 5, 10, 20, 40],
        horizon=["8h", "100h"],
        maintenance=[0.005],
        funding=[bt.Funding(), bt.Funding(scale=4.0), bt.Funding(scale=-4.0)],
    )
    return bt.run(history_of(random_rows(11, 4_000)), sweep)


def test_the_worst_case_is_never_better_than_any_of_its_cases(result) -> None:
    single = result.choose(survival=0.8)
    worst = result.choose(survival=0.8, worst_over=["funding", "side"])
    assert len(worst) == 2 and worst["side"].isna().all() and worst["funding_scale"].isna().all()
    for row in worst.itertuples():
        cases = single[single["horizon"] == row.horizon]["leverage"].fillna(0.0)
        assert row.leverage == cases.min()  # survival falls with leverage in every case, so the worst one decides


def test_a_case_without_entries_is_the_worst_of_all(result) -> None:
    table = result.table.copy()
    table.loc[(table["side"] == "short") & (table["leverage"] == 2), ["entries", "survival_low"]] = [0, float("nan")]
    worst = worst_case(table, ["side"])
    assert (worst.loc[worst["leverage"] == 2, "entries"] == 0).all()
    assert len(worst) == len(table) // 2


def test_the_next_step_is_the_first_that_fails(result) -> None:
    table = result.table
    for row in result.choose(survival=0.8).itertuples():
        if pd.isna(row.next_leverage):
            continue
        same = (table["side"] == row.side) & (table["horizon"] == row.horizon)
        same &= table["funding_scale"] == row.funding_scale
        step = table[same & (table["leverage"] == row.next_leverage)].iloc[0]
        assert row.next_survival_low == step["survival_low"] < 0.8
        lower = table[same & (table["leverage"] < row.next_leverage)]
        assert lower["leverage"].max() == row.leverage or pd.isna(row.leverage)


def test_axes_that_are_none_are_refused(result) -> None:
    with pytest.raises(bt.ConfigError, match=r"worst_over must hold axes of the run: side, maintenance.*got 'symbol'"):
        result.choose(worst_over=["symbol"])
