"""What an import understood, decided and doubts, for people: one line per finding, however many files share it."""

from __future__ import annotations

from pathlib import Path


class Notices:
    """Notes and warnings as they come up."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, bool], list[str]] = {}

    def note(self, text: str, file: Path | None = None) -> None:
        """What was understood or decided."""
        self._say(text, file, doubt=False)

    def warn(self, text: str, file: Path | None = None) -> None:
        """What may be wrong with the data."""
        self._say(text, file, doubt=True)

    def _say(self, text: str, file: Path | None, *, doubt: bool) -> None:
        names = self._said.setdefault((text, doubt), [])
        if file is not None and file.name not in names:
            names.append(file.name)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._lines(doubt=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._lines(doubt=True)

    def _lines(self, *, doubt: bool) -> tuple[str, ...]:
        def line(text: str, names: list[str]) -> str:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{names[0]}{more}: {text}" if names else text

        return tuple(line(text, names) for (text, kind), names in self._said.items() if kind == doubt)
