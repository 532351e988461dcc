"""Curves per value of an axis, the values that an axis has, and one Axes for plots of two pictures."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from backtest.errors import ConfigError
from backtest.report.plots import Plots, plot_compared, plot_heatmap, plot_leverage, plot_policies
from backtest.report.scenario_selection import select, select_part, varying
from tests._support.run_tables import LEVERAGES, outcomes_table, portfolio_table, survival_table


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return survival_table()


def test_the_parts_of_all_axes_together_are_the_table(table: pd.DataFrame) -> None:
    """2 sides × 2 maintenance rates × 2 fundings: each row of the table is in exactly one combination."""
    found = varying(table)
    assert list(found) == ["side", "maintenance", "funding"]
    assert [words for words, _ in found["funding"]] == ["as charged", "× 2 + 0.01 % per charge"]
    assert [words for words, _ in found["maintenance"]] == ["0.4 %", "binance-usdm"]
    rows = []
    for parts in itertools.product(*([part for _, part in values] for values in found.values())):
        one = select_part(table, {name: value for part in parts for name, value in part.items()})
        assert len(one) == 3 * len(LEVERAGES)
        rows.append(one)
    assert sorted(pd.concat(rows).index) == sorted(table.index)


def test_null_is_a_value_of_an_axis_like_any_other(table: pd.DataFrame) -> None:
    both = pd.concat([table, survival_table(size="notional=10000")], ignore_index=True)
    values = varying(both)["size"]
    assert values == [("–", {"size": None}), ("notional 10,000", {"size": "notional=10000"})]
    assert [len(select_part(both, part)) for _, part in values] == [len(table), len(table)]


def test_a_curve_per_value_with_its_band(table: pd.DataFrame) -> None:
    ax = plot_compared(table, "side", horizon="24h", maintenance="binance-usdm")
    assert len(ax.lines) == len(ax.collections) == 2
    drawn = [line.get_ydata() for line in ax.lines]
    for side, values, band in zip(("long", "short"), drawn, ax.collections, strict=True):
        rows = select(table, side=side, maintenance="binance-usdm").query("horizon == '1d'")
        np.testing.assert_array_equal(values, rows["survival"])
        edge = band.get_paths()[0].vertices[:, 1]
        assert (edge.min(), edge.max()) == (rows["survival_low"].min(), rows["survival_high"].max())
    assert not np.array_equal(*drawn, equal_nan=True)
    assert sorted(text.get_text() for text in ax.texts) == ["long", "short", "side"]
    words = "BTCUSDT · maintenance binance-usdm · fee 0.02 % · funding as charged · held 1d"
    assert ax.get_title(loc="left").replace("\n", " ") == words


@pytest.mark.parametrize(
    ("axis", "title"),
    [
        ("side", "BTCUSDT · maintenance 0.4 % · fee 0.02 % · funding as charged · held 7d"),
        ("funding", "BTCUSDT long · maintenance 0.4 % · fee 0.02 % · held 7d"),
    ],
)
def test_the_title_does_not_speak_of_what_differs(table: pd.DataFrame, axis: str, title: str) -> None:
    assert Plots(table).compared(axis).get_title(loc="left").replace("\n", " ") == title


def test_portfolios_are_compared_by_symbol_a_leg_per_line() -> None:
    one = portfolio_table()
    other = one.assign(symbol="BTCUSDT=1")
    ax = plot_compared(pd.concat([one, other], ignore_index=True), "symbol", verdict="close")
    labels = {text.get_text() for text in ax.texts}
    assert {"BTCUSDT 60 % long\nETHUSDT 40 % short", "BTCUSDT 100 % long"} <= labels
    assert ax.get_title(loc="left").startswith("portfolios · ")


def test_labels_of_several_lines_do_not_run_into_each_other() -> None:
    """Three labels of two lines at the same height: their middles are two lines apart, 0.104 of the axis."""
    one = portfolio_table()
    tables = [one.assign(symbol=f"BTCUSDT={w:g} ETHUSDT={1 - w:g}") for w in (0.2, 0.4, 0.6)]
    ax = plot_compared(pd.concat(tables, ignore_index=True), "symbol")
    heights = sorted(text.xyann[1] for text in ax.texts if "\n" in text.get_text())
    low, high = ax.get_ylim()
    assert np.diff(heights) == pytest.approx([0.104 * (high - low)] * 2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"axis": "open_fee"}, "axis must be one with several values, side, maintenance, funding; got 'open_fee'"),
        ({"axis": "side", "side": "long"}, "side: its values are compared, none can be chosen; got 'long'"),
        ({"axis": "side", "horizon": "2d"}, "horizon must be one of '8h', '1d', '7d' in this run; got '2d'"),
    ],
)
def test_what_cannot_be_compared_is_refused(table: pd.DataFrame, asked: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plot_compared(table, **asked)


def test_policies_share_the_place_of_the_axes_they_get() -> None:
    _, outcomes = outcomes_table()
    left, right = Figure(layout="constrained").subplots(1, 2)
    assert plot_policies(outcomes, ax=right) is right
    figure = right.figure
    assert len(figure.axes) == 3
    figure.canvas.draw()
    below = figure.axes[2].get_position()
    assert below.y1 < right.get_position().y0
    assert below.x0 > left.get_position().x1
    with pytest.raises(ConfigError, match="grid of subplots"):
        plot_policies(outcomes, ax=Figure().add_axes((0, 0, 1, 1)))


def test_a_leverage_without_entries_is_no_sign_of_few_blocks(table: pd.DataFrame) -> None:
    """125× is always rejected: it has too few blocks, and nothing that would be drawn dashed."""
    rejected = table.assign(few_blocks=table["leverage"] == 125)
    assert plot_leverage(rejected).get_legend() is None
    assert [label.get_text() for label in plot_heatmap(rejected).get_yticklabels()] == ["8h", "1d", "7d"]
