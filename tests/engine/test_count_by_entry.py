"""Scenarios whose positions differ by entry equal the literal walk, in counts and in events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.config.policies import VolatilityScale, VolatilityTarget
from tests._support.histories import HOUR, history_of, random_rows, rows
from tests._support.judge import JudgedRun, assert_equals_walk, bars_in, grid_or_none
from tests._support.tiers import oracle_tiers, write_all_tiers
from tests.oracles import volatility
from tests.oracles import walk as oracle
from tests.oracles.trades import Trade

SIZES = [
    bt.Size(notional=1_500.0),
    bt.Size(notional=9_000.0, extra=150.0),
    bt.Size(margin=700.0),
    bt.Size(margin=90.0, extra=40.0),
]
LEVERAGES = [0.5, 1.0, 2.0, 3.0, 10.0, 33.0, 100.0]
SLOPE = {"maintenance": 0.01, "slope": 0.00005, "initial_rate": 0.02, "contract": "inverse"}
WEIGHTS = [
    VolatilityTarget(),
    VolatilityTarget(target=0.4, window="3h", cap=3.0),
    VolatilityTarget(target=2.0, window="6h", cap=1.0),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    return write_all_tiers(tmp_path_factory.mktemp("tiers"))


def sweep_of(data: st.DataObject, **axes: object) -> bt.Sweep:
    leverages = st.lists(st.sampled_from(LEVERAGES), min_size=1, max_size=3, unique=True)
    drawn: dict[str, object] = {
        "side": [data.draw(st.sampled_from(["long", "short"]))],
        # One that the tables allow: what no tier allows at all is refused.
        "leverage": data.draw(leverages.filter(lambda drawn: min(drawn) <= 33)),
        "horizon": data.draw(st.sampled_from([["1h"], ["7h", "2h"], ["3h", "30h"]])),
        "open_fee": [data.draw(st.sampled_from([0.0, 0.002]))],
    }
    return bt.Sweep(**(drawn | axes))


def margin_of(data: st.DataObject, **keys: object) -> bt.Margin:
    drawn: dict[str, object] = {
        "fees_from_margin": data.draw(st.booleans()),
        "surplus": data.draw(st.sampled_from(["trader", "fund"])),
        "liquidation_slippage": data.draw(st.sampled_from([0.0, 0.003])),
        "liquidation_fee": data.draw(st.sampled_from([0.0, 0.0125])),
    }
    return bt.Margin(**(drawn | keys))


many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def entered(made: oracle.Rows, case: JudgedRun) -> oracle.Grid | None:
    """The grid, where the run has an entry at all, and each window of volatility a beginning."""
    grid = grid_or_none(made, case.data.trigger)
    if grid is None or not any(map(grid.is_entry, range(len(grid.open_time_ms)))):
        return None
    longest = max((bars_in(each.window) for each in case.sweep.weight if each.window), default=0)
    return grid if len(grid.open_time_ms) > longest else None


@many
@given(data=st.data())
def test_maintenance_scale_and_weights_on_every_axis(tables, data) -> None:
    made = data.draw(rows())
    n = len(made.open_time_ms)
    if data.draw(st.booleans()):
        scale = st.sampled_from([None, 1.0, 1.0, 2.5, 0.0, 6.0])
        made = replace(made, maintenance_scale=data.draw(st.lists(scale, min_size=n, max_size=n)))
    contract = data.draw(st.sampled_from(["linear", "inverse"]))
    maintenance = data.draw(st.sampled_from([0.0, 0.004, 0.03, *tables.values()]))
    weights = data.draw(st.sampled_from([[], WEIGHTS[:1], WEIGHTS[1:], WEIGHTS]))
    case = JudgedRun(
        sweep_of(
            data,
            maintenance=[maintenance],
            size=data.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=2, unique=True)),
            weight=weights,
        ),
        margin_of(
            data,
            contract=contract,
            basis=data.draw(st.sampled_from(["mark", "entry"])),
            close_reserve=data.draw(st.sampled_from([0.0, 0.0006])),
        ),
        bt.Data(max_gap=data.draw(st.sampled_from([None, "2h"]))),
    )
    grid = entered(made, case)
    assume(grid is not None)
    assert_equals_walk(case, made, grid)


@many
@given(data=st.data())
def test_named_rules_with_posted_fees_and_slopes(tables, data) -> None:
    made = data.draw(rows())
    name, terms = data.draw(
        st.sampled_from(
            [
                ("bybit-linear", {"posted_fee": 0.00055}),
                ("bybit-inverse", {"posted_fee": 0.00055, "contract": "inverse"}),
                ("deribit-linear", {"maintenance": 0.01, "slope": 0.00005, "initial_rate": 0.02}),
                ("deribit-inverse", SLOPE),
            ]
        )
    )  # fmt: skip
    item: object = name
    if name.startswith("bybit"):
        table = data.draw(st.sampled_from(["with", "dated-with"]))
        item = {"rule": name, "tiers": tables[table]}
        terms = terms | {"maintenance": oracle_tiers(table)}
    case = JudgedRun(
        sweep_of(
            data,
            maintenance=[item],
            size=[data.draw(st.sampled_from(SIZES))],
            weight=data.draw(st.sampled_from([[], WEIGHTS[1:]])),
        ),
        margin_of(data, margin_call_ratio=data.draw(st.sampled_from([0.8, 1.0, 0.3]))),
        terms=terms,
    )
    grid = entered(made, case)
    assume(grid is not None)
    assert_equals_walk(case, made, grid)


@many
@given(data=st.data())
def test_spot_margin(data) -> None:
    made = data.draw(rows())
    ltv, call, rate = data.draw(st.sampled_from([(0.9, 0.8, 0.0), (0.85, 0.7, 0.002), (0.95, 0.95, 0.01)]))
    margin = margin_of(data, contract="spot", liquidation_ltv=ltv, margin_call_ltv=call, borrow_rate=rate)
    terms = {"liquidation_ltv": ltv, "margin_call_ltv": call, "borrow_rate": rate, "maintenance": 0.0}
    weights = data.draw(st.sampled_from([[], WEIGHTS[1:]]))
    case = JudgedRun(sweep_of(data, weight=weights), margin, terms=terms)
    grid = entered(made, case)
    assume(grid is not None)
    assert_equals_walk(case, made, grid)


@many
@given(data=st.data())
def test_dated_futures_are_cut_at_their_settlement(tables, data) -> None:
    made = data.draw(rows())
    after = data.draw(st.integers(1, 30))
    expiry = made.open_time_ms[0] + after * HOUR - data.draw(st.sampled_from([0, 1]))
    case = JudgedRun(
        sweep_of(
            data, maintenance=[data.draw(st.sampled_from([0.004, tables["with"]]))], size=[bt.Size(notional=1_500.0)]
        ),
        margin_of(data, expiry=pd.Timestamp(expiry, unit="ms", tz="UTC").isoformat()),
        bt.Data(max_gap=data.draw(st.sampled_from([None, "1h"]))),
    )
    try:
        grid = oracle.grid_of(made, expiry_ms=expiry)
    except ValueError:
        grid = None
    assume(grid is not None)
    last = len(grid.open_time_ms) - 1
    assume(any(grid.is_entry(t) and not (grid.settled and t == last) for t in range(last + 1)))
    assert_equals_walk(case, made, grid)


@many
@given(data=st.data())
def test_trades_of_the_user(tables, tmp_path, data) -> None:
    made = data.draw(rows())
    grid = grid_or_none(made, None)
    assume(grid is not None)
    ready = [t for t in range(len(grid.open_time_ms)) if grid.is_entry(t)]
    assume(ready)
    trades = []
    sided, levered = data.draw(st.booleans()), data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 6))):
        bar = data.draw(st.sampled_from(ready))
        moment = grid.open_time_ms[bar] + data.draw(st.sampled_from([1, HOUR // 2, HOUR]))
        stay = data.draw(st.sampled_from([None, 1, 3, 40]))
        own = data.draw(st.sampled_from([None, 0.97, 1.05]))
        trades.append(
            Trade(
                entry_time_ms=moment,
                exit_time_ms=None if stay is None else grid.open_time_ms[bar] + (1 + stay) * HOUR,
                side=data.draw(st.sampled_from([1, -1])) if sided else None,
                leverage=data.draw(st.sampled_from([1.0, 3.0, 12.5, 60.0])) if levered else None,
                entry_price=None if own is None else own * grid.entry_price[bar],
            )
        )
    frame = pd.DataFrame(
        {
            "entry_time": pd.to_datetime([t.entry_time_ms for t in trades], unit="ms", utc=True),
            "exit_time": pd.to_datetime([t.exit_time_ms for t in trades], unit="ms", utc=True),
            "entry_price": np.array([t.entry_price for t in trades], dtype=float),
        }
    )
    if sided:
        frame["side"] = ["long" if t.side == 1 else "short" for t in trades]
    if levered:
        frame["leverage"] = [t.leverage for t in trades]
    path = tmp_path / f"trades-{data.draw(st.integers(0, 10**9))}.parquet"
    frame.to_parquet(path)
    axes = {} if sided else {"side": [data.draw(st.sampled_from(["long", "short"]))]}
    axes |= {} if levered else {"leverage": [1.0, 20.0]}
    size = data.draw(st.sampled_from([bt.Size(notional=1_500.0), bt.Size(margin=90.0)]))
    sweep = bt.Sweep(
        horizon=data.draw(st.sampled_from([["2h", "7h"], ["30h"]])),
        maintenance=[data.draw(st.sampled_from([0.004, tables["with"], tables["without"]]))],
        size=[size],
        open_fee=[0.001],
        **axes,
    )
    case = JudgedRun(
        sweep, margin_of(data), bt.Data(max_gap=data.draw(st.sampled_from([None, "1h"]))),
        bt.Entries(file=str(path)), trades=trades,
    )  # fmt: skip
    assert_equals_walk(case, made, grid)


def test_the_critical_leverage_of_a_trade_is_where_its_liquidation_begins(tmp_path) -> None:
    history = history_of(random_rows(2, 300))
    moments = pd.to_datetime([40 * HOUR, 41 * HOUR - 5, 41 * HOUR, 120 * HOUR], unit="ms", utc=True)
    pd.DataFrame({"entry_time": moments, "side": ["long", "long", "short", "short"]}).to_csv(tmp_path / "t.csv")
    frame = pd.read_csv(tmp_path / "t.csv", index_col=0)
    frame.to_csv(tmp_path / "t.csv", index=False)
    entries = bt.Entries(file=str(tmp_path / "t.csv"))
    sweep = bt.Sweep(leverage=[1], horizon=["100h"], maintenance=[0.01], open_fee=[0.001])
    events = bt.events_of(history, sweep, entries=entries).sort_values("trade")
    assert events["trade"].tolist() == [0, 1, 2, 3] and events["side"].isna().all()
    for row in events.itertuples():
        for factor, dead in ((0.999_999, False), (1.000_001, True)):
            near = sweep.model_copy(update={"leverage": (row.critical_leverage * factor,)})
            again = bt.events_of(history, near, entries=entries).set_index("trade").loc[row.trade]
            assert (not pd.isna(again["liquidation_time"])) == dead


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["weights", "scale", "slope", "coin", "spot"])
def test_beyond_one_tile(tables, seed, kind) -> None:
    """Horizons past a tile, gaps, several chunks' worth of dates."""
    made = random_rows(seed, 900)
    side = "long" if seed % 2 else "short"
    axes: dict[str, object] = {"leverage": [2.0, 7.0, 30.0], "horizon": ["1h", "257h", "700h"], "side": [side]}
    margin, terms = bt.Margin(), {}
    size = [bt.Size(margin=700.0) if seed == 1 else bt.Size(notional=9_000.0)]
    if kind == "weights":
        target = VolatilityTarget(target=0.4, window="3h", cap=3.0)
        axes |= {"weight": [target], "maintenance": [tables["dated-with"]], "size": size}
    elif kind == "scale":
        rule = VolatilityScale(window="20h", reference=0.3, cap=4.0)
        margin = bt.Margin(maintenance_scale=rule)
        axes |= {"maintenance": [0.004] if seed else [tables["with"]], "size": size}
    elif kind == "slope":
        axes |= {"maintenance": ["deribit-inverse"], "size": [bt.Size(notional=90_000.0)]}
        terms = dict(SLOPE)
    elif kind == "coin":
        margin = bt.Margin(contract="inverse")
        table = tables["dated-without" if seed else "dated-with"]
        axes |= {"maintenance": [table], "size": [bt.Size(notional=300_000.0, extra=10.0)]}
    else:
        margin = bt.Margin(contract="spot", liquidation_ltv=0.9, margin_call_ltv=0.8, borrow_rate=0.00002)
        terms = {"liquidation_ltv": 0.9, "margin_call_ltv": 0.8, "borrow_rate": 0.00002, "maintenance": 0.0}
    grid = oracle.grid_of(made)
    if kind == "scale":
        grid = volatility.scaled(grid, 20, 0.3, 4.0)
    assert_equals_walk(JudgedRun(bt.Sweep(**axes), margin, terms=terms), made, grid)
