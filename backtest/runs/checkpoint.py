"""Checkpoints: the finished parts of a run that is being written.

Beside the run directory ``NAME`` that is to be lies ``.NAME.partial`` with ``plan.json``, what every part depends on,
``run``, the directory as far as it is, ``rates``, the rows of its table, and ``journal``, an entry per finished part.
The files of a part are written and synced before the entry that names them and their digests takes its place in one
step: an entry that is there stands for files that are whole; anything else is counted again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtest.errors import ConfigError, DataError
from backtest.filesystem import Remote, _digest, sync, write_json, writing
from backtest.logs import LOG, tell
from backtest.runs.count_files import file_stem, point_axes, present_span, regime_file, write_blocks, write_cells
from backtest.runs.inputs import refuse_unfit
from backtest.runs.plan import differences
from backtest.runs.scheduler import ActiveJob, CountedGroup, DataSummary
from backtest.runs.tables import write_rates
from backtest.runs.tasks import Job, RunInputs, no_entries
from backtest.units import duration_ms, instant_text

PLAN, RUN, ENTRIES = "plan.json", "run", "journal"
RATES = "rates"
"""Folder with the rows of ``survival.parquet`` that are known so far."""
TASKS, SYMBOLS, FIT = "tasks", "symbols", "fit"
"""Entries per task, per symbol or portfolio, and the one that says that all histories fit."""


@dataclass(frozen=True)
class Journal:
    """The finished parts of a run that is being written.

    Attributes
    ----------
    folder : Path
        ``.NAME.partial``.
    plan : str
        Digest of ``plan.json``.
    durable : bool
        Whether parts are to outlast the machine's fall; not those of a run in a temporary folder.
    store : Remote, optional
        Folder of an object store that every part is kept in as well, where the run is to lie in one.
    """

    folder: Path
    plan: str = ""
    durable: bool = True
    store: Remote | None = None

    @property
    def run(self) -> Path:
        """The run directory while it is written."""
        return self.folder / RUN

    @property
    def finished(self) -> int:
        """Tasks that are kept."""
        return len(list((self.folder / ENTRIES / TASKS).glob("*.json")))

    def before(self, name: str) -> dict[str, Any]:
        """The entry of a name without any check; empty if there is none."""
        try:
            read = json.loads((self.folder / ENTRIES / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return read if isinstance(read, dict) else {}

    def kept(self, name: str, depends: object) -> dict[str, Any] | None:
        """What a finished part adds to the run; None if its files are damaged or it depended on something else."""
        entry = self.before(name)
        try:
            if entry["key"] != self._key(depends):
                return None
            whole = all(_digest(self.folder / file) == digest for file, digest in entry["files"].items())
        except (OSError, KeyError, AttributeError):
            return None
        return dict(entry["adds"]) if whole else None

    def keep(self, name: str, depends: object, files: Sequence[Path], adds: dict[str, Any]) -> None:
        """Keep a part whose files are written."""
        for file in files if self.durable else ():
            sync(file)
        for folder in {file.parent for file in files} if self.durable else ():
            sync(folder)
        digests = {file.relative_to(self.folder).as_posix(): _digest(file) for file in files}
        entry = self.folder / ENTRIES / f"{name}.json"
        write_json(entry, {"key": self._key(depends), "files": digests, "adds": adds}, durable=self.durable)
        for made in (*files, entry) if self.store else ():
            self.upload(made)

    def files(self, name: str) -> list[Path]:
        """The files of a part that is kept."""
        return [self.folder / file for file in self.before(name)["files"]]

    def upload(self, file: Path) -> None:
        """Copy a file to the object store of the run, if it has one."""
        if self.store is not None:
            (self.store / file.relative_to(self.folder).as_posix()).upload(file)

    def drop_others(self) -> None:
        """Remove files that no finished symbol names: leftovers of an earlier state of the data."""
        entries = (self.folder / ENTRIES / SYMBOLS).glob("*.json")
        named = {name for entry in entries for name in json.loads(entry.read_text())["files"]}
        for file in list(self.run.rglob("*")):
            if file.is_file() and file.relative_to(self.folder).as_posix() not in named:
                file.unlink()

    def _key(self, depends: object) -> str:
        return hashlib.sha256(json.dumps([self.plan, depends], sort_keys=True).encode()).hexdigest()


def begun(folder: Path, plan: dict[str, Any], *, durable: bool = True, store: Remote | None = None) -> Journal:
    """Begin the journal of a run, or continue it.

    Parameters
    ----------
    folder : Path
        ``.NAME.partial``; what is kept there is taken up if the plan is the same.
    plan : dict
        As of `make_plan`.
    durable, store
        As of `Journal`.

    Raises
    ------
    ConfigError
        If parts of a run with another plan are kept there; what differs is named.
    """
    plan = json.loads(json.dumps(plan))
    file = folder / PLAN
    if Journal(folder).finished:
        before = plan
        with suppress(OSError, ValueError):  # a damaged plan: the keys of the parts still decide
            before = json.loads(file.read_text())
        if found := differences(before, plan):
            raise ConfigError(
                f"{folder}: is of an unfinished run that differs in {'; '.join(found)}: begin anew with --overwrite "
                "and without --resume, or choose another directory"
            )
    else:
        shutil.rmtree(folder, ignore_errors=True)
    for name in (f"{RUN}/blocks", RATES, f"{ENTRIES}/{TASKS}", f"{ENTRIES}/{SYMBOLS}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_json(file, plan, durable=durable)
    journal = Journal(folder, _digest(file), durable, store)
    journal.upload(file)
    return journal


@dataclass
class JobProgress:
    """Of a job that is being counted: what was finished before, and what each group depends on."""

    depends: list[dict[str, object]]
    done: list[dict[str, Any] | None]
    data: dict[str, Any]


class RunFiles:
    """The files of a run: finds what is finished, writes and keeps what is counted.

    Parameters
    ----------
    journal : Journal
    inputs : RunInputs
    info : dict
        run.json as far as it is known before counting.

    Attributes
    ----------
    axes : Table
        ``horizon`` and ``leverage`` of the rows of a scenario.
    done : dict
        By the name of each job what it adds to run.json, None as long as it is not counted.
    """

    def __init__(self, journal: Journal, inputs: RunInputs, info: dict[str, Any]) -> None:
        self.journal, self.inputs, self.info = journal, inputs, info
        self.config, self.axes = inputs.config, point_axes(info)
        self._stamps = {name: inputs.stamps(name) for name in inputs.symbols_read}
        self.done = {name: self._kept_job(name) for name in self._stamps}
        self._fresh = {name for name, adds in self.done.items() if adds is None}
        self._under_way: dict[str, JobProgress] = {}

    def _kept_job(self, name: str) -> dict[str, Any] | None:
        stamps = self._stamps[name]
        return None if None in stamps.values() else self.journal.kept(_entry(name), stamps)

    def expected(self) -> dict[str, float]:
        """Length of the histories of each job that is left, to compare jobs by."""
        lengths = {source.symbol: source.size() for source in self.inputs.sources}
        return {name: sum(lengths.get(symbol, 1.0) for symbol in self._stamps[name]) for name in sorted(self._fresh)}

    def refuse_unfit(self, left: Sequence[tuple[str, Callable[[], Job]]]) -> None:
        """Refuse histories that lack what the configuration needs, unless they were found to fit before."""
        known = all(None not in stamps.values() for stamps in self._stamps.values())
        if not known or self.journal.kept(FIT, self._stamps) is None:
            refuse_unfit(self.config, self.inputs.sources, left)
            with writing(self.journal.folder):
                self.journal.keep(FIT, self._stamps, [], {})

    def left(self, running: ActiveJob) -> Sequence[int]:
        """Groups of a job that are still to be counted.

        What is read at once is told by its fingerprint, a history that is read in parts by the stamps of its files.
        """
        job, seen = running.job, running.seen
        data: dict[str, Any] = {"data": seen.prints()} if job.parts == 1 else {"stamps": self._stamps[job.symbol]}
        depends = [{**data, "scenarios": [job.scenarios[i] for i in members]} for members in job.groups]
        names = _names(job)
        done = [self.journal.kept(f"{TASKS}/{name}", on) for name, on in zip(names, depends, strict=True)]
        left = [n for n, adds in enumerate(done) if adds is None]
        for symbol in self._changed([names[n] for n in left], data):
            LOG.warning(f"{symbol}: its data have changed since its first tasks were finished; it is counted anew")
        self._under_way[job.symbol] = JobProgress(depends, done, data)
        facts = {"symbol": job.symbol, "parts": job.parts, "tasks": len(names), "tasks_kept": len(names) - len(left)}
        tell("symbol begun", facts | ({"bars": seen.bars, "entries": seen.entries} if job.parts == 1 else {}))
        return left

    def keep(self, counted: CountedGroup | ActiveJob) -> None:
        """Write and keep what was counted."""
        if isinstance(counted, CountedGroup):
            self._keep_group(counted)
        else:
            self._keep_job(counted)

    def _keep_group(self, group: CountedGroup) -> None:
        """Write the counts of a group, and what they stand for; then release their memory."""
        job = group.running.job
        name, kept = _names(job)[group.number], self._under_way[job.symbol]
        with writing(self.journal.folder):
            files = self._write(name, job, job.groups[group.number], group)
        table = group.tables[0]
        task = {
            "task": name,
            "scenarios": len(job.groups[group.number]),
            "rows": len(job.groups[group.number]) * self.axes.num_rows,
            "verdicts": int(table["entries"].sum() + table["rejected"].sum()),
            "seconds": round(group.seconds, 3),
            "cpu_seconds": round(group.cpu_seconds, 3),
        }
        excluded = table["excluded"][0, :, 0].sum(axis=-1).tolist()
        adds = {"task": task, "of": len(job.groups), **kept.data, "excluded": excluded}
        kept.done[group.number] = adds
        with writing(self.journal.folder):
            self.journal.keep(f"{TASKS}/{name}", kept.depends[group.number], files, adds)
        group.let_go()
        tell("task finished", task)

    def _keep_job(self, running: ActiveJob) -> None:
        """Keep a job whose groups are kept."""
        job, seen = running.job, running.seen
        self._refuse_changed(job)
        if not seen.entries:
            raise no_entries(self.config, job.symbol)
        names, kept = _names(job), self._under_way.pop(job.symbol)
        done = [adds for adds in kept.done if adds is not None]
        files = [file for name in names for file in self.journal.files(f"{TASKS}/{name}")]
        adds = {
            "fingerprint": seen.prints(),
            "coverage": self._coverage(job, seen, done[0]["excluded"]),
            "blocks": _placed(job, names),
            "tasks": [{**adds["task"], "kept": n not in running.left} for n, adds in enumerate(done)],
        }
        with writing(self.journal.folder):
            files.append(write_cells(self.journal.run / "blocks", job.symbol, seen.regimes))
            self.journal.keep(_entry(job.symbol), self._stamps[job.symbol], files, adds)
        self.done[job.symbol] = adds

    def _refuse_changed(self, job: Job) -> None:
        """A history that is read in parts must be the same in all of them."""
        if job.parts > 1 and self.inputs.stamps(job.symbol) != self._stamps[job.symbol]:
            raise DataError(f"{job.symbol}: its files were written while the run read them; go on with --resume")

    def joined(self) -> dict[str, Any]:
        """run.json with what all jobs add to it; files that no job names are removed."""
        self.journal.drop_others()
        out: dict[str, Any] = {
            "fingerprint": {},
            "stamps": {},
            "coverage": [],
            "verdicts": 0,
            "blocks": [],
            "tasks": [],
        }
        for name, adds in self.done.items():
            if adds is None:
                raise AssertionError(f"{name} is not counted")
            out["fingerprint"] |= adds["fingerprint"]
            out["stamps"] |= self._stamps[name]
            out["coverage"].append(adds["coverage"])
            out["blocks"] += adds["blocks"]
            fresh = name in self._fresh
            out["tasks"] += adds["tasks"] if fresh else [{**task, "kept": True} for task in adds["tasks"]]
        out["verdicts"] = sum(task["verdicts"] for task in out["tasks"])
        return self.info | out

    def _changed(self, names: Sequence[str], data: dict[str, Any]) -> list[str]:
        """Symbols whose data changed since these tasks were finished."""
        ((kind, now),) = data.items()
        before = [self.journal.before(f"{TASKS}/{name}").get("adds", {}).get(kind, {}) for name in names]
        return [symbol for symbol, digest in now.items() if any(one.get(symbol, digest) != digest for one in before)]

    def _write(self, name: str, job: Job, members: Sequence[int], group: CountedGroup) -> list[Path]:
        """Write the counts of a group by calendar block and by each regime, and its rates; return the files."""
        folder, tables = self.journal.run / "blocks", group.tables
        columns, file = [job.scenarios[i] for i in members], folder / f"{name}.parquet"
        write_blocks(file, tables[0], columns, self.axes, duration_ms(self.config.statistics.block))
        files = [file]
        for cells, counted in zip(group.running.seen.regimes, tables[1:], strict=True):
            files.append(folder / regime_file(file.name, cells.regime))
            write_blocks(files[-1], counted, columns, self.axes)
        files.append(self.journal.folder / RATES / file.name)
        statistics, seen = self.config.statistics, group.running.seen
        span = present_span(self.config.sweep.horizon, statistics.block, seen.interval_ms, seen.present)
        rows = [{"symbol": job.symbol, **labels} for labels in columns]
        write_rates(files[-1], tables[0], rows, self.axes, span, statistics.confidence)
        return files

    def _coverage(self, job: Job, seen: DataSummary, excluded: Sequence[int]) -> dict[str, Any]:
        """What a reader must know of a job's data."""
        return {
            "symbol": job.symbol,
            "first": instant_text(seen.start_ms),
            "last": instant_text(seen.start_ms + (seen.bars - 1) * seen.interval_ms),
            "bars": seen.bars,
            "present_bars": seen.present,
            "missing_bars": seen.bars - seen.present,
            "longest_gap_bars": seen.longest_gap,
            "trigger": seen.trigger,
            "funding_charges": seen.charges,
            "entries": seen.entries,
            "excluded": dict(zip(self.config.sweep.horizon, excluded, strict=True)),
            **({"cut": {symbol: list(bars) for symbol, bars in seen.cut.items()}} if seen.cut else {}),
        }


def _entry(name: str) -> str:
    """Name of a job's entry in the journal."""
    return f"{SYMBOLS}/{file_stem(name)}"


def _names(job: Job) -> list[str]:
    """File names of the groups of a job."""
    return [f"{file_stem(job.symbol)}-{n:05d}" for n in range(len(job.groups))]


def _placed(job: Job, names: Sequence[str]) -> list[dict[str, Any]]:
    """Where the counts of each scenario of a job lie."""
    placed: dict[int, dict[str, Any]] = {}
    for name, members in zip(names, job.groups, strict=True):
        for row, i in enumerate(members):
            where = {"symbol": job.symbol, "scenario": job.scenarios[i], "file": f"{name}.parquet", "row_group": row}
            placed[i] = where
    return [placed[i] for i in range(len(job.scenarios))]
