"""Events equal the literal walk, and add up to the counts of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.config.models import Config
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of, random_rows
from tests._support.judge import scenario_of
from tests._support.tiers import write_tiers
from tests.engine.test_truth import COIN_SIZES, SIZES
from tests.oracles import walk as oracle


@pytest.mark.parametrize("every", [None, "97h"], ids=["dense", "few entries"])
@pytest.mark.parametrize("contract", ["linear", "inverse"])
@pytest.mark.parametrize("basis", ["mark", "entry"])
@pytest.mark.parametrize("rule", ["flat", "with", "without", "dated-with", "dated-without"])
def test_events_equal_the_literal_walk(tmp_path, rule, basis, contract, every) -> None:
    made = random_rows(5, 400 if every is None else 2_000)
    config = Config(
        sweep=bt.Sweep(
            leverage=[1, 4, 30],
            horizon=["90h", "5h"],
            maintenance=[0.006 if rule == "flat" else write_tiers(tmp_path / f"{rule}.csv")],
            open_fee=[0.001],
            size=SIZES[1:3] if contract == "linear" else COIN_SIZES[:2],
        ),
        data=bt.Data(max_gap="5h"),
        entries=bt.Entries(every=every),
        margin=bt.Margin(basis=basis, contract=contract, liquidation_slippage=0.003, liquidation_fee=0.0125),
    )
    grid = oracle.grid_of(made)
    got = bt.events(history_of(made), config.sweep, data=config.data, entries=config.entries, margin=config.margin)
    got = got.replace({"size": {np.nan: None}})
    checked = 0
    axes = ["side", "maintenance", "open_fee", "funding_scale", "funding_shift", "size", "horizon", "leverage"]
    for _, part in got.groupby(axes, sort=False, dropna=False):
        scenario = scenario_of(part.iloc[0], config.margin)
        horizon = duration_ms(part["horizon"].iloc[0]) // HOUR
        every_ms = duration_ms(every) if every else None
        verdicts, _ = oracle.walk(grid, scenario, horizon, every_ms=every_ms, max_gap_bars=5)
        assert len(part) == len(verdicts)
        for row, want in zip(part.itertuples(), verdicts, strict=True):
            assert (row.rejected, row.recovered) == (want.rejected, want.recovered)
            assert row.entry_time.value // 10**6 == want.entry_time_ms
            for name, bar in (("margin_call_time", want.margin_call_bar), ("liquidation_time", want.liquidation_bar)):
                stamp = getattr(row, name)
                assert pd.isna(stamp) if bar is None else stamp.value // 10**6 == grid.open_time_ms[bar]
            for name in ("entry_price", "liquidation_price", "bankruptcy_price", "fill_price", "residual"):
                value, expected = getattr(row, name), getattr(want, name)
                # The walk solves for prices by bisection or per tier: 1e-9 of the price, as the rules ask for.
                assert pd.isna(value) if expected is None else value == pytest.approx(expected, rel=1e-9, abs=1e-9)
            checked += 1
    assert checked > 300
    assert rule != "flat" or (got["recovered"].any() and got["liquidation_time"].notna().any())


def test_events_of_a_scenario_add_up_to_its_counts() -> None:
    history = history_of(random_rows(9, 3_000))
    sweep = bt.Sweep(leverage=[2, 10, 50, 125], horizon=["1h", "300h", "24h"], maintenance=[0.004, 0.01])
    study = bt.Study(history, sweep, data=bt.Data(max_gap="3h"))
    table, events = study.run().table, study.events()
    axes = ["side", "maintenance", "horizon", "leverage"]
    grouped = events.groupby(axes)
    rejected = grouped["rejected"].sum()
    for row in table.itertuples():
        key = (row.side, row.maintenance, row.horizon, row.leverage)
        assert grouped.size()[key] == row.entries + row.rejected
        assert rejected[key] == row.rejected
        assert grouped["margin_call_time"].count()[key] == row.margin_calls
        assert grouped["liquidation_time"].count()[key] == row.liquidations


def test_where_narrows_to_the_same_rows_as_filtering_afterwards() -> None:
    history = history_of(random_rows(2, 600))
    study = bt.Study(history, bt.Sweep(leverage=[5, 20], horizon=["24h", "5h"], maintenance=[0.004]))
    every = study.events()
    some = study.events("leverage = 20 and side = 'long' AND liquidation_time IS NOT NULL and horizon in ('24h')")
    want = every.query("leverage == 20 and side == 'long' and horizon == '24h'").dropna(subset="liquidation_time")
    # A column of integers without a null is one of floats where nulls stand beside them.
    pd.testing.assert_frame_equal(some.reset_index(drop=True), want.reset_index(drop=True), check_dtype=False)


def test_file_appears_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    history = history_of(random_rows(2, 300))
    bt.write_history(history, tmp_path / "data")
    config = Config(
        sweep=bt.Sweep(leverage=[5], horizon=["5h"], maintenance=[0.004]), data=bt.Data(path=str(tmp_path / "data"))
    )
    n = bt.write_events(config, tmp_path / "events.csv")
    assert len(pd.read_csv(tmp_path / "events.csv")) == n
    with pytest.raises(bt.ConfigError, match="exists already"):
        bt.write_events(config, tmp_path / "events.csv")
    with pytest.raises(bt.ConfigError, match="must end in"):
        bt.write_events(config, tmp_path / "events.xlsx")
    with pytest.raises(bt.ConfigError, match="names no column 'lev'"):
        bt.write_events(config, tmp_path / "new.csv", "lev = 3")
    monkeypatch.setattr("backtest.analysis.events.UNASKED_ROWS", 10)
    with pytest.raises(bt.ConfigError, match="--where"):
        bt.write_events(config, tmp_path / "new.csv")
    assert bt.write_events(config, tmp_path / "new.csv", everything=True) == n
    monkeypatch.setattr("backtest.analysis.events._batch", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bt.write_events(config, tmp_path / "third.parquet", everything=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "events.csv", "new.csv"]
