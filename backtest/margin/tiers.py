"""Tier tables: the maintenance rate and the largest leverage of a position, by its notional (docs/semantics.md §5)."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path

import numpy as np

from backtest.arrays import Float, Int
from backtest.errors import ConfigError, RuleError
from backtest.units import instant_ms, instant_text, number_text

CAP_SLACK = 1e-9  # a notional that is the cap but for rounding still belongs to the tier
JUMP = 1e-6  # share of the notional by which maintenance may jump at a floor: published deductions are rounded
REQUIRED = ("floor", "cap", "mmr")
COLUMNS = ("effective_from", *REQUIRED, "deduction", "max_leverage")


@dataclass(frozen=True, eq=False)
class TierTable:
    """The tiers of one contract on one date.

    Attributes
    ----------
    name : str
        The table's name in errors.
    floor, cap : (n_tiers,) float64
        A tier holds ``floor < notional <= cap``; the first also holds 0. Quote (linear) or coin (inverse); the last
        cap may be inf.
    mmr : (n_tiers,) float64
        Maintenance margin rate, fraction of the notional.
    max_leverage : (n_tiers,) float64
        inf where the table has none.
    deduction : (n_tiers,) float64 or None
        Subtracted from ``mmr·notional``, units of the notional. With deductions maintenance is the largest of the
        tiers' lines; without (None) a position keeps the rate of its tier at entry.
    places : sequence of str, optional
        The name of each tier in errors; not kept.

    Raises
    ------
    RuleError
        If floors are not contiguous from 0, a value is impossible, or a table with deductions has rates that fall or
        maintenance that jumps at a floor by more than 1e-6 of the notional.

    Examples
    --------
    >>> table = TierTable.from_rows([[0, 0.004, 0], [50_000, 0.005, 50], [250_000, 0.01, 1300]])
    >>> float(table.maintenance(100_000, 100_000))
    450.0
    """

    name: str
    floor: Float
    cap: Float
    mmr: Float
    max_leverage: Float
    deduction: Float | None = None
    places: InitVar[Sequence[str]] = ()

    def __post_init__(self, places: Sequence[str]) -> None:
        n_tiers = np.size(self.floor)
        if not n_tiers:
            raise RuleError(f"{self.name}: a tier table has at least one tier")
        for column in (*REQUIRED, "max_leverage", "deduction"):
            if getattr(self, column) is None and column == "deduction":
                continue
            values = np.array(getattr(self, column), dtype=np.float64)
            if values.shape != (n_tiers,):
                raise RuleError(f"{self.name}: {column} has shape {values.shape}, expected ({n_tiers},) as floor")
            values.setflags(write=False)
            object.__setattr__(self, column, values)
        for k in range(n_tiers):
            problem = self._problem(k) or self._deduction_problem(k)
            if problem:
                raise RuleError(f"{places[k] if places else f'{self.name}: tier {k + 1}'}: {problem}")

    def _problem(self, k: int) -> str | None:
        floor, cap, mmr, most = (float(column[k]) for column in (self.floor, self.cap, self.mmr, self.max_leverage))
        if k == 0 and floor != 0:
            return f"floor of the first tier must be 0; got {number_text(floor)}"
        if k and not math.isclose(floor, self.cap[k - 1], rel_tol=CAP_SLACK):
            return f"floor must be the cap of the tier before, {number_text(self.cap[k - 1])}; got {number_text(floor)}"
        if not cap > floor:
            return f"cap must be above the floor, {number_text(floor)}; got {number_text(cap)}"
        if not 0 < mmr < 1:
            return f"mmr must lie between 0 and 1, a fraction of the notional; got {number_text(mmr)}"
        if not most > 0:
            return f"max_leverage must be > 0; got {number_text(most)}"
        return None

    def _deduction_problem(self, k: int) -> str | None:
        if self.deduction is None:
            return None
        floor, mmr, deduction = (float(column[k]) for column in (self.floor, self.mmr, self.deduction))
        if not math.isfinite(deduction):
            return f"deduction must be finite; got {number_text(deduction)}"
        if k == 0:
            return (
                f"deduction of the first tier must be 0 or blank; got {number_text(deduction)}" if deduction else None
            )
        before = float(self.mmr[k - 1])
        if mmr < before:
            return f"mmr must not fall where there are deductions; got {number_text(mmr)} after {number_text(before)}"
        below, above = before * floor - self.deduction[k - 1], mmr * floor - deduction
        if abs(above - below) <= JUMP * floor:
            return None
        return (
            f"maintenance jumps at floor {number_text(floor)}, from {below:.10g} to {above:.10g} (deduction "
            f"{number_text(deduction)}); a table with deductions is continuous to {JUMP:g} of the notional"
        )

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float | None]], name: str = "tiers") -> TierTable:
        """A table from ``[floor, mmr, deduction]`` rows; a cap is the next floor, the last tier has none.

        Parameters
        ----------
        rows : sequence of (floor, mmr) or (floor, mmr, deduction)
            If no row has a deduction (None, or left out), the table has no deductions.
        name : str

        Raises
        ------
        RuleError
            As `TierTable`; the names of tiers are ``tiers row 1`` and so on.

        Examples
        --------
        >>> TierTable.from_rows([[0, 0.01], [1000, 0.02]]).cap.tolist()
        [1000.0, inf]
        """
        places = [f"{name} row {number}" for number in range(1, len(rows) + 1)]
        for place, row in zip(places, rows, strict=True):
            if len(row) not in (2, 3) or row[0] is None or row[1] is None:
                raise RuleError(f"{place}: a tier is [floor, mmr] or [floor, mmr, deduction]; got {list(row)}")
        floor = np.array([row[0] for row in rows], dtype=np.float64)
        mmr = np.array([row[1] for row in rows], dtype=np.float64)
        deduction = _deductions([row[2] if len(row) == 3 else None for row in rows], places)
        return cls(name, floor, np.append(floor[1:], math.inf), mmr, np.full(len(rows), math.inf), deduction, places)

    @property
    def has_deductions(self) -> bool:
        """Whether maintenance is the largest of the tiers' lines ``mmr·n − deduction``."""
        return self.deduction is not None

    @property
    def last_cap(self) -> float:
        """The largest notional the table allows (to a relative 1e-9); inf where it has no limit."""
        return float(self.cap[-1])

    def tier_index(self, notional: float | Float) -> Int:
        """Index from 0 of the tier that holds each notional; beyond a finite last cap, of the last tier.

        Raises
        ------
        RuleError
            If a notional is below 0 or NaN.

        Examples
        --------
        >>> TierTable.from_rows([[0, 0.01], [1000, 0.02]]).tier_index(np.array([0.0, 1000.0, 1000.1])).tolist()
        [0, 0, 1]
        """
        size = np.asarray(notional, dtype=np.float64)
        if not (size >= 0).all():
            raise RuleError(f"{self.name}: a notional must be ≥ 0; got {number_text(size[~(size >= 0)].flat[0])}")
        found = np.searchsorted(self.cap * (1 + CAP_SLACK), size, side="left")
        return np.asarray(np.minimum(found, self.cap.size - 1), dtype=np.int64)

    def lines(self, notional: float) -> tuple[Float, Float]:
        """The lines ``mmr·n − deduction`` in force for a position entered with this notional.

        Returns
        -------
        (mmr, deduction) : (n_lines,) float64 each
            With deductions every tier: maintenance is the largest line. Without, only the tier that holds
            `notional`, with deduction 0.

        Examples
        --------
        >>> TierTable.from_rows([[0, 0.01], [1000, 0.02]]).lines(1500.0)
        (array([0.02]), array([0.]))
        """
        if self.deduction is not None:
            return self.mmr, self.deduction
        return self.mmr[self.tier_index(notional).reshape(1)], np.zeros(1)

    def maintenance(self, notional_at_price: float | Float, notional_at_entry: float | Float) -> Float:
        """Maintenance margin, units of the notional, without any closing fee.

        Parameters
        ----------
        notional_at_price : float or array
            The notional at the mark price; at entry with basis "entry".
        notional_at_entry : float or array
            Decides the tier of a table without deductions; a table with deductions does not use it.

        Examples
        --------
        >>> float(TierTable.from_rows([[0, 0.01], [1000, 0.02]]).maintenance(900.0, 1500.0))
        18.0
        """
        size = np.asarray(notional_at_price, dtype=np.float64)
        if self.deduction is None:
            return np.asarray(np.take(self.mmr, self.tier_index(notional_at_entry)) * size)
        largest = np.full(size.shape, -math.inf)
        for mmr, deduction in zip(self.mmr, self.deduction, strict=True):
            largest = np.maximum(largest, mmr * size - deduction)
        return np.asarray(largest)

    def max_leverage_at(self, notional: float | Float) -> Float:
        """Largest leverage of the tier that holds each notional; inf where the table has none."""
        return np.asarray(np.take(self.max_leverage, self.tier_index(notional)))


@dataclass(frozen=True)
class DatedTable:
    """A tier table and the instant from which it is in force: UTC milliseconds; None: from the beginning."""

    effective_from_ms: int | None
    table: TierTable


def table_at(tables: Sequence[DatedTable], when_ms: int) -> int:
    """Index of the table in force at an instant: the one with the latest date not after it.

    Raises
    ------
    RuleError
        If `when_ms` (UTC milliseconds) lies before the first date. A table without a date is in force from the
        beginning.

    Examples
    --------
    >>> table = TierTable.from_rows([[0, 0.01]])
    >>> table_at([DatedTable(None, table), DatedTable(1000, table)], 1000)
    1
    """
    dates = [-math.inf if each.effective_from_ms is None else each.effective_from_ms for each in tables]
    found = max((date for date in dates if date <= when_ms), default=None)
    if found is None:
        first = f"the first date, {instant_text(int(min(dates)))}" if dates else "there is any table"
        name = tables[0].table.name if tables else "tiers"
        raise RuleError(f"{name}: no tier table is in force at {instant_text(when_ms)}: it lies before {first}")
    return dates.index(found)


def derive_deductions(floor: Float, mmr: Float) -> Float:
    """Deductions that make maintenance continuous: ``D_k = D_{k−1} + floor_k·(mmr_k − mmr_{k−1})``, ``D_0 = 0``.

    Notes
    -----
    The recursion of Binance's "maintenance amount", Bybit's "mmDeduction" and Hyperliquid's margin tables.

    Examples
    --------
    >>> derive_deductions(np.array([0.0, 50_000.0, 250_000.0]), np.array([0.004, 0.005, 0.01])).round(6).tolist()
    [0.0, 50.0, 1300.0]
    """
    return np.cumsum(floor * np.diff(mmr, prepend=mmr[0]))


def read_tier_tables(path: str | Path) -> tuple[DatedTable, ...]:
    """Read a CSV of tiers: ``effective_from, floor, cap, mmr, deduction, max_leverage``, in any order of columns.

    Parameters
    ----------
    path : str or Path
        `effective_from` (ISO 8601, UTC; empty: from the beginning), `deduction` and `max_leverage` may be left out.
        The rows of one `effective_from` are one table, named by the file's stem. Its last cap may be empty, and so
        may the deduction of its first tier.

    Returns
    -------
    tuple of DatedTable
        In the order of their dates, never empty.

    Raises
    ------
    RuleError
        With file, row (the line of the file, from 1), column and value, if the file cannot be read as tier tables.
    """
    found: dict[float, list[_Row]] = {}
    for row in _rows(path):
        found.setdefault(row.effective_from_ms, []).append(row)
    if not found:
        raise RuleError(f"{path}: a tier table has at least one tier; the file has a header only")
    return tuple(
        DatedTable(None if date == -math.inf else int(date), _table(Path(path).stem, found[date]))
        for date in sorted(found)
    )


@dataclass(frozen=True)
class _Row:
    """One line of a CSV: the numbers of its cells that are not blank."""

    place: str
    effective_from_ms: float  # -inf: from the beginning
    numbers: Mapping[str, float]


def _rows(path: str | Path) -> list[_Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a byte order mark
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                place = f"{path} row {reader.line_num}"
                if len(cells) != len(header):
                    raise RuleError(f"{place}: has {len(cells)} cells, the header {len(header)}")
                rows.append(_row(place, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RuleError(f"{path}: cannot be read as a CSV file: {error}") from error
    return rows


def _check_header(path: str | Path, header: Sequence[str]) -> None:
    allowed = f"a tier table has {', '.join(COLUMNS)}"
    for name in header:
        if name not in COLUMNS:
            raise RuleError(f"{path}: unknown column {name!r}; {allowed}")
        if header.count(name) > 1:
            raise RuleError(f"{path}: column {name!r} appears twice; {allowed}")
    for name in REQUIRED:
        if name not in header:
            raise RuleError(f"{path}: column {name!r} is missing; {allowed}")


def _row(place: str, cells: Mapping[str, str]) -> _Row:
    numbers = {}
    for column in COLUMNS[1:]:
        text = cells.get(column, "")
        if not text and column in ("floor", "mmr"):
            raise RuleError(f"{place}: {column} must be a number; it is empty")
        try:
            value = float(text or "inf")
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise RuleError(f"{place}: {column} must be a number; got {text!r}")
        if text:
            numbers[column] = value
    since = cells.get("effective_from", "")
    try:
        return _Row(place, instant_ms(since) if since else -math.inf, numbers)
    except ConfigError as error:
        raise RuleError(f"{place}: effective_from: {error}") from None


def _table(name: str, rows: Sequence[_Row]) -> TierTable:
    for row in rows[:-1]:
        if "cap" not in row.numbers:
            raise RuleError(f"{row.place}: cap must be a number; only the last tier of a table may leave it empty")
    places = [row.place for row in rows]
    columns = {key: np.array([row.numbers.get(key, math.inf) for row in rows]) for key in (*REQUIRED, "max_leverage")}
    deduction = _deductions([row.numbers.get("deduction") for row in rows], places)
    return TierTable(name, **columns, deduction=deduction, places=places)


def _deductions(values: Sequence[float | None], places: Sequence[str]) -> Float | None:
    """None where every cell is blank; else a blank first cell is 0, and a blank later one is refused."""
    if all(value is None for value in values):
        return None
    for place, value in zip(places[1:], values[1:], strict=True):
        if value is None:
            raise RuleError(f"{place}: deduction is empty; a table gives deductions in every tier or in none")
    return np.array([0.0 if value is None else value for value in values])
