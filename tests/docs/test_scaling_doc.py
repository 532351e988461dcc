"""The cost model recovers what it is made of, and docs/scaling.md says what follows from the constants it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backtest.runs.memory import Budget
from benchmarks import cost_model, forecasts
from benchmarks.cost_model import DISK, MEMORY, PLANNED, SECONDS, Size
from benchmarks.scaling import axes, others

DOCUMENT = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
TRUTH = dict(zip(SECONDS, (1.5, 4e-7, 3e-10, 2e-9, 2e-7, 1e-5, 2e-8), strict=True))
HELD = dict(zip(MEMORY, (3e8, 4e7, 110.0, 4.0), strict=True))
SIZES = [case.size for case in axes(quick=False)]


def test_the_fit_recovers_the_constants_that_made_the_seconds() -> None:
    """The axes of the benchmark tell every constant from the others, runs that wait for their reading included."""
    truth = np.array(list(TRUTH.values()))
    seconds = cost_model.predicted(SIZES, truth)
    waiting = [cost_model.reading_over_rest(size, truth) > 1 for size in SIZES]
    assert any(waiting)
    assert not all(waiting)
    assert cost_model.fit_seconds(SIZES, seconds) == pytest.approx(truth, rel=1e-6)
    held = np.array([size.held() for size in SIZES])
    assert cost_model.fit(held, held @ list(HELD.values())) == pytest.approx(list(HELD.values()), rel=1e-6)


def test_noise_moves_predictions_of_unseen_runs_little() -> None:
    """Seconds with an error of 5 % (standard deviation): predictions of unseen runs move by less than 10 %."""
    truth = np.array(list(TRUTH.values()))
    unseen = [case.size for case in others(quick=False)]
    noise = np.random.default_rng(5).normal(1.0, 0.05, len(SIZES))
    found = cost_model.fit_seconds(SIZES, cost_model.predicted(SIZES, truth) * noise)
    assert (found >= 0).all()
    assert cost_model.predicted(unseen, found) == pytest.approx(cost_model.predicted(unseen, truth), rel=0.1)


def test_constants_are_not_negative() -> None:
    """Seconds that fall with the bars: without a bound the slope would be −1; with it the mean is left."""
    amounts = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert cost_model.fit(amounts, np.array([9.0, 8.0, 7.0]))[1] == 0.0


def test_amounts_by_hand() -> None:
    """2 symbols × 1,048,576 bars = 4 chunks each; windows of one chunk; 10 passes, 8 horizons, 2 workers.

    Bars 2,097,152, of which a worker reads half; a pass sees each in its own chunk, and all but those of the first in
    the chunk before: 1.75 times. Rows 2 × 10 × 3 fees × 8 × 125 = 60,000; cells 20 times that; verdicts rows × entries
    of one symbol.
    """
    size = Size(bars=4 << 18, longest=1 << 18, fees=3, every=4, blocks=20)
    half = 2 * (4 << 18) / 2
    assert (size.swept, size.passes) == (1.75, 10)
    assert size.amounts().tolist() == [1, half, half * 10 * 1.75, half / 4 * 80, 0, 60_000, 1_200_000]
    assert size.verdicts == 60_000 * (1 << 18)
    followed = replace(size, followed=True).amounts()
    assert followed[SECONDS.index("FOLLOW_S")] == half / 4 * 8 * 125 * 30
    waiting = size.amounts(1.5).tolist()  # reading is not shared, and counting hidden
    assert waiting == [1, 2 * half, 0, 0, 0, 60_000, 1_200_000]


def test_fees_share_a_pass_while_tables_are_small() -> None:
    """1,000 rows × 7 numbers × 20 blocks = 140,000 of 4,000,000: all eight go together; with 100 five, with 300 one."""
    assert [Size(fees=8, blocks=blocks).passes for blocks in (20, 100, 300)] == [10, 20, 80]


def test_stretches_and_batches_by_hand(monkeypatch) -> None:
    """2^21 bars are held; windows of 2^18 leave a stretch seven chunks of its own: 2^22 bars, 16 chunks, make three.

    Two of them are read with windows of one chunk before. Ten passes, of which three have room, are four batches.
    """
    table = Size().table_bytes
    monkeypatch.setattr(cost_model, "make_budget", lambda memory, workers: Budget(1 << 21, int(7 * table)))
    size = Size(bars=1 << 22, longest=1 << 18)
    assert (size.parts, size.batches, size.reads) == (3, 4, 4 * (1 + 2 / 16))
    assert replace(size, longest=1 << 22).parts == 16  # longer than all that is held: a chunk at a time
    for once in (replace(size, bars=7 << 18), replace(size, whole=True)):
        assert (once.parts, once.batches, once.reads) == (1, 1, 1)


def test_more_cores_and_more_symbols() -> None:
    """700 symbols on 64 cores are 22 for each of 32 runs; core hours grow with the symbols, START_S aside."""
    job = forecasts.jobs()[0].size
    share = replace(job, symbols=22)
    assert forecasts.hours_side_by_side(job, TRUTH, 64) == forecasts.hours(share, TRUTH)
    start = TRUTH["START_S"] / 3600
    twice = forecasts.core_hours(replace(job, symbols=2 * job.symbols), TRUTH)
    assert twice - start == pytest.approx(2 * (forecasts.core_hours(job, TRUTH) - start))


def test_the_whole_exchange_by_hand() -> None:
    """700 × 6 × 525,960 bars = 2,209,032,000; × 2 sides × 5 rates × 8 × 125 = 22.09 trillion verdicts; 22 B a bar."""
    job = forecasts.jobs()[0].size
    assert job.symbols * job.bars == 2_209_032_000
    assert job.verdicts == 22_090_320_000_000
    text = forecasts.text(TRUTH, TRUTH, HELD, dict.fromkeys(DISK, 1.0))
    line = next(line for line in text.splitlines() if line.startswith("| one exchange: 700"))
    assert "2.21 billion | 22.1 trillion" in line
    assert "| one exchange: 700 symbols, 6 years of minutes | 49 |" in text  # 48.6 GB


def written(name: str) -> str:
    """What a benchmark wrote into the document."""
    found = re.search(f"<!-- {name} -->\n(.*?)\n?<!-- end of {name} -->", DOCUMENT, re.DOTALL)
    assert found, f"the markers of {name} are gone"
    return found[1]


def test_the_forecasts_of_the_document_follow_from_its_constants() -> None:
    """Whoever changes a constant by hand, an assumption or the arithmetic has to write the document again."""
    wall, cpu, plan, _ = forecasts.constants_in(written("tables: benchmarks/scaling.py"))
    assert set(SECONDS) <= set(wall)
    assert set(SECONDS) == set(cpu)
    assert set(PLANNED) <= set(plan)
    assert forecasts.text(wall, cpu, wall, wall) == written("forecasts: benchmarks/forecasts.py")


@pytest.mark.parametrize(("exchange", "pairs"), forecasts.EXCHANGES.items())
def test_the_document_names_the_assumed_symbols(exchange: str, pairs: int) -> None:
    assert re.search(rf"{exchange}\s+{pairs}", DOCUMENT)
