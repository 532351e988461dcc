"""The structure of the package: few layers, rooms with a docstring, short signatures, one name for one thing."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import backtest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backtest"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TREES = {file.relative_to(PACKAGE): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
MOST_LAYERS = 14
MOST_PARAMETERS = 7

# What was there when the tests were written; these sets only shrink.
KNOWN_SIGNATURES = {
    "ingest/download/ccxt.py: fetch_ccxt",
    "margin/liquidation.py: liquidation_prices",
    "stats/leverage_choice.py: choose",
}
KNOWN_CLASSES = {"Explorer", "Grid", "Shown"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def count_parameters(function: Function) -> int:
    """Without self and cls."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(args.vararg) + bool(args.kwarg)


def imported_modules(file: Path, names: set[str]) -> set[str]:
    """Modules of the package that a file imports when it is loaded itself; not those for type checking only."""
    found = set()
    for node in TREES[file].body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                found |= {part if part in names else node.module} & names
    return found


def module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(("backtest", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def test_contract_has_few_layers_and_one_name_for_each_room() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    names = [name.strip() for layer in layers for name in layer.split("|")]
    assert len(layers) <= MOST_LAYERS
    assert all(name.count(".") == 1 for name in names)
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert sorted(names) == sorted(f"backtest.{name}" for name in {*ROOMS, *files})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_in_two_to_five_lines(room: str) -> None:
    text = ast.get_docstring(TREES[Path(room) / "__init__.py"]) or ""
    assert 2 <= len([line for line in text.splitlines() if line.strip()]) <= 5


def test_signatures_are_short() -> None:
    """Except kernels, names of the package itself, and commands, whose parameters are options."""
    long = set()
    for file, tree in TREES.items():
        if file.parts[:2] == ("engine", "kernels"):
            continue
        for function in functions(tree):
            is_command = file.parts[0] == "cli" and function.decorator_list
            if function.name in backtest.__all__ or is_command:
                continue
            if count_parameters(function) > MOST_PARAMETERS:
                long.add(f"{file}: {function.name}")
    assert long - KNOWN_SIGNATURES == set()


def test_a_class_name_occurs_once() -> None:
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert {name for name, times in names.items() if times > 1} - KNOWN_CLASSES == set()


def test_functions_are_called_by_verbs() -> None:
    """No public function is called ``something_of``."""
    found = {
        f"{file}: {function.name}"
        for file, tree in TREES.items()
        for function in functions(tree)
        if function.name.endswith("_of") and not function.name.startswith("_")
    }
    assert found == set()


@pytest.mark.parametrize("room", ROOMS)
def test_modules_of_a_room_form_no_circle(room: str) -> None:
    names = {module_name(file): file for file in TREES if file.parts[0] == room}
    imports = {name: imported_modules(file, set(names)) - {name} for name, file in names.items()}
    assert len(list(TopologicalSorter(imports).static_order())) == len(names)  # CycleError names the circle
