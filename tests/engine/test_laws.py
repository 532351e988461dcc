"""Laws that hold for every history, whatever its numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.config.models import Config
from backtest.config.scenarios import expand_scenarios
from backtest.engine.bars import build_grid
from backtest.engine.count import count_entries
from backtest.engine.prepare import prepare_entries
from backtest.stats.survival_table import COUNTS, SurvivalTable
from tests._support.histories import history_of, random_rows

SWEEP = bt.Sweep(
    leverage=[1, 2, 3, 5, 8, 12, 20, 40, 75, 125],
    horizon=["1h", "12h", "300h"],
    maintenance=[0.004, 0.02],
    open_fee=[0.0, 0.0005],
    funding=[bt.Funding(), bt.Funding(scale=2.0, shift=0.0001)],
)
CONFIG = Config(sweep=SWEEP, data=bt.Data(max_gap="4h"))


@pytest.mark.parametrize("seed", range(3))
def test_higher_leverage_never_outlives_lower(seed) -> None:
    """Rejected or liquidated is monotone in leverage, entry by entry, hence in every count."""
    table = bt.run(history_of(random_rows(seed, 1_500)), SWEEP, data=CONFIG.data).table
    table["gone"] = table["rejected"] + table["liquidations"]
    axes = ["side", "maintenance", "open_fee", "funding_scale", "horizon"]
    assert table.groupby(axes)["gone"].is_monotonic_increasing.all()
    assert (table["margin_calls"] >= table["liquidations"]).all()
    assert (table["entries"] + table["rejected"] + table["excluded"]).groupby(table["horizon"]).nunique().eq(1).all()


def test_longer_horizons_lose_no_liquidation() -> None:
    """Entries that are in both cohorts and dead at the shorter horizon are dead at the longer one."""
    history = history_of(random_rows(4, 1_000, gaps=False))
    sweep = SWEEP.model_copy(update={"horizon": ("1h", "12h", "300h")})
    work = prepare_entries(Config(sweep=sweep), build_grid(history))
    table = count_entries(work, expand_scenarios(Config(sweep=sweep))[:1], slice(0, work.bars.size))[0]
    assert (table["prior_liquidations"][:, 1:] <= table["liquidations"][:, 1:]).all()


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_merging_is_associative_and_commutative(data) -> None:
    def table() -> SurvivalTable:
        first, size = data.draw(st.integers(-5, 5)), data.draw(st.integers(1, 4))
        values = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
        return SurvivalTable(np.broadcast_to(np.array(values), (len(COUNTS), 1, 2, 3, size)).copy(), first)

    a, b, c = table(), table(), table()
    for left, right in (((a + b) + c, a + (b + c)), (a + b, b + a), (sum([a, b, c]), a + b + c)):
        assert left.first_block == right.first_block
        assert (left.counts == right.counts).all()


def test_tables_that_do_not_fit_do_not_add() -> None:
    one, two = (SurvivalTable(np.zeros((len(COUNTS), 1, 1, n, 1), np.int64), 0) for n in (2, 3))
    with pytest.raises(ValueError, match=r"\(1, 1, 2\) here and \(1, 1, 3\) there"):
        one + two


@pytest.mark.parametrize("size", [1, 97, 256, 1_000, 10**9])
def test_chunk_size_changes_nothing(size) -> None:
    work = prepare_entries(CONFIG, build_grid(history_of(random_rows(6, 1_100))))
    for scenarios in (expand_scenarios(CONFIG)[:1], expand_scenarios(CONFIG)[-1:]):
        whole = count_entries(work, scenarios, slice(0, work.bars.size))[0]
        step = 50 if size == 1 else 1  # chunks of one bar: every 50th, as all would only take longer
        chunks = work.chunks(size)
        if step > 1:
            bars = np.arange(0, work.bars.size, step)
            chunks = [slice(i, i + 1) for i in bars]
            parts = [count_entries(work, scenarios, chunk)[0] for chunk in chunks]
            one_by_one = sum(part["liquidations"].sum(axis=-1) for part in parts)
            thinned = prepare_entries(CONFIG, work.grid)
            object.__setattr__(thinned, "bars", work.bars[bars])
            together = count_entries(thinned, scenarios, slice(0, bars.size))[0]
            assert (one_by_one == together["liquidations"].sum(axis=-1)).all()
            continue
        merged = sum(count_entries(work, scenarios, chunk)[0] for chunk in chunks)
        assert merged.first_block == whole.first_block
        assert (merged.counts == whole.counts).all()


def test_threads_and_symbol_order_change_nothing(monkeypatch) -> None:
    monkeypatch.setattr("backtest.engine.cohorts.CHUNK_BARS", 200)
    histories = [history_of(random_rows(seed, 700), f"S{seed}") for seed in range(3)]
    one = bt.run(histories, SWEEP, workers=1).table
    many = bt.run(histories[::-1], SWEEP, workers=7).table
    for history in histories:
        part = [t[t["symbol"] == history.symbol].reset_index(drop=True) for t in (one, many)]
        pd.testing.assert_frame_equal(*part, check_exact=True)


def test_slicing_scenarios_to_bound_memory_changes_nothing(monkeypatch) -> None:
    history = history_of(random_rows(8, 500))
    whole = bt.run(history, SWEEP).table
    monkeypatch.setattr("backtest.runs.tasks.CELLS_PER_TASK", 1)
    pd.testing.assert_frame_equal(bt.run(history, SWEEP).table, whole, check_exact=True)


@pytest.mark.parametrize("factor", [2.0**-27, 2.0**20])
def test_scaling_all_prices_changes_nothing(factor) -> None:
    """Powers of two scale without rounding, so that even the last bit agrees."""
    history = history_of(random_rows(3, 900))
    columns = {n: v if n == "funding_rate" else v * factor for n, v in history.columns.items()}
    scaled = bt.PriceHistory(history.symbol, history.interval_ms, history.start_ms, columns)
    tables = [bt.run(h, SWEEP).table for h in (history, scaled)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_mirrored_market_mirrors_funding_free_sides_at_zero_maintenance() -> None:
    """With no maintenance and no fee a short at p·(1+1/L) dies where a long of the mirrored market does."""
    history = history_of(random_rows(11, 600, funding=False))
    anchor = 400.0  # mirrored prices stay > 0
    swap = {"high": "low", "low": "high", "open": "open", "close": "close"}
    columns = {}
    for prefix in ("", "mark_"):
        for name, other in swap.items():
            columns[prefix + name] = anchor - history.columns[prefix + other]
    mirrored = bt.PriceHistory("M", history.interval_ms, history.start_ms, columns)
    # The same distance in price: leverage is distance over the entry price, so compare one entry at a time.
    entry = history.columns["close"][0]
    for distance in (1.0, 3.0, 10.0):
        verdicts = []
        for h, side, price in ((history, "short", entry), (mirrored, "long", anchor - entry)):
            sweep = bt.Sweep(side=[side], leverage=[price / distance], horizon=["500h"], maintenance=[0.0])
            config = Config(sweep=sweep)
            work = prepare_entries(config, build_grid(h))
            verdicts.append(int(count_entries(work, expand_scenarios(config), slice(0, 1))[0]["liquidations"].sum()))
        assert verdicts[0] == verdicts[1]


def test_import_alone_loads_neither_numba_nor_matplotlib() -> None:
    code = "import sys, backtest; print([m for m in ('numba', 'matplotlib', 'pandas', 'pydantic') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
