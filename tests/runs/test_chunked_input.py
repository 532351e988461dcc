"""A history that is read in parts gives the bytes of one that is read whole."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.config.models import Config, load_config
from backtest.data import writer
from backtest.data.history import PriceHistory
from backtest.data.reader import SeriesFiles
from backtest.engine import cohorts
from backtest.errors import DataError
from backtest.runs import checkpoint, chunked_input, inputs, memory
from backtest.runs import run as runner
from backtest.runs import tasks as jobs
from backtest.runs.inputs import list_sources
from backtest.runs.memory import Budget
from backtest.runs.scheduler import summarise_data
from backtest.runs.tasks import RunInputs
from tests._support import histories
from tests._support.histories import HOUR, history_of, random_rows
from tests._support.kills import content
from tests.cli.conftest import typed

CHUNK = 32
SWEEP = """\
[data]
path = "data"
{data}
[sweep]
leverage = [2, 7.5, 20, 60]
horizon = ["90h", "2h", "30h"]
{sweep}
[statistics]
block = "3d"
{statistics}
"""
FLAT = "maintenance = [0.004, 0.02]\nfunding = [{}, { scale = 3.0, shift = 0.0001 }]\nopen_fee = [0.0, 0.001]"
TIERS = 'maintenance = ["tiers.csv"]\nsize = [{ notional = 5000.0 }, { margin = 100.0 }]'
CASES = {
    "flat": (FLAT, "", "", ""),
    "last": (FLAT, 'trigger = "last"', "", ""),
    "range": (FLAT, 'start = "1970-01-04T05:00Z"\nend = "1970-01-31"', "", ""),
    "gaps": (FLAT, 'max_gap = "3h"', "", ""),
    "tiers": (TIERS, "", "", ""),
    "outcomes": (FLAT, "", "outcomes = true", ""),
    "policies": ("maintenance = [0.004]\npolicy = [{}, { stop_loss = { distance = 0.05 } }]", "", "", ""),
    "every": (FLAT, "", "", '[entries]\nevery = "9h"'),
    "inverse": ("maintenance = [0.01]", "", "", '[margin]\ncontract = "inverse"'),
    "spot": (
        "",
        "",
        "",
        '[margin]\ncontract = "spot"\nliquidation_ltv = 0.9\nmargin_call_ltv = 0.8\nborrow_rate = 0.00001',
    ),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cohorts, chunked_input):
        monkeypatch.setattr(module, "CHUNK_BARS", CHUNK)
    monkeypatch.setattr(chunked_input, "PROBE_BARS", 7)
    monkeypatch.setattr(writer, "ROW_GROUP", 48)


def market(folder: Path, n: int = 900) -> None:
    """Gaps of a few bars, one of 100, longer than a part, and nulls at both ends."""
    for seed, symbol in enumerate(("AAA", "BBB")):
        whole = history_of(random_rows(seed, n), symbol)
        columns = {name: values.copy() for name, values in whole.columns.items()}
        for name, values in columns.items():
            values[310:410] = np.nan
            if name.startswith("mark_"):
                values[:40], values[-20:] = np.nan, np.nan
        columns["mark_open"][500:520] = columns["open"][500:520] = np.nan  # charges fall on the close before
        columns["mark_close"][160:170] = np.nan
        bt.write_history(PriceHistory(symbol, HOUR, 0, columns), folder / "data")
    tiers = "effective_from,floor,cap,mmr,max_leverage\n1969-12-01,0,4000,0.005,\n1969-12-01,4000,,0.01,\n"
    (folder / "tiers.csv").write_text(tiers + "1970-01-20,0,6000,0.01,\n1970-01-20,6000,,0.02,\n")


def budgeted(patch: pytest.MonkeyPatch, most_bars: int, table_bytes: int = 1 << 30) -> None:
    patch.setattr(runner, "make_budget", lambda *words: Budget(most_bars, table_bytes))


def told(folder: Path) -> dict:
    """run.json, but for what a run's times are."""
    info = json.loads((folder / "run.json").read_text())
    tasks = [{key: task[key] for key in ("task", "rows", "verdicts")} for task in info["tasks"]]
    left_out = ("wall_seconds", "cpu_seconds", "finished", "workers")
    return {key: value for key, value in info.items() if key not in left_out} | {"tasks": tasks}


@pytest.mark.parametrize("case", CASES)
def test_parts_give_the_bytes_of_the_whole(case: str, tmp_path: Path, monkeypatch) -> None:
    """Of 900 bars: the whole at once, 15 parts of 64 with the next 90 hours, and 29 of 32, 3 groups at a time."""
    monkeypatch.chdir(tmp_path)
    market(tmp_path)
    sweep, data, statistics, rest = CASES[case]
    Path("sweep.toml").write_text(SWEEP.format(sweep=sweep, data=data, statistics=statistics) + rest)
    parts = []
    for out, most, tables in (("whole", 10_000, 1 << 30), ("two", 64 + 90, 1 << 30), ("one", 1, 100_000)):
        with monkeypatch.context() as patch:
            budgeted(patch, most, tables)
            config = load_config("sweep.toml")
            made = RunInputs.of("data", config).jobs(most)
            parts.append([begin().parts for _, begin in made])
            bt.run("sweep.toml", out=out)
    assert parts[0] == [1, 1] and min(parts[1]) > 6 and min(parts[2]) > 1.8 * min(parts[1])
    assert sum(told(Path("whole"))["coverage"][0]["excluded"].values()) > 0 or case != "gaps"
    for out in ("two", "one"):
        assert content(Path(out)) == content(Path("whole"))
        assert told(Path(out)) == told(Path("whole"))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories.rows(max_bars=60), st.sampled_from([None, "mark", "last"]), st.integers(1, 12))
def test_any_history_in_parts_is_the_history(tmp_path_factory, rows, trigger, chunk) -> None:
    """Nulls anywhere, one price alone missing, no bar at all that can be entered: the same tables or the same error."""
    folder = tmp_path_factory.mktemp("any")
    try:
        bt.write_history(history_of(rows), folder / "data")
    except DataError:
        return  # no bar has any value
    sweep = bt.Sweep(leverage=[3, 25], horizon=["5h", "1h"], maintenance=[0.01])
    outcome = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (cohorts, chunked_input):
            patch.setattr(module, "CHUNK_BARS", chunk)
        for most in (1_000, 1):
            budgeted(patch, most)
            try:
                made = bt.run(folder / "data", sweep, data=bt.Data(trigger=trigger), out=folder / str(most))
                outcome.append((content(folder / str(most)), told(folder / str(most))))
                assert made.table is not None
            except DataError as error:
                outcome.append(str(type(error).__mro__[-4]))
    assert outcome[0] == outcome[1]


def test_what_looks_back_or_over_all_is_read_whole(tmp_path: Path, monkeypatch) -> None:
    """Regimes by quantiles, volatility targets, trades, dated futures, portfolios: one part each."""
    monkeypatch.chdir(tmp_path)
    market(tmp_path)
    Path("trades.csv").write_text("entry_time,side\n1970-01-10T00:00Z,long\n1970-01-22T00:00Z,short\n")
    flat = "maintenance = [0.01]\n"
    for sweep, statistics, rest in (
        (flat, 'regimes = ["volatility"]', ""),
        (flat + 'weight = [{ target = 0.6, window = "2d" }]', "", ""),
        (flat, "", '[entries]\nfile = "trades.csv"'),
        (flat, "", '[margin]\nexpiry = "1970-02-05"'),
        (flat + "portfolio = [{ AAA = 0.5, BBB = -0.5 }]", "", ""),
    ):
        Path("sweep.toml").write_text(SWEEP.format(sweep=sweep, data="", statistics=statistics) + rest)
        config = load_config("sweep.toml")
        made = RunInputs.of("data", config).jobs(1)
        assert [begin().parts for _, begin in made] == [1] * len(made)


def test_a_run_in_parts_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch) -> None:
    """Whatever memory the second attempt has: what the first had finished is of the same files."""
    monkeypatch.chdir(tmp_path)
    market(tmp_path)
    Path("sweep.toml").write_text(SWEEP.format(sweep=FLAT, data="", statistics=""))
    bt.run("sweep.toml", out="whole")
    monkeypatch.setattr(jobs, "CELLS_PER_TASK", 2_000)
    keep, seen = checkpoint.Journal.keep, []

    def keeping(self: checkpoint.Journal, name: str, *rest: object) -> None:
        keep(self, name, *rest)
        seen.append(name)
        if sum(one.startswith("tasks/") for one in seen) == 9:
            signal.raise_signal(signal.SIGINT)

    budgeted(monkeypatch, 64 + 90, 600_000)
    monkeypatch.setattr(runner, "WAITING", 0)  # so that one knows how many are kept
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Journal, "keep", keeping)
        assert typed("run", "sweep.toml", "--out", "run").code == 130
    assert typed("run", "sweep.toml", "--out", "run", "--resume").code == 0
    info = json.loads(Path("run/run.json").read_text())
    assert [task["kept"] for task in info["tasks"]].count(True) == 9
    table, whole = (bt.load(out).table for out in ("run", "whole"))
    assert table.equals(whole)


def test_files_that_are_written_while_they_are_read_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    market(tmp_path)
    Path("sweep.toml").write_text(SWEEP.format(sweep=FLAT, data="", statistics=""))
    budgeted(monkeypatch, 64 + 90)
    real, reads = SeriesFiles.history, []

    def reading(self: SeriesFiles, low: int | None, *words: object) -> PriceHistory:
        reads.append(low)
        if len(reads) == 12:  # the same bars, another state of the files
            bt.write_history(bt.read_history("data", "AAA"), "data", overwrite=True)
        return real(self, low, *words)

    monkeypatch.setattr(SeriesFiles, "history", reading)
    done = typed("run", "sweep.toml", "--out", "run")
    assert done.code == 1
    assert "AAA" in done.err and ("while the run read them" in done.err or "went away" in done.err), done.err


def test_the_data_of_a_streamed_run_have_the_fingerprint_of_the_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    market(tmp_path)
    config = Config(sweep=bt.Sweep(leverage=[5], horizon=["2h"], maintenance=[0.01]), data=bt.Data(path="data"))
    whole, parts = ([summarise_data(begin()) for _, begin in RunInputs.of("data", config).jobs(n)] for n in (None, 64))
    for one, two in zip(whole, parts, strict=True):
        assert (one.prints(), one.bars, one.present, one.longest_gap, one.charges, one.entries) == (
            *(two.prints(), two.bars, two.present, two.longest_gap, two.charges, two.entries),
        )
    assert whole[0].prints()["AAA"] != whole[1].prints()["BBB"] and whole[0].longest_gap >= 100


def test_a_budget_is_shared_between_bars_and_tables() -> None:
    """2 GiB less 304 MiB of the interpreter and 32 MiB per worker leave 1680 MiB: half for tables, half for 3 parts."""
    assert memory.make_budget(2 << 30, 2).table_bytes == (840 << 20)
    assert memory.make_budget(1 << 30, 2).most_bars == (328 << 20) // 3 // 111
    assert memory.make_budget(100 << 20, 2) == Budget(0, 0)


def test_sources_say_how_long_they_are(tmp_path: Path) -> None:
    market(tmp_path)
    config = Config(
        sweep=bt.Sweep(leverage=[5], horizon=["2h"], maintenance=[0.01]), data=bt.Data(path=str(tmp_path / "data"))
    )
    (first, _) = list_sources(str(tmp_path / "data"), config)
    assert first.size() == sum(file.stat().st_size for file in (tmp_path / "data").rglob("symbol=AAA/*/*.parquet"))
    assert inputs.HistorySource("X", HOUR, lambda: None).size() == 1.0
