"""What a run keeps of each symbol or portfolio: files of counts, and in the journal what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from backtest.config import Config
from backtest.jobs import Job, no_entries
from backtest.journal import RATES, SYMBOLS, TASKS, Journal
from backtest.logs import LOG, tell
from backtest.pipeline import Group, Running, Seen
from backtest.placing import writing
from backtest.regime_tables import file_of, stem_of, write_cells
from backtest.run_tables import span_of, write_blocks, write_rates
from backtest.units import duration_ms, instant_text

Stamps = dict[str, str | None]


@dataclass
class Kept:
    """Of a job under way, what was finished before, and what it depends on."""

    depends: list[dict[str, object]]
    done: list[dict[str, Any] | None]
    data: dict[str, Any]


@dataclass(frozen=True)
class JobFiles:
    """Keeps groups and jobs as they are finished.

    Attributes
    ----------
    journal : Journal
    config : Config
    stamps : dict
        Of each job, those of the files that its histories are read from.
    axes : Table
        ``horizon`` and ``leverage`` of the rows of a scenario.
    """

    journal: Journal
    config: Config
    stamps: dict[str, Stamps]
    axes: pa.Table
    _kept: dict[str, Kept] = field(default_factory=dict)

    def entry(self, name: str) -> str:
        """Of a finished job in the journal."""
        return f"{SYMBOLS}/{stem_of(name)}"

    def finished(self, name: str) -> dict[str, Any] | None:
        """What a job added to run.json, where it was finished before, of the same data."""
        stamps = self.stamps[name]
        return None if None in stamps.values() else self.journal.kept(self.entry(name), stamps)

    def left(self, running: Running) -> Sequence[int]:
        """Groups of a job that are not kept.

        What is read at once is told by its fingerprint, a history that is read in stretches by the stamps of its files.
        """
        job, seen = running.job, running.seen
        data: dict[str, Any] = {"data": seen.prints()} if job.parts == 1 else {"stamps": self.stamps[job.symbol]}
        depends = [{**data, "scenarios": [job.scenarios[i] for i in members]} for members in job.groups]
        names = _names(job)
        done = [self.journal.kept(f"{TASKS}/{name}", on) for name, on in zip(names, depends, strict=True)]
        left = [n for n, adds in enumerate(done) if adds is None]
        for symbol in self._changed([names[n] for n in left], data):
            LOG.warning(f"{symbol}: its data have changed since its first tasks were finished; it is counted anew")
        self._kept[job.symbol] = Kept(depends, done, data)
        facts = {"symbol": job.symbol, "parts": job.parts, "tasks": len(names), "tasks_kept": len(names) - len(left)}
        tell("symbol begun", facts | ({"bars": seen.bars, "entries": seen.entries} if job.parts == 1 else {}))
        return left

    def keep_group(self, group: Group) -> None:
        """Write the counts of a group, and what they stand for; then let go of them."""
        job = group.running.job
        name, kept = _names(job)[group.number], self._kept[job.symbol]
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

    def keep_job(self, running: Running) -> dict[str, Any]:
        """Keep a job whose groups are kept; what it adds to run.json."""
        job, seen = running.job, running.seen
        if not seen.entries:
            raise no_entries(self.config, job.symbol)
        names, kept = _names(job), self._kept.pop(job.symbol)
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
            self.journal.keep(self.entry(job.symbol), self.stamps[job.symbol], files, adds)
        return adds

    def _changed(self, names: Sequence[str], data: dict[str, Any]) -> list[str]:
        """Symbols whose data are not those that tasks of these names were finished with."""
        ((kind, now),) = data.items()
        before = [self.journal.before(f"{TASKS}/{name}").get("adds", {}).get(kind, {}) for name in names]
        return [symbol for symbol, digest in now.items() if any(one.get(symbol, digest) != digest for one in before)]

    def _write(self, name: str, job: Job, members: Sequence[int], group: Group) -> list[Path]:
        """Write the counts of a group by calendar block and by each regime, and its rates; return the files."""
        folder, tables = self.journal.run / "blocks", group.tables
        columns, file = [job.scenarios[i] for i in members], folder / f"{name}.parquet"
        write_blocks(file, tables[0], columns, self.axes, duration_ms(self.config.statistics.block))
        files = [file]
        for cells, counted in zip(group.running.seen.regimes, tables[1:], strict=True):
            files.append(folder / file_of(file.name, cells.regime))
            write_blocks(files[-1], counted, columns, self.axes)
        files.append(self.journal.folder / RATES / file.name)
        statistics, seen = self.config.statistics, group.running.seen
        span = span_of(self.config.sweep.horizon, statistics.block, seen.interval_ms, seen.present)
        rows = [{"symbol": job.symbol, **labels} for labels in columns]
        write_rates(files[-1], tables[0], rows, self.axes, span, statistics.confidence)
        return files

    def _coverage(self, job: Job, seen: Seen, excluded: Sequence[int]) -> dict[str, Any]:
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


def _names(job: Job) -> list[str]:
    """Of the files of a job's groups."""
    return [f"{stem_of(job.symbol)}-{n:05d}" for n in range(len(job.groups))]


def _placed(job: Job, names: Sequence[str]) -> list[dict[str, Any]]:
    """Where the counts of each scenario of a job lie."""
    placed: dict[int, dict[str, Any]] = {}
    for name, members in zip(names, job.groups, strict=True):
        for row, i in enumerate(members):
            where = {"symbol": job.symbol, "scenario": job.scenarios[i], "file": f"{name}.parquet", "row_group": row}
            placed[i] = where
    return [placed[i] for i in range(len(job.scenarios))]
