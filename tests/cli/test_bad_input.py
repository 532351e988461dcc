"""Bad input is one clear message naming file, row or key, the value and the rule; nothing half-written stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import CONFIG, HOUR, START, Done, entries_of, prices, table_of, typed

Columns = dict[str, np.ndarray]
Spoil = Callable[[np.ndarray, Columns], None]


def refused(place: Path, code: int, *words: object) -> str:
    """Standard error of a command that must fail with a code, say nothing else and write nothing."""
    before = entries_of(place)
    done: Done = typed(*words)
    assert (done.code, done.out) == (code, ""), done
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    assert entries_of(place) == before
    return done.err.removeprefix("error: ").rstrip("\n")


# --- data: exit code 1 ------------------------------------------------------------------------------------------------


def swap(stamps: np.ndarray, columns: Columns) -> None:
    stamps[[20, 21]] = stamps[[21, 20]]


def repeat(stamps: np.ndarray, columns: Columns) -> None:
    stamps[20] = stamps[19]


def put(name: str, value: float) -> Spoil:
    def spoil(stamps: np.ndarray, columns: Columns) -> None:
        columns[name][7] = value

    return spoil


def drop(name: str) -> Spoil:
    def spoil(stamps: np.ndarray, columns: Columns) -> None:
        del columns[name]

    return spoil


# Row 7 opens at 07:00; the row after a swap or repetition, 21 or 20, is the one out of order: 20:00 or 19:00.
SPOILT = {
    "a missing column": (drop("low"), "column low|columns close, high, low", ""),
    "unsorted time": (swap, "row 21", "2020-01-01T20:00Z"),
    "duplicated time": (repeat, "row 20", "2020-01-01T19:00Z"),
    "price 0": (put("low", 0.0), "column low must be > 0", "got 0"),
    "negative price": (put("low", -3.5), "column low must be > 0", "got -3.5"),
    "infinite price": (put("high", np.inf), "column high must be finite", "got inf"),
    "NaN price": (put("close", np.nan), "column close must be finite", "got nan"),
    "high below low": (put("high", 1.25), "column high must not be below low|column high lies below low", "got 1.25"),
}


@pytest.fixture(params=SPOILT, ids=lambda name: name.replace(" ", "-"))
def spoilt(request: pytest.FixtureRequest, place: Path) -> tuple[list[str], str]:
    """``bad.parquet`` with one fault of a kind; what must be said of it."""
    spoil, where, value = SPOILT[request.param]
    stamps, columns = prices()
    spoil(stamps, columns)
    pq.write_table(table_of(stamps, columns), place / "bad.parquet")
    (place / "sweep.toml").write_text(CONFIG.replace("market", "bad.parquet"))
    return where.split("|"), value


def says(message: str, spoilt: tuple[list[str], str]) -> None:
    where, value = spoilt
    assert "bad.parquet" in message
    assert any(text in message.replace(":", "") or text in message for text in where), message
    assert value in message


def test_bad_prices_are_not_imported(place: Path, spoilt: tuple[list[str], str]) -> None:
    words = ["import", "generic", "--symbol", "X", "--interval", "1h", "--prices", "bad.parquet", "--out", "new/data"]
    message = refused(place, 1, *words)
    says(message, spoilt)
    assert "\n" not in message


def test_bad_prices_are_not_run(place: Path, spoilt: tuple[list[str], str]) -> None:
    message = refused(place, 1, "run", "sweep.toml", "--out", "new/run")
    says(message, spoilt)
    assert "\n" not in message


def test_bad_prices_make_no_events(place: Path, spoilt: tuple[list[str], str]) -> None:
    says(refused(place, 1, "events", "sweep.toml", "--out", "new/events.parquet"), spoilt)


def test_check_lists_bad_prices(place: Path, spoilt: tuple[list[str], str]) -> None:
    done = typed("check", "bad.parquet")
    assert (done.code, done.err) == (1, "")
    says(done.out, spoilt)
    assert "problem" in done.out.splitlines()[-1]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_parquet_file_is_named(place: Path, keep: float) -> None:
    pq.write_table(table_of(*prices()), place / "whole.parquet")
    content = (place / "whole.parquet").read_bytes()
    (place / "cut.parquet").write_bytes(content[: int(keep * len(content))])
    (place / "sweep.toml").write_text(CONFIG.replace("market", "cut.parquet"))
    rule = "cut.parquet: not a readable Parquet file; truncated, or of another format"
    generic = ["import", "generic", "--symbol", "X", "--interval", "1h", "--prices", "cut.parquet", "--out", "data"]
    for words in (generic, ["run", "sweep.toml", "--out", "run"], ["events", "sweep.toml", "--out", "e.csv"]):
        assert rule in refused(place, 1, *words)
    done = typed("check", "cut.parquet")
    assert done.code == 1
    assert rule in done.out


def test_files_of_a_dataset_are_named(place: Path, market: Path) -> None:
    """In a folder the message names the year's file, and the row within it."""
    part = "interval=1h/symbol=BTCUSDT/year=2020/part-0.parquet"
    table = pq.read_table(market / "data" / part, partitioning=None)
    close = table["close"].to_pylist()
    close[11] = float("nan")
    (place / "spoilt" / part).parent.mkdir(parents=True)
    pq.write_table(
        table.set_column(table.column_names.index("close"), "close", pa.array(close)), place / "spoilt" / part
    )
    (place / "sweep.toml").write_text(CONFIG.replace("market", "spoilt"))
    said = refused(place, 1, "run", "sweep.toml")
    assert said == f"spoilt/{part}: column close must be finite or null; got nan in row 11"
    assert f"spoilt/{part}, row 11, column close: must be finite or null; got nan" in typed("check", "spoilt").out


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            'start = "2030-01-01"',
            "no bar in the range asked for; BTCUSDT 1h spans 2020-01-01T00:00Z … 2020-02-24T04:00Z",
        ),
        ('end = "2019-01-01"', "no bar in the range asked for; BTCUSDT 1h spans 2020-01-01T00:00Z"),
    ],
)
def test_an_empty_range_is_refused_with_what_there_is(place: Path, keys: str, message: str) -> None:
    (place / "sweep.toml").write_text(CONFIG.replace('"market"', f'"market"\n{keys}'))
    assert message in refused(place, 1, "run", "sweep.toml")
    assert message in refused(place, 1, "events", "sweep.toml", "--out", "e.csv")


def test_a_trigger_that_the_history_lacks_is_refused(place: Path) -> None:
    pq.write_table(table_of(*prices()), place / "last.parquet")
    (place / "sweep.toml").write_text(CONFIG.replace('"market"', '"last.parquet"\ntrigger = "mark"'))
    assert "trigger 'mark' is asked for, but the history has no mark price" in refused(place, 1, "run", "sweep.toml")


@pytest.mark.parametrize("words", [["check", "hollow"], ["run", "sweep.toml"]], ids=["check", "run"])
def test_a_folder_without_bars_is_refused(place: Path, words: list[str]) -> None:
    (place / "hollow").mkdir()
    (place / "sweep.toml").write_text(CONFIG.replace("market", "hollow"))
    assert "hollow holds no interval=…/symbol=…/year=…/*.parquet" in refused(place, 1, *words)


# --- configuration: exit code 2 ---------------------------------------------------------------------------------------

KEYS = [
    # unknown keys, at every level
    ("", "[strategy]\nx = 1", "strategy: is not a known key"),
    ("[data]", "[data]\npth = 'x'", "data.pth: is not a known key; got 'x'"),
    ("", "[entries]\nfile = 'trades.parquet'", "trades.parquet cannot be read (No such file or directory)"),
    ("[sweep]", "[sweep]\nlevrage = [3]", "sweep.levrage: is not a known key; got [3]"),
    ("", "[margin]\nmode = 'cross'", "margin.mode: is not a known key; got 'cross'"),
    ("", "[statistics]\nlevel = 0.9", "statistics.level: is not a known key; got 0.9"),
    ("[sweep]", "[sweep]\nfunding = [{ scal = 2.0 }]", "sweep.funding[0].scal: is not a known key; got 2.0"),
    ("[sweep]", "[sweep]\nsize = [{ notional = 1, margn = 2 }]", "sweep.size[0].margn: is not a known key; got 2"),
    ("[2, 10, 50]", "{ from = 1, to = 9, by = 2 }", "sweep.leverage.by: is not a known key; got 2"),
    ("[0.004]", "[{ rule = 'x', tiers = 'y', by = 'z' }]", "sweep.maintenance[0].by: is not a known key; got 'z'"),
    # missing keys
    ('horizon = ["1h", "1d"]', "", "sweep.horizon: is missing"),
    ("maintenance = [0.004]", "", "sweep.maintenance: is missing"),
    ("[2, 10, 50]", "{ from = 1 }", "sweep.leverage.to: is missing"),
    ("[0.004]", "[{ rule = 'binance-usdm' }]", "sweep.maintenance[0].tiers: is missing"),
    ('path = "market"', "", "data.path must name a dataset or a Parquet file"),
    # wrong types
    ("[2, 10, 50]", "20", "sweep.leverage: must be a list; got 20"),
    ("[2, 10, 50]", '["ten"]', "sweep.leverage[0]: must be a valid number; got 'ten'"),
    ("[2, 10, 50]", "[true]", "sweep.leverage[0]: must be a valid number; got True"),
    ('["1h", "1d"]', "[24]", "sweep.horizon[0]: must be a valid string; got 24"),
    ('["1h", "1d"]', '"1d"', "sweep.horizon: must be a list; got '1d'"),
    ("[0.004]", "[false]", "sweep.maintenance[0]: must be a flat rate, a rule name, a tier-table file or {"),
    ('"market"', "3", "data.path: must be a valid string; got 3"),
    ("", "[margin]\nfees_from_margin = 1", "margin.fees_from_margin: must be a valid boolean; got 1"),
    ("", "[statistics]\nseed = 1.5", "statistics.seed: must be a valid integer"),
    # impossible values
    ("[2, 10, 50]", "[]", "sweep.leverage: must not be empty; got []"),
    ("[2, 10, 50]", "[0]", "sweep.leverage[0]: must be greater than 0; got 0"),
    ("[2, 10, 50]", "[5, -3]", "sweep.leverage[1]: must be greater than 0; got -3"),
    ("[2, 10, 50]", "[inf]", "sweep.leverage[0]: must be a finite number; got inf"),
    ("[2, 10, 50]", "[2000]", "sweep.leverage[0]: must be less than or equal to 1000; got 2000"),
    ("[2, 10, 50]", "[5, 5.0]", "sweep.leverage: leverage holds 5.0 twice; got [5, 5.0]"),
    ("[2, 10, 50]", "{ from = 9, to = 3 }", "sweep.leverage: from 9 to 3 by 1 is not 1 to 10000 leverages"),
    ('["1h", "1d"]', '["0h"]', "sweep.horizon[0]: a duration is a whole number > 0 and one of s, m, h, d, w"),
    ('["1h", "1d"]', '["-1h"]', "sweep.horizon[0]: a duration is a whole number > 0"),
    ('["1h", "1d"]', '["1h", "99999999999d"]', "sweep.horizon[1]: a duration is at most 366000 days; got '9"),
    ('["1h", "1d"]', '["24h", "1d"]', "sweep.horizon: horizons '24h' and '1d' are the same duration"),
    ('["1h", "1d"]', '["90m"]', "sweep.horizon must be a multiple of the bars' 1h; got 90m"),
    ("", '[entries]\nevery = "90m"', "entries.every must be a multiple of the bars' 1h; got 90m"),
    ("", '[statistics]\nblock = "90m"', "statistics.block must be a multiple of the bars' 1h; got 90m"),
    ("[0.004]", "[1.5]", "sweep.maintenance[0]: must be less than 1; got 1.5"),
    ("[0.004]", "[nan]", "sweep.maintenance[0]: must be a finite number; got nan"),
    ("[0.004]", "[0.004, 0.004]", "sweep.maintenance: maintenance holds 0.004 twice"),
    ("[sweep]", "[sweep]\nopen_fee = [-0.1]", "sweep.open_fee[0]: must be greater than or equal to -0.01; got -0.1"),
    ("[sweep]", '[sweep]\nside = ["both"]', "sweep.side[0]: must be 'long' or 'short'; got 'both'"),
    ("[sweep]", "[sweep]\nsize = [{ notional = 1, margin = 2 }]", "sweep.size[0]: exactly one of notional and margin"),
    ("", '[margin]\ncontract = "square"', "margin.contract: must be 'linear', 'inverse' or 'spot'; got 'square'"),
    ("", "[margin]\nmargin_call_ratio = 1.5", "margin.margin_call_ratio: must be less than or equal to 1; got 1.5"),
    ("", "[statistics]\nconfidence = 95", "statistics.confidence: must be less than 1; got 95"),
    ("", "[statistics]\nconfidence = 0.97", "confidence must be one of the tabulated levels 0.5, 0.8, 0.9, 0.95"),
    ("[data]", '[data]\nstart = "soon"', "data.start: a time is ISO 8601, such as '2020-01-01'"),
    ("[data]", '[data]\nstart = "2020-02-02"\nend = "2020-02-01"', "data: start must lie before end; got 2020-02-02"),
    ("[data]", '[data]\nsymbols = ["ETHUSDT"]', "data.symbols: 'ETHUSDT' is not in market at 1h; there are BTCUSDT"),
    ("[data]", '[data]\ninterval = "4h"', "data.interval must name one of the intervals of market: 1h; got '4h'"),
    ('"market"', '"nowhere"', "nowhere does not exist; data is a local directory or Parquet file"),
    ("[0.004]", '["nowhere.csv"]', "nowhere.csv is neither a tier-table file nor a rule name ("),
    ("[0.004]", '["gate-linear"]', "no tier table is packaged for 'gate-linear'; bind one with"),
    ("[sweep]", "[sweep", "is not TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), KEYS, ids=[message[:60] for *_, message in KEYS])
def test_impossible_configurations_are_refused_by_key(place: Path, old: str, new: str, message: str) -> None:
    text = CONFIG + new + "\n" if not old else CONFIG.replace(old, new, 1)
    (place / "sweep.toml").write_text(text)
    for words in (["run", "sweep.toml", "--out", "new/run"], ["events", "sweep.toml", "--out", "new/e.csv"]):
        if words[0] == "events" and "tabulated" in message:
            continue  # events have no interval
        said = refused(place, 2, *words)
        assert message in said
        # One line for the fault, and one before it that names the file where the whole of it was read.
        assert len(said.splitlines()) <= 2
        assert said.splitlines()[0] == "sweep.toml:" or "\n" not in said


def test_every_problem_of_a_configuration_is_listed_at_once(place: Path) -> None:
    text = CONFIG.replace("[2, 10, 50]", "[0]").replace("[data]", "[data]\npth = 1") + "[margin]\nbasis = 'index'\n"
    (place / "sweep.toml").write_text(text)
    assert refused(place, 2, "run", "sweep.toml").splitlines() == [
        "sweep.toml:",
        "sweep.leverage[0]: must be greater than 0; got 0",
        "data.pth: is not a known key; got 1",
        "margin.basis: must be 'mark' or 'entry'; got 'index'",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere.toml"], "nowhere.toml: cannot be read (No such file or directory)"),
        (["run", "market"], "CONFIG must be a .toml file; got 'market'"),
        (["run", "sweep.toml", "--workers", "0"], "workers must be ≥ 1; got 0"),
        (["events", "sweep.toml", "--out", "e.xlsx"], "--out must end in .parquet or .csv; got 'e.xlsx'"),
        (["events", "sweep.toml", "--out", "e.csv", "--where", "lev = 3"], "--where names no column 'lev'; there are"),
        (["events", "sweep.toml", "--out", "e.csv", "--where", "leverage = ("], "--where is not a condition"),
        (["events", "sweep.toml", "--out", "e.csv", "--where", "side = 3"], "--where compares what cannot be compared"),
        (["events", "sweep.toml", "--out", "e.csv", "--where", "leverage"], "--where needs a comparison of leverage"),
        (["check", "nowhere"], "nowhere does not exist"),
    ],
)  # fmt: skip
def test_impossible_arguments_are_refused(place: Path, words: list[str], message: str) -> None:
    assert message in refused(place, 2, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--survival", "95"], "survival must lie between 0 and 1, such as 0.95; got 95"),
        (["--horizon", "3d"], "horizon must be one of 1h, 1d in this run; got '3d'"),
        (["--horizon", "soon"], "a duration is a whole number > 0"),
        (["--confidence", "0.97"], "confidence must be one of the tabulated levels 0.5, 0.8, 0.9, 0.95"),
    ],
)
def test_impossible_choices_are_refused(place: Path, words: list[str], message: str) -> None:
    assert typed("run", "sweep.toml", "--out", "run").code == 0
    assert message in refused(place, 2, "choose", "run", *words)


# --- tier tables: exit code 2 -----------------------------------------------------------------------------------------

HEAD = "floor,cap,mmr,deduction,max_leverage\n"
# Continuous at 50,000: 0.004·50,000 = 200 = 0.005·50,000 − 50; with deduction 60 the other side is 190.
TIERS = [
    (HEAD + "0,50000,0.004,0,125\n50000,,0.005,60,100\n", "row 3: maintenance jumps at floor 50000, from 200 to 190"),
    (HEAD + "0,50000,0.004,0,125\n60000,,0.005,110,100\n", "row 3: floor must be the cap of the tier before, 50000"),
    (HEAD + "0,50000,0.005,0,125\n50000,,0.004,-50,100\n", "row 3: mmr must not fall where there are deductions; got"),
    (HEAD + "10,,0.004,,125\n", "row 2: floor of the first tier must be 0; got 10"),
    (HEAD + "0,,1.004,0,125\n", "row 2: mmr must lie between 0 and 1, a fraction of the notional; got 1.004"),
    (HEAD + "0,,low,0,125\n", "row 2: mmr must be a number; got 'low'"),
    (HEAD + "0,,0.004,0,-5\n", "row 2: max_leverage must be > 0; got -5"),
    (HEAD, "a tier table has at least one tier"),
    ("floor,cap,deduction\n0,,0\n", "column 'mmr' is missing"),
    ("floor,cap,mmr,leverage\n0,,0.01,3\n", "unknown column 'leverage'"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "message"), TIERS, ids=[message[:45] for _, message in TIERS])
def test_impossible_tier_tables_are_refused_by_row(place: Path, table: str, message: str) -> None:
    (place / "ladder.csv").write_text(table)
    text = CONFIG.replace("[0.004]", '["ladder.csv"]') + "size = [{ notional = 1000 }]\n"
    (place / "sweep.toml").write_text(text)
    said = refused(place, 2, "run", "sweep.toml")
    assert said.startswith("ladder.csv")
    assert message in said


def test_a_tier_table_without_a_size_is_refused(place: Path) -> None:
    (place / "ladder.csv").write_text(HEAD + "0,50000,0.004,0,125\n50000,,0.005,50,100\n")
    (place / "sweep.toml").write_text(CONFIG.replace("[0.004]", '["ladder.csv"]'))
    said = refused(place, 2, "run", "sweep.toml")
    assert "the tier table ladder.csv needs the axis sweep.size, such as size = [{ notional = 10000 }]" in said


def test_two_tables_of_one_stem_are_refused(place: Path) -> None:
    for folder in ("a", "b"):
        (place / folder).mkdir()
        (place / folder / "ladder.csv").write_text(HEAD + "0,,0.004,0,125\n")
    text = CONFIG.replace("[0.004]", '["a/ladder.csv", "b/ladder.csv"]') + "size = [{ notional = 1000 }]\n"
    (place / "sweep.toml").write_text(text)
    assert "two scenarios read 'ladder'; rename one of the files" in refused(place, 2, "run", "sweep.toml")


def test_a_margin_key_that_contradicts_the_rule_is_refused(place: Path) -> None:
    (place / "ladder.csv").write_text(HEAD + "0,,0.004,0,125\n")
    text = CONFIG.replace("[0.004]", '[{ rule = "binance-usdm", tiers = "ladder.csv" }]')
    (place / "sweep.toml").write_text(text + 'size = [{ notional = 1000 }]\n[margin]\nbasis = "entry"\n')
    assert refused(place, 2, "run", "sweep.toml") == "margin.basis: rule 'binance-usdm' fixes it to 'mark'; got 'entry'"


# --- ambiguity: exit code 2, the choices listed -----------------------------------------------------------------------


def test_an_ambiguous_interval_lists_the_choices(place: Path) -> None:
    stamps, columns = prices()
    for step, interval in ((1, "1h"), (4, "4h")):
        pq.write_table(table_of(stamps[::step], {k: v[::step] for k, v in columns.items()}), place / "p.parquet")
        words = ["--symbol", "X", "--interval", interval, "--prices", "p.parquet", "--out", "two"]
        assert typed("import", "generic", *words).code == 0
    (place / "sweep.toml").write_text(CONFIG.replace("market", "two").replace('["1h", "1d"]', '["4h"]'))
    for words in (["run", "sweep.toml"], ["events", "sweep.toml", "--out", "e.csv"]):
        assert refused(place, 2, *words) == "data.interval must name one of the intervals of two: 1h, 4h"
    # By duration, however it is written.
    (place / "sweep.toml").write_text((place / "sweep.toml").read_text().replace('"two"', '"two"\ninterval = "240m"'))
    assert typed("run", "sweep.toml", "--out", "run").code == 0


def test_a_bar_that_is_no_multiple_of_the_interval_is_not_imported(place: Path) -> None:
    pq.write_table(table_of(*prices()), place / "p.parquet")
    words = ["--symbol", "X", "--interval", "4h", "--prices", "p.parquet", "--out", "data"]
    said = refused(place, 1, "import", "generic", *words)
    assert said == (
        "p.parquet: column open_time must hold bar opens, multiples of 4h since the epoch; "
        "got 2020-01-01T01:00Z in row 1; are --interval and --time-zone right?"
    )


def test_a_charge_without_any_price_is_refused(place: Path) -> None:
    """A dataset with a range and a close but no open: the first charge after the entry has the close before it."""
    stamps = START + HOUR * np.arange(5)
    price = np.full(5, 10.0)
    columns = {"mark_high": price + 1, "mark_low": price - 1, "close": price, "funding_rate": np.full(5, 0.01)}
    table = table_of(stamps, columns)
    table = table.append_column("mark_close", pa.array([None] * 5, pa.float64()))
    pq.write_table(table, place / "charged.parquet")
    (place / "sweep.toml").write_text(CONFIG.replace("market", "charged.parquet").replace('["1h", "1d"]', '["1h"]'))
    said = refused(place, 1, "run", "sweep.toml")
    assert "the funding charged in the bar of 2020-01-01T01:00Z has no price to fall on" in said
