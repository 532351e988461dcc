"""Counts equal those of the literal walk, with ``==``, on every axis of the sweep."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.margin.tiers import TierTable
from tests._support.histories import HOUR, history_of, random_rows, rows
from tests.oracles import statistics as truth
from tests.oracles import walk as oracle

LADDER = [(0.0, 2_000.0, 0.01, 0.0, 50.0), (2_000.0, 10_000.0, 0.05, 80.0, 20.0), (10_000.0, 60_000.0, 0.1, 580.0, 5.0)]
LATER = [(0.0, 3_000.0, 0.02, 0.0, 40.0), (3_000.0, 60_000.0, 0.06, 120.0, 10.0)]
LATEST = [(0.0, 60_000.0, 0.03, 0.0, 20.0)]
DATES = ["", "1970-01-09T08:00Z", "1970-01-09T14:00Z"]  # 200 and 206 hours after the epoch
HOURS = [None, 200, 206]
FEES, RATES = [0.0, 0.002], [0.0, 0.004, 0.03]
FUNDINGS = [bt.Funding(), bt.Funding(scale=0.0), bt.Funding(scale=-3.0, shift=0.0004)]
SIZES = [bt.Size(notional=1_500.0), bt.Size(notional=9_000.0), bt.Size(margin=700.0), bt.Size(notional=200_000.0)]
COIN_SIZES = [bt.Size(margin=700.0), bt.Size(margin=90.0), bt.Size(margin=5_000.0)]
LEVERAGES = [0.5, 1.0, 2.0, 3.0, 10.0, 25.0, 33.0, 100.0, 125.0]


def ladder_csv(path, deductions: bool) -> str:
    """Write `LADDER`, or for a "dated" name all three tables, as a tier-table file."""
    dated = path.stem.startswith("dated")
    lines = ["effective_from,floor,cap,mmr,deduction,max_leverage"]
    for date, table in zip(DATES, (LADDER, LATER, LATEST), strict=True):
        for floor, cap, mmr, deduction, leverage in table if dated or not date else ():
            lines.append(f"{date},{floor},{cap},{mmr},{deduction if deductions else ''},{leverage}")
    path.write_text("\n".join(lines))
    return str(path)


def tiers(label: str) -> tuple[oracle.Tier, ...] | oracle.Dated:
    """The table of a file of `ladder_csv`, for the oracle."""

    def table(rows: list[tuple[float, ...]]) -> tuple[oracle.Tier, ...]:
        deductions = label.endswith("with")
        return tuple(oracle.Tier(f, c, m, d if deductions else None, x) for f, c, m, d, x in rows)

    if label.startswith("dated"):
        times = (None if hour is None else hour * HOUR for hour in HOURS)
        return oracle.Dated(tuple((t, table(x)) for t, x in zip(times, (LADDER, LATER, LATEST), strict=True)))
    return table(LADDER)


def scenario_of(row: pd.Series, margin: bt.Margin) -> oracle.Scenario:
    """A row of the results as the oracle's scenario."""
    words = [] if row["size"] is None else [word.split("=") for word in str(row["size"]).split()]
    size = {name: float(value) for name, value in words}
    label = row["maintenance"]
    return oracle.Scenario(
        side=-1 if row["side"] == "short" else 1,
        leverage=row["leverage"],
        maintenance=tiers(label) if label.endswith(("with", "without")) else float(label),
        basis=margin.basis,
        close_reserve=margin.close_reserve,
        open_fee=row["open_fee"],
        fees_from_margin=margin.fees_from_margin,
        funding_scale=row["funding_scale"],
        funding_shift=row["funding_shift"],
        margin_call_ratio=margin.margin_call_ratio,
        contract=margin.contract,
        liquidation_slippage=margin.liquidation_slippage,
        liquidation_fee=margin.liquidation_fee,
        surplus=margin.surplus,
        **size,
    )


def assert_matches_walk(
    result: bt.Result, grid: oracle.Grid, margin: bt.Margin, *, every_ms: int | None = None, max_gap: int | None = None
) -> None:
    """Every row of a run against the walk: counts, rates, Kaplan–Meier and interval."""
    config = result.info["config"]
    block_ms = bt_duration(config["statistics"]["block"])
    table = result.table.replace({"size": {np.nan: None}})
    scenario_columns = ["side", "maintenance", "open_fee", "funding_scale", "funding_shift", "size", "leverage"]
    for _, part in table.groupby(scenario_columns, sort=False, dropna=False):
        walks = {}
        for _, row in part.iterrows():
            horizon = bt_duration(row["horizon"]) // HOUR
            scenario = scenario_of(row, margin)
            verdicts, excluded = oracle.walk(grid, scenario, horizon, every_ms=every_ms, max_gap_bars=max_gap)
            walks[horizon] = verdicts
            want = truth.count(verdicts, excluded)
            got = {name: int(row[name]) for name in want}
            assert got == want, row.to_dict()
            blocks = truth.block_counts(verdicts, grid, block_ms)
            low, high, few = truth.interval(
                blocks.entries, blocks.survived, horizon, block_ms // HOUR, truth.span_of(grid), 24, 0.95
            )
            for name, value in (("survival_low", low), ("survival_high", high)):
                # Sums of float deviations in another order, then beta quantiles: 1e-9 is far below what a reader sees.
                assert same(row[name], value, 1e-9), (name, row.to_dict(), value)
            assert bool(row["few_blocks"]) == few
        km = truth.survival_km(walks)
        for _, row in part.iterrows():
            # A product of at most five rates: 1e-12 is its rounding.
            assert same(row["survival_km"], km[bt_duration(row["horizon"]) // HOUR], 1e-12), row.to_dict()


def same(got: float, want: float | None, tolerance: float) -> bool:
    return math.isnan(got) if want is None else abs(got - want) <= tolerance


def bt_duration(text: str) -> int:
    from backtest.units import duration_ms

    return duration_ms(text)


def grid_or_none(made: oracle.Rows, trigger: str | None) -> oracle.Grid | None:
    try:
        return oracle.grid_of(made, trigger=trigger)
    except ValueError:
        return None


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tiers")
    names = ("with", "without", "dated-with", "dated-without")
    return {name: ladder_csv(folder / f"{name}.csv", name.endswith("with")) for name in names}


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
    settings_ = {
        "data": bt.Data(trigger=trigger, max_gap=max_gap),
        "entries": bt.Entries(every=every),
        "margin": margin,
        "statistics": bt.Statistics(block=data.draw(st.sampled_from(["1h", "4h", "7d"]))),
    }
    if grid is None:
        with pytest.raises(bt.DataError):
            bt.run(history_of(made), sweep, **settings_)
        return
    every_ms = bt_duration(every) if every else None
    assume(
        any(
            grid.is_entry(t) and (not every_ms or grid.open_time_ms[t] % every_ms == 0)
            for t in range(len(grid.open_time_ms))
        )
    )
    result = bt.run(history_of(made), sweep, **settings_)
    gap_bars = None if max_gap is None else bt_duration(max_gap) // HOUR
    assert_matches_walk(result, grid, margin, every_ms=every_ms, max_gap=gap_bars)


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
    result = bt.run(history_of(made), sweep, margin=margin, entries=bt.Entries(every=every))
    assert_matches_walk(result, oracle.grid_of(made), margin, every_ms=29 * HOUR if every else None)


def test_ladder_of_this_file_is_one_a_table_with_deductions_may_be() -> None:
    # 0.05·2,000 − 80 = 20 = 0.01·2,000 and 0.1·10,000 − 580 = 420 = 0.05·10,000 − 80: continuous at both floors.
    assert TierTable.from_rows([[f, m, d] for f, _, m, d, _ in LADDER]).has_deductions
