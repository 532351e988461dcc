"""Counts of small sweeps are those stored here: a number that moved is seen.

The histories are made of integers and counts are integers, so the stored numbers hold on every machine. Whoever
changes a definition on purpose stores the new numbers and says why in the CHANGELOG.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests._support.integer_histories import HOUR, START, draws, integer_history

TIERS = """\
effective_from,floor,cap,mmr,deduction,max_leverage
2021-12-01,0,5000,0.005,0,100
2021-12-01,5000,20000,0.01,25,50
2021-12-01,20000,,0.02,225,20
2022-02-01,0,4000,0.006,0,75
2022-02-01,4000,30000,0.012,24,40
2022-02-01,30000,,0.025,414,10
"""


COUNTS = {
    # liquidations, margin calls, rejected entries of all rows, and the checksum of all integer columns
    "by threshold": (4_365_811, 4_843_519, 0, 2_351_428_331),
    "dated tiers": (396_796, 424_038, 2_005_500, 59_237_377),
    "by entry": (925_481, 985_751, 0, 4_015_694_305),
    "entry notional and last price": (68_184, 73_178, 164_280, 3_219_033_899),
    "policies": (12_520, 17_009, 110_604, 1_637_187_679),
    "portfolio": (5_610, 5_971, 0, 3_111_876_092),
    "trades": (65, 66, 51, 3_560_149_355),
    "regimes": (22_279, 23_269, 0, 1_097_582_530),
    "outcomes": (37_023, 39_140, 27_318, 4_139_002_667),
    "inverse": (988_363, 1_039_640, 0, 3_507_592_653),
    "spot": (32_952, 203_998, 2_065_665, 2_506_762_900),
    "dated contract": (460_017, 536_634, 0, 2_155_752_866),
}
"""Of each configuration of `CASES`, what it counts."""


@dataclass(frozen=True)
class Case:
    """Lines of a configuration: those of ``[sweep]`` and of the other tables; no leverage is that of the trades."""

    sweep: str
    leverage: str = "{ from = 1, to = 60 }"
    data: str = ""
    statistics: str = ""
    rest: str = ""

    def toml(self) -> str:
        """The configuration file."""
        leverage = f"leverage = {self.leverage}\n" if self.leverage else ""
        return (
            f'[data]\npath = "data"\n{self.data}\n[sweep]\n{leverage}horizon = ["8h", "1d", "7d"]\n{self.sweep}\n'
            f'[statistics]\nblock = "7d"\n{self.statistics}\n{self.rest}\n'
        )


FEW = "[2, 5, 10, 25, 50]"
SIZED = 'maintenance = [0.005, "tiers.csv"]\nsize = [{ notional = 10000 }]'
CASES = {
    "by threshold": Case(
        "maintenance = [0.004, 0.01]\nopen_fee = [0.0, 0.0005]\nfunding = [{}, { scale = 2.0, shift = 0.0001 }]"
    ),
    "dated tiers": Case('maintenance = ["tiers.csv"]\nsize = [{ notional = 10000 }, { margin = 1000, extra = 50 }]'),
    "by entry": Case(
        'maintenance = [0.005]\nweight = [{}, { target = 0.6, window = "30d", cap = 2.0 }]',
        rest='[margin]\nmaintenance_scale = { window = "7d", reference = 0.5, cap = 3.0 }',
    ),
    "entry notional and last price": Case(
        'maintenance = [{ rule = "bybit-classic", tiers = "tiers.csv" }]\nsize = [{ notional = 10000 }]',
        data='trigger = "last"\nmax_gap = "3h"',
        rest='[entries]\nevery = "4h"',
    ),
    "policies": Case(
        """\
maintenance = ["tiers.csv"]
size = [{ notional = 30000 }]
policy = [
    {},
    { stop_loss = { distance = 0.05 }, take_profit = { distance = 0.1 } },
    { ladder = { step = 1 } },
    { top_up = { target_ratio = 0.4, reserve = 1.0, max_times = 2, delay_bars = 1 } },
    { scale_in = { distance = [0.03, 0.06], multiple = [1.0, 2.0] } },
    { deleverage = { fraction = 0.5 }, confirm_bars = 2 },
]""",
        leverage=FEW,
        data='symbols = ["BTCUSDT"]',
    ),
    "portfolio": Case(
        """\
maintenance = [0.005, "tiers.csv"]
size = [{ notional = 10000 }, { margin = 500 }]
portfolio = [{ BTCUSDT = 0.6, ETHUSDT = -0.4 }, { BTCUSDT = 0.3, ETHUSDT = 0.3, SOLUSDT = -0.4 }]""",
        leverage="[1, 2, 5, 10, 20]",
        rest='[entries]\nevery = "2h"',
    ),
    "trades": Case(SIZED, leverage="", statistics="outcomes = true", rest='[entries]\nfile = "trades.csv"'),
    "regimes": Case(
        "maintenance = [0.005]",
        leverage=FEW,
        statistics='regimes = ["year", "hour", { by = "volatility", quantiles = 3 }, "funding", "drawdown"]',
    ),
    "outcomes": Case(
        'maintenance = [0.005, "tiers.csv"]\nsize = [{ margin = 300 }]',
        leverage=FEW,
        statistics="outcomes = true",
        rest='[margin]\nliquidation_fee = 0.001\nliquidation_slippage = 0.0005\nsurplus = "fund"',
    ),
    "inverse": Case(SIZED, rest='[margin]\ncontract = "inverse"'),
    "spot": Case(
        "",
        rest='[margin]\ncontract = "spot"\nliquidation_ltv = 0.9\nmargin_call_ltv = 0.8\nborrow_rate = 0.00001',
    ),
    "dated contract": Case("maintenance = [0.01]", rest='[margin]\nexpiry = "2022-03-15"'),
}


def trades_csv() -> str:
    """Sixty trades of BTCUSDT, each with its own leverage."""
    draw, rows = draws(9), ["entry_time,exit_time,side,leverage,entry_price,symbol"]
    for _ in range(60):
        entered = 820 + next(draw) % 1200  # after the gap of the history
        left = entered + 3 + next(draw) % 300
        entry, exit_ = (np.datetime64(START + HOUR * t, "ms") for t in (entered, left))
        rows.append(f"{entry}Z,{exit_}Z,{('long', 'short')[next(draw) % 2]},{2 + next(draw) % 58},,BTCUSDT")
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset, tiers and trades that the configurations name."""
    folder = tmp_path_factory.mktemp("unchanged")
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"), 1):
        late = 100 if symbol == "SOLUSDT" else 0
        bt.write_history(integer_history(symbol, seed, 2400 - 3 * late, START + late * HOUR), folder / "data")
    (folder / "tiers.csv").write_text(TIERS)
    (folder / "trades.csv").write_text(trades_csv())
    return folder


def counted(result: bt.Result) -> tuple[int, int, int, int]:
    """Liquidations, margin calls, rejected entries, and the checksum of all integer columns."""
    tables = [result.table, *([result.outcomes] if result.has_outcomes else [])]
    tables += [result.regimes(regime["by"]) for regime in result.info["config"]["statistics"]["regimes"]]
    total = result.table[["liquidations", "margin_calls", "rejected"]].sum()
    return *(int(n) for n in total), checksum(tables)


def checksum(tables: list[pd.DataFrame]) -> int:
    """CRC-32 of the names and the little-endian values of the int64 columns, in the order of the rows."""
    crc = 0
    for table in tables:
        for name in table.columns[table.dtypes == np.int64]:
            crc = zlib.crc32(table[name].to_numpy().astype("<i8").tobytes(), zlib.crc32(name.encode(), crc))
    return crc


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_stored(folder: Path, name: str) -> None:
    (folder / f"{name}.toml").write_text(CASES[name].toml())
    assert counted(bt.run(folder / f"{name}.toml")) == COUNTS[name]
