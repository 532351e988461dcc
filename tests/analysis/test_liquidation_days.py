"""The days that did it: by hand on one crash, against runs and events, and on the days that everyone remembers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.plots.liquidation_days import plot_days
from backtest.report.plots.style import save_plot
from backtest.report.terminal import episodes_text
from tests._support.histories import HOUR, history_of, random_rows
from tests._support.real import REAL
from tests._support.tiers import write_tiers
from tests.engine.test_truth import COIN_SIZES

AXES = ["side", "maintenance", "open_fee", "horizon", "leverage"]
DAY = 24


def crash() -> bt.PriceHistory:
    """Five days at 100: at 12:00 of the second day down to 80 and back, at 06:00 of the fourth up to 125 for good."""
    close = np.full(5 * DAY, 100.0)
    close[3 * DAY + 6 :] = 125.0
    low, high = close.copy(), close.copy()
    low[DAY + 12] = 80.0
    opened = np.append(100.0, close[:-1])
    return bt.PriceHistory(
        "CRASH", HOUR, 0, {"open": opened, "high": high, "low": np.minimum(low, opened), "close": close}
    )


SWEEP = bt.Sweep(leverage=[3, 4.5, 5, 10], horizon=["4h", "2h"], maintenance=[0.0])


def test_one_crash_by_hand() -> None:
    found = bt.liquidation_days(crash(), SWEEP, horizon="4h")
    rows = [(r.side, r.leverage, str(r.day.date()), r.liquidations, r.recovered) for r in found.itertuples()]
    # Four entries have the bar within their four hours; −20 % takes 5× and above, +25 % takes 4.5× (22.2 %) and above.
    # The longs would have been worth just their margin, 100, at the end of their windows: not more.
    assert rows == [
        *(("long", x, "1970-01-02", 4, 0) for x in (5.0, 10.0)),
        *(("short", x, "1970-01-04", 4, 0) for x in (4.5, 5.0, 10.0)),
    ]
    assert found.attrs["span"] == {"CRASH": ("1970-01-01T00:00Z", "1970-01-06T00:00Z")}
    short = bt.liquidation_days(crash(), SWEEP, horizon="120m", where="side = 'short' and leverage = 10")
    assert short["liquidations"].tolist() == [2] and short["horizon"].tolist() == ["2h"]


def test_one_episode_by_hand() -> None:
    found = bt.liquidation_episodes(crash(), SWEEP, leverage=5)
    assert found["horizon"].tolist() == ["4h", "4h"]  # the longest
    long, short = found.to_dict("records")
    assert (long["first_day"], long["last_day"]) == (pd.Timestamp("1970-01-02", tz="UTC"),) * 2
    assert (long["rank"], long["hours"], long["liquidations"], long["share"], long["lived"]) == (1, 0.0, 4, 1.0, 4.5)
    assert long["adverse_move"] == pytest.approx(0.2, abs=1e-12)
    assert (short["liquidations"], short["lived"]) == (4, 3.0)
    assert short["adverse_move"] == pytest.approx(0.25, abs=1e-12)


def dips(days: list[int], depth: float = 88.0, bars: int = 1, rise: float = 0.0) -> bt.PriceHistory:
    """Twenty days at 100 with a dip at noon of the days given, `rise` above 100 two hours later."""
    flat = np.full(20 * DAY, 100.0)
    low, high, close = flat.copy(), flat.copy(), flat.copy()
    for day in days:
        low[day * DAY + 12 : day * DAY + 12 + bars] = depth
        close[day * DAY + 14 :] += rise
    return bt.PriceHistory("DIPS", HOUR, 0, {"high": np.maximum(high, close), "low": low, "close": close})


def test_one_quiet_day_does_not_end_an_episode_and_two_do() -> None:
    sweep = bt.Sweep(side=["long"], leverage=[2, 10, 8], horizon=["3h"], maintenance=[0.0])
    found = bt.liquidation_episodes(dips([3, 5, 8, 9, 15]), sweep, leverage=10)
    spans = [(r.first_day.day - 1, r.last_day.day - 1, r.liquidations) for r in found.itertuples()]
    assert spans == [(3, 5, 6), (8, 9, 6), (15, 15, 3)]
    assert found["hours"].tolist() == [48.0, 24.0, 0.0]
    assert found["share"].tolist() == [6 / 15, 6 / 15, 3 / 15]
    assert found["lived"].tolist() == [8.0] * 3
    deeper = bt.liquidation_episodes(dips([3], depth=40.0), sweep, leverage=10)
    assert deeper["lived"].isna().all()


def test_wick_outs_are_those_that_end_above_their_margin() -> None:
    sweep = bt.Sweep(side=["long"], leverage=[10], horizon=["3h"], maintenance=[0.0])
    found = bt.liquidation_days(dips([3], rise=1.0), sweep)
    # Entered at the closes of 09:00, 10:00 and 11:00; the rise at 14:00 is in the last window alone.
    assert (found["liquidations"].tolist(), found["recovered"].tolist()) == ([3], [1])


def test_a_fall_is_measured_from_what_came_before_it() -> None:
    high = np.array([100.0, 120.0, 200.0, 101.0, 100.0, 100.0])
    low = np.array([99.0, 100.0, 60.0, 90.0, 30.0, 99.0])
    columns = {"open": np.full(6, 100.0), "high": high, "low": low, "close": np.full(6, 100.0)}
    history = bt.PriceHistory("MOVES", HOUR, 0, columns)
    sweep = bt.Sweep(leverage=[2.4], horizon=["1h"], maintenance=[0.0])
    long, short = bt.liquidation_episodes(history, sweep).to_dict("records")
    # The last long dies at 30, after a peak of 200; the short at 200, after a trough of 99.
    assert long["adverse_move"] == pytest.approx(1 - 30 / 200) and short["adverse_move"] == pytest.approx(200 / 99 - 1)


@pytest.mark.parametrize("kind", ["flat", "inverse tiers", "weights", "spot"])
def test_days_add_up_to_the_run_and_to_its_events(tmp_path: Path, kind: str, monkeypatch) -> None:
    monkeypatch.setattr("backtest.analysis.daily_counts.CHUNK_BARS", 700)
    history = history_of(random_rows(9, 3_000))
    axes: dict[str, object] = {"leverage": [2, 10, 50, 125], "horizon": ["1h", "90h", "24h"]}
    margin = bt.Margin()
    if kind == "spot":
        margin = bt.Margin(contract="spot", liquidation_ltv=0.9, margin_call_ltv=0.8, borrow_rate=1e-5)
        axes["leverage"] = [1.5, 3, 5]
    elif kind == "inverse tiers":
        table = write_tiers(tmp_path / "dated-with.csv")
        axes |= {"maintenance": [table], "size": COIN_SIZES[:2]}
        margin = bt.Margin(contract="inverse")
    else:
        axes |= {"maintenance": [0.004, 0.01], "open_fee": [0.001]}
    if kind == "weights":
        axes["weight"] = [{}, {"target": 0.6, "window": "3d", "cap": 2}]
    sweep, data = bt.Sweep(**axes), bt.Data(max_gap="3h")
    table = bt.run(history, sweep, data=data, margin=margin).table
    keys = list(table.columns[: table.columns.get_loc("entries")])
    table = table.astype({"size": object}).fillna({"size": "-"})
    checked = 0
    for horizon in sweep.horizon:
        days = bt.liquidation_days(history, sweep, horizon=horizon, data=data, margin=margin).fillna({"size": "-"})
        got = days.groupby(keys)["liquidations"].sum()
        want = table[table["horizon"] == horizon].set_index(keys)["liquidations"]
        assert got.to_dict() == want[want > 0].to_dict()
        events = bt.events_of(history, sweep, data=data, margin=margin, where=f"horizon = '{horizon}'")
        events = events[events["liquidation_time"].notna()].fillna({"size": "-"})
        events["day"] = events["liquidation_time"].dt.floor("D")
        by_day = events.groupby([*keys, "day"])["recovered"].agg(["size", "sum"])
        counted = days.set_index([*keys, "day"])
        assert counted["liquidations"].to_dict() == by_day["size"].to_dict()
        assert counted["recovered"].to_dict() == by_day["sum"].to_dict()
        checked += int(got.sum())
        episodes = bt.liquidation_episodes(
            history, sweep, leverage=sweep.leverage[-1], horizon=horizon, data=data, margin=margin
        ).fillna({"size": "-"})
        most = want[want.index.get_level_values("leverage") == sweep.leverage[-1]]
        assert episodes.groupby(keys)["liquidations"].sum().to_dict() == most[most > 0].to_dict()
    assert checked > 500


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"leverage": 7}, "leverage must be one of sweep.leverage, 3, 4.5, 5, 10; got 7"),
        ({}, "leverage must be one of .* got none"),
        ({"leverage": 5, "horizon": "3h"}, "horizon must be one of sweep.horizon, 4h, 2h; got '3h'"),
        ({"leverage": 5, "where": "leverage = 10"}, "selects no scenario"),
        ({"leverage": 5, "where": "liquidations > 3"}, "names no column 'liquidations'"),
    ],
)
def test_what_is_not_there_is_refused(asked, message) -> None:
    with pytest.raises(bt.ConfigError, match=message):
        bt.liquidation_episodes(crash(), SWEEP, **asked)


def test_policies_and_portfolios_are_refused() -> None:
    stop = SWEEP.model_copy(
        update={"policy": bt.Sweep(**{**SWEEP.model_dump(), "policy": [{"confirm_bars": 2}]}).policy}
    )
    with pytest.raises(bt.ConfigError, match=r"sweep\.policy"):
        bt.liquidation_days(crash(), stop)
    cross = bt.Sweep(leverage=[2], horizon=["2h"], maintenance=[0.0], portfolio=[{"CRASH": 1.0}])
    with pytest.raises(bt.ConfigError, match=r"sweep\.portfolio"):
        bt.liquidation_episodes(crash(), cross)


def test_no_liquidation_is_said_in_words() -> None:
    sweep = bt.Sweep(leverage=[2], horizon=["2h"], maintenance=[0.0])
    assert bt.liquidation_days(crash(), sweep).empty
    assert episodes_text(bt.liquidation_episodes(crash(), sweep)) == "No position was liquidated."


def test_trades_with_sides_and_leverages_of_their_own(tmp_path: Path) -> None:
    lines = ["entry_time,side,leverage", "1970-01-02T10:00Z,long,10", "1970-01-02T10:00Z,long,2"]
    (tmp_path / "trades.csv").write_text("\n".join([*lines, "1970-01-04T04:00Z,short,5"]) + "\n")
    sweep = bt.Sweep(horizon=["4h"], maintenance=[0.0])
    entries = bt.Entries(file=str(tmp_path / "trades.csv"))
    found = bt.liquidation_episodes(crash(), sweep, entries=entries)
    # The two days lie one quiet day apart.
    assert found[["liquidations", "hours"]].to_numpy().tolist() == [[2, 42.0]]
    assert found[["leverage", "lived", "adverse_move"]].isna().all(axis=None)
    assert "within 4h: the one episode" in episodes_text(found)
    with pytest.raises(bt.ConfigError, match="each trade has its own"):
        bt.liquidation_episodes(crash(), sweep, entries=entries, leverage=1)


def test_the_picture_names_the_worst(tmp_path: Path) -> None:
    history = dips([3, 5, 8, 9, 15])
    sweep = bt.Sweep(side=["long"], leverage=[2, 10], horizon=["3h"], maintenance=[0.0])
    episodes = bt.liquidation_episodes(history, sweep, leverage=10)
    ax = plot_days(bt.liquidation_days(history, sweep), episodes, worst=2)
    said = [text.get_text() for text in ax.texts]
    assert [text.splitlines()[0] for text in said] == ["1970-01-09", "1970-01-04"]
    assert all("40.0 % of all, −12.0 %" in text for text in said)
    save_plot(ax, str(tmp_path / "days.png"))
    assert (tmp_path / "days.png").stat().st_size > 5_000
    with pytest.raises(bt.ConfigError, match="must end in"):
        save_plot(ax, "days.gif")
    with pytest.raises(bt.ConfigError, match="no liquidations of symbol DIPS"):
        plot_days(bt.liquidation_days(crash(), SWEEP, where="leverage = 5"), episodes)


@pytest.mark.skipif(not (REAL / "binance_um").is_dir(), reason="no real histories here")
def test_the_days_that_everyone_remembers(tmp_path: Path) -> None:
    files = REAL / "binance_um"
    bt.import_generic(
        "BTCUSDT", "1h", files / "BTCUSDT-1h.parquet", mark=files / "BTCUSDT-1h-mark.parquet", out=tmp_path / "data"
    )
    sweep = bt.Sweep(side=["long"], leverage=[3, 5, 10, 20], horizon=["7d"], maintenance=[0.004])
    found = bt.liquidation_episodes(tmp_path / "data", sweep, leverage=5).head(5)
    spans = list(zip(found["first_day"], found["last_day"], strict=True))
    for day in ("2020-03-12", "2021-05-19"):
        assert any(a <= pd.Timestamp(day, tz="UTC") <= b for a, b in spans), found
    covid = next(
        row
        for row in found.to_dict("records")
        if row["first_day"] <= pd.Timestamp("2020-03-12", tz="UTC") <= row["last_day"]
    )
    assert covid["adverse_move"] > 0.3 and not covid["lived"] > 3
