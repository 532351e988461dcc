"""Others in virtual environments of their own: made once, in the versions asked for, and asked by files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 900


@dataclass(frozen=True)
class Environment:
    """Packages that go together, and the minor versions of Python 3 they exist for."""

    name: str
    pythons: tuple[int, ...]
    pins: tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    """A module of this folder that answers a file with a file, in an environment of its own."""

    name: str
    module: str
    environment: Environment


class FailedError(Exception):
    """Why a peer has no figures, in words."""


def said(command: Sequence[str], cwd: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Output of a command; `FailedError` with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=cwd, env=env)
    except OSError as error:
        raise FailedError(str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"not done after {LIMIT_S} s") from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        lines = [line for line in lines if "error" in line.lower()] or lines
        raise FailedError(lines[-1].strip() if lines else f"exit code {done.returncode}")
    return done.stdout


def python_for(environment: Environment) -> str:
    """A Python of this machine that the packages exist for."""
    for minor in environment.pythons:
        for candidate in (sys.executable, f"python3.{minor}"):
            path = shutil.which(candidate)
            try:
                if path and said([path, "-c", "import sys; print(sys.version_info[:2])"]).strip() == f"(3, {minor})":
                    return path
            except FailedError:
                continue
    raise FailedError(f"no Python 3.{', 3.'.join(map(str, sorted(environment.pythons)))} on this machine")


def installed(environment: Environment, folder: Path) -> str:
    """Python of the environment, made if it is not there in these versions."""
    place = folder / environment.name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, wanted = place / "installed", hashlib.sha256("\n".join(environment.pins).encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(f"installing {', '.join(environment.pins)} into {place}", file=sys.stderr, flush=True)
        try:
            if place.exists() and not (place / "pyvenv.cfg").is_file():
                raise FailedError(f"{place} is there and no virtual environment; choose another --venvs")
            said([python_for(environment), "-m", "venv", "--clear", str(place)])
            said([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *environment.pins])
        except FailedError as error:
            raise FailedError(f"could not be installed: {error}") from error
        stamp.write_text(wanted)
    return str(python)


def asked_of(peer: Peer, given: Path, folder: Path) -> Path:
    """The file a peer answered with."""
    python, out = installed(peer.environment, folder), given.with_name(f"{peer.name}.npz")
    print(f"asking {peer.name}", file=sys.stderr, flush=True)
    try:
        with tempfile.TemporaryDirectory() as empty:
            command = [python, "-m", f"benchmarks.{peer.module}", str(given), str(out)]
            said(command, cwd=empty, env=os.environ | {"PYTHONPATH": str(ROOT)})
    except FailedError as error:
        raise FailedError(f"could not be run: {error}") from error
    return out
