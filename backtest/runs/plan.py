"""What a run depends on: configuration, named files, code; and how two plans differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backtest.config.models import Config, RuleTiers
from backtest.filesystem import _digest

COMPUTING = ("numpy", "numba", "scipy", "pyarrow")
"""Libraries whose version can change a bit of the result."""


def make_plan(config: Config, symbols: Sequence[str]) -> dict[str, Any]:
    """Everything but the histories that the counts depend on; two attempts of a run must agree on it."""
    return {
        "config": config.model_dump(mode="json", by_alias=True),
        "symbols": list(symbols),
        "files": files_named(config),
        "code": code_version(),
    }


def files_named(config: Config) -> dict[str, str]:
    """Digests of the files that a configuration names beside its dataset."""
    files = [config.entries.file, *(regime.file for regime in config.statistics.regimes)]
    for item in config.sweep.maintenance:
        files.append(item.tiers if isinstance(item, RuleTiers) else item if isinstance(item, str) else None)
    return {file: _digest(Path(file)) for file in files if file is not None and Path(file).is_file()}


def differences(before: object, now: object, path: str = "") -> list[str]:
    """The differences of two plans, by configuration key, with both values.

    Examples
    --------
    >>> differences({"config": {"sweep": {"side": ["long"]}}}, {"config": {"sweep": {"side": ["short"]}}})
    ['sweep.side (["long"] before, ["short"] now)']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [text for key in keys for text in differences(before.get(key), now.get(key), f"{path}.{key}")]
    if before == now:
        return []
    one, two = (text if len(text) <= 100 else f"{text[:99]}…" for text in map(_text, (before, now)))
    key = path.removeprefix(".").removeprefix("config.")
    return [f"{'the version of the code' if key == 'code' else key} ({one} before, {two} now)"]


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@cache
def code_version() -> str:
    """Digest of the source of this package, with the versions of the libraries that compute."""
    here, digest = Path(__file__).parent.parent, hashlib.sha256()
    for file in sorted(file for ending in ("py", "toml", "csv") for file in here.rglob(f"*.{ending}")):
        digest.update(f"{file.relative_to(here).as_posix()}\n".encode() + file.read_bytes())
    return f"{digest.hexdigest()[:16]}, {', '.join(f'{name} {version(name)}' for name in COMPUTING)}"
