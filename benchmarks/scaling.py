"""Time and peak memory of runs against what they are made of, the cost model fitted to them, and what follows.

Run: ``python benchmarks/scaling.py [--quick] [--repeat 2] [--data DIR] [--write]``: seven minutes on two quiet cores,
one with ``--quick`` (fewer and smaller runs: good for seeing that it works). Each run is a process of its own, repeats
are interleaved. Histories are generated and kept in ``--data`` (0.5 GB). ``--write`` puts tables and forecasts into
docs/scaling.md and draws docs/scaling.png; the assumptions of the forecasts stand in benchmarks/forecasts.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":  # benchmarks are a package here
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np

from backtest.runs import memory as costs
from backtest.runs.memory import memory_allowed
from backtest.units import duration_ms
from benchmarks import cost_model, forecasts
from benchmarks.children import Measured, bytes_of, dataset, machine, measured, put, table
from benchmarks.cost_model import DISK, MEMORY, PLANNED, SECONDS, Size

TARGET = Path(__file__).parents[1] / "docs" / "scaling.md"
MIB = 1 << 20
WEEK_MS = duration_ms("7d")
ALL_HORIZONS = ("1h", "2h", "4h", "6h", "8h", "12h", "1d", "2d", "3d", "4d", "5d", "7d", "10d", "14d", "21d", "30d")
EIGHT = ("1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d")
REFUSED = 2
"""Exit code of a run that is refused, such as one that does not fit ``--memory``."""


@dataclass(frozen=True)
class Case:
    """A run: both sides over generated histories."""

    axis: str = "base"
    symbols: int = 2
    bars: int = 1_000_000
    interval: str = "1m"
    every: str | None = None
    maintenance: int = 5
    fundings: int = 1
    fees: int = 1
    horizons: tuple[str, ...] = EIGHT
    leverages: int = 125
    workers: int = 2
    memory: str | None = None
    outcomes: bool = False

    @property
    def value(self) -> str:
        """Where it stands on its axis."""
        size = self.size
        values = {
            "held out": f"{self.symbols} × {self.bars:,} bars of {self.interval}, entered every {self.every or 'bar'}, "
            f"{size.side_rules} passes × {self.fees} fees × {size.horizons} horizons × {self.leverages} leverages, "
            f"{self.workers} workers",
            "bars": f"{self.bars:,}",
            "symbols": str(self.symbols),
            "entries": f"every {self.every or 'bar'}",
            "maintenance rates": str(self.maintenance),
            "fundings": str(self.fundings),
            "fees": str(self.fees),
            "horizons": str(len(self.horizons)),
            "longest horizon": self.horizons[-1],
            "leverages": str(self.leverages),
            "long windows": f"to {self.horizons[-1]}, {self.bars:,} bars entered every {self.every}, "
            f"{size.side_rules} passes × {self.leverages} leverages",
            "workers": str(self.workers),
            "--memory": f"{self.memory or 'default'}, {self.bars:,} bars",
            "outcomes": f"{'followed' if self.outcomes else 'not followed'}, every {self.every}, "
            f"{self.leverages} leverages, {self.fees * size.side_rules} scenarios",
        }
        return values.get(self.axis, self.axis)

    @property
    def size(self) -> Size:
        """For the cost model."""
        step = duration_ms(self.interval)
        return Size(
            symbols=self.symbols,
            bars=self.bars,
            every=duration_ms(self.every) // step if self.every else 1,
            side_rules=2 * self.maintenance * self.fundings,
            fees=self.fees,
            horizons=len(self.horizons),
            leverages=self.leverages,
            longest=max(map(duration_ms, self.horizons)) / step,
            blocks=self.bars * step // WEEK_MS + 2,
            workers=self.workers,
            memory=memory_allowed(self.memory),
            followed=self.outcomes,
        )

    def toml(self, data: Path) -> str:
        """Its configuration."""
        leverages = np.linspace(1, 125, self.leverages).round(3).tolist()
        fundings = ", ".join(f"{{ scale = {1 + n / 4} }}" for n in range(self.fundings))
        lines = [
            "[data]",
            f'path = "{data}"',
            f"symbols = {json.dumps([f'S{n:03d}USDT' for n in range(self.symbols)])}",
            "[sweep]",
            f"leverage = {leverages}",
            f"horizon = {json.dumps(self.horizons)}",
            f"maintenance = {[round(0.004 + 0.002 * n, 3) for n in range(self.maintenance)]}",
            f"open_fee = {[round(0.0001 * n, 4) for n in range(self.fees)]}",
            f"funding = [{fundings}]",
            *(["[entries]", f'every = "{self.every}"'] if self.every else []),
            *(["[statistics]", "outcomes = true"] if self.outcomes else []),
        ]
        return "\n".join(lines) + "\n"


BASE = Case()


def axes(quick: bool) -> list[Case]:
    """The runs that the model is fitted to: each axis on its own, all else as in the first."""
    base = replace(BASE, bars=250_000) if quick else BASE
    values: dict[str, Sequence[dict[str, object]]] = {
        "bars": [{"bars": n * base.bars // 8} for n in ((1, 32) if quick else (1, 2, 4, 16, 32))],
        "symbols": [{"symbols": n} for n in ((1, 4) if quick else (1, 4, 8))],
        "entries": [{"every": every} for every in (("1h",) if quick else ("15m", "1h"))],
        "maintenance rates": [{"maintenance": n} for n in (1, 20)],
        "fundings": [{"fundings": n} for n in (() if quick else (2, 4))],
        "fees": [{"fees": n} for n in ((8,) if quick else (4, 8))],
        "horizons": [{"horizons": ("1h", "30d")}, {"horizons": ALL_HORIZONS}],
        "longest horizon": [{"horizons": (*EIGHT[:-1], days)} for days in (("150d",) if quick else ("150d", "600d"))],
        "long windows": [
            {"horizons": ("1d", days), "bars": 4 * base.bars, "every": "4h", "maintenance": 20, "leverages": 5}
            for days in ("30d", f"{base.bars // 1000}d")
        ],
        "leverages": [{"leverages": n} for n in ((5,) if quick else (5, 500))],
        "workers": [{"workers": 1}, {"workers": 4}],
        "outcomes": [
            {"outcomes": True, "every": "1h", "maintenance": 1, "leverages": n} for n in ((25,) if quick else (25, 50))
        ],
        "--memory": [{"memory": limit, "bars": 4 * BASE.bars} for limit in (() if quick else (None, "1GiB", "500MiB"))],
    }
    return [base, *(replace(base, axis=axis, **one) for axis, each in values.items() for one in each)]


def others(quick: bool) -> list[Case]:
    """Runs that the model has not seen: everything at once."""
    part = 4 if quick else 1
    return [
        Case("held out", 3, 500_000 // part, "1m", None, 3, 2, 1, ALL_HORIZONS[:13], 50),
        Case("held out", 1, 4_000_000 // part, "1m", "1h", 2, 1, 1, ("1d", "7d", "30d"), 125, 1),
        Case("held out", 6, 250_000 // part, "1m", None, 1, 1, 4, ALL_HORIZONS, 125),
        Case("held out", 1, 4_000_000 // part, "1s", None, 3, 1, 1, ("1m", "1h", "8h", "1d", "7d")),
    ]


@dataclass(frozen=True)
class Result:
    """A case and its runs."""

    case: Case
    runs: list[Measured]
    data_bytes: int
    out_bytes: int

    @property
    def refused(self) -> bool:
        """Whether it does not fit its memory."""
        return self.runs[0].code == REFUSED

    @property
    def seconds(self) -> float:
        """Of the quickest run: what others do on the machine only adds."""
        return min(run.wall_s for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Of the run that took least."""
        return min(run.cpu_s for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """The highest of all."""
        return max(run.peak_bytes for run in self.runs)

    @property
    def fitted(self) -> bool:
        """Whether the model is fitted to it: with as many workers as cores at most."""
        return not self.refused and self.case.workers <= (os.cpu_count() or 1)

    def planned(self, key: str) -> float:
        """What the run itself expected."""
        return float(str(self.runs[0].first("run planned")[key]))


def measure(cases: Sequence[Case], data: Path, repeat: int) -> list[Result]:
    """Run every case so many times, one repeat of all after the other, in another order each time."""
    runs: list[list[Measured]] = [[] for _ in cases]
    places = [dataset(data, case.symbols, case.bars, duration_ms(case.interval)).absolute() for case in cases]
    written = [0] * len(cases)
    shuffled = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        config, out = Path(scratch, "run.toml"), Path(scratch, "out")
        config.write_text(BASE.toml(places[0]))
        measured(config, out, 2)  # compiles what is not compiled yet
        for number in range(repeat):
            for n in shuffled.sample(range(len(cases)), len(cases)):
                case = cases[n]
                config.write_text(case.toml(places[n]))
                run = measured(config, out, case.workers, case.memory)
                if run.code not in (0, REFUSED) or (run.code and case.memory is None):
                    sys.exit(f"{case}: ended with {run.code}: {run.said}")
                runs[n].append(run)
                written[n] = bytes_of(out)
                said = f"{number + 1}/{repeat} {case.axis} {case.value}: {run.wall_s:.2f} s"
                print(f"{said}, {run.cpu_s:.2f} s of CPU, {run.peak_bytes / MIB:.0f} MiB", file=sys.stderr, flush=True)
    sizes = [
        sum(bytes_of(place / f"interval={case.interval}" / f"symbol=S{n:03d}USDT") for n in range(case.symbols))
        for case, place in zip(cases, places, strict=True)
    ]
    return [Result(*each) for each in zip(cases, runs, sizes, written, strict=True)]


@dataclass(frozen=True)
class Model:
    """What was fitted: seconds on the wall, as plans add them up too; CPU seconds; bytes."""

    wall: dict[str, float]
    plan: dict[str, float]
    cpu: dict[str, float]
    memory: dict[str, float]
    disk: dict[str, float]

    def seconds(self, sizes: Sequence[Size]) -> np.ndarray:
        """On the wall; workers beyond the cores do not help."""
        sizes = [replace(size, workers=min(size.workers, os.cpu_count() or 1)) for size in sizes]
        return cost_model.predicted(sizes, cost_model.values_of(SECONDS, self.wall))

    def planned_seconds(self, sizes: Sequence[Size]) -> np.ndarray:
        """On the wall, as plans would say."""
        return cost_model.planned(sizes, cost_model.values_of(PLANNED, self.plan))

    def peak_bytes(self, size: Size) -> float:
        """The peak of memory."""
        return float(size.held() @ cost_model.values_of(MEMORY, self.memory))


def fitted(results: Sequence[Result]) -> Model:
    """The cost model."""
    used = [result for result in results if result.fitted]
    sizes = [result.case.size for result in used]
    seconds = np.array([result.seconds for result in used])
    amounts = np.array([replace(size, workers=1).amounts() for size in sizes])
    cpu = cost_model.fit(amounts, np.array([result.cpu_seconds for result in used]))
    held = np.array([result.case.size.held() for result in results if not result.refused])
    memory = cost_model.fit(held, np.array([float(result.peak_bytes) for result in results if not result.refused]))
    written = np.array([size.written() for size in sizes])
    disk = cost_model.fit(written, np.array([float(result.out_bytes) for result in used]))
    name = cost_model.named
    return Model(
        name(SECONDS, cost_model.fit_seconds(sizes, seconds)),
        name(PLANNED, cost_model.fit_planned(sizes, seconds)),
        name(SECONDS, cpu),
        name(MEMORY, memory),
        name(DISK, disk),
    )


def misses(model: Model, results: Sequence[Result]) -> dict[str, np.ndarray]:
    """Model over measurement, less one: of seconds, of CPU seconds, as plans would say, and of peak memory."""
    constants = cost_model.values_of(SECONDS, model.cpu)
    cpu = np.array([cost_model.core_seconds(result.case.size, constants) for result in results])
    sizes, seconds = [result.case.size for result in results], np.array([result.seconds for result in results])
    return {
        "seconds": model.seconds(sizes) / seconds - 1,
        "CPU seconds": cpu / np.array([result.cpu_seconds for result in results]) - 1,
        "seconds by the constants of plans": model.planned_seconds(sizes) / seconds - 1,
        "peak memory": np.array([model.peak_bytes(r.case.size) / r.peak_bytes for r in results]) - 1,
    }


def left_out(results: Sequence[Result]) -> np.ndarray:
    """How far off the seconds of each run are by a model that was fitted to all others."""
    used = [result for result in results if result.fitted]
    return np.array([misses(fitted([o for o in used if o is not one]), [one])["seconds"][0] for one in used])


def measured_rows(results: Sequence[Result], model: Model) -> list[list[str]]:
    """A line per case: measured, the model, and what the run expected of itself."""
    rows = []
    for result in results:
        case = result.case
        if result.refused:
            rows.append([case.axis, case.value, "refused", *["–"] * 7])
            continue
        slowest = max(run.wall_s for run in result.runs) / result.seconds
        read = min(run.read_bytes for run in result.runs) / MIB
        line = [case.axis, case.value, f"{result.seconds:.2f}", f"{slowest:.2f} ×"]
        line += [f"{model.seconds([result.case.size])[0]:.2f}", f"{result.cpu_seconds:.2f}"]
        line += [f"{result.peak_bytes / MIB:,.0f}", f"{model.peak_bytes(result.case.size) / MIB:,.0f}", f"{read:,.0f}"]
        rows.append([*line, f"{result.planned('seconds'):.1f} / {result.planned('memory_bytes') / MIB:,.0f}"])
    return rows


def summary(what: str, off: np.ndarray) -> str:
    """How well the model does, in words."""
    return f"* {what}: off by {np.median(abs(off)):.0%} in the median, {abs(off).max():.0%} at worst."


def constants_text(model: Model) -> str:
    """The fitted constants beside those that plans are made of."""

    def shown(values: Mapping[str, float], name: str) -> str:
        return f"{values[name]:g}" if name in values else "–"

    now = {name: getattr(costs, name) for name in (*SECONDS, *MEMORY, *DISK) if hasattr(costs, name)}
    first, second = model.wall | model.memory | model.disk, model.plan | model.memory | model.disk
    rows = [[f"`{name}`", *(shown(each, name) for each in (first, model.cpu, second, now))] for name in first]
    return table(("constant", "model", "model, CPU seconds", "fitted for plans", "in plans now"), rows)


def paste(model: Model) -> str:
    """Ready for backtest/runs/memory.py."""
    lines = [f"{name} = {value:.2g}" for name, value in (model.plan | model.disk).items()]
    lines += [f"{name} = {round(model.memory[name] / MIB)} << 20" for name in ("BASE_BYTES", "BYTES_PER_WORKER")]
    return "\n".join([*lines, f"BYTES_PER_HELD_BAR = {round(model.memory['BYTES_PER_HELD_BAR'])}"])


def report(results: Sequence[Result], unseen: Sequence[Result], model: Model, took: float) -> str:
    """All tables but the forecasts."""
    base, size = results[0].case, results[0].case.size
    per_bar = np.median([r.data_bytes / r.case.symbols / r.case.bars for r in results])
    head = ("axis", "value", "seconds", "slowest", "model", "CPU s", "peak MiB", "model", "read MiB", "plan: s / MiB")
    seen = misses(model, [result for result in results if result.fitted])
    new = misses(model, unseen)
    lines = [
        summary(f"{what[0].upper()}{what[1:]} of the runs that it was fitted to", off) for what, off in seen.items()
    ]
    lines.append(summary("Seconds of each run, fitted to all others", left_out(results)))
    lines += [summary(f"{what[0].upper()}{what[1:]} of the unseen", off) for what, off in new.items()]
    parts = [
        f"{len(results[0].runs)} interleaved runs of each, the quickest counts; {took / 60:.0f} minutes. {machine()}. "
        f"Where an axis does not say otherwise: {base.symbols} symbols × {base.bars:,} 1-minute bars with mark prices "
        f"and funding, every bar an entry, both sides, {base.maintenance} maintenance rates, {size.horizons} horizons "
        f"to {base.horizons[-1]}, {base.leverages} leverages, {base.workers} workers. *Read* is all that the process "
        "reads, its libraries included.",
        table(head, measured_rows(results, model)),
        "Runs that the model was not fitted to:",
        table(head, measured_rows(unseen, model)),
        "\n".join(lines),
        constants_text(model),
        f"Generated histories take {per_bar:.1f} bytes a bar on disk.",
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller runs")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder that keeps the histories; default: a temporary one")
    parser.add_argument("--write", action="store_true", help="put tables and picture into docs/")
    given = parser.parse_args()
    cases, unseen = axes(given.quick), others(given.quick)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure([*cases, *unseen], given.data or Path(scratch), 1 if given.quick else given.repeat)
    results, new = found[: len(cases)], found[len(cases) :]
    model = fitted(results)
    text = report(results, new, model, time.perf_counter() - began)
    ahead = forecasts.text(model.wall, model.cpu, model.memory, model.disk)
    print(f"{text}\n\n{ahead}\n\nfor backtest/runs/memory.py:\n\n{paste(model)}")
    if given.write:
        from benchmarks.scaling_picture import draw

        put(TARGET, "tables: benchmarks/scaling.py", text)
        put(TARGET, "forecasts: benchmarks/forecasts.py", ahead)
        draw(results, model, TARGET.with_suffix(".png"))


if __name__ == "__main__":
    main()
