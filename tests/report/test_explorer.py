"""What the explorer displays is what the run says, wherever its widgets are moved, and it follows at once."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import backtest as bt
from backtest.report.notebook_widgets import Explorer
from backtest.report.scenario_selection import varying
from tests._support.histories import HOUR

LEVERAGES = [2, 5, 10, 20, 40]
HORIZONS = ["1d", "8h", "3d"]  # not in order of time
WAVE = 100 * np.exp(0.06 * np.sin(np.arange(4000) / 17) + 0.03 * np.sin(np.arange(4000) / 5.3))


def history(symbol: str = "WAVE", close: np.ndarray = WAVE) -> bt.PriceHistory:
    bars = {"high": close * 1.004, "low": close * 0.996, "close": close}
    return bt.PriceHistory(symbol, HOUR, 0, bars | {"funding_rate": np.where(np.arange(close.size) % 8, np.nan, 1e-3)})


@pytest.fixture(scope="module")
def result() -> bt.Result:
    funding = [bt.Funding(), bt.Funding(scale=2.0, shift=1e-4)]
    axes = {"leverage": LEVERAGES, "horizon": HORIZONS, "maintenance": [0.005], "funding": funding}
    return bt.run(history(), bt.Sweep(**axes, open_fee=[0.0, 0.001]))


def said(explorer: Explorer) -> str:
    """The words without the marks of HTML."""
    return " ".join(re.sub("<[^>]+>", " ", explorer.answer.value).split())


def picture(png: bytes, folder: Path) -> np.ndarray:
    (folder / "shown.png").write_bytes(png)
    return imread(folder / "shown.png")


def row_of(result: bt.Result, **wanted: object) -> pd.Series:
    rows = result.table
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def counted(row: pd.Series) -> str:
    return f"{row['liquidations']:,} of {row['entries']:,} entries were liquidated"


def test_each_axis_with_several_values_has_a_picker_and_no_other(result: bt.Result) -> None:
    explorer = result.explore()
    assert {name: len(picker.options) for name, picker in explorer.pickers.items()} == {
        "side": 2,
        "open_fee": 2,
        "funding": 2,
    }
    assert explorer.horizon.options == ("8h", "1d", "3d")
    assert [value for _, value in explorer.leverage.options] == LEVERAGES
    assert list(varying(result.table)) == list(explorer.pickers)


def test_what_is_shown_is_the_row_of_the_table_wherever_the_widgets_stand(result: bt.Result) -> None:
    explorer = result.explore()
    doubled = "× 2 + 0.01 % per charge"
    for side, words, horizon, leverage in [
        ("long", "as charged", "1d", 5.0),
        ("short", "as charged", "1d", 20.0),
        ("short", doubled, "8h", 40.0),
        ("long", doubled, "3d", 10.0),
    ]:
        explorer.pickers["side"].label = side
        explorer.pickers["funding"].label = words
        explorer.horizon.value = horizon
        explorer.leverage.value = leverage
        scale = 2.0 if words == doubled else 1.0
        row = row_of(result, side=side, funding_scale=scale, horizon=horizon, leverage=leverage, open_fee=0.0)
        text = said(explorer)
        assert f"At {leverage:g}×, held {horizon}" in text
        assert counted(row) in text, (side, words, horizon, leverage)
        assert f"funding {words}" in text


def test_the_choice_is_that_of_the_run_at_every_target(result: bt.Result) -> None:
    explorer = result.explore()
    explorer.pickers["side"].label = "short"
    explorer.pickers["open_fee"].label = "0.1 %"
    explorer.horizon.value = "8h"
    found = []
    for target in (0.6, 0.8, 0.95):
        explorer.target.value = target
        choices = result.choose(survival=target, horizon="8h")
        (row,) = choices.query("side == 'short' and open_fee == 0.001 and funding_scale == 1").to_dict("records")
        text = said(explorer)
        found.append(row["leverage"])
        assert f"up to {row['leverage']:g}× would have survived with at least {100 * target:g} %" in text
        assert f"One step more, {row['next_leverage']:g}×" in text
    assert found[0] > found[-1] > 0


def test_it_begins_at_the_choice_for_what_was_asked(result: bt.Result) -> None:
    choices = result.choose(survival=0.8, horizon="24h")
    explorer = result.explore(survival=0.8, horizon="24h")  # the same duration as 1d
    assert explorer.horizon.value == "1d"
    assert explorer.leverage.value == choices["leverage"].iloc[0]
    assert explorer.target.value == 0.8


def test_no_leverage_is_an_answer_in_words(result: bt.Result) -> None:
    explorer = result.explore(survival=0.9999)
    assert "no leverage of the grid reaches 99.99 %" in said(explorer)
    assert "chosen" not in said(explorer)
    assert bytes(explorer.curve.value).startswith(b"\x89PNG")


def test_pictures_are_those_of_the_plots_and_follow(result: bt.Result, tmp_path: Path) -> None:
    """The heatmap is the plot but for the ring; every move changes both pictures, the target the curve alone."""
    explorer = result.explore(horizon="1d")
    explorer.leverage.value = 10.0
    before = explorer.curve.value, explorer.heatmap.value
    plain = picture(result.plot.heatmap(side="long")._repr_png_(), tmp_path)
    ringed = picture(before[1], tmp_path)
    differs = (plain != ringed).any(axis=2)
    rows, columns = np.nonzero(differs)
    assert 0 < differs.sum() < 2000
    assert max(np.ptp(rows), np.ptp(columns)) < 40  # one small ring

    explorer.target.value = 0.7
    assert explorer.curve.value != before[0]
    assert explorer.heatmap.value == before[1]
    explorer.leverage.value = 20.0
    assert explorer.heatmap.value != before[1]
    moved = np.nonzero((plain != picture(explorer.heatmap.value, tmp_path)).any(axis=2))[1]
    assert moved.min() > columns.max()  # more leverage: further to the right


def test_going_back_shows_the_same_again(result: bt.Result) -> None:
    explorer = result.explore()
    before = explorer.answer.value, explorer.curve.value, explorer.heatmap.value
    explorer.pickers["side"].label = "short"
    assert explorer.answer.value != before[0]
    explorer.pickers["side"].label = "long"
    assert (explorer.answer.value, explorer.curve.value, explorer.heatmap.value) == before


def test_a_cell_shows_all_of_it(result: bt.Result) -> None:
    explorer = result.explore()
    bundle = explorer._repr_mimebundle_()
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id
    held = [*explorer.pickers.values(), explorer.horizon, explorer.leverage, explorer.target, explorer.answer]
    assert list(explorer.box.children[:-1]) == held
    assert list(explorer.box.children[-1].children) == [explorer.curve, explorer.heatmap]


def test_a_portfolio_has_a_picker_for_its_verdict() -> None:
    both = [history("A"), history("B", 200 - WAVE)]
    weights = [{"A": 0.5, "B": 0.5}, {"A": 0.5, "B": -0.5}]
    sweep = bt.Sweep(portfolio=weights, leverage=[5, 20], horizon=["1d"], maintenance=[0.005])
    result = bt.run(both, sweep)
    explorer = result.explore()
    assert list(explorer.pickers) == ["symbol", "verdict"]
    explorer.leverage.value = 20.0
    for verdict in ("worst", "close"):
        explorer.pickers["verdict"].label = verdict
        row = row_of(result, symbol="A=0.5 B=0.5", verdict=verdict, leverage=20.0)
        assert counted(row) in said(explorer)


def test_trades_with_leverages_of_their_own_have_none_to_set(tmp_path: Path) -> None:
    times = pd.date_range("1970-01-02", periods=40, freq="1D", tz="UTC")
    trades = pd.DataFrame({"entry_time": times, "leverage": np.tile([3.0, 30.0], 20)})
    trades.to_csv(tmp_path / "trades.csv", index=False)
    sweep = bt.Sweep(horizon=["8h", "1d"], maintenance=[0.005])
    result = bt.run(history(), sweep, entries=bt.Entries(file=str(tmp_path / "trades.csv")))
    explorer = result.explore(horizon="1d")
    assert explorer.leverage.disabled
    assert "survived at the leverage each trade had" in said(explorer)
    assert bytes(explorer.curve.value).startswith(b"\x89PNG")
    assert explorer.heatmap.layout.display == "none"
    result._repr_html_()


def test_a_leverage_that_cannot_be_opened_is_not_a_rate(tmp_path: Path) -> None:
    (tmp_path / "low.csv").write_text("floor,cap,mmr,deduction,max_leverage\n0,,0.01,0,10\n")
    sweep = bt.Sweep(
        leverage=[5, 10, 20],
        horizon=["1d"],
        maintenance=[str(tmp_path / "low.csv")],
        size=[{"notional": 1000}],
        side=["long"],
    )
    explorer = bt.run(history(), sweep).explore()
    assert explorer.pickers == {}
    explorer.leverage.value = 20.0
    assert "– survived: no position could be opened, or no window fits" in said(explorer)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"survival": 1.0}, "survival must lie between 0 and 1, such as 0.95; got 1"),
        ({"horizon": "2d"}, "horizon must be one of '8h', '1d', '3d' in this run; got '2d'"),
    ],
)
def test_what_the_run_does_not_hold_is_refused(result: bt.Result, asked: dict[str, object], message: str) -> None:
    with pytest.raises(bt.ConfigError, match=message):
        result.explore(**asked)


def test_without_ipywidgets_it_says_what_to_install(result: bt.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(bt.ConfigError, match=re.escape("pip install 'liquidation-backtest[notebook]'")):
        result.explore()


def test_a_result_shows_itself_as_tables_and_a_picture(result: bt.Result) -> None:
    page = result._repr_html_()
    chosen, survival = (
        [re.findall("<t[hd]>(.*?)</t[hd]>", line) for line in re.findall("<tr>(.*?)</tr>", table)]
        for table in re.findall("<table>(.*?)</table>", page)
    )
    assert chosen[0] == ["symbol", "side", "open fee", "funding", "8h", "1d", "3d"]
    assert len(chosen) == 1 + 2 * 2 * 2
    assert survival[0] == ["leverage", "8h", "1d", "3d"]
    assert [line[0] for line in survival[1:]] == ["2×", "5×", "10×", "20×"]
    row = row_of(result, side="long", open_fee=0.0, funding_scale=1.0, horizon="3d", leverage=10.0)
    assert survival[3][3].startswith(f"{100 * row['survival']:.1f} %")
    assert page.count("<img ") == 1
    assert 'alt="Survival of WAVE long' in page
