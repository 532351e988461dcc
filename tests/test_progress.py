"""The time left of a run follows from all work since the first was done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backtest.progress import Progress, make_bar


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_from_the_rate_since_the_first_work() -> None:
    """Two pieces of 100 and 300. 10 are done at 5 s, whatever that took, and 40 more at 9 s: 350 are left, 35 s.

    After an hour at that rate nothing has changed: a new total of the second piece does not forget the rate.
    """
    clock = Clock()
    bar = make_bar(clock)
    run = Progress({"a": 100.0, "b": 300.0}, bar=bar)
    (task,) = bar.tasks
    run.begin("a", "first", 100.0)
    clock.now = 5.0
    run.advance(10.0)
    assert task.time_remaining is None
    clock.now = 9.0
    run.advance(40.0)
    assert (run.done, run.total, task.time_remaining, task.description) == (50.0, 400.0, 35, "first")
    run.begin("b", "second", 200.0)
    assert (run.total, task.time_remaining, task.description) == (300.0, 25, "second")


def test_pieces_to_come_are_off_by_as_much_as_those_that_are_known() -> None:
    """Expected in bytes, 10 and 30; the first takes 4 seconds of a core, so the second 12, and the tables 2."""
    bar = Progress({"a": 10.0, "b": 30.0}, {"tables": 2.0})
    bar.begin("a", "a", 4.0)
    assert bar.total == 4.0 + 12.0 + 2.0
    bar.begin("b", "b", 9.0)
    bar.begin("tables", "tables", 2.0)
    assert bar.total == 4.0 + 9.0 + 2.0


def test_what_was_finished_before_is_neither_done_nor_left() -> None:
    """A tenth of the first piece is left: 0.4 of 4; the second still takes 12."""
    bar = Progress({"a": 10.0, "b": 30.0})
    bar.begin("a", "a", 4.0, 0.4)
    assert bar.total == pytest.approx(12.4)  # 0.4 is no binary fraction


def test_no_time_is_left_below_none() -> None:
    """More was done than was expected; a piece that begins later has time left again."""
    clock = Clock()
    bar = make_bar(clock)
    run = Progress({"a": 1.0, "b": 0.0}, bar=bar)
    run.begin("a", "a", 1.0)
    run.advance(0.5)
    clock.now = 2.0
    run.advance(2.0)
    assert bar.tasks[0].time_remaining == 0
    run.begin("b", "b", 3.0)
    assert bar.tasks[0].time_remaining == 2  # 1.5 of 4 at 1 a second, in whole seconds


def test_nothing_is_shown_and_rich_not_loaded_without_a_terminal() -> None:
    code = (
        "import sys, backtest\nfrom backtest.progress import progress\n"
        "with progress('x', 2) as advance: advance(1)\nassert 'rich' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
