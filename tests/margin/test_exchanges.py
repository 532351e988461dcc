"""Numbers of each exchange, worked by hand from its formula."""

import pytest

from backtest.margin.liquidation import price
from backtest.margin.rules import rules

# rule, side, what is given beside it, what comes out
COIN: dict[str, float] = {"entry_price": 20_000, "quantity": 10_000}  # 100 contracts of 100: N = 0.5 coin
CROSS = {**COIN, "wallet": 0.1, "other_maintenance": 0.02, "other_unrealized": -0.01}
UTA = {"entry_price": 40_000, "quantity": 1, "leverage": 50, "mmr": 0.005}
UTI = {"entry_price": 50_000, "quantity": 60_000, "leverage": 10, "mmr": 0.005}  # N = 1.2 coin
HYPER: dict[str, float] = {"entry_price": 100, "quantity": 1, "margin": 20, "max_leverage": 50}  # mmr = ½/50 = 0.01
BTC: dict[str, float] = {
    "entry_price": 100_000,
    "quantity": 100,
}  # N = 10 million, maintenance rate 0.01 + 100·0.00005 = 0.015
BTC_INVERSE: dict[str, float] = {"entry_price": 100_000, "quantity": 10_000_000}  # N = 100 BTC
KRAKEN = {"entry_price": 8000, "quantity": 1000, "margin": 0.01, "initial_rate": 0.02}  # N = 0.125 coin, mmr half of it
HAND: list[tuple[str, str, dict[str, float], dict[str, float]]] = [
    # M = 0.05: LP = 10,000·1.004/(0.05 + 0.5); MM = 0.5·0.004; bankruptcy 20,000/1.1
    (
        *("binance-coinm", "long", {**COIN, "leverage": 10, "mmr": 0.004}),
        {"liquidation_price": 10_040 / 0.55, "maintenance_margin": 0.002, "bankruptcy_price": 20_000 / 1.1},
    ),
    # the short: 10,000·(0.004 − 1)/(0.05 − 0.5) = 9960/0.45; bankruptcy 20,000/0.9
    (
        *("binance-coinm", "short", {**COIN, "leverage": 10, "mmr": 0.004}),
        {"liquidation_price": 9960 / 0.45, "initial_margin": 0.05, "bankruptcy_price": 20_000 / 0.9},
    ),
    # cross, a deduction of 0.001 coin: 10,040/(0.1 − 0.02 − 0.01 + 0.001 + 0.5); bankruptcy 10,000/(0.1 − 0.01 + 0.5)
    (
        *("binance-coinm", "long", {**CROSS, "mmr": 0.004, "deduction": 0.001}),
        {"liquidation_price": 10_040 / 0.571, "maintenance_margin": 0.001, "bankruptcy_price": 10_000 / 0.59},
    ),
    # f = 40,000·0.98·0.00055; IM = 800 + f, MM = 200 + f, LP = (40,000 − 800)/0.995
    (
        *("bybit-linear", "long", UTA),
        {
            "fee_to_close": 21.56,
            "initial_margin": 821.56,
            "maintenance_margin": 221.56,
            "liquidation_price": 39_200 / 0.995,
        },
    ),
    # posted 900 of its own, opening asks for 0.02·40,000 + f, f = (40,000 − 900)·0.00055
    (
        *(
            "bybit-linear",
            "long",
            {"entry_price": 40_000, "quantity": 1, "margin": 900, "mmr": 0.005, "initial_rate": 0.02},
        ),
        {"fee_to_close": 21.505, "initial_margin": 821.505, "liquidation_price": 39_100 / 0.995},
    ),
    # f = 40,000·1.02·0.00055; LP = (40,000 + 800 + 3000/1.00055)/1.005; bankruptcy the same without the 1.005
    (
        *("bybit-linear", "short", {**UTA, "extra_margin": 3000}),
        {
            "fee_to_close": 22.44,
            "liquidation_price": (40_800 + 3000 / 1.00055) / 1.005,
            "bankruptcy_price": 40_800 + 3000 / 1.00055,
        },
    ),
    # f = 1.2·1.1·0.00055, IM = 0.12 + f; LP = 60,000·1.005/(1.2 + 0.12 + 0.1/1.00055)
    (
        *("bybit-inverse", "long", {**UTI, "extra_margin": 0.1}),
        {"fee_to_close": 0.000726, "initial_margin": 0.120726, "liquidation_price": 60_300 / (1.32 + 0.1 / 1.00055)},
    ),
    # f = 1.2·0.9·0.00055; LP = 60,000·0.995/(1.2 − 0.12); bankruptcy 60,000/1.08
    (
        *("bybit-inverse", "short", UTI),
        {"fee_to_close": 0.000594, "liquidation_price": 59_700 / 1.08, "bankruptcy_price": 60_000 / 1.08},
    ),
    # IM = 20,000/50, MM = 100 at entry; LP = 20,000 + 300
    (
        *("bybit-classic", "short", {"entry_price": 20_000, "quantity": 1, "leverage": 50, "mmr": 0.005}),
        {"initial_margin": 400, "maintenance_margin": 100, "liquidation_price": 20_300},
    ),
    # 100·(1 − 0.1)/(1 − 0.01 − 0.0005); fee and maintenance of 1000: 0.5 and 10.5
    (
        *("okx-linear", "long", {"entry_price": 100, "quantity": 10, "leverage": 10, "mmr": 0.01}),
        {"liquidation_price": 90 / 0.9895, "fee_to_close": 0.5, "maintenance_margin": 10.5},
    ),
    # 10,000·1.0105/(0.5 + 0.05); fee 0.5·0.0005
    (
        *("okx-inverse", "long", {**COIN, "leverage": 10, "mmr": 0.01}),
        {"liquidation_price": 10_105 / 0.55, "fee_to_close": 0.00025, "maintenance_margin": 0.00525},
    ),
    # with the account's own fee: (10 − 2)/(1 − 0.01 − 0.00075)
    (
        *("gate-linear", "long", {"entry_price": 10, "quantity": 1, "leverage": 5, "mmr": 0.01, "taker_fee": 0.00075}),
        {"liquidation_price": 8 / 0.98925, "fee_to_close": 0.0075, "maintenance_margin": 0.1075},
    ),
    # available = 20 − 1: LP = 100 − 19/0.99, short 100 + 19/1.01
    (
        *("hyperliquid", "long", HYPER),
        {"liquidation_price": 100 - 19 / 0.99, "maintenance_margin": 1, "bankruptcy_price": 80},
    ),
    ("hyperliquid", "short", HYPER, {"liquidation_price": 100 + 19 / 1.01}),
    # N = 20, M = 1: LP = 15,000·1.0055/21; MM = 20·0.0055; bankruptcy 15,000/21
    (
        *("bitmex-inverse", "long", {"entry_price": 750, "quantity": 15_000, "leverage": 20, "mmr": 0.005}),
        {"liquidation_price": 15_082.5 / 21, "maintenance_margin": 0.11, "bankruptcy_price": 15_000 / 21},
    ),
    # LP = (100,000 − 5000)/(1 − 0.015)
    (
        *("deribit-linear", "long", {**BTC, "leverage": 20}),
        {"liquidation_price": 95_000 / 0.985, "maintenance_margin": 150_000, "initial_margin": 500_000},
    ),
    # with a margin of its own, what opening asks for: 10 million · (0.02 + 0.005)
    (
        "deribit-linear",
        "short",
        {**BTC, "margin": 400_000},
        {"initial_margin": 250_000, "liquidation_price": 104_000 / 1.015},
    ),
    # n = 120 BTC at the liquidation: M = 20 + 120·(0.01 + 120·0.00005) = 21.92, P = 10,000,000/120
    (
        *("deribit-inverse", "long", {**BTC_INVERSE, "margin": 21.92}),
        {"liquidation_price": 10_000_000 / 120, "maintenance_margin": 1.5, "initial_margin": 2.5},
    ),
    # n = 80: M = 20 + 80·(0.01 + 80·0.00005) = 21.12, P = 10,000,000/80
    ("deribit-inverse", "short", {**BTC_INVERSE, "margin": 21.12}, {"liquidation_price": 125_000}),
    # LP = 1000·1.01/(0.125 + 0.01), bankruptcy 1000/0.135
    (
        *("kraken-inverse", "long", KRAKEN),
        {
            "liquidation_price": 1010 / 0.135,
            "bankruptcy_price": 1000 / 0.135,
            "initial_margin": 0.0025,
            "maintenance_margin": 0.00125,
        },
    ),
    # (1000 + 3·3000)/(3·0.05 + 3); MM = 450; bankruptcy 3000 + 1000/3
    (
        *("dydx", "short", {"entry_price": 3000, "quantity": 3, "wallet": 1000, "mmr": 0.05}),
        {"liquidation_price": 10_000 / 3.15, "maintenance_margin": 450, "bankruptcy_price": 10_000 / 3},
    ),
]


@pytest.mark.parametrize(("rules_name", "side", "given_numbers", "expected"), HAND)
def test_numbers_of_each_exchange_by_hand(
    rules_name: str, side: str, given_numbers: dict[str, float], expected: dict[str, float]
) -> None:
    answer = price({"rules": rules_name, "side": side, **given_numbers})
    for key, value in expected.items():
        assert answer[key] == pytest.approx(value, rel=1e-12), key  # type: ignore[literal-required]


def test_each_rule_has_a_hand_worked_number() -> None:
    assert {name for name, *_ in HAND} == {each.name for each in rules()} - {"binance-usdm"}  # its own tests are above


def test_a_fee_to_close_stands_in_balance_and_maintenance() -> None:
    # long, E = 800 + 21.56 − 400 at a mark of 39,600; MM = 198 + 21.56
    answer = price({"rules": "bybit-linear", "side": "long", **UTA, "mark_price": 39_600})
    assert answer["margin_ratio"] == pytest.approx(219.56 / 421.56, rel=1e-12)


def test_the_account_s_own_fee_replaces_the_rule_s() -> None:
    own = {"rules": "okx-linear", "side": "long", "entry_price": 10, "quantity": 1, "leverage": 5, "mmr": 0.01}
    answer = price({**own, "taker_fee": 0.0006})
    assert answer["liquidation_price"] == pytest.approx(8 / 0.9894, rel=1e-14)
    assert answer == price({**own, "taker_fee": 0.0006, "close_reserve": 0.0006})
    uta = {"rules": "bybit-linear", "side": "long", **UTA, "taker_fee": 0.001}
    assert price(uta)["fee_to_close"] == pytest.approx(39.2, rel=1e-14)


def test_tiers_of_an_inverse_contract_are_in_coin() -> None:
    # 3 coin at 20,000 long, 5×: n = Q/P grows as the price falls, past 3.5 coin into tier 2 (0.02, D = 3.5·0.01)
    # P = 60,000·1.02/(3 + 0.6 + 0.035), where n = 3.56…
    table = [[0, 0.01, 0], [3.5, 0.02, 0.035]]
    inverse = {"rules": "binance-coinm", "side": "long", "entry_price": 20_000, "quantity": 60_000, "leverage": 5}
    answer = price({**inverse, "tiers": table})
    assert answer["liquidation_price"] == pytest.approx(61_200 / 3.635, rel=1e-12)
    assert answer["tier"] == 1
    assert price({**inverse, "tiers": table, "mark_price": 17_000})["tier"] == 2


def test_an_inverse_long_without_any_safe_price_has_no_level_and_no_ratio() -> None:
    spent = {"rules": "binance-coinm", "side": "long", **COIN, "leverage": 10, "mmr": 0.004, "funding_paid": 0.6}
    answer = price(spent)
    assert (answer["liquidation_price"], answer["margin_ratio"]) == (None, None)


def test_an_inverse_short_whose_maintenance_outgrows_it_says_so_by_its_ratio() -> None:
    # 6000 BTC: E − MM = 10 − 6000 + x − x·(0.01 + 0.00005·x) is at most −5990 + 0.99²/0.0002 < 0
    heavy = {"rules": "deribit-inverse", "side": "short", "entry_price": 50_000, "quantity": 3e8, "margin": 10}
    answer = price(heavy)
    assert answer["liquidation_price"] is None
    assert answer["margin_ratio"] > 1
