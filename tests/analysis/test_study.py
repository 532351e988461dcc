"""A study asks what the functions ask; names that load; sweeps that a question refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests._support.histories import history_of, random_rows

SWEEP = bt.Sweep(leverage=[3, 20], horizon=["5h", "24h"], maintenance=[0.01])
QUESTIONS = {
    "events": {"where": "leverage = 20"},
    "returns": {"leverage": [3], "quantiles": [0.5], "bankroll_fraction": 0.2, "workers": 1},
    "required_margin": {"quantiles": [0.5, 1.0], "workers": 1},
    "liquidation_days": {"horizon": "5h", "where": "leverage = 20"},
    "liquidation_episodes": {"leverage": 20, "horizon": "5h", "where": "side = 'long'"},
    "sensitivity": {"intervals": ["1h"], "triggers": ["last"], "workers": 1},
}


@pytest.fixture(scope="module")
def history() -> bt.PriceHistory:
    return history_of(random_rows(5, 300))


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_study_answers_as_the_function(history, name) -> None:
    parts = {"data": bt.Data(max_gap="3h"), "entries": bt.Entries(every="2h"), "margin": bt.Margin(basis="entry")}
    found = getattr(bt.Study(history, SWEEP, **parts), name)(**QUESTIONS[name])
    pd.testing.assert_frame_equal(found, getattr(bt, name)(history, SWEEP, **parts, **QUESTIONS[name]))
    assert len(found)


def test_a_study_of_a_dataset_a_file_and_a_configuration_are_one(history, tmp_path) -> None:
    bt.write_history(history, tmp_path / "data")
    axes = "leverage = [3, 20]\nhorizon = ['5h', '24h']\nmaintenance = [0.01]\n"
    (tmp_path / "c.toml").write_text(f"[data]\npath = 'data'\n[sweep]\n{axes}[statistics]\nconfidence = 0.9\n")
    statistics = bt.Statistics(confidence=0.9)
    studies = [
        bt.Study(history, SWEEP, statistics=statistics),
        bt.Study(tmp_path / "data", SWEEP, statistics=statistics),
        bt.Study(tmp_path / "c.toml"),
        bt.Study(bt.load_config(tmp_path / "c.toml")),
    ]
    want = bt.run(history, SWEEP, statistics=statistics).table
    for number, study in enumerate(studies):
        result = study.run(tmp_path / f"run{number}", workers=1)
        pd.testing.assert_frame_equal(result.table, want)
        pd.testing.assert_frame_equal(study.events(), bt.events(studies[0]))
        assert study.worst_days(result).days is not None
        assert study.write_events(tmp_path / f"{number}.parquet") == len(study.events())
    assert studies[1].estimate(1) == studies[3].estimate(1) and studies[1].estimate(1).leverages == 2
    with pytest.raises(bt.ConfigError, match="estimate is made from the files of a dataset"):
        studies[0].estimate()
    with pytest.raises(bt.ConfigError, match="of one history"):
        studies[1].sensitivity()


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_refuses_portfolios(history, name) -> None:
    study = bt.Study(
        history, bt.Sweep(portfolio=[{history.symbol: 1.0}], leverage=[2], horizon=["5h"], maintenance=[0.01])
    )
    with pytest.raises(bt.ConfigError, match=r"^sweep\.portfolio: "):
        getattr(study, name)(**({"leverage": 2} if name == "liquidation_episodes" else {}))


def test_what_is_given_twice_is_refused(history, tmp_path) -> None:
    with pytest.raises(bt.ConfigError, match="sweep must be given"):
        bt.Study(history)
    with pytest.raises(bt.ConfigError, match="margin: the source is a whole configuration"):
        bt.Study(bt.Config(sweep=SWEEP), margin=bt.Margin())
    with pytest.raises(bt.ConfigError, match="data: the study has its own"):
        bt.events(bt.Study(history, SWEEP), data=bt.Data())


def test_workers_are_at_least_one(history) -> None:
    for name in ("returns", "required_margin"):
        with pytest.raises(bt.ConfigError, match="workers must be ≥ 1; got 0"):
            getattr(bt, name)(history, SWEEP, workers=0)


def test_every_public_name_loads() -> None:
    assert all(getattr(bt, name) is not None for name in bt.__all__)
    assert bt.events_of is bt.events
    assert np.isfinite(
        bt.price(
            {
                "rules": "binance-usdm",
                "side": "long",
                "entry_price": 100.0,
                "quantity": 1.0,
                "leverage": 10.0,
                "mmr": 0.004,
            }
        )["liquidation_price"]
    )
