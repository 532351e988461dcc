"""Tier tables: which tier holds a notional, what it asks for, and which files are refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.errors import RuleError
from backtest.margin.rules import parse_rule, rule, rules
from backtest.margin.tiers import DatedTable, TierTable, derive_deductions, read_tier_tables, table_at
from backtest.units import instant_ms

inf = math.inf
# Binance BTCUSDT as it stood once: 50,000·(0.005 − 0.004) = 50, and 50 + 250,000·(0.01 − 0.005) = 1300.
WITH = TierTable.from_rows([[0, 0.004, 0], [50_000, 0.005, 50], [250_000, 0.01, 1300]])
WITHOUT = TierTable.from_rows([[0, 0.01], [1000, 0.02], [5000, 0.05]])
HEADER = "effective_from,floor,cap,mmr,deduction,max_leverage\n"
GOOD = HEADER + ",0,50000,0.004,,125\n,50000,250000,0.005,50,100\n,250000,,0.01,1300,\n"


def written(folder: Path, text: str, name: str = "ladder.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- which tier


@pytest.mark.parametrize(
    ("notional", "tier"),
    [
        (0.0, 0),
        (1000.0, 0),  # floor < n ≤ cap
        (1000 * (1 + 0.9e-9), 0),  # a cap reached but for rounding
        (1000 * (1 + 1e-9), 0),  # inclusive
        (1000 * (1 + 1.1e-9), 1),
        (5000.0, 1),
        (5000.1, 2),
        (inf, 2),
    ],
)
def test_tier_holds_its_cap_and_not_its_floor(notional: float, tier: int) -> None:
    assert int(WITHOUT.tier_index(notional)) == tier


def test_beyond_a_finite_last_cap_the_last_tier_stays() -> None:
    floor, cap, mmr, most = np.array([[0.0, 10.0], [10.0, 20.0], [0.01, 0.02], [50.0, 25.0]])
    table = TierTable("t", floor, cap, mmr, most)
    assert table.last_cap == 20
    assert table.tier_index(np.array([5.0, 15.0, 25.0])).tolist() == [0, 1, 1]
    assert table.max_leverage_at(np.array([10.0, 10.1, 1e9])).tolist() == [50, 25, 25]


@pytest.mark.parametrize("notional", [math.nan, -1.0])
def test_a_notional_that_is_none_is_refused(notional: float) -> None:
    with pytest.raises(RuleError, match="notional must be ≥ 0"):
        WITHOUT.tier_index(np.array([1.0, notional]))


def test_lines_are_all_tiers_with_deductions_and_one_without() -> None:
    assert [column.tolist() for column in WITH.lines(60_000)] == [[0.004, 0.005, 0.01], [0, 50, 1300]]
    assert [column.tolist() for column in WITHOUT.lines(1000.1)] == [[0.02], [0]]


def test_maintenance_with_deductions_by_hand() -> None:
    # 40,000·0.004 = 160; 100,000·0.005 − 50 = 450; 300,000·0.01 − 1300 = 1700; the entry decides nothing
    found = WITH.maintenance(np.array([40_000.0, 100_000.0, 300_000.0]), 1e9)
    np.testing.assert_allclose(found, [160, 450, 1700], rtol=1e-15)


def test_without_deductions_the_tier_of_the_entry_stays() -> None:
    # entered in tier 2 (0.02): 900·0.02 = 18 although 900 itself lies in tier 1; in tier 3: 900·0.05 = 45
    np.testing.assert_allclose(WITHOUT.maintenance(900.0, np.array([900.0, 1500.0, 5001.0])), [9, 18, 45], rtol=1e-15)


TABLES = st.lists(st.tuples(st.floats(1, 1e6), st.floats(1e-4, 0.1)), min_size=1, max_size=8).map(
    lambda steps: (
        np.concatenate(([0.0], np.cumsum([width for width, _ in steps])[:-1])),
        np.cumsum([rise for _, rise in steps]),
    )
)


@given(TABLES, st.floats(0, 1e7))
def test_the_largest_line_is_that_of_the_tier_that_holds_the_notional(
    table: tuple[np.ndarray, np.ndarray], notional: float
) -> None:
    floor, mmr = table
    deduction = derive_deductions(floor, mmr)
    tiered = TierTable.from_rows(list(zip(floor.tolist(), mmr.tolist(), deduction.tolist(), strict=True)))
    k = int(tiered.tier_index(notional))
    # equal but for the rounding of the deductions' running sum, and the 1e-9 of a cap that a tier may hold beyond it
    assert float(tiered.maintenance(notional, notional)) == pytest.approx(
        mmr[k] * notional - deduction[k], rel=1e-9, abs=1e-9 * notional
    )


def test_a_table_is_frozen_and_its_own() -> None:
    floor = np.array([0.0])
    table = TierTable("t", floor, np.array([inf]), np.array([0.01]), np.array([inf]))
    floor[0] = 5
    assert table.floor[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        table.mmr[0] = 0


# ---------------------------------------------------------------- files


def test_a_file_reads_as_one_table(tmp_path: Path) -> None:
    (dated,) = read_tier_tables(written(tmp_path, GOOD))
    table = dated.table
    assert (dated.effective_from_ms, table.name, table.has_deductions) == (None, "ladder", True)
    assert table.floor.tolist() == [0, 50_000, 250_000]
    assert table.cap.tolist() == [50_000, 250_000, inf]
    assert table.max_leverage.tolist() == [125, 100, inf]
    assert table.deduction is not None
    assert table.deduction.tolist() == [0, 50, 1300]


def test_columns_may_be_few_and_in_any_order(tmp_path: Path) -> None:
    (dated,) = read_tier_tables(written(tmp_path, "\ufeffmmr, cap ,floor\r\n0.01,1000,0\r\n\r\n0.02,5000,1000\r\n"))
    assert not dated.table.has_deductions
    assert dated.table.last_cap == 5000
    assert dated.table.max_leverage.tolist() == [inf, inf]


def test_dated_tables_come_in_the_order_of_time(tmp_path: Path) -> None:
    text = "effective_from,floor,cap,mmr\n2024-01-01,0,,0.03\n,0,,0.01\n"
    text += "2023-01-01T08:00Z,0,10,0.02\n2023-01-01T08:00,10,,0.04\n"  # one instant, spelled twice
    found = read_tier_tables(written(tmp_path, text))
    assert [each.effective_from_ms for each in found] == [
        None,
        instant_ms("2023-01-01T08:00"),
        instant_ms("2024-01-01"),
    ]
    assert [each.table.mmr.tolist() for each in found] == [[0.01], [0.02, 0.04], [0.03]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 'floor' is missing"),
        ("floor,cap\n0,1\n", "column 'mmr' is missing"),
        ("floor,cap,mmr,unit\n0,1,0.1,x\n", "unknown column 'unit'"),
        ("floor,cap,mmr,mmr\n0,1,0.1,0.1\n", "column 'mmr' appears twice"),
        ("floor,cap,mmr\n", "at least one tier"),
        ("floor,cap,mmr\n0,1\n", "row 2: has 2 cells, the header 3"),
        ("floor,cap,mmr\n0,1,one\n", "row 2: mmr must be a number; got 'one'"),
        ("floor,cap,mmr\n0,1,nan\n", "row 2: mmr must be a number; got 'nan'"),
        ("floor,cap,mmr\n0,1,\n", "row 2: mmr must be a number; it is empty"),
        ("floor,cap,mmr\n0,1,0.01\n\n2,3,0.02\n", "row 4: floor must be the cap of the tier before, 1; got 2"),
        ("floor,cap,mmr\n5,9,0.01\n", "row 2: floor of the first tier must be 0; got 5"),
        ("floor,cap,mmr\n0,9,0.01\n9,9,0.01\n", "row 3: cap must be above the floor, 9; got 9"),
        ("floor,cap,mmr\n0,,0.01\n9,10,0.01\n", "row 2: cap must be a number; only the last"),
        ("floor,cap,mmr\n0,9,0\n", "row 2: mmr must lie between 0 and 1.*got 0"),
        ("floor,cap,mmr\n0,9,1\n", "row 2: mmr must lie between 0 and 1.*got 1"),
        ("floor,cap,mmr,max_leverage\n0,9,0.1,0\n", "row 2: max_leverage must be > 0; got 0"),
        ("floor,cap,mmr,deduction\n0,9,0.1,0\n9,,0.05,-0.45\n", "row 3: mmr must not fall.*got 0.05 after 0.1"),
        ("floor,cap,mmr,deduction\n0,9,0.1,1\n", "row 2: deduction of the first tier must be 0 or blank; got 1"),
        ("floor,cap,mmr,deduction\n0,9,0.1,\n9,,0.2,inf\n", "row 3: deduction must be finite; got inf"),
        ("floor,cap,mmr,deduction\n0,9,0.1,\n9,99,0.2,0.9\n99,,0.3,\n", "row 4: deduction is empty"),
        ("effective_from,floor,cap,mmr\n1 Jan,0,9,0.1\n", "row 2: effective_from: .*got '1 Jan'"),
        ("effective_from,floor,cap,mmr\n2024-01-01,0,9,0.1\n2025-01-01,9,,0.1\n", "row 3: floor of the first tier"),
    ],
)
def test_a_file_that_is_no_tier_table_is_refused_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RuleError, match=message) as caught:
        read_tier_tables(path)
    assert str(caught.value).startswith(str(path))


def test_a_jump_is_refused_with_floor_both_values_and_row(tmp_path: Path) -> None:
    # at 250,000: 0.005·250,000 − 50 = 1200 below, 0.01·250,000 − 1299 = 1201 above; 1 > 1e-6·250,000 = 0.25
    path = written(tmp_path, GOOD.replace("1300", "1299"))
    with pytest.raises(RuleError, match=r"ladder\.csv row 4: .*floor 250000, from 1200 to 1201"):
        read_tier_tables(path)
    read_tier_tables(written(tmp_path, GOOD.replace("1300", "1299.8")))  # 0.2: published tables are rounded


def test_rates_may_fall_without_deductions(tmp_path: Path) -> None:
    (dated,) = read_tier_tables(written(tmp_path, "floor,cap,mmr\n0,9,0.1\n9,,0.05\n"))
    assert dated.table.mmr.tolist() == [0.1, 0.05]


@pytest.mark.parametrize("content", [None, b"floor,cap,mmr\n0,\xff,0.1\n", b'floor,cap,mmr\n0,"1,0.1\n'])
def test_what_cannot_be_read_is_a_rule_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "none.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuleError, match="cannot be read as a CSV file"):
        read_tier_tables(path)


@pytest.mark.parametrize("rows", [[], [[0]], [[0, None, 0]], [[0, 0.1, 0, 1]], [[0, 0.1], [9, 0.2, 0.9], [99, 0.3]]])
def test_rows_that_are_no_table_are_refused(rows: list[list[float | None]]) -> None:
    with pytest.raises(RuleError, match="tiers"):
        TierTable.from_rows(rows)


def test_columns_of_unlike_length_are_refused() -> None:
    with pytest.raises(RuleError, match=r"t: cap has shape \(1,\), expected \(2,\)"):
        TierTable("t", np.array([0.0, 1.0]), np.array([1.0]), np.array([0.1, 0.2]), np.array([inf, inf]))


# ---------------------------------------------------------------- which date


@pytest.mark.parametrize(("when", "index"), [(99, 0), (100, 1), (199, 1), (200, 2), (10**15, 2), (-(10**15), 0)])
def test_the_latest_date_not_after_the_instant_is_in_force(when: int, index: int) -> None:
    dated = [DatedTable(None, WITH), DatedTable(100, WITHOUT), DatedTable(200, WITH)]
    assert table_at(dated, when) == index


def test_an_instant_before_the_first_date_is_refused() -> None:
    dated = (DatedTable(instant_ms("2022-02-13"), WITH), DatedTable(instant_ms("2023-01-01"), WITHOUT))
    assert table_at(dated, instant_ms("2022-02-13")) == 0
    message = "tiers: no tier table is in force at 2022-02-12T23:59Z: it lies before the first date, 2022-02-13T00"
    with pytest.raises(RuleError, match=message):
        table_at(dated, instant_ms("2022-02-12T23:59"))
    with pytest.raises(RuleError, match="lies before there is any table"):
        table_at((), 0)


# ---------------------------------------------------------------- the named rules


NAMES = {
    *("binance-usdm", "binance-coinm", "bybit-linear", "bybit-inverse", "bybit-classic", "okx-linear", "okx-inverse"),
    *("gate-linear", "hyperliquid", "bitmex-inverse", "deribit-inverse", "deribit-linear", "kraken-inverse", "dydx"),
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_rule_file_is_read_whole(name: str) -> None:
    found = rule(name)
    assert found.contract == ("inverse" if name.endswith(("inverse", "coinm")) else "linear")
    assert found.basis == ("entry" if name == "bybit-classic" else "mark")
    assert found.deductions == name.startswith(("binance", "bybit", "hyperliquid"))
    in_advance, inside = name in ("bybit-linear", "bybit-inverse"), name.startswith(("okx", "gate", "bitmex"))
    assert found.fee_to_close == ("posted" if in_advance else "maintenance" if inside else "none")
    assert found.close_reserve == (0.0005 if inside else 0)
    assert found.slope == (0.00005 if name.startswith("deribit") else None)
    assert found.read.isoformat() >= "2026-01-01"


def test_rules_are_listed_in_order_and_found_by_name() -> None:
    names = [each.name for each in rules()]
    assert names == sorted(names)
    assert set(names) == NAMES
    for name in names:
        assert rule(name).name == name
        assert rule(name).source.startswith("https://")
    binance = rule("binance-usdm")
    assert (binance.contract, binance.basis, binance.close_reserve) == ("linear", "mark", 0)
    assert binance.deductions


def test_an_unknown_rule_names_the_closest_and_all() -> None:
    with pytest.raises(RuleError, match=r"unknown rule 'binance-usd' \(did you mean 'binance-usdm'.*the rules are .*"):
        rule("binance-usd")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"linear"', '"quadratic"', "contract must be 'linear' or 'inverse'; got 'quadratic'"),
        ('"mark"', '"index"', "basis must be 'mark' or 'entry'; got 'index'"),
        ("0.0", "1.5", "close_reserve must be a fraction of the notional.*got 1.5"),
        ("true", "1", "deductions must be True or False; got 1"),
        ("2026-01-31", "2026-01-31T00:00:00", "read must be a date"),
        ('source = "s"', "", "key 'source' is missing"),
        ('"x"', '"y"', "name must be 'x'; got 'y'"),
        ("read", "red", "unknown key 'red'; a rule has name"),
        ('"none"', '"posted"', "key 'taker_fee' is missing; it must be given where"),
        (
            '"none"',
            '"none"\ntaker_fee = 0.0005',
            "taker_fee must be given where fee_to_close is not 'none'.*got 0.0005",
        ),
        ('"none"', '"maintenance"\ntaker_fee = 0.0005', "close_reserve must be the taker_fee, 0.0005.*; got 0.0"),
        ('"none"', '"none"\nslope = 0.0005', "slope must be given together with mmr and initial_rate"),
        ('"none"', '"none"\nmaintenance_share = 2', "maintenance_share must be .*below 1; got 2"),
        ("=", "", "is not TOML"),
    ],
)
def test_a_rule_file_that_is_wrong_is_refused(old: str, new: str, message: str) -> None:
    text = 'name = "x"\ntitle = "t"\ncontract = "linear"\nbasis = "mark"\nclose_reserve = 0.0\ndeductions = true\n'
    text += 'fee_to_close = "none"\n'
    text += 'source = "s"\nread = 2026-01-31\nformula = "f"\n'
    assert parse_rule("x.toml", text).taker_fee is None
    with pytest.raises(RuleError, match="x.toml: " + message):
        parse_rule("x.toml", text.replace(old, new, 1))
