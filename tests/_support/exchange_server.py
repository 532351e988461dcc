"""Three exchanges' public APIs in small, served on loopback: answers shaped and paged as theirs, prices made up."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HOUR = 3_600_000
LISTED = 1_609_459_200_000  # 2021-01-01T00:00Z
NOW = 1_615_354_200_000  # 2021-03-10T05:30Z: the bar of 05:00 is not finished
Query = dict[str, str]
Answer = Callable[[Query], object]


def price(ms: int) -> float:
    """Close of the hour that begins then."""
    hours = ms // HOUR
    return round(30_000 + 500 * math.sin(hours / 7) + 90 * math.sin(hours * 2.3), 1)


def rate(ms: int) -> float:
    """Funding charged then."""
    return round(1e-4 + ms // (8 * HOUR) % 50 * 1e-6, 8)


def candle(ms: int, shift: float = 0.0) -> list[str]:
    """Open, high, low, close."""
    before, close = price(ms - HOUR) + shift, price(ms) + shift
    return [f"{value:.1f}" for value in (before, max(before, close) + 10, min(before, close) - 10, close)]


def hours(low: int, high: int) -> list[int]:
    """Bars there are from `low` to `high`, both included."""
    first, last = max(LISTED, -(-low // HOUR) * HOUR), min(NOW, high)
    return list(range(first, last + 1, HOUR))


def charged(low: int, high: int, jitter: int = 0) -> list[int]:
    """Stamps of charges from `low` to `high`, both included."""
    every = range(LISTED, min(NOW, high) + 1, 8 * HOUR)
    return [ms + jitter for ms in every if low <= ms + jitter <= high]


class Exchange:
    """Routes, the requests there were, and what goes wrong with the next ones."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {**binance(), **bybit(), **okx()}
        self.requests: list[tuple[str, Query]] = []
        self.failures: dict[str, list[tuple[int, object, dict[str, str]]]] = {}
        self.url = ""

    def asked(self) -> Counter[str]:
        return Counter(path for path, _ in self.requests)


# --- Binance: ascending from startTime --------------------------------------------------------------------------------


def binance() -> dict[str, Answer]:
    def symbol(name: str, base: str) -> object:
        return {
            "symbol": name, "pair": name, "contractType": "PERPETUAL", "deliveryDate": 4133404800000,
            "onboardDate": LISTED, "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT",
            "marginAsset": "USDT", "pricePrecision": 2, "quantityPrecision": 3, "baseAssetPrecision": 8,
            "quotePrecision": 8, "underlyingType": "COIN",
            "filters": [{"filterType": "PRICE_FILTER", "minPrice": "0.10", "maxPrice": "1000000", "tickSize": "0.10"}],
        }  # fmt: skip

    def klines(query: Query, shift: float = 0.0) -> object:
        found = hours(int(query["startTime"]), int(query["endTime"]))[: int(query["limit"])]
        extra = lambda ms: ["12.5" if not shift else "0", ms + HOUR - 1, "375000.0", 7, "6.1", "180000.0", "0"]  # noqa: E731
        return [[ms, *candle(ms, shift), *extra(ms)] for ms in found]

    def funding(query: Query) -> object:
        found = charged(int(query["startTime"]), int(query["endTime"]), jitter=3)[: int(query["limit"])]
        return [
            {"symbol": query["symbol"], "fundingTime": ms, "fundingRate": f"{rate(ms):.8f}", "markPrice": "30000.0"}
            for ms in found
        ]

    root = "/fapi/v1/"
    return {
        root + "exchangeInfo": lambda _: {"symbols": [symbol("BTCUSDT", "BTC"), symbol("ETHUSDT", "ETH")]},
        root + "time": lambda _: {"serverTime": NOW},
        root + "klines": klines,
        root + "markPriceKlines": lambda query: klines(query, 1.5),
        root + "fundingRate": funding,
    }


# --- Bybit: the newest first, text throughout -------------------------------------------------------------------------


def bybit() -> dict[str, Answer]:
    def enveloped(listed: object, **more: object) -> object:
        return {"retCode": 0, "retMsg": "OK", "result": {"list": listed, **more}, "retExtInfo": {}, "time": NOW}

    def instruments(query: Query) -> object:
        if query.get("category") != "linear" or query.get("status") == "PreLaunch":
            return enveloped([], category=query["category"], nextPageCursor="")
        one = {
            "symbol": "BTCUSDT", "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC",
            "quoteCoin": "USDT", "settleCoin": "USDT", "launchTime": str(LISTED), "deliveryTime": "0",
            "deliveryFeeRate": "", "priceScale": "2", "fundingInterval": 480,
            "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
            "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
            "lotSizeFilter": {"maxOrderQty": "1190", "minOrderQty": "0.001", "qtyStep": "0.001"},
        }  # fmt: skip
        return enveloped([one], category="linear", nextPageCursor="")

    def klines(query: Query, shift: float = 0.0) -> object:
        found = hours(int(query["start"]), int(query["end"]))[-int(query["limit"]) :]
        return enveloped(
            [[str(ms), *candle(ms, shift), *([] if shift else ["12.5", "375000"])] for ms in reversed(found)]
        )

    def funding(query: Query) -> object:
        found = charged(int(query["startTime"]), int(query["endTime"]))[-int(query["limit"]) :]
        return enveloped(
            [
                {"symbol": "BTCUSDT", "fundingRate": f"{rate(ms):.8f}", "fundingRateTimestamp": str(ms)}
                for ms in reversed(found)
            ]
        )

    def limit(number: int, value: str, maintenance: str, leverage: str, deduction: str) -> object:
        return {
            "id": number, "symbol": "BTCUSDT", "riskLimitValue": value, "maintenanceMargin": maintenance,
            "initialMargin": str(1 / float(leverage)), "isLowestRisk": int(number == 1), "maxLeverage": leverage,
            "mmDeduction": deduction,
        }  # fmt: skip

    tiers = [limit(1, "2000000", "0.005", "100.00", ""), limit(2, "10000000", "0.01", "50.00", "10000")]
    root = "/v5/market/"
    return {
        root + "instruments-info": instruments,
        root + "time": lambda _: {"retCode": 0, "result": {"timeSecond": str(NOW // 1000)}, "time": NOW},
        root + "kline": klines,
        root + "mark-price-kline": lambda query: klines(query, 1.5),
        root + "funding/history": funding,
        root + "risk-limit": lambda _: enveloped(tiers, category="linear"),
    }


# --- OKX: the newest first, between `before` and `after`, neither included --------------------------------------------


def okx() -> dict[str, Answer]:
    def enveloped(data: object) -> object:
        return {"code": "0", "msg": "", "data": data}

    def instruments(query: Query) -> object:
        if query["instType"] != "SWAP":
            return enveloped([])
        one = {
            "instId": "BTC-USDT-SWAP", "instType": "SWAP", "uly": "BTC-USDT", "instFamily": "BTC-USDT",
            "baseCcy": "", "quoteCcy": "", "settleCcy": "USDT", "ctType": "linear", "ctVal": "0.01", "ctMult": "1",
            "ctValCcy": "BTC", "lever": "100", "lotSz": "1", "minSz": "1", "tickSz": "0.1", "state": "live",
            "listTime": str(LISTED), "expTime": "", "optType": "", "stk": "", "alias": "", "category": "1",
        }  # fmt: skip
        return enveloped([one])

    def candles(query: Query, shift: float = 0.0) -> object:
        most = 100 if shift else 300
        found = hours(int(query["before"]) + 1, int(query["after"]) - 1)[-min(int(query["limit"]), most) :]
        volume = [] if shift else ["1250", "12.5", "375000"]
        return enveloped([[str(ms), *candle(ms, shift), *volume, "1"] for ms in reversed(found)])

    def funding(query: Query) -> object:
        found = charged(int(query["before"]) + 1, int(query.get("after", NOW + 1)) - 1)[-int(query["limit"]) :]
        return enveloped(
            [
                {
                    "instId": "BTC-USDT-SWAP", "instType": "SWAP", "fundingTime": str(ms),
                    "fundingRate": "0.9", "realizedRate": f"{rate(ms):.8f}", "method": "next_period",
                }
                for ms in reversed(found)
            ]
        )  # fmt: skip

    def tier(number: int, low: str, high: str, mmr: str, leverage: str) -> object:
        return {
            "tier": str(number), "instFamily": "BTC-USDT", "uly": "BTC-USDT", "instId": "", "minSz": low,
            "maxSz": high, "mmr": mmr, "imr": str(1 / float(leverage)), "maxLever": leverage, "baseMaxLoan": "",
            "quoteMaxLoan": "", "optMgnFactor": "0",
        }  # fmt: skip

    tiers = [tier(1, "0", "1000", "0.004", "100"), tier(2, "1001", "5000", "0.005", "75")]
    root = "/api/v5/"
    return {
        root + "public/instruments": instruments,
        root + "public/time": lambda _: enveloped([{"ts": str(NOW)}]),
        root + "market/history-candles": candles,
        root + "market/history-mark-price-candles": lambda query: candles(query, 1.5),
        root + "public/funding-rate-history": funding,
        root + "public/position-tiers": lambda _: enveloped(tiers),
    }


# --- the server -------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    exchange: Exchange

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.exchange.requests.append((parts.path, query))
        failures = self.exchange.failures.get(parts.path)
        answer = self.exchange.routes.get(parts.path)
        if failures:
            status, document, headers = failures.pop(0)
        elif answer is None:
            status, document, headers = 404, {"code": -1, "msg": "no such path"}, {}
        else:
            status, document, headers = 200, answer(query), {}
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(exchange: Exchange) -> Iterator[Exchange]:
    """Serve on a free port of loopback."""
    handler = type("Bound", (Handler,), {"exchange": exchange})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    exchange.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield exchange
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
