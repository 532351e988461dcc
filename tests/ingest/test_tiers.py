"""JSON of exchanges and ccxt becomes a tier table, or is refused with file, entry, key, value and rule."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from backtest.cli import cli
from backtest.errors import ConfigError, RuleError
from backtest.ingest.tiers.importer import ImportedTiers, import_tiers, tiers_csv
from backtest.margin.tiers import DatedTable, TierTable, derive_deductions, read_tier_tables
from backtest.units import instant_ms
from tests.ingest.conftest import Write

REAL = Path(__file__).parents[2].parent / "shared/data/tiers"
inf = math.inf


def taken(path: Path, symbol: str | None = None, since: str | None = None, size: float | None = None) -> ImportedTiers:
    """Import beside the source; what is written reads back as what is reported."""
    out = path.parent / "out.csv"
    done = import_tiers([path], out, symbol=symbol, effective_from=since, contract_size=size)
    assert_same(read_tier_tables(out), done.tables)
    return done


def assert_same(found: tuple[DatedTable, ...], expected: tuple[DatedTable, ...]) -> None:
    assert [each.effective_from_ms for each in found] == [each.effective_from_ms for each in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.table.has_deductions == b.table.has_deductions
        for column in ("floor", "cap", "mmr", "max_leverage", "deduction"):
            assert np.array_equal(getattr(a.table, column), getattr(b.table, column)), column


def columns(done: ImportedTiers) -> list[list[float] | None]:
    table = done.tables[0].table
    deduction = None if table.deduction is None else table.deduction.tolist()
    return [table.floor.tolist(), table.cap.tolist(), table.mmr.tolist(), deduction, table.max_leverage.tolist()]


def bracket(floor: float, cap: float, rate: float, leverage: int, cum: float | None, kind: str = "notional") -> dict:
    values = {"initialLeverage": leverage, f"{kind}Floor": floor, f"{kind}Cap": cap, "maintMarginRatio": rate}
    return values if cum is None else {**values, "cum": cum}


UM = [bracket(0, 50_000, 0.004, 125, 0), bracket(50_000, 250_000, 0.005, 100, 50)]
COIN = [bracket(0, 5, 0.004, 125, 0, "qty"), bracket(5, 10, 0.005, 100, 0.005, "qty")]


def risk(cap: str, rate: str, initial: str, leverage: str, deduction: str | None, symbol: str = "BTCUSDT") -> dict:
    names = ("symbol", "riskLimitValue", "maintenanceMargin", "initialMargin", "maxLeverage")
    values = dict(zip(names, (symbol, cap, rate, initial, leverage), strict=True))
    return values if deduction is None else {**values, "mmDeduction": deduction}


def bybit(*entries: dict, **more: object) -> dict:
    return {"retCode": 0, "retMsg": "OK", "result": {"category": "linear", "list": list(entries), **more}}


RISK = (risk("2000000", "0.005", "0.01", "100.00", ""), risk("2600000", "0.0056", "0.0111", "90.00", "1200"))


def okx(*rows: tuple[str, str, str, str]) -> dict:
    names = ("minSz", "maxSz", "mmr", "maxLever")
    tiers_ = [{"instFamily": "BTC-USDT", "instId": "", **dict(zip(names, row, strict=True))} for row in rows]
    return {"code": "0", "msg": "", "data": tiers_}


OKX = okx(("0", "1000", "0.004", "100"), ("1001", "4000", "0.005", "75"))
META = {
    "universe": [
        {"name": "BTC", "maxLeverage": 40, "marginTableId": 56},
        {"name": "SOL", "maxLeverage": 20, "marginTableId": 20},
        {"name": "OLD", "maxLeverage": 3},
    ],
    "marginTables": [
        [56, {"marginTiers": [{"lowerBound": "0.0", "maxLeverage": 40}, {"lowerBound": "1000.0", "maxLeverage": 20}]}]
    ],
}


def unified(*rows: tuple[float, float | None, float, float], info: list[dict] | None = None) -> list[dict]:
    names = ("minNotional", "maxNotional", "maintenanceMarginRate", "maxLeverage")
    made = [{"symbol": "BTC/USDT:USDT", **dict(zip(names, row, strict=True))} for row in rows]
    return made if info is None else [{**a, "info": b} for a, b in zip(made, info, strict=True)]


CCXT = ((0.0, 1000.0, 0.01, 50.0), (1000.0, 5000.0, 0.02, 25.0))
ENDS = [[0, 1000], [1000, 5000], [0.01, 0.02]]


# ---------------------------------------------------------------- each source


@pytest.mark.parametrize(
    "document",
    [
        [{"symbol": "BTCUSDT", "brackets": UM}],
        {"symbol": "BTCUSDT", "brackets": UM},
        [{"symbol": "BTCUSDT", "brackets": [{k: v for k, v in each.items() if k != "cum"} for each in UM]}],
    ],
    ids=["list", "one", "without cum"],
)
def test_binance(source: Write, document: object) -> None:
    done = taken(source(document))
    # 50,000·(0.005 − 0.004) = 50, whether given or derived
    assert columns(done) == [[0, 50_000], [50_000, 250_000], [0.004, 0.005], [0, 50], [125, 100]]
    assert (done.symbol, done.source) == ("BTCUSDT", "Binance leverageBracket")
    given = "cum" in json.dumps(document)
    assert any("they follow from the rates" in note for note in done.notes) is not given


def test_binance_coin_margined(source: Write) -> None:
    done = taken(source([{"pair": "BTCUSD", "brackets": COIN}]))
    assert columns(done) == [[0, 5], [5, 10], [0.004, 0.005], [0, 0.005], [125, 100]]
    assert (done.symbol, done.source) == ("BTCUSD", "Binance COIN-M leverageBracket")


def test_a_last_cap_that_stands_for_none(source: Write) -> None:
    done = taken(source([{"symbol": "X", "brackets": [UM[0], bracket(50_000, 2**63 - 1, 0.005, 100, 50)]}]))
    assert done.tables[0].table.last_cap == inf
    assert "notionalCap is 9223372036854775807, which stands for no end" in done.notes[1]


def test_bybit_in_fractions(source: Write) -> None:
    done = taken(source(bybit(*RISK)), since="2026-08-05")
    # 2,000,000·(0.0056 − 0.005) = 1200; the floor is the cap before
    assert columns(done) == [[0, 2e6], [2e6, 2.6e6], [0.005, 0.0056], [0, 1200], [100, 90]]
    assert done.tables[0].effective_from_ms == instant_ms("2026-08-05")
    assert "s.json: read as Bybit risk-limit" in done.notes
    assert "maintenanceMargin is read as a fraction: 0.005 at maxLeverage 100.00" in done.notes


def test_bybit_in_percent_and_without_deductions(source: Write) -> None:
    old = [risk("2000000", "0.5", "1", "100.00", None), risk("2600000", "0.56", "1.11", "90.00", None)]
    done = taken(source({"result": {"list": old}, "retCode": 0}))
    assert columns(done) == [[0, 2e6], [2e6, 2.6e6], [0.005, 0.0056], [0, 1200], [100, 90]]
    assert "maintenanceMargin is read as percent: 0.5 at maxLeverage 100.00" in done.notes


def test_pages_are_one_table_and_a_missing_page_is_said(source: Write, tmp_path: Path) -> None:
    first = source(bybit(RISK[0], nextPageCursor="2"), "1.json")
    done = import_tiers([first, source(bybit(RISK[1]), "2.json")], tmp_path / "o.csv")
    assert columns(done)[1] == [2e6, 2.6e6]
    assert any("1.json: nextPageCursor is set" in note for note in done.notes)


def test_okx_contracts_are_converted(source: Write) -> None:
    done = taken(source(OKX), size=500.0)  # 0.01 BTC at 50,000
    assert columns(done) == [[0, 5e5], [5e5, 2e6], [0.004, 0.005], None, [100, 75]]
    assert "minSz lies a step above the maxSz before; floors are those caps" in done.notes
    assert "contracts are counted as 500 quote or coin each" in done.notes


@pytest.mark.parametrize("document", [META, [META, [{"funding": "0"}]]], ids=["meta", "metaAndAssetCtxs"])
def test_hyperliquid(source: Write, document: object) -> None:
    done = taken(source(document), symbol="BTC")
    # half of 1/40 and of 1/20; 1000·(0.025 − 0.0125) = 12.5
    assert columns(done) == [[0, 1000], [1000, inf], [0.0125, 0.025], [0, 12.5], [40, 20]]


@pytest.mark.parametrize(("symbol", "most"), [("SOL", 20.0), ("OLD", 3.0)])
def test_an_asset_without_a_listed_table_is_one_tier(source: Write, symbol: str, most: float) -> None:
    assert columns(taken(source(META), symbol=symbol)) == [[0], [inf], [0.5 / most], [0], [most]]


@pytest.mark.parametrize(
    ("info", "deduction", "name"),
    [
        ([{"cum": "0.0"}, {"cum": "10.0"}], [0, 10], "ccxt leverage tiers of Binance"),
        ([{"maintMarginRatio": "0.01"}] * 2, [0, 10], "ccxt leverage tiers of Binance"),
        ([{"riskLimitValue": "1", "mmDeduction": d} for d in ("", "10")], [0, 10], "ccxt leverage tiers of Bybit"),
        ([{"risk_limit": "1", "maintenance_rate": "0.01"}] * 2, None, "ccxt leverage tiers"),
        (None, None, "ccxt leverage tiers"),
    ],
)
def test_ccxt(source: Write, info: list[dict] | None, deduction: list[float] | None, name: str) -> None:
    for document in (unified(*CCXT, info=info), {"BTC/USDT:USDT": unified(*CCXT, info=info)}):
        path = source(document)
        done = taken(path)
        assert columns(done) == [*ENDS, deduction, [50, 25]]
        assert (done.symbol, done.source) == ("BTC/USDT:USDT", name)
        if deduction is None:
            assert any("no deductions: a position keeps the rate" in note for note in done.notes)
        (path.parent / "out.csv").unlink()


def test_ccxt_of_okx_counts_contracts_under_the_name_of_notional(source: Write) -> None:
    rows = ((0.0, 1000.0, 0.01, 50.0), (1001.0, 5000.0, 0.02, 25.0))
    path = source(unified(*rows, info=[{"minSz": "0"}, {"minSz": "1001"}]))
    with pytest.raises(ConfigError, match="ccxt leverage tiers of OKX counts contracts; give --contract-size"):
        taken(path)
    assert columns(taken(path, size=2.0)) == [[0, 2000], [2000, 10_000], [0.01, 0.02], None, [50, 25]]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[1, 2", "s.json: is not JSON"),
        ("[NaN]", "s.json: is not JSON.*NaN is no JSON number"),
        ("[" * 100_000, "s.json: is not JSON"),
        ([], "s.json: holds no tier"),
        ({}, "s.json: holds no tier"),
        (7, "s.json: s must be a list of entries; got 7"),
        ({"BTC": 7}, "s.json: BTC must be a list of entries; got 7"),
        ([[1]], "s.json: s entry 1: must be an object with the keys of a tier; got"),
        ([{"symbol": "X", "size": 1}], "X entry 1: is a tier of no known source.*keys are symbol, size"),
        ([{"symbol": "X", "brackets": 1}], "X brackets must be a list of entries; got 1"),
        ({"code": -2015, "msg": "Invalid API-key"}, r"code must be 0.*got -2015 \(Invalid API-key\)"),
        ({"retCode": 10001, "retMsg": "bad"}, r"retCode must be 0.*got 10001 \(bad\)"),
        ({"universe": [{"x": 1}]}, "universe entry 1 must be an object with a name"),
        ({"universe": [], "marginTables": [1]}, r"marginTables must hold \[id, table\] pairs; got 1"),
        (
            {"universe": [{"name": "A", "marginTableId": 60}]},
            r"universe A: marginTableId must be one of .*\(none\); got 60",
        ),
        ([*UM, *COIN], "s entry 3: reads as Binance COIN-M leverageBracket, the entries before as Binance leverage"),
        ([UM[0], {**UM[1], "maintMarginRatio": "x"}], "s entry 2: maintMarginRatio must be a finite number; got 'x'"),
        ([UM[0], {**UM[1], "maintMarginRatio": True}], "entry 2: maintMarginRatio must be a finite number; got True"),
        ([UM[0], {**UM[1], "notionalCap": "inf"}], "entry 2: notionalCap must be a finite number; got 'inf'"),
        ([UM[0], {**UM[1], "notionalCap": "1_0"}], "entry 2: notionalCap must be a finite number; got '1_0'"),
        ([{**UM[0], "notionalCap": None}, UM[1]], "entry 1: notionalCap must be a number; got None"),
        ([{"notionalFloor": 0}], "entry 1: initialLeverage must be a number; it is missing"),
        ([UM[0], {**UM[1], "cum": 51}], "entry 2: maintenance jumps at floor 50000.*deduction is cum"),
        (
            [UM[0], {**UM[1], "notionalFloor": 49_000}],
            "entry 2: floor must be the cap.*got 49000 .*floor is notionalFlo",
        ),
        ([UM[1], UM[0]], "s entry 1: floor of the first tier must be 0; got 50000"),
        ([UM[0], UM[0]], "s entry 2: floor must be the cap of the tier before, 50000; got 0"),
        ([UM[0], {**UM[1], "maintMarginRatio": 0.003}], "entry 2: mmr must not fall.*mmr is maintMarginRatio"),
        ([{**UM[0], "maintMarginRatio": 1}], "entry 1: mmr must lie between 0 and 1"),
        ([{**UM[0], "initialLeverage": 0}], "entry 1: max_leverage must be > 0; got 0"),
        ([*UM, bracket(250_000, 1e6, 0.01, 50, None)], "s entry 3: cum is missing; a source gives deductions in every"),
        (bybit(RISK[0], {**RISK[1], "maxLeverage": "0"}), "entry 2: maxLeverage must be > 0; got 0"),
        (bybit(RISK[0], {**RISK[1], "maintenanceMargin": "0.56"}), "entry 2: maintenanceMargin reads as percent"),
        (bybit(RISK[1], RISK[0]), "BTCUSDT entry 2: "),
        ([{"lowerBound": "0.0", "maxLeverage": 0}], "entry 1: maxLeverage must be > 0; got 0"),
        ([{"lowerBound": "5", "maxLeverage": 2}], "entry 1: floor of the first tier must be 0.*floor is lowerBound"),
        (unified((None, 1, 0.1, 5)), "entry 1: minNotional must be a number; got None"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_table_is_refused(source: Write, document: object, message: str) -> None:
    path = source(document)
    with pytest.raises(RuleError, match=message) as caught:
        taken(path)
    assert str(caught.value).startswith(str(path))
    assert sorted(each.name for each in path.parent.iterdir()) == ["s.json"], "nothing is written"


@pytest.mark.parametrize(
    ("floor", "rule"), [("999", "overlaps the maxSz before, 1000; got 999"), ("1001.5", "leaves a gap of more than")]
)
def test_contracts_that_overlap_or_leave_a_gap(source: Write, floor: str, rule: str) -> None:
    path = source(okx(("0", "1000", "0.004", "100"), (floor, "4000", "0.005", "75")))
    with pytest.raises(RuleError, match=f"BTC-USDT entry 2: minSz {rule}"):
        taken(path, size=1.0)


def test_arguments_that_are_impossible(source: Write, tmp_path: Path) -> None:
    path = source(bybit(*RISK, risk("1", "0.005", "0.01", "100", "", "ADAUSDT")))
    with pytest.raises(ConfigError, match="holds 2 symbols, give --symbol: ADAUSDT, BTCUSDT"):
        taken(path)
    with pytest.raises(ConfigError, match="has no symbol 'X'; its symbols are ADAUSDT, BTCUSDT"):
        taken(path, symbol="X")
    with pytest.raises(ConfigError, match="contract_size: Bybit risk-limit has floors and caps in quote or coin"):
        taken(path, symbol="BTCUSDT", size=1.0)
    for size in (0.0, -1.0, inf, math.nan):
        with pytest.raises(ConfigError, match="contract_size must be a finite number > 0"):
            taken(path, symbol="BTCUSDT", size=size)
    with pytest.raises(ConfigError, match=r"effective_from: .*got 'May'"):
        taken(path, symbol="BTCUSDT", since="May")
    with pytest.raises(ConfigError, match="needs at least one source"):
        import_tiers([], tmp_path / "o.csv")
    with pytest.raises(ConfigError, match=r"must end in \.csv"):
        import_tiers([path], tmp_path / "o.txt")
    with pytest.raises(ConfigError, match=r"b\.json reads as OKX position-tiers, .*s\.json as Bybit risk-limit"):
        import_tiers([path, source(OKX, "b.json")], tmp_path / "o.csv")
    with pytest.raises(RuleError, match=r"none\.json: cannot be read"):
        import_tiers([tmp_path / "none.json"], tmp_path / "o.csv")
    with pytest.raises(ConfigError, match="BTC-USDT: OKX position-tiers counts contracts; give --contract-size"):
        taken(source(OKX))
    assert not list(tmp_path.glob("*o.*"))


def test_existing_output_stays_without_overwrite(source: Write, tmp_path: Path) -> None:
    path, out = source(bybit(*RISK)), tmp_path / "o.csv"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"o\.csv: exists already"):
        import_tiers([path], out)
    with pytest.raises(RuleError):
        import_tiers([source("[]", "bad.json")], out, existing="replace")
    assert out.read_text() == "mine"
    import_tiers([path], out, existing="replace")
    assert len(read_tier_tables(out)) == 1


# ---------------------------------------------------------------- the file

DATES = st.none() | st.integers(instant_ms("1971-01-01"), instant_ms("2100-01-01"))


@st.composite
def tables(draw: st.DrawFn) -> TierTable:
    steps = draw(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1e-6, 0.1)), min_size=1, max_size=8))
    floor = np.concatenate(([0.0], np.cumsum([width for width, _ in steps])))
    mmr = np.cumsum([rise for _, rise in steps])
    cap = np.append(floor[1:-1], inf if draw(st.booleans()) else floor[-1])
    most = np.array(draw(st.lists(st.floats(1, 200) | st.just(inf), min_size=len(steps), max_size=len(steps))))
    deduction = derive_deductions(floor[:-1], mmr) if draw(st.booleans()) else None
    return TierTable("t", floor[:-1], cap, mmr, most, deduction)


@given(
    st.lists(st.builds(DatedTable, DATES, tables()), min_size=1, max_size=3, unique_by=lambda t: t.effective_from_ms)
)
def test_tables_read_back_as_they_are(tmp_path_factory: pytest.TempPathFactory, made: list[DatedTable]) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(tiers_csv(made), encoding="utf-8")
    ordered = sorted(made, key=lambda t: -inf if t.effective_from_ms is None else t.effective_from_ms)
    assert_same(read_tier_tables(path), tuple(ordered))


def test_two_tables_of_one_date_are_refused() -> None:
    table = TierTable.from_rows([[0, 0.01]])
    with pytest.raises(RuleError, match="two tier tables have one date, none"):
        tiers_csv([DatedTable(None, table)] * 2)


# ---------------------------------------------------------------- the command, and real files


def test_the_command_writes_and_says_what_it_did(source: Write, tmp_path: Path) -> None:
    words = ["import", "tiers", str(source(OKX)), "--out", str(tmp_path / "okx.csv"), "--contract-size", "0.5"]
    done = CliRunner().invoke(cli, [*words, "--effective-from", "2024-01-01"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "okx.csv: BTC-USDT, 2 tiers of OKX position-tiers" in done.output
    assert (tmp_path / "okx.csv").read_text() == (
        "effective_from,floor,cap,mmr,deduction,max_leverage\n"
        "2024-01-01T00:00Z,0,500,0.004,,100\n2024-01-01T00:00Z,500,2000,0.005,,75\n"
    )


def test_tables_of_other_dates_are_added(source: Write, tmp_path: Path) -> None:
    # COIN has the deductions 0 and 0.005, LATER those that follow: 0 and 5·(0.006 − 0.005)
    out = tmp_path / "t.csv"
    later = [bracket(0, 5, 0.005, 100, 0, "qty"), bracket(5, 10, 0.006, 75, 0.005, "qty")]
    for brackets, since in ((later, "2024-03-01"), (COIN, None), (COIN, "2022-01-01")):
        path = source([{"symbol": "BTCUSD_PERP", "brackets": brackets}])
        done = import_tiers([path], out, effective_from=since, existing="add")
    assert_same(read_tier_tables(out), done.tables)
    assert [one.effective_from_ms for one in done.tables] == [
        None, instant_ms("2022-01-01"), instant_ms("2024-03-01")
    ]  # fmt: skip
    assert done.tables[2].table.mmr.tolist() == [0.005, 0.006]
    before = out.read_bytes()
    with pytest.raises(RuleError, match=r"two tier tables have one date, 2022-01-01T00:00Z"):
        import_tiers([path], out, effective_from="2022-01-01", existing="add")
    with pytest.raises(ConfigError, match=r"add and overwrite exclude each other"):
        CliRunner().invoke(
            cli, ["import", "tiers", str(path), "--out", str(out), "--add", "--overwrite"], catch_exceptions=False
        )
    assert out.read_bytes() == before


@pytest.mark.skipif(not REAL.exists(), reason="the folder of real files is not there")
@pytest.mark.parametrize(
    ("file", "symbol", "n_tiers"),
    [
        ("bybit_linear_risk_limit_20260805_BTC_ADA.json", "BTCUSDT", 35),
        ("bybit_linear_risk_limit_20260805_BTC_ADA.json", "ADAUSDT", 30),
        ("ccxt_unified_binance_sample.json", "BTC/USDT:USDT", 12),
        ("ccxt_unified_binance_sample.json", "ETH/USDT:USDT", 12),
    ],
)
def test_real_files(tmp_path: Path, file: str, symbol: str, n_tiers: int) -> None:
    done = import_tiers([REAL / file], tmp_path / "real.csv", symbol=symbol)
    table = done.tables[0].table
    assert table.floor.size == n_tiers
    assert table.deduction is not None
    derived = derive_deductions(table.floor, table.mmr)
    np.testing.assert_allclose(table.deduction, derived, rtol=1e-9, atol=1e-6)
    assert_same(read_tier_tables(tmp_path / "real.csv"), done.tables)
