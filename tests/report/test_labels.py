"""Scenarios and numbers of a run read as people write them."""

from __future__ import annotations

import pytest

from backtest.report.labels import noted, value_words
from backtest.report.number_format import percent_text, rate_text, signed_text, times_text
from backtest.report.plots import scenario_words, select
from tests._support.run_tables import portfolio_table, survival_table

LABELS = {
    "none": "none",
    "confirm_bars=3": "3 closes to liquidate",
    "ladder(fraction=0.2 above=100000)": "ladder by 20 % above 100,000",
    "ladder(step=1) stop_loss(distance=0.5 of=margin on=last slippage=0.001)": (
        "ladder by 1 tier, stop-loss 50 % of margin on last, slipped 0.1 %"
    ),
    "top_up(target_ratio=0.4 reserve=1 max_times=2 delay_bars=1)": (
        "top-up to 40 % with 1× in reserve, 2 times, 1 bar late"
    ),
    "deleverage(fraction=0.5) take_profit(distance=0.1)": "deleverage 50 %, take-profit 10 %",
    "scale_in(distance=0.05/0.1 multiple=1/2)": "scale-in of 1 / 2 at 5 / 10 %",
}
"""Labels of policies in the results, and how they read."""


@pytest.mark.parametrize(("label", "text"), LABELS.items())
def test_policies_read_as_a_few_words(label, text):
    assert value_words("policy", label) == text


@pytest.mark.parametrize("label", ["top-up", "top_up(reserve=1)", "stop_loss(distance=far)", ""])
def test_a_label_that_is_no_policy_stays_as_it_is(label):
    assert value_words("policy", label) == label


@pytest.mark.parametrize(
    ("label", "coin", "text"),
    [
        ("notional=10000", False, "notional 10,000"),
        ("margin=90 extra=40", False, "margin 90 + 40 of wallet"),
        ("notional=9000 extra=150", False, "notional 9,000 + 150 of wallet"),
        ("margin=0.5 extra=0.25", True, "margin 0.5 coin + 0.25 coin of wallet"),
        ("notional=9000 extra=1", True, "face value 9,000 + 1 coin of wallet"),
        ("large", False, "large"),
    ],
)
def test_sizes_read_with_their_wallet_and_their_coin(label, coin, text):
    assert value_words("size", label, coin=coin) == text


def test_a_portfolio_is_named_by_its_legs():
    words = scenario_words(select(portfolio_table()))
    assert words.startswith("portfolio BTCUSDT 60 % long, ETHUSDT 40 % short · maintenance 0.4 %")
    assert words.endswith("· verdict worst")
    assert value_words("symbol", "A=B") == "A=B"


def test_spot_margin_has_a_loan_to_value_and_no_funding():
    table = survival_table()
    words = scenario_words(select(table.assign(maintenance="ltv=0.9")))
    assert words == "BTCUSDT long · liquidated at loan-to-value 90 % · fee 0.02 %"


def test_what_the_configuration_knows_is_noted_beside_the_table():
    table = survival_table()
    config = {"margin": {"contract": "linear", "expiry": "2024-06-28"}, "sweep": {"maintenance": ["okx-inverse", 0.01]}}
    rows = select(noted(table.assign(maintenance="okx-inverse", size="margin=2"), {"config": config}))
    assert scenario_words(rows) == "BTCUSDT long · maintenance okx-inverse · fee 0.02 % · margin 2 coin"
    assert table.attrs == {}


NUMBERS = [
    *((percent_text, share, text) for share, text in {
        0.992: "99.2 %", 0.99987: "99.99 %", 0.9999999: "99.99 %", 1.0: "100 %", 0.0: "0 %", 1e-9: "0.01 %",
    }.items()),
    *((rate_text, rate, text) for rate, text in {0.0002: "0.02 %", 0.95: "95 %", -0.0001: "−0.01 %"}.items()),
    *((times_text, leverage, text) for leverage, text in {12.0: "12×", 2.5: "2.5×"}.items()),
    *((signed_text, share, text) for share, text in {
        0.0123: "+1.23 %", -0.5: "−50.00 %", 0.0: "0 %", -1e-6: "0.00 %", float("nan"): "–",
    }.items()),
]  # fmt: skip
"""Shares near an end never read as the end; gains and losses have a sign unless they round to nothing."""


@pytest.mark.parametrize(("write", "number", "text"), NUMBERS)
def test_numbers_read_with_the_digits_they_need(write, number, text):
    assert write(number) == text
