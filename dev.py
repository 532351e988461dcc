#!/usr/bin/env python3
"""Set up and run, from a bare clone: `python3 dev.py demo`, `python3 dev.py test`, `python3 dev.py lint`.

Needs Python >= 3.11 with its venv module and nothing else. Everything is installed into `.venv` beside this
file, never into the system's Python. A virtual environment that fits pyproject.toml is used again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
COMMANDS = {
    "demo": ("", [["backtest", "demo"]]),
    "test": ("test", [["python", "-m", "pytest", "-n", "auto", "--maxprocesses", "4"]]),
    "lint": (
        "dev",
        [
            ["ruff", "check", "."],
            ["ruff", "format", "--check", "."],
            ["mypy", "--strict"],
            ["lint-imports"],
        ],
    ),
}


def main() -> int:
    """Run one command of the table above, with the arguments that follow its name."""
    if sys.version_info < (3, 11):
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python3 dev.py {{{'|'.join(COMMANDS)}}} [arguments of the command]")
    extra, commands = COMMANDS[sys.argv[1]]
    install(extra)
    for number, (program, *arguments) in enumerate(commands):
        rest = sys.argv[2:] if number == len(commands) - 1 and len(commands) == 1 else []
        code = subprocess.call([str(BIN / program), *arguments, *rest], cwd=ROOT)
        if code:
            return code
    return 0


def install(extra: str) -> None:
    """Install the project with `extra` into `.venv`, unless that was done for this pyproject.toml."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    stamp = VENV / f"installed-{extra or 'plain'}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"setting up {VENV} (the first time takes a minute or two)", file=sys.stderr, flush=True)
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        venv.create(VENV, with_pip=True)
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.check_call([*pip, "--editable", target])
    stamp.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main())
