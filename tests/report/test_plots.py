"""The plots show one scenario of a table, and refuse what the table does not hold."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from backtest.errors import ConfigError
from backtest.report.plots import (
    Plots,
    plot_band,
    plot_curves,
    plot_heatmap,
    plot_leverage,
    plot_policies,
    scenario_words,
    select,
)
from backtest.report.scenario_selection import usual_leverages
from tests._support.run_tables import HORIZONS, LEVERAGES, outcomes_table, portfolio_table, survival_table


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return survival_table()


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_first_value_of_each_axis_is_chosen_unless_named(table):
    rows = select(table)
    assert len(rows) == len(HORIZONS) * len(LEVERAGES)
    assert scenario_words(rows) == "BTCUSDT long · maintenance 0.4 % · fee 0.02 % · funding as charged"
    rows = select(table, side="short", maintenance="binance-usdm", funding={"scale": 2.0, "shift": 0.0001})
    assert scenario_words(rows) == (
        "BTCUSDT short · maintenance binance-usdm · fee 0.02 % · funding × 2 + 0.01 % per charge"
    )
    assert len(select(table, maintenance=0.004, funding=2)) == len(HORIZONS) * len(LEVERAGES)


def test_size_and_axes_of_later_features_are_said_in_words():
    table = survival_table(size="notional=10000")
    table.insert(7, "policy", "stop_loss(distance=0.05)")
    table.insert(7, "weight", "target=0.6 window=30d cap=2")
    assert scenario_words(select(table, size="notional=10000")).endswith(
        "· notional 10,000 · leverage × 60 % / volatility of 30d, at most × 2 · policy stop-loss 5 %"
    )


def test_later_axes_are_picked_by_their_label():
    table = survival_table()
    tables = [table.assign(policy=policy, verdict=verdict) for policy in ("a", "b") for verdict in ("worst", "close")]
    table = pd.concat(tables)
    table = table[[*table.columns[:7], "policy", "verdict", *table.columns[7:-2]]]
    assert set(select(table)["policy"]) == {"a"}
    assert set(select(table, policy="b")["policy"]) == {"b"}
    assert set(select(table, policy="b", every=("verdict",))["verdict"]) == {"worst", "close"}
    title = Plots(table).heatmap(policy="b", verdict="close").get_title(loc="left")
    assert "policy b · verdict close" in title.replace("\n", " ")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"side": "up"}, r"side must be one of 'long', 'short' in this run; got 'up'"),
        ({"maintenance": 0.01}, r"maintenance must be one of '0.004', 'binance-usdm'.*got '0.01'"),
        ({"open_fee": 0.5}, r"open_fee must be one of 0.0002 in this run; got 0.5"),
        ({"funding": 3.0}, r"funding_scale must be one of 1, 2 .*got 3"),
        ({"funding": {"rate": 1.0}}, r"funding must .*'scale' and 'shift'; got 'rate'"),
        ({"size": "margin=1"}, r"size must be one of null .*got 'margin=1'"),
        ({"policy": "none"}, r"policy is no axis of this run; got 'none'"),
    ],
)
def test_unknown_selections_are_refused_with_the_choices(table, selection, message):
    with pytest.raises(ConfigError, match=message):
        select(table, **selection)


def test_a_table_without_rows_is_refused(table):
    with pytest.raises(ConfigError, match="at least one row"):
        plot_heatmap(table.iloc[:0])


def test_leverage_draws_a_curve_per_horizon_shortest_first(table):
    ax = plot_leverage(table)
    assert len(ax.lines) == 3
    assert sorted(texts(ax)) == ["1d", "7d", "8h", "held for"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("leverage", "survived", "log")
    assert ax.get_title(loc="left").startswith("BTCUSDT long")
    short = ax.lines[0].get_ydata()
    assert short[7] == select(table).query("horizon == '8h' and leverage == 10")["survival"].item()
    assert np.isnan(short[-1])
    assert ax.get_legend() is None


def test_horizons_match_by_duration(table):
    assert len(plot_leverage(table, horizon="24h").lines) == 1
    assert len(plot_leverage(table, horizon=["24h", "1w"]).lines) == 2
    with pytest.raises(ConfigError, match=r"horizon must be one of '8h', '1d', '7d' in this run; got '30d'"):
        plot_leverage(table, horizon="30d")


def test_curves_start_at_one_and_end_at_the_horizon(table):
    ax = plot_curves(table, horizon="1d")
    assert len(ax.lines) == 6
    assert list(ax.lines[0].get_xdata()) == [0, 8 * 3_600_000, 24 * 3_600_000]
    assert all(line.get_ydata()[0] == 1.0 for line in ax.lines)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "8h", "1d"]
    assert {"2×", "50×", "leverage"} <= set(texts(ax))
    assert len(plot_curves(table, leverage=[4, 25]).lines) == 2
    with pytest.raises(ConfigError, match=r"leverage must be one of 1, 2, .*got 7"):
        plot_curves(table, leverage=7)


def test_heatmap_has_a_row_per_horizon_and_lines_at_levels(table):
    ax = plot_heatmap(table)
    assert ax.collections[0].get_array().shape == (3, 20)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["8h", "1d", "7d"]
    assert texts(ax) == ["50 %", "90 %", "95 %", "99 %"]
    # the line at 95 % stands, for each horizon, right of the last leverage up to which all reach 95 %
    line = ax.lines[2]
    rows = select(table, side="long")
    for height, horizon in enumerate(["8h", "1d", "7d"]):
        curve = rows[rows["horizon"] == horizon].sort_values("leverage")
        count = int((curve["survival"] >= 0.95).cummin().sum())
        x = line.get_xdata()[line.get_ydata() == height]
        assert LEVERAGES[count - 1] < x[0] < LEVERAGES[count]


def test_few_blocks_are_dashed_and_said(table):
    few = table.assign(few_blocks=table["horizon"] == "7d")
    ax = plot_leverage(few)
    assert [line.is_dashed() for line in ax.lines if np.isfinite(line.get_ydata()).any()] == [False, False, True]
    assert "few blocks" in ax.get_legend().get_texts()[0].get_text()
    over_time = plot_curves(few, leverage=10)
    solid, dashed = (line.get_ydata() for line in over_time.lines)
    assert np.isfinite(solid).tolist() == [True, True, True, False]
    assert np.isfinite(dashed).tolist() == [False, False, True, True]
    assert plot_heatmap(few).get_yticklabels()[2].get_text() == "7d\nfew blocks"


@pytest.mark.parametrize("draw", [plot_leverage, plot_heatmap, plot_curves])
@pytest.mark.parametrize(
    "query", ["leverage == 10", "horizon == '1d'", "leverage == 125", "leverage == 10 and horizon == '1d'"]
)
def test_small_and_empty_grids_are_drawn(table, draw, query):
    draw(table.query(query)).figure.canvas.draw()


@pytest.mark.parametrize("draw", [plot_leverage, plot_heatmap, plot_curves])
def test_an_axes_given_is_used(table, draw):
    ax = Figure().subplots()
    assert draw(table, ax=ax) is ax
    assert draw(table) is not ax


def test_importing_is_light_and_drawing_leaves_pyplot_alone():
    code = (
        "import sys, backtest.report.plots as plots\n"
        "assert not {'matplotlib', 'pandas', 'numpy'} & set(sys.modules)\n"
        "from tests._support.run_tables import survival_table\n"
        "[draw(survival_table()) for draw in (plots.plot_leverage, plots.plot_heatmap, plots.plot_curves)]\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_trades_with_their_own_leverage_and_side_have_curves_only(table):
    own = select(table).query("leverage == 10").assign(leverage=np.nan, side=None)
    ax = plot_curves(own)
    assert "each its own" in texts(ax)
    assert ax.get_title(loc="left").startswith("trades on BTCUSDT")
    with pytest.raises(ConfigError, match="leverage must be an axis"):
        plot_leverage(own)


def test_a_hostile_symbol_is_text_and_not_mathematics():
    plot_leverage(survival_table("$\\frac{$")).figure.canvas.draw()


def test_the_accessor_passes_every_argument_on(table):
    plots = Plots(table)
    choice = {"side": "short", "maintenance": "binance-usdm", "open_fee": 0.0002, "funding": 2.0, "symbol": "BTCUSDT"}
    for ax in (
        plots.leverage(horizon="1d", **choice),
        plots.heatmap(**choice),
        plots.curves(leverage=5, horizon="1d", **choice),
    ):
        assert ax.get_title(loc="left").startswith("BTCUSDT short · maintenance binance-usdm")


def test_the_accessor_shows_the_arguments_of_its_plots(table):
    assert list(inspect.signature(Plots(table).curves).parameters) == ["leverage", "horizon", "ax", "scenario"]
    assert Plots.curves.__doc__ == plot_curves.__doc__


def test_usual_leverages_fall_back_to_an_even_choice(table):
    rows = select(table)
    assert usual_leverages(rows) == [2, 3, 5, 10, 20, 50]
    assert usual_leverages(rows[rows["leverage"] > 50]) == [60, 75, 90, 100, 125]


def test_required_margin_is_survival_read_at_one_over_leverage(table):
    ax = Plots(table).required_margin(horizon="7d")
    line = ax.get_lines()[0]
    rows = select(table)
    rows = rows[rows["horizon"] == "7d"].sort_values("leverage")
    np.testing.assert_array_equal(line.get_xdata(), 1 / rows["leverage"])
    np.testing.assert_array_equal(line.get_ydata(), rows["survival"])
    assert ax.xaxis_inverted()
    assert ax.get_xlabel() == "initial margin rate"


def test_the_band_lies_between_the_verdicts_with_worst_as_the_line():
    table = portfolio_table()
    ax = plot_band(table, horizon="7d")
    worst, close = (
        table[(table["verdict"] == name) & (table["horizon"] == "7d")]["survival"].to_numpy()
        for name in ("worst", "close")
    )
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), worst)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), close)
    low, high = (f(ax.collections[0].get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    assert (low, high) == (np.nanmin(worst), np.nanmax(close))
    assert "verdict" not in ax.get_title(loc="left")
    assert ax.get_legend().get_texts()[0].get_text() == "each leg at its own worst price at once"
    assert len(Plots(table).band().figure.axes) == 1


def test_a_band_needs_both_verdicts(table):
    with pytest.raises(ConfigError, match=r"those of portfolios do \(sweep.portfolio\)"):
        plot_band(table)
    with pytest.raises(ConfigError, match=r"none can be chosen; got 'close'"):
        plot_band(portfolio_table(), verdict="close")


def test_policies_have_a_curve_each_in_survival_and_in_returns():
    rows, outcomes = outcomes_table()
    ax = Plots(rows, outcomes).policies(horizon="1d")
    above, below = ax.figure.axes
    assert ax is above
    assert [line.get_ydata().tolist() for line in above.lines] == [[0.8, 0.8], [0.9, 0.9]]
    assert [line.get_ydata().tolist() for line in below.lines[:2]] == [[0.02, 0.02], [0.03, 0.03]]
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["none", "stop-loss 5 %"]
    assert len({(line.get_color(), line.get_marker()) for line in above.lines}) == 2
    assert ax.get_title(loc="left").endswith("held 1d")
    assert len(plot_policies(outcomes, policy="none").lines) == 1


def test_policies_need_outcomes(table):
    with pytest.raises(ConfigError, match=r"statistics\.outcomes = true"):
        Plots(table).policies()
    with pytest.raises(ConfigError, match=r"survival\.parquet knows of no returns"):
        plot_policies(table)


def test_outcomes_of_static_rules_are_one_curve():
    _, outcomes = outcomes_table()
    one = outcomes[outcomes["policy"] == "none"].drop(columns="policy")
    assert plot_policies(one).figure.axes[1].get_legend() is None


def test_many_policies_stay_apart():
    _, outcomes = outcomes_table()
    one = outcomes[outcomes["policy"] == "none"]
    many = pd.concat([one.assign(policy=f"confirm_bars={k}") for k in range(1, 10)])
    lines = plot_policies(many).lines
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 9
    plot_policies(many).figure.canvas.draw()


def test_an_unknown_axis_is_refused_by_name(table):
    with pytest.raises(TypeError, match="'leg' is no axis of a run"):
        Plots(table).heatmap(leg="BTCUSDT")


def test_a_long_title_breaks_between_legs_and_parts():
    legs = " ".join(f"COIN{k}USDT=0.125" for k in range(8))
    title = plot_band(portfolio_table().assign(symbol=legs)).get_title(loc="left")
    assert all(line.endswith((",", " ·")) for line in title.split("\n")[:-1])
    assert max(map(len, title.split("\n"))) < 85
