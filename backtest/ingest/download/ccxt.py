"""Histories and tier tables of any exchange that ccxt knows: bars, mark prices and funding of its public API."""

from __future__ import annotations

import difflib
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast
from urllib.parse import urlsplit

import numpy as np

from backtest.data.writer import Existing
from backtest.errors import ConfigError, DataError
from backtest.ingest.bars import BarColumns
from backtest.ingest.funding import Charges
from backtest.ingest.merge import Imported, Piece, write_pieces
from backtest.ingest.messages import Notices
from backtest.ingest.options import Request
from backtest.ingest.tiers.importer import ImportedTiers, import_tiers
from backtest.progress import progress
from backtest.units import duration_ms, instant_ms, instant_text

T = TypeVar("T")
Row = Sequence[float | None]
Market = Mapping[str, object]

BARS_A_PAGE, CHARGES_A_PAGE = 500, 100
LONGEST_MS = 180 * 86_400_000
"""Of one question: some exchanges refuse longer ones however few bars there are."""
CHARGE_MS, CHARGE_GAP_MS = 28_800_000, 1_800_000
"""The usual time between charges, which sizes a question, and one that is shorter than any."""
FIRST_WAIT_S = 1.0
TRIES = 5
PRICES = ("open", "high", "low", "close", "volume")


class Venue(Protocol):
    """What is used of a ccxt exchange."""

    id: str
    has: Mapping[str, object]
    timeframes: Mapping[str, object] | None
    urls: dict[str, object]

    def load_markets(self) -> Mapping[str, Market]: ...
    def milliseconds(self) -> int: ...
    def fetch_time(self) -> int | None: ...
    def feature_value(self, symbol: str, method: str, name: str, default: object) -> object: ...
    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int, limit: int, params: Mapping[str, object]
    ) -> Sequence[Row]: ...
    def fetch_mark_ohlcv(
        self, symbol: str, timeframe: str, since: int, limit: int, params: Mapping[str, object]
    ) -> Sequence[Row]: ...
    def fetch_funding_rate_history(
        self, symbol: str, since: int, limit: int, params: Mapping[str, object]
    ) -> Sequence[Mapping[str, object]]: ...
    def fetch_leverage_tiers(self, symbols: Sequence[str]) -> Mapping[str, Sequence[object]]: ...
    def fetch_market_leverage_tiers(self, symbol: str) -> Sequence[object]: ...


@dataclass(frozen=True)
class FetchedCcxt:
    """What was written: a history per symbol, and the tier table that was asked for."""

    imported: tuple[Imported, ...]
    tiers: ImportedTiers | None


def fetch_ccxt(
    exchange: str,
    symbols: Sequence[str],
    interval: str,
    start: str,
    end: str | None = None,
    *,
    out: str | Path,
    base_url: str | None = None,
    tiers: str | Path | None = None,
    contract_size: float | None = None,
    overwrite: bool = False,
) -> FetchedCcxt:
    """Ask an exchange's public API for a range of bars, mark prices and charges, and write or extend the dataset.

    Parameters
    ----------
    exchange : str
        As ccxt calls it: ``binanceusdm``, ``bybit``, ``okx``.
    symbols : sequence of str
        ccxt's (``BTC/USDT:USDT``) or the exchange's own (``BTCUSDT``); the dataset takes the exchange's own.
    interval : str
        Length of a bar, one that the exchange has.
    start, end : str
        ISO 8601, UTC; start inclusive, end exclusive and by default now. The bar that is not finished is left out.
    out : str or Path
        Dataset.
    base_url : str, optional
        Host that all requests go to instead of the exchange's own, with their paths as they are.
    tiers : str or Path, optional
        A ``.csv`` file for the leverage tiers of the one symbol.
    contract_size : float, optional
        See `backtest.ingest.tiers.importer.import_tiers`.
    overwrite : bool
        Replace existing bars and an existing tier table; without it, existing bars that differ are refused.

    Returns
    -------
    FetchedCcxt
        What was imported per symbol, and the tier table if one was asked for.

    Raises
    ------
    ConfigError
        If ccxt is not installed or an argument is impossible.
    DataError
        If the exchange cannot be reached, refuses a request, or its answer is no history.

    Examples
    --------
    >>> fetch_ccxt("bybit", ["BTC/USDT:USDT"], "1h", "2024-01-01", "2024-02-01", out="data")  # doctest: +SKIP
    """
    span = instant_ms(start), None if end is None else instant_ms(end)
    step = duration_ms(interval)
    if span[1] is not None and span[0] >= span[1]:
        raise ConfigError(f"--from must lie before --to; got {start} and {end}")
    if tiers is not None and len(symbols) != 1:
        raise ConfigError(f"--tiers takes the table of one symbol; got {len(symbols)} symbols")
    client = ExchangeClient.to(exchange, base_url)
    if interval not in (client.venue.timeframes or {}):
        raise ConfigError(
            f"{exchange} has bars of {', '.join(client.venue.timeframes or {})}; got interval {interval!r}"
        )
    markets = client.ask(client.venue.load_markets)
    chosen = [find_market(client.venue.id, markets, symbol) for symbol in dict.fromkeys(symbols)]
    names = [_name(market) for market in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"{', '.join(symbols)}: two of them are one symbol, {max(names, key=names.count)}")
    table = (
        None
        if tiers is None
        else _tiers(client, chosen[0], Path(tiers), contract_size, "replace" if overwrite else "refuse")
    )
    now = client.ask(client.venue.fetch_time) if client.venue.has.get("fetchTime") else None
    last = (now or client.venue.milliseconds()) // step * step  # the bar that begins here is not finished
    low, high = -(-span[0] // step) * step, last if span[1] is None else min(last, -(-span[1] // step) * step)
    if low >= high:
        raise ConfigError(f"no bar of {interval} is finished between --from and --to; got {start} and {end or 'now'}")
    existing: Existing = "replace" if overwrite else "add"
    done = [_history(client, market, interval, low, high, out, existing) for market in chosen]
    return FetchedCcxt(tuple(done), table)


# --- the exchange -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExchangeClient:
    """An exchange, and how patiently it is asked; ccxt keeps to its rate limits."""

    venue: Venue
    unreachable: type[Exception]
    refused: type[Exception]

    @classmethod
    def to(cls, exchange: str, base_url: str | None) -> ExchangeClient:
        try:
            import ccxt
        except ModuleNotFoundError as error:
            if error.name != "ccxt":
                raise
            raise ConfigError("this needs ccxt: pip install 'liquidation-backtest[ccxt]'") from None
        if exchange not in ccxt.exchanges:
            near = difflib.get_close_matches(exchange, ccxt.exchanges, 5, 0.5)
            also = f"; near are {', '.join(near)}" if near else ""
            raise ConfigError(f"ccxt knows no exchange {exchange!r}{also}")
        made = getattr(ccxt, exchange)({"enableRateLimit": True, "timeout": 20_000})
        made.session.max_redirects = 0  # nothing else is asked than what is configured
        made.requests_trust_env = True  # proxies, as other programs take them from the environment
        venue = cast(Venue, made)
        if base_url is not None:
            from backtest.ingest.download.mirror import checked_url

            venue.urls["api"] = _moved(venue.urls["api"], checked_url(base_url))
        return cls(venue, ccxt.NetworkError, ccxt.BaseError)

    def ask(self, question: Callable[[], T]) -> T:
        """Its answer, asked for again after a wait where the network or the exchange's load is in the way."""
        for number in range(TRIES):
            if number:
                time.sleep(FIRST_WAIT_S * 2.0 ** (number - 1) * random.uniform(0.5, 1.0))
            try:
                return question()
            except self.unreachable as error:
                reason = _short(error)
            except self.refused as error:
                raise DataError(f"{self.venue.id} refuses: {type(error).__name__}: {_short(error)}") from None
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    f"{self.venue.id} gives what ccxt cannot read ({type(error).__name__}: {_short(error)}); is there "
                    "a newer ccxt, and is this the exchange's host?"
                ) from error
        raise DataError(f"{self.venue.id}: the host could not be reached or is overloaded, {TRIES} times: {reason}")

    def can(self, what: str) -> bool:
        return bool(self.venue.has.get(what))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"


def _moved(urls: object, base: str) -> object:
    """The same paths on another host."""
    if isinstance(urls, dict):
        return {name: _moved(url, base) for name, url in urls.items()}
    return base + urlsplit(urls).path if isinstance(urls, str) else urls


def find_market(exchange: str, markets: Mapping[str, Market], asked: str) -> Market:
    """By ccxt's symbol, or by the exchange's own; a contract where spot has the same."""
    if asked in markets:
        return markets[asked]
    same = [market for market in markets.values() if asked in (market.get("id"), _name(market))]
    contracts = [market for market in same if market.get("contract") and not market.get("option")]
    found = contracts or same
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{asked} is several on {exchange}; name one: {', '.join(str(m['symbol']) for m in found)}")
    known = [*markets, *(str(market.get("id")) for market in markets.values())]
    near = difflib.get_close_matches(asked, known, 5, 0.6)
    raise ConfigError(f"{exchange} has no symbol {asked!r}" + (f"; near are {', '.join(near)}" if near else ""))


def _name(market: Market) -> str:
    """The exchange's own symbol; the coin where that is a bare number."""
    own = str(market.get("id"))
    return str(market.get("baseName") or market.get("base")) if own.isdigit() else own


# --- histories --------------------------------------------------------------------------------------------------------


def _history(
    client: ExchangeClient, market: Market, interval: str, low: int, high: int, out: str | Path, existing: Existing
) -> Imported:
    """Bars, mark prices and charges of one symbol, into the dataset."""
    venue, symbol, name = client.venue, str(market["symbol"]), _name(market)
    notices = Notices()
    notices.note(f"{symbol} of {venue.id} is {name} in the dataset")
    perpetual = bool(market.get("swap"))
    if not market.get("contract"):
        notices.note(f"{symbol} is spot: it has no mark price and no funding")
    prices = _bars(client, "fetchOHLCV", symbol, interval, low, high, notices)
    if prices is None:
        raise DataError(
            f"{venue.id} gives no bars of {symbol} from {instant_text(low)} to {instant_text(high)}; was it listed?"
        )
    mark, charges = None, None
    if market.get("contract"):
        mark = _bars(client, "fetchMarkOHLCV", symbol, interval, low, high, notices)
    if perpetual:
        charges = _charges(client, symbol, low, high, notices)
    return write_pieces(Request(name, interval, out, existing), [Piece(prices, mark)], charges, notices)


def _bars(
    client: ExchangeClient, what: str, symbol: str, interval: str, low: int, high: int, notices: Notices
) -> BarColumns | None:
    venue, step = client.venue, duration_ms(interval)
    label = "mark prices" if what == "fetchMarkOHLCV" else "bars"
    if not client.can(what):
        notices.warn(f"ccxt has no history of {label} of {venue.id}")
        return None
    limit = venue.feature_value(symbol, "fetchOHLCV", "mark" if what == "fetchMarkOHLCV" else "limit", None)
    page = limit if isinstance(limit, int) and limit > 0 else BARS_A_PAGE
    fetch = venue.fetch_mark_ohlcv if what == "fetchMarkOHLCV" else venue.fetch_ohlcv

    def ask(first: int, end: int) -> dict[int, tuple[float, ...]]:
        rows = client.ask(lambda: fetch(symbol, interval, first, page, {"until": end - 1}))
        return rows_by_time(f"{venue.id} {symbol} {label}", [(row[0], row[1:6]) for row in rows])

    found = collect_pages(
        ask, low, high, min(page * step, LONGEST_MS // step * step or step), step, f"{label} of {symbol}"
    )
    found = {ms: values for ms, values in found.items() if not np.isnan(values[:4]).all()}
    if not found:
        notices.warn(f"{venue.id} gives no {label} of {symbol} in this range")
        return None
    stamps = sorted(found)
    _say_span(f"{venue.id}: {label}", stamps[0], stamps[-1], low, high, step, notices)
    table = np.array([found[ms] for ms in stamps], np.float64)
    columns = {name: np.ascontiguousarray(table[:, k]) for k, name in enumerate(PRICES[: table.shape[1]])}
    if label == "mark prices" or ("volume" in columns and np.isnan(columns["volume"]).all()):
        columns.pop("volume", None)
    return BarColumns(np.array(stamps, np.int64), columns)


def _charges(client: ExchangeClient, symbol: str, low: int, high: int, notices: Notices) -> Charges | None:
    venue = client.venue
    if not client.can("fetchFundingRateHistory"):
        notices.warn(f"ccxt has no funding history of {venue.id}: no position will be charged")
        return None

    def ask(first: int, end: int) -> dict[int, tuple[float, ...]]:
        # OKX answers with the latest unless told by its own word where to end.
        params = {"until": end - 1, "after": end} if "okx" in venue.id else {"until": end - 1}
        rows = client.ask(lambda: venue.fetch_funding_rate_history(symbol, first, CHARGES_A_PAGE, params))
        pairs = [(row.get("timestamp"), [row.get("fundingRate")]) for row in rows]
        return rows_by_time(f"{venue.id} {symbol} funding", pairs)

    found = collect_pages(ask, low, high, CHARGES_A_PAGE * CHARGE_MS, CHARGE_GAP_MS, f"funding of {symbol}")
    if not found:
        notices.warn(f"{venue.id} gives no funding of {symbol} in this range: no position will be charged")
        return None
    stamps = sorted(found)
    _say_span(f"{venue.id}: funding", stamps[0], stamps[-1], low, high, CHARGE_MS, notices)
    rates = np.array([found[ms][0] for ms in stamps], np.float64)
    if np.isnan(rates).any():
        when = instant_text(stamps[int(np.argmax(np.isnan(rates)))])
        raise DataError(f"{venue.id} {symbol}: a funding rate must be a finite number; got null at {when}")
    return Charges(np.array(stamps, np.int64), rates)


def _say_span(what: str, first: int, last: int, low: int, high: int, step: int, notices: Notices) -> None:
    """Where an answer begins late or ends early."""
    if first - low > step:
        notices.warn(f"{what} from {instant_text(first)} on; asked for from {instant_text(low)}")
    if high - last > 2 * step:
        notices.warn(f"{what} up to {instant_text(last)}; asked for up to {instant_text(high)}")


def rows_by_time(where: str, rows: Sequence[tuple[object, Sequence[object]]]) -> dict[int, tuple[float, ...]]:
    """Values of an answer by their time; NaN where null."""
    found: dict[int, tuple[float, ...]] = {}
    for stamp, values in rows:
        if not isinstance(stamp, int | float) or stamp != int(stamp) or not 10**11 < stamp < 10**13:
            raise DataError(f"{where}: a time must be in milliseconds; got {stamp!r}")
        numbers = tuple(float(v) if isinstance(v, int | float | str) else float("nan") for v in values)
        if not np.array_equal(found.setdefault(int(stamp), numbers), numbers, equal_nan=True):
            when = instant_text(int(stamp))
            raise DataError(f"{where}: {when} is there twice, as {found[int(stamp)]} and {numbers}")
    return found


def collect_pages(
    ask: Callable[[int, int], dict[int, tuple[float, ...]]], low: int, high: int, window: int, gap: int, what: str
) -> dict[int, tuple[float, ...]]:
    """All rows of ``[low, high)``, however many come at a time and from whichever end.

    What an answer leaves open of its window, before its first and after its last row, is asked for again until that is
    empty or shorter than `gap`.
    """
    found: dict[int, tuple[float, ...]] = {}
    starts = range(low, high, window)
    with progress(what, len(starts)) as advance:
        for start in starts:
            open_ = [(start, min(start + window, high))]
            while open_:
                first, end = open_.pop()
                rows = ask(first, end)
                found.update((ms, values) for ms, values in rows.items() if low <= ms < high)
                inside = [ms for ms in rows if first <= ms < end]
                if inside:
                    open_ += [(a, b) for a, b in ((first, min(inside)), (max(inside) + gap, end)) if b - a >= gap]
            advance(1)
    return found


# --- tiers ------------------------------------------------------------------------------------------------------------


def _tiers(
    client: ExchangeClient, market: Market, out: Path, contract_size: float | None, existing: Existing
) -> ImportedTiers:
    venue, symbol = client.venue, str(market["symbol"])
    instead = "leave --tiers out; `backtest import tiers` takes the exchange's own answer"
    if not client.can("fetchMarketLeverageTiers") and not client.can("fetchLeverageTiers"):
        raise ConfigError(f"ccxt has no leverage tiers of {venue.id}; {instead}")
    try:
        if venue.has.get("fetchMarketLeverageTiers") is True:  # not "emulated", which asks for all
            entries = client.ask(lambda: venue.fetch_market_leverage_tiers(symbol))
        else:
            entries = client.ask(lambda: venue.fetch_leverage_tiers([symbol])).get(symbol, ())
    except DataError as error:
        raise DataError(f"leverage tiers: {error}; {instead}") from None
    if not entries:
        raise DataError(f"{venue.id} gives no leverage tiers of {symbol}; {instead}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, f"{_name(market)}.json")
        source.write_text(json.dumps({symbol: entries}), encoding="utf-8")
        return import_tiers([source], out, symbol=symbol, contract_size=contract_size, existing=existing)
