"""What the version before wrote still loads; only its unfinished runs are not resumed.

``version_0_3_0`` holds what version 0.3.0 wrote: ``data``, a dataset of `integer_history`; ``run``, a finished run of
``sweep.toml`` on it; ``unfinished``, that run as it lay in ``.out.partial`` when it was interrupted after one of its
two tasks.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import backtest as bt
from tests._support.integer_histories import integer_history
from tests.cli.conftest import typed

BEFORE = Path(__file__).parent / "version_0_3_0"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the current folder."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def old() -> bt.Result:
    return bt.load(BEFORE / "run")


def test_its_dataset_reads_back(place: Path) -> None:
    expected = integer_history("BTCUSDT", 1, 500)
    found = bt.read_history("data", "BTCUSDT", "1h")
    assert (found.interval_ms, found.start_ms) == (expected.interval_ms, expected.start_ms)
    assert found.columns.keys() == expected.columns.keys()
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)


def test_its_run_shows_the_same_rates(old: bt.Result) -> None:
    assert old.table.shape == (16, 20)
    assert old.table["liquidations"].tolist() == [0, 0, 3, 18, 0, 0, 3, 130, 0, 0, 3, 18, 0, 0, 9, 137]
    rates = old.survival().xs((1.0, 50.0), level=("funding_scale", "leverage"))
    assert rates.to_dict("list") == {"8h": [0.9630390143737166], "7d": [0.6024464831804281]}
    assert old.outcomes["survived"].tolist()[-4:] == [325, 325, 318, 190]
    assert old.outcomes["return_mean"].tolist()[-1] == 0.33644914246430946


def test_its_run_answers_with_the_same_leverage(old: bt.Result) -> None:
    chosen = old.choose(survival=0.14)
    assert chosen[["funding_scale", "horizon", "leverage"]].to_numpy().tolist() == [
        [1.0, "8h", 50.0],
        [1.0, "7d", 25.0],
        [2.0, "8h", 50.0],
        [2.0, "7d", 10.0],
    ]
    assert set(chosen["policy"]) == {"stop_loss(distance=0.05)"}
    assert chosen["survival_low"].tolist()[:2] == [0.5608020169670462, 0.1485176070048833]


def test_a_run_of_today_counts_the_same(place: Path, old: bt.Result) -> None:
    new = bt.run("sweep.toml")
    assert_frame_equal(new.table, old.table, rtol=1e-12)
    assert_frame_equal(new.outcomes, old.outcomes, rtol=1e-12)
    assert_frame_equal(new.regimes("volatility"), old.regimes("volatility"), rtol=1e-12)


@pytest.mark.parametrize(("folder", "to"), [("unfinished", ".out.partial"), ("run", "out")])
def test_it_is_not_resumed(place: Path, folder: str, to: str) -> None:
    """The refusal names what differs, code of another version, and what to do."""
    Path(folder).rename(to)
    file = Path(to) / ("plan.json" if folder == "unfinished" else "run.json")
    code = json.loads(file.read_text())["code"]
    done = typed("run", "sweep.toml", "--out", "out", "--resume")
    assert done.code == 2
    assert f'differs in the version of the code ("{code}" before, ' in done.err
    assert "begin anew with --overwrite and without --resume" in done.err
    begun = typed("run", "sweep.toml", "--out", "out", "--overwrite")
    assert begun.code == 0, begun.err
    assert bt.load("out").table["liquidations"].sum() == 321
