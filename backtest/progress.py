"""Progress bars with the time left, on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


@contextmanager
def progress(description: str, total: int, show: bool | None = None) -> Iterator[Callable[[float], None]]:
    """Yield a function that advances a progress bar by a number of steps.

    show : None shows it where standard error is a terminal.
    """
    with run_progress({description: float(total)}, show=show) as bar:
        bar.begin(description, description, total)
        yield bar.advance


class Progress:
    """How much of a run is done. A run has several pieces, and the exact work of each is known when it begins.

    Parameters
    ----------
    expected : mapping of str to float
        Expected work of each piece, in any unit: only their ratios count.
    known : mapping of str to float
        Work of other pieces, in the unit of `begin` and `advance`, such as seconds of one core.
    bar : rich.progress.Progress, optional
        Where it is shown.
    """

    def __init__(
        self, expected: Mapping[str, float], known: Mapping[str, float] | None = None, bar: Bar | None = None
    ) -> None:
        self._expected = dict(expected)
        self._known = dict(known or {})
        self._begun = (0.0, 0.0)  # expected and exact work of the pieces that began
        self.done = 0.0
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=self.total)

    @property
    def total(self) -> float:
        """Work of all pieces. Expected work is scaled by the ratio found in the pieces that began."""
        ratio = self._begun[1] / self._begun[0] if self._begun[0] else 1.0
        return sum(self._known.values()) + ratio * sum(self._expected.values())

    def begin(self, name: str, label: str, work: float, left: float | None = None) -> None:
        """Set the exact work of a piece, and what is left of it if a run before did a part; show its label."""
        expected = self._expected.pop(name, 0.0)
        if expected:
            self._begun = self._begun[0] + expected, self._begun[1] + work
        self._known[name] = work if left is None else left
        if self._bar is not None and self._task is not None:
            task = self._bar.tasks[self._task]  # update(total=…) would forget the rate
            task.total, task.finished_time = self.total, None
            self._bar.update(self._task, description=label)

    def advance(self, by: float) -> None:
        """Add work that is done."""
        self.done += by
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done)


def make_bar(clock: Callable[[], float] | None = None) -> Bar:
    """A bar that tells the time left from all work since the first was done, when the kernels are loaded.

    The rate of the last seconds alone would jump with every file that is written.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    console = Console(stderr=True)
    return Bar(*columns, console=console, transient=True, get_time=clock, speed_estimate_period=float("inf"))


@contextmanager
def run_progress(
    expected: Mapping[str, float], known: Mapping[str, float] | None = None, show: bool | None = None
) -> Iterator[Progress]:
    """Yield a `Progress`, shown where `progress` shows its bar."""
    if not (sys.stderr.isatty() if show is None else show):
        yield Progress(expected, known)
        return
    with make_bar() as bar:
        yield Progress(expected, known, bar)
