"""The time left follows from what was done since something first was."""

from __future__ import annotations

import pytest

from backtest.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_even_pace_is_foretold() -> None:
    """Two pieces of 100 and 300. 10 are done at 5 s, whatever that took, and 40 more at 9 s: 350 are left, 35 s."""
    clock = Clock()
    bar = Progress({"a": 100.0, "b": 300.0}, clock=clock)
    bar.begin("a", "a", 100.0)
    clock.now = 5.0
    bar.advance(10.0)
    assert bar.seconds_left() is None
    bar.advance(40.0)
    clock.now = 9.0
    assert (bar.done, bar.total, bar.seconds_left()) == (50.0, 400.0, 35.0)


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
    """More was done than was expected."""
    bar = Progress({"a": 1.0})
    bar.begin("a", "a", 1.0)
    bar.advance(0.5)
    bar.advance(3.0)
    assert bar.seconds_left() == 0.0
