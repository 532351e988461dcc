"""Prices and margins of each exchange's rule and of spot margin, worked by hand from the formula."""

import pytest

from backtest.margin.liquidation import price
from backtest.margin.rules import rules

KEYS = {
    "im": "initial_margin",
    "mm": "maintenance_margin",
    "ratio": "margin_ratio",
    "liq": "liquidation_price",
    "broke": "bankruptcy_price",
    "tier": "tier",
    "fee": "fee_to_close",
}
Document = dict[str, object]


def by(rule: str, side: str, terms: Document, **more: object) -> Document:
    """A position under a named rule."""
    return {"rules": rule, "side": side, **terms, **more}


CROSS_ETH: Document = {"entry_price": 1456.84, "quantity": 3683.979, "mmr": 0.1, "deduction": 135_365}
WALLET: Document = {"wallet": 1535443.01, "other_maintenance": 71200.81144, "other_unrealized": -56354.57}
ETH_MM = 3683.979 * 1335.18 * 0.1 - 135_365
COIN: Document = {"entry_price": 20_000, "quantity": 10_000}  # 100 contracts of 100: N = 0.5 coin
COIN_CROSS: Document = {**COIN, "wallet": 0.1, "other_maintenance": 0.02, "other_unrealized": -0.01}
UTA: Document = {"entry_price": 40_000, "quantity": 1, "mmr": 0.005}
UTI: Document = {"entry_price": 50_000, "quantity": 60_000, "leverage": 10, "mmr": 0.005}  # N = 1.2 coin
CLASSIC: Document = {"entry_price": 20_000, "quantity": 1, "leverage": 50, "mmr": 0.005}
HYPER: Document = {"entry_price": 100, "quantity": 1, "margin": 20, "max_leverage": 50}  # mmr = ½/50 = 0.01
BTC: Document = {"entry_price": 100_000, "quantity": 100}  # N = 10 million, rate 0.01 + 100·0.00005 = 0.015
BTC_COIN: Document = {"entry_price": 100_000, "quantity": 10_000_000}  # N = 100 BTC
KRAKEN: Document = {"entry_price": 8000, "quantity": 1000, "margin": 0.01, "initial_rate": 0.02}  # N = 0.125, mmr ½·im
TEN: Document = {"entry_price": 10, "quantity": 1, "leverage": 5, "mmr": 0.01}  # N = 10, M = 2
LONG: Document = {"contract": "linear", "side": "long", **TEN}
TIERS = [[0, 0.004, 0], [300_000, 0.005, 300], [800_000, 0.0065, 1500], [3_000_000, 0.01, 12_000]]
TIERED: Document = {"entry_price": 60_000, "quantity": 100 / 3, "tiers": TIERS}  # N = 2,000,000
COIN_TIERS: Document = {"entry_price": 20_000, "quantity": 60_000, "tiers": [[0, 0.01, 0], [3.5, 0.02, 0.035]]}
BY_ENTRY: Document = {"mmr": None, "quantity": 150, "tiers": [[0, 0.01], [1000, 0.02]]}
# Spot margin, N = 200, W = 50. Long: 150 quote owed on 2 base. Short: 2 base owed against 50 + 200 quote.
SPOT: Document = {"contract": "spot", "entry_price": 100, "quantity": 2, "leverage": 4, "liquidation_ltv": 0.9}
BOUGHT: Document = {**SPOT, "side": "long"}
SOLD: Document = {**SPOT, "side": "short"}

CASES: list[tuple[Document, dict[str, float | None]]] = [
    # LP = (WB − TMM + UPNL + D − s·q·p)/(q·m − s·q) = −3,823,715.34/−3315.58 = 1153.26; mark 1335.18, the whole wallet:
    # (356,512.508 + 71,200.811)/(1,535,443.01 − 56,354.57 − 448,192.885)
    (
        by("binance-usdm", "long", CROSS_ETH, **WALLET, mark_price=1335.18),
        {
            "liq": (1535443.01 - 71200.81144 - 56354.57 + 135_365 - 3683.979 * 1456.84) / (3683.979 * -0.9),
            "mm": ETH_MM,
            "ratio": (ETH_MM + 71200.81144) / (1535443.01 - 56354.57 + 3683.979 * (1335.18 - 1456.84)),
            "im": None,
        },
    ),
    # Tier 3 at entry and at the price: (60,000 − (100,000 + 1500)/33⅓)/(1 − 0.0065); by margin it would be tier 1
    (by("binance-usdm", "long", TIERED, leverage=20), {"liq": 56_955 / 0.9935, "tier": 3}),
    # tier 3 at entry, tier 4 with nearly 4,000,000 in the end: (60,000 + 2,012,000/33⅓)/1.01
    (by("binance-usdm", "short", TIERED, leverage=1), {"liq": 120_360 / 1.01, "tier": 3}),
    # M = 0.05: LP = 10,000·1.004/(0.05 + 0.5); MM = 0.5·0.004
    (
        by("binance-coinm", "long", COIN, leverage=10, mmr=0.004),
        {"liq": 10_040 / 0.55, "mm": 0.002, "broke": 20_000 / 1.1},
    ),
    # 10,000·(0.004 − 1)/(0.05 − 0.5)
    (
        by("binance-coinm", "short", COIN, leverage=10, mmr=0.004),
        {"liq": 9960 / 0.45, "im": 0.05, "broke": 20_000 / 0.9},
    ),
    # 10,040/(0.1 − 0.02 − 0.01 + 0.001 + 0.5); bankruptcy 10,000/(0.1 − 0.01 + 0.5)
    (
        by("binance-coinm", "long", COIN_CROSS, mmr=0.004, deduction=0.001),
        {"liq": 10_040 / 0.571, "mm": 0.001, "broke": 10_000 / 0.59},
    ),
    # 3 coin: n = Q/P grows as the price falls, to 3.56 in tier 2: 60,000·1.02/(3 + 0.6 + 0.035)
    (by("binance-coinm", "long", COIN_TIERS, leverage=5), {"liq": 61_200 / 3.635, "tier": 1}),
    (by("binance-coinm", "long", COIN_TIERS, leverage=5, mark_price=17_000), {"tier": 2}),
    # more funding than margin: no price is safe, which the ratio says
    (by("binance-coinm", "long", COIN, leverage=10, mmr=0.004, funding_paid=0.6), {"liq": None, "ratio": None}),
    # f = 40,000·0.98·0.00055; IM = 800 + f, MM = 200 + f, LP = (40,000 − 800)/0.995
    (
        by("bybit-linear", "long", UTA, leverage=50),
        {"fee": 21.56, "im": 821.56, "mm": 221.56, "liq": 39_200 / 0.995},
    ),
    # E = 800 + f − 400, MM = 198 + f
    (by("bybit-linear", "long", UTA, leverage=50, mark_price=39_600), {"ratio": 219.56 / 421.56}),
    (by("bybit-linear", "long", UTA, leverage=50, taker_fee=0.001), {"fee": 39.2}),
    # margin 900: opening asks for 0.02·40,000 + f, f = (40,000 − 900)·0.00055
    (
        by("bybit-linear", "long", UTA, margin=900, initial_rate=0.02),
        {"fee": 21.505, "im": 821.505, "liq": 39_100 / 0.995},
    ),
    # f = 40,000·1.02·0.00055; LP = (40,000 + 800 + 3000/1.00055)/1.005; bankruptcy the same without the 1.005
    (
        by("bybit-linear", "short", UTA, leverage=50, extra_margin=3000),
        {"fee": 22.44, "liq": (40_800 + 3000 / 1.00055) / 1.005, "broke": 40_800 + 3000 / 1.00055},
    ),
    # f = 1.2·1.1·0.00055, IM = 0.12 + f; LP = 60,000·1.005/(1.2 + 0.12 + 0.1/1.00055)
    (
        by("bybit-inverse", "long", UTI, extra_margin=0.1),
        {"fee": 0.000726, "im": 0.120726, "liq": 60_300 / (1.32 + 0.1 / 1.00055)},
    ),
    # f = 1.2·0.9·0.00055; LP = 60,000·0.995/(1.2 − 0.12)
    (by("bybit-inverse", "short", UTI), {"fee": 0.000594, "liq": 59_700 / 1.08, "broke": 60_000 / 1.08}),
    # IM = 20,000/50, MM = 100 at entry, bankruptcy 20,000·(1 − 1/50)
    (by("bybit-classic", "long", CLASSIC), {"im": 400, "mm": 100, "liq": 19_700, "broke": 19_600}),
    (by("bybit-classic", "long", CLASSIC, funding_paid=200), {"liq": 19_900}),
    (by("bybit-classic", "short", CLASSIC), {"im": 400, "mm": 100, "liq": 20_300}),
    # (10 − 2)/(1 − 0.01 − 0.0005); fee and maintenance of 10
    (by("okx-linear", "long", TEN), {"liq": 8 / 0.9895, "fee": 0.005, "mm": 0.105}),
    (by("okx-linear", "long", TEN, taker_fee=0.0006), {"liq": 8 / 0.9894, "fee": 0.006}),
    (by("okx-linear", "long", TEN, taker_fee=0.0006, close_reserve=0.0006), {"liq": 8 / 0.9894, "fee": 0.006}),
    # 10,000·1.0105/(0.5 + 0.05); fee 0.5·0.0005
    (by("okx-inverse", "long", COIN, leverage=10, mmr=0.01), {"liq": 10_105 / 0.55, "fee": 0.00025, "mm": 0.00525}),
    # with the account's own fee: (10 − 2)/(1 − 0.01 − 0.00075)
    (by("gate-linear", "long", TEN, taker_fee=0.00075), {"liq": 8 / 0.98925, "fee": 0.0075, "mm": 0.1075}),
    # available = 20 − 1: LP = 100 − 19/0.99, short 100 + 19/1.01
    (by("hyperliquid", "long", HYPER), {"liq": 100 - 19 / 0.99, "mm": 1, "broke": 80}),
    (by("hyperliquid", "short", HYPER), {"liq": 100 + 19 / 1.01}),
    # N = 20, M = 1: LP = 15,000·1.0055/21; MM = 20·0.0055
    (
        by("bitmex-inverse", "long", {"entry_price": 750, "quantity": 15_000, "leverage": 20, "mmr": 0.005}),
        {"liq": 15_082.5 / 21, "mm": 0.11, "broke": 15_000 / 21},
    ),
    # LP = (100,000 − 5000)/(1 − 0.015)
    (by("deribit-linear", "long", BTC, leverage=20), {"liq": 95_000 / 0.985, "mm": 150_000, "im": 500_000}),
    # opening asks for 10 million · (0.02 + 0.005)
    (by("deribit-linear", "short", BTC, margin=400_000), {"im": 250_000, "liq": 104_000 / 1.015}),
    # n = 120 BTC at the liquidation: M = 20 + 120·(0.01 + 120·0.00005) = 21.92; n = 80: 20 + 80·(0.01 + 80·0.00005)
    (by("deribit-inverse", "long", BTC_COIN, margin=21.92), {"liq": 10_000_000 / 120, "mm": 1.5, "im": 2.5}),
    (by("deribit-inverse", "short", BTC_COIN, margin=21.12), {"liq": 125_000}),
    # LP = 1000·1.01/(0.125 + 0.01)
    (
        by("kraken-inverse", "long", KRAKEN),
        {"liq": 1010 / 0.135, "broke": 1000 / 0.135, "im": 0.0025, "mm": 0.00125},
    ),
    # (1000 + 3·3000)/(3·0.05 + 3); MM = 450; bankruptcy 3000 + 1000/3
    (
        by("dydx", "short", {"entry_price": 3000, "quantity": 3, "wallet": 1000, "mmr": 0.05}),
        {"liq": 10_000 / 3.15, "mm": 450, "broke": 10_000 / 3},
    ),
    # on entry basis the mark moves the balance and not the maintenance: MM = 10·(0.01 + 0.001), E = 2 + (12 − 10)
    (
        {**LONG, "basis": "entry", "close_reserve": 0.001, "mark_price": 12},
        {"mm": 0.11, "fee": 0.01, "ratio": 0.11 / 4},
    ),
    ({**LONG, "side": "short", "close_reserve": 0.0006}, {"liq": 12 / 1.0106, "fee": 0.006, "mm": 0.106}),
    # entered with 1500 in tier 2: (10 − 2)/(1 − 0.02), where 150·P ≈ 1224; at mark 6: 150·6·0.02
    ({**LONG, **BY_ENTRY, "mark_price": 6}, {"liq": 8 / 0.98, "tier": 2, "mm": 18}),
    # M = 2 + 1 − 0.5: (10 − 2.5)/0.99; bankruptcy 10 − 3, funding aside
    ({**LONG, "extra_margin": 1, "funding_paid": 0.5}, {"liq": 7.5 / 0.99, "broke": 7, "im": 2}),
    # bankruptcy at 10·(1 − 1) = 0: no price
    ({**LONG, "leverage": 1}, {"liq": None, "broke": None}),
    ({**LONG, "leverage": 1, "basis": "entry"}, {"liq": 0.1}),
    ({**LONG, "mark_price": 8}, {"ratio": None}),  # E = 0
    ({**LONG, "mark_price": 9}, {"ratio": 0.09}),  # 9·0.01/(2 − 1)
    ({**LONG, "side": "short", "funding_paid": 13}, {"liq": None, "ratio": None}),  # E = 2 − 13 at every price
    # Spot. MM = 0.1·200, E = 200 − 150, 150/(0.9·2)
    (BOUGHT, {"im": 50, "mm": 20, "ratio": 0.4, "liq": 150 / 1.8, "broke": 75, "tier": None, "fee": 0}),
    # MM = 0.1·250, E = 250 − 200, 0.9·250/2
    (SOLD, {"im": 50, "mm": 25, "ratio": 0.5, "liq": 112.5, "broke": 125, "tier": None, "fee": 0}),
    # 2 % of interest on 150: 153/1.8; mark 90: MM = 0.1·180, E = 180 − 153
    ({**BOUGHT, "interest": 0.02, "mark_price": 90}, {"liq": 85, "ratio": 18 / 27, "broke": 75}),
    # 25 % on 2 base: 225/2.5; mark 80: MM = 25, E = 250 − 200
    ({**SOLD, "interest": 0.25, "mark_price": 80}, {"liq": 90, "mm": 25, "ratio": 0.5, "broke": 125}),
    # without debt no price; 200 of 400 own funds are cash, which bears no interest: MM = 20, E = 400
    ({**BOUGHT, "leverage": 1}, {"liq": None, "broke": None}),
    ({**BOUGHT, "leverage": 0.5}, {"liq": None, "broke": None, "ratio": 0.05}),
    ({**BOUGHT, "leverage": 0.5, "interest": 0.5}, {"ratio": 0.05}),
    # own funds that are the notional but for rounding, 0.1·3 against 0.3
    ({**BOUGHT, "entry_price": 0.1, "quantity": 3, "leverage": None, "margin": 0.3}, {"liq": None}),
    ({**SOLD, "leverage": 1}, {"liq": 180}),  # a short always owes: 0.9·400/2
    ({**BOUGHT, "mark_price": 75}, {"ratio": None}),
    ({**SOLD, "mark_price": 126}, {"ratio": None}),
    ({**BOUGHT, "leverage": 20}, {"ratio": 2}),  # opened beyond the level: E = 10, MM = 20
]  # fmt: skip


@pytest.mark.parametrize(("document", "expected"), CASES)
def test_numbers_worked_by_hand(document: Document, expected: dict[str, float | None]) -> None:
    answer = price(document)
    for key, value in expected.items():
        wanted = None if value is None else pytest.approx(value, rel=1e-12)
        assert answer[KEYS[key]] == wanted, key  # type: ignore[literal-required]


def test_each_rule_has_a_hand_worked_number() -> None:
    assert {document.get("rules") for document, _ in CASES} >= {each.name for each in rules()}


@pytest.mark.parametrize(
    ("document", "same"),
    [
        (by("binance-usdm", "long", TEN), {"contract": "linear", "basis": "mark", "close_reserve": 0}),
        (BOUGHT, {"leverage": None, "margin": 50}),
        (BOUGHT, {"leverage": None, "wallet": 50}),
        (SOLD, {"leverage": None, "wallet": 50}),
        (BOUGHT, {"margin_call_ltv": 0.8}),
    ],
)
def test_what_follows_already_may_be_given(document: Document, same: Document) -> None:
    """The terms of the rule, the own funds that the leverage gives, and the margin call, which moves no price."""
    assert price({**document, **same}) == price(document)


@pytest.mark.parametrize("entry_price", [0.1, 3.3, 99919.21208199284, 7e-5])
@pytest.mark.parametrize("quantity", [1.0008085323765451e-05, 0.3, 7.0])
def test_an_unleveraged_long_has_no_price_whatever_the_rounding(entry_price: float, quantity: float) -> None:
    answer = price({**LONG, "entry_price": entry_price, "quantity": quantity, "leverage": 1})
    assert (answer["liquidation_price"], answer["bankruptcy_price"]) == (None, None)


def test_an_inverse_short_whose_maintenance_outgrows_it_says_so_by_its_ratio() -> None:
    # 6000 BTC: E − MM = 10 − 6000 + x − x·(0.01 + 0.00005·x) is at most −5990 + 0.99²/0.0002 < 0
    heavy = price(by("deribit-inverse", "short", {"entry_price": 50_000, "quantity": 3e8, "margin": 10}))
    assert heavy["liquidation_price"] is None and heavy["margin_ratio"] > 1
