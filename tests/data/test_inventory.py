"""What a dataset holds is told from its footers, and is what its rows say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest.data.dataset import write_history
from backtest.data.history import PriceHistory
from backtest.data.inventory import inventory, inventory_text
from backtest.data.reader import BarFile
from backtest.errors import ConfigError, DataError
from tests.cli.conftest import typed

HOUR = 3_600_000
NAN = float("nan")


@pytest.fixture
def two_series(tmp_path: Path) -> Path:
    """Six hours over a new year, of which one is missing and one has no mark price; and one day."""
    price = np.array([1.0, 2.0, NAN, 3.0, 4.0, 5.0])
    mark = np.array([1.0, NAN, NAN, 3.0, 4.0, 5.0])
    columns = dict.fromkeys(("high", "low", "close"), price)
    columns |= {"mark_" + name: mark for name in ("high", "low", "close")}
    columns["funding_rate"] = np.array([NAN, 0.1, NAN, 0.0, NAN, NAN])
    write_history(PriceHistory("BTC", HOUR, 1_609_459_200_000 - 3 * HOUR, columns), tmp_path)  # 2021-01-01
    one = np.ones(1)
    write_history(PriceHistory("A/B", 24 * HOUR, 0, {"high": one, "low": one, "close": one}), tmp_path)
    return tmp_path


def test_what_is_listed_is_what_is_there(two_series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BarFile, "read", lambda *arguments: pytest.fail("a row was read"))
    first, second = inventory(two_series)
    assert (first.symbol, first.interval, first.bars, first.grid_bars, first.mark_bars) == ("A/B", "1d", 1, 1, 0)
    assert (second.symbol, second.interval) == ("BTC", "1h")
    assert (second.first, second.last) == ("2020-12-31T21:00Z", "2021-01-01T02:00Z")
    assert (second.bars, second.mark_bars, second.grid_bars) == (5, 4, 6)
    assert (second.charges, second.files) == (2, 2)  # a rate of 0 is a charge
    assert second.bytes == sum(file.stat().st_size for file in two_series.rglob("symbol=BTC/year=*/*.parquet"))


def test_a_footer_that_says_nothing_is_read(tmp_path: Path) -> None:
    file = tmp_path / "interval=1h/symbol=X/year=1970/mine.parquet"
    file.parent.mkdir(parents=True)
    columns = {name: [1.0, None, 3.0] for name in ("high", "low", "close")}
    stamps = pa.array([0, HOUR, 3 * HOUR], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"open_time": stamps} | columns), file, write_statistics=False)
    [one] = inventory(tmp_path)
    assert (one.bars, one.grid_bars, one.last) == (2, 4, "1970-01-01T03:00Z")
    [plain] = inventory(file)
    assert (plain.symbol, plain.interval, plain.bars) == ("mine", "1h", 2)


def test_the_command_prints_a_line_per_series_or_json(two_series: Path) -> None:
    said = typed("data", "list", two_series)
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["A/B", "1d"], ["BTC", "1h"]]
    assert lines[1].split()[4:8] == ["1", "100.00%", "no", "0"]
    # 5 and 4 of 6, downwards: 100 % is shown only where nothing is missing
    assert lines[2].split()[4:8] == ["5", "83.33%", "66.66%", "2"]
    assert lines[3].startswith("2 series, ")
    document = json.loads(typed("data", "list", two_series, "--json").out)
    assert document["series"][1]["coverage"] == 5 / 6
    assert [one["symbol"] for one in document["series"]] == ["A/B", "BTC"]


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none does not exist"):
        inventory(tmp_path / "none")
    with pytest.raises(DataError, match="holds no interval="):
        inventory(tmp_path)
    assert inventory_text([]).endswith("0 series, 0.0 MiB")
