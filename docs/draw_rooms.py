"""Draw docs/architecture.svg: the rooms of the package, what each is for, and which room imports which.

    python docs/draw_rooms.py

Rows are the layers of the import contract in pyproject.toml, texts are the first lines of the rooms' docstrings, arrows
are read from the imports. An arrow that follows from others is left out: if a imports b and b imports c, then a → c is
not drawn. The modules of the bottom layers, which every room may use, are drawn as one box.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "backtest"
PICTURE = ROOT / "docs/architecture.svg"
COLUMN = {"ingest": 0, "data": 0, "report": 2, "stats": 2}  # the others stand in the middle
BOX_WIDTH, BOX_HEIGHT, STEP_X, STEP_Y, EDGE = 280, 80, 330, 126, 20
BLUE, GREY, PALE, PALER = "#1f4e79", "#57606a", "#eaf1f8", "#f3f4f6"

Edge = tuple[str, str]


def list_rooms() -> list[str]:
    """Packages directly inside the package."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def read_imports() -> set[Edge]:
    """Pairs (importing room, imported room)."""
    rooms, found = list_rooms(), set()
    for room in rooms:
        for file in (PACKAGE / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                module = node.module if isinstance(node, ast.ImportFrom) and node.module else ""
                other = module.split(".")[1] if module.startswith("backtest.") else room
                if other != room and other in rooms:
                    found.add((room, other))
    return found


def leave_out_implied(edges: set[Edge]) -> set[Edge]:
    """The edges that do not follow from others."""
    below: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in below:
            below[room] = set()
            for a, b in edges:
                if a == room:
                    below[room] |= {b} | reach(b)
        return below[room]

    return {(a, b) for a, b in edges if not any(b in reach(c) for x, c in edges if x == a and c != b)}


def read_layers() -> list[list[str]]:
    """The layers of the import contract, top first, each a list of names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    return [[name.strip().removeprefix("backtest.") for name in layer.split("|")] for layer in layers]


def first_line(room: str) -> str:
    """What a room is for, from its docstring, without what follows a colon's examples."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ").rstrip(".")


def draw() -> str:
    """The picture as SVG text."""
    rooms, layers = list_rooms(), read_layers()
    rows = [layer for layer in layers if set(layer) & set(rooms)]
    ground = [name for layer in layers if not set(layer) & set(rooms) for name in layer]
    place = {
        room: (EDGE + COLUMN.get(room, 1) * STEP_X, EDGE + y * STEP_Y) for y, row in enumerate(rows) for room in row
    }
    width, bottom = 2 * EDGE + 2 * STEP_X + BOX_WIDTH, EDGE + len(rows) * STEP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 60 + EDGE}" '
        f'viewBox="0 0 {width} {bottom + 60 + EDGE}" font-family="Helvetica, Arial, sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{GREY}"/></marker></defs>',
    ]
    for a, b in sorted(leave_out_implied(read_imports())):
        parts.append(
            f'<path d="{route(place[a], place[b])}" fill="none" stroke="{GREY}" stroke-width="1.4" '
            f'marker-end="url(#head)"><title>{a} imports {b}</title></path>'
        )
    for room in sorted(place):
        parts += draw_box(place[room], BOX_WIDTH, BOX_HEIGHT, PALE, room, first_line(room))
    text = "used by every room: " + ", ".join(ground)
    parts += draw_box((EDGE, bottom), width - 2 * EDGE, 60, PALER, "ground", text)
    return "\n".join([*parts, "</svg>", ""])


def route(start: tuple[float, float], end: tuple[float, float]) -> str:
    """The path of an arrow from a box to one that stands lower, around what stands between."""
    (x0, y0), (x1, y1) = start, end
    side = (x1 > x0) - (x1 < x0)
    rows = round((y1 - y0) / STEP_Y)
    if side and rows > 2:  # beside the middle column
        return f"M{x0 + BOX_WIDTH * (side > 0)},{y0 + BOX_HEIGHT / 2:g} H{x1 + BOX_WIDTH / 2:g} V{y1}"
    # From corner to corner: two rows lower the arrow passes through the gap between two columns.
    return f"M{x0 + BOX_WIDTH / 2 + side * 125:g},{y0 + BOX_HEIGHT} L{x1 + BOX_WIDTH / 2 - side * 105:g},{y1}"


def draw_box(at: tuple[float, float], width: float, height: float, fill: str, name: str, text: str) -> list[str]:
    """A named box with a line or three of text."""
    x, y = at
    lines = textwrap.wrap(text, width=int(width / 6.6))
    if len(lines) > 3:
        raise ValueError(f"{name}: the first line of its docstring is too long for its box: {text!r}")
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{BLUE}"/>',
        f'<text x="{x + 12}" y="{y + 21}" font-size="15" font-weight="bold" fill="{BLUE}">{escape(name)}</text>',
        *(
            f'<text x="{x + 12}" y="{y + 39 + 15 * i}" font-size="11.5" fill="#24292f">{escape(line)}</text>'
            for i, line in enumerate(lines)
        ),
    ]


if __name__ == "__main__":
    PICTURE.write_text(draw())
