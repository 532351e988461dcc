"""Rules that do not fit the data, their tiers or each other are refused by key and value, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

import backtest as bt
from backtest.config.policies import Exit, Policy, ScaleIn
from tests._support.histories import history_of, random_rows
from tests.config.conftest import Refused

HEAD = "floor,cap,mmr,deduction,max_leverage\n"
LADDER = HEAD + "0,50000,0.004,0,125\n50000,,0.005,50,100\n"
"""Continuous at 50,000: 0.004·50,000 = 200 = 0.005·50,000 − 50."""
AXES = {"leverage": "[2, 10]", "horizon": '["1h", "6h"]', "maintenance": "[0.004]"}


def toml(path: str = "last.parquet", data: str = "", tables: str = "", **axes: str) -> str:
    """A configuration of some axes; `data` are further keys of that table, an empty axis is left out."""
    sweep = "".join(f"{key} = {value}\n" for key, value in (AXES | axes).items() if value)
    return f'[data]\npath = "{path}"\n{data}\n[sweep]\n{sweep}\n{tables}'


# --- what the history lacks -------------------------------------------------------------------------------------------

LACKING = {
    "funding scaled": (
        toml(funding="[{ scale = 1.0 }, { scale = 2.0 }]"),
        "last: sweep.funding: scale = 2, shift = 0 needs funding rates, but the history has none; import them",
    ),
    "funding shifted": (
        toml(funding="[{ scale = 0.0, shift = 0.0001 }]"),
        "last: sweep.funding: scale = 0, shift = 0.0001 needs funding rates, but the history has none",
    ),
    "last as trigger": (
        toml("mark.parquet", data='trigger = "last"'),
        "mark: data.trigger: trigger 'last' is asked for, but the history has no last high and low",
    ),
    "mark as trigger": (
        toml(data='trigger = "mark"'),
        "last: trigger 'mark' is asked for, but the history has no mark price",
    ),
    "a stop on last": (
        toml("mark.parquet", policy='[{ stop_loss = { distance = 0.02, on = "last" } }]'),
        "mark: sweep.policy: stop_loss watches on = 'last', but the history has no last high and low",
    ),
    "a take-profit on last": (
        toml("mark.parquet", policy='[{}, { take_profit = { distance = 0.02, on = "last" } }]'),
        "mark: sweep.policy: take_profit watches on = 'last', but the history has no last high and low",
    ),
    "an expiry before it": (
        toml(tables='[margin]\nexpiry = "2020-01-01"'),
        "last: margin.expiry must lie after the history begins, 2020-01-01T00:00Z; got 2020-01-01",
    ),
}  # fmt: skip


def test_a_symbol_that_lacks_it_is_refused_before_the_first_is_swept(place: Path, refused: Refused) -> None:
    """A has funding and B has none; C is short: each is told before A is counted."""
    for symbol, seed, funding, n in (("A", 1, True, 90), ("B", 2, False, 90), ("C", 3, True, 25)):
        bt.write_history(history_of(random_rows(seed, n, funding=funding, gaps=False), symbol), place / "data")
    scaled = toml("data", 'symbols = ["A", "B"]', funding="[{ scale = 2.0 }]")
    assert refused(1, scaled).startswith("B: sweep.funding: scale = 2, shift = 0 needs funding rates")
    window = toml("data", 'symbols = ["A", "C"]', weight='[{ target = 0.6, window = "2d" }]')
    assert refused(2, window).startswith("sweep.weight: window must be shorter than the history of C, 25h")


def test_the_charges_as_they_were_and_none_need_no_funding() -> None:
    """There are none either way: two fundings, one answer."""
    axes = {"leverage": [3, 125], "horizon": ["6h"], "maintenance": [0.0]}
    sweep = bt.Sweep(**axes, funding=[bt.Funding(), bt.Funding(scale=0.0)])
    table = bt.run(history_of(random_rows(1, 50, funding=False)), sweep).table
    found = table.groupby("funding_scale")["liquidations"].apply(list)
    assert found[0.0] == found[1.0] and sum(found[0.0])


def test_a_range_without_a_charge_is_not_a_history_without_funding(place: Path) -> None:
    """Three hours between two charges: the file has rates, and none falls into the range."""
    bt.write_history(history_of(random_rows(1, 90, gaps=False)), place / "data")
    sweep = bt.Sweep(leverage=[3], horizon=["1h"], maintenance=[0.0], funding=[bt.Funding(scale=2.0)])
    data = bt.Data(start="1970-01-01T09:00Z", end="1970-01-01T12:00Z")
    assert bt.run(str(place / "data"), sweep, data=data).info["coverage"][0]["funding_charges"] == 0


# --- tier tables ------------------------------------------------------------------------------------------------------

TIERS = {
    "out of order": (
        HEAD + "50000,90000,0.005,50,100\n0,50000,0.004,0,125\n",
        "ladder.csv row 2: floor of the first tier must be 0; got 50000",
    ),
    "overlapping": (
        HEAD + "0,50000,0.004,0,125\n40000,,0.005,40,100\n",
        "ladder.csv row 3: floor must be the cap of the tier before, 50000; got 40000",
    ),
    "with a gap": (
        HEAD + "0,50000,0.004,0,125\n60000,,0.005,60,100\n",
        "ladder.csv row 3: floor must be the cap of the tier before, 50000; got 60000",
    ),
    "jumping": (
        HEAD + "0,50000,0.004,0,125\n50000,,0.005,0,100\n",
        "ladder.csv row 3: maintenance jumps at floor 50000, from 200 to 250",
    ),
    "of one date twice": (
        "effective_from,floor,cap,mmr\n2019-01-01,0,50000,0.004\n2019-01-01,0,,0.005\n",
        "ladder.csv row 3: floor must be the cap of the tier before, 50000; got 0",
    ),
    "later than the history": (
        "effective_from,floor,cap,mmr\n2020-01-02,0,,0.004\n",
        "the range starts at 2020-01-01T00:00Z, before the first date of the tier table 'ladder', 2020-01-02T00:00Z",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIERS)
def test_tier_tables(place: Path, refused: Refused, name: str) -> None:
    table, message = TIERS[name]
    (place / "ladder.csv").write_text(table)
    assert message in refused(2, toml(maintenance='["ladder.csv"]', size="[{ notional = 1000 }]"))


def test_leverages_that_no_tier_allows(place: Path, refused: Refused) -> None:
    """At least one must be allowed at some size; others are rejected rows, and tell where the tiers end."""
    (place / "ladder.csv").write_text(LADDER)
    axes = {"maintenance": '["ladder.csv"]', "size": "[{ notional = 1000 }]"}
    said = refused(2, toml(leverage="[150, 126]", **axes))
    assert said == "sweep.leverage: no tier of 'ladder' allows 126 or more; the largest leverage allowed is 125"
    said = refused(2, toml(leverage="[200]", **axes | {"maintenance": '[0.004, "ladder.csv"]'}))
    assert said == "sweep.leverage: no tier of 'ladder' allows 200; the largest leverage allowed is 125"
    # Deribit's initial rate of 2 % at a size of 0 is 50×.
    said = refused(2, toml(leverage="[60]", **axes | {"maintenance": '["deribit-linear"]'}))
    assert said == "sweep.leverage: no tier of 'deribit-linear' allows 60; the largest leverage allowed is 50"


def test_some_leverages_above_the_tiers_are_rejected_rows(place: Path) -> None:
    (place / "ladder.csv").write_text(LADDER)
    sweep = bt.Sweep(
        side=["long"], leverage=[125, 126], horizon=["1h"], maintenance=[str(place / "ladder.csv")],
        size=[bt.Size(notional=1_000.0)],
    )  # fmt: skip
    allowed, above = bt.run(str(place / "last.parquet"), sweep).table.to_dict("records")
    assert (allowed["rejected"], above["entries"], above["rejected"]) == (0, 0, allowed["entries"])


def test_a_symbol_without_a_packaged_table(refused: Refused) -> None:
    axes = {"maintenance": '["binance-usdm"]', "size": "[{ notional = 1000 }]"}
    assert "no tier table of 'last' is packaged for rule 'binance-usdm'" in refused(2, toml(**axes))


# --- rules that contradict each other ---------------------------------------------------------------------------------

POLICY = {
    "two answers to one call": (
        "{ top_up = { target_ratio = 0.5, reserve = 1.0 }, deleverage = { fraction = 0.5 } }",
        "sweep.policy[0]: top_up and deleverage both answer a margin call; give one of them",
    ),
    "a top-up that leaves the call standing": (
        "{ top_up = { target_ratio = 0.8, reserve = 1.0 } }",
        "sweep.policy: top_up.target_ratio must lie below margin.margin_call_ratio 0.8; got 0.8",
    ),
    "an addition beyond the stop": (
        "{ scale_in = { distance = [0.05], multiple = [1.0] }, stop_loss = { distance = 0.05 } }",
        "sweep.policy[0]: scale_in at 0.05 lies beyond stop_loss at 0.05 from the average entry: it is never reached",
    ),
    "distances that do not ascend": (
        "{ scale_in = { distance = [0.05, 0.03], multiple = [1.0, 1.0] } }",
        "sweep.policy[0].scale_in: distances must ascend; got (0.05, 0.03)",
    ),
    "additions without an amount": (
        "{ scale_in = { distance = [0.05, 0.06], multiple = [1.0] } }",
        "sweep.policy[0].scale_in: distance and multiple must be of one length",
    ),
    "a ladder of steps and fractions": (
        "{ ladder = { step = 1, fraction = 0.2 } }",
        "sweep.policy[0].ladder: exactly one of step and fraction must be given",
    ),
    "a ladder of tiers without tiers": (
        "{ ladder = { step = 1 } }",
        "sweep.policy: a ladder of 1 tier(s) needs a tier table; maintenance '0.004' has no tiers",
    ),
    "an amount without a size": (
        "{ ladder = { fraction = 0.2, above = 1000.0 } }",
        "sweep.policy: ladder.above is an amount of notional and needs the axis sweep.size",
    ),
    "a take-profit that slips": (
        "{ take_profit = { distance = 0.1, slippage = 0.01 } }",
        "sweep.policy[0]: take_profit is filled at its level; slippage goes with stop_loss",
    ),
    "all of a position in part": ("{ deleverage = { fraction = 1.0 } }", "must be less than 1; got 1.0"),
}  # fmt: skip


def test_an_addition_moves_the_stop_before_the_next() -> None:
    """Long at 100, as much again at 97: the average is 98.5, and 5 % below it 93.575; the next at 94 comes first.

    A thousandth added at 97 leaves the stop at 94.997, beyond which 94 is never reached.
    """
    stop = Exit(distance=0.05)
    assert Policy(scale_in=ScaleIn(distance=(0.03, 0.06), multiple=(1.0, 1.0)), stop_loss=stop)
    with pytest.raises(bt.ConfigError, match=r"scale_in at 0\.06 lies beyond stop_loss at 0\.05"):
        Policy(scale_in=ScaleIn(distance=(0.03, 0.06), multiple=(0.001, 1.0)), stop_loss=stop)
    # Of margin the place depends on the leverage; on the last price the wick of one need not be that of the other.
    for other in (Exit(distance=0.05, of="margin"), Exit(distance=0.05, on="last")):
        assert Policy(scale_in=ScaleIn(distance=(0.06,), multiple=(1.0,)), stop_loss=other)


MARGIN = {
    "funding of dated futures": (
        toml(tables='[margin]\nexpiry = "2020-01-02"', funding="[{ scale = 2.0 }]"),
        "sweep.funding has no meaning with margin.expiry: dated futures pay none; got scale = 2, shift = 0",
    ),
    "an expiry before the start": (
        toml(data='start = "2020-01-02"', tables='[margin]\nexpiry = "2020-01-02"'),
        "margin.expiry must lie after data.start, 2020-01-02; got 2020-01-02",
    ),
    "a policy under a scaled maintenance": (
        toml(
            tables='[margin]\nmaintenance_scale = { window = "6h", reference = 0.5, cap = 3.0 }',
            policy="[{ stop_loss = { distance = 0.05 } }]",
        ),
        "sweep.policy: not under a maintenance that is scaled ('0.004')",
    ),
    "a policy under rates that slope with size": (
        toml(maintenance='["deribit-linear"]', size="[{ notional = 1000 }]", policy="[{ confirm_bars = 2 }]"),
        "sweep.policy: not under a maintenance that slopes with size ('deribit-linear')",
    ),
    "spot terms of a future": (
        toml(tables="[margin]\nliquidation_ltv = 0.9"),
        "margin: liquidation_ltv goes with contract 'spot'; got 0.9",
    ),
    "a future's terms of a loan": (
        toml(
            maintenance="",
            tables='[margin]\ncontract = "spot"\nliquidation_ltv = 0.9\nmargin_call_ltv = 0.8\nbasis = "mark"',
        ),
        "margin: basis has no meaning for contract 'spot'; got 'mark'",
    ),
    "a loan called after it is closed": (
        toml(maintenance="", tables='[margin]\ncontract = "spot"\nliquidation_ltv = 0.8\nmargin_call_ltv = 0.9'),
        "margin: margin_call_ltv must be at most liquidation_ltv; got 0.9",
    ),
}  # fmt: skip


# --- volatility -------------------------------------------------------------------------------------------------------

WINDOWS = {
    "weights of part of a bar": (
        toml(weight='[{ target = 0.6, window = "90m" }]'),
        "sweep.weight: window must be a multiple of the bars' 1h; got '90m'",
    ),
    "weights of more than the history": (
        toml(weight='[{}, { target = 0.6, window = "2d" }]'),
        "sweep.weight: window must be shorter than the history of last, 2d from first to last bar; got '2d'",
    ),
    "weights of more than the range": (
        toml(data='end = "2020-01-01T06:00Z"', weight='[{ target = 0.6, window = "6h" }]'),
        "sweep.weight: window must be shorter than the history of last, 6h from first to last bar; got '6h'",
    ),
    "a scale of part of a bar": (
        toml(tables='[margin]\nmaintenance_scale = { window = "90m", reference = 0.5, cap = 3.0 }'),
        "margin.maintenance_scale: window must be a multiple of the bars' 1h; got '90m'",
    ),
    "a scale of more than the history": (
        toml(tables='[margin]\nmaintenance_scale = { window = "3d", reference = 0.5, cap = 3.0 }'),
        "margin.maintenance_scale: window must be shorter than the history of last, 2d from first to last bar",
    ),
    "a target without a window": (
        toml(weight="[{ target = 0.6 }]"),
        "sweep.weight[0]: target and window go together",
    ),
    "a cap of nothing": (
        toml(weight="[{ cap = 2.0 }]"),
        "sweep.weight[0]: cap goes with target and window; got 2 alone",
    ),
}  # fmt: skip


CASES = {
    **{name: (1, *case) for name, case in LACKING.items()},
    **{name: (2, toml(policy=f"[{policy}]"), message) for name, (policy, message) in POLICY.items()},
    **{name: (2, *case) for name, case in (MARGIN | WINDOWS).items()},
}


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_is_refused_before_any_work(refused: Refused, name: str) -> None:
    code, text, message = CASES[name]
    assert message in refused(code, text)
