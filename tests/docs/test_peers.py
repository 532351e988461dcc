"""What the benchmark against others measures of this package, and its plain walks, give the same verdicts; a peer that
cannot be had is a row that says so. Nothing is installed here."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from backtest.data.history import PriceHistory
from benchmarks import peers
from benchmarks.peers_answers import Answer, Question, answers, question, save
from benchmarks.peers_environments import Environment, FailedError, Peer, asked_of, installed, said
from benchmarks.peers_ours import LEVERAGES, Asked, distances, plain_history
from benchmarks.peers_walks import every_bar, one_pass


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Twelve days of minutes, held for six hours."""
    return Asked(plain_history(12 / 365.25), "6h")


def test_every_way_gives_the_same_verdicts(asked: Asked) -> None:
    low, close = (asked.history.columns[name] for name in ("low", "close"))
    assert not np.isnan(close).any()
    counts, dead, bars = asked.counts(), asked.verdicts(), asked.bars()
    assert dead.shape == bars.shape == (asked.history.n_bars - 360, 125)
    assert (dead == (bars > 0)).all()
    assert counts.tolist() == dead.sum(axis=0).tolist()
    assert 0 < counts[-1] < asked.entries  # both verdicts are among them
    some = np.arange(0, asked.entries, 97)
    assert (one_pass(low, close, some, 360, distances()) == bars[some]).all()
    assert (every_bar(low, close, some, 360, distances()) == dead[some]).all()


def test_verdicts_worked_by_hand() -> None:
    """At 10× the level is 100 · (1 − 1/10 + 0.004) = 90.4, at 100× 99.4, at 1× 0.4.

    Of the entry in bar 0 the low of 99.4 in bar 2 is the tie that kills at 100×, of which the level is that low; that
    of 90.5 in bar 3 kills at 11× (91.309) and not at 10×. Bar 4 lies outside its window.
    """
    low = np.array([99.0, 99.5, 99.4, 90.5, 80.0])
    close = np.full(5, 100.0)
    columns = {"open": close, "high": close, "low": low, "close": close}
    asked = Asked(PriceHistory("HAND", 60_000, 0, columns), "3m")
    want = {1: 0, 10: 0, 11: 3, 100: 2, 125: 1}  # 99.6 at 125×: bar 1
    at = [LEVERAGES.index(leverage) for leverage in want]
    for bars in (asked.bars(), one_pass(low, close, np.array([0]), 3, distances())):
        assert bars[0, at].tolist() == list(want.values())
    for dead in (asked.verdicts(), every_bar(low, close, np.array([0]), 3, distances())):
        assert dead[0, at].tolist() == [bars > 0 for bars in want.values()]


def test_questions_and_answers_pass_through_files_unchanged(tmp_path) -> None:
    prices = {name: np.arange(4.0) + i for i, name in enumerate(("open", "high", "low", "close"))}
    given = Question(**prices, start_ms=60_000, horizon=2, leverage=np.array([5, 9]), distance=np.array([0.2, 0.1]))
    given.save(tmp_path / "question.npz")
    read = question(str(tmp_path / "question.npz"))
    for name, value in vars(given).items():
        assert np.array_equal(getattr(read, name), value)
    bars = np.array([[0, 1], [2, 2]], np.int32)
    save(str(tmp_path / "out.npz"), [Answer("one", 0.5, np.array([0, 1]), np.array([0, 1]), bars)] * 11, ["numpy"])
    rows, used = answers(tmp_path / "out.npz")
    assert [(row.what, row.seconds, row.found.tolist()) for row in rows] == [("one", 0.5, bars.tolist())] * 11
    assert used == f"numpy {np.__version__}"


def test_verdicts_that_differ_are_counted_and_ties_among_them_named(asked: Asked) -> None:
    """One verdict turned around where the low is nowhere near the level, none, and one at a tie made by hand."""
    dead, bars = asked.verdicts(), asked.bars()
    mine = peers.Own({"counts": 1.0, "whether": 2.0, "bar": 4.0}, [], dead, bars)
    entries, columns = np.array([3, 5]), np.array([0, 124])
    theirs = dead[np.ix_(entries, columns)].copy()
    answer = Answer("them", 4e-8, entries, columns, theirs)
    assert peers.compared(asked, answer, mine) == "| them | whether | 4 | 10 | 5 | 10 | 0 |"
    theirs[0, 0] ^= True
    assert peers.compared(asked, answer, mine).endswith("| 1 (0 ties, which floats decide) |")
    close = np.full(3, 100.0)
    tie = {"open": close, "high": close, "low": np.array([100.0, 99.4, 100.0]), "close": close}
    hand = Asked(PriceHistory("TIE", 60_000, 0, tie), "2m")
    none = Answer("them", 1.0, np.array([0]), np.array([99]), np.array([[False]]))
    at_tie = peers.differing(hand, none, np.array([[0, 0]]))
    assert at_tie == "1 (1 ties, which floats decide)"


def test_a_peer_that_cannot_be_had_is_a_row_that_says_why(tmp_path) -> None:
    nowhere = Environment("nowhere", (99,), ("no-such-package==1",))
    with pytest.raises(FailedError, match=r"could not be installed: no Python 3\.99 on this machine"):
        installed(nowhere, tmp_path)
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "mine.txt").write_text("kept")
    with pytest.raises(FailedError, match="is there and no virtual environment"):
        installed(nowhere, tmp_path)
    assert (tmp_path / "nowhere" / "mine.txt").read_text() == "kept"
    with pytest.raises(FailedError, match=r"^ValueError: so it is$"):
        said([sys.executable, "-c", "raise ValueError('so it is')"])
    with pytest.raises(FailedError) as caught:
        asked_of(Peer("them", "peers_none", nowhere), tmp_path / "question.npz", tmp_path)
    assert peers.failed(Peer("them", "peers_none", nowhere), caught.value, 2).startswith("| them: could not be inst")
    assert peers.failed(Peer("a", "a", nowhere), FailedError("x|y"), 2) == "| a: x/y | | |"


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"before\n{peers.BEGIN}old\n{peers.END}\nafter\n"
    assert peers.placed(text, "new\n") == f"before\n{peers.BEGIN}new\n{peers.END}\nafter\n"
    with pytest.raises(SystemExit, match="README"):
        peers.placed("no markers", "new\n")


@pytest.mark.parametrize(("value", "words"), [(0.07654, "0.0765"), (12.356, "12.4"), (2_512_345.0, "2,510,000")])
def test_figures_have_three_digits(value: float, words: str) -> None:
    assert peers.figure(value) == words
