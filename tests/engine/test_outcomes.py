"""What became of positions in money: totals of a run, static rules against policies, and both against the walk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.config.policies import Policy, VolatilityTarget
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of, random_rows
from tests._support.judge import scenario_of
from tests._support.tiers import write_tiers
from tests.oracles import policies as lived
from tests.oracles import volatility
from tests.oracles import walk as oracle

AMOUNTS = ["equity", "residual", "insurance_loss", "insurance_gain", "fees", "added", "return_mean"]
POLICIES = {
    "ladder": ({"ladder": {"step": 1}}, lived.Policy(ladder=lived.Step(1))),
    "top_up": (
        {"top_up": {"target_ratio": 0.5, "reserve": 2.0, "max_times": 2, "delay_bars": 1}},
        lived.Policy(top_up=lived.TopUp(0.5, 2.0, 2, 1)),
    ),
    "deleverage": (
        {"deleverage": {"fraction": 0.5, "max_times": 3}},
        lived.Policy(deleverage=lived.Deleverage(0.5, 3, 0)),
    ),
    "exits": (
        {"stop_loss": {"distance": 0.04, "slippage": 0.001}, "take_profit": {"distance": 0.5, "of": "margin"}},
        lived.Policy(stop_loss=lived.Exit(0.04, slippage=0.001), take_profit=lived.Exit(0.5, of="margin")),
    ),
    "scale_in": (
        {"scale_in": {"distance": [0.02, 0.05], "multiple": [1.0, 2.0]}, "confirm_bars": 2},
        lived.Policy(scale_in=lived.ScaleIn((0.02, 0.05), (1.0, 2.0)), confirm_bars=2),
    ),
}


@pytest.mark.parametrize("contract", ["linear", "inverse"])
@pytest.mark.parametrize("surplus", ["trader", "fund"])
def test_a_static_rule_and_the_policy_of_doing_nothing_come_out_alike(tmp_path, contract, surplus) -> None:
    """Two ways to the same numbers: crossings with closed forms, and lives from event to event."""
    history = history_of(random_rows(3, 1_200))
    axes = {
        "leverage": [2, 8, 40],
        "horizon": ["5h", "200h"],
        "maintenance": [0.006, write_tiers(tmp_path / "with.csv")],
        "open_fee": [0.001],
        "size": [bt.Size(margin=700.0)],
    }
    margin = bt.Margin(contract=contract, surplus=surplus, liquidation_slippage=0.002, liquidation_fee=0.01)
    plain = bt.run(history, bt.Sweep(**axes), margin=margin, statistics=bt.Statistics(outcomes=True))
    lives = bt.run(history, bt.Sweep(**axes, policy=[Policy()]), margin=margin)
    assert set(lives.table["policy"]) == {"none"}
    counts = ["entries", "rejected", "excluded", "margin_calls", "liquidations", "survival_km"]
    pd.testing.assert_frame_equal(plain.table[counts], lives.table[counts])
    one, two = plain.outcomes, lives.outcomes
    assert one["recovered"].tolist() == two["recovered"].tolist()
    assert one["survived"].tolist() == two["survived"].tolist()
    # Sums of up to 1,200 fractions of the margin in another order.
    np.testing.assert_allclose(one[AMOUNTS], two[AMOUNTS], rtol=1e-9, atol=1e-9)
    assert (two.loc[two["entries"] > 0, "policy_cost"] == 0).all() and one["policy_cost"].isna().all()


def test_totals_of_a_run_are_the_sums_of_its_events(tmp_path) -> None:
    history = history_of(random_rows(4, 1_500))
    target = VolatilityTarget(target=0.5, window="24h", cap=2.0)
    sweep = bt.Sweep(leverage=[5, 20], horizon=["48h", "6h"], maintenance=[0.01], weight=[VolatilityTarget(), target])
    margin = bt.Margin(liquidation_fee=0.02)
    result = bt.run(history, sweep, margin=margin, statistics=bt.Statistics(outcomes=True))
    events = bt.events_of(history, sweep, margin=margin)
    axes = ["side", "weight", "horizon", "leverage"]
    for key, part in events.groupby(axes):
        row = result.outcomes
        for name, value in zip(axes, key, strict=True):
            row = row[row[name] == value]
        total = row.iloc[0]
        assert total["entries"] == (~part["rejected"]).sum()
        assert total["liquidations"] == part["liquidation_time"].notna().sum()
        assert total["recovered"] == part["recovered"].sum()
        assert total["residual"] == pytest.approx(part["residual"].sum(), rel=1e-9)
        assert total["insurance_loss"] == pytest.approx(-part["insurance"].clip(upper=0).sum(), rel=1e-9, abs=1e-12)
        assert total["insurance_gain"] == 0
    assert (result.outcomes["return_mean"] > -1).all()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", POLICIES)
def test_a_run_and_its_events_equal_the_lives_walked_one_by_one(tmp_path, name, seed) -> None:
    made = random_rows(seed, 500)
    given, policy = POLICIES[name]
    weight = VolatilityTarget(target=0.5, window="24h", cap=2.0)
    sweep = bt.Sweep(
        side=["short" if seed else "long"],
        leverage=[3, 15],
        horizon=["100h", "9h"],
        maintenance=[write_tiers(tmp_path / "with.csv")],
        size=[bt.Size(notional=9_000.0)],
        open_fee=[0.0005],
        policy=[{}, given],
        weight=[weight],
    )
    margin = bt.Margin(taker_fee=0.0007, liquidation_fee=0.01)
    result = bt.run(history_of(made), sweep, margin=margin)
    events = bt.events_of(history_of(made), sweep, margin=margin)
    grid = oracle.grid_of(made)
    weights = volatility.target_weights(grid, 24, 0.5, 2.0)
    happened = 0
    for label in result.table["policy"].unique():
        rule = lived.Policy() if label == "none" else policy
        for _, row in result.table[result.table["policy"] == label].iterrows():
            scenario = scenario_of(row.replace({np.nan: None}), margin)
            horizon = duration_ms(row["horizon"]) // HOUR
            want = [
                lived.live(grid, scenario, rule, i, horizon, taker_fee=0.0007, weight=w)
                for i, w in enumerate(weights)
                if w is not None and grid.is_entry(i) and grid.last_bar(i, horizon) is not None
            ]
            opened = [life for life in want if not life.rejected]
            assert row["entries"] == len(opened) and row["rejected"] == len(want) - len(opened)
            assert row["margin_calls"] == sum(life.margin_call_bar is not None for life in opened)
            assert row["liquidations"] == sum(life.outcome == "liquidated" for life in opened)
            mine = events
            for axis in ("policy", "horizon", "leverage"):
                mine = mine[mine[axis] == row[axis]]
            total = result.outcomes.loc[row.name]
            for count in ("partial_liquidations", "top_ups", "deleverages", "scale_ins"):
                assert total[count] == sum(getattr(life, count) for life in opened)
                assert mine[count].tolist() == [getattr(life, count) for life in want]
                happened += int(total[count])
            assert mine["outcome"].replace({np.nan: None}).tolist() == [life.outcome for life in want]
            happened += int((mine["outcome"].isin(["stopped", "took_profit"])).sum())
            # Amounts follow from levels solved in another order of operations: 1e-9, as the rules ask for.
            for column, attribute in (("equity", "equity_end"), ("fees", "fees"), ("added", "added")):
                values = [getattr(life, attribute) for life in opened]
                assert mine.loc[~mine["rejected"], column].to_numpy() == pytest.approx(values, rel=1e-9, abs=1e-9)
                assert total[column] == pytest.approx(sum(values), rel=1e-9, abs=1e-9)
    assert happened > 20


def test_what_a_policy_cost_is_told_beside_that_of_none(tmp_path: Path) -> None:
    # Entry at 100, 10× long: margin 10. A stop at 3 % closes at 97: 7 of 10 left. Held, the close is 102: 12 of 10.
    low, close = np.array([100.0, 96.0]), np.array([100.0, 102.0])
    bars = {"open": np.full(2, 100.0), "high": np.array([100.0, 102.0]), "low": low, "close": close}
    history = bt.PriceHistory("DIP", HOUR, 0, bars)
    sweep = bt.Sweep(
        side=["long"], leverage=[10], horizon=["1h"], maintenance=[0.0],
        policy=[{"stop_loss": {"distance": 0.03}}, {}],
    )  # fmt: skip
    stopped, held = bt.run(history, sweep, out=tmp_path / "run").outcomes.to_dict("records")
    assert (stopped["policy"], stopped["stopped"], held["survived"]) == ("stop_loss(distance=0.03)", 1, 1)
    assert stopped["return_mean"] == pytest.approx(-0.3) and held["return_mean"] == pytest.approx(0.2)
    assert stopped["policy_cost"] == pytest.approx(0.5) and held["policy_cost"] == 0
    again = bt.load(tmp_path / "run")
    assert again.outcomes["stopped"].tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["trades", "expiry"])
def test_own_entries_and_settlements_come_out_alike_both_ways(tmp_path, kind) -> None:
    history = history_of(random_rows(6, 700, gaps=False))
    axes: dict[str, object] = {"horizon": ["30h", "400h"], "maintenance": [0.006], "open_fee": [0.001]}
    margin, entries = bt.Margin(liquidation_fee=0.01), bt.Entries()
    if kind == "trades":
        rng = np.random.default_rng(0)
        bars = np.sort(rng.integers(5, 600, 60))
        moments = pd.to_datetime(bars * HOUR + HOUR // 2, unit="ms", utc=True)
        frame = pd.DataFrame({"entry_time": moments, "exit_time": moments + pd.Timedelta("50h")})
        frame.loc[::4, "exit_time"] = pd.NaT
        frame["side"] = rng.choice(["long", "short"], 60)
        frame["leverage"] = rng.choice([3.0, 12.0, 40.0], 60)
        frame["entry_price"] = np.where(rng.random(60) < 0.5, np.nan, 100 * rng.uniform(0.98, 1.02, 60))
        frame.to_parquet(tmp_path / "trades.parquet")
        entries = bt.Entries(file=str(tmp_path / "trades.parquet"))
    else:
        axes["leverage"] = [4, 25]
        margin = bt.Margin(liquidation_fee=0.01, expiry="1970-01-22T03:00Z")
    plain = bt.run(history, bt.Sweep(**axes), margin=margin, entries=entries, statistics=bt.Statistics(outcomes=True))
    lives = bt.run(history, bt.Sweep(**axes, policy=[{}]), margin=margin, entries=entries)
    counts = ["entries", "rejected", "margin_calls", "liquidations", "survival_km"]
    pd.testing.assert_frame_equal(plain.table[counts], lives.table[counts])
    assert plain.table["entries"].min() > 20 and plain.table["liquidations"].max() > 0
    # Sums of fractions of the margin in another order.
    np.testing.assert_allclose(plain.outcomes[AMOUNTS], lives.outcomes[AMOUNTS], rtol=1e-9, atol=1e-9)
    assert plain.outcomes["recovered"].tolist() == lives.outcomes["recovered"].tolist()


def test_priors_are_what_had_happened_by_the_next_shorter_horizon() -> None:
    """Of the cohort of 90 hours, calls and liquidations within 8 hours, row by row of the events."""
    history = history_of(random_rows(8, 900))
    sweep = bt.Sweep(leverage=[12, 30], horizon=["90h", "8h"], maintenance=[0.01], side=["long"])
    result = bt.run(history, sweep)
    events = bt.events_of(history, sweep)
    tables = [table for _, table in result.counts.tables()]
    for k, leverage in enumerate((12, 30)):
        cohort = events[(events["horizon"] == "90h") & (events["leverage"] == leverage) & ~events["rejected"]]
        reach = cohort["entry_time"] + pd.Timedelta("7h")  # entered at the close: the eighth bar opens 7 hours later
        for name, column in (("prior_margin_calls", "margin_call_time"), ("prior_liquidations", "liquidation_time")):
            got = tables[0][name].sum(axis=-1)[0]
            assert got[0, k] == (cohort[column] <= reach).sum() > 0
            assert got[1, k] == 0  # the shortest horizon has none before it


def test_a_result_answers_with_hazards_times_and_incidences() -> None:
    history = history_of(random_rows(8, 900))
    sweep = bt.Sweep(
        leverage=[4, 15], horizon=["8h", "24h", "90h"], maintenance=[0.01], policy=[{"stop_loss": {"distance": 0.03}}]
    )
    result = bt.run(history, sweep)
    assert len(result.hazard()) == len(result.table) == len(result.incidence())
    assert len(result.times()) == 4  # sides × leverages
    found = result.incidence()
    total = found[["liquidated", "stopped", "took_profit", "survived"]].sum(axis=1)
    assert total.to_numpy() == pytest.approx(1.0, abs=1e-12)  # a sum of four shares
    assert (found["stopped"] > 0).any()
    assert result.conditional("8h")["horizon"].isin(["24h", "90h", "8h"]).all()
