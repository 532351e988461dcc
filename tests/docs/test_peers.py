"""The answers that benchmarks/speed/peers.py compares are equal; a program that cannot be had is a row that says why.

Nothing is installed here.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from backtest.data.history import PriceHistory
from benchmarks.speed import peers
from benchmarks.speed.peers import FailedError, Own, ask, call, failed, figure, install
from benchmarks.speed.peers_here import DISTANCE, LEVERAGES, Question, every_bar, one_pass, plain_history


@pytest.fixture(scope="module")
def asked() -> Question:
    """Twelve days of minutes, held for six hours."""
    return Question(plain_history(12 / 365.25), "6h")


def test_every_way_gives_the_same_verdicts(asked: Question) -> None:
    assert not np.isnan(asked.close).any()
    counts, dead, bars = asked.counts(), asked.verdicts(), asked.bars()
    assert dead.shape == bars.shape == (asked.history.n_bars - 360, 125)
    assert (dead == (bars > 0)).all()
    assert counts.tolist() == dead.sum(axis=0).tolist()
    assert 0 < counts[-1] < asked.entries  # both verdicts are among them
    some = np.arange(0, asked.entries, 97)
    assert (one_pass(asked.low, asked.close, some, 360, DISTANCE) == bars[some]).all()
    assert (every_bar(asked.low, asked.close, some, 360, DISTANCE) == dead[some]).all()


def test_verdicts_worked_by_hand() -> None:
    """At 10× the level is 100 · (1 − 1/10 + 0.004) = 90.4, at 100× 99.4, at 1× 0.4.

    Of the entry in bar 0 the low of 99.4 in bar 2 is the tie that liquidates at 100×, whose level is that low; that of
    90.5 in bar 3 liquidates at 11× (91.309) and not at 10×. Bar 4 lies outside its window.
    """
    low = np.array([99.0, 99.5, 99.4, 90.5, 80.0])
    close = np.full(5, 100.0)
    columns = {"open": close, "high": close, "low": low, "close": close}
    asked = Question(PriceHistory("HAND", 60_000, 0, columns), "3m")
    want = {1: 0, 10: 0, 11: 3, 100: 2, 125: 1}  # 99.6 at 125×: bar 1
    at = [LEVERAGES.index(leverage) for leverage in want]
    for bars in (asked.bars(), one_pass(low, close, np.array([0]), 3, DISTANCE)):
        assert bars[0, at].tolist() == list(want.values())
    for dead in (asked.verdicts(), every_bar(low, close, np.array([0]), 3, DISTANCE)):
        assert dead[0, at].tolist() == [bars > 0 for bars in want.values()]


def test_verdicts_that_differ_are_counted_and_ties_among_them_named(asked: Question) -> None:
    """One verdict turned around where the low is nowhere near the level, none, and one at a tie made by hand."""
    mine = Own({"counts": 1.0, "whether": 2.0, "bar": 4.0}, [], asked.verdicts(), asked.bars())
    entries, columns = np.array([3, 5]), np.array([0, 124])
    theirs = mine.dead[np.ix_(entries, columns)].copy()
    assert peers.compare(asked, ("x", 4e-8, entries, columns, theirs), mine) == "| x | whether | 4 | 10 | 5 | 10 | 0 |"
    theirs[0, 0] ^= True
    row = peers.compare(asked, ("x", 4e-8, entries, columns, theirs), mine)
    assert row.endswith("| 1 (0 ties, which floats decide) |")
    close = np.full(3, 100.0)
    tie = {"open": close, "high": close, "low": np.array([100.0, 99.4, 100.0]), "close": close}
    hand = Question(PriceHistory("TIE", 60_000, 0, tie), "2m")
    mine = Own(mine.ns, [], hand.verdicts(), hand.bars())
    opposite = ~mine.dead[:1, 99:100]
    row = peers.compare(hand, ("x", 1.0, np.array([0]), np.array([99]), opposite), mine)
    assert row.endswith("| 1 (1 ties, which floats decide) |")


def test_a_program_that_cannot_be_had_is_a_row_that_says_why(tmp_path, monkeypatch) -> None:
    with pytest.raises(FailedError, match=r"^ValueError: so it is$"):
        call([sys.executable, "-c", "raise ValueError('so it is')"])
    monkeypatch.setattr(
        peers, "call", lambda command, cwd=None: call([sys.executable, "-c", "raise OSError('offline')"])
    )
    with pytest.raises(FailedError, match=r"could not be installed: OSError: offline"):
        install(["no-such-package==1"], tmp_path)
    monkeypatch.setitem(peers.ENVIRONMENTS, "none", ())
    monkeypatch.setattr(peers, "install", lambda pins, folder: sys.executable)
    with pytest.raises(FailedError, match=r"could not be run: OSError: offline"):
        ask("none", {"x": 1}, tmp_path)
    assert failed("a", FailedError("x|y"), 2) == "| a: x/y | | |"


@pytest.mark.parametrize(("value", "words"), [(0.07654, "0.0765"), (12.356, "12.4"), (2_512_345.0, "2,510,000")])
def test_figures_have_three_digits(value: float, words: str) -> None:
    assert figure(value) == words
