"""Notes and warnings of an import, for people: one line for each text, however many files share it."""

from __future__ import annotations

from pathlib import Path


class Notices:
    """Notes and warnings as they come up."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, bool], list[str]] = {}

    def note(self, text: str, file: Path | None = None) -> None:
        """What was understood or decided."""
        self._say(text, file, warning=False)

    def warn(self, text: str, file: Path | None = None) -> None:
        """What may be wrong with the data."""
        self._say(text, file, warning=True)

    def _say(self, text: str, file: Path | None, *, warning: bool) -> None:
        names = self._said.setdefault((text, warning), [])
        if file is not None and file.name not in names:
            names.append(file.name)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._lines(warning=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._lines(warning=True)

    def _lines(self, *, warning: bool) -> tuple[str, ...]:
        def line(text: str, names: list[str]) -> str:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{names[0]}{more}: {text}" if names else text

        return tuple(line(text, names) for (text, kind), names in self._said.items() if kind == warning)
