"""The distribution of required margins: what a run counts at any leverage, and the leverage at any survival."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.analysis.required_margin import leverage_at, samples
from backtest.analysis.study_inputs import StudyInputs
from backtest.config.policies import Policy, VolatilityTarget
from backtest.report.plots import plot_required
from backtest.report.terminal import required_text
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of, random_rows, rows
from tests._support.judge import grid_or_none
from tests._support.tiers import write_tiers
from tests.cli.conftest import typed

LEVERAGES = [0.5, 1.0, 2.0, 3.0, 10.0, 25.0, 33.0, 50.0, 100.0]
NOTIONALS = [bt.Size(notional=1_500.0), bt.Size(notional=9_000.0, extra=150.0), bt.Size(notional=200_000.0)]
MARGINS = [bt.Size(margin=700.0), bt.Size(margin=90.0, extra=40.0)]
WEIGHTS = [
    VolatilityTarget(),
    VolatilityTarget(target=0.4, window="3h", cap=3.0),
    VolatilityTarget(target=2.0, window="6h", cap=1.0),
]
AXES = ["symbol", "side", "maintenance", "open_fee", "funding_scale", "funding_shift", "size", "horizon"]
FLAT = bt.Sweep(leverage=LEVERAGES, horizon=["7h", "2h"], maintenance=[0.01], open_fee=[0.001], side=["long", "short"])
many = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tiers")
    names = ("with", "without", "dated-with", "dated-without")
    return {name: write_tiers(folder / f"{name}.csv") for name in names}


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("market")
    bt.write_history(history_of(random_rows(4, 600)), folder / "data")
    keys = '[data]\npath = "data"\n[sweep]\nhorizon = ["8h", "1d"]\nmaintenance = [0.004]\n'
    (folder / "run.toml").write_text(keys)
    return str(folder / "run.toml")


def assert_same_counts(history: bt.PriceHistory, sweep: bt.Sweep, **parts: object) -> None:
    """At each leverage of a run: who is dead or rejected, and who is in the cohort."""
    table = bt.run(history, sweep, **parts).table
    names = [*AXES, *(["weight"] if "weight" in table else [])]
    asked = samples(StudyInputs(history, sweep, **parts))
    found = {tuple(str(sample.labels[name]) for name in names): sample for sample in asked}
    assert len(table) == len(found) * len(sweep.leverage)
    for row in table.to_dict("records"):
        sample = found[tuple(str(None if pd.isna(row[name]) else row[name]) for name in names)]
        assert sample.rates.size == row["entries"] + row["rejected"]
        gone = int(np.count_nonzero(sample.rates >= 1 / row["leverage"]))
        assert gone == row["liquidations"] + row["rejected"], row
        assert (row["rejected"] > 0) == (row["leverage"] >= sample.rejected_from and sample.rates.size > 0), row


def drawn_run(data: st.DataObject, **axes: object) -> tuple[bt.PriceHistory, bt.Sweep]:
    made = data.draw(rows())
    grid = grid_or_none(made, None)
    assume(grid is not None and any(map(grid.is_entry, range(len(grid.open_time_ms)))))
    sweep = bt.Sweep(
        side=["long", "short"],
        leverage=LEVERAGES,
        horizon=data.draw(st.sampled_from([["1h"], ["7h", "2h"], ["3h", "30h"]])),
        open_fee=data.draw(st.sampled_from([[0.0], [0.002, 0.0]])),
        **axes,
    )
    longest = max((duration_ms(each.window) // HOUR for each in sweep.weight if each.window), default=0)
    assume(len(grid.open_time_ms) > longest)
    return history_of(made), sweep


@many
@given(data=st.data())
def test_counts_of_flat_rates_and_tables_at_every_leverage(tables, data) -> None:
    name = data.draw(st.sampled_from([None, *tables]))
    sizes = NOTIONALS if name is not None and name.endswith("without") else [*NOTIONALS, *MARGINS]
    contract = data.draw(st.sampled_from(["linear", "inverse"]))
    history, sweep = drawn_run(
        data,
        maintenance=[data.draw(st.sampled_from([0.0, 0.004, 0.03])) if name is None else tables[name]],
        size=data.draw(st.lists(st.sampled_from(sizes), min_size=1, max_size=2, unique=True)),
        weight=data.draw(st.sampled_from([[], WEIGHTS])),
        funding=[bt.Funding(), bt.Funding(scale=0.0)],
    )
    margin = bt.Margin(
        contract=contract,
        basis=data.draw(st.sampled_from(["mark", "entry"])),
        close_reserve=data.draw(st.sampled_from([0.0, 0.0006])),
        fees_from_margin=data.draw(st.booleans()),
    )
    gap = bt.Data(max_gap=data.draw(st.sampled_from([None, "2h"])))
    assert_same_counts(history, sweep, margin=margin, data=gap)


@many
@given(data=st.data())
def test_counts_of_named_rules(tables, data) -> None:
    name = data.draw(st.sampled_from(["bybit-linear", "bybit-inverse", "deribit-linear", "deribit-inverse"]))
    item = {"rule": name, "tiers": tables["dated-with"]} if name.startswith("bybit") else name
    history, sweep = drawn_run(
        data,
        maintenance=[item],
        size=[data.draw(st.sampled_from([*NOTIONALS, *MARGINS]))],
        weight=data.draw(st.sampled_from([[], WEIGHTS[1:]])),
    )
    assert_same_counts(history, sweep)


@many
@given(data=st.data())
def test_counts_of_spot_margin(data) -> None:
    history, sweep = drawn_run(data)
    ltv, call, rate = data.draw(st.sampled_from([(0.9, 0.8, 0.0), (0.85, 0.7, 0.002)]))
    margin = bt.Margin(contract="spot", liquidation_ltv=ltv, margin_call_ltv=call, borrow_rate=rate)
    assert_same_counts(history, sweep, margin=margin)


def test_a_tie_is_dead_at_its_leverage_and_lives_below() -> None:
    """A fall of 9 % under a rate of 1 % at 10×: equity meets maintenance to the last digit."""
    low = np.array([100.0, 100.0 * 0.9 / 0.99, 100.0, 100.0])
    history = bt.PriceHistory("TIE", HOUR, 0, {"high": np.full(4, 100.0), "low": low, "close": np.full(4, 100.0)})
    sweep = bt.Sweep(side=["long"], leverage=[9.99, 10, 10.01], horizon=["1h"], maintenance=[0.01])
    assert_same_counts(history, sweep)
    frame = bt.required_margin(history, sweep, quantiles=[2 / 3, 1.0])
    assert frame["entries"].tolist() == [3, 3]
    assert frame["required_margin"].tolist() == pytest.approx([0.01, 0.1], rel=1e-8)
    assert frame["rejected_from"].tolist() == pytest.approx([100, 100], rel=1e-8)
    assert 9.99 < frame["leverage"][1] < 10
    assert (1 / frame["leverage"] > frame["required_margin"]).all()
    assert (1 / np.nextafter(frame["leverage"], np.inf) <= frame["required_margin"]).all()
    assert frame["survival"].tolist() == [2 / 3, 1.0]


def test_a_run_at_the_leverage_found_meets_the_target_and_just_above_it_does_not() -> None:
    history = history_of(random_rows(3, 3_000))
    targets = [0.3, 0.5, 0.9, 0.95, 0.99, 1.0]
    frame = bt.required_margin(history, FLAT, quantiles=targets, workers=3)
    assert len(frame) == 2 * 2 * len(targets)
    for row in frame.itertuples():
        near = {"side": (row.side,), "horizon": (row.horizon,)}
        # The paths may differ by 1e-12 of the threshold (docs/semantics.md §10).
        below, above = ((row.leverage * factor,) for factor in (1 - 1e-11, 1 + 1e-11))
        lives = [_lives(history, FLAT.model_copy(update=near | {"leverage": at})) for at in (below, above)]
        assert lives[0] == row.survival >= row.quantile > lives[1]


def _lives(history: bt.PriceHistory, sweep: bt.Sweep) -> float:
    row = bt.run(history, sweep).table.iloc[0]
    return (row["entries"] - row["liquidations"]) / (row["entries"] + row["rejected"])


def test_chunks_and_threads_change_nothing(monkeypatch) -> None:
    history = history_of(random_rows(5, 900, funding=False))
    whole = bt.required_margin(history, FLAT, workers=1)
    monkeypatch.setattr("backtest.engine.cohorts.CHUNK_BARS", 37)
    pd.testing.assert_frame_equal(bt.required_margin(history, FLAT, workers=4), whole)


@given(
    st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.1, 1 / 3, 0.7, math.inf]), min_size=1, max_size=30),
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4),
)
def test_the_leverage_at_a_target_is_the_largest_float_that_meets_it(rates, targets) -> None:
    needed = np.array(rates)
    for target, leverage in zip(targets, leverage_at(needed, targets), strict=True):

        def share(at: float) -> float:
            return np.count_nonzero(needed < 1 / at) / needed.size

        if math.isnan(leverage):
            assert share(1e-300) < target
        elif math.isinf(leverage):
            assert share(1e300) >= target
        else:
            assert share(leverage) >= target > share(np.nextafter(leverage, np.inf))


def test_targets_move_leverage_one_way_and_name_what_is_missing() -> None:
    history = history_of(random_rows(7, 400))
    frame = bt.required_margin(history, FLAT.model_copy(update={"horizon": ("2h", "9000h")}))
    for _, part in frame.groupby(["side", "horizon"]):
        assert part["leverage"].dropna().is_monotonic_decreasing
    missing = frame[frame["horizon"] == "9000h"]
    assert (missing["entries"] == 0).all() and missing[["required_margin", "leverage", "survival"]].isna().all(
        axis=None
    )


def test_what_cannot_be_opened_at_all_needs_infinite_margin(tables) -> None:
    history = history_of(random_rows(7, 400))
    sweep = FLAT.model_copy(update={"maintenance": (tables["with"],), "size": (bt.Size(notional=70_000.0),)})
    frame = bt.required_margin(history, sweep)
    assert np.isinf(frame["required_margin"]).all() and (frame["critical_leverage"] == 0).all()
    assert frame[["leverage", "survival"]].isna().all(axis=None)


def test_trades_with_leverages_of_their_own_are_asked_at_one(tmp_path) -> None:
    history = history_of(random_rows(2, 300))
    moments = pd.to_datetime([40 * HOUR, 41 * HOUR, 120 * HOUR, 121 * HOUR], unit="ms", utc=True)
    file = tmp_path / "t.csv"
    pd.DataFrame(
        {"entry_time": moments, "side": ["long", "short", "long", "short"], "leverage": [3.0, 40.0, 1.5, 7.0]}
    ).to_csv(file, index=False)
    entries = bt.Entries(file=str(file))
    sweep = bt.Sweep(horizon=["100h"], maintenance=[0.01], open_fee=[0.001])
    events = bt.events_of(history, sweep, entries=entries)
    (sample,) = samples(StudyInputs(history, sweep, entries=entries))
    assert sample.labels["side"] is None
    np.testing.assert_allclose(np.sort(1 / sample.rates), np.sort(events["critical_leverage"]), rtol=1e-12)


def test_what_no_rate_decides_is_refused_by_its_key(tables) -> None:
    history = history_of(random_rows(1, 60))
    rest = {"horizon": ["2h"], "maintenance": [0.01]}
    for key, sweep in (
        ("policy", bt.Sweep(**rest, policy=[Policy(confirm_bars=2)])),
        ("portfolio", bt.Sweep(**rest, portfolio=[{"A": 0.5, "B": 0.5}])),
        ("size", bt.Sweep(**rest | {"maintenance": [0.01, tables["without"]]}, size=[bt.Size(margin=700.0)])),
    ):
        with pytest.raises(bt.ConfigError, match=rf"^sweep\.{key}: .* no single margin rate|^sweep\.{key}: no single"):
            bt.required_margin(history, sweep)


@pytest.mark.parametrize("quantiles", [[0.0], [1.5], [math.nan], []])
def test_quantiles_are_shares(quantiles) -> None:
    with pytest.raises(bt.ConfigError, match=r"within \(0, 1\]"):
        bt.required_margin(history_of(random_rows(1, 60)), FLAT, quantiles=quantiles)


def test_the_command_line_prints_what_the_function_finds(market, tmp_path) -> None:
    frame = bt.required_margin(market, quantiles=[0.95, 0.5])
    done = typed("required", market, "--survival", "0.95", "--survival", "0.5", "--json")
    assert (done.code, done.err) == (0, "")
    found = pd.DataFrame(json.loads(done.out)["required"])
    assert found["leverage"].tolist() == frame["leverage"].tolist()
    text = typed("required", market, "--survival", "0.95").out
    assert "95 %" in text and "no window fits" not in text
    assert typed("required", market, "--survival", "2").code == 2
    assert "must be a .toml file" in typed("required", tmp_path).err


def test_what_has_no_number_is_said_in_words_and_null(tables) -> None:
    history = history_of(random_rows(7, 400))
    keys = {"size": (bt.Size(notional=1_500.0), bt.Size(notional=70_000.0)), "weight": WEIGHTS[1:2]}
    sweep = FLAT.model_copy(update=keys | {"maintenance": (tables["with"],), "horizon": ("2h", "9000h")})
    text = required_text(bt.required_margin(history, sweep, quantiles=[0.01, 0.99]))
    assert "none" in text and "no window fits" in text and "†" in text


def test_leverage_is_rounded_down_and_margin_up() -> None:
    frame = bt.required_margin(history_of(random_rows(3, 900)), FLAT, quantiles=[0.95])
    cells = re.findall(r"([\d.]+)× \(([\d.]+) %\)", required_text(frame))
    assert len(cells) == len(frame)
    order = frame.sort_values(["side", "horizon"])
    for (leverage, rate), row in zip(cells, order.itertuples(), strict=True):
        assert row.leverage * 0.999 < float(leverage) <= row.leverage
        assert row.required_margin <= float(rate) / 100 < row.required_margin * 1.001


def test_the_curve_stands_where_the_frame_does() -> None:
    frame = bt.required_margin(history_of(random_rows(3, 900)), FLAT, quantiles=np.linspace(0.01, 1, 100))
    ax = plot_required(frame, side="short")
    assert len(ax.lines) == 2 and ax.get_xscale() == "log"
    part = frame[(frame["side"] == "short") & (frame["horizon"] == "2h")].sort_values("leverage")
    assert ax.lines[0].get_xdata()[1:].tolist() == part["leverage"].tolist()
    assert ax.lines[0].get_ydata()[1:].tolist() == part["survival"].tolist()
    with pytest.raises(bt.ConfigError, match=r"backtest\.required_margin"):
        plot_required(bt.run(history_of(random_rows(3, 60)), FLAT).table)
