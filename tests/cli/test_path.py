"""The way from a user's files to a choice of leverage, command by command."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from backtest.config.models import load_config
from tests.cli.conftest import CONFIG, N_BARS, Done, entries_of, import_words, spawned, typed

SURVIVAL = (
    *("symbol", "side", "maintenance", "open_fee", "funding_scale", "funding_shift", "size", "horizon", "leverage"),
    *("entries", "rejected", "excluded", "margin_calls", "liquidations"),
    *("survival", "survival_low", "survival_high", "survival_km", "few_blocks"),
)
EVENTS = (
    *SURVIVAL[:9],
    *("entry_time", "entry_price", "rejected", "liquidation_price", "bankruptcy_price", "margin_call_time"),
    *("liquidation_time", "bars_to_liquidation", "fill_price", "residual", "recovered", "insurance"),
)


def silent(done: Done) -> str:
    """Standard output of a command that went well and said nothing beside it."""
    assert (done.code, done.err) == (0, ""), done
    return done.out


def test_from_files_to_a_choice_and_a_report(tmp_path: Path, market: Path) -> None:
    """Each command in a process of its own, as typed; what each prints leads to the next."""

    def shell(*words: object) -> Done:
        return spawned(*words, cwd=tmp_path)

    done = shell(*import_words(market), "--out", "data")
    assert done.code == 0
    assert done.out.startswith("data/interval=1h/symbol=BTCUSDT: ")
    assert "mark.csv and 1 more: column time read as UTC timestamps" in done.err

    checked = silent(shell("check", "data"))
    assert checked.splitlines()[0].startswith("BTCUSDT 1h: 2020-01-01T00:00Z … 2020-02-24T03:00Z, 1,300 bars, ")
    assert checked.splitlines()[-1].startswith("no problems, ")

    (tmp_path / "sweep.toml").write_text(CONFIG.replace("market", "data"))
    began = time.time()
    said = silent(shell("run", "sweep.toml"))
    path = Path(said.splitlines()[2])
    assert re.fullmatch(r"runs/sweep-\d{8}T\d{6}Z", str(path))
    stamp = pd.to_datetime(path.name.removeprefix("sweep-"), format="%Y%m%dT%H%M%SZ", utc=True).timestamp()
    # The stamp has whole seconds, so it may lie up to one before the start.
    assert began - 1 <= stamp <= time.time()
    assert f"next: backtest choose {path}" in said
    table = pq.read_table(tmp_path / path / "survival.parquet")
    assert tuple(table.column_names) == SURVIVAL
    assert table.num_rows == 2 * 2 * 3

    count = int(
        re.match(r"events.parquet: ([\d,]+) rows", silent(shell("events", "sweep.toml", "--out", "events.parquet")))[
            1
        ].replace(",", "")
    )
    events = pq.read_table(tmp_path / "events.parquet")
    assert tuple(events.column_names) == EVENTS
    assert events.num_rows == count

    assert "Largest leverage whose survival is at least 90 %" in silent(shell("choose", path, "--survival", "0.9"))
    assert silent(shell("report", path)).strip() == f"{path}/report.html"
    page = (tmp_path / path / "report.html").read_text(encoding="utf-8")
    assert "BTCUSDT" in page
    assert not re.search(r"(?:src|href)=[\"']https?://", page), "the report needs nothing from elsewhere"
    assert entries_of(tmp_path / "runs") == sorted(
        [path.name, *(f"{path.name}/{name}" for name in ("blocks", "report.html", "run.json", "survival.parquet"))]
        + [f"{path.name}/blocks/{file.name}" for file in (tmp_path / path / "blocks").iterdir()]
    )


def test_events_of_every_scenario_add_up_to_the_counts_of_the_run(place: Path) -> None:
    silent(typed("run", "sweep.toml", "--out", "run"))
    silent(typed("events", "sweep.toml", "--out", "events.parquet"))
    table, events = (pq.read_table(file).to_pandas() for file in ("run/survival.parquet", "events.parquet"))
    groups = events.groupby(["side", "horizon", "leverage"])
    for row in table.itertuples():
        part = groups.get_group((row.side, row.horizon, row.leverage))
        assert len(part) == row.entries + row.rejected
        assert part["rejected"].sum() == row.rejected
        assert part["margin_call_time"].notna().sum() == row.margin_calls
        assert part["liquidation_time"].notna().sum() == row.liquidations
    assert table["liquidations"].sum() > 0


def test_where_keeps_the_rows_that_the_condition_names(place: Path) -> None:
    silent(typed("events", "sweep.toml", "--out", "all.csv"))
    condition = "leverage = 50 and side = 'long' and liquidation_time is not null"
    said = silent(typed("events", "sweep.toml", "--out", "some.csv", "--where", condition))
    every, some = pd.read_csv("all.csv"), pd.read_csv("some.csv")
    want = every.query("leverage == 50 and side == 'long'").dropna(subset="liquidation_time")
    assert 0 < len(want) < len(every)
    assert said == f"some.csv: {len(want):,} rows\n"
    pd.testing.assert_frame_equal(some, want.reset_index(drop=True), check_dtype=False)


def test_too_many_events_ask_for_a_condition(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtest.analysis.events.UNASKED_ROWS", 100)
    done = typed("events", "sweep.toml", "--out", "e.csv")
    assert (done.code, done.out) == (2, "")
    assert "narrow them with --where, or ask for --all" in done.err
    assert typed("events", "sweep.toml", "--out", "e.csv", "--all").code == 0


def test_json_documents_stand_alone_on_standard_output(place: Path) -> None:
    found = json.loads(silent(typed("check", "market", "--json")))
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["coverage"][0]["bars"] == N_BARS

    run = json.loads(silent(typed("run", "sweep.toml", "--out", "run", "--json")))
    assert run.pop("run") == "run"
    assert run == json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    keys = {"config", "fingerprint", "versions", "wall_seconds", "cpu_seconds", "verdicts", "coverage"}
    assert keys <= run.keys()
    assert run["coverage"][0]["excluded"] == {"1h": 0, "1d": 0}

    choice = json.loads(silent(typed("choose", "run", "--json", "--horizon", "24h", "--survival", "0.5")))
    assert (choice["run"], choice["survival"], choice["confidence"]) == ("run", 0.5, 0.95)
    assert [(row["side"], row["horizon"]) for row in choice["choices"]] == [("long", "1d"), ("short", "1d")]


def test_json_of_a_broken_dataset_is_still_json_with_exit_code_1(place: Path) -> None:
    spoilt = pq.read_table("market/interval=1h/symbol=BTCUSDT/year=2020/part-0.parquet").slice(0, 30).to_pandas()
    spoilt.loc[5, "mark_low"] = float("inf")
    spoilt.to_parquet("spoilt.parquet")
    done = typed("check", "spoilt.parquet", "--json")
    assert (done.code, done.err) == (1, "")
    found = json.loads(done.out)
    assert not found["ok"]
    first = found["problems"][0]
    assert (first["file"], first["row"], first["column"], first["value"]) == ("spoilt.parquet", 5, "mark_low", "inf")


def test_paths_in_a_config_are_relative_to_it(place: Path) -> None:
    folder = place / "configs" / "deep"
    folder.mkdir(parents=True)
    (folder / "tiers.csv").write_text("floor,cap,mmr\n0,,0.01\n")
    text = CONFIG.replace('"market"', '"../../market"').replace("[0.004]", '[0.004, "tiers.csv"]')
    (folder / "other.toml").write_text(text + "size = [{ notional = 1000 }]\n")
    silent(typed("run", "configs/deep/other.toml", "--out", "run"))
    assert set(pq.read_table("run/survival.parquet")["maintenance"].to_pylist()) == {"0.004", "tiers"}
    # The default run directory is beside the user, not beside the config.
    path = silent(typed("run", "configs/deep/other.toml")).splitlines()[2]
    assert re.fullmatch(r"runs/other-\d{8}T\d{6}Z", path)
    assert (place / path / "run.json").is_file()


def test_the_example_of_the_interface_runs(place: Path) -> None:
    """As it stands there, but for the dates, the dataset, and a tier table bound to the rule name."""
    (place / "ladder.csv").write_text(
        "floor,cap,mmr,deduction,max_leverage\n0,50000,0.004,0,125\n50000,,0.005,50,100\n"
    )
    (place / "example.toml").write_text(EXAMPLE)
    info = json.loads(silent(typed("run", "example.toml", "--out", "run", "--json")))
    table = pq.read_table("run/survival.parquet").to_pandas()
    # 2 sides × 3 rules × 2 fees × 3 fundings × 2 sizes × 5 horizons × 125 leverages.
    assert len(table) == 2 * 3 * 2 * 3 * 2 * 5 * 125
    assert table["maintenance"].unique().tolist() == ["0.004", "0.005", "ladder"]
    assert table["size"].unique().tolist() == ["notional=10000", "margin=1000"]
    assert table["horizon"].unique().tolist() == ["1h", "8h", "1d", "7d", "30d"]
    assert info["coverage"][0]["first"] == "2020-01-04T00:00Z"
    assert load_config("example.toml").statistics.replications == 1000


EXAMPLE = """\
[data]
path = "market"
interval = "1h"
symbols = ["BTCUSDT"]
start = "2020-01-04"
end = "2026-01-01"
trigger = "mark"
max_gap = "6h"

[entries]
every = "1h"

[sweep]
side = ["long", "short"]
leverage = { from = 1, to = 125 }
horizon = ["1h", "8h", "1d", "7d", "30d"]
maintenance = [0.004, 0.005, { rule = "binance-usdm", tiers = "ladder.csv" }]
open_fee = [0.0002, 0.0005]
funding = [{ scale = 1.0 }, { scale = 0.0 }, { scale = 2.0, shift = 0.0001 }]
size = [{ notional = 10000 }, { margin = 1000 }]

[margin]
contract = "linear"
basis = "mark"
close_reserve = 0.0
fees_from_margin = true
margin_call_ratio = 0.8

[statistics]
confidence = 0.95
block = "7d"
replications = 1000
seed = 0
"""


def test_workers_change_nothing(place: Path) -> None:
    for workers in (1, 3):
        silent(typed("run", "sweep.toml", "--out", f"run{workers}", "--workers", workers))
    one, three = (pq.read_table(f"run{workers}/survival.parquet") for workers in (1, 3))
    assert one.equals(three)


def test_a_horizon_longer_than_the_history_has_an_empty_cohort(place: Path) -> None:
    (place / "long.toml").write_text(CONFIG.replace('"1d"', '"100d"'))
    silent(typed("run", "long.toml", "--out", "run"))
    table = pq.read_table("run/survival.parquet").to_pandas()
    empty = table[table["horizon"] == "100d"]
    assert len(empty) == 6
    assert (empty[["entries", "rejected", "excluded", "margin_calls", "liquidations"]] == 0).all(axis=None)
    assert empty[["survival", "survival_low", "survival_high", "survival_km"]].isna().all(axis=None)
    choice = json.loads(silent(typed("choose", "run", "--horizon", "100d", "--json")))
    assert [row["leverage"] for row in choice["choices"]] == [None, None]
    silent(typed("report", "run"))


def test_a_target_that_nothing_meets_is_null_with_what_the_history_can_show(place: Path) -> None:
    silent(typed("run", "sweep.toml", "--out", "run"))
    choice = json.loads(silent(typed("choose", "run", "--survival", "0.999999", "--json")))
    assert {row["leverage"] for row in choice["choices"]} == {None}
    assert all(0 < row["attainable"] < 0.999999 for row in choice["choices"])
    assert "none (max " in silent(typed("choose", "run", "--survival", "0.999999"))


def test_the_worst_days(place: Path) -> None:
    said = silent(typed("days", "sweep.toml", "--leverage", 50, "--side", "long", "--worst", 2, "--plot", "days.png"))
    assert said.startswith("BTCUSDT long · maintenance 0.4 %")
    assert "Liquidations at 50× within 1d: the worst 2 of" in said
    assert (place / "days.png").stat().st_size > 5_000
    found = json.loads(silent(typed("days", "sweep.toml", "--leverage", 50, "--horizon", "60m", "--json")))["episodes"]
    assert {row["horizon"] for row in found} == {"1h"} and {row["side"] for row in found} == {"long", "short"}
    assert typed("days", "sweep.toml", "--leverage", 7).code == 2
