"""Real BTC: every count of a run typed on the command line equals the literal walk, and the bars mean what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import backtest as bt
from backtest.config.models import Config, load_config
from backtest.units import duration_ms, instant_ms
from tests._support.histories import HOUR
from tests._support.judge import assert_same_events, scenario_of
from tests._support.real import REAL, csv_of, needs_real, rows, table_of
from tests.cli.conftest import Done, typed
from tests.oracles import statistics as truth
from tests.oracles import walk as oracle

BARS = REAL / "binance_um"
pytestmark = needs_real

TIERS = table_of([
    (0.0, 300_000.0, 0.004, 0.0, 150.0),
    (300_000.0, 800_000.0, 0.005, 300.0, 100.0),
    (800_000.0, 3_000_000.0, 0.0065, 1_500.0, 75.0),
    (3_000_000.0, 12_000_000.0, 0.01, 12_000.0, 50.0),
    (12_000_000.0, 70_000_000.0, 0.02, 132_000.0, 25.0),
])  # fmt: skip
"""Floor, cap, rate, deduction and largest leverage of the first tiers of BTCUSDT on Binance, 2026-05-07."""
RICH = """\
[data]
path = "data"
symbols = ["BTCUSDT"]
{data}

[entries]
every = "{every}"

[sweep]
side = ["long", "short"]
leverage = {leverage}
horizon = ["1h", "1d", "7d"]
maintenance = [0.005, "tiers.csv"]
open_fee = {fees}
funding = {funding}
size = [{{ notional = 10_000_000 }}, {{ margin = 150_000 }}]
"""


def quiet(*words: object) -> Done:
    """A command that must go well."""
    done = typed(*words)
    assert done.code == 0, done.err
    return done


def import_hourly(symbol: str, out: Path | str) -> None:
    """Import prices, mark prices and funding of a symbol."""
    words = ["--symbol", symbol, "--interval", "1h", "--out", out]
    for option, name in (("--prices", "1h"), ("--mark", "1h-mark"), ("--funding", "funding")):
        words += [option, BARS / f"{symbol}-{name}.parquet"]
    quiet("import", "generic", *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the dataset of BTC, imported, and the tier table."""
    made = tmp_path_factory.mktemp("real")
    import_hourly("BTCUSDT", made / "data")
    csv_of(made / "tiers.csv", TIERS)
    return made


def grid(config: Config) -> oracle.Grid:
    """The oracle's grid of a configuration, from the source files."""
    data = config.data
    cut = [None if text is None else instant_ms(text) for text in (data.start, data.end)]
    return oracle.grid_of(rows("BTCUSDT", "2019-01-01", "2027-01-01"), data.trigger, *cut)


Walked = tuple[dict[str, object], list[oracle.Verdict], int]


def walked(config: Config, table: pd.DataFrame) -> Iterator[Walked]:
    """Every row of a run, with verdicts and excluded entries of the bar-by-bar walk over the same entries."""
    laid = grid(config)
    every = duration_ms(config.entries.every) if config.entries.every else HOUR
    entries = [t for t, at in enumerate(laid.open_time_ms) if at % every == 0 and laid.is_entry(t)]
    gap = None if config.data.max_gap is None else duration_ms(config.data.max_gap) // HOUR
    for row in table.to_dict("records"):
        tiered = row["maintenance"] == "tiers"
        scenario = scenario_of(pd.Series({**row, "maintenance": "0"} if tiered else row), bt.Margin())
        scenario = replace(scenario, maintenance=TIERS) if tiered else scenario
        horizon = duration_ms(row["horizon"]) // HOUR
        yield row, *oracle.walk(laid, scenario, horizon, entries=entries, max_gap_bars=gap)


SWEEPS = {
    # The cut, the stride of the entries (of every hour in each day, as none divides 24), and whether all axes are rich.
    "crash of March 2020": ('start = "2020-02-01"\nend = "2020-05-01"', "7h", True),
    "crash of May 2021": ('start = "2021-05-01"\nend = "2021-06-01"\nmax_gap = "6h"', "5h", True),
    "whole history": ("", "97h", False),
    "whole history on last": ('trigger = "last"', "199h", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS, ids=lambda name: name.replace(" ", "-"))
def test_every_count_equals_the_literal_walk(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides, flat and tiered, two sizes, two fees, funding as it was and enlarged, three horizons."""
    data, every, rich = SWEEPS[name]
    monkeypatch.chdir(folder)
    stem = name.replace(" ", "-")
    text = RICH.format(
        data=data,
        every=every,
        leverage="[1, 3, 5, 10, 20, 50, 75, 125]" if rich else "[3, 20, 75]",
        fees="[0.0, 0.0005]" if rich else "[0.0004]",
        funding="[{ scale = 1.0 }, { scale = 3.0, shift = 0.0001 }]" if rich else "[{ scale = 2.0 }]",
    )
    Path(f"{stem}.toml").write_text(text)
    quiet("run", f"{stem}.toml", "--out", stem)
    table = pq.read_table(f"{stem}/survival.parquet").to_pandas()
    assert len(table) == (2 * 2 * 2 * 2 * 2 * 3 * 8 if rich else 2 * 2 * 2 * 3 * 3)
    total = {"rejected": 0, "margin_calls": 0, "liquidations": 0}
    for row, verdicts, excluded in walked(load_config(f"{stem}.toml"), table):
        want = truth.count(verdicts, excluded)
        assert {key: row[key] for key in want} == want, row
        total = {key: count + want[key] for key, count in total.items()}
    # A comparison of zeros would prove nothing.
    assert min(total.values()) > 20, total


@pytest.mark.slow
def test_events_equal_the_literal_walk_and_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    data = 'start = "2020-03-01"\nend = "2020-04-01"'
    text = RICH.format(data=data, every="5h", leverage="[5, 20]", fees="[0.0005]", funding="[{ scale = 2.0 }]")
    Path("march.toml").write_text(text)
    quiet("run", "march.toml", "--out", "march")
    quiet("events", "march.toml", "--out", "march-events.parquet")
    table, events = (pq.read_table(f).to_pandas() for f in ("march/survival.parquet", "march-events.parquet"))
    axes = ["side", "maintenance", "size", "horizon", "leverage"]
    groups = events.groupby(axes)
    laid = grid(load_config("march.toml"))
    for row, verdicts, _ in walked(load_config("march.toml"), table):
        part = groups.get_group(tuple(row[name] for name in axes))
        assert part["liquidation_time"].notna().sum() == row["liquidations"]
        assert part["margin_call_time"].notna().sum() == row["margin_calls"]
        assert part["rejected"].sum() == row["rejected"]
        assert len(part) == row["entries"] + row["rejected"]
        assert_same_events(part, verdicts, laid)


def test_the_wick_of_march_2020_kills_on_last_and_not_on_mark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long at the close of 09:00, 7357.61, rate 0.004, no fee: liquidated where 1/L ≤ 1 − 0.996·low/7357.61.

    In the bar of 10:00 the low is 5199.17 last and 5620.86 mark: 1/L ≤ 0.2962 (L ≥ 3.38) and 1/L ≤ 0.2391 (L ≥ 4.18).
    """
    monkeypatch.chdir(folder)
    dead = {}
    for trigger in ("last", "mark"):
        Path("wick.toml").write_text(
            f'[data]\npath = "data"\ntrigger = "{trigger}"\nstart = "2020-03-12T09:00Z"\nend = "2020-03-12T11:00Z"\n'
            '[sweep]\nside = ["long"]\nleverage = [3.3, 3.4, 4, 4.1, 4.2]\nhorizon = ["1h"]\nmaintenance = [0.004]\n'
        )
        quiet("run", "wick.toml", "--out", "wick", "--overwrite")
        table = pq.read_table("wick/survival.parquet").to_pandas()
        assert (table["entries"] == 1).all()
        dead[trigger] = table.loc[table["liquidations"] == 1, "leverage"].tolist()
    assert dead == {"last": [3.4, 4.0, 4.1, 4.2], "mark": [4.2]}


def test_a_choice_and_a_report_come_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("plain.toml").write_text(
        '[data]\npath = "data"\n[sweep]\nhorizon = ["1h", "1d", "7d"]\nmaintenance = [0.004]\nopen_fee = [0.0005]\n'
    )
    info = json.loads(quiet("run", "plain.toml", "--out", "plain", "--json").out)
    covered = info["coverage"][0]
    # The mark begins on 2019-12-23 at 11:00, months after the last price; it ends an hour before.
    assert (covered["first"], covered["last"]) == ("2019-12-23T11:00Z", "2026-05-17T06:00Z")
    assert (covered["bars"], covered["missing_bars"], covered["trigger"]) == (56_084, 0, "mark")
    choices = json.loads(quiet("choose", "plain", "--json").out)["choices"]
    chosen = {(row["side"], row["horizon"]): row for row in choices}
    table = pq.read_table("plain/survival.parquet").to_pandas().set_index(["side", "horizon", "leverage"]).sort_index()
    for (side, horizon), row in chosen.items():
        # By the rule itself: the last leverage before the first whose lower bound misses the target.
        low = table.loc[(side, horizon), "survival_low"]
        missed = low.index[low < 0.95]
        assert row["leverage"] == missed[0] - 1
        assert row["survival_low"] == low[row["leverage"]] >= 0.95
        assert row["attainable"] > row["survival_low"]
    for side in ("long", "short"):
        hour, day, week = (chosen[side, horizon]["leverage"] for horizon in ("1h", "1d", "7d"))
        assert hour > day > week >= 1
    quiet("report", "plain")
    page = Path("plain/report.html").read_text(encoding="utf-8")
    assert "2019-12-23" in page
    assert "BTCUSDT" in page


def test_five_minutes_with_two_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``check`` reports the gaps, and ``max_gap`` leaves out exactly the entries that look into one.

    An entry `a` bars before a gap's first bar has h + 1 − a bars of it in its window (the gaps are longer than h), so
    with at most m of them allowed the excluded ones are a = 1 … h − m, h − m in each gap.
    """
    monkeypatch.chdir(tmp_path)
    words = ["--symbol", "BTCUSDT", "--interval", "5m", "--prices", BARS / "BTCUSDT-5m.parquet"]
    said = quiet("import", "generic", *words, "--out", "data").out
    assert "368,665 bars" in said
    assert "2 gaps" in said
    found = json.loads(quiet("check", "data", "--json").out)
    assert found["ok"]
    # 17:10 to midnight is 82 bars of the first day, then 37 days of 288: 82 + 37·288 = 10,738.
    assert found["coverage"][0]["largest"] == [
        {"first": "2022-11-24T17:10Z", "last": "2022-12-31T23:55Z", "bars": 10_738},
        {"first": "2025-04-13T07:20Z", "last": "2025-05-04T15:30Z", "bars": 6_147},
    ]
    text = '[data]\npath = "data"\n[sweep]\nside = ["long"]\nleverage = [10]\nhorizon = ["6h", "1d", "7d"]\n'
    counts = {}
    for gap in (None, "6h"):
        Path("gaps.toml").write_text(
            text.replace("[sweep]", f'max_gap = "{gap}"\n[sweep]' if gap else "[sweep]") + "maintenance = [0.004]\n"
        )
        info = json.loads(quiet("run", "gaps.toml", "--out", "gaps", "--overwrite", "--json").out)
        table = pq.read_table("gaps/survival.parquet").to_pandas().set_index("horizon")
        assert info["coverage"][0]["excluded"] == table["excluded"].to_dict()
        counts[gap] = table
    # h = 72, 288, 2016 bars and m = 72: twice 0, 216 and 1,944.
    assert counts["6h"]["excluded"].to_dict() == {"6h": 0, "1d": 432, "7d": 3_888}
    assert (counts[None]["excluded"] == 0).all()
    assert (counts[None]["entries"] - counts["6h"]["entries"] == counts["6h"]["excluded"]).all()


@pytest.mark.slow
def test_three_symbols_in_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each symbol's rows are those of a run of its own."""
    monkeypatch.chdir(tmp_path)
    symbols = ("BTCUSDT", "ETHUSDT", "LTCUSDT")
    for symbol in symbols:
        import_hourly(symbol, "data")
    said = quiet("check", "data").out
    assert all(f"{symbol} 1h: " in said for symbol in symbols)
    text = '[data]\npath = "data"\n[sweep]\nleverage = [2, 10, 50]\nhorizon = ["1d", "7d"]\nmaintenance = [0.005]\n'
    Path("all.toml").write_text(text)
    quiet("run", "all.toml", "--out", "all")
    every = pq.read_table("all/survival.parquet").to_pandas()
    assert every["symbol"].unique().tolist() == list(symbols)
    Path("one.toml").write_text(text.replace('"data"', '"data"\nsymbols = ["LTCUSDT"]'))
    quiet("run", "one.toml", "--out", "one")
    alone = pq.read_table("one/survival.parquet").to_pandas()
    pd.testing.assert_frame_equal(every[every["symbol"] == "LTCUSDT"].reset_index(drop=True), alone)
    quiet("choose", "all")
    quiet("report", "all")
