"""Portfolios through a whole run: rows, coverage, refusals."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import backtest as bt
from backtest.cli import cli
from backtest.data.history import PriceHistory
from backtest.units import duration_ms
from tests._support.histories import HOUR, history_of, random_rows
from tests.oracles import cross
from tests.oracles import walk as oracle

AXES = {"leverage": [2, 6, 20], "horizon": ["6h", "90h"], "maintenance": [0.01]}
PAIR = {"AAA": 0.7, "BBB": -0.3}


def history(symbol: str, seed: int, n: int = 500, start: int = 0) -> PriceHistory:
    made = history_of(random_rows(seed, n), symbol)
    return PriceHistory(symbol, HOUR, start * HOUR, dict(made.columns))


@pytest.fixture(scope="module")
def pair() -> list[PriceHistory]:
    return [history("AAA", 1), history("BBB", 2, 450)]


def test_counts_of_a_run_equal_the_walk_of_the_wallet(pair) -> None:
    result = bt.run(pair, bt.Sweep(portfolio=[PAIR], open_fee=[0.001], **AXES))
    table = result.table
    assert list(table["verdict"].unique()) == ["worst", "close"] and table["side"].isna().all()
    assert set(table["symbol"]) == {"AAA=0.7 BBB=-0.3"}
    grids = cross.common([oracle.grid_of(random_rows(1, 500)), oracle.grid_of(random_rows(2, 450))])
    for row in table.itertuples():
        scenario = cross.CrossScenario((0.7, -0.3), row.leverage, maintenance=(0.01, 0.01), open_fee=0.001)
        want = cross.walk_cross(grids, scenario, duration_ms(row.horizon) // HOUR, verdict=row.verdict)
        opened = [verdict for verdict in want if not verdict.rejected]
        assert (row.entries, row.rejected) == (len(opened), len(want) - len(opened))
        assert row.margin_calls == sum(v.margin_call_bar is not None for v in opened)
        assert row.liquidations == sum(v.liquidation_bar is not None for v in opened)
    worst, close = (table[table["verdict"] == v]["liquidations"].to_numpy() for v in ("worst", "close"))
    assert (close <= worst).all() and (close < worst).any()


def test_symbols_are_cut_to_the_span_they_share_and_the_cut_is_told(pair) -> None:
    result = bt.run([pair[0], history("BBB", 2, 450, start=30)], bt.Sweep(portfolio=[PAIR], **AXES))
    (coverage,) = result.info["coverage"]
    assert coverage["cut"] == {"AAA": [30, 20], "BBB": [0, 0]}
    assert set(result.info["fingerprint"]) == {"AAA", "BBB"}


def test_the_command_says_what_was_cut(pair, tmp_path) -> None:
    for one in (pair[0], history("BBB", 2, 450, start=30)):
        bt.write_history(one, tmp_path / "data")
    (tmp_path / "cross.toml").write_text(
        '[data]\npath = "data"\n[sweep]\nportfolio = [{ AAA = 0.7, BBB = -0.3 }]\n'
        'leverage = [5]\nhorizon = ["6h"]\nmaintenance = [0.01]\n'
    )
    done = CliRunner().invoke(cli, ["run", str(tmp_path / "cross.toml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0 and "bars outside the common span: AAA 50" in done.output


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"portfolio": [{"AAA": 0.7, "CCC": -0.3}]}, "sweep.portfolio: there is no 'CCC'; there are AAA, BBB"),
        ({"portfolio": [{"AAA": 0.7, "BBB": -0.2}]}, "must add up to 1; got a sum of 0.9"),
        ({"portfolio": [{"AAA": 1.0, "BBB": 0.0}]}, "weights must not be 0"),
        ({"portfolio": [PAIR], "side": ["long"]}, "sweep.side has no place beside sweep.portfolio"),
        ({"portfolio": [PAIR], "policy": [{"confirm_bars": 1}]}, "sweep.policy has no place beside sweep.portfolio"),
        (
            {"portfolio": [PAIR], "maintenance": ["deribit-inverse"], "size": [{"notional": 9_000.0}]},
            "a portfolio is margined in one quote currency and takes linear ones",
        ),
    ],
)
def test_impossible_portfolios_are_refused(pair, sweep, message) -> None:
    with pytest.raises(bt.BacktestError) as refusal:
        bt.run(pair, bt.Sweep(**(AXES | sweep)))
    assert message in str(refusal.value)


def test_funding_scaled_where_a_leg_has_none_is_refused(pair) -> None:
    bare = PriceHistory("BBB", HOUR, 0, {k: v for k, v in pair[1].columns.items() if k != "funding_rate"})
    sweep = bt.Sweep(portfolio=[PAIR], funding=[bt.Funding(scale=2.0)], **AXES)
    with pytest.raises(bt.DataError, match="BBB"):
        bt.run([pair[0], bare], sweep)


def test_symbols_without_a_common_span_are_refused(pair) -> None:
    with pytest.raises(bt.DataError, match="no common span"):
        bt.run([pair[0], history("BBB", 2, 450, start=900)], bt.Sweep(portfolio=[PAIR], **AXES))


def test_events_of_a_portfolio_are_refused(pair) -> None:
    with pytest.raises(bt.ConfigError, match="events are those of single positions"):
        bt.events_of(pair, bt.Sweep(portfolio=[PAIR], **AXES))
