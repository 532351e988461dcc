"""Tier tables from the JSON of Binance, Bybit, OKX, Hyperliquid and ccxt, as the CSV that configurations name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from backtest.arrays import Float
from backtest.data.writer import Existing
from backtest.errors import ConfigError, RuleError
from backtest.filesystem import atomic_write, local
from backtest.ingest.tiers.formats import NO_END, Entry, Layout, read_source
from backtest.margin.tiers import COLUMNS, DatedTable, TierTable, derive_deductions, read_tier_tables
from backtest.units import instant_ms, instant_text, number_text

PERCENT_FROM = 10  # maintenance rate × largest leverage: at most about 1 as a fraction, 25 to 100 as percent
DIGITS = 12  # significant digits of a derived deduction: its running sum is rounded at the 16th
LISTED = 40  # symbols that an error lists


@dataclass(frozen=True)
class ImportedTiers:
    """What was written.

    Attributes
    ----------
    path : Path
    symbol : str
        As the source calls it.
    source : str
        The layout that was recognised.
    tables : tuple of DatedTable
        The table as it reads back.
    notes : tuple of str
        What was understood and decided, for people.
    """

    path: Path
    symbol: str
    source: str
    tables: tuple[DatedTable, ...]
    notes: tuple[str, ...]


def import_tiers(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    symbol: str | None = None,
    effective_from: str | None = None,
    contract_size: float | None = None,
    existing: Existing = "refuse",
) -> ImportedTiers:
    """Turn an exchange's answer, or its pages, into one tier table.

    Parameters
    ----------
    sources : sequence of str or Path
        JSON files of one layout; entries of one symbol are taken in the order of the files.
    out : str or Path
        The ``.csv`` file to write, whole or not at all.
    symbol : str, optional
        Which one, in the source's spelling; only needed where there are several.
    effective_from : str, optional
        ISO 8601, UTC: the date from which the table is in force; without it from the beginning.
    contract_size : float, optional
        What one contract is worth in the table's unit (quote of a linear contract, coin of an inverse one); needed
        where floors and caps count contracts (OKX), refused otherwise.
    existing : {"refuse", "add", "replace"}
        If `out` exists: refuse; put the table beside those of other dates in it; or replace the file.

    Returns
    -------
    ImportedTiers
        The table as it was written, with what was understood (`notes`).

    Raises
    ------
    RuleError
        With file, entry, key, value and rule, if the source holds no sound table.
    ConfigError
        If an argument is impossible, several symbols leave the choice open, or `out` exists.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     meta = Path(folder, "ETH.json")
    ...     tiers = '{"lowerBound": "0.0", "maxLeverage": 25}, {"lowerBound": "100000000.0", "maxLeverage": 15}'
    ...     _ = meta.write_text('{"marginTiers": [' + tiers + "]}")
    ...     import_tiers([meta], Path(folder, "eth.csv")).tables[0].table.mmr.round(4).tolist()
    [0.02, 0.0333]
    """
    target = local(out, "--out")
    _check_target(target, existing)
    since = None if effective_from is None else _since(effective_from)
    if contract_size is not None and not 0 < contract_size < math.inf:
        raise ConfigError(f"contract_size must be a finite number > 0; got {number_text(contract_size)}")
    layout, chosen, entries, notes = _gather(sources, symbol)
    scale = _contract_scale(layout, chosen, contract_size)
    table, more = _table(target.stem, layout, entries, scale)
    tables = (DatedTable(since, table), *(read_tier_tables(target) if existing == "add" and target.exists() else ()))
    tables = tuple(
        sorted(tables, key=lambda one: -math.inf if one.effective_from_ms is None else one.effective_from_ms)
    )
    _write(target, tiers_csv(tables))
    return ImportedTiers(target, chosen, layout.name, tables, (*notes, *more))


def tiers_csv(tables: Sequence[DatedTable]) -> str:
    """The CSV that `backtest.margin.tiers.read_tier_tables` reads back, number for number.

    Parameters
    ----------
    tables : sequence of DatedTable
        Of different dates. ``effective_from`` is written where one has a date, and a cap, leverage or deduction that
        there is none is blank.

    Raises
    ------
    RuleError
        If two tables have one date.

    Examples
    --------
    >>> print(tiers_csv([DatedTable(0, TierTable.from_rows([[0, 0.01, 0], [1000, 0.02, 10]]))]), end="")
    effective_from,floor,cap,mmr,deduction,max_leverage
    1970-01-01T00:00Z,0,1000,0.01,0,
    1970-01-01T00:00Z,1000,,0.02,10,
    """
    dates = [each.effective_from_ms for each in tables]
    for date in dates:
        if dates.count(date) > 1:
            raise RuleError(f"two tier tables have one date, {'none' if date is None else instant_text(date)}")
    dated = any(date is not None for date in dates)
    lines = [",".join(COLUMNS if dated else COLUMNS[1:])]
    for each in tables:
        table = each.table
        since = "" if each.effective_from_ms is None else instant_text(each.effective_from_ms)
        for k in range(table.floor.size):
            deduction = math.inf if table.deduction is None else table.deduction[k]
            row = (table.floor[k], table.cap[k], table.mmr[k], deduction, table.max_leverage[k])
            cells = ["" if math.isinf(value) else number_text(value) for value in row]
            lines.append(",".join([since, *cells] if dated else cells))
    return "\n".join(lines) + "\n"


def _check_target(target: Path, existing: Existing) -> None:
    if target.suffix != ".csv":
        raise ConfigError(f"the output of an import of tiers must end in .csv; got {str(target)!r}")
    if target.is_dir() or (target.exists() and existing == "refuse"):
        raise ConfigError(f"{target}: exists already; choose another file, or ask for --overwrite or --add")


def _since(text: str) -> int:
    try:
        return instant_ms(text)
    except ConfigError as error:
        raise ConfigError(f"effective_from: {error}") from None


def _gather(sources: Sequence[str | Path], symbol: str | None) -> tuple[Layout, str, list[Entry], tuple[str, ...]]:
    """The entries of one symbol in every file, and the layout that all files have."""
    if not sources:
        raise ConfigError("an import of tiers needs at least one source")
    read = [read_source(path) for path in sources]
    first = read[0]
    for source in read[1:]:
        if source.layout != first.layout:
            raise ConfigError(f"{source.file} reads as {source.layout.name}, {first.file} as {first.layout.name}")
    notes = [note for source in read for note in source.notes]
    symbols = sorted({name for source in read for name in source.entries})
    listed = ", ".join(symbols[:LISTED]) + (f" and {len(symbols) - LISTED} more" if len(symbols) > LISTED else "")
    if symbol is None and len(symbols) > 1:
        raise ConfigError(f"{first.file}: holds {len(symbols)} symbols, give --symbol: {listed}")
    chosen = symbols[0] if symbol is None else symbol
    if chosen not in symbols:
        raise ConfigError(f"{first.file}: has no symbol {chosen!r}; its symbols are {listed}")
    entries = [entry for source in read for entry in source.entries.get(chosen, ())]
    return first.layout, chosen, entries, (f"{first.file.name}: read as {first.layout.name}", *notes)


def _contract_scale(layout: Layout, symbol: str, contract_size: float | None) -> float:
    if not layout.contracts:
        if contract_size is not None:
            raise ConfigError(f"contract_size: {layout.name} has floors and caps in quote or coin, not contracts")
        return 1.0
    if contract_size is None:
        raise ConfigError(
            f"{symbol}: {layout.name} counts contracts; give --contract-size, what one contract is worth in quote "
            "(linear: its base quantity × price) or coin (inverse: its face value / price)"
        )
    return contract_size


def _table(name: str, layout: Layout, entries: Sequence[Entry], scale: float) -> tuple[TierTable, list[str]]:
    notes: list[str] = []
    places = [entry.place for entry in entries]
    floor, cap = _bounds(layout, entries, notes)
    most = np.array([float(entry.number(layout.max_leverage)) for entry in entries])
    mmr = _rates(layout, entries, notes)
    sound = bool((np.diff(floor, append=math.inf) > 0).all())
    deduction = _deduction(layout, entries, floor * scale, mmr, notes) if sound else None
    if layout.contracts:
        notes.append(f"contracts are counted as {number_text(scale)} quote or coin each")
    try:
        return TierTable(name, floor * scale, cap * scale, mmr, most, deduction, places), notes
    except RuleError as error:
        raise RuleError(f"{error} ({layout.name}: {layout.legend})") from None


def _bounds(layout: Layout, entries: Sequence[Entry], notes: list[str]) -> tuple[Float, Float]:
    """Floors and caps, in the source's unit."""
    floors = None if layout.floor is None else [float(entry.number(layout.floor)) for entry in entries]
    if layout.cap is None:
        assert floors is not None
        return np.array(floors), np.array([*floors[1:], math.inf])
    caps = []
    for number, entry in enumerate(entries, 1):
        cap = entry.optional(layout.cap) if number == len(entries) else entry.number(layout.cap)
        ends = cap is not None and float(cap) < NO_END
        caps.append(float(cap) if cap is not None and ends else math.inf)
        if cap is not None and not ends:
            notes.append(f"{entry.place}: {layout.cap} is {cap}, which stands for no end")
    if floors is None:
        return np.array([0.0, *caps[:-1]]), np.array(caps)
    if layout.contracts:
        floors = _closed(layout, entries, floors, caps, notes)
    return np.array(floors), np.array(caps)


def _closed(
    layout: Layout, entries: Sequence[Entry], floors: list[float], caps: list[float], notes: list[str]
) -> list[float]:
    """Floors of whole contracts start a step above the cap before: within a contract that cap is the floor."""
    closed = list(floors)
    for k in range(1, len(floors)):
        step = floors[k] - caps[k - 1]
        if not 0 <= step <= 1:
            rule = "overlaps" if step < 0 else "leaves a gap of more than a contract to"
            raise RuleError(
                f"{entries[k].place}: {layout.floor} {rule} the {layout.cap} before, {number_text(caps[k - 1])}; "
                f"got {number_text(floors[k])}"
            )
        closed[k] = caps[k - 1]
    if closed != floors:
        notes.append(f"{layout.floor} lies a step above the {layout.cap} before; floors are those caps")
    return closed


def _rates(layout: Layout, entries: Sequence[Entry], notes: list[str]) -> Float:
    """Maintenance rates as fractions."""
    key = layout.mmr
    if key is None:
        return np.array([float(1 / (2 * _positive(entry, layout.max_leverage))) for entry in entries])
    rates = [entry.number(key) for entry in entries]
    if not layout.percent:
        return np.array([float(rate) for rate in rates])
    percents = [
        rate * _positive(entry, layout.max_leverage) > PERCENT_FROM for rate, entry in zip(rates, entries, strict=True)
    ]
    for entry, rate, percent in zip(entries, rates, percents, strict=True):
        if percent != percents[0]:
            raise RuleError(
                f"{entry.place}: {key} reads as {'percent' if percent else 'a fraction'}, the first entry's as "
                f"{'percent' if percents[0] else 'a fraction'} (by {key} × {layout.max_leverage}); got {rate}"
            )
    unit, part = ("percent", Decimal(100)) if percents[0] else ("a fraction", Decimal(1))
    notes.append(f"{key} is read as {unit}: {rates[0]} at {layout.max_leverage} {entries[0].get(layout.max_leverage)}")
    return np.array([float(rate / part) for rate in rates])


def _positive(entry: Entry, key: str) -> Decimal:
    value = entry.number(key)
    if value <= 0:
        raise RuleError(f"{entry.place}: {key} must be > 0; got {value}")
    return value


def _deduction(layout: Layout, entries: Sequence[Entry], floor: Float, mmr: Float, notes: list[str]) -> Float | None:
    """As the source gives them, or as they follow from the rates where the exchange has them; else none."""
    key = layout.deduction
    given = [entry.optional(key) if key else None for entry in entries]
    if any(value is not None for value in given[1:]) or (given[0] is not None and len(given) == 1):
        for entry, value in zip(entries[1:], given[1:], strict=True):
            if value is None:
                raise RuleError(f"{entry.place}: {key} is missing; a source gives deductions in every tier or in none")
        return np.array([0.0 if value is None else float(value) for value in given])
    if not layout.derives:
        notes.append("no deductions: a position keeps the rate of the tier that held it at entry")
        return None
    notes.append("deductions are not in the source; they follow from the rates, maintenance being continuous")
    return np.array([float(f"{value:.{DIGITS}g}") for value in derive_deductions(floor, mmr)])


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
