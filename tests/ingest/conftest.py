"""Files of a test: text, bytes or a JSON document, packed where the name says so."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


def writer(folder: Path, default: str) -> Write:
    """Writes files into a folder, of this name unless another is given."""

    def write(content: object, name: str = default) -> Path:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return folder / name

    return write


@pytest.fixture
def file(tmp_path: Path) -> Write:
    return writer(tmp_path, "p.csv")


@pytest.fixture
def json_file(tmp_path: Path) -> Write:
    return writer(tmp_path, "p.json")


@pytest.fixture
def source(tmp_path: Path) -> Write:
    return writer(tmp_path, "s.json")
