"""What positions earned: the distribution of returns and the growth of a bankroll, against the literal walk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

import backtest as bt
from backtest.cli import cli
from backtest.data.history import PriceHistory
from backtest.errors import ConfigError
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of, random_rows
from tests._support.judge import scenario_of
from tests.oracles import policies as lived
from tests.oracles import walk as oracle

MARGIN = bt.Margin(taker_fee=0.0007, liquidation_fee=0.01, liquidation_slippage=0.002)
SWEEP = bt.Sweep(
    leverage=[2, 9, 40], horizon=["5h", "90h"], maintenance=[0.006], open_fee=[0.0005],
    policy=[{}, {"stop_loss": {"distance": 0.02}}, {"top_up": {"target_ratio": 0.5, "reserve": 2.0}}],
)  # fmt: skip
RULES = {
    "none": lived.Policy(),
    "stop_loss": lived.Policy(stop_loss=lived.Exit(0.02)),
    "top_up": lived.Policy(top_up=lived.TopUp(0.5, 2.0, 1, 0)),
}


def test_returns_are_those_of_the_walk() -> None:
    made = random_rows(8, 500)
    grid = oracle.grid_of(made)
    found = bt.returns(history_of(made), SWEEP, margin=MARGIN, quantiles=[0.01, 0.5, 1.0], bankroll_fraction=0.3)
    for _, row in found.iterrows():
        scenario, horizon = scenario_of(row.replace({np.nan: None}), MARGIN), duration_ms(row["horizon"]) // HOUR
        lives = [
            lived.live(grid, scenario, RULES[row["policy"].split("(")[0]], i, horizon, taker_fee=0.0007)
            for i in range(len(grid.open_time_ms))
            if grid.is_entry(i) and grid.last_bar(i, horizon) is not None
        ]
        opened = [life for life in lives if not life.rejected]
        earned = sorted(life.equity_end - life.added - 1 for life in opened)
        assert row["entries"] == len(earned) > 300
        # Amounts follow from levels solved in another order of operations: 1e-9, as the rules ask for.
        assert row["return_mean"] == pytest.approx(sum(earned) / len(earned), abs=1e-9)
        for name, share in (("return_q1", 0.01), ("return_q50", 0.5), ("return_q100", 1.0)):
            assert row[name] == pytest.approx(earned[math.ceil(share * len(earned)) - 1], abs=1e-9)
        growth = [math.log(1 + 0.3 * one) for one in earned]
        assert row["growth_mean"] == pytest.approx(sum(growth) / len(growth), abs=1e-9)


def test_a_run_and_the_returns_agree() -> None:
    """Two ways to one number: totals per calendar block, and all entries at once."""
    history, statistics = history_of(random_rows(9, 600)), bt.Statistics(outcomes=True, bankroll_fraction=0.25)
    result = bt.run(history, SWEEP, margin=MARGIN, statistics=statistics)
    found = bt.returns(history, SWEEP, margin=MARGIN, bankroll_fraction=0.25)
    for name in ("return_mean", "growth_mean"):
        # Sums in another order.
        np.testing.assert_allclose(found[name], result.outcomes[name], rtol=1e-9, atol=1e-12)
    lost = result.outcomes["insurance_loss"] / result.outcomes["entries"]
    np.testing.assert_allclose(found["insurance_loss"], lost, rtol=1e-9, atol=1e-12)
    assert (found["entries"] == result.outcomes["entries"]).all()


def closes(*price: float) -> PriceHistory:
    values = np.array(price)
    return PriceHistory("STEPS", HOUR, 0, {"open": values, "high": values, "low": values, "close": values})


def test_growth_of_a_bankroll_worked_by_hand() -> None:
    """Long, 1 bar: 100 → 110 → 99 at 2×: +20 %, then −20 %. With half of the bankroll posted log(1.1) and log(0.9)."""
    sweep = bt.Sweep(side=["long"], leverage=[2], horizon=["1h"], maintenance=[0.0])
    (row,) = bt.returns(closes(100, 110, 99), sweep, bankroll_fraction=0.5).to_dict("records")
    assert row["entries"] == 2
    assert row["return_mean"] == pytest.approx(0.0, abs=1e-12)
    assert row["growth_mean"] == pytest.approx((math.log(1.1) + math.log(0.9)) / 2)


def test_a_position_that_takes_the_whole_bankroll_is_ruin() -> None:
    """At 2× a fall to 40 gaps through the level: nothing is left, and with all of a bankroll posted nothing of it."""
    sweep = bt.Sweep(side=["long"], leverage=[2], horizon=["1h"], maintenance=[0.0])
    whole = bt.returns(closes(100, 40, 40), sweep, bankroll_fraction=1.0)
    assert whole["growth_mean"].tolist() == [-math.inf]
    half = bt.returns(closes(100, 40, 40), sweep, bankroll_fraction=0.5)
    assert half["growth_mean"].tolist() == pytest.approx([math.log(0.5) / 2])
    # The fund pays what the gap leaves: 2 · (100 − 40) / 100 − 1 = 0.2 margins by one entry of two.
    assert whole["insurance_loss"].tolist() == pytest.approx([0.1])


def test_a_choice_shows_what_it_earned_and_where_most_was_earned() -> None:
    rise = closes(*(100 * 1.002 ** np.arange(400)))
    sweep = bt.Sweep(side=["long", "short"], leverage=[1, 2, 3, 60], horizon=["24h"], maintenance=[0.01])
    result = bt.run(rise, sweep, statistics=bt.Statistics(outcomes=True, bankroll_fraction=0.5))
    choices = result.choose(0.1).set_index("side")
    gain = 1.002**24 - 1
    assert choices.loc["long", "leverage"] == 60 and choices.loc["long", "growth_leverage"] == 60
    assert choices.loc["long", "return_mean"] == pytest.approx(60 * gain)
    assert choices.loc["long", "growth_best"] == pytest.approx(math.log(1 + 0.5 * 60 * gain))
    # Shorts lose at every leverage: none of them grows.
    assert choices.loc["short", "leverage"] == 3 and math.isnan(choices.loc["short", "growth_leverage"])
    assert choices.loc["short", "growth_mean"] == pytest.approx(math.log(1 - 0.5 * 3 * gain))
    assert "growth_mean" not in result.choose(0.1, worst_over=["side"])


def test_what_cannot_be_asked_is_refused(tmp_path) -> None:
    history = closes(100, 101, 102)
    sweep = bt.Sweep(leverage=[2], horizon=["1h"], maintenance=[0.0])
    for words, given in (
        ("quantiles must lie within", {"quantiles": [1.5]}),
        ("quantiles must name at least one", {"quantiles": []}),
        ("bankroll_fraction must lie within", {"bankroll_fraction": 0.0}),
        ("leverage must be of the sweep's", {"leverage": [3]}),
        ("workers must be", {"workers": 0}),
    ):
        with pytest.raises(ConfigError, match=words):
            bt.returns(history, sweep, **given)
    pair = bt.Sweep(portfolio=[{"A": 0.5, "B": 0.5}], leverage=[2], horizon=["1h"], maintenance=[0.01])
    with pytest.raises(ConfigError, match=r"sweep\.portfolio"):
        bt.returns([history], pair)


def test_a_horizon_longer_than_the_history_has_no_returns() -> None:
    sweep = bt.Sweep(side=["long"], leverage=[2], horizon=["1h", "9h"], maintenance=[0.0])
    found = bt.returns(closes(100, 101, 102), sweep).set_index("horizon")
    assert found["entries"].to_dict() == {"1h": 2, "9h": 0}
    assert found.loc["9h", ["return_mean", "return_q5", "growth_mean"]].isna().all()


def test_few_entries_at_once_change_nothing(monkeypatch) -> None:
    history = history_of(random_rows(10, 400))
    whole = bt.returns(history, SWEEP)
    monkeypatch.setattr("backtest.analysis.returns.NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr("backtest.engine.cohorts.CHUNK_BARS", 90)
    parts = bt.returns(history, SWEEP, workers=3)
    assert (parts["entries"] == whole["entries"]).all()
    # Funding is summed from the first bar of a chunk: the last digits differ.
    np.testing.assert_allclose(parts["return_q5"], whole["return_q5"], rtol=1e-9, atol=1e-12)


def test_the_command_prints_a_line_per_leverage(tmp_path) -> None:
    bt.write_history(history_of(random_rows(11, 300)), tmp_path / "data")
    (tmp_path / "c.toml").write_text(
        '[data]\npath = "data"\n[sweep]\nside = ["long"]\nleverage = [2, 10]\nhorizon = ["6h"]\nmaintenance = [0.01]\n'
    )
    answer = CliRunner().invoke(cli, ["returns", str(tmp_path / "c.toml"), "--fraction", "0.2"], catch_exceptions=False)
    assert "\n 2×" in answer.output and "\n 10×" in answer.output and "puts up 20.0 % of itself" in answer.output
