"""Every published worked example, each within its own tolerance."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from backtest.margin.liquidation import price
from backtest.margin.position_input import read_position
from backtest.margin.tiers import TierTable, derive_deductions

SHARED = Path(__file__).parents[2].parent / "shared"
FILE = SHARED / "vectors" / "worked_examples.json"


@dataclass(frozen=True)
class Example:
    """One entry of the file: what goes in, what was published, how far it is rounded."""

    id: str
    exchange: str
    inputs: dict[str, float]
    published: dict[str, float]
    tol: float
    mode: str
    source: str
    note: str


EXAMPLES = [Example(**each) for each in json.loads(FILE.read_text(encoding="utf-8"))] if FILE.exists() else []
# What a published input or output is called among the keys of `backtest price`.
KEYS = {
    "WB": "wallet",
    "TMM": "other_maintenance",
    "UPNL": "other_unrealized",
    "cum": "deduction",
    "mm_deduction": "deduction",
    "entry": "entry_price",
    "qty": "quantity",
    "size_usd": "quantity",
    "mmr": "mmr",
    "leverage": "leverage",
    "taker": "taker_fee",
    "extra_margin": "extra_margin",
    "funding_paid": "funding_paid",
    "isolated_margin": "margin",
    "max_leverage": "max_leverage",
    "margin_btc": "margin",
    "im": "initial_rate",
}
ANSWERS = {
    "liq": "liquidation_price",
    "bankruptcy": "bankruptcy_price",
    "im": "initial_margin",
    "im_btc": "initial_margin",
    "mm": "maintenance_margin",
    "mm_btc": "maintenance_margin",
    "fee_to_close": "fee_to_close",
}
# id begins with: the rule, and what the example leaves unsaid. The first that fits.
RULES: dict[str, tuple[str, dict[str, object]]] = {
    "bn-usdm-cross-eth": ("binance-usdm", {}),
    "bn-usdm-iso-": ("binance-usdm", {}),
    "ft-binance-": ("binance-usdm", {}),
    "bn-coinm-cross-": ("binance-coinm", {}),
    "ft-okxgate-": ("okx-linear", {}),
    "ft-bybit-": ("bybit-classic", {"quantity": 1}),
    "by-classic-": ("bybit-classic", {}),
    "by-bankruptcy-": ("bybit-classic", {"quantity": 1, "mmr": 0.005}),
    "by-uta-iso-": ("bybit-linear", {}),
    "by-uta-inv-": ("bybit-inverse", {"side": "short", "taker_fee": 0}),  # its text of 2024 leaves the fee out
    "kraken-inv-": ("kraken-inverse", {}),
    "hl-pos-": ("hyperliquid", {}),
}
# Examples of something else than the keys of one position, each checked by the test that names it.
OTHERWISE = {
    "bn-usdm-cross-legs": "two legs with a mark price each",
    "bn-cum-usdm": "the recursion of the deductions",
    "bn-coinm-mm": "maintenance at mark, entry and margin not said",
    "by-mm-tiered": "maintenance of a tier table",
    "by-inverse-cross-2020": "maintenance at entry with the fee at the price: a rule of 2020 that none of today has",
    "dydx-short": "no result was printed; the note's number holds instead",
    "dydx-liq": "equity at an oracle price",
    "deribit-btcusdc-0": "a size of 0, which is no position",
    "deribit-btcusdc-350": "rates by size",
    "bitmex-funding": "funding and profit of a position that is closed",
    "ft-funding-0.0001-2.0": "one funding charge: an amount that a position only takes as funding_paid",
    "ft-funding-0.0002-2.0": "as above",
    "ft-funding-0.0002-2.5": "as above",
}
needs_shared = pytest.mark.skipif(not FILE.exists(), reason="the folder of worked examples is not there")


def example(name: str) -> Example:
    (found,) = [each for each in EXAMPLES if each.id == name]
    return found


def rule_of(case: Example) -> str | None:
    return next((start for start in RULES if case.id.startswith(start)), None)


def document_of(case: Example) -> dict[str, object]:
    """The example in the keys of `backtest price`."""
    given = dict(case.inputs)
    name, unsaid = RULES[rule_of(case) or ""]
    short = given.get("short", given.get("side", 1) in (-1, "short"))
    document: dict[str, object] = {KEYS[key]: value for key, value in given.items() if key in KEYS}
    document = {"rules": name, "side": "short" if short else "long", **document, **unsaid}
    if "contracts" in given:
        document["quantity"] = given["contracts"] * given.get("contract_size", 1)
    if name == "binance-usdm" and "TMM" not in given:  # isolated: the wallet is the position's own
        document["margin"] = document.pop("wallet")
    if {"margin", "leverage"} <= set(document):  # the margin says more than the leverage that it follows from
        del document["leverage"]
    if name in ("bybit-classic", "bybit-inverse") and "taker" in given:
        del document["taker_fee"]
    return document


@needs_shared
@pytest.mark.parametrize("case", [each for each in EXAMPLES if rule_of(each)], ids=lambda each: each.id)
def test_published_price(case: Example) -> None:
    answer = price(document_of(case))
    checked = 0
    for key, value in case.published.items():
        if key in ANSWERS:
            assert answer[ANSWERS[key]] == pytest.approx(value, abs=case.tol, rel=0), key  # type: ignore[literal-required]
            checked += 1
    position = read_position(document_of(case))
    for key in {"position_value", "value_btc"} & set(case.published):
        assert position.notional == pytest.approx(case.published[key], abs=case.tol)
        checked += 1
    assert checked == len(case.published) > 0


@needs_shared
@pytest.mark.parametrize(
    "case", [each for each in EXAMPLES if each.id.startswith("ft-okxgate-")], ids=lambda each: each.id
)
def test_gate_has_the_formula_of_okx(case: Example) -> None:
    level = price({**document_of(case), "rules": "gate-linear"})["liquidation_price"]
    assert level == pytest.approx(case.published["liq"], abs=case.tol)


@needs_shared
def test_every_example_is_a_test() -> None:
    assert {each.id for each in EXAMPLES if not rule_of(each)} == set(OTHERWISE)
    assert len(EXAMPLES) == len({each.id for each in EXAMPLES})
    for start in RULES:
        assert any(each.id.startswith(start) for each in EXAMPLES), start


@needs_shared
def test_the_unprinted_price_of_the_inverse_short_is_that_of_the_note() -> None:
    # 60,000·(1 − 0.005)/(1.2 − 0.12) = 59,700/1.08
    answer = price(document_of(example("by-uta-inv-short-2024")))
    assert answer["liquidation_price"] == pytest.approx(55_277.78, abs=0.005)


def unrealized(document: dict[str, object], margin: float) -> float:
    """Profit at mark, as it comes back out of the margin ratio: MM / (margin + profit)."""
    answer = price(document)
    assert answer["margin_ratio"] is not None
    return answer["maintenance_margin"] / answer["margin_ratio"] - margin


@needs_shared
@pytest.mark.parametrize("leg", ["btc", "eth"])
def test_legs_of_the_cross_wallet_at_mark(leg: str) -> None:
    case = example("bn-usdm-cross-legs")
    inputs = cast(dict[str, dict[str, float]], case.inputs)[leg]
    wallet = 1535443.01
    document: dict[str, object] = {KEYS[key]: value for key, value in inputs.items() if key in KEYS}
    document |= {"rules": "binance-usdm", "side": "long", "wallet": wallet, "mark_price": inputs["mark"]}
    answer = price(document)
    assert answer["maintenance_margin"] == pytest.approx(case.published[f"mm_{leg}"], abs=case.tol)
    assert unrealized(document, wallet) == pytest.approx(case.published[f"upnl_{leg}"], abs=case.tol)


@needs_shared
def test_maintenance_of_a_coin_margined_position_at_mark() -> None:
    case = example("bn-coinm-mm")
    given = case.inputs
    document = {"rules": "binance-coinm", "side": "long", "entry_price": 20_000, "margin": 0.1, "mmr": given["mmr"]}
    document |= {"quantity": given["contracts"] * given["contract_size"], "mark_price": given["mark"]}
    assert price(document)["maintenance_margin"] == pytest.approx(case.published["mm"], abs=case.tol)
    size = read_position(document).notional_at(given["mark"])
    assert size == pytest.approx(case.published["notional"], abs=case.tol)


@needs_shared
def test_deduction_recursion() -> None:
    case = example("bn-cum-usdm")
    given = case.inputs
    first = 0.004  # a first tier under the published second, its cap such that the second deduction comes out
    cap = given["cum_prev"] / (given["mmr_prev"] - first)
    floor = np.array([0.0, cap, given["floor"]], dtype=np.float64)
    deduction = derive_deductions(floor, np.array([first, given["mmr_prev"], given["mmr"]], dtype=np.float64))
    assert deduction[-1] == pytest.approx(case.published["cum"], abs=case.tol)


@needs_shared
def test_tiered_maintenance_margin() -> None:
    case = example("by-mm-tiered")
    floor, mmr = np.array([[0.0, 1000.0, 2000.0, 3000.0, 4000.0], [0.02, 0.025, 0.03, 0.035, 0.04]])
    deduction = derive_deductions(floor, mmr)
    table = TierTable.from_rows(np.column_stack((floor, mmr, deduction)).tolist())
    value = case.inputs["position_value"]
    k = int(table.tier_index(value))
    assert (table.mmr[k], deduction[k]) == pytest.approx((case.inputs["mmr"], case.inputs["deduction"]), abs=1e-9)
    assert float(table.maintenance(value, value)) == pytest.approx(case.published["mm"], abs=case.tol)
    # and through the rule, whose maintenance has the fee to close on top
    document = {"rules": "bybit-linear", "side": "long", "entry_price": 1, "quantity": value, "leverage": 10}
    answer = price({**document, "tiers": table})
    assert answer["maintenance_margin"] - answer["fee_to_close"] == pytest.approx(case.published["mm_flat"], abs=1e-9)


@needs_shared
def test_the_historical_cross_rule_is_arithmetic_and_no_rule() -> None:
    # LP = Q(1 + c)/(Q/E + W − m·Q/E), bankruptcy Q(1 + c)/(Q/E + W): in coin, the closing fee is of the value at the
    # price and maintenance of the value at entry, which no basis of today's rules mixes
    case = example("by-inverse-cross-2020")
    size, entry, wallet, mmr, fee = (case.inputs[key] for key in ("size_usd", "entry", "balance_btc", "mmr", "taker"))
    value = size / entry
    assert size * (1 + fee) / (value + wallet) == pytest.approx(case.published["bankruptcy"], abs=case.tol)
    assert size * (1 + fee) / (value + wallet - mmr * value) == pytest.approx(case.published["liq"], abs=case.tol)
    # the bankruptcy price without its fee is the rules' own: 10,000/1.75
    document = {"contract": "inverse", "basis": "entry", "side": "long", "entry_price": entry, "quantity": size}
    found = price({**document, "wallet": wallet, "mmr": mmr})["bankruptcy_price"]
    assert found == pytest.approx(case.published["bankruptcy"] / (1 + fee), abs=case.tol)


@needs_shared
def test_dydx_liquidation_of_a_short_where_no_result_was_printed() -> None:
    case = example("dydx-short")
    given = case.inputs
    assert not case.published
    document = {"rules": "dydx", "side": "short", "entry_price": given["p"], "quantity": -given["s"]}
    answer = price({**document, "wallet": given["e"], "mmr": given["mmf"]})
    # (1000 + 3·3000) / (3·0.05 + 3) = 10,000/3.15
    assert answer["liquidation_price"] == pytest.approx(3174.603, abs=0.001)


@needs_shared
def test_dydx_equity_at_the_oracle_price() -> None:
    case = example("dydx-liq")
    given, published = case.inputs, case.published
    document = {"rules": "dydx", "side": "long", "entry_price": given["p"], "quantity": given["s"], "mmr": given["mmf"]}
    document["margin"] = given["e"]
    assert price(document)["maintenance_margin"] == pytest.approx(published["mmr_at_entry"], abs=case.tol)
    profit = unrealized({**document, "mark_price": given["oracle"]}, given["e"])
    assert profit == pytest.approx(published["pnl"], abs=case.tol)
    assert given["e"] + profit == pytest.approx(published["equity"], abs=case.tol)


@needs_shared
@pytest.mark.parametrize("name", ["deribit-btcusdc-0", "deribit-btcusdc-350"])
def test_deribit_rates_by_size(name: str) -> None:
    case = example(name)
    size = case.inputs["size_btc"] or 1e-9  # a position has a size; 1e-9 BTC add 5e-14 to the rates
    index = case.inputs["index"]
    document = {
        "rules": "deribit-linear",
        "side": "long",
        "entry_price": index,
        "quantity": size,
        "wallet": size * index,
    }
    answer = price(document)
    assert answer["initial_margin"] is not None
    found = {
        "im_rate": answer["initial_margin"] / (size * index),
        "mm_rate": answer["maintenance_margin"] / (size * index),
        "im_usdc": answer["initial_margin"],
    }
    for key, value in case.published.items():
        assert found[key] == pytest.approx(value, abs=case.tol), key


@needs_shared
def test_bitmex_funding_then_close() -> None:
    case = example("bitmex-funding")
    given, published = case.inputs, case.published
    document = {"rules": "bitmex-inverse", "side": "long", "entry_price": given["entry"], "mmr": 0.005, "margin": 2}
    document["quantity"] = given["contracts"]
    value = read_position(document).notional
    assert value == pytest.approx(published["value_xbt"], abs=case.tol)
    paid = value * given["funding_rate"]  # at the mark price, which is that of the entry
    assert paid == pytest.approx(published["funding_xbt"], abs=case.tol)
    assert unrealized({**document, "mark_price": given["exit"]}, 2) == pytest.approx(published["pnl_xbt"], abs=1e-9)
    net = unrealized({**document, "mark_price": given["exit"], "funding_paid": paid}, 2)
    assert net == pytest.approx(published["net_xbt"], abs=case.tol)


@needs_shared
@pytest.mark.parametrize(
    "case", [each for each in EXAMPLES if each.id.startswith("ft-funding-")], ids=lambda each: each.id
)
def test_one_funding_charge(case: Example) -> None:
    given = case.inputs
    paid = given["qty"] * given["mark"] * given["rate"]
    assert paid == pytest.approx(case.published["fee"], abs=case.tol)
    # taken out of a long's margin it is gone from the balance
    document = {"rules": "binance-usdm", "side": "long", "entry_price": given["mark"], "quantity": given["qty"]}
    assert unrealized({**document, "margin": 10, "mmr": 0.01, "funding_paid": paid}, 10) == pytest.approx(
        -case.published["fee"], abs=case.tol
    )


@pytest.mark.skipif(not (SHARED / "data" / "tiers").exists(), reason="the folder of published tables is not there")
@pytest.mark.parametrize(
    ("file", "keys", "n_tables"),
    [
        ("binance_um_tier_history.parquet", ["snapshot", "symbol"], 177),
        ("binance_um_tiers_20260507_all.parquet", ["symbol"], 719),
    ],
)
def test_published_binance_tables_are_accepted_as_they_are(file: str, keys: list[str], n_tables: int) -> None:
    pd = pytest.importorskip("pandas")
    groups = pd.read_parquet(SHARED / "data" / "tiers" / file).groupby(keys)
    assert len(groups) == n_tables
    for name, rows in groups:
        columns = ("min_notional", "max_notional", "mmr", "max_leverage", "maint_amount")
        table = TierTable(str(name), *(rows[column].to_numpy() for column in columns))
        assert table.deduction is not None
        np.testing.assert_allclose(derive_deductions(table.floor, table.mmr), table.deduction, rtol=1e-9, atol=1e-6)
