"""Files spoilt at random, and what became of them: a reader may refuse, warn, or be right."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest.data.dataset import read_history
from backtest.data.quality.check import check
from backtest.errors import BacktestError
from tests._support.layouts import LAYOUTS, Layout
from tests._support.market import HOUR, OHLC, T0, Doc, Market, market_of

Mutation = Callable[[np.random.Generator, list[Doc]], bool]
"""Spoils documents in place; False if it does not fit them."""


def _bars(rng: np.random.Generator, docs: list[Doc]) -> Doc:
    found = [doc for doc in docs if doc.kind != "funding"]
    return found[int(rng.integers(len(found)))]


def _any(rng: np.random.Generator, docs: list[Doc]) -> Doc:
    return docs[int(rng.integers(len(docs)))]


def _stretch(rng: np.random.Generator, doc: Doc) -> slice:
    first = int(rng.integers(len(doc.rows)))
    return slice(first, first + int(rng.integers(1, len(doc.rows))))


def swapped_columns(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Two columns of bars exchanged in the whole file."""
    doc = _bars(rng, docs)
    roles = [role for role in doc.roles if role != "rate"]
    first, second = rng.choice(roles, 2, replace=False)
    if {first, second} == {"tick", "mark tick"}:
        return False  # last and mark price for each other: nothing tells
    one, two = doc.roles[str(first)], doc.roles[str(second)]
    for row in doc.rows:
        row[one], row[two] = row[two], row[one]
    return True


def swapped_stretch(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Two prices exchanged in some rows."""
    doc = _bars(rng, docs)
    places = [doc.roles[role] for role in OHLC if role in doc.roles]
    if not places:
        return False
    one, two = rng.choice(places, 2, replace=False)
    for row in doc.rows[_stretch(rng, doc)]:
        row[one], row[two] = row[two], row[one]
    return True


def mixed_price_units(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Prices of some rows in another unit."""
    doc = _bars(rng, docs)
    factor = float(rng.choice([1000, 100, 10, 0.1, 0.01, 0.001]))
    for row in doc.rows[_stretch(rng, doc)]:
        for role in (*OHLC, "tick", "mark tick"):
            if role in doc.roles and row[doc.roles[role]]:
                row[doc.roles[role]] = f"{float(row[doc.roles[role]]) * factor:.10g}"
    return True


def mixed_time_units(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Times of some rows in another unit."""
    doc = _any(rng, docs)
    factor = int(rng.choice([1000, 1_000_000, -1000]))
    place = doc.roles["time"]
    for row in doc.rows[_stretch(rng, doc)]:
        if not row[place].isdigit():
            return False
        row[place] = str(int(row[place]) * factor if factor > 0 else int(row[place]) // -factor)
    return True


def percent_rates(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Funding in percent instead of fractions."""
    doc = next(doc for doc in docs if "rate" in doc.roles)
    for row in doc.rows:
        if row[doc.roles["rate"]]:
            row[doc.roles["rate"]] = f"{100 * float(row[doc.roles['rate']]):.8g}"
    return True


def wrong_zone(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """One file stamped on another clock: of bars where there is a second price, of funding by no multiple of 8 h."""
    kinds = {doc.kind for doc in docs}
    if len(docs) == 1 and "prices" in kinds:
        return False  # one file of ticks stands for all
    doc = _any(rng, docs if "mark" in kinds else [doc for doc in docs if doc.kind == "funding"])
    hours = [-8, -5, -1, 1, 3, 5, 8, 9] if doc.kind != "funding" else [-5, -3, -1, 1, 3, 5, 9]
    shift = int(rng.choice(hours)) * HOUR
    place = doc.roles["time"]
    for row in doc.rows:
        row[place] = doc.clock(doc.back(row[place]) + shift)
    return True


def zone_of_a_stretch(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """From some row on another clock, as after a change of the hour."""
    doc = _any(rng, docs)
    place, first = doc.roles["time"], int(rng.integers(len(doc.rows) // 4, 3 * len(doc.rows) // 4))
    for row in doc.rows[first:]:
        row[place] = doc.clock(doc.back(row[place]) + int(rng.choice([-HOUR, HOUR])))
    return True


def close_stamps(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Bars stamped at their close, one file of two."""
    found = [doc for doc in docs if doc.kind != "funding"]
    if len(found) < 2:
        return False
    doc = _bars(rng, docs)
    place = doc.roles["time"]
    for row in doc.rows:
        row[place] = doc.clock(doc.back(row[place]) + HOUR)
    return True


def duplicated_rows(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Rows that stand there twice, as they are or with another price."""
    doc = _any(rng, docs)
    at = int(rng.integers(len(doc.rows)))
    copies = [list(row) for row in doc.rows[at : at + int(rng.integers(1, 5))]]
    if rng.random() < 0.5:
        for row in copies:
            place = doc.roles.get("close", doc.roles.get("rate", 0))
            if row[place]:
                row[place] = f"{float(row[place]) * 1.001:.10g}"
    to = int(rng.integers(len(doc.rows))) if rng.random() < 0.5 else at
    doc.rows[to:to] = copies
    return True


def reversed_rows(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """All rows, or some, in the other order."""
    doc = _any(rng, docs)
    part = slice(None) if rng.random() < 0.5 else _stretch(rng, doc)
    doc.rows[part] = doc.rows[part][::-1]
    return True


def reversed_prices(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Rows reversed under their times, as if time ran backwards."""
    doc = _bars(rng, docs)
    place = doc.roles["time"]
    stamps = [row[place] for row in doc.rows]
    doc.rows.reverse()
    for row, stamp in zip(doc.rows, stamps, strict=True):
        row[place] = stamp
    return True


def odd_cell(values: tuple[str, ...]) -> Mutation:
    """Some cells of a column that matters replaced."""

    def mutate(rng: np.random.Generator, docs: list[Doc]) -> bool:
        doc = _any(rng, docs)
        role = str(rng.choice([role for role in doc.roles if role not in ("time", "volume")]))
        for at in rng.integers(len(doc.rows), size=int(rng.integers(1, 4))):
            cell = doc.rows[at][doc.roles[role]]
            how = str(rng.choice(values))
            if how.startswith("*"):
                doc.rows[at][doc.roles[role]] = f"{float(cell or 0) * float(how[1:]):.10g}"
            else:
                doc.rows[at][doc.roles[role]] = how
        return True

    return mutate


def dropped_rows(rng: np.random.Generator, docs: list[Doc]) -> bool:
    """Rows lost in the middle."""
    doc = _any(rng, docs)
    first = int(rng.integers(1, len(doc.rows) - 2))
    del doc.rows[first : min(first + int(rng.integers(1, 20)), len(doc.rows) - 1)]
    return True


MUTATIONS: dict[str, Mutation] = {
    "swapped columns": swapped_columns,
    "swapped stretch": swapped_stretch,
    "mixed price units": mixed_price_units,
    "mixed time units": mixed_time_units,
    "percent rates": percent_rates,
    "wrong zone": wrong_zone,
    "zone of a stretch": zone_of_a_stretch,
    "close stamps": close_stamps,
    "duplicated rows": duplicated_rows,
    "reversed rows": reversed_rows,
    "reversed prices": reversed_prices,
    "nan": odd_cell(("nan", "", "inf", "-inf", "x", "null")),
    "negative": odd_cell(("*-1", "-0.5")),
    "absurd": odd_cell(("*1000000", "*0.000001", "1e300", "0", "*3", "*0.3")),
    "dropped rows": dropped_rows,
}
BYTES = ("bit flips", "truncation")
KINDS = (*MUTATIONS, *BYTES)


def spoil_bytes(rng: np.random.Generator, data: bytes, kind: str) -> bytes:
    if kind == "truncation":
        return data[: int(rng.integers(1, len(data)))]
    spoilt = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 5))):
        spoilt[place] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)


# --- outcomes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a spoilt source.

    Attributes
    ----------
    verdict : str
        ``refused``, ``warned``, ``same`` as the truth, ``shorter`` (bars or charges at an end are not there, as the
        span that is printed says), ``slight`` (one value differs by less than any limit could tell from a right one),
        or ``WRONG``.
    size : float
        Largest relative difference of a price, where it is slight.
    text : str
        Of the error or difference.
    """

    verdict: str
    size: float = 0.0
    text: str = ""


SLIGHT_RATE = 0.05
SLIGHT_BARS, SLIGHT_PRICE = 5, 1e-3
"""Bars that may differ by less than could be told (as many bits are flipped), and what any number may differ by."""


def try_one(layout: Layout, market: Market, kind: str, seed: int, place: Path) -> Outcome | None:
    """Spoil, import beside data that is there already, and judge; None if the kind does not fit the source."""
    rng = np.random.default_rng(seed)
    docs = [doc.copy() for doc in layout.docs(market)]
    if kind in MUTATIONS and not MUTATIONS[kind](rng, docs):
        return None
    source, out = place / "source", place / "out"
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    (out / "interval=1h").mkdir(parents=True)
    (out / "interval=1h" / "there").write_bytes(b"before")
    try:
        layout.write(source, docs)
    except (ValueError, OverflowError):
        return None  # the format cannot hold such a cell
    if kind in BYTES:
        file = source / docs[int(rng.integers(len(docs)))].name
        file.write_bytes(spoil_bytes(rng, file.read_bytes(), kind))
    return _judged(layout, market, source, out, place)


def _judged(layout: Layout, market: Market, source: Path, out: Path, place: Path) -> Outcome:
    before = _prints(out)
    try:
        done = layout.load(source, out)
    except BacktestError as error:
        if _prints(out) != before:
            return Outcome("WRONG", text=f"refused, and data changed: {error}")
        return Outcome("refused", text=str(error))
    except Exception as error:
        return Outcome("WRONG", text=f"{type(error).__name__}: {error}")
    if not check(out).ok:
        return Outcome("WRONG", text="written, and the check does not pass")
    said = set(done.warnings) - clean_warnings(layout, market, place)
    return Outcome("warned", text=min(said)) if said else _compared(out, layout, market)


_CLEAN: dict[tuple[str, int], set[str]] = {}


def clean_warnings(layout: Layout, market: Market, place: Path) -> set[str]:
    """What is said of the source as it is."""
    key = (layout.name, id(market))
    if key not in _CLEAN:
        source, out = place / "clean", place / "clean-out"
        for folder in (source, out):
            shutil.rmtree(folder, ignore_errors=True)
        layout.write(source, layout.docs(market))
        _CLEAN[key] = set(layout.load(source, out).warnings)
    return _CLEAN[key]


def _prints(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def _compared(out: Path, layout: Layout, market: Market) -> Outcome:
    got, truth = read_history(out), layout.truth(market)
    n_bars = market.last.shape[1]
    first = (got.start_ms - T0) // HOUR
    if first < 0 or first + got.n_bars > n_bars:
        return Outcome("WRONG", text=f"bars {first} … {first + got.n_bars} of {n_bars}")
    here = slice(first, first + got.n_bars)
    worst, rate, parts = 0.0, False, []
    bars = np.zeros(got.n_bars, np.bool_)
    for name, values in truth.items():
        mine = got.columns.get(name, np.full(got.n_bars, np.nan))
        unlike = ~((mine == values[here]) | (np.isnan(mine) & np.isnan(values[here])))
        if not unlike.any() or name == "volume":
            continue
        if name == "funding_rate":
            lost = unlike & np.isnan(mine)
            charged = np.flatnonzero(~np.isnan(values[here]))
            at_end = (
                lost.any() and (lost == unlike).all() and set(charged[-int(lost.sum()) :]) == set(np.flatnonzero(lost))
            )
            if not at_end and (np.isnan(mine[unlike]).any() or (abs(mine[unlike]) > SLIGHT_RATE).any()):
                return Outcome("WRONG", text=f"funding differs in {int(unlike.sum())} bars")
            rate = not at_end
            continue
        if np.isnan(mine[unlike]).any() or np.isnan(values[here][unlike]).any():
            return Outcome("WRONG", text=f"{name} is lost in {int(unlike.sum())} bars")
        bars |= unlike
        worst = max(worst, float(np.abs(mine[unlike] / values[here][unlike] - 1).max()))
        parts.append(f"{name} by {worst:.3%} in {int(unlike.sum())}")
    limit = slight_price(market)
    if worst > (limit if bars.sum() <= SLIGHT_BARS else SLIGHT_PRICE):
        return Outcome("WRONG", worst, f"{'; '.join(parts)} (limit {limit:.3%}), {bars.sum()} bars")
    if bars.any() or rate:
        return Outcome("slight", worst, "; ".join(parts))
    return Outcome("same" if got.n_bars == n_bars else "shorter")


def slight_price(market: Market) -> float:
    """What a wick of one bar may be off without standing alone: ten usual ranges, or three of the bar beside it."""
    ranges = np.log(market.last[1] / market.last[2])
    return float(max(0.01, 10 * np.median(ranges), 3 * ranges.max()) + ranges.max())


def run(
    count: int, seed: int, place: Path, names: tuple[str, ...] = tuple(LAYOUTS)
) -> list[tuple[str, str, int, Outcome]]:
    """So many mutations over all sources and kinds in turn: source, kind, seed and outcome of each."""
    markets = [market_of(number) for number in range(3)]
    found: list[tuple[str, str, int, Outcome]] = []
    number = seed
    while len(found) < count:
        name = names[number % len(names)]
        kind = KINDS[number // len(names) % len(KINDS)]
        outcome = try_one(LAYOUTS[name], markets[number % 3], kind, number, place)
        if outcome is not None:
            found.append((name, kind, number, outcome))
        number += 1
    return found
