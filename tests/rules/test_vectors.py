"""Published worked examples of linear contracts, each within its own tolerance."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from backtest.rules.price import price_position
from backtest.rules.tiers import TierTable, derive_deductions

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
PRICED = (
    "bn-usdm-cross-eth",
    "bn-usdm-iso-",
    "ft-binance-",
    "ft-okxgate-",
    "ft-bybit-",
    "by-classic-",
    "by-bankruptcy-",
)
KEYS = {
    "WB": "wallet",
    "TMM": "other_maintenance",
    "UPNL": "other_unrealized",
    "cum": "deduction",
    "entry": "entry_price",
    "qty": "quantity",
    "mmr": "mmr",
    "leverage": "leverage",
    "taker": "close_reserve",
    "funding_paid": "funding_paid",
}
ANSWERS = {
    "liq": "liquidation_price",
    "bankruptcy": "bankruptcy_price",
    "im": "initial_margin",
    "mm": "maintenance_margin",
}
needs_shared = pytest.mark.skipif(not FILE.exists(), reason="the folder of worked examples is not there")


def example(name: str) -> Example:
    (found,) = [each for each in EXAMPLES if each.id == name]
    return found


@needs_shared
@pytest.mark.parametrize("case", [each for each in EXAMPLES if each.id.startswith(PRICED)], ids=lambda each: each.id)
def test_published_price(case: Example) -> None:
    given = case.inputs
    document: dict[str, object] = {KEYS[key]: value for key, value in given.items() if key in KEYS}
    short = given.get("short", given.get("side", 1) == -1)
    document = {"quantity": 1, "mmr": 0.005, "side": "short" if short else "long", **document}
    exchange = case.exchange
    if exchange == "Binance USDM":
        document["rules"] = "binance-usdm"
        if "TMM" not in given:  # isolated: the wallet is the position's own, and says more than its leverage
            document["margin"] = document.pop("wallet")
            document.pop("leverage", None)
    else:
        document["contract"] = "linear"
        document["basis"] = "entry" if exchange.startswith("Bybit") else "mark"
    answer = price_position(document)
    assert case.published
    for key, value in case.published.items():
        assert answer[ANSWERS[key]] == pytest.approx(value, abs=case.tol, rel=0), key  # type: ignore[literal-required]


@needs_shared
def test_every_example_of_these_rules_is_priced() -> None:
    assert len([each for each in EXAMPLES if each.id.startswith(PRICED)]) == 21


@needs_shared
@pytest.mark.parametrize("leg", ["btc", "eth"])
def test_legs_of_the_cross_wallet_at_mark(leg: str) -> None:
    case = example("bn-usdm-cross-legs")
    inputs = cast(dict[str, dict[str, float]], case.inputs)[leg]
    wallet = 1535443.01
    document = {KEYS[key]: value for key, value in inputs.items() if key in KEYS}
    answer = price_position(
        {"rules": "binance-usdm", "side": "long", "wallet": wallet, "mark_price": inputs["mark"], **document}
    )
    assert answer["maintenance_margin"] == pytest.approx(case.published[f"mm_{leg}"], abs=case.tol)
    # the ratio is MM / (wallet + unrealized), so the leg's published profit comes back out of it
    assert answer["margin_ratio"] is not None
    unrealized = answer["maintenance_margin"] / answer["margin_ratio"] - wallet
    assert unrealized == pytest.approx(case.published[f"upnl_{leg}"], abs=case.tol)


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
    table = TierTable.of(np.column_stack((floor, mmr, deduction)).tolist())
    value = case.inputs["position_value"]
    k = int(table.tier_of(value))
    assert (table.mmr[k], deduction[k]) == pytest.approx((case.inputs["mmr"], case.inputs["deduction"]), abs=1e-9)
    assert float(table.maintenance(value, value)) == pytest.approx(case.published["mm"], abs=case.tol)


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
