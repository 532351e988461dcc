"""Make the packaged tier tables of Binance USD-M from what public repositories recorded of them.

Run: ``python tools/package_tiers.py FOLDER``, where FOLDER holds ``binance_um_tier_history.parquet`` (columns
snapshot, repo, commit, symbol, tier, min_notional, max_notional, mmr, max_leverage, maint_amount: a table per symbol
and snapshot that differs from the one before) and ``binance_um_tiers_20260507_all.parquet`` (all symbols of one day,
in ccxt's spelling). Every symbol with a history is packaged, and the others named below. A table that is no sound one
is printed with the reason and left out; one that equals the one before is merged into it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from backtest.errors import RuleError
from backtest.ingest.tiers.formats import NO_END
from backtest.ingest.tiers.importer import tiers_csv
from backtest.margin.tiers import DatedTable, TierTable
from backtest.units import instant_text

OUT = Path(__file__).parents[1] / "backtest" / "margin" / "tables" / "binance-usdm"
LATEST = datetime(2026, 5, 7, tzinfo=UTC)
LATEST_SOURCE = ("freqtrade/freqtrade", "not noted")
COLUMNS = ("min_notional", "max_notional", "mmr", "max_leverage", "maint_amount")
# Chosen by name as widely traded: the files hold no turnover to choose by.
OTHERS = (
    *("1000BONKUSDT", "1000SHIBUSDT", "AAVEUSDT", "APTUSDT", "ARBUSDT", "ASTERUSDT", "BTCUSDC", "DOGEUSDC", "ETCUSDT"),
    *("ETHUSDC", "FETUSDT", "HBARUSDT", "HYPEUSDT", "ICPUSDT", "INJUSDT", "JUPUSDT", "LDOUSDT", "ONDOUSDT", "OPUSDT"),
    *("PENGUUSDT", "POLUSDT", "PUMPUSDT", "RENDERUSDT", "SEIUSDT", "SOLUSDC", "STXUSDT", "TAOUSDT", "TIAUSDT"),
    *("TONUSDT", "TRXUSDT", "WIFUSDT", "XAGUSDT", "XAUUSDT", "XLMUSDT", "XMRUSDT", "XRPUSDC", "ZECUSDT"),
)
HEADER = """\
# Tier tables of Binance USD-M perpetuals: one CSV per symbol, made by tools/package_tiers.py.
# Columns: effective_from (UTC), floor, cap, mmr, deduction, max_leverage; floors, caps and deductions in quote units.
#
# effective_from is when a public repository RECORDED the table (the time of its commit), so only an upper bound of when
# it took effect: the exchange may have changed it days, or months where records lie far apart, before that instant.
# Nothing is known from before the first record of a symbol, and changes that were undone between two records are lost.
# A table that equals the one before was merged into it. A cap of 2^63 - 1 stands for none and is blank.
# The record of 2026-05-07 covers every symbol, is known to the day and notes no commit; a symbol that it is not listed
# for had then the last of its tables still (which `confirmed` says).
# Tier tables are facts that the exchange publishes:
# https://www.binance.com/en/futures/trading-rules/perpetual/leverage-margin

title = "Binance USD-M leverage and margin tiers"
rule = "binance-usdm"
dates = "recorded by a repository: upper bounds of when a table took effect"
confirmed = 2026-05-07
"""


@dataclass(frozen=True)
class Record:
    """One table as a repository recorded it."""

    when: datetime
    repository: str
    commit: str
    table: TierTable


def main() -> None:
    """Read, merge, check, write."""
    parser = argparse.ArgumentParser(description="Make the packaged tier tables.")
    parser.add_argument("folder", type=Path, help="Holds the two parquet files.")
    folder = parser.parse_args().folder
    records = histories(folder / "binance_um_tier_history.parquet")
    for symbol, record in latest(folder / "binance_um_tiers_20260507_all.parquet").items():
        if symbol in records or symbol in OTHERS:
            records.setdefault(symbol, []).append(record)
    for symbol in sorted(set(OTHERS) - set(records)):
        print(f"{symbol}: not in the table of {LATEST:%Y-%m-%d}, not packaged")
    merged = {symbol: merge(records[symbol]) for symbol in sorted(records)}
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.csv"):
        old.unlink()
    for symbol, kept in merged.items():
        tables = [DatedTable(round(record.when.timestamp()) * 1000, record.table) for record in kept]
        (OUT / f"{symbol}.csv").write_text(tiers_csv(tables), encoding="utf-8", newline="")
    (OUT / "source.toml").write_text(sidecar(merged), encoding="utf-8", newline="")
    size = sum(file.stat().st_size for file in OUT.iterdir())
    print(f"{len(merged)} symbols, {sum(map(len, merged.values()))} tables, {size:,} bytes: {OUT.name}")


def histories(file: Path) -> dict[str, list[Record]]:
    """Sound tables of each symbol in the order of time."""
    frame = pq.read_table(file).to_pandas()
    found: dict[str, list[Record]] = {}
    for (symbol, when), rows in frame.groupby(["symbol", "snapshot"]):
        add(found, symbol, when.to_pydatetime(), (rows["repo"].iloc[0], rows["commit"].iloc[0]), rows)
    return found


def latest(file: Path) -> dict[str, Record]:
    """Sound tables of every symbol on the last day, spelled as the exchange does."""
    frame = pq.read_table(file).to_pandas()
    found: dict[str, list[Record]] = {}
    for spelled, rows in frame.groupby("symbol"):
        add(found, spelled.split(":")[0].replace("/", "") + delivery(spelled), LATEST, LATEST_SOURCE, rows)
    return {symbol: records[0] for symbol, records in found.items()}


def delivery(spelled: str) -> str:
    """The end of a dated future's name: ``BTC/USDT:USDT-260626`` is ``BTCUSDT_260626``."""
    end = spelled.partition("-")[2]
    return f"_{end}" if end else ""


def add(found: dict[str, list[Record]], symbol: str, when: datetime, source: tuple[str, str], rows) -> None:
    """Append a table, or say why not."""
    rows = rows.sort_values("tier")
    floor, cap, mmr, most, deduction = (rows[column].to_numpy(dtype=np.float64) for column in COLUMNS)
    cap = np.where(cap >= NO_END, np.inf, cap)
    try:
        table = TierTable(symbol, floor, cap, mmr, most, deduction)
    except RuleError as error:
        print(f"{symbol} {when:%Y-%m-%d} left out: {error}")
        return
    found.setdefault(symbol, []).append(Record(when, *source, table))


def merge(records: list[Record]) -> list[Record]:
    """Without those that equal the one before."""
    return [record for k, record in enumerate(records) if k == 0 or not same(record.table, records[k - 1].table)]


def same(a: TierTable, b: TierTable) -> bool:
    """Whether two tables are one, number for number."""
    columns = ("floor", "cap", "mmr", "max_leverage", "deduction")
    return all(np.array_equal(getattr(a, column), getattr(b, column)) for column in columns)


def sidecar(merged: dict[str, list[Record]]) -> str:
    """Where each date comes from."""
    sources: dict[tuple[datetime, str, str], list[str]] = {}
    for symbol, records in merged.items():
        for record in records:
            sources.setdefault((record.when, record.repository, record.commit), []).append(symbol)
    text = HEADER
    for (when, repository, commit), symbols in sorted(sources.items()):
        names = "".join(f'    "{symbol}",\n' for symbol in symbols)
        text += f"\n[[records]]\nrecorded = {instant_text(round(when.timestamp()) * 1000)[:-1]}"
        text += "Z\n" if when.second else ":00Z\n"
        text += f'repository = "{repository}"\ncommit = "{commit}"\nsymbols = [\n{names}]\n'
    return text


if __name__ == "__main__":
    main()
