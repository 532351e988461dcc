"""Tiers in the JSON of exchanges and ccxt: which layout a document has, its symbols, and the entries of each.

Layouts as read from public pages: Binance ``leverageBracket``, Bybit v5 ``market/risk-limit``, OKX
``public/position-tiers``, Hyperliquid ``meta`` and ``marginTable``, ccxt ``fetchLeverageTiers``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from backtest.errors import RuleError
from backtest.ingest.json_files import check_answer, load, short_text

NO_END = float(2**63 - 1)  # how Binance writes a last cap that there is none


@dataclass(frozen=True)
class Layout:
    """Where one source keeps the columns of a tier; a dot leads into an object.

    Attributes
    ----------
    name : str
        What people call the source.
    floor, cap : str or None
        None: the cap of the tier before, or the floor of the next.
    mmr : str or None
        None: half of one over the largest leverage.
    max_leverage : str
    deduction : str or None
        None: the source has no such key.
    derives : bool
        Whether the exchange's maintenance is continuous, so that deductions left out follow from the rates.
    contracts : bool
        Whether floors and caps count contracts.
    percent : bool
        Whether rates were percent once.
    """

    name: str
    floor: str | None
    cap: str | None
    mmr: str | None
    max_leverage: str
    deduction: str | None = None
    derives: bool = False
    contracts: bool = False
    percent: bool = False

    @property
    def legend(self) -> str:
        """Which key each column was read from, for messages."""
        columns = ("floor", "cap", "mmr", "max_leverage", "deduction")
        keys = (self.floor, self.cap, self.mmr, self.max_leverage, self.deduction)
        return ", ".join(f"{column} is {key}" for column, key in zip(columns, keys, strict=True) if key)


BINANCE = Layout(
    "Binance leverageBracket",
    *("notionalFloor", "notionalCap", "maintMarginRatio", "initialLeverage", "cum"),
    derives=True,
)
BINANCE_COIN = Layout(
    "Binance COIN-M leverageBracket",
    *("qtyFloor", "qtyCap", "maintMarginRatio", "initialLeverage", "cum"),
    derives=True,
)
BYBIT = Layout(
    "Bybit risk-limit",
    *(None, "riskLimitValue", "maintenanceMargin", "maxLeverage", "mmDeduction"),
    derives=True,
    percent=True,
)
OKX = Layout("OKX position-tiers", "minSz", "maxSz", "mmr", "maxLever", contracts=True)
HYPERLIQUID = Layout("Hyperliquid margin table", "lowerBound", None, None, "maxLeverage", derives=True)
UNIFIED = ("minNotional", "maxNotional", "maintenanceMarginRate", "maxLeverage")
CCXT = Layout("ccxt leverage tiers", *UNIFIED)
CCXT_BINANCE = Layout("ccxt leverage tiers of Binance", *UNIFIED, "info.cum", derives=True)
CCXT_BYBIT = Layout("ccxt leverage tiers of Bybit", *UNIFIED, "info.mmDeduction", derives=True, percent=True)
CCXT_OKX = Layout("ccxt leverage tiers of OKX", *UNIFIED, contracts=True)  # minNotional is minSz there: contracts
LAYOUTS = (  # by a key that only this source has
    ("riskLimitValue", BYBIT),
    ("minSz", OKX),
    ("lowerBound", HYPERLIQUID),
    ("qtyFloor", BINANCE_COIN),
    ("notionalFloor", BINANCE),
)
CCXT_LAYOUTS = (
    ("maintMarginRatio", CCXT_BINANCE),
    ("cum", CCXT_BINANCE),
    ("riskLimitValue", CCXT_BYBIT),
    ("minSz", CCXT_OKX),
)


@dataclass(frozen=True)
class Entry:
    """One tier as it stands in a source."""

    place: str
    values: Mapping[str, object]

    def get(self, key: str) -> object:
        """Value of a key; None where it, or the object it lies in, is not there."""
        found: object = self.values
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def optional(self, key: str) -> Decimal | None:
        """A number or the text of one; None where it is missing, null or blank."""
        value = self.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, int | float | str) and not isinstance(value, bool) and "_" not in str(value):
            try:
                number = Decimal(str(value))
            except InvalidOperation:
                number = Decimal("NaN")
            if number.is_finite() and math.isfinite(float(number)):
                return number
        raise RuleError(f"{self.place}: {key} must be a finite number; got {value!r}")

    def number(self, key: str) -> Decimal:
        """The same where it must be there."""
        found = self.optional(key)
        if found is None:
            state = f"got {self.get(key)!r}" if key in self.values else "it is missing"
            raise RuleError(f"{self.place}: {key} must be a number; {state}")
        return found


@dataclass(frozen=True)
class TierFormat:
    """What one file holds: the layout of its entries, and the entries of each symbol in its order."""

    file: Path
    layout: Layout
    entries: Mapping[str, Sequence[Entry]]
    notes: tuple[str, ...] = ()


def read_source(path: str | Path) -> TierFormat:
    """Read one JSON file of tiers.

    Raises
    ------
    RuleError
        With file, entry, key, value and rule, if it is not JSON, a failed request's answer, or of no known layout.
    """
    file = Path(path)
    document = load(file, RuleError)
    notes: list[str] = []
    found: dict[str, list[Entry]] = {}
    layout: Layout | None = None
    for symbol, values in _unfold(file, document, notes):
        entries = found.setdefault(symbol, [])
        place = f"{file}: {symbol} entry {len(entries) + 1}"
        if not isinstance(values, dict):
            raise RuleError(f"{place}: must be an object with the keys of a tier; got {short_text(values)}")
        theirs = _layout(place, values)
        if layout is not None and theirs != layout:
            raise RuleError(f"{place}: reads as {theirs.name}, the entries before as {layout.name}; one file has one")
        layout = theirs
        entries.append(Entry(place, values))
    if layout is None:
        raise RuleError(f"{file}: holds no tier")
    return TierFormat(file, layout, found, tuple(notes))


def _layout(place: str, values: Mapping[str, object]) -> Layout:
    info = values.get("info")
    if "maintenanceMarginRate" in values or "minNotional" in values:
        inner = info if isinstance(info, dict) else {}
        return next((layout for key, layout in CCXT_LAYOUTS if key in inner), CCXT)
    for key, layout in LAYOUTS:
        if key in values:
            return layout
    known = ", ".join(key for key, _ in LAYOUTS)
    raise RuleError(
        f"{place}: is a tier of no known source, which has {known} or minNotional; its keys are "
        f"{', '.join(values) or 'none'}"
    )


def _unfold(file: Path, document: object, notes: list[str]) -> Iterator[tuple[str, object]]:
    """Symbol and tier of each entry of a document, its envelope taken off."""
    if isinstance(document, list) and document and isinstance(document[0], dict) and "universe" in document[0]:
        document = document[0]  # Hyperliquid metaAndAssetCtxs
    if not isinstance(document, dict):
        yield from _listed(file, file.stem, document)
    elif "retCode" in document:
        result = document.get("result")
        check_answer(file, document, RuleError)
        if isinstance(result, dict) and result.get("nextPageCursor"):
            notes.append(f"{file.name}: nextPageCursor is set: tiers of a later page are only read if it is a SOURCE")
        yield from _listed(file, file.stem, result.get("list") if isinstance(result, dict) else result)
    elif "code" in document:
        check_answer(file, document, RuleError)
        yield from _listed(file, file.stem, document.get("data"))
    elif "universe" in document:
        yield from _universe(file, document)
    elif "marginTiers" in document:
        yield from ((file.stem, tier) for tier in _array(file, "marginTiers", document["marginTiers"]))
    elif "brackets" in document:
        yield from _listed(file, file.stem, [document])
    else:
        for symbol, tiers in document.items():
            yield from _listed(file, symbol, tiers)


def _listed(file: Path, otherwise: str, entries: object) -> Iterator[tuple[str, object]]:
    """Entries of a list by the symbol they name; Binance's hold a list of tiers each."""
    for entry in _array(file, otherwise, entries):
        if not isinstance(entry, dict):
            yield otherwise, entry
            continue
        names = (entry.get(key) for key in ("symbol", "pair", "instId", "instFamily", "uly"))
        symbol = str(next((name for name in names if name), otherwise))
        if "brackets" in entry:
            yield from ((symbol, tier) for tier in _array(file, f"{symbol} brackets", entry["brackets"]))
        else:
            yield symbol, entry


def _universe(file: Path, meta: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Hyperliquid's assets, each with its margin table; one that is not listed is a single tier."""
    tables: dict[str, object] = {}
    for pair in _array(file, "marginTables", meta.get("marginTables", [])):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict)):
            raise RuleError(f"{file}: marginTables must hold [id, table] pairs; got {short_text(pair)}")
        tables[str(pair[0])] = pair[1].get("marginTiers")
    for number, asset in enumerate(_array(file, "universe", meta["universe"]), 1):
        if not isinstance(asset, dict) or not asset.get("name"):
            raise RuleError(f"{file}: universe entry {number} must be an object with a name; got {short_text(asset)}")
        name, table = str(asset["name"]), asset.get("marginTableId")
        if str(table) in tables:
            tiers = tables[str(table)]
            yield from ((name, tier) for tier in _array(file, f"marginTables {table} marginTiers", tiers))
        elif table is None or (isinstance(table, int) and table < 50):  # ids below 50 are one tier of that leverage
            yield name, {"lowerBound": 0, "maxLeverage": asset.get("maxLeverage", table)}
        else:
            listed = ", ".join(map(str, tables)) or "none"
            raise RuleError(
                f"{file}: universe {name}: marginTableId must be one of marginTables ({listed}); got {table}"
            )


def _array(file: Path, what: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise RuleError(f"{file}: {what} must be a list of entries; got {short_text(value)}")
    return value
