"""Notes and warnings of an import: one line per text, however many files it is about."""

from __future__ import annotations

from pathlib import Path


class Notices:
    """Collects notes and warnings while files are read."""

    def __init__(self) -> None:
        self._notes: dict[str, list[str]] = {}
        self._warnings: dict[str, list[str]] = {}

    def note(self, text: str, file: Path | None = None) -> None:
        """Add what was understood or decided."""
        _add(self._notes, text, file)

    def warn(self, text: str, file: Path | None = None) -> None:
        """Add what may be wrong with the data."""
        _add(self._warnings, text, file)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(_line(text, names) for text, names in self._notes.items())

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(_line(text, names) for text, names in self._warnings.items())


def _add(texts: dict[str, list[str]], text: str, file: Path | None) -> None:
    names = texts.setdefault(text, [])
    if file is not None and file.name not in names:
        names.append(file.name)


def _line(text: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}: {text}" if names else text
