"""The packaged tier tables: every one loads, says where it is from, and equals what was recorded."""

import tomllib
from datetime import date, datetime
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from backtest.errors import RuleError
from backtest.margin.packaged_tiers import packaged_rules, packaged_symbols, packaged_tables
from backtest.margin.tiers import DatedTable, TierTable, table_at
from backtest.units import instant_ms

BINANCE = "binance-usdm"
RECORDED = Path(__file__).parents[2].parent / "shared/data/tiers"
FOLDER = resources.files("backtest.margin").joinpath("tables", BINANCE)
COLUMNS = {
    "floor": "min_notional",
    "cap": "max_notional",
    "mmr": "mmr",
    "max_leverage": "max_leverage",
    "deduction": "maint_amount",
}
needs_recorded = pytest.mark.skipif(not RECORDED.exists(), reason="the folder of recorded tables is not there")


def rows_of(table: TierTable) -> list[list[float]]:
    return [np.minimum(getattr(table, column), 2.0**63).tolist() for column in COLUMNS]


@pytest.mark.parametrize("symbol", packaged_symbols(BINANCE))
def test_every_packaged_table_loads(symbol: str) -> None:
    tables = packaged_tables(BINANCE, symbol)
    dates = [each.effective_from_ms for each in tables]
    assert None not in dates
    assert all(a < b for a, b in pairwise(dates))
    for each in tables:
        assert each.table.name == symbol
        assert each.table.has_deductions
        # maintenance never reaches what is asked at the largest leverage at which the tier may be opened
        assert (each.table.mmr * each.table.max_leverage < 1).all()
    for before, after in pairwise(tables):
        assert rows_of(before.table) != rows_of(after.table), "identical consecutive tables merge"


def test_the_tables_of_bitcoin_as_known() -> None:
    tables = packaged_tables(BINANCE, "BTCUSDT")
    assert len(tables) == 11
    # 100,000 in 2022: 0.005·100,000 − 50 = 450; since 2025-07: 0.004·100,000 = 400
    found = [
        tables[table_at(tables, instant_ms(day))].table.maintenance(1e5, 1e5) for day in ("2022-06-01", "2025-08-01")
    ]
    np.testing.assert_allclose(found, [450, 400], rtol=1e-12)
    with pytest.raises(RuleError, match=r"BTCUSDT: .*: it lies before the first date, 2022-02-13T05:02:07Z"):
        table_at(tables, instant_ms("2022-02-13"))


def test_the_sidecar_names_repository_and_day_of_every_table() -> None:
    text = FOLDER.joinpath("source.toml").read_text(encoding="utf-8")
    assert "upper bound" in text.splitlines()[3]
    document = tomllib.loads(text)
    assert document["rule"] == BINANCE
    assert type(document["confirmed"]) is date
    named = set()
    for record in document["records"]:
        assert isinstance(record["recorded"], datetime)
        assert "/" in record["repository"]
        named |= {(symbol, round(record["recorded"].timestamp()) * 1000) for symbol in record["symbols"]}
    shipped = {
        (symbol, each.effective_from_ms)
        for symbol in packaged_symbols(BINANCE)
        for each in packaged_tables(BINANCE, symbol)
    }
    assert named == shipped


def test_the_rules_with_tables_are_listed() -> None:
    assert BINANCE in packaged_rules()
    assert all(packaged_symbols(rule) for rule in packaged_rules())


def test_the_files_are_small() -> None:
    assert sum(len(file.read_bytes()) for file in FOLDER.iterdir()) < 300_000
    assert 55 <= len(packaged_symbols(BINANCE)) <= 65


def test_what_is_not_packaged_is_refused_with_what_is() -> None:
    with pytest.raises(
        RuleError, match=r"'BTCUSD' is packaged .*did you mean 'BTCUSD.*; packaged are 1000BONK.*ZECUSDT"
    ):
        packaged_tables(BINANCE, "BTCUSD")
    for name in ("kraken-inverse", "..", ""):
        assert packaged_symbols(name) == ()
        with pytest.raises(RuleError, match=r"no tier table is packaged for rule .*; some are for .*binance-usdm"):
            packaged_tables(name, "BTCUSDT")
    with pytest.raises(RuleError, match="packaged are"):
        packaged_tables(BINANCE, "../" + BINANCE + "/BTCUSDT")


@needs_recorded
def test_packaged_histories_equal_the_recorded_ones() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(RECORDED / "binance_um_tier_history.parquet")
    for symbol, rows in frame.groupby("symbol"):
        recorded = {round(when.timestamp()) * 1000: table for when, table in rows.groupby("snapshot")}
        tables = packaged_tables(BINANCE, symbol)
        assert [each.effective_from_ms for each in tables] == sorted(recorded)
        for each in tables:
            assert each.effective_from_ms is not None
            assert_equal(each, recorded[each.effective_from_ms])


@needs_recorded
def test_the_last_packaged_tables_equal_those_of_the_last_day() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(RECORDED / "binance_um_tiers_20260507_all.parquet")
    last = {
        spelled.split(":")[0].replace("/", ""): rows for spelled, rows in frame.groupby("symbol") if "-" not in spelled
    }
    for symbol in packaged_symbols(BINANCE):
        assert_equal(packaged_tables(BINANCE, symbol)[-1], last[symbol])


def assert_equal(dated: DatedTable, rows) -> None:  # type: ignore[no-untyped-def]
    rows = rows.sort_values("tier")
    assert rows_of(dated.table) == [rows[theirs].tolist() for theirs in COLUMNS.values()]
