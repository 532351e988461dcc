"""A small market, and files of rows that can be spoilt cell by cell."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

HOUR = 3_600_000
T0 = 1_704_067_200_000  # 2024-01-01T00:00Z
N_BARS = 240
OHLC = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Market:
    """Truth: hourly bars from `T0` on, and a charge every 8 hours at the end of the bar before."""

    last: np.ndarray
    """(4, n) open, high, low, close."""
    mark: np.ndarray
    volume: np.ndarray
    quote: np.ndarray
    charges: np.ndarray
    """Bars with a charge."""
    rates: np.ndarray

    @property
    def stamps(self) -> list[int]:
        return [T0 + HOUR * bar for bar in range(self.last.shape[1])]

    def columns(self, mark: bool = True, volume: bool = True, first_charge: int = 0) -> dict[str, np.ndarray]:
        """As the dataset has them; charges from the bar `first_charge` on."""
        found = dict(zip(OHLC, self.last, strict=True))
        if mark:
            found |= {f"mark_{name}": values for name, values in zip(OHLC, self.mark, strict=True)}
        if volume:
            found["volume"] = self.volume
        found["funding_rate"] = np.full(self.last.shape[1], np.nan)
        found["funding_rate"][self.charges] = self.rates
        found["funding_rate"][:first_charge] = np.nan
        return found


def market_of(seed: int, n_bars: int = N_BARS) -> Market:
    """A random walk of 0.5 % an hour around 42,000, with a mark price a few hundredths of a percent off it."""
    rng = np.random.default_rng(seed)
    path = 42_000 * np.exp(np.cumsum(rng.normal(0, 0.005 / np.sqrt(12), n_bars * 12)))
    basis = np.exp(np.repeat(rng.normal(0, 1e-4, n_bars), 12))

    def bars(prices: np.ndarray, digits: int) -> np.ndarray:
        grid = prices.reshape(n_bars, 12)
        open_ = np.append(grid[0, 0], grid[:-1, -1])
        high = np.maximum(grid.max(axis=1), open_)
        low = np.minimum(grid.min(axis=1), open_)
        return np.round([open_, high, low, grid[:, -1]], digits)

    last = bars(path, 1)
    volume = np.round(rng.exponential(100, n_bars) + 1, 3)
    mean = last[2] + (last[1] - last[2]) * rng.uniform(0.2, 0.8, n_bars)
    charges = np.arange(0, n_bars, 8)
    rates = np.round(rng.normal(1e-4, 3e-5, charges.size), 8)
    return Market(last, bars(path * basis, 2), volume, np.round(volume * mean, 3), charges, rates)


# --- files ------------------------------------------------------------------------------------------------------------

Save = Callable[["Doc"], bytes]


@dataclass
class Doc:
    """One file: rows of cells as text, which columns are what, and how they are written."""

    name: str
    kind: str
    rows: list[list[str]]
    roles: dict[str, int]
    save: Save
    header: list[str] = field(default_factory=list)
    clock: Callable[[int], str] = str
    """How a time in UTC milliseconds is written, and back."""
    back: Callable[[str], int] = int

    def copy(self) -> Doc:
        return replace(self, rows=[list(row) for row in self.rows])


def csv_text(doc: Doc) -> bytes:
    head = [",".join(doc.header)] if doc.header else []
    return ("\n".join([*head, *(",".join(row) for row in doc.rows)]) + "\n").encode()


def csv_gz(doc: Doc) -> bytes:
    return gzip.compress(csv_text(doc), mtime=0)


def zipped(encoding: str = "utf-8") -> Save:
    def save(doc: Doc) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(doc.name.removesuffix(".zip") + ".csv", csv_text(doc).decode().encode(encoding))
        return buffer.getvalue()

    return save


def json_rows(
    keys: Sequence[str] = (), texts: Sequence[int] = (), envelope: str = "%s", newest_first: bool = False
) -> Save:
    """Rows as lists, or as objects of `keys`; cells of `texts` in quotes."""

    def cell(place: int, text: str) -> str:
        if text == "":
            return "null"
        if place in texts:
            return json.dumps(text)
        try:
            float(text)
        except ValueError:
            return json.dumps(text)
        return {"nan": "NaN", "inf": "Infinity"}.get(text, text)

    def save(doc: Doc) -> bytes:
        rows = [[cell(place, text) for place, text in enumerate(row)] for row in doc.rows]
        if keys:
            found = [
                "{" + ",".join(f'"{key}":{text}' for key, text in zip(keys, row, strict=True)) + "}" for row in rows
            ]
        else:
            found = ["[" + ",".join(row) + "]" for row in rows]
        data = (envelope % ("[" + ",".join(found[::-1] if newest_first else found) + "]")).encode()
        return gzip.compress(data, mtime=0) if doc.name.endswith(".gz") else data

    return save


def arrow(write: Callable[[pa.Table, io.BytesIO], None], time: str = "ms") -> Save:
    def number(text: str) -> float | None:
        return None if text == "" else float(text)

    def save(doc: Doc) -> bytes:
        columns = {}
        for place, name in enumerate(doc.header):
            cells = [row[place] for row in doc.rows]
            if place == doc.roles["time"]:
                columns[name] = pa.array([int(float(text)) for text in cells], pa.timestamp(time, "UTC"))
            else:
                columns[name] = pa.array([number(text) for text in cells], pa.float64())
        buffer = io.BytesIO()
        write(pa.table(columns), buffer)
        return buffer.getvalue()

    return save


BARS = {"time": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}
RATE = {"time": 0, "rate": 1}


def number(value: float) -> str:
    return f"{value:.10g}"


def bar_rows(market: Market, mark: bool, clock: Callable[[int], str] = str, volume: bool = True) -> list[list[str]]:
    prices = market.mark if mark else market.last
    return [
        [clock(stamp), *map(number, prices[:, bar]), *([number(0.0 if mark else market.volume[bar])] * volume)]
        for bar, stamp in enumerate(market.stamps)
    ]


def rate_rows(market: Market, clock: Callable[[int], str] = str) -> list[list[str]]:
    return [
        [clock(T0 + HOUR * int(bar)), f"{rate:.8f}"] for bar, rate in zip(market.charges, market.rates, strict=True)
    ]


def three(
    market: Market, names: Sequence[str], saves: Sequence[Save], headers: Sequence[Sequence[str]] = ((), (), ())
) -> list[Doc]:
    """Prices, mark prices and funding, times in milliseconds."""
    rows = (bar_rows(market, False), bar_rows(market, True), rate_rows(market))
    return [
        Doc(name, kind, found, dict(roles), save, list(header))
        for name, kind, found, roles, save, header in zip(
            names, ("prices", "mark", "funding"), rows, (BARS, BARS, RATE), saves, headers, strict=True
        )
    ]
