"""Counts equal those of the literal walk, with ``==``, on every axis of the sweep."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.margin.tiers import TierTable
from backtest.units import duration_ms
from tests._support.histories import history_of, random_rows, rows
from tests._support.judge import JudgedRun, assert_equals_walk, grid_or_none
from tests._support.tiers import LADDER, write_all_tiers
from tests.oracles import walk as oracle

FEES, RATES = [0.0, 0.002], [0.0, 0.004, 0.03]
FUNDINGS = [bt.Funding(), bt.Funding(scale=0.0), bt.Funding(scale=-3.0, shift=0.0004)]
SIZES = [bt.Size(notional=1_500.0), bt.Size(notional=9_000.0), bt.Size(margin=700.0), bt.Size(notional=200_000.0)]
COIN_SIZES = [bt.Size(margin=700.0), bt.Size(margin=90.0), bt.Size(margin=5_000.0)]
LEVERAGES = [0.5, 1.0, 2.0, 3.0, 10.0, 25.0, 33.0, 100.0, 125.0]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    return write_all_tiers(tmp_path_factory.mktemp("tiers"))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_counts_equal_the_literal_walk_on_every_axis(tables, data) -> None:
    made = data.draw(rows())
    trigger = data.draw(st.sampled_from([None, None, "last", "mark"]))
    grid = grid_or_none(made, trigger)
    maintenance = data.draw(st.sampled_from([*RATES, *tables.values()]))
    contract = data.draw(st.sampled_from(["linear", "inverse"]))
    in_coin = contract == "inverse" and isinstance(maintenance, str)  # tiers of inverse contracts: size by margin
    sizes = data.draw(st.lists(st.sampled_from(COIN_SIZES if in_coin else SIZES), min_size=1, max_size=2, unique=True))
    margin = bt.Margin(
        contract=contract,
        basis=data.draw(st.sampled_from(["mark", "entry"])),
        close_reserve=data.draw(st.sampled_from([0.0, 0.0006])),
        fees_from_margin=data.draw(st.booleans()),
        margin_call_ratio=data.draw(st.sampled_from([0.8, 0.5, 1.0])),
    )
    every = data.draw(st.sampled_from([None, "2h", "5h"]))
    max_gap = data.draw(st.sampled_from([None, "1h", "2h"]))
    leverage = data.draw(st.lists(st.sampled_from(LEVERAGES), min_size=1, max_size=4, unique=True))
    assume(min(leverage) <= LADDER[0][-1] or maintenance in RATES)  # what no tier allows at all is refused
    charged = any(rate is not None for rate in made.funding_rate or [])  # and so is to scale what there is none of
    sweep = bt.Sweep(
        side=[data.draw(st.sampled_from(["long", "short"]))],
        leverage=leverage,
        horizon=data.draw(st.sampled_from([["1h"], ["7h", "2h", "1h"], ["3h", "30h"], ["40h", "1h"]])),
        maintenance=[maintenance],
        open_fee=FEES,
        funding=[data.draw(st.sampled_from(FUNDINGS if charged else FUNDINGS[:2]))],
        size=sizes,
    )
    statistics = bt.Statistics(block=data.draw(st.sampled_from(["1h", "4h", "7d"])))
    run = JudgedRun(sweep, margin, bt.Data(trigger=trigger, max_gap=max_gap), bt.Entries(every=every), statistics)
    if grid is None:
        with pytest.raises(bt.DataError):
            bt.run(history_of(made), sweep, **run.parts)
        return
    every_ms = duration_ms(every) if every else None
    assume(
        any(
            grid.is_entry(t) and (not every_ms or grid.open_time_ms[t] % every_ms == 0)
            for t in range(len(grid.open_time_ms))
        )
    )
    assert_equals_walk(run, made, grid, events=False)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("maintenance", ["flat", "with", "without", "dated-with", "dated-without"])
def test_counts_equal_the_literal_walk_beyond_one_tile(tables, seed, maintenance) -> None:
    """Horizons past TILE bars, chunks that cut the history, entries on a stride."""
    made = random_rows(seed, 1_500, level=[100.0, 3e-7, 5e6, 1.0][seed])
    margin = bt.Margin(basis="entry" if seed == 3 else "mark", contract="inverse" if seed == 1 else "linear")
    sweep = bt.Sweep(
        leverage=[2, 5, 20],
        side=["long" if seed % 2 else "short"],
        horizon=["1h", "100h", "256h", "257h", "700h"],
        maintenance=[tables.get(maintenance, 0.004)],
        open_fee=[0.0005],
        size=[bt.Size(margin=700.0) if seed % 2 else bt.Size(notional=9_000.0)],
    )
    every = "29h" if seed else None
    if not every:
        sweep = sweep.model_copy(update={"leverage": (5.0,), "horizon": ("300h",)})
    run = JudgedRun(sweep, margin, entries=bt.Entries(every=every))
    assert_equals_walk(run, made, oracle.grid_of(made), events=False)


def test_ladder_of_this_file_is_one_a_table_with_deductions_may_be() -> None:
    # 0.05·2,000 − 80 = 20 = 0.01·2,000 and 0.1·10,000 − 580 = 420 = 0.05·10,000 − 80: continuous at both floors.
    assert TierTable.from_rows([[f, m, d] for f, _, m, d, _ in LADDER]).has_deductions
