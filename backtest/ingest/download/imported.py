"""Which archives are in a dataset already, so that a second fetch imports what is new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backtest.filesystem import write_json

LEDGER = "imported.json"


@dataclass(frozen=True)
class Ledger:
    """What was imported of one symbol and interval.

    It counts as long as the dataset's files are as the last import left them; then nothing is taken to be there, and
    all archives are added again, which changes no bar that agrees.

    Attributes
    ----------
    folder : Path
        Of the archives.
    out : str
        Dataset.
    symbol, interval : str
    """

    folder: Path
    out: str
    symbol: str
    interval: str

    def read(self) -> dict[str, str]:
        """Checksum of each archive that is in the dataset, by its path."""
        entry = self._all().get(self._key)
        if not isinstance(entry, dict) or not isinstance(entry.get("archives"), dict):
            return {}
        files = entry.get("files")
        there = isinstance(entry.get("path"), str) and files and files == _state(Path(entry["path"]))
        return {str(path): str(digest) for path, digest in entry["archives"].items()} if there else {}

    def write(self, archives: Mapping[str, str], path: object) -> None:
        """Remember the archives that are in the dataset, whose files lie under `path`; none in an object store."""
        files = _state(path) if isinstance(path, Path) else {}
        entry = {"path": str(path.absolute()), "files": files, "archives": archives} if isinstance(path, Path) else {}
        write_json(self.folder / LEDGER, {**self._all(), self._key: entry}, durable=False)

    @property
    def _key(self) -> str:
        place = self.out if "://" in self.out else str(Path(self.out).absolute())
        return f"{self.interval} {self.symbol} {place}"

    def _all(self) -> dict[str, object]:
        try:
            found = json.loads((self.folder / LEDGER).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or spoilt: nothing is known then
            return {}
        return found if isinstance(found, dict) else {}


def _state(folder: Path) -> dict[str, list[int]]:
    """Size and time of each file of a symbol's folder."""
    stats = {file.relative_to(folder).as_posix(): file.stat() for file in folder.rglob("*") if file.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}
