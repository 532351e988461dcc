"""How fast is an import against pyarrow's CSV reader, and `check` against reading?

Run: ``python -m benchmarks.speed.ingest [--months 60] [--bars 5000000]``. Most of the time is spent to make the
archives: zips of 1-minute klines and mark prices, one of each a month, and funding. pyarrow reads the same CSVs, not
zipped, one after the other, every column, with its default threads; the import unzips, reads, checks and writes. A
third row unzips with zipfile and reads with pyarrow.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from backtest.data.dataset import read_history, write_history
from backtest.data.history import PriceHistory
from backtest.data.quality.check import check
from backtest.data.synthetic import demo_history
from backtest.ingest.binance.importer import import_binance
from backtest.ingest.binance.rows import BARS
from benchmarks.common import MIB, MINUTE_MS, backtest_command, in_turn

SYMBOL = "DEMOUSDT"
SLOWEST, MOST_MIB, SLOWEST_CHECK = 1.5, 500, 3.0
"""Wanted: import over pyarrow, its peak memory, check over reading."""


def klines(history: PriceHistory, prefix: str) -> dict[str, pa.Array]:
    """Columns of the archives; volumes are drawn for last prices and 0 for mark prices."""
    n, rng = history.n_bars, np.random.default_rng(1)
    opens = history.start_ms + MINUTE_MS * np.arange(n)
    prices = {name: history.columns[prefix + name] for name in ("open", "high", "low", "close")}
    volume = np.round(rng.gamma(2.0, 50.0, n), 3)
    quote = np.round(volume * prices["close"], 5)
    zero = np.zeros(n, np.int64)
    columns = {
        "open_time": opens,
        **prices,
        "volume": volume,
        "close_time": opens + MINUTE_MS - 1,
        "quote_volume": quote,
    }
    columns |= {"count": rng.integers(100, 4000, n), "taker_buy_volume": np.round(volume / 2, 3)}
    columns |= {"taker_buy_quote_volume": np.round(quote / 2, 5), "ignore": zero}
    if prefix:
        off = 1 + 1e-6 * rng.random(n)  # mark prices lie on no tick: eight decimals
        columns |= {name: np.round(values * off, 8) for name, values in prices.items()}
        columns |= dict.fromkeys(("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"), zero)
        columns["count"] = np.full(n, 60)
    return {name: columns[name] for name in BARS}


def archives(history: PriceHistory, folder: Path, plain: Path) -> None:
    """Write zips as data.binance.vision has them, and the CSVs in them."""
    months = (history.start_ms + MINUTE_MS * np.arange(history.n_bars)).astype("datetime64[ms]").astype("datetime64[M]")
    for prefix, kind in (("", "klines"), ("mark_", "markPriceKlines")):
        target = folder / "data/futures/um/monthly" / kind / SYMBOL / "1m"
        target.mkdir(parents=True)
        (plain / kind).mkdir(parents=True)
        columns, there = klines(history, prefix), ~np.isnan(history.columns[prefix + "close"])
        for number, month in enumerate(np.unique(months)):
            rows = there & (months == month)
            file = plain / kind / f"{SYMBOL}-1m-{month}.csv"
            table = pa.table({name: values[rows] for name, values in columns.items()})
            with file.open("wb") as opened:
                opened.write((",".join(BARS) + "\n").encode() * (number >= 28))  # from about 2022-05 on
                pcsv.write_csv(table, opened, pcsv.WriteOptions(include_header=False))
            with zipfile.ZipFile(target / f"{file.stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(file, file.name)
    funding(history, folder / "data/futures/um/monthly/fundingRate" / SYMBOL)


def funding(history: PriceHistory, target: Path) -> None:
    """Every eight hours, stamped some milliseconds late."""
    target.mkdir(parents=True)
    bars = np.flatnonzero(~np.isnan(history.columns["funding_rate"]))
    stamps = history.start_ms + MINUTE_MS * bars
    months = stamps.astype("datetime64[ms]").astype("datetime64[M]")
    for month in np.unique(months):
        own = months == month
        rows = zip(stamps[own] + bars[own] % 7, history.columns["funding_rate"][bars[own]], strict=True)
        text = "".join(f"{stamp},8,{rate:.8f}\n" for stamp, rate in rows)
        with zipfile.ZipFile(target / f"{SYMBOL}-fundingRate-{month}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(
                f"{SYMBOL}-fundingRate-{month}.csv", "calc_time,funding_interval_hours,last_funding_rate\n" + text
            )


def read_plain(files: list[Path]) -> None:
    """What an import is compared with."""
    for file in files:
        with file.open("rb") as opened:
            header = opened.read(1) == b"o"
        pcsv.read_csv(file, pcsv.ReadOptions(column_names=None if header else BARS))


def unzip_and_read(files: list[Path]) -> None:
    """Each zip unzipped in memory, and read."""
    for file in files:
        with zipfile.ZipFile(file) as archive:
            content = archive.read(f"{file.stem}.csv")
        pcsv.read_csv(pa.BufferReader(content), pcsv.ReadOptions(column_names=None if content[:1] == b"o" else BARS))


def measure_import(months: int, folder: Path) -> None:
    """Print the ratio and the peak."""
    archives(demo_history(years=months / 12), folder, folder / "plain")
    files, zips = sorted((folder / "plain").rglob("*.csv")), sorted(folder.rglob("*-1m-*.zip"))
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    source, out = folder / "data", folder / "out"
    peak = backtest_command("import", "binance", source, "--out", out).peak_bytes / MIB

    def take() -> None:
        shutil.rmtree(out, ignore_errors=True)
        import_binance(source, out, show_progress=False)

    ours, theirs, both = in_turn(take, lambda: read_plain(files), lambda: unzip_and_read(zips))
    print(f"{months} months of 1-minute klines and mark prices, {megabytes:,.0f} MB of CSV in {len(files)} zips")
    print(f"pyarrow's CSV reader   {theirs:6.2f} s   {megabytes / theirs:6,.0f} MB/s")
    print(f"zipfile and the reader {both:6.2f} s   {megabytes / both:6,.0f} MB/s")
    print(f"backtest import        {ours:6.2f} s   {megabytes / ours:6,.0f} MB/s")
    print(f"ratio {ours / theirs:.2f}, wanted ≤ {SLOWEST}: {'yes' if ours <= SLOWEST * theirs else 'NO'}")
    print(f"peak memory {peak:,.0f} MiB, wanted ≤ {MOST_MIB}: {'yes' if peak <= MOST_MIB else 'NO'}")


def measure_check(bars: int, folder: Path) -> None:
    """Print how much longer a check takes than reading."""
    history = demo_history(years=(bars + 1) / (365.25 * 1440))
    write_history(history, folder / "checked")
    check_s, read_s = in_turn(lambda: check(folder / "checked"), lambda: read_history(folder / "checked"))
    verdict = "yes" if check_s <= SLOWEST_CHECK * read_s else "NO"
    print(f"{history.n_bars:,} bars: reading {read_s:.2f} s, check {check_s:.2f} s")
    print(f"ratio {check_s / read_s:.2f}, wanted ≤ {SLOWEST_CHECK:g}: {verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=60)
    parser.add_argument("--bars", type=int, default=5_000_000)
    arguments = parser.parse_args()
    for measure, size in ((measure_import, arguments.months), (measure_check, arguments.bars)):
        with tempfile.TemporaryDirectory() as folder:
            measure(size, Path(folder))


if __name__ == "__main__":
    main()
