"""The notebooks run from top to bottom, leave nothing behind, and say what the package says."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
from nbformat import NotebookNode

import backtest as bt
from backtest.engine.kernels.jit import cache_directory

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHOOSING = ROOT / "notebooks/choosing_leverage.ipynb"
PICTURES = {
    "choosing_leverage": ["heatmap", "leverage", "curves"],
    "comparing_exchanges": ["small", "large", "sides", "differences"],
    "crash_close_up": ["days", "closely", "entries", "margin", "wick", "recovered-picture", "bars-picture"],
    "portfolio": ["look", "compared", "band", "alone-picture", "share"],
}
"""Cells that draw."""
EXPLORED = {"choosing_leverage", "portfolio"}
"""Those with an explorer, in the cell of that name."""

PROBE = """
import json
from pathlib import Path
Path({folder!r}, "asked.json").write_text(json.dumps([target, horizon]))
result.table.to_parquet({folder!r} + "/table.parquet")
choices.to_parquet({folder!r} + "/choices.parquet")
"""
"""Runs in the notebook's kernel behind the cell that prints the choice."""


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, and a Jupyter of our own whose kernel is this interpreter and imports this tree."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR") or str(cache_directory()))
    write_kernel_spec(tmp_path / "jupyter/kernels/python3")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    here = tmp_path / "anywhere"
    here.mkdir()
    return here


def printed(cell: NotebookNode) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def largest(table: pd.DataFrame, target: float) -> float:
    """The choice, by its words: the largest leverage that meets the target together with every lower one."""
    best = float("nan")
    for _, row in table.sort_values("leverage").iterrows():
        if not (row["entries"] > 0 and row["survival_low"] >= target):
            break
        best = float(row["leverage"])
    return best


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(re.fullmatch("[a-z-]+", cell.id) for cell in notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], cell.id
            assert cell.execution_count is None, cell.id
            assert set(cell.metadata) <= {"tags"}, cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_only(path: Path) -> None:
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = {ast.unparse(node) for node in imports if "backtest" in ast.unparse(node)}
    assert ours == {"import backtest as bt"}
    assert {name for name in re.findall(r"\bbt\.(\w+)", code) if name not in bt.__all__} == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, jupyter: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    places = [n for n, cell in enumerate(notebook.cells) if "chosen" in cell.metadata.get("tags", [])]
    for place in reversed(places):
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(PROBE.format(folder=str(tmp_path))))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(jupyter)}}).execute()

    outputs = [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    for name, output in outputs:
        assert not (output.get("name") == "stderr" and "Warning:" in output.text), f"{name}: {output.text}"
    assert list(jupyter.iterdir()) == []
    assert list((tmp_path / "tmpdir").glob(f"{path.stem.replace('_', '-')}-*")) == []
    assert [name for name, output in outputs if "image/png" in output.get("data", {})] == PICTURES[path.stem]
    widgets = {name for name, output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})}
    assert widgets == ({"explore"} if path.stem in EXPLORED else set())
    if path == CHOOSING:
        (place,) = places
        assert_choice_is_right(printed(notebook.cells[place]), tmp_path)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path != CHOOSING], ids=lambda path: path.stem)
def test_one_line_puts_in_your_own_dataset(path: Path) -> None:
    (cell,) = (cell for cell in nbformat.read(path, as_version=4).cells if cell.id == "history")
    assert re.search(r"^histor(y|ies) = .*demo_history\(", cell.source, re.MULTILINE)
    assert re.search(r"^# histor(y|ies) = .*bt\.read_history\(", cell.source, re.MULTILINE)


def assert_choice_is_right(said: str, probed: Path) -> None:
    """What was printed is what `choose` gave, and that is what the words of its definition give."""
    target, horizon = json.loads((probed / "asked.json").read_text())
    table, choices = pd.read_parquet(probed / "table.parquet"), pd.read_parquet(probed / "choices.parquet")
    table = table[table["horizon"] == horizon]
    assert len(choices) == 4  # two sides, two fees
    for side, fee, leverage in zip(choices["side"], choices["open_fee"], choices["leverage"], strict=True):
        assert leverage == largest(table[(table["side"] == side) & (table["open_fee"] == fee)], target)
    taker = choices[choices["open_fee"] == choices["open_fee"].max()]
    expected = {side: f"{leverage:g}" for side, leverage in zip(taker["side"], taker["leverage"], strict=True)}
    assert dict(re.findall(r"^(\w+): ([\d.]+)×", said, re.MULTILINE)) == expected
