"""Survival analysis of the tables of runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.errors import ConfigError, DataError
from backtest.stats.frames import conditional_frame, count_columns, hazard_frame, incidence_frame, time_frame
from tests._support.histories import history_of, random_rows

CURVES = {(10.0, "long"): [0.9, 0.8, 0.4], (20.0, "long"): [0.6, 0.3, 0.0], (10.0, "short"): [0.9, np.nan, np.nan]}
CURVES |= {(20.0, "short"): [np.nan] * 3}


def table_of(horizons: tuple[str, ...] = ("8h", "1d", "7d")) -> pd.DataFrame:
    """Four scenarios, rows shuffled, with an index of its own; horizons in the order of CURVES."""
    rows = [
        {"symbol": "A", "side": side, "maintenance": "0.01", "open_fee": 0.0, "funding_scale": 1.0}
        | {"funding_shift": 0.0, "size": None, "horizon": horizon, "leverage": leverage, "survival_km": value}
        for (leverage, side), curve in CURVES.items()
        for horizon, value in zip(horizons, curve, strict=True)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def test_hazards_by_hand() -> None:
    table = table_of()
    found = hazard_frame(table)
    assert found.index.equals(table.index)
    assert list(found.columns[-7:]) == [
        "after", "horizon", "leverage", "survival", "liquidated_in_interval", "hazard_per_day", "cumulative_hazard"
    ]  # fmt: skip
    one = found[(found["side"] == "long") & (found["leverage"] == 20)].set_index("horizon").loc[["8h", "1d", "7d"]]
    assert one["after"].tolist() == ["0", "8h", "1d"]
    np.testing.assert_allclose(one["liquidated_in_interval"], [0.4, 0.5, 1.0])
    # ln(1/0.6) over a third of a day, ln 2 over two thirds, none left.
    np.testing.assert_allclose(one["hazard_per_day"], [3 * np.log(5 / 3), 1.5 * np.log(2), np.inf])
    np.testing.assert_allclose(one["cumulative_hazard"], [0.4, 0.9, 1.9])


def test_times_by_hand() -> None:
    found = time_frame(table_of(), to="4d").set_index(["side", "leverage"])
    # 0.6 at 8h to 0.3 at 24h: a third of the way; 0.8 at 24h to 0.4 at 168h: three quarters.
    assert found.loc[("long", 20.0), "median"] == "8h … 1d"
    assert found.loc[("long", 20.0), "median_hours"] == pytest.approx(8 + 16 / 3)
    assert found.loc[("long", 10.0), ["median_after_hours", "median_by_hours"]].tolist() == [24, 168]
    assert found.loc[("long", 10.0), "median_hours"] == pytest.approx(24 + 0.75 * 144)
    assert found["median"].drop([("long", 10.0), ("long", 20.0)]).to_dict() == {
        ("short", 10.0): "beyond 8h",
        ("short", 20.0): "no entries",
    }
    assert found.loc["short", ["median_hours", "median_by_hours", "mean_hours"]].isna().all(axis=None)
    assert (found["mean_to"] == "4d").all()
    # To 4d = 96h, half of the last interval: 8·1 + 16·0.9 + 72·0.8; lower 8·0.9 + 16·0.8 + 72·0.4; linear by trapezes.
    mean = found.loc[("long", 10.0), ["mean_hours_low", "mean_hours", "mean_hours_high"]].astype(float)
    np.testing.assert_allclose(mean, [48.8, 8 * 0.95 + 16 * 0.85 + 72 * 0.7, 80.0])
    assert (time_frame(table_of())["mean_to"] == "7d").all()
    shuffled, rows = table_of(), ["side", "leverage"]
    assert not shuffled[rows].drop_duplicates().sort_values(rows).index.equals(shuffled[rows].drop_duplicates().index)
    pd.testing.assert_frame_equal(time_frame(shuffled)[rows], shuffled[rows].drop_duplicates(ignore_index=True))


def test_conditional_survival_by_hand() -> None:
    found = conditional_frame(table_of(), given="1d")
    assert set(found["horizon"]) == {"7d"} and set(found["given"]) == {"1d"}
    rates = found.set_index(["side", "leverage"])["survival_conditional"]
    assert rates[("long", 10.0)] == pytest.approx(0.5) and rates[("long", 20.0)] == 0.0
    assert rates["short"].isna().all()
    # The same horizon may be written in another way.
    pd.testing.assert_frame_equal(
        found.drop(columns="given"), conditional_frame(table_of(), "24h").drop(columns="given")
    )


def counted() -> pd.DataFrame:
    """10 enter; by 8h 2 are liquidated, 3 stopped; of 8 seen for a day (1 and 3 of them ended) 1 more is liquidated."""
    return pd.DataFrame(
        {"symbol": "A", "side": "long", "maintenance": "0.01", "open_fee": 0.0, "funding_scale": 1.0}
        | {"funding_shift": 0.0, "size": None, "policy": "stop 5 %", "leverage": 10.0}
        | {"horizon": ["1d", "8h"], "entries": [8, 10], "liquidations": [2, 2], "stopped": [3.0, 3.0]}
        | {"took_profit": [0, 0], "margin_calls": [4, 2]}
    )


PRIORS = {"prior_liquidations": [1, 0], "prior_stopped": [3, 0], "prior_took_profit": [0, 0]}


def test_incidences_by_hand() -> None:
    found = incidence_frame(counted(), PRIORS).set_index("horizon")
    assert found["at_risk"].to_dict() == {"1d": 4, "8h": 10}
    np.testing.assert_allclose(found.loc["8h", ["liquidated", "stopped", "survived"]].astype(float), [0.2, 0.3, 0.5])
    np.testing.assert_allclose(
        found.loc["1d", ["liquidated", "stopped", "survived"]].astype(float), [0.325, 0.3, 0.375]
    )
    assert "margin_called" not in found
    # 2 of 10; of the 8 seen for a day 2 had been called by 8h, and 2 of the other 6 are called then: 1 − 0.8 · 2/3.
    found = incidence_frame(counted(), {**PRIORS, "prior_margin_calls": [2, 0]}).set_index("horizon")
    np.testing.assert_allclose(found.loc[["8h", "1d"], "margin_called"], [0.2, 1 - 0.8 * 2 / 3])


def test_what_is_missing_is_said() -> None:
    table = counted()
    with pytest.raises(DataError, match="incidences need the counts prior_stopped, prior_took_profit"):
        incidence_frame(table, {"prior_liquidations": [1, 0]})
    with pytest.raises(ConfigError, match="positions of policies may be stopped"):
        incidence_frame(table.drop(columns=["stopped"]), PRIORS)
    with pytest.raises(DataError, match="all horizons of the run are needed"):
        incidence_frame(table[table["horizon"] == "1d"], {name: values[:1] for name, values in PRIORS.items()})
    with pytest.raises(DataError, match="no rows"):
        time_frame(table_of().iloc[:0])
    with pytest.raises(DataError, match="at every horizon of the table, and only once"):
        time_frame(table_of().iloc[1:])
    with pytest.raises(DataError, match="only once"):
        hazard_frame(pd.concat([table_of(), table_of()]))
    with pytest.raises(ConfigError, match="to must be at most the longest horizon, 7d; got '8d'"):
        time_frame(table_of(), to="8d")
    with pytest.raises(ConfigError, match="given must be one of 8h, 1d, 7d in this run; got '2d'"):
        conditional_frame(table_of(), given="2d")


def test_of_a_run_the_one_incidence_is_one_less_kaplan_meier() -> None:
    """Real counts, with gaps, excluded and right-censored entries, horizons not in order: they pass every check."""
    sweep = bt.Sweep(leverage=[3, 20, 125], horizon=["300h", "1h", "24h"], maintenance=[0.004, 0.02])
    result = bt.run(history_of(random_rows(0, 1_500)), sweep, data=bt.Data(max_gap="4h"))
    table = result.table
    counts = count_columns(table for _, table in result.counts.tables())
    for name in ("entries", "liquidations", "margin_calls"):
        assert table[name].tolist() == counts[name].tolist()
    found = incidence_frame(table, {"prior_liquidations": counts["prior_liquidations"]})
    np.testing.assert_allclose(found["liquidated"], 1 - table["survival_km"], atol=1e-12)
    np.testing.assert_allclose(found["survived"], table["survival_km"], atol=1e-12)
    assert found["liquidated"].between(0.1, 0.9).sum() > 5
    rows = [*table.columns[: list(table.columns).index("horizon")], "leverage"]
    pd.testing.assert_frame_equal(time_frame(table)[rows], table[rows].drop_duplicates(ignore_index=True))
    pd.testing.assert_frame_equal(hazard_frame(table), hazard_frame(table, counts))


def test_prior_counts_tell_the_censored_from_the_dead() -> None:
    # 3 enter, 1 dies by 8h; of the cohort of a day that one is all there is: 0 of record, unknown in truth.
    table = counted().assign(entries=[1, 3], liquidations=[1, 1], survival_km=[0.0, 2 / 3])
    counts = {"prior_liquidations": [1, 0]}
    assert time_frame(table)["median"].tolist() == ["8h … 1d"]
    assert time_frame(table, counts=counts)["median"].tolist() == ["beyond 8h"]
    assert np.isnan(hazard_frame(table, counts)["hazard_per_day"].iloc[0])
    assert np.isnan(conditional_frame(table, "8h", counts)["survival_conditional"]).all()


def test_pandas_and_scipy_stay_out_until_a_frame_is_asked_for() -> None:
    code = (
        "import sys, backtest.stats.survival_curve; assert not {'pandas', 'pyarrow'} & set(sys.modules); "
        "import backtest.stats.frames; assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
