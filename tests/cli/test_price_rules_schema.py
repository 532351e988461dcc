"""The commands that answer from their arguments alone: price, rules, schema, help."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from backtest.margin.position_input import KEYS as INPUTS
from tests.cli.conftest import spawned, typed
from tests.cli.test_path import EXAMPLE, silent

POSITION = {"contract": "linear", "basis": "mark", "side": "long", "entry_price": 100, "quantity": 2, "leverage": 10}
KEYS = {
    "initial_margin",
    "maintenance_margin",
    "margin_ratio",
    "liquidation_price",
    "bankruptcy_price",
    "tier",
    "fee_to_close",
}


def options(position: dict[str, object]) -> list[str]:
    """A position as options."""
    words = []
    for key, value in position.items():
        words += ["--" + key.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)]
    return words


def test_price_answers_options_for_people_and_json_in_json() -> None:
    """By hand: N = 200, M = 20, MM = 0.005·200 = 1, ratio 1/20; E = MM where 20 + 2(P − 100) = 0.005·2P."""
    position = {**POSITION, "mmr": 0.005}
    answer = json.loads(silent(typed("price", "--json", json.dumps(position))))
    assert set(answer) == KEYS
    # 2P(1 − 0.005) = 180: P = 180/1.99. A few roundings of a float64 are within 1e-12 of the price.
    assert answer["liquidation_price"] == pytest.approx(180 / 1.99, rel=1e-12)
    assert answer["bankruptcy_price"] == pytest.approx(90.0, rel=1e-12)
    assert (answer["initial_margin"], answer["maintenance_margin"], answer["tier"]) == (20.0, 1.0, 1)
    assert answer["margin_ratio"] == pytest.approx(0.05, rel=1e-12)
    lines = dict(line.split() for line in silent(typed("price", *options(position))).splitlines())
    assert lines == {key: str(value) for key, value in answer.items()}


def test_price_reads_tiers_as_option_and_in_json() -> None:
    """By hand, the second tier holding N = 200: MM = 0.02·200 − 1 = 3; 20 + 2(P − 100) = 0.02·2P − 1, P = 179/1.96."""
    position = {**POSITION, "tiers": [[0, 0.01, 0], [100, 0.02, 1]]}
    answer = json.loads(silent(typed("price", "--json", json.dumps(position))))
    assert (answer["maintenance_margin"], answer["tier"]) == (3.0, 2)
    assert answer["liquidation_price"] == pytest.approx(179 / 1.96, rel=1e-12)
    assert f"{answer['liquidation_price']}" in silent(typed("price", *options(position)))


def test_price_takes_the_packaged_table_of_a_symbol() -> None:
    """By hand, the table of 2025-12-05: 0.0065·2,000,000 − 1500 = 11,500 in its third tier."""
    position = {"rules": "binance-usdm", "symbol": "BTCUSDT", "side": "short", "entry_price": 50_000, "quantity": 40}
    answer = json.loads(silent(typed("price", "--json", json.dumps(position | {"leverage": 75}))))
    assert (answer["maintenance_margin"], answer["tier"]) == (11_500.0, 3)
    lines = dict(line.split() for line in silent(typed("price", *options(position | {"leverage": 75}))).splitlines())
    assert lines == {key: str(value) for key, value in answer.items()}


def test_price_of_spot_margin() -> None:
    """By hand: 150 owed and 2 % of it, on 2 base: 153/(0.9·2) = 85; a mark of 90: 18/(180 − 153)."""
    terms = {"liquidation_ltv": 0.9, "margin_call_ltv": 0.8, "interest": 0.02, "mark_price": 90}
    position = {"contract": "spot", "side": "long", "entry_price": 100, "quantity": 2, "leverage": 4, **terms}
    answer = json.loads(silent(typed("price", "--json", json.dumps(position))))
    assert set(answer) == KEYS
    assert answer["liquidation_price"] == pytest.approx(85, rel=1e-12)
    assert answer["margin_ratio"] == pytest.approx(18 / 27, rel=1e-12)
    assert (answer["initial_margin"], answer["bankruptcy_price"], answer["tier"]) == (50.0, 75.0, None)
    lines = dict(line.split() for line in silent(typed("price", *options(position))).splitlines())
    assert lines == {key: "—" if value is None else str(value) for key, value in answer.items()}


def test_every_key_of_a_position_is_an_option() -> None:
    text = silent(typed("price", "--help"))
    for key in INPUTS:
        assert f"--{key.replace('_', '-')} " in text


def test_price_shows_null_where_there_is_no_liquidation_price() -> None:
    """A long at leverage 1 whose coins cover all of it: 100 + (P − 100) = 0.01·P only at P = 0."""
    position = {**POSITION, "leverage": 1, "mmr": 0.01}
    assert json.loads(silent(typed("price", "--json", json.dumps(position))))["liquidation_price"] is None
    assert "liquidation_price    —" in silent(typed("price", *options(position)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--leverage", "0"], "leverage must be > 0; got 0"),
        (["--leverage", "nan"], "leverage must be > 0; got nan"),
        (["--leverage", "5", "--margin", "3"], "exactly one of leverage, margin, wallet; got leverage and margin"),
        ([], "exactly one of leverage, margin, wallet; got none"),
        (["--leverage", "5", "--liquidation-ltv", "0.9"], "liquidation_ltv is not read under the contract and basis"),
        (["--leverage", "5", "--symbol", "BTCUSDT"], "symbol takes the packaged tier table, which excludes mmr"),
        (["--leverage", "5", "--side", "up"], "side must be 'long' or 'short'; got 'up'"),
        (["--leverage", "ten"], "'ten' is not a valid float"),
        (["--leverage", "5", "--tiers", "[[0,"], "--tiers is not JSON"),
        (["--leverage", "5", "--rules", "binance"], "unknown rule 'binance' (did you mean 'binance-usdm'"),
        (["--json", "{}"], "--json takes the whole position; put"),
    ],
)
def test_impossible_positions_are_refused(words: list[str], message: str) -> None:
    base = {key: value for key, value in POSITION.items() if key not in ("leverage", "side")} | {"mmr": 0.005}
    side = [] if "--side" in words else ["--side", "long"]
    done = typed("price", *options(base), *side, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "--json is not JSON"),
        ("[1]", "--json must be a JSON object; got '[1]'"),
        ('{"levrage": 3}', "unknown key 'levrage' (did you mean 'leverage'?)"),
        ('{"side": "long"}', "key 'entry_price' is missing"),
        (json.dumps(POSITION | {"mmr": "low"}), "mmr must be a number; got 'low'"),
        (json.dumps(POSITION | {"mmr": 0.01, "entry_price": float("nan")}), "entry_price must be > 0; got nan"),
    ],
)
def test_impossible_json_is_refused(document: str, message: str) -> None:
    done = typed("price", "--json", document)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_rules_are_listed_with_source_and_date() -> None:
    listed = json.loads(silent(typed("rules", "--json")))
    by_name = {rule["name"]: rule for rule in listed}
    assert by_name["binance-usdm"]["basis"] == "mark"
    text = silent(typed("rules")).splitlines()
    assert len(text) == len(listed)
    for line, rule in zip(text, listed, strict=True):
        assert line.split()[0] == rule["name"]
        assert rule["read"] in line
        assert rule["source"] in line


def schema() -> dict[str, object]:
    found = json.loads(silent(typed("schema")))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def test_schema_names_every_key() -> None:
    found = schema()
    named = {"": set(found["properties"])} | {name: set(part["properties"]) for name, part in found["$defs"].items()}
    assert named == {
        "": {"data", "entries", "sweep", "margin", "statistics"},
        "Data": {"path", "interval", "symbols", "start", "end", "trigger", "max_gap"},
        "Entries": {"every", "file"},
        "Sweep": {
            *("side", "leverage", "horizon", "maintenance", "open_fee", "funding", "size"),
            *("weight", "policy", "portfolio"),
        },
        "LeverageRange": {"from", "to", "step"},
        "Funding": {"scale", "shift"},
        "Size": {"notional", "margin", "extra"},
        "VolatilityTarget": {"target", "window", "cap"},
        "VolatilityScale": {"window", "reference", "cap"},
        "Policy": {"confirm_bars", "ladder", "top_up", "deleverage", "stop_loss", "take_profit", "scale_in"},
        "Ladder": {"step", "fraction", "above"},
        "TopUp": {"target_ratio", "reserve", "max_times", "delay_bars"},
        "Deleverage": {"fraction", "max_times", "delay_bars"},
        "Exit": {"distance", "of", "on", "slippage"},
        "ScaleIn": {"distance", "multiple"},
        "RuleTiers": {"rule", "tiers"},
        "Margin": {
            "contract",
            "basis",
            "close_reserve",
            "fees_from_margin",
            "margin_call_ratio",
            "liquidation_slippage",
            "liquidation_fee",
            "surplus",
            "taker_fee",
            "expiry",
            "maintenance_scale",
            "liquidation_ltv",
            "margin_call_ltv",
            "borrow_rate",
        },
        "Statistics": {
            "confidence",
            "block",
            "replications",
            "seed",
            "regimes",
            "outcomes",
            "bankroll_fraction",
        },
        "Regime": {"by", "name", "window", "quantiles", "edges", "file", "column"},
    }


def test_the_example_of_the_interface_fits_the_schema() -> None:
    document = tomllib.loads(EXAMPLE)
    jsonschema.validate(document, schema())
    document["sweep"]["maintenance"] = [0.004, 0.005, "binance-usdm"]
    document["sweep"]["leverage"] = [1, 2, 5.5]
    jsonschema.validate(document, schema())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "pth", "x"),
        ("sweep", "leverage", [0]),
        ("sweep", "leverage", {"from": 1, "to": 5, "stp": 1}),
        ("sweep", "leverage", 20),
        ("sweep", "horizon", ["soon"]),
        ("sweep", "horizon", []),
        ("sweep", "side", ["both"]),
        ("sweep", "funding", [{"scal": 1}]),
        ("sweep", "maintenance", [{"rule": "binance-usdm"}]),
        ("sweep", "maintenance", [1.5]),
        ("margin", "contract", "square"),
        ("statistics", "confidence", 95),
    ],
)
def test_the_schema_refuses_what_the_run_refuses(place: Path, section: str, key: str, value: object) -> None:
    document = tomllib.loads(EXAMPLE)
    document[section][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_help_of_every_command_goes_to_standard_output() -> None:
    main = silent(typed("--help"))
    for command in ("demo", "import", "check", "run", "events", "choose", "report", "price", "rules", "schema"):
        assert f"\n  {command} " in main
        assert silent(typed(command, "--help")).startswith(f"Usage: backtest {command} ")
    assert "--prices" in silent(typed("import", "generic", "-h"))
    assert silent(typed("--version")).split()[-1].count(".") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'CONFIG'"),
        (["run", "--leverage", "3", "x.toml"], "No such option"),
        (["import", "generic", "--symbol", "X"], "Missing option '--interval'"),
        (["events", "x.toml"], "Missing option '--out'"),
        (["choose", "run", "--survival", "high"], "'high' is not a valid float"),
        (["run", "x.toml", "--workers", "two"], "'two' is not a valid integer"),
        ([], "Usage: backtest [OPTIONS] COMMAND"),
    ],
)
def test_errors_of_usage_exit_with_2(words: list[str], message: str) -> None:
    done = typed(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_exit_codes_reach_the_shell(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("time,open,high,low,close\n2020-01-01,1,1,1,0\n")
    bad = ["import", "generic", "--symbol", "X", "--interval", "1h", "--prices", "bad.csv", "--out", "data"]
    for words, code in ((["rules"], 0), (bad, 1), (["run", "nowhere.toml"], 2)):
        done = spawned(*words, cwd=tmp_path)
        assert done.code == code
        assert bool(done.out) == (code == 0)
        assert done.err.startswith("error: ") == (code > 0)
        assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
