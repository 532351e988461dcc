"""Progress bars with time left, on terminals only, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Shown


@contextmanager
def progress(description: str, total: int, show: bool | None = None) -> Iterator[Callable[[float], None]]:
    """Yield a function that advances the bar by so many steps.

    show : None shows it where standard error is a terminal.
    """
    with run_progress({description: float(total)}, show=show) as bar:
        bar.begin(description, description, total)
        yield bar.advance


class Progress:
    """How far work is that consists of several pieces, and how long the rest will take.

    Parameters
    ----------
    expected : mapping of str to float
        What each piece is expected to take, in any unit: only how they compare counts.
    known : mapping of str to float
        What other pieces take, in one unit, such as seconds of one core.
    clock : callable
        Seconds, never going back.

    Notes
    -----
    The rest is taken to go as fast as all that was done since something first was, when kernels are loaded: units are
    estimates, and their ratio to seconds is what is measured. A rate over the last few seconds jumps with every file
    that is written.
    """

    def __init__(
        self,
        expected: Mapping[str, float],
        known: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = dict(expected)
        self._known = dict(known or {})
        self._ratios = (0.0, 0.0)  # sums of what known pieces were expected to take, and take
        self._clock = clock
        self._begun: tuple[float, float] | None = None
        self._shown: Callable[[], None] = lambda: None
        self.label, self.done = "", 0.0

    @property
    def total(self) -> float:
        """What all pieces take; those to come are off by as much as those that are known were."""
        ratio = self._ratios[1] / self._ratios[0] if self._ratios[0] else 1.0
        return sum(self._known.values()) + ratio * sum(self._expected.values())

    def begin(self, name: str, label: str, takes: float, left: float | None = None) -> None:
        """Say what a piece takes, now that it is known, and what is left of it where some is done already."""
        expected = self._expected.pop(name, 0.0)
        if expected:
            self._ratios = self._ratios[0] + expected, self._ratios[1] + takes
        self._known[name] = takes if left is None else left
        self.label = label
        self._shown()

    def advance(self, by: float) -> None:
        """So much is done."""
        self.done += by
        if self._begun is None:
            self._begun = self._clock(), self.done
        self._shown()

    def seconds_left(self) -> float | None:
        """Of the rest; None as long as that cannot be told."""
        since, before = self._begun or (0.0, self.done)
        if self.done <= before:
            return None
        return (self._clock() - since) * max(0.0, self.total - self.done) / (self.done - before)

    def show_on(self, bar: Shown) -> None:
        """Show it on a bar from now on."""
        task = bar.add_task("", total=self.total, left="")

        def shown() -> None:
            left = self.seconds_left()
            text = "" if left is None else f"{clock_text(left)} left"
            bar.update(task, description=self.label, completed=self.done, total=self.total, left=text)

        self._shown = shown


def clock_text(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``.

    Examples
    --------
    >>> clock_text(59.6), clock_text(3_725)
    ('1:00', '1:02:05')
    """
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


@contextmanager
def run_progress(
    expected: Mapping[str, float], known: Mapping[str, float] | None = None, show: bool | None = None
) -> Iterator[Progress]:
    """A bar as of `Progress`, shown where `progress` shows one."""
    made = Progress(expected, known)
    if not (sys.stderr.isatty() if show is None else show):
        yield made
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        made.show_on(bar)
        yield made
