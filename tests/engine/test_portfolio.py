"""Cross margin: counts equal those of the literal walk, with ``==``, and what must hold of every portfolio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.config.models import Config
from backtest.config.portfolio_scenarios import expand_portfolios
from tests._support.histories import HOUR, history_of, random_rows, rows
from tests._support.portfolios import COUNTED, assert_matches_walk, count_all, shifted, table_of, works
from tests._support.tiers import write_all_tiers
from tests.oracles import cross as oracle
from tests.oracles.history import grid_of

FUNDINGS = [bt.Funding(), bt.Funding(scale=0.0), bt.Funding(scale=-3.0, shift=0.0004)]
SIZES = [bt.Size(notional=2_500.0), bt.Size(notional=20_000.0), bt.Size(margin=700.0), bt.Size(margin=20_000.0)]
LEVERAGES = [0.5, 1.0, 2.0, 3.0, 10.0, 25.0, 33.0, 100.0, 125.0]
WEIGHTS = [(1.0,), (-1.0,), (0.6, -0.4), (0.5, 0.5), (-0.3, 0.2, 0.5), (0.4, -0.1, -0.25, 0.25)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    return write_all_tiers(tmp_path_factory.mktemp("tiers"))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_counts_equal_the_literal_walk_on_every_axis(tables, data) -> None:
    weights = data.draw(st.sampled_from(WEIGHTS))
    made = [data.draw(rows()) for _ in weights]
    start = max(each.open_time_ms[0] for each in made)
    made = [shifted(m, (start - m.open_time_ms[0]) // HOUR - data.draw(st.integers(0, 6))) for m in made]
    assume(all(each.open_time_ms[0] >= 0 for each in made))
    trigger = data.draw(st.sampled_from([None, None, "last", "mark"]))
    maintenance = data.draw(st.sampled_from([0.0, 0.004, 0.03, *tables.values()]))
    # Funding scaled where a leg has none is refused.
    charged = all(any(rate is not None for rate in each.funding_rate or ()) for each in made)
    config = Config(
        sweep=bt.Sweep(
            portfolio=[{f"S{k}": w for k, w in enumerate(weights)}],
            leverage=data.draw(st.lists(st.sampled_from(LEVERAGES), min_size=1, max_size=3, unique=True)),
            horizon=data.draw(st.sampled_from([["1h"], ["7h", "2h", "1h"], ["3h", "30h"]])),
            maintenance=[maintenance],
            open_fee=[0.0, 0.002],
            funding=[data.draw(st.sampled_from(FUNDINGS if charged else FUNDINGS[:2]))],
            size=data.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=2, unique=True)),
        ),
        data=bt.Data(trigger=trigger, max_gap=data.draw(st.sampled_from([None, "1h", "2h"]))),
        entries=bt.Entries(every=data.draw(st.sampled_from([None, "2h"]))),
        margin=bt.Margin(
            basis=data.draw(st.sampled_from(["mark", "entry"])),
            close_reserve=data.draw(st.sampled_from([0.0, 0.0006])),
            fees_from_margin=data.draw(st.booleans()),
            margin_call_ratio=data.draw(st.sampled_from([0.8, 0.5, 1.0])),
        ),
        statistics=bt.Statistics(block=data.draw(st.sampled_from(["1h", "4h", "7d"]))),
    )
    try:
        oracle.common([grid_of(each, trigger=trigger) for each in made])
    except ValueError:
        with pytest.raises(bt.DataError):
            works([history_of(each, f"S{k}") for k, each in enumerate(made)], config)
        return
    assert_matches_walk(made, config)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("maintenance", ["0.01", "with", "without", "dated-with", "dated-without"])
def test_counts_equal_the_literal_walk_over_long_windows(tables, seed, maintenance) -> None:
    """Windows of many blocks, chunks that cut the history, spans that differ, entries on a stride."""
    weights = WEIGHTS[2 + seed]
    levels = [100.0, 3e-7, 5e6, 1.0]
    made = [shifted(random_rows(10 * seed + k, 900 - 40 * k, level=levels[k]), 17 * k) for k in range(len(weights))]
    config = Config(
        sweep=bt.Sweep(
            portfolio=[{f"S{k}": w for k, w in enumerate(weights)}],
            leverage=[2, 5, 20],
            horizon=["1h", "100h", "257h", "600h"],
            maintenance=[tables.get(maintenance, 0.01)],
            open_fee=[0.0005],
            size=[bt.Size(margin=700.0) if seed % 2 else bt.Size(notional=9_000.0)],
        ),
        entries=bt.Entries(every="13h"),
        margin=bt.Margin(basis="entry" if seed == 3 else "mark"),
    )
    assert_matches_walk(made, config, size=200 if seed else None)


@pytest.mark.parametrize("basis", ["mark", "entry"])
@pytest.mark.parametrize("maintenance", ["0.01", "with", "dated-with", "without"])
def test_scaled_maintenance_equals_the_literal_walk(tables, maintenance, basis) -> None:
    """Under a maintenance scale entries of one leverage differ in what is rejected, and deductions move by the bar."""
    rng = np.random.default_rng(3)
    made = [shifted(random_rows(70 + k, 300), 160) for k in range(3)]
    for k in (0, 2):
        scale = [None if u < 0.2 else float(u * 4) for u in rng.random(len(made[k].open_time_ms))]
        made[k] = replace(made[k], maintenance_scale=scale)
    config = Config(
        sweep=bt.Sweep(
            portfolio=[{"S0": 0.5, "S1": -0.2, "S2": -0.3}],
            leverage=[2, 5, 10, 20],
            horizon=["5h", "50h"],
            maintenance=[tables.get(maintenance, 0.01)],
            size=[bt.Size(margin=2_000.0), bt.Size(notional=9_000.0)],
        ),
        entries=bt.Entries(every="3h"),
        margin=bt.Margin(basis=basis, close_reserve=0.0005),
    )
    assert_matches_walk(made, config)


AXES = {
    "leverage": [1, 2, 5, 10, 20, 33, 50, 100],
    "horizon": ["1h", "30h", "300h"],
    "open_fee": [0.0, 0.0005],
    "funding": FUNDINGS[::2],
    "size": SIZES[1:3],
}


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("maintenance", ["0.01", "with", "without", "dated-with", "dated-without", "posted"])
def test_a_single_position_is_an_isolated_one_whose_margin_is_the_wallet(tables, maintenance, side) -> None:
    history = history_of(random_rows(5, 800), "S0")
    rule = (
        {"rule": "bybit-linear", "tiers": tables["with"]} if maintenance == "posted" else tables.get(maintenance, 0.01)
    )
    # A large fee to close, where one is posted, so that its rest in the margin call moves counts.
    margin = bt.Margin(taker_fee=0.03, margin_call_ratio=0.5) if maintenance == "posted" else bt.Margin()
    terms = {"data": bt.Data(max_gap="3h"), "entries": bt.Entries(every="2h"), "margin": margin}
    sweep = bt.Sweep(portfolio=[{"S0": 1.0 if side == "long" else -1.0}], maintenance=[rule], **AXES)
    got = table_of([history], Config(sweep=sweep, **terms))
    want = bt.run(history, bt.Sweep(side=[side], maintenance=[rule], **AXES), **terms).table
    assert want["liquidations"].sum() > 0
    assert want["margin_calls"].sum() > want["liquidations"].sum()
    for _, row in want.iterrows():
        scenario = [row[name] for name in ("maintenance", "open_fee", "funding_scale", "funding_shift", "size")]
        key = (sweep_label(sweep), None, *scenario, "worst", row["horizon"], row["leverage"])
        assert got[key] == [row[name] for name in COUNTED], key


def sweep_label(sweep: bt.Sweep) -> str:
    return expand_portfolios(Config(sweep=sweep))[0].portfolio.label


@pytest.mark.parametrize("seed", range(3))
def test_the_close_is_a_lower_and_the_worst_an_upper_bound(tables, seed) -> None:
    histories = [history_of(random_rows(40 + 3 * seed + k, 700), f"S{k}") for k in range(3)]
    portfolios = [{"S0": 0.5, "S1": -0.3, "S2": 0.2}, {"S2": 0.5, "S1": 0.5}]
    sweep = bt.Sweep(portfolio=portfolios, maintenance=[0.01, tables["with"], tables["without"]], **AXES)
    counts = table_of(histories, Config(sweep=sweep))
    worst = {key: row for key, row in counts.items() if "worst" in key}
    assert len(counts) == 2 * len(worst)
    strictly = 0
    for key, upper in worst.items():
        lower = counts[tuple("close" if part == "worst" else part for part in key)]
        assert lower[:3] == upper[:3]
        assert lower[3] <= upper[3]
        assert lower[4] <= upper[4]
        strictly += lower[4] < upper[4]
    assert strictly > len(worst) / 10


def test_higher_leverage_never_outlives_lower(tables) -> None:
    """At a fixed notional and at a fixed wallet: the threshold of a bar is one leverage (`engine.count_portfolio`)."""
    histories = [history_of(random_rows(60 + k, 700), f"S{k}") for k in range(2)]
    sweep = bt.Sweep(portfolio=[{"S0": 0.5, "S1": -0.5}], maintenance=[0.01, tables["with"]], **AXES)
    for work, members in works(histories, Config(sweep=sweep)):
        for _, table, i in count_all(work, members):
            gone = table["rejected"][i] + table["liquidations"][i]
            assert (np.diff(gone, axis=1) >= 0).all()


def test_a_position_split_over_copies_of_its_symbol_is_that_position() -> None:
    history = history_of(random_rows(8, 600), "S0")
    copies = [history, replace(history, symbol="S1"), replace(history, symbol="S2")]
    sweep = bt.Sweep(portfolio=[{"S0": 1.0}, {"S0": 0.2, "S1": 0.5, "S2": 0.3}], maintenance=[0.01], **AXES)
    counts = table_of(copies, Config(sweep=sweep))
    whole, split = ([row for key, row in counts.items() if (key[0] == "S0=1") == one] for one in (True, False))
    assert whole == split


def test_tables_of_chunks_add_up_and_legs_may_stand_in_any_order() -> None:
    histories = [history_of(random_rows(90 + k, 700), f"S{k}") for k in range(3)]
    weights = {"S0": 0.5, "S1": -0.3, "S2": 0.2}
    sweep = bt.Sweep(portfolio=[weights], maintenance=[0.01], **AXES)
    turned = sweep.model_copy(update={"portfolio": (dict(reversed(weights.items())),)})
    (work, members), (other, others) = (
        works(histories, Config(sweep=sweep))[0],
        works(histories, Config(sweep=turned))[0],
    )
    for (_, one, _), (_, small, _), (_, last, _) in zip(
        count_all(work, members), count_all(work, members, 37), count_all(other, others), strict=True
    ):
        assert one.first_block == small.first_block == last.first_block
        assert (one.counts == small.counts).all()
        assert (one.counts == last.counts).all()


def two_bars(symbol: str, low: float, high: float, close: float) -> bt.PriceHistory:
    """Entry at 100, then one bar."""
    bars = {"high": np.array([100.0, high]), "low": np.array([100.0, low]), "close": np.array([100.0, close])}
    return bt.PriceHistory(symbol, HOUR, 0, bars)


@pytest.mark.parametrize(
    ("leverage", "worst", "close"), [(6.24, 0, 0), (6.25, 1, 0), (20.8, 1, 0), (20.9, 1, 1), (999.0, 1, 1)]
)
def test_hand_derived_levels(leverage, worst, close) -> None:
    """0.6 long A from 100 to a low of 80 and a close of 96, 0.4 short B from 100 to a high of 110 and a close of 106.

    Per unit of gross notional, maintenance 0: worst −0.6·0.2 − 0.4·0.1 = −0.16, close −0.6·0.04 − 0.4·0.06 = −0.048:
    dead where 1/L ≤ 0.16, which holds from L = 6.25 on, an exact tie, or 1/L ≤ 0.048, from 20.83 on.
    """
    histories = [two_bars("A", 80.0, 100.0, 96.0), two_bars("B", 100.0, 110.0, 106.0)]
    sweep = bt.Sweep(
        portfolio=[{"A": 0.6, "B": -0.4}],
        leverage=[leverage],
        horizon=["1h"],
        maintenance=[0.0],
    )
    counts = table_of(histories, Config(sweep=sweep))
    assert [row[4] for row in counts.values()] == [worst, close]


def test_the_common_grid_is_what_all_symbols_have_and_its_cut_is_known() -> None:
    made = [shifted(random_rows(k, 100 + 50 * k, gaps=False), 10 * k) for k in range(3)]
    sweep = bt.Sweep(portfolio=[{"S0": 0.5, "S1": -0.3, "S2": 0.2}], leverage=[5], horizon=["5h"], maintenance=[0.01])
    [(work, _)] = works([history_of(m, f"S{k}") for k, m in enumerate(made)], Config(sweep=sweep))
    # Bars 0–99, 10–159 and 20–219: the common ones are 20–99.
    assert work.cut == {"S0": (20, 0), "S1": (10, 60), "S2": (0, 120)}
    assert (work.base.grid.start_ms, work.base.grid.n_bars) == (20 * HOUR, 80)
    assert work.base.bars.size == 80
    assert not any((leg.charge_bar < 1).any() for leg in work.legs)


def config_with(**sweep: object) -> Config:
    axes = {"portfolio": [{"S0": 0.5, "S1": -0.5}], "leverage": [5], "horizon": ["5h"], "maintenance": [0.01]}
    return Config(sweep=bt.Sweep(**(axes | sweep)))


def test_what_a_portfolio_does_not_take_is_refused(tmp_path) -> None:
    histories = [history_of(random_rows(k, 50), f"S{k}") for k in range(2)]
    with pytest.raises(bt.ConfigError, match=r"sweep\.portfolio: there is no 'X'; there are S0, S1"):
        works(histories, config_with(portfolio=[{"S0": 0.5, "X": 0.5}]))
    late = history_of(shifted(random_rows(1, 50), 1_000), "S1")
    with pytest.raises(bt.DataError, match="no common span: S0 1970-01-01"):
        works([histories[0], late], config_with())
    (tmp_path / "coin.csv").write_text("floor,cap,mmr,deduction\n0,,0.01,0\n")
    coin = {"rule": "binance-coinm", "tiers": str(tmp_path / "coin.csv")}
    with pytest.raises(bt.ConfigError, match=r"sweep\.maintenance: 'coin' is for inverse contracts"):
        works(histories, config_with(maintenance=[coin], size=[bt.Size(margin=1.0)]))
    with pytest.raises(bt.ConfigError, match="slopes with size"):
        works(histories, config_with(maintenance=["deribit-linear"], size=[bt.Size(notional=1_000.0)]))
    with pytest.raises(bt.RuleError, match="'S0' is packaged"):
        works(histories, config_with(maintenance=["binance-usdm"], size=[bt.Size(notional=1_000.0)]))
    (tmp_path / "late.csv").write_text("effective_from,floor,cap,mmr\n1970-01-02,0,,0.01\n")
    with pytest.raises(bt.RuleError, match="before the first date of the tier table 'late'"):
        works(histories, config_with(maintenance=[str(tmp_path / "late.csv")], size=[bt.Size(notional=1_000.0)]))


def test_rule_names_take_the_table_of_each_symbol() -> None:
    config = config_with(
        portfolio=[{"BTCUSDT": 0.5, "ETHUSDT": -0.5}], maintenance=["binance-usdm"], size=[bt.Size(margin=1_000.0)]
    )
    for scenario in expand_portfolios(config):
        assert [rule.tables[-1].table.name for rule in scenario.maintenance] == ["BTCUSDT", "ETHUSDT"]
        assert scenario.columns()["maintenance"] == "binance-usdm"
