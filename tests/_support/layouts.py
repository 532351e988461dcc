"""The small market in the files of every source."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq

from backtest.ingest.binance.importer import import_binance
from backtest.ingest.formats import bybit, ccxt, hyperliquid, okx
from backtest.ingest.formats.freqtrade import import_freqtrade
from backtest.ingest.formats.generic import import_generic
from backtest.ingest.formats.tardis import import_tardis
from backtest.ingest.importer import import_files
from backtest.ingest.merge import Imported
from backtest.ingest.options import BarFiles, Request
from tests._support.market import (
    BARS,
    HOUR,
    OHLC,
    T0,
    Doc,
    Market,
    Save,
    arrow,
    bar_rows,
    csv_gz,
    csv_text,
    json_rows,
    number,
    rate_rows,
    three,
    zipped,
)

# --- sources ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """A source: its files, the import of a folder that holds them, and what of the market they hold."""

    name: str
    docs: Callable[[Market], list[Doc]]
    load: Callable[[Path, Path], Imported]
    mark: bool = True
    volume: bool = True
    first_charge: int = 0
    """Ticks tell nothing of a charge before the first of them."""

    def truth(self, market: Market) -> dict[str, np.ndarray]:
        """Columns that the dataset must have."""
        return market.columns(self.mark, self.volume, self.first_charge)

    def write(self, folder: Path, docs: Sequence[Doc]) -> None:
        for doc in docs:
            (folder / doc.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / doc.name).write_bytes(doc.save(doc))


def paths(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names]


NAMES = ("time", "open", "high", "low", "close", "volume")


def generic_csv(market: Market) -> list[Doc]:
    heads = (("open_time", *NAMES[1:]), ("open_time", *NAMES[1:]), ("calc_time", "last_funding_rate"))
    return three(market, ("p.csv", "m.csv", "f.csv"), (csv_text,) * 3, heads)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _from_iso(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp() * 1000)


def generic_naive(market: Market) -> list[Doc]:
    """Times without an offset in the prices; the mark prices tell the zone."""
    docs = generic_csv(market)
    rows = bar_rows(market, False, _iso)
    docs[0] = Doc("p.csv", "prices", rows, dict(BARS), csv_text, ["Date", *NAMES[1:]], _iso, _from_iso)
    return docs


def generic_parquet(market: Market) -> list[Doc]:
    def write(table: pa.Table, buffer: io.BytesIO) -> None:
        pq.write_table(table, buffer, write_page_checksum=True)

    heads = (("timestamp", *NAMES[1:]), ("timestamp", *NAMES[1:]), ("timestamp", "funding_rate"))
    return three(market, ("p.parquet", "m.parquet", "f.parquet"), (arrow(write),) * 3, heads)


def load_generic(suffix: str) -> Callable[[Path, Path], Imported]:
    def load(folder: Path, out: Path) -> Imported:
        return import_generic("BTCUSDT", "1h", *paths(folder, f"p.{suffix}", f"m.{suffix}", f"f.{suffix}"), out=out)

    return load


def _mt4(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000 + 3 * 3600, UTC).strftime("%Y.%m.%d %H:%M")


def _from_mt4(text: str) -> int:
    return int(datetime.strptime(text, "%Y.%m.%d %H:%M").replace(tzinfo=UTC).timestamp() * 1000) - 3 * HOUR


BYBIT = '{"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSDT","category":"linear","list":%s}}'


def bybit_rest(market: Market) -> list[Doc]:
    bars = json_rows(texts=range(7), envelope=BYBIT, newest_first=True)
    rates = json_rows(
        ("symbol", "fundingRate", "fundingRateTimestamp"), range(3), BYBIT.replace('"symbol":"BTCUSDT",', ""), True
    )
    docs = three(market, ("kline.json", "mark.json", "funding.json"), (bars, bars, rates))
    docs[0].rows = [[*row, number(quote)] for row, quote in zip(docs[0].rows, market.quote, strict=True)]
    docs[1].rows = [row[:5] for row in docs[1].rows]
    docs[1].roles.pop("volume")
    docs[2].rows = [["BTCUSDT", rate, stamp] for stamp, rate in docs[2].rows]
    docs[2].roles = {"time": 2, "rate": 1}
    return docs


def bybit_mt4(market: Market) -> list[Doc]:
    docs = bybit_rest(market)
    rows = bar_rows(market, False, _mt4)
    name = "BTCUSDT_60_2024-01-01_2024-01-31.csv.gz"
    docs[0] = Doc(name, "prices", rows, dict(BARS), csv_gz, [], _mt4, _from_mt4)
    return docs


def load_bybit(prices: str) -> Callable[[Path, Path], Imported]:
    def load(folder: Path, out: Path) -> Imported:
        files = paths(folder, prices, "mark.json", "funding.json")
        return import_files(bybit.FORMAT, Request("BTCUSDT", "1h", out), BarFiles(*files))

    return load


OKX = '{"code":"0","msg":"","data":%s}'
SWAP = "BTC-USDT-SWAP"


def okx_rest(market: Market) -> list[Doc]:
    bars = json_rows(texts=range(9), envelope=OKX, newest_first=True)
    rates = json_rows(("instId", "fundingRate", "realizedRate", "fundingTime"), range(4), OKX, True)
    docs = three(market, ("candles.json", "mark.json", "funding.json"), (bars, bars, rates))
    docs[0].rows = [
        [*row[:5], number(1000 * float(row[5])), row[5], number(quote), "1"]
        for row, quote in zip(docs[0].rows, market.quote, strict=True)
    ]
    docs[0].roles["volume"] = 6
    docs[1].rows = [[*row[:5], "1"] for row in docs[1].rows]
    docs[1].roles.pop("volume")
    docs[2].rows = [[SWAP, "0.0009", rate, stamp] for stamp, rate in docs[2].rows]
    docs[2].roles = {"time": 3, "rate": 2}
    return docs


OKX_FUNDING = [
    "instrument_name/交易币对名", "contract_type/合约类型", "funding_rate/预测下一周期费率",
    "real_funding_rate/本周期真实费率", "funding_time/下一周期时间戳",
]  # fmt: skip


def okx_archive(market: Market) -> list[Doc]:
    docs = okx_rest(market)
    candles = [[SWAP, *row[1:5], row[5], row[6], row[7], row[0], "1"] for row in docs[0].rows]
    header = ["instrument_name", *OHLC, "vol", "vol_ccy", "vol_quote", "open_time", "confirm"]
    roles = {"time": 8, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 6}
    docs[0] = Doc("BTC-USDT-SWAP-candlesticks-2024-01.zip", "prices", candles, roles, zipped(), header)
    rates = [[SWAP, "SWAP", "0.0009", row[2], row[3]] for row in docs[2].rows]
    others = [["ETH-USDT-SWAP", "SWAP", "0.0009", "0.0007", row[3]] for row in docs[2].rows]
    docs[2] = Doc(
        "allswaprate-swaprate-2024-01-01.zip", "funding", rates + others, {"time": 4, "rate": 3}, zipped("gbk"),
        OKX_FUNDING,
    )  # fmt: skip
    return docs


def load_okx(prices: str, funding: str) -> Callable[[Path, Path], Imported]:
    def load(folder: Path, out: Path) -> Imported:
        files = paths(folder, prices, "mark.json", funding)
        return import_files(okx.FORMAT, Request("BTCUSDT", "1h", out), BarFiles(*files))

    return load


def hyperliquid_docs(market: Market) -> list[Doc]:
    keys = ("t", "T", "s", "i", "o", "c", "h", "l", "v", "n")
    rows = [
        [str(t), str(t + HOUR - 1), "BTC", "1h", *(number(market.last[k, bar]) for k in (0, 3, 1, 2)),
         number(market.volume[bar]), "7"]
        for bar, t in enumerate(market.stamps)
    ]  # fmt: skip
    roles = {"time": 0, "open": 4, "close": 5, "high": 6, "low": 7, "volume": 8}
    prices = Doc("candles.json", "prices", rows, roles, json_rows(keys, range(2, 9)))
    charged = [["BTC", rate, "0.0001", str(int(stamp) + 37)] for stamp, rate in rate_rows(market)]
    funding = Doc(
        "funding.json", "funding", charged, {"time": 3, "rate": 1},
        json_rows(("coin", "fundingRate", "premium", "time"), range(3)),
    )  # fmt: skip
    return [prices, funding]


def load_hyperliquid(folder: Path, out: Path) -> Imported:
    files = (folder / "candles.json", None, folder / "funding.json")
    return import_files(hyperliquid.FORMAT, Request("BTC", "1h", out), BarFiles(*files))


FREQTRADE = ("date", *NAMES[1:])


def freqtrade_docs(suffix: str, save: Save, clock: str = "ms") -> Callable[[Market], list[Doc]]:
    def docs(market: Market) -> list[Doc]:
        names = [f"futures/BTC_USDT_USDT-{kind}.{suffix}" for kind in ("1h-futures", "1h-mark", "8h-funding_rate")]
        found = three(market, names, (save,) * 3, (FREQTRADE,) * 3)
        found[2].rows = [[*row, "0", "0", "0", "0"] for row in found[2].rows]
        return found

    return docs


def _feather(table: pa.Table, buffer: io.BytesIO) -> None:
    pf.write_feather(table, buffer, compression="lz4")


def load_freqtrade(folder: Path, out: Path) -> Imported:
    return import_freqtrade(folder, "BTC/USDT:USDT", "1h", out=out)


def ccxt_docs(market: Market) -> list[Doc]:
    rates = json_rows(("symbol", "fundingRate", "timestamp", "datetime"), (0, 3))
    docs = three(market, ("ohlcv.json", "mark.json", "funding.json"), (json_rows(), json_rows(), rates))
    docs[2].rows = [
        ["BTC/USDT:USDT", rate, stamp, _iso(int(stamp)).replace(" ", "T") + ".000Z"] for stamp, rate in docs[2].rows
    ]
    docs[2].roles = {"time": 2, "rate": 1}
    return docs


def load_ccxt(folder: Path, out: Path) -> Imported:
    files = paths(folder, "ohlcv.json", "mark.json", "funding.json")
    return import_files(ccxt.FORMAT, Request("BTCUSDT", "1h", out), BarFiles(*files))


TARDIS = [
    "exchange", "symbol", "timestamp", "local_timestamp", "funding_timestamp", "funding_rate",
    "predicted_funding_rate", "open_interest", "last_price", "index_price", "mark_price",
]  # fmt: skip


def tardis_docs(market: Market) -> list[Doc]:
    """Four ticks per bar: at its open, high, low and close; the funding announced until it falls."""
    rows = []
    rates = dict(zip(market.charges.tolist(), market.rates.tolist(), strict=True))
    for bar, stamp in enumerate(market.stamps):
        due = (bar // 8 + 1) * 8
        funding = [str((T0 + HOUR * due) * 1000), f"{rates[due]:.8f}"] if due in rates else ["", ""]
        for tick in range(4):
            us = (stamp + tick * 1_199_999) * 1000 + 250
            prices = number(market.last[tick, bar]), number(market.last[tick, bar]), number(market.mark[tick, bar])
            rows.append(["binance-futures", "BTCUSDT", str(us), str(us + 99_000), *funding, "", "5000.5", *prices])
    roles = {"time": 2, "rate": 5, "tick": 8, "mark tick": 10}
    return [
        Doc("2024-01-01_BTCUSDT.csv.gz", "prices", rows, roles, csv_gz, TARDIS, lambda ms: str(ms * 1000 + 250),
            lambda text: int(text) // 1000)
    ]  # fmt: skip


def load_tardis(folder: Path, out: Path) -> Imported:
    return import_tardis(Request("BTCUSDT", "1h", out), folder)


BINANCE = ["open_time", *NAMES[1:], "close_time", "quote_volume", "count", "taker_buy_volume",
           "taker_buy_quote_volume", "ignore"]  # fmt: skip


def binance_docs(market: Market, suffix: str = "zip") -> list[Doc]:
    names = [
        f"{kind}/BTCUSDT-{what}-2024-01.{suffix}"
        for kind, what in (("klines", "1h"), ("markPriceKlines", "1h"), ("fundingRate", "fundingRate"))
    ]

    def save(doc: Doc) -> bytes:
        return csv_text(doc) if suffix == "csv" else zipped()(replace(doc, name=Path(doc.name).name))

    docs = three(
        market, names, (save,) * 3, (BINANCE, BINANCE, ["calc_time", "funding_interval_hours", "last_funding_rate"])
    )
    for doc, quotes in ((docs[0], market.quote), (docs[1], np.zeros(len(market.stamps)))):
        doc.rows = [
            [*row, str(int(row[0]) + HOUR - 1), number(quote), "9", "1", number(min(quote, 30000.0)), "0"]
            for row, quote in zip(doc.rows, quotes, strict=True)
        ]
    docs[2].rows = [[stamp, "8", rate] for stamp, rate in docs[2].rows]
    docs[2].roles = {"time": 0, "rate": 2}
    return docs


def load_binance(folder: Path, out: Path) -> Imported:
    return import_binance(folder, out, show_progress=False)[0]


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("generic-csv", generic_csv, load_generic("csv")),
        Layout("generic-naive", generic_naive, load_generic("csv")),
        Layout("generic-parquet", generic_parquet, load_generic("parquet")),
        Layout("bybit-mt4", bybit_mt4, load_bybit("BTCUSDT_60_2024-01-01_2024-01-31.csv.gz")),
        Layout("bybit-rest", bybit_rest, load_bybit("kline.json")),
        Layout("okx-rest", okx_rest, load_okx("candles.json", "funding.json")),
        Layout(
            "okx-archive", okx_archive,
            load_okx("BTC-USDT-SWAP-candlesticks-2024-01.zip", "allswaprate-swaprate-2024-01-01.zip"),
        ),
        Layout("hyperliquid", hyperliquid_docs, load_hyperliquid, mark=False),
        Layout("freqtrade-feather", freqtrade_docs("feather", arrow(_feather)), load_freqtrade),
        Layout("freqtrade-json", freqtrade_docs("json.gz", json_rows()), load_freqtrade),
        Layout("ccxt", ccxt_docs, load_ccxt),
        Layout("tardis", tardis_docs, load_tardis, volume=False, first_charge=1),
        Layout("binance", binance_docs, load_binance),
        Layout("binance-csv", lambda market: binance_docs(market, "csv"), load_binance),
    )
}  # fmt: skip
