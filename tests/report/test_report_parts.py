"""What the report embeds and recounts: survival packed for its script, the configuration, the worst days, regimes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest as bt
from backtest.config.models import Config, load_config
from backtest.report.html.config_toml import configuration, toml_text
from backtest.report.html.explorer import DIGITS, explorer, packed
from backtest.report.html.summary import pivot
from backtest.report.html.worst_days import worst_section
from backtest.report.number_format import percent_text
from backtest.report.scenario_selection import select
from backtest.report.tables import margin_table, regime_table
from tests._support.histories import history_of, random_rows
from tests._support.run_tables import HORIZONS, LEVERAGES, survival_table
from tests.report.test_report import words

START = ("1d", 5.0)


def unpacked(text: str, count: int) -> list[int]:
    """As the page's script reads it."""
    values, last, rest, weight = [], 0, 0, 1
    for digit in map(DIGITS.index, text):
        rest += digit % 32 * weight
        weight *= 32
        if digit < 32:
            last += -(rest - 1) // 2 if rest % 2 else rest // 2
            values.append(last)
            rest, weight = 0, 1
    return values + [last] * (count - len(values))


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=30))
def test_what_is_packed_is_read_back(values: list[int]) -> None:
    assert unpacked(packed(values), len(values)) == values


def test_packing_by_hand() -> None:
    assert packed([0, 0, 0]) == ""
    assert packed([1, 1, 0]) == "CAD"  # +1 is 2: C; 0: A; −1 is 3: D
    assert packed([16, 16]) == "gB"  # +16 is 32: a 0 with 32 added, then 1


def test_every_share_is_held_as_it_is_written() -> None:
    table = survival_table()
    found = explorer(table, 0.95, START)
    assert [(axis.head, axis.words) for axis in found.axes if len(axis.words) > 1] == [
        ("side", ["long", "short"]),
        ("maintenance", ["0.4 %", "binance-usdm"]),
        ("funding", ["as charged", "× 2 + 0.01 % per charge"]),
    ]
    assert (found.horizons, found.horizon, found.leverage) == (["8h", "1d", "7d"], 1, 4)
    last = table.query("side == 'short' and maintenance == 'binance-usdm' and funding_scale == 2 and horizon == '7d'")
    (scenario,) = [each for each in found.data["scenarios"] if each["at"] == [0, 1, 1, 0, 1, 0]]
    *columns, meets = scenario["rows"][2]
    codes = [unpacked(text, len(LEVERAGES)) for text in columns]
    for row, survival, low, high, entries, liquidations, rejected, few in zip(last.itertuples(), *codes, strict=True):
        shown = [percent_text(share) for share in (row.survival, row.survival_low, row.survival_high)]
        assert [text(code) for code in (survival, low, high)] == shown
        assert (entries, liquidations, rejected, few) == (row.entries, row.liquidations, row.rejected, 0)
    assert found.targets == ["50 %", "80 %", "90 %", "95 %", "99 %"]
    assert meets == [int((last["survival_low"] >= target).cumprod().sum()) for target in (0.5, 0.8, 0.9, 0.95, 0.99)]
    assert found.left_out == ""


def text(code: int) -> str:
    """Hundredths of a percent as the script writes them."""
    if code in (0, 10_000):
        return f"{code // 100} %"
    decimals = 2 if code <= 5 or code >= 9995 else 1
    return "–" if code < 0 else f"{code / 100:.{decimals}f} %"


def test_a_leverage_counts_only_with_every_lower_one() -> None:
    one = survival_table().query("side == 'long' and maintenance == '0.004' and funding_scale == 1 and horizon == '1d'")
    one = one[one["leverage"] <= 5].assign(survival_low=[0.97, 0.96, 0.94, 0.96, 0.7])
    ((scenario,),) = (each["rows"] for each in explorer(one, 0.95, START).data["scenarios"])
    assert scenario[-1] == [5, 4, 4, 2, 0]  # at 50, 80, 90, 95, 99 %: 4x meets 95 % but 3x does not
    ((scenario,),) = (each["rows"] for each in explorer(one.assign(entries=0), 0.95, START).data["scenarios"])
    assert scenario[-1] == [0, 0, 0, 0, 0]


def test_what_does_not_fit_is_left_out_and_said() -> None:
    table = survival_table()
    whole = explorer(table, 0.95, START)
    one = len(json.dumps(whole.data["scenarios"][0]["rows"]))
    few = explorer(table, 0.95, START, most_bytes=round(5.5 * one))
    # First of all the two sides, then what differs from the first scenario in one axis more: never in two.
    assert [each["at"] for each in few.data["scenarios"]] == [
        [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0],
    ]  # fmt: skip
    assert "5 of the run's 8 scenarios, those that differ from the first in the fewest settings" in few.left_out
    least = explorer(table, 0.95, START, most_bytes=round(0.7 * one))
    assert (least.horizons, least.horizon) == (["8h", "7d"], 1)
    assert "1 of the run's 8 scenarios" in least.left_out and "2 of its 3 holding times" in least.left_out


def test_horizons_are_thinned_before_scenarios_are_left_out() -> None:
    one = survival_table().query("maintenance == '0.004' and funding_scale == 1 and horizon == '1d'")
    table = pd.concat([one.assign(horizon=f"{h}h") for h in range(1, 41)], ignore_index=True)
    size = len(json.dumps(explorer(table, 0.95, START).data["scenarios"]))
    found = explorer(table, 0.95, START, most_bytes=round(0.6 * size))
    assert len(found.data["scenarios"]) == found.run_scenarios == 2
    assert 20 <= len(found.horizons) < 25 and (found.horizons[0], found.horizons[-1]) == ("1h", "40h")
    found = explorer(table, 0.95, START, most_bytes=round(0.2 * size))
    assert (len(found.data["scenarios"]), len(found.horizons)) == (1, 13)


def test_many_scenarios_stay_within_the_bytes() -> None:
    one = survival_table().query("side == 'long' and maintenance == '0.004' and funding_scale == 1")
    table = pd.concat([one.assign(open_fee=k / 1e5) for k in range(400)], ignore_index=True)
    found = explorer(table, 0.95, START, most_bytes=100_000)
    assert 50_000 < len(json.dumps(found.data["scenarios"], separators=(",", ":"))) < 100_000
    assert len(found.data["scenarios"]) < 400 == found.run_scenarios


@pytest.mark.parametrize(
    "document",
    [
        {"sweep": {"leverage": [1, 2.5], "horizon": ["8h"], "maintenance": [0.004, "binance-usdm"]}},
        {
            "sweep": {"leverage": {"from": 1, "to": 9}, "horizon": ["1d"], "maintenance": [0.01], "side": ["long"],
                      "funding": [{"scale": 2.0}, {"shift": 0.0001}], "size": [{"margin": 90.0, "extra": 40.0}],
                      "policy": [{}, {"stop_loss": {"distance": 0.05}}]},
            "entries": {"every": "1h"},
            "margin": {"contract": "inverse", "maintenance_scale": {"window": "7d", "reference": 0.5, "cap": 3.0}},
            "statistics": {"confidence": 0.9, "regimes": ["year", {"by": "volatility", "quantiles": 3}]},
        },
        {
            "sweep": {"leverage": [2], "horizon": ["1d"]},
            "margin": {"contract": "spot", "liquidation_ltv": 0.9, "margin_call_ltv": 0.8, "borrow_rate": 1e-5},
        },
        {"sweep": {"leverage": [2], "horizon": ["1d"], "maintenance": [0.01], "portfolio": [{"A": 0.5, "B-C": -0.5}]}},
    ],
)  # fmt: skip
def test_the_configuration_in_the_page_is_that_of_the_run(tmp_path: Path, document: dict[str, object]) -> None:
    config = Config.model_validate({"data": {"path": f'{tmp_path}/da"t\\a'}, **document})
    recipe = toml_text(configuration({"config": config.model_dump(mode="json", by_alias=True)}))
    tomllib.loads(recipe)
    (tmp_path / "run.toml").write_text(recipe, encoding="utf-8")
    read = load_config(tmp_path / "run.toml")
    assert read.model_dump() == config.model_dump()


def test_leverages_of_trades_are_not_in_the_configuration() -> None:
    config = Config.model_validate(
        {"sweep": {"leverage": [1], "horizon": ["1d"], "maintenance": [0.01]}, "entries": {"file": "trades.csv"}}
    )
    info = {"config": config.model_dump(mode="json", by_alias=True), "own_leverage": True}
    assert "leverage" not in configuration(info)["sweep"]
    assert configuration({}) == {}


def test_the_required_margin_by_hand() -> None:
    rows = pd.DataFrame({"horizon": "1d", "leverage": [4.0, 10.0, 20.0], "survival": [0.97, 0.92, 0.4]})
    table = margin_table(rows, 0.95)
    assert [[(cell.text, cell.small) for cell in row] for row in table.rows] == [
        [("50 %", ""), ("10 %", "10×")],
        [("90 %", ""), ("10 %", "10×")],
        [("95 %", ""), ("25 %", "4×")],
        [("99 %", ""), ("more than 25 %", "none at 4×")],
    ]
    table = margin_table(rows.head(2), 0.9)
    assert [row[1].text for row in table.rows[:2]] == ["at most 10 %", "at most 10 %"]


def test_the_page_dwells_on_the_middle_sound_horizon_with_a_choice() -> None:
    rows = survival_table().query("side == 'long' and maintenance == '0.004' and funding_scale == 1")
    choices = pd.DataFrame({"horizon": ["8h", "1d", "7d"], "leverage": [9.0, 4.0, np.nan]})
    assert pivot(rows, choices) == ("1d", 4.0)
    assert pivot(rows.assign(few_blocks=rows["horizon"] == "1d"), choices) == ("8h", 9.0)
    assert pivot(rows.assign(few_blocks=True), choices) == ("1d", 4.0)
    assert pivot(rows, choices.assign(leverage=np.nan)) == ("1d", None)
    assert pivot(rows.assign(few_blocks=rows["horizon"] == "7d"), choices.iloc[:0]) == ("1d", None)
    assert set(HORIZONS) == {"8h", "1d", "7d"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    bt.write_history(history_of(random_rows(11, 4_000)), folder)
    return folder


def run(dataset: Path, **more: object) -> bt.Result:
    keys = {"leverage": [2, 3, 5, 10], "horizon": ["8h", "100h"], "maintenance": [0.005, 0.01], **more}
    return bt.run(str(dataset), bt.Sweep(**keys), statistics=bt.Statistics(regimes=["weekday"]))


def test_the_worst_days_add_up_to_the_run(dataset: Path, tmp_path: Path) -> None:
    result = run(dataset)
    worst = bt.worst_days(result, survival=0.5)
    assert worst.absent == ()
    chosen = result.choose(survival=0.5, horizon="100h").drop_duplicates("side").set_index("side")["leverage"]
    for side, leverage in chosen.items():
        mine = worst.days.query(f"side == '{side}'")
        assert set(mine["leverage"]) == {leverage} and set(mine["maintenance"]) == {"0.005"}
        row = result.table.query(f"side == '{side}' and horizon == '100h' and leverage == {leverage}").iloc[0]
        assert mine["liquidations"].sum() == row["liquidations"] > 0
        whole = bt.liquidation_episodes(
            str(dataset), bt.Sweep(**keys_of(result)), leverage=leverage, where=f"side = '{side}'"
        )
        whole = whole[whole["maintenance"] == "0.005"].reset_index(drop=True)
        found = worst.episodes.query(f"side == '{side}'").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, whole)  # `lived` too, of all leverages of the grid
        section = worst_section(worst, "TEST", side)
        assert section is not None and section.table.rows[0][3].text == f"{whole.iloc[0]['liquidations']:,}"
    page = words(result.report(survival=0.5, path=tmp_path / "page.html", worst=worst).read_text(encoding="utf-8"))
    assert f"TEST long at {chosen['long']:g}×, held 100h" in page
    assert "TEST long held 100h by weekday at entry" in page


def keys_of(result: bt.Result) -> dict[str, object]:
    sweep = result.info["config"]["sweep"]
    return {name: sweep[name] for name in ("leverage", "horizon", "maintenance")}


def test_a_history_that_changed_or_is_gone_is_said(dataset: Path, tmp_path: Path) -> None:
    result = run(dataset)
    other = history_of(random_rows(12, 4_000))
    changed = bt.worst_days(result, histories=other)
    assert changed.days is None
    assert changed.absent == (
        "TEST: its history has changed since the run, so that its days would not be those of the run.",
    )
    info = {
        **result.info,
        "config": {**result.info["config"], "data": {**result.info["config"]["data"], "path": "gone"}},
    }
    gone = bt.worst_days(bt.Result(result.path, info))
    assert len(gone.absent) == 1 and "cannot be looked at again: gone" in gone.absent[0]
    page = words(result.report(path=tmp_path / "page.html", worst=changed).read_text(encoding="utf-8"))
    assert "its history has changed since the run" in page
    page = words(result.report(path=tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "The histories were not looked at again for this page" in page


def test_histories_in_memory_are_handed_in() -> None:
    history = history_of(random_rows(11, 4_000))
    result = bt.run(history, bt.Sweep(leverage=[10], horizon=["8h"], maintenance=[0.005]))
    absent = bt.worst_days(result).absent
    assert len(absent) == 1 and "made from histories in memory; worst_days takes them" in absent[0]
    found = bt.worst_days(result, histories=history)
    assert found.absent == () and found.days is not None
    assert found.days["liquidations"].sum() == result.table["liquidations"].sum() > 0


def test_what_has_no_days_is_said(dataset: Path) -> None:
    stopped = bt.Result(dataset, {"config": {"sweep": {"policy": [{"stop_loss": {"distance": 0.05}}]}}})
    assert bt.worst_days(stopped).absent == (
        "Days are counted for single positions under static rules; here policies act before the end.",
    )
    safe = run(dataset, leverage=[1.0], horizon=["8h"], side=["long"])
    assert bt.worst_days(safe).absent == ("Of TEST long no position was liquidated.",)


def test_regimes_by_hand(dataset: Path) -> None:
    frame = run(dataset).regimes("weekday", "100h")
    rows = select(frame, every=("regime",), side="short")
    table = regime_table(rows, "weekday", [2, 3, 5, 10], 0.5)
    assert table.head == ["weekday", "entries", "largest", "2×", "3×", "5×", "10×"]
    assert [row[0].text for row in table.rows] == list(frame["regime"].unique())
    rows = rows.query("regime == 'Wed'")
    (wednesday,) = [row for row in table.rows if row[0].text == "Wed"]
    assert wednesday[1].text == f"{rows['entries'].max():,}"
    assert wednesday[3].text == percent_text(rows.query("leverage == 2")["survival"].item())
    met = rows[(rows["survival_low"] >= 0.5).cummin()]["leverage"]
    assert wednesday[2].text == (f"{met.max():g}×" if len(met) else "none")
