"""The tables of docs/scaling.md follow from the constants of plans, and its runs lie in the range of their plans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backtest.runs.estimate import DISK_BYTES_PER_CELL, DISK_BYTES_PER_ROW, START_S
from backtest.runs.memory import FOLLOWED_STEPS, STEP_S, work_seconds
from backtest.stats.survival_table import COUNTS
from benchmarks.scale.runs import cases

DOCUMENT = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
BARS = 6 * 525_960
HORIZONS, LEVERAGES, WEEKS = 8, 125, 6 * 365.25 / 7 + 2
PAIRS = {"Binance": 617, "Bybit": 654, "OKX": 281, "Gate": 673, "Bitget": 645, "MEXC": 879}


def test_steps_of_a_run_by_hand() -> None:
    """3 scenarios of 100 bars, 50 entries, 2 horizons: 3 · (100 + 100) steps; followed at 4 leverages 100 · 4 · 25."""
    assert work_seconds(100, 50, 2, 4, 3, followed=False) == pytest.approx(600 * STEP_S)
    assert work_seconds(100, 50, 2, 4, 3, followed=True) == pytest.approx(3 * (100 + 100 * 4 * 25) * STEP_S)
    assert f"`STEP_S` is {STEP_S * 1e9:g} ns" in DOCUMENT and f"takes {FOLLOWED_STEPS} steps a leverage" in DOCUMENT


def test_measured_runs_lie_in_the_range_of_their_plan() -> None:
    """All but one: windows of 1,000 days cost more than the rate says, as the document states."""
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ([\d.]+) \| [^|]+ \| [^|]+ \| ([\d.]+)–([\d.]+) \|", DOCUMENT, re.M)
    outside = [value for value, wall, low, high in rows if not float(low) <= float(wall) <= float(high)]
    assert len(rows) == 35
    assert len(outside) == 1 and "1000d" in outside[0]
    assert "Of 35 runs, 34 took a time in the range of their plan." in DOCUMENT
    # The first run: 2 · 10^6 bars, 10 scenarios, on 2 workers.
    seconds = work_seconds(2_000_000, 2_000_000, HORIZONS, LEVERAGES, 10, followed=False) / 2
    assert f"| base | base | 3.32 | 4.54 | 604 | {seconds / 2:.1f}–{seconds * 2 + START_S:.1f} |" in DOCUMENT


@pytest.mark.parametrize(("symbols", "scenarios"), [(700, 10), (700, 90), (sum(PAIRS.values()), 10)])
def test_the_whole_exchanges_follow_from_the_constants(symbols: int, scenarios: int) -> None:
    bars = symbols * BARS
    hours = work_seconds(bars, bars, HORIZONS, LEVERAGES, scenarios, followed=False) / 3600
    rows = symbols * scenarios * HORIZONS * LEVERAGES
    disk = rows * (DISK_BYTES_PER_ROW + len(COUNTS) * WEEKS * DISK_BYTES_PER_CELL)
    verdicts = bars * scenarios * HORIZONS * LEVERAGES
    cells = [f"{bars / 1e9:.3g} billion", f"{verdicts / 1e12:.3g} trillion", f"{hours / 2:.2g}–{hours * 2:.2g}"]
    line = " | ".join([*cells, f"{bars * 22.4 / 1e9:.0f}", f"{disk / 1e9:.2g}"])
    assert f"| {line} |" in DOCUMENT


@pytest.mark.parametrize(("exchange", "pairs"), PAIRS.items())
def test_the_document_names_the_assumed_symbols(exchange: str, pairs: int) -> None:
    assert re.search(rf"{exchange}\s+{pairs}", DOCUMENT)


def test_every_case_of_the_benchmark_is_a_configuration(tmp_path) -> None:
    from backtest.config.models import load_config

    for number, case in enumerate([*cases(quick=False), *cases(quick=True)]):
        file = tmp_path / f"{number}.toml"
        file.write_text(case.toml(tmp_path))
        sweep = load_config(file).sweep
        assert len(sweep.leverage) == case.leverages and len(sweep.horizon) == len(case.horizons)
