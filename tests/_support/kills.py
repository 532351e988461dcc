"""Runs that are killed again and again, each in a fork of one process that has everything loaded.

``python -m tests._support.kills timed FOLDER KILLS SEED``: SIGKILL at random times.
``python -m tests._support.kills steps FOLDER``: SIGKILL before every step of the disk that puts a run in its place.

FOLDER holds ``sweep.toml``. Prints what was seen as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from backtest.runs import checkpoint, run_directory
from backtest.runs import run as runner
from backtest.runs import tasks as jobs

TRACE = Path("trace")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run but run.json, which holds times."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "run.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def child(work: Callable[[], object]) -> int:
    """A fork that does the work and ends with 0, or 1 where it fails."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def traced() -> None:
    """Write down every task that is to be counted, and every entry that was kept."""
    trace = os.open(TRACE, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    left, keep = checkpoint.RunFiles.left, checkpoint.Journal.keep

    def counting(self, running):
        groups = left(self, running)
        for group in groups:
            os.write(trace, f"count {running.job.symbol}-{group:05d}\n".encode())
        return groups

    def keeping(self, name, *rest):
        keep(self, name, *rest)
        os.write(trace, f"kept {name.removeprefix('tasks/')}\n".encode())

    checkpoint.RunFiles.left, checkpoint.Journal.keep = counting, keeping


def resumed(out: str) -> None:
    """Go on with the run."""
    runner.run("sweep.toml", out=out, resume=True, workers=2)


def counted_twice() -> list[str]:
    """Tasks that were to be counted after they had been kept."""
    kept, twice = set(), []
    for line in TRACE.read_text().splitlines():
        word, name = line.split(" ")
        if word == "kept":
            kept.add(name)
        elif name in kept:
            twice.append(name)
    return twice


def timed(kills: int, seed: int) -> dict[str, object]:
    """Kill and resume until done, and again from the beginning until there were so many kills."""
    chance, want, seen = random.Random(seed), content(Path("whole")), Counter[str]()
    begun = time.monotonic()
    os.waitpid(child(lambda: resumed("first")), 0)
    whole_s = time.monotonic() - begun
    while seen["kills"] < kills and seen["runs"] < kills:
        TRACE.write_text("")
        code = -1
        while code:
            process = child(lambda: resumed("out"))
            time.sleep(chance.uniform(0, whole_s / 2))
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            code = os.waitstatus_to_exitcode(status)
            seen["kills"] += code == -signal.SIGKILL
            seen["failures"] += code > 0
            kept = run_directory.partial_directory(Path("out")) / checkpoint.ENTRIES / checkpoint.TASKS
            seen["kills with some tasks kept"] += code != 0 and kept.is_dir() and bool(list(kept.iterdir()))
        seen["runs"] += 1
        seen["runs that differ"] += content(Path("out")) != want
        seen["counted twice"] += len(counted_twice())
        tasks = [task["task"] for task in json.loads(Path("out/run.json").read_text())["tasks"]]
        seen["tasks listed twice"] += len(tasks) - len(set(tasks))
        seen["left behind"] += len([name for name in os.listdir() if name.startswith(".out")])
        shutil.rmtree("out")
    return dict(seen)


def steps(replacing: bool) -> dict[str, object]:
    """Kill before each rename and removal from the moment on when the run is whole; then go on."""
    want, seen, step = content(Path("whole")), Counter[str](), 0
    while True:
        step += 1
        TRACE.write_text("")
        if replacing:
            shutil.copytree("whole", "out")
            Path("out/old").write_text("of the run that is replaced")

        def dying(step: int = step) -> None:
            left, commit = step, run_directory.commit

            def count(real: Callable[..., object]) -> Callable[..., object]:
                def call(*words, **named):
                    nonlocal left
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*words, **named)

                return call

            def committing(*words):
                for module, name in ((Path, "rename"), (os, "unlink"), (os, "rmdir"), (run_directory, "sync")):
                    setattr(module, name, count(getattr(module, name)))
                commit(*words)

            run_directory.commit = committing
            runner.run("sweep.toml", out="out", overwrite=replacing, workers=1)

        _, status = os.waitpid(child(dying), 0)
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        seen["kills"] += killed
        there = [name for name in ("out/run.json", ".out.partial/old/run.json") if Path(name).is_file()]
        seen["steps at which no run was whole"] += replacing and not there
        again = replacing and (not Path("out").exists() or Path("out/old").exists())  # else it is in its place
        last = child(partial(runner.run, "sweep.toml", out="out", overwrite=again, resume=True, workers=1))
        seen["failures"] += os.waitpid(last, 0)[1] != 0
        seen["counted twice"] += len(counted_twice())
        seen["runs that differ"] += content(Path("out")) != want
        seen["left behind"] += len([name for name in os.listdir() if name.startswith(".out")])
        shutil.rmtree("out")
        if not killed:
            return dict(seen)


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    jobs.CELLS_PER_TASK = 2_000  # a task per scenario
    runner.run("sweep.toml", out="whole", workers=1)  # loads the kernels, and starts no thread that forks would lack
    traced()
    if sys.argv[1] == "timed":
        seen = timed(int(sys.argv[3]), int(sys.argv[4]))
    else:
        seen = {"new": steps(False), "replacing": steps(True)}
    sys.stdout.write(json.dumps(seen))
