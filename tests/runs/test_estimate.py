"""What a run will take, before it begins."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import replace

import pytest
from click.testing import CliRunner

import backtest as bt
from backtest.cli import cli
from backtest.config.models import Config, load_config
from backtest.errors import ConfigError
from backtest.runs.estimate import estimate_run
from backtest.runs.memory import parse_memory
from backtest.runs.tasks import CELLS_PER_TASK, cut_groups, table_cells
from backtest.stats.survival_table import COUNTS, OUTCOMES
from tests._support.histories import history_of, random_rows

CONFIG = """
[data]
path = "data"
[sweep]
leverage = [2, 10, 50]
horizon = ["6h", "1d"]
maintenance = [0.004, 0.01]
"""


@pytest.fixture
def config(tmp_path) -> str:
    for seed, symbol in enumerate(("AAA", "BBB")):
        bt.write_history(history_of(random_rows(seed, 700, gaps=False), symbol), tmp_path / "data")
    file = tmp_path / "sweep.toml"
    file.write_text(CONFIG)
    return str(file)


def test_the_plan_counts_what_the_run_counts(config, tmp_path) -> None:
    """2 symbols of 700 bars; 2 sides × 2 rates; a pass per side and rate: 4 of each symbol, one chunk each."""
    plan = estimate_run(load_config(config), workers=2)
    assert (plan.symbols, plan.bars, plan.entries, plan.scenarios) == (2, 1_400, 1_400, 4)
    assert (plan.passes, plan.tasks) == (8, 8)
    assert plan.verdicts == 1_400 * 4 * 2 * 3
    done = bt.run(config, out=tmp_path / "run").info
    # The last 24 bars have no whole day behind them, the last 6 no six hours.
    assert plan.verdicts - done["verdicts"] == 2 * 4 * 3 * (24 + 6)


def test_a_file_and_its_configuration_give_one_plan(config) -> None:
    assert estimate_run(config, 2, "2GiB") == estimate_run(load_config(config), workers="dask:2", memory="2GiB")
    with pytest.raises(ConfigError, match=r"data\.path must name a dataset"):
        estimate_run(Config(sweep=bt.Sweep(leverage=[2], horizon=["1d"], maintenance=[0.01])))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.0, "less than 10 s"), (40.0, "from 20 s to 83 s"), (7_200.0, "from 1 h 00 min to 4 h 00 min")],
)
def test_the_time_of_a_plan_is_a_range(config, seconds: float, words: str) -> None:
    """Half of the seconds to twice of them and 3 s for the start: 80 + 3."""
    assert f"on 2 workers; {words}, " in replace(estimate_run(config, 2), seconds=seconds).text()


def test_groups_are_cut_so_that_their_tables_fit() -> None:
    assert cut_groups([[0, 1, 2, 3, 4], [5]], CELLS_PER_TASK // 2) == [[0, 1], [2, 3], [4], [5]]
    assert cut_groups([[0, 1]], CELLS_PER_TASK + 1) == [[0], [1]]


def test_cells_of_a_scenario_by_hand(config) -> None:
    """2 horizons × 3 leverages; counts of 10 blocks and 4 labels; outcomes of the blocks only."""
    given = load_config(config)
    assert table_cells(given, [10, 4]) == 6 * 14 * len(COUNTS)
    statistics = given.statistics.model_copy(update={"outcomes": True})
    followed = given.model_copy(update={"statistics": statistics})
    assert table_cells(followed, [10, 4]) == 6 * (14 * len(COUNTS) + 10 * len(OUTCOMES))


def test_a_range_counts_its_bars_only(config) -> None:
    whole = load_config(config)
    half = whole.model_copy(update={"data": whole.data.model_copy(update={"start": "1970-01-15"})})
    # 700 hours from the epoch; 14 days of them, 336, lie before.
    assert abs(estimate_run(half, 1).bars - 2 * (700 - 336)) <= 2


def test_a_dry_run_says_and_stops(config, tmp_path) -> None:
    words = ["run", config, "--out", str(tmp_path / "run"), "--dry-run"]
    answer = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert answer.output.startswith("plan: 2 symbols, 1,400 bars")
    assert json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)["tasks"] == 8
    assert not (tmp_path / "run").exists()


def test_a_run_that_needs_more_than_it_may_have_is_refused_at_the_start(config, tmp_path) -> None:
    words = ["run", config, "--out", str(tmp_path / "run"), "--memory", "100MiB"]
    refused = CliRunner().invoke(cli, words).exception
    assert isinstance(refused, ConfigError) and "--memory allows 100.0 MiB; raise it, cut the history" in str(refused)
    assert not (tmp_path / "run").exists()


def test_a_disk_too_small_is_refused_at_the_start(config, tmp_path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(0, 0, 100))
    words = ["run", config, "--out", str(tmp_path / "new/run")]
    refused = CliRunner().invoke(cli, words).exception
    assert isinstance(refused, ConfigError)
    assert "KiB of disk, and 0 KiB are free there; make room, name another disk" in str(refused)
    assert not (tmp_path / "new").exists()


def test_sizes_are_read_as_people_write_them() -> None:
    assert [parse_memory(text) for text in ("2GiB", "1.5 GB", "800m", "4096")] == [
        2 << 30,
        1_500_000_000,
        800_000_000,
        4096,
    ]
    for text in ("much", "0GiB", "-1GB", "2TiBs"):
        with pytest.raises(ConfigError, match="memory is a number and a unit"):
            parse_memory(text)
