"""Policies on days that markets broke: lives equal the literal walk, and what protects a position protects it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.config.policies import Policy
from tests._support.histories import history_of
from tests._support.real import COIN, Case, ada, btc, csv_of, eth, needs_real, published, rows, sui
from tests.oracles import policies as lived
from tests.oracles import walk as oracle

pytestmark = needs_real
TAKER = 0.0005
TERMS = {"liquidation_slippage": 0.002, "liquidation_fee": 0.0125, "taker_fee": TAKER, "margin_call_ratio": 0.3}


def policies(above: float) -> dict[str, tuple[dict[str, object], lived.Policy]]:
    """As a configuration has them, and as the oracle; `above` is a notional."""
    return {
        "one tier at a time": ({"ladder": {"step": 1}}, lived.Policy(ladder=lived.Step(1))),
        "two tiers at a time, confirmed": (
            {"ladder": {"step": 2}, "confirm_bars": 2},
            lived.Policy(ladder=lived.Step(2), confirm_bars=2),
        ),
        "a fifth at a time": (
            {"ladder": {"fraction": 0.2, "above": above}},
            lived.Policy(ladder=lived.Fraction(0.2, above)),
        ),
        "confirmed by three closes": ({"confirm_bars": 3}, lived.Policy(confirm_bars=3)),
        "a reserve": (
            {"top_up": {"target_ratio": 0.2, "reserve": 2.0, "max_times": 3, "delay_bars": 1}},
            lived.Policy(top_up=lived.TopUp(0.2, 2.0, 3, 1)),
        ),
        "halving at a call": (
            {"deleverage": {"fraction": 0.5, "max_times": 4, "delay_bars": 1}},
            lived.Policy(deleverage=lived.Deleverage(0.5, 4, 1)),
        ),
        "a stop and a target": (
            {"stop_loss": {"distance": 0.03, "slippage": 0.001}, "take_profit": {"distance": 0.3, "of": "margin"}},
            lived.Policy(stop_loss=lived.Exit(0.03, slippage=0.001), take_profit=lived.Exit(0.3, of="margin")),
        ),
        "a stop on the last price": (
            {"stop_loss": {"distance": 0.2, "on": "last"}, "take_profit": {"distance": 0.06, "on": "last"}},
            lived.Policy(stop_loss=lived.Exit(0.2, on="last"), take_profit=lived.Exit(0.06, on="last")),
        ),
        "averaging down": (
            {"scale_in": {"distance": [0.02, 0.05], "multiple": [1.0, 2.0]}, "take_profit": {"distance": 0.02}},
            lived.Policy(scale_in=lived.ScaleIn((0.02, 0.05), (1.0, 2.0)), take_profit=lived.Exit(0.02)),
        ),
        "all at once": (
            {
                "ladder": {"step": 1},
                "top_up": {"target_ratio": 0.2, "reserve": 1.0, "max_times": 2},
                "stop_loss": {"distance": 0.9, "of": "margin"},
                "scale_in": {"distance": [0.03, 0.08], "multiple": [0.5, 1.0]},
            },
            lived.Policy(
                ladder=lived.Step(1),
                top_up=lived.TopUp(0.2, 1.0, 2),
                stop_loss=lived.Exit(0.9, of="margin"),
                scale_in=lived.ScaleIn((0.03, 0.08), (0.5, 1.0)),
            ),
        ),
    }  # fmt: skip


EVENTS = ("partial_liquidations", "top_ups", "deleverages", "scale_ins")


def linear(folder: Path, made: oracle.Rows, symbol: str, horizon: list[str], every: str, notional: float) -> Case:
    """The newest recorded tiers of a symbol, at a size in its upper ones."""
    table = published(symbol).tables[-1][1]
    sweep = bt.Sweep(
        leverage=[3, 12], horizon=horizon, maintenance=[csv_of(folder / "tiers.csv", table)],
        size=[bt.Size(notional=notional)], open_fee=[0.0004],
    )  # fmt: skip
    return Case(made, sweep, bt.Margin(**TERMS), bt.Entries(every=every), symbol, {"tiers": table})


def inverse(folder: Path) -> Case:
    """In coin, with what a liquidation leaves going to the fund."""
    sweep = bt.Sweep(
        leverage=[3, 12], horizon=["8h", "36h"], maintenance=[csv_of(folder / "tiers.csv", COIN)],
        size=[bt.Size(margin=1.8)], open_fee=[0.0004],
    )  # fmt: skip
    margin = bt.Margin(contract="inverse", surplus="fund", **TERMS)
    return Case(btc(), sweep, margin, bt.Entries(every="5h"), "BTCUSD", {"tiers": COIN})


DAYS: dict[str, Callable[[Path], Case]] = {
    "BTC in coin": inverse,
    "ETH": lambda folder: linear(folder, eth(), "ETHUSDT", ["8h", "36h"], "5h", 3e7),
    "SUI": lambda folder: linear(folder, sui(), "SUIUSDT", ["40m", "4h"], "20m", 9e5),
    "ADA": lambda folder: linear(folder, ada(), "ADAUSDT", ["40m", "4h"], "20m", 9e5),
}


@pytest.mark.slow
@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.replace(" ", "-"))
def test_policies_through_a_crash(tmp_path: Path, day: str) -> None:
    """Every policy on both sides, life by life; each of them acts."""
    case = DAYS[day](tmp_path)
    known = policies(3.0 if case.margin.contract == "inverse" else 200_000.0).values()
    rules = [Policy.model_validate(words) for words, _ in known]
    events = assert_lived(
        case.sweeping(policy=tuple(rules)), {rule.label: p for rule, (_, p) in zip(rules, known, strict=True)}
    )
    acted = events[list(EVENTS)].sum(axis=1) + events["outcome"].isin(["stopped", "took_profit"])
    acted = acted.groupby(events["policy"]).sum()
    assert (acted[[rule.label for rule in rules if rule.label != "confirm_bars=3"]] > 0).all(), acted


def assert_lived(case: Case, given: dict[str, lived.Policy]) -> pd.DataFrame:
    """Counts with ``==``, amounts to 1e-9 of the initial margin, fills to 1e-9 of the price."""
    grid = case.laid()
    table, events, place = case.run()
    last = lived.last_of(case.made, grid)
    every = case.every_ms() or 1
    bars = [i for i, at in enumerate(grid.open_time_ms) if grid.is_entry(i) and at % every == 0]
    for n, row in enumerate(table.to_dict("records")):
        horizon, scenario = case.bars(row), case.scenario(row)
        whole = [i for i in bars if grid.last_bar(i, horizon) is not None]
        want = [lived.live(grid, scenario, given[row["policy"]], i, horizon, taker_fee=TAKER, last=last) for i in whole]
        mine, opened = events[place == n], [life for life in want if not life.rejected]
        counts = {
            "entries": len(opened),
            "rejected": len(want) - len(opened),
            "margin_calls": sum(life.margin_call_bar is not None for life in opened),
            "liquidations": sum(life.outcome == "liquidated" for life in opened),
        }
        assert {name: row[name] for name in counts} == counts, row
        assert mine["outcome"].replace({np.nan: None}).tolist() == [life.outcome for life in want], row
        for name in EVENTS:
            assert mine[name].tolist() == [getattr(life, name) for life in want], (name, row)
        ends = {"margin_call_time": "margin_call_bar", "liquidation_time": "liquidation_bar", "end_time": "end_bar"}
        for name, bar in ends.items():
            found = [None if pd.isna(at) else at.value // 10**6 for at in mine[name]]
            there = [getattr(life, bar) for life in want]
            assert found == [None if t is None else grid.open_time_ms[t] for t in there], (name, row)
        amounts = {"equity": "equity_end", "fees": "fees", "added": "added", "residual": "residual"}
        for name, attribute in (amounts | {"fill_price": "fill_price", "insurance": "insurance"}).items():
            found = mine.loc[~mine["rejected"].to_numpy(), name].to_numpy(dtype=float)
            there = [getattr(life, attribute) for life in opened]
            if name == "insurance":  # told where a position ended
                there = [None if life.outcome == "survived" else life.insurance for life in opened]
            wanted = np.array([np.nan if v is None else v for v in there], dtype=float)
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{name} {row}")
        assert mine["recovered"].tolist() == [life.recovered for life in want]
    return events


# --- laws -------------------------------------------------------------------------------------------------------------

MONTHS = {
    "BTC": lambda: rows("BTCUSDT", "2020-02-20", "2020-04-10"),
    "ETH": lambda: rows("ETHUSDT", "2021-04-25", "2021-06-10"),
    "SUI": lambda: rows("SUIUSDT", "2025-10-08", "2025-10-13"),
    "ADA": lambda: rows("ADAUSDT", "2025-10-08", "2025-10-13"),
}
HELD = {
    "top_up": [{"top_up": {"target_ratio": 0.5, "reserve": r, "max_times": 4}} for r in (0.2, 1.0, 5.0)],
    "deleverage": [{"deleverage": {"fraction": f, "max_times": 3}} for f in (0.2, 0.5, 0.9)],
}


def deaths(events: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Bars to the liquidation of each entry, a column for each point of an axis; a survivor's never comes."""
    key = ["side", "maintenance", "horizon", "leverage", "entry_time"]
    return events.set_index([*key, axis])["bars_to_liquidation"].fillna(np.inf).unstack(axis)


@pytest.mark.parametrize("answer", HELD)
@pytest.mark.parametrize("month", MONTHS)
def test_an_answered_call_makes_no_liquidation_earlier(tmp_path: Path, month: str, answer: str) -> None:
    """A top-up only adds margin; a deleveraging costs a fee of 0.05 %, and frees a maintenance of 0.5 % and more."""
    made = MONTHS[month]()
    tiers = csv_of(tmp_path / "tiers.csv", published(f"{month}USDT").tables[-1][1])
    sweep = bt.Sweep(
        leverage=[3, 8, 25], horizon=["5d" if made.interval_ms > 300_000 else "10h"], maintenance=[0.005, tiers],
        size=[bt.Size(notional=900_000.0)], open_fee=[0.0004], policy=[{}, *HELD[answer]],
    )  # fmt: skip
    margin = bt.Margin(taker_fee=TAKER)
    result, events = (call(history_of(made), sweep, margin=margin) for call in (bt.run, bt.events_of))
    dead = deaths(events, "policy")
    counted = result.table.pivot_table("liquidations", ["side", "maintenance", "leverage"], "policy", sort=False)
    acted = 0
    for policy in dead.columns.drop("none"):
        assert (dead[policy] >= dead["none"]).all()
        assert (counted[policy] <= counted["none"]).all()
        acted += int((dead[policy] > dead["none"]).sum())
    assert counted["none"].sum() > 100 and acted > 100


@pytest.mark.parametrize("contract", ["linear", "inverse"])
@pytest.mark.parametrize("month", MONTHS)
def test_more_wallet_behind_a_position_liquidates_no_more(tmp_path: Path, month: str, contract: str) -> None:
    """Rejected or liquidated, entry by entry; from 1 % to 30 % of the notional."""
    made = MONTHS[month]()
    price = next(value for value in made.close or [] if value is not None)
    unit = price if contract == "inverse" else 1.0  # extra is in coin where the notional is in quote
    sizes = [bt.Size(notional=600_000.0, extra=600_000.0 * share / unit) for share in (0.0, 0.01, 0.05, 0.3)]
    sweep = bt.Sweep(
        leverage=[3, 8, 25], horizon=["5d" if made.interval_ms > 300_000 else "10h"], maintenance=[0.005, 0.02],
        size=sizes, open_fee=[0.0004],
    )  # fmt: skip
    events = bt.events_of(history_of(made), sweep, margin=bt.Margin(contract=contract))
    events["bars_to_liquidation"] = events["bars_to_liquidation"].where(~events["rejected"], 0)
    dead = deaths(events, "size")[[size.label for size in sizes]].to_numpy()
    assert (dead[:, 1:] >= dead[:, :-1]).all()
    gone = np.isfinite(dead).sum(axis=0)
    assert gone[0] > gone[1] > gone[2] > gone[3] > 0
