"""The public archives in small, served on loopback: real layout, made-up prices, and faults where wanted."""

from __future__ import annotations

import hashlib
import io
import math
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOUR = 3_600_000
DAY = timedelta(days=1)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
CHECKSUM = ".CHECKSUM"

Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


class Archives:
    """Files by their path, the requests there were, and the faults of the next ones."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[str] = []
        self.at_a_time = 0
        self.most_at_a_time = 0
        self.delay_s = 0.0
        self.url = ""
        self.guard = threading.Lock()

    def asked(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(self.requests)

    def put(self, path: str, content: bytes) -> str:
        """A file and its checksum."""
        name = path.rpartition("/")[2]
        self.files[path] = content
        self.files[path + CHECKSUM] = f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()
        return path

    def remove(self, path: str) -> None:
        del self.files[path], self.files[path + CHECKSUM]

    def bars(self, symbol: str, period: str, kind: str = "klines", *, market: str = "um", interval: str = "1h") -> str:
        """An archive of a month (``2021-05``) or day (``2021-05-03``)."""
        grain = "monthly" if len(period) == 7 else "daily"
        name = f"{symbol}-{interval}-{period}"
        path = f"data/futures/{market}/{grain}/{kind}/{symbol}/{interval}/{name}.zip"
        return self.put(path, zipped(f"{name}.csv", bars_csv(period, mark=kind != "klines")))

    def funding(self, symbol: str, month: str, market: str = "um") -> str:
        name = f"{symbol}-fundingRate-{month}"
        path = f"data/futures/{market}/monthly/fundingRate/{symbol}/{name}.zip"
        return self.put(path, zipped(f"{name}.csv", funding_csv(month)))

    def month(self, symbol: str, month: str, market: str = "um") -> list[str]:
        """All three of a month."""
        kinds = [self.bars(symbol, month, kind, market=market) for kind in ("klines", "markPriceKlines")]
        return [*kinds, self.funding(symbol, month, market)]


def days_of(period: str) -> list[date]:
    """Days of a month or the one day."""
    first = date.fromisoformat(period if len(period) == 10 else f"{period}-01")
    if len(period) == 10:
        return [first]
    return [day for k in range(31) if (day := first + k * DAY).month == first.month]


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def price(ms: int) -> float:
    """Close of the hour that begins then: moves every hour, the same wherever it is asked for."""
    hours = ms // HOUR
    return round(30_000 + 500 * math.sin(hours / 7) + 90 * math.sin(hours * 2.3), 2)


def bars_csv(period: str, *, mark: bool = False) -> str:
    lines = [HEADER]
    for day in days_of(period):
        for opened in range(_ms(day), _ms(day) + 24 * HOUR, HOUR):
            shift = 1.5 if mark else 0.0
            before, close = price(opened - HOUR) + shift, price(opened) + shift
            high, low = max(before, close) + 10, min(before, close) - 10
            volume = 0 if mark else 100 + opened // HOUR % 13
            quote = 0 if mark else volume * close
            lines.append(
                f"{opened},{before:.2f},{high:.2f},{low:.2f},{close:.2f},{volume},{opened + HOUR - 1},{quote:.2f},"
                f"12,{volume / 2},{quote / 2:.2f},0"
            )
    return "\n".join(lines) + "\n"


def funding_csv(month: str) -> str:
    lines = ["calc_time,funding_interval_hours,last_funding_rate"]
    for day in days_of(month):
        lines += [f"{_ms(day) + h * HOUR + 1},8,{1e-4 + h * 1e-6 + day.day * 1e-7:.8f}" for h in (0, 8, 16)]
    return "\n".join(lines) + "\n"


def zipped(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name, (2021, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


# --- faults -----------------------------------------------------------------------------------------------------------


def answers(status: int, headers: dict[str, str] | None = None) -> Fault:
    """Another status than 200."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def sends(other: bytes) -> Fault:
    """Other bytes, in good order."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        respond(handler, other)

    return fault


def drops(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """The connection ends in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True


def hangs_up(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """No answer at all."""
    handler.close_connection = True


def stalls(seconds: float) -> Fault:
    """Half of the body, and then nothing for a while."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def trickles(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for k in range(250):
        handler.wfile.write(content[k : k + 1])
        handler.wfile.flush()
        time.sleep(0.02)
    handler.close_connection = True


def endless(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A body without a length that goes on."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(64):
        handler.wfile.write(bytes(65536))
    handler.close_connection = True


def respond(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


# --- the server -------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    archives: Archives

    def do_GET(self) -> None:
        archives, path = self.archives, self.path.lstrip("/")
        with archives.guard:
            archives.requests.append(path)
            archives.at_a_time += 1
            archives.most_at_a_time = max(archives.most_at_a_time, archives.at_a_time)
            faults = archives.faults.get(path)
            fault = faults.pop(0) if faults else None
        time.sleep(archives.delay_s)
        with archives.guard:  # before the answer, whose reader may ask again at once
            archives.at_a_time -= 1
        try:
            content = archives.files.get(path)
            if fault is not None:
                fault(self, content or b"")
            elif content is None:
                answers(404)(self, b"")
            else:
                respond(self, content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(archives: Archives) -> Iterator[Archives]:
    """Serve on a free port of loopback."""
    handler = type("Bound", (Handler,), {"archives": archives})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    archives.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield archives
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
