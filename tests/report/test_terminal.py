"""What a terminal says of a run's choices and survival."""

from __future__ import annotations

import numpy as np

from backtest.report.number_format import percent_text, times_text
from backtest.report.terminal import choices_text, survival_text
from backtest.stats.leverage_choice import choose
from tests._support.run_tables import portfolio_table, survival_table
from tests.report.test_labels import LABELS

HOUR = 3_600_000


def own_leverages() -> tuple:
    """Survival of trades that bring leverage and side, and what is chosen for them."""
    table = survival_table().query("leverage == 10 and side == 'long'").assign(leverage=np.nan, side=None)
    return table, choose(table, {"BTCUSDT": 40_000}, HOUR)


def test_nothing_is_chosen_where_trades_have_their_own_leverage_but_survival_is_told():
    table, choices = own_leverages()
    assert len(choices) == len(table)
    assert choices["leverage"].isna().all()
    np.testing.assert_array_equal(choices["survival"], table["survival"])
    np.testing.assert_array_equal(choices["survival_low"], table["survival_low"])


def test_trades_with_their_own_leverage_read_as_survival():
    table, choices = own_leverages()
    text = choices_text(choices)
    assert text.startswith("Survival of the trades at the leverage each had, and its 95 % interval")
    assert "none" not in text
    assert f"{100 * choices['survival'].iloc[0]:.1f} % (" in text
    survival = survival_text(table)
    assert "Survival of trades on BTCUSDT" in survival
    assert "each its own" in survival


def test_a_horizon_without_a_trade_says_so():
    table, _ = own_leverages()
    bounds = dict.fromkeys(("survival", "survival_low", "survival_high"), np.nan)
    empty = table.assign(entries=0, **bounds)
    mixed = table.where(table["horizon"] != "7d", empty).assign(side=None)
    assert "no window fits" in choices_text(choose(mixed, {"BTCUSDT": 40_000}, HOUR))


def test_both_verdicts_of_a_portfolio_are_told_apart():
    table = portfolio_table()
    text = choices_text(choose(table, {table["symbol"].iloc[0]: 40_000}, HOUR))
    lines = [line for line in text.splitlines() if line.startswith(" BTCUSDT 60 % long, ETHUSDT 40 % short")]
    assert [line.split()[8] for line in lines] == ["worst", "close"]
    assert "the truth lies between" in text
    assert "side" not in text
    assert survival_text(table).startswith("Survival of portfolio BTCUSDT 60 % long, ETHUSDT 40 % short")


def test_policies_read_as_words_that_are_not_cut():
    table = survival_table().query("side == 'long' and maintenance == '0.004'")
    label, words = max(LABELS.items(), key=lambda pair: len(pair[1]))
    table.insert(7, "policy", np.where(table["funding_scale"] == 1, label, "none"))
    text = choices_text(choose(table, {"BTCUSDT": 40_000}, HOUR))
    assert words in text and label not in text


def test_a_choice_has_its_lower_bound_or_says_what_could_be_shown():
    table = survival_table().query("maintenance == '0.004' and funding_scale == 1")
    choices = choose(table, {"BTCUSDT": 40_000}, HOUR, survival=0.97)
    row = choices.query("side == 'short' and horizon == '1d'").iloc[0]
    lines = choices_text(choices).splitlines()
    (line,) = (line for line in lines if line.startswith(" BTCUSDT   short"))
    assert f"{times_text(row['leverage'])} (≥ {percent_text(row['survival_low'])})" in line
    none = choices_text(choose(table, {"BTCUSDT": 40_000}, HOUR, survival=0.9999))
    assert f"none (max {percent_text(row['attainable'])})" in none
