"""Regimes: every label has the counts of its own entries, whatever path counts them, and an interval worth as much."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import backtest as bt
from backtest.cli import cli
from backtest.data.history import PriceHistory
from backtest.engine.bars import build_grid
from backtest.errors import ConfigError
from tests._support.histories import HOUR, history_of, random_rows
from tests.oracles import statistics as truth
from tests.oracles import walk as oracle

AXES = {"leverage": [2, 10, 40], "horizon": ["6h", "40h"], "maintenance": [0.01]}
COUNTED = ["entries", "rejected", "excluded", "margin_calls", "liquidations"]
KEY = ["symbol", "side", "horizon", "leverage"]
ROWS = random_rows(5, 1_500)


def entered(bar: int, grid: oracle.Grid) -> dt.datetime:
    return dt.datetime.fromtimestamp((grid.open_time_ms[0] + (bar + 1) * HOUR) / 1000, tz=dt.UTC)


def walked(label_of, horizon: int, leverage: float, side: int) -> dict[str, list[oracle.Verdict]]:
    """The literal walk's verdicts by a label that is worked out entry by entry."""
    grid = oracle.grid_of(ROWS)
    verdicts, _ = oracle.walk(grid, oracle.Scenario(side, leverage, 0.01), horizon)
    out: dict[str, list[oracle.Verdict]] = {}
    for verdict in verdicts:
        out.setdefault(label_of(verdict.entry_bar, grid), []).append(verdict)
    return out


def assert_counts_are_those_of_the_walk(result: bt.Result, by: str, label_of) -> pd.DataFrame:
    frame = result.regimes(by)
    for (side, horizon, leverage), part in frame.groupby(["side", "horizon", "leverage"]):
        want = walked(label_of, int(horizon[:-1]), leverage, 1 if side == "long" else -1)
        assert set(part["regime"][part["entries"] + part["rejected"] > 0]) == set(want)
        for row in part.itertuples():
            counts = truth.count(want.get(row.regime, []), 0)
            assert {name: int(getattr(row, name)) for name in counts} == counts, row
    return frame


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> bt.Result:
    folder = tmp_path_factory.mktemp("labels")
    stamps = pd.to_datetime([30 * HOUR, 300 * HOUR, 301 * HOUR, 900 * HOUR], unit="ms", utc=True)
    signals = pd.DataFrame({"time": stamps, "signal": ["calm", "wild", "calm", None], "heat": [1.5, 2.5, np.nan, 2.5]})
    signals.to_parquet(folder / "signals.parquet")
    file = str(folder / "signals.parquet")
    regimes = [
        "month", "hour", "weekday", "funding",
        {"by": "volatility", "window": "12h", "quantiles": 3},
        {"by": "drawdown", "edges": [0.01, 0.05]},
        {"file": file, "column": "signal"},
        {"file": file, "column": "heat", "edges": [2.0]},
    ]  # fmt: skip
    return bt.run(history_of(ROWS), bt.Sweep(**AXES), statistics=bt.Statistics(regimes=regimes))


def test_hours_weekdays_and_months_are_those_of_the_entry_time(result) -> None:
    assert_counts_are_those_of_the_walk(result, "hour", lambda bar, grid: f"{entered(bar, grid):%H}")
    assert_counts_are_those_of_the_walk(result, "weekday", lambda bar, grid: f"{entered(bar, grid):%a}")
    assert_counts_are_those_of_the_walk(result, "month", lambda bar, grid: f"{entered(bar, grid):%Y-%m}")


def test_a_column_is_that_of_the_last_row_by_the_time_of_entry(result) -> None:
    def signal(bar: int, grid: oracle.Grid) -> str:
        hour = grid.open_time_ms[0] // HOUR + bar + 1
        return "unknown" if hour < 30 or hour >= 900 else "wild" if hour == 300 else "calm"

    def heat(bar: int, grid: oracle.Grid) -> str:
        hour = grid.open_time_ms[0] // HOUR + bar + 1
        return "unknown" if hour < 30 or 301 <= hour < 900 else "1: ≤ 2" if hour < 300 else "2: > 2"

    assert_counts_are_those_of_the_walk(result, "signal", signal)
    assert_counts_are_those_of_the_walk(result, "heat", heat)


def test_drawdown_is_below_the_highest_close_so_far(result) -> None:
    closes = build_grid(history_of(ROWS)).close

    def label(bar: int, grid: oracle.Grid) -> str:
        known = [c for c in closes[: bar + 1] if not math.isnan(c)]
        fall = 1 - known[-1] / max(known) if known else math.nan
        return "1: ≤ 0.01" if fall <= 0.01 else "2: 0.01 … 0.05" if fall <= 0.05 else "3: > 0.05"

    assert_counts_are_those_of_the_walk(result, "drawdown", label)


def test_bands_of_quantiles_hold_as_many_entries_each_and_ties_stay_together(result) -> None:
    volatility = result.regimes("volatility", horizon="6h").query("leverage == 2 and side == 'long'")
    assert [name.split(":")[0] for name in volatility["regime"]] == ["1", "2", "3", "unknown"]
    bands = volatility["entries"].to_numpy()[:3]
    assert bands.max() - bands.min() <= 12  # the cohort lacks the last hours, bands are of all entries
    assert volatility["entries"].iloc[3] >= 12  # no return is known in the first window
    funding = result.regimes("funding")
    assert funding["regime"].nunique() <= 6


@pytest.mark.parametrize("by", ["month", "hour", "weekday", "funding", "volatility", "drawdown", "signal", "heat"])
def test_labels_add_up_to_the_run(result, by) -> None:
    total = result.regimes(by).groupby(KEY, sort=False)[COUNTED].sum()
    assert total.equals(result.table.set_index(KEY)[COUNTED])


@pytest.mark.parametrize(
    "given",
    [
        {"sweep": {"maintenance": [0.01], "weight": [{"target": 0.5, "window": "12h", "cap": 2.0}]}},
        {"sweep": {"maintenance": [0.01], "policy": [{}, {"stop_loss": {"distance": 0.02}}]}},
        {"sweep": {"maintenance": [0.01]}, "statistics": {"outcomes": True}},
    ],
    ids=["rates", "lives", "outcomes"],
)
def test_every_way_of_counting_adds_up_by_label(given) -> None:
    sweep = bt.Sweep(**{**AXES, **given["sweep"]})
    statistics = bt.Statistics(regimes=["weekday", "month"], **given.get("statistics", {}))
    found = bt.run(history_of(random_rows(6, 700)), sweep, statistics=statistics)
    table = found.table
    key = [name for name in (*KEY[:2], "weight", "policy", *KEY[2:]) if name in table]
    want = table.set_index(key)[COUNTED]
    for by in ("weekday", "month"):
        assert found.regimes(by).groupby(key, sort=False)[COUNTED].sum().equals(want)
    one = found.regimes("weekday")
    assert one.groupby("regime")["liquidations"].sum().nunique() > 1


def test_portfolios_are_labelled_by_time() -> None:
    pair = [history_of(random_rows(seed, 600), name) for seed, name in ((1, "AAA"), (2, "BBB"))]
    sweep = bt.Sweep(portfolio=[{"AAA": 0.6, "BBB": -0.4}], **AXES)
    found = bt.run(pair, sweep, statistics=bt.Statistics(regimes=["weekday"]))
    key = ["symbol", "verdict", "horizon", "leverage"]
    assert found.regimes().groupby(key, sort=False)[COUNTED].sum().equals(found.table.set_index(key)[COUNTED])
    with pytest.raises(ConfigError, match="'volatility' is of one symbol"):
        bt.run(pair, sweep, statistics=bt.Statistics(regimes=["volatility"]))


def test_threads_and_chunks_change_no_label(result, monkeypatch) -> None:
    monkeypatch.setattr("backtest.engine.cohorts.CHUNK_BARS", 100)
    regimes = ["hour", "month", {"by": "volatility", "window": "12h", "quantiles": 3}]
    again = bt.run(history_of(ROWS), bt.Sweep(**AXES), statistics=bt.Statistics(regimes=regimes), workers=3)
    for by in ("hour", "month", "volatility"):
        pd.testing.assert_frame_equal(again.regimes(by), result.regimes(by))


def calm(n: int) -> PriceHistory:
    price = np.full(n, 100.0)
    return PriceHistory("CALM", HOUR, 0, {"high": price, "low": price, "close": price})


def test_a_label_is_worth_the_stretches_of_the_calendar_it_holds() -> None:
    """Two years without a loss. Mondays begin 104 trials that do not overlap, at a horizon of 7 days as many as all
    days do; at 1 day, a trial lasting two days, all days begin 364 of them."""
    history = calm(104 * 168)
    sweep = bt.Sweep(leverage=[2], horizon=["1d", "7d"], maintenance=[0.01], side=["long"])
    found = bt.run(history, sweep, statistics=bt.Statistics(regimes=["weekday", "year"]))
    whole = found.table.set_index("horizon")["survival_low"]
    monday = found.regimes("weekday").query("regime == 'Mon'").set_index("horizon")["survival_low"]
    assert monday["7d"] == pytest.approx(whole["7d"], abs=1e-3)  # 103.9 trials against 104
    # 364 trials of two days; Mondays begin 104: 1 - 0.05/2 ** (1/n) of Clopper and Pearson.
    assert whole["1d"] == pytest.approx(0.025 ** (1 / 364), abs=1e-4)
    assert monday["1d"] == pytest.approx(0.025 ** (1 / 104), abs=1e-3)
    years = found.regimes("year", horizon="1d")
    assert years["few_blocks"].all() and not found.table["few_blocks"].any()  # a year is less than 78 weeks
    assert (years["attainable"] == years["survival_low"]).all()


def test_choosing_by_regime_and_over_the_worst_of_them(result) -> None:
    each = result.choose(0.6, "6h", by="weekday")
    worst = result.choose(0.6, "6h", by="weekday", worst_over=["regime"])
    assert list(each["regime"].unique()) == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    least = each.fillna({"leverage": 0}).groupby("side", sort=False)["leverage"].min()
    assert worst.fillna({"leverage": 0}).set_index("side")["leverage"].equals(least)


def test_a_label_without_entries_shows_no_number() -> None:
    history = calm(24 * 40)
    sweep = bt.Sweep(leverage=[2], horizon=["1d"], maintenance=[0.01], side=["long"])
    entries = bt.Entries(every="24h")
    found = bt.run(history, sweep, entries=entries, statistics=bt.Statistics(regimes=["hour"])).regimes()
    empty = found[found["regime"] != "01"]  # entered at the close of the bar that opens at midnight
    assert (empty["entries"] == 0).all() and len(empty) == 23
    assert empty[["survival", "survival_low", "survival_high", "attainable"]].isna().all(axis=None)


def refusal(regimes: list[object]) -> str:
    with pytest.raises(ConfigError) as caught:
        bt.run(calm(400), bt.Sweep(**AXES), statistics=bt.Statistics(regimes=regimes))
    return str(caught.value)


def test_what_cannot_be_a_regime_is_refused(tmp_path) -> None:
    assert "must be 'year'" in refusal(["decade"])
    assert "two regimes are called 'hour'" in refusal(["hour", {"by": "month", "name": "hour"}])
    assert "file and column go together" in refusal([{"by": "hour", "column": "x"}])
    assert "edges must ascend" in refusal([{"by": "drawdown", "edges": [0.2, 0.1]}])
    assert "window goes with" in refusal([{"by": "funding", "window": "1d"}])
    assert "quantiles and edges go with" in refusal([{"by": "hour", "quantiles": 3}])
    assert "window must be shorter than the history" in refusal([{"by": "volatility", "window": "900h"}])
    assert "a regime's name is" in refusal([{"by": "hour", "name": "a/b"}])
    file = tmp_path / "x.csv"
    file.write_text("time,x\n1970-01-01T00:00Z,1\n")
    assert "needs a column 'y'; found time, x" in refusal([{"file": str(file), "column": "y"}])
    file.write_text("when,x\n1970-01-01T00:00Z,1\n")
    assert "needs a column of times" in refusal([{"file": str(file), "column": "x"}])
    rows = [f"{pd.Timestamp(h, unit='h'):%Y-%m-%dT%H:%MZ},s{h}" for h in range(403)]
    file.write_text("\n".join(["time,x", *rows]))
    with pytest.raises(ConfigError, match="labels, more than 400"):
        bt.run(calm(500), bt.Sweep(**AXES), statistics=bt.Statistics(regimes=[{"file": str(file), "column": "x"}]))


def test_a_run_without_regimes_says_how_to_get_them(tmp_path) -> None:
    found = bt.run(calm(200), bt.Sweep(**AXES), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"no regimes were counted; ask for them with statistics\.regimes"):
        found.regimes("hour")
    answer = CliRunner().invoke(cli, ["regimes", str(tmp_path / "run")], catch_exceptions=True)
    assert isinstance(answer.exception, ConfigError)


def test_the_command_shows_every_label(result, tmp_path) -> None:
    bt.write_history(history_of(ROWS), tmp_path / "data")
    (tmp_path / "c.toml").write_text(
        '[data]\npath = "data"\n[sweep]\nleverage = [2, 10]\nhorizon = ["6h"]\nmaintenance = [0.01]\n'
        '[statistics]\nregimes = ["weekday", { by = "drawdown", edges = [0.01] }]\n'
    )
    runner = CliRunner()
    assert runner.invoke(cli, ["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]).exit_code == 0
    answer = runner.invoke(cli, ["regimes", str(tmp_path / "run"), "--by", "weekday", "--leverage", "10"])
    assert answer.exit_code == 0
    assert all(f"\n {day}" in answer.output for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))
    assert runner.invoke(cli, ["choose", str(tmp_path / "run"), "--by", "drawdown", "--survival", "0.6"]).exit_code == 0
    wrong = runner.invoke(cli, ["regimes", str(tmp_path / "run")])
    assert "by must be one of the regimes of the run: weekday, drawdown" in str(wrong.exception)


def test_the_picture_has_a_row_per_label_and_a_mark_per_leverage(result) -> None:
    ax = result.plot.regimes("weekday", side="short")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    frame = result.regimes("weekday", "40h").query("side == 'short' and leverage == 10")
    (drawn,) = [line for line in ax.get_lines() if line.get_label() == "10×"]
    assert list(drawn.get_xdata()) == frame["survival"].tolist()
    with pytest.raises(ConfigError, match="leverage must be one of 2, 10, 40 in this run; got 7"):
        result.plot.regimes("weekday", leverage=7.0)
