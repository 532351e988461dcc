"""Tier tables of the tests: as files for the package, as tiers for the oracle."""

from __future__ import annotations

from pathlib import Path

from tests._support.histories import HOUR
from tests.oracles.position import Dated, Tier

LADDER = [(0.0, 2_000.0, 0.01, 0.0, 50.0), (2_000.0, 10_000.0, 0.05, 80.0, 20.0), (10_000.0, 60_000.0, 0.1, 580.0, 5.0)]
LATER = [(0.0, 3_000.0, 0.02, 0.0, 40.0), (3_000.0, 60_000.0, 0.06, 120.0, 10.0)]
LATEST = [(0.0, 60_000.0, 0.03, 0.0, 20.0)]
"""Floor, cap, rate, deduction, largest leverage."""
DATES = ["", "1970-01-09T08:00Z", "1970-01-09T14:00Z"]
TIMES_MS = [None, 200 * HOUR, 206 * HOUR]
TABLES = ("with", "without", "dated-with", "dated-without")
"""Labels: with or without deductions; dated tables are all three, one after another."""


def write_tiers(path: Path) -> str:
    """Write the table that the file's name says."""
    lines = ["effective_from,floor,cap,mmr,deduction,max_leverage"]
    for date, table in zip(DATES, (LADDER, LATER, LATEST), strict=True):
        for floor, cap, mmr, deduction, leverage in table if path.stem.startswith("dated") or not date else ():
            deducted = deduction if path.stem.endswith("with") else ""
            lines.append(f"{date},{floor},{cap},{mmr},{deducted},{leverage}")
    path.write_text("\n".join(lines))
    return str(path)


def write_all_tiers(folder: Path) -> dict[str, str]:
    """Path of each of `TABLES`."""
    return {name: write_tiers(folder / f"{name}.csv") for name in TABLES}


def oracle_tiers(label: str) -> float | tuple[Tier, ...] | Dated:
    """The maintenance of a label, for the oracle."""
    if label not in TABLES:
        return float(label)

    def table(rows: list[tuple[float, ...]]) -> tuple[Tier, ...]:
        return tuple(Tier(f, c, m, d if label.endswith("with") else None, x) for f, c, m, d, x in rows)

    if label.startswith("dated"):
        return Dated(tuple((t, table(x)) for t, x in zip(TIMES_MS, (LADDER, LATER, LATEST), strict=True)))
    return table(LADDER)
