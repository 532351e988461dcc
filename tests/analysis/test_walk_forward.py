"""Choosing on the past and holding on what follows, on block tables worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.analysis.block_counts import planned, rates, scenarios
from backtest.analysis.walk_forward import _chosen, _climbed, calibration, resampled_choices
from backtest.report.plots.calibration import plot_calibration
from backtest.stats.bootstrap import draws, mean_length, weights
from tests._support.block_runs import block_run
from tests._support.histories import history_of, random_rows
from tests.cli.conftest import typed

FULL = 168
PAST = ("leverage", "past_survival", "promised", "past_few_blocks")


def weekly(*dead: dict[int, int], n: int = 30) -> np.ndarray:
    """(n_leverages, n) liquidations, zero where not given."""
    out = np.zeros((len(dead), n), np.int64)
    for row, given in enumerate(dead):
        for block, count in given.items():
            out[row, block] = count
    return out


def test_three_leverages_by_hand(tmp_path) -> None:
    """Twice dies whole in blocks 16–19, three times is half dead throughout; 12 blocks of past, the last left out."""
    dead = weekly({}, dict.fromkeys(range(16, 20), FULL), dict.fromkeys(range(30), FULL // 2))
    run = block_run(tmp_path / "run", np.full_like(dead, FULL), dead, first_block=100)
    frame = bt.walk_forward(run, horizon="1d", survival=0.5, past="12w", ahead="4w")
    assert frame["leverage"].tolist() == [2, 2, 1, 1, 1]
    assert frame["realised"].tolist() == [1, 0, 1, 1, 1]
    assert frame["met"].tolist() == [True, False, True, True, True]
    assert frame["entries"].tolist() == [4 * FULL] * 4 + [2 * FULL]  # blocks 12, 16, 20, 24, and 28 of 30
    week = pd.Timedelta(weeks=1)
    assert (frame["decided"] - frame["past_from"]).unique().tolist() == [12 * week]
    assert frame["decided"].iloc[0] == pd.Timestamp(0, tz="UTC") + 112 * week
    assert (frame["until"] - frame["decided"]).tolist() == [4 * week] * 4 + [2 * week]
    # Eleven weeks without a loss are worth a trial every two days.
    np.testing.assert_allclose(frame["promised"], 0.025 ** (1 / (11 * FULL / 48)), rtol=1e-12)
    assert frame["realised_few_blocks"].all() and not frame["refuted"].any()  # four blocks refute nothing


def test_losses_of_the_block_before_a_decision_are_not_known_to_it(tmp_path) -> None:
    dead = weekly({}, {15: FULL, 14: 0})
    run = block_run(tmp_path / "run", np.full_like(dead, FULL), dead)
    frame = bt.walk_forward(run, horizon="1d", survival=0.9, past="12w", ahead="1w").set_index("step")
    assert frame.loc[[4, 5], "leverage"].tolist() == [2, 1]  # decided at 16, and at 17
    assert frame.loc[4, "past_survival"] == 1 > frame.loc[3, "realised"] == 0


def test_nothing_is_held_where_nothing_met_the_target(tmp_path) -> None:
    dead = weekly(dict.fromkeys(range(30), FULL))
    run = block_run(tmp_path / "run", np.full_like(dead, FULL), dead)
    frame = bt.walk_forward(run, horizon="1d", past="12w", ahead="6w")
    assert frame[["leverage", "promised", "realised", "realised_low"]].isna().all(axis=None)
    assert frame["met"].isna().all() and not frame["refuted"].any() and (frame["entries"] == 0).all()
    for use in (calibration, plot_calibration):
        with pytest.raises(bt.ConfigError, match="no leverage was held"):
            use(frame)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("horizon", ["8h", "1d", "20d"])
def test_later_blocks_never_change_earlier_choices(tmp_path, seed, horizon) -> None:
    rng = np.random.default_rng(seed)
    gap = {"8h": 1, "1d": 1, "20d": 3}[horizon]
    entries = np.full((4, 40), FULL)
    dead = np.cumsum(rng.integers(0, 12, (4, 40)) * (rng.random(40) < 0.4), axis=0)
    moment = int(rng.integers(20, 36))
    other = dead.copy()
    other[:, moment - gap :] = rng.integers(0, FULL, 40 - moment + gap)
    frames = [
        bt.walk_forward(
            block_run(tmp_path / str(n), entries, values, horizon=horizon),
            horizon=horizon, survival=[0.2, 0.7], past="15w", ahead="1w",
        )
        for n, values in enumerate((dead, other))
    ]  # fmt: skip
    early = frames[0]["step"] <= moment - 15
    pd.testing.assert_frame_equal(frames[0].loc[early, list(PAST)], frames[1].loc[early, list(PAST)], check_exact=True)
    assert frames[0]["leverage"].notna().any()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"past": "30w"}, "leaves none ahead; blocks with entries at 1d: COIN 30"),
        ({"past": "10d"}, "past must be a multiple of the run's 7d"),
        ({"ahead": "1d"}, "ahead must be a multiple"),
        ({"past": "1w"}, "past must be longer than 7d"),
        ({"horizon": "2d"}, "horizon must be one of 1d"),
        ({"survival": 1.0}, "survival must lie between 0 and 1"),
        ({"survival": []}, "survival must lie between 0 and 1"),
        ({"confidence": 0.97}, "tabulated levels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, asked, message) -> None:
    run = block_run(tmp_path / "run", [FULL] * 30, [0] * 30)
    with pytest.raises(bt.ConfigError, match=message):
        bt.walk_forward(run, **{"horizon": "1d", "past": "12w", "ahead": "4w", **asked})


def test_trades_with_their_own_leverage_are_refused(tmp_path) -> None:
    run = block_run(tmp_path / "run", [FULL] * 30, [0] * 30, own=True)
    with pytest.raises(bt.ConfigError, match="none to choose"):
        bt.walk_forward(run, horizon="1d")


def test_an_empty_cohort_says_so(tmp_path) -> None:
    run = block_run(tmp_path / "run", [0] * 30, [0] * 30)
    with pytest.raises(bt.ConfigError, match="longer than the history"):
        bt.walk_forward(run, horizon="1d")


def steps(promised: list[float], realised: list[float], target: float = 0.9) -> pd.DataFrame:
    frame = pd.DataFrame({"promised": promised, "past_survival": promised, "realised": realised, "refuted": False})
    frame["realised_low"], frame["realised_high"] = frame["realised"] - 0.05, frame["realised"]
    frame["met"] = (frame["realised"] >= target).astype("boolean")
    return frame


def test_calibration_by_hand() -> None:
    found = calibration(steps([0.91, 0.92, 0.95, 0.96, 0.97], [1.0, 0.8, 0.95, 0.94, np.nan]), bins=2)
    assert found["steps"].tolist() == [2, 2]
    np.testing.assert_allclose(found["promised"], [0.915, 0.955])
    np.testing.assert_allclose(found["realised"], [0.9, 0.945])
    assert found["kept"].tolist() == [0.5, 0.5] and found["met"].tolist() == [0.5, 1.0]
    assert found[["realised_min", "realised_max"]].to_numpy().tolist() == [[0.8, 1.0], [0.94, 0.95]]
    assert calibration(steps([0.91], [1.0]))["steps"].tolist() == [1]  # one promise is one bin
    assert calibration(steps([0.91] * 7, [1.0] * 7))["steps"].tolist() == [7]


def test_calibration_is_drawn() -> None:
    frame = steps([0.91, 0.92, 0.95], [1.0, 0.8, 0.95])
    ax = plot_calibration(frame, calibration(frame, bins=2))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[1:3] == ["target met: 2 of 3 steps", "target missed: 1 of 3 steps"]
    assert ax.get_ylim()[0] < 0.8 and ax.get_ylim()[1] > 1


def test_resampling_a_history_without_chance_leaves_none(tmp_path) -> None:
    dead = weekly({}, dict.fromkeys(range(30), FULL))
    run = block_run(tmp_path / "run", np.full_like(dead, FULL), dead)
    frame = resampled_choices(run, horizon="1d", survival=[0.9, 0.99], ahead="4w")
    low, high = frame[frame["target"] == 0.9], frame[frame["target"] == 0.99]
    assert (low["leverage"] == 1).all() and (low["chosen"] == 1).all() and (low["realised"] == 1).all()
    assert (low["none"] == 0).all() and (low["met"] == 1).all() and not low["few_blocks"].any()
    assert high[["leverage", "chosen", "realised", "met"]].isna().all(axis=None) and (high["none"] == 1).all()


def random_run(folder) -> bt.Result:
    rng = np.random.default_rng(5)
    dead = np.cumsum(rng.integers(0, 12, (6, 40)) * (rng.random(40) < 0.3), axis=0)
    return block_run(folder, np.full_like(dead, FULL), dead)


def test_resampling_is_reproducible_and_the_same_in_chunks(tmp_path, monkeypatch) -> None:
    run = random_run(tmp_path / "run")
    once = resampled_choices(run, horizon="1d", survival=0.8, past="20w")
    assert once["leverage"].nunique() > 1 and once["leverage"].dropna().is_monotonic_increasing
    pd.testing.assert_frame_equal(resampled_choices(run, horizon="1d", survival=0.8, past="20w"), once)
    monkeypatch.setattr("backtest.stats.bootstrap.CHUNK_SIZE", 100)
    pd.testing.assert_frame_equal(resampled_choices(run, horizon="1d", survival=0.8, past="20w"), once)
    again = resampled_choices(random_run(tmp_path / "again"), horizon="1d", survival=0.8, past="20w")
    pd.testing.assert_frame_equal(again, once)


def test_climbing_is_the_rule_of_choosing(tmp_path) -> None:
    """Leverage by leverage as far as each resampled past goes, or all of them at once."""
    run = random_run(tmp_path / "run")
    plan = planned(run, "1d", 0.8, "20w", "4w", None)
    (one,) = scenarios(run, plan)
    (index,) = draws(one.n_blocks, 19, 4, 30, seed=1)
    expected = []
    for row in index:
        shuffled = type(one)(one.where, one.leverage, one.counts[..., row], 0, one.present, one.share)
        found = rates(shuffled, plan, np.array([0]), np.array([row.size]))
        expected.append(_chosen(found.low, found.entries, 0.8)[0] + 1)
    assert len(set(expected)) > 2
    assert _climbed(one, plan, 0.8, index).tolist() == expected


def test_a_run_of_bars_is_chosen_from_as_choose_does(tmp_path) -> None:
    sweep = bt.Sweep(leverage=[1, 5, 2, 12, 30], horizon=["12h", "1d"], maintenance=[0.004])
    history = history_of(random_rows(2, 3_000))
    run = bt.run(history, sweep, statistics=bt.Statistics(block="1d", replications=100))
    found = resampled_choices(run, horizon="24h", survival=0.3, ahead="10d", quantiles=[0.5])
    chosen = run.choose(0.3, "1d")
    np.testing.assert_array_equal(found["chosen"], chosen["leverage"])
    assert found["side"].tolist() == chosen["side"].tolist() and found["chosen"].notna().any()
    frame = bt.walk_forward(run, horizon="1d", survival=0.3, past="50d", ahead="20d")
    assert frame.groupby("side").size().tolist() == [4, 4]  # 126 days, less the last, whose entries see no whole day


def test_windows_in_chunks_change_nothing(tmp_path, monkeypatch) -> None:
    run = random_run(tmp_path / "run")
    once = bt.walk_forward(run, horizon="1d", survival=0.8, past="20w", ahead="3w")
    monkeypatch.setattr("backtest.analysis.block_counts.CELLS", 1)
    pd.testing.assert_frame_equal(bt.walk_forward(run, horizon="1d", survival=0.8, past="20w", ahead="3w"), once)


def test_draws_are_those_of_the_stationary_bootstrap() -> None:
    (index,) = draws(50, 400, 8, 500, seed=3)
    follows = (np.diff(index, axis=1) % 50 == 1).mean()
    assert follows == pytest.approx(1 - 1 / 8 + 1 / 8 / 50, abs=0.004)
    share = np.bincount(index.ravel(), minlength=50) / index.size
    np.testing.assert_allclose(share, 1 / 50, rtol=0.06)
    (same,) = draws(50, 50, 8, 40, seed=3)
    counted = np.stack([np.bincount(row, minlength=50) for row in same])
    assert (weights(50, 8, 40, seed=3) == counted).all()
    assert mean_length(10, 30) == 30  # never shorter than the horizon


def test_the_command_resamples_the_choice(tmp_path) -> None:
    sweep = bt.Sweep(side=["long"], leverage=[1, 2, 3], horizon=["1d"], maintenance=[0.01])
    run = bt.run(history_of(random_rows(3, 4_000)), sweep, out=tmp_path / "run")
    asked = (
        "resample-choice",
        run.path,
        "--horizon",
        "1d",
        "--ahead",
        "2w",
        "--survival",
        "0.2",
        "--replications",
        "20",
    )
    answer = json.loads(typed(*asked, "--json").out)
    want = resampled_choices(run, horizon="1d", survival=0.2, replications=20, ahead="2w")
    assert answer["replications"] == 20 and len(answer["rows"]) == len(want) > 0
    assert [row["chosen"] for row in answer["rows"]] == want["chosen"].tolist()
    said = typed(*asked)
    assert said.code == 0 and "on 20 resampled histories" in said.out
    refused = typed(*asked[:-1], "0")
    assert refused.code == 2 and "replications must be ≥ 1; got 0" in refused.err
