"""``backtest resample``: year by year the same as in one piece, and what the exchange itself printed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from backtest.cli import cli
from backtest.data import resample as resampling
from backtest.data.dataset import list_series, read_history, write_history
from backtest.data.history import PRICES, PriceHistory
from backtest.data.resample import resample, resample_dataset
from backtest.data.writer import adding
from backtest.errors import ConfigError
from backtest.units import instant_ms, instant_text
from tests._support.histories import HOUR
from tests._support.real import REAL
from tests.data.test_resample import WRONG_IN_THE_FILES

needs_hours = pytest.mark.skipif(not (REAL / "binance_um").is_dir(), reason="no real histories here")


def five_years(gap: slice) -> PriceHistory:
    """Bars of twelve hours with mark prices, funding and volume over three new years, and a gap."""
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 2500)))
    columns = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close}
    columns |= {"mark_" + name: values * 1.001 for name, values in columns.items()}
    columns["funding_rate"] = np.where(rng.random(2500) < 0.6, rng.normal(0, 1e-4, 2500), np.nan)
    columns["volume"] = rng.uniform(1, 9, 2500)
    for values in columns.values():
        values[gap] = np.nan
    return PriceHistory("X", 12 * HOUR, instant_ms("2019-03-05T12:00Z"), columns)


def same(one: PriceHistory, two: PriceHistory) -> None:
    """The same where a bar has any value; missing bars at the ends are no rows."""
    filled = np.flatnonzero(np.any([~np.isnan(values) for values in two.columns.values()], axis=0))
    cut = slice(filled[0], filled[-1] + 1)
    assert one.start_ms == two.start_ms + int(filled[0]) * two.interval_ms
    for name, values in two.columns.items():
        np.testing.assert_array_equal(one.columns[name], values[cut], err_msg=name)


@pytest.mark.parametrize("to", ["1d", "3d", "1w", "400d"])  # the last three cross new years
@pytest.mark.parametrize("gap", [slice(600, 602), slice(590, 2100)], ids=["a new year", "years"])
def test_year_by_year_is_in_one_piece(tmp_path: Path, to: str, gap: slice) -> None:
    history = five_years(gap)
    write_history(history, tmp_path)
    [done] = resample_dataset(tmp_path, [to], tmp_path)
    whole = resample(history, to)
    found = read_history(tmp_path, "X", to)
    same(found, whole)
    assert done.rows == int(np.any([~np.isnan(values) for values in whole.columns.values()], axis=0).sum())
    assert done.span_ms == (found.start_ms, found.start_ms + (found.n_bars - 1) * found.interval_ms)


def test_no_more_than_a_year_is_looked_at_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(five_years(slice(0, 0)), tmp_path)
    seen: list[int] = []

    def note(history: PriceHistory, interval: str) -> PriceHistory:
        seen.append(history.n_bars)
        return resample(history, interval)

    monkeypatch.setattr(resampling, "resample", note)
    assert len(list(resample_dataset(tmp_path, ["1d"], tmp_path / "out"))) == 1
    assert len(seen) == 4
    assert max(seen) == 2 * 366
    assert sum(seen) == 2500


def test_the_command_takes_the_finest_bars_and_says_what_it_wrote(tmp_path: Path) -> None:
    write_history(five_years(slice(0, 0)), tmp_path)
    data = str(tmp_path)
    said = CliRunner().invoke(cli, ["resample", data, "--to", "1d", "--to", "2d", "--out", data])
    assert said.exit_code == 0, said.output
    assert [line.split(":")[0].split("/")[-2] for line in said.output.splitlines()] == ["interval=1d", "interval=2d"]
    assert {series.interval for series in list_series(data)} == {"12h", "1d", "2d"}
    with adding(data, "X", 12 * HOUR, "add") as addition:  # two more days
        last = five_years(slice(0, 0))
        columns = {name: values[:4] for name, values in last.columns.items()}
        addition.add(PriceHistory("X", 12 * HOUR, last.start_ms + 2500 * 12 * HOUR, columns))
    again = CliRunner().invoke(cli, ["resample", data, "--to", "1d", "--out", data, "--add"])
    assert again.exit_code == 0, again.output
    same(read_history(data, "X", "1d"), resample(read_history(data, "X", "12h"), "1d"))


def test_nothing_is_written_where_something_is_wrong(tmp_path: Path) -> None:
    write_history(five_years(slice(0, 0)), tmp_path / "data")
    write_history(resample(five_years(slice(0, 0)), "2d"), tmp_path / "out")
    data, out = tmp_path / "data", tmp_path / "out"
    for options, text in (
        ({"to": ["1d", "18h"]}, "--to must be a multiple of the bars' 12h of X, and longer; got '18h'"),
        ({"to": ["1d", "12h"]}, "and longer; got '12h'"),
        ({"to": ["1d", "24h"]}, "--to holds one interval twice"),
        ({"to": ["1d", "2d"]}, "interval=2d/symbol=X exists; take another --out"),
        ({"to": ["1d"], "symbols": ["Y"]}, "--symbol: 'Y' is not in .*; there are X"),
        ({"to": ["1d"], "interval": "1h"}, "--interval must be one of those of .*: 12h; got '1h'"),
        ({"to": ["2000d"]}, "shorter than a bar of 2000d"),
    ):
        with pytest.raises(ConfigError, match=text):
            list(resample_dataset(data, out=out, **options))  # type: ignore[arg-type]
        assert os.listdir(out) == ["interval=2d"]


@needs_hours
def test_five_minutes_are_the_hours_of_the_exchange(tmp_path: Path) -> None:
    """Every hour with all of its twelve bars, of 3½ years of BTC, against the file of hours of another source."""
    frame = pq.read_table(REAL / "binance_um" / "BTCUSDT-5m.parquet").to_pandas()
    fine = PriceHistory.from_frame(frame.rename(columns={"timestamp": "open_time"}), "BTCUSDT", "5m")
    write_history(fine, tmp_path)
    assert len(list(resample_dataset(tmp_path, ["1h"], tmp_path))) == 1
    made = read_history(tmp_path, "BTCUSDT", "1h")
    hours = pq.read_table(REAL / "binance_um" / "BTCUSDT-1h.parquet").to_pandas()
    truth = PriceHistory.from_frame(hours.rename(columns={"timestamp": "open_time"}), "BTCUSDT", "1h")
    assert fine.start_ms == made.start_ms
    whole = ~np.isnan(fine.columns["close"][: made.n_bars * 12]).reshape(-1, 12).any(axis=1)
    assert whole.sum() > 30_000
    first = (made.start_ms - truth.start_ms) // HOUR
    for name in (name for name in PRICES if name in made.columns):
        theirs = truth.columns[name][first : first + made.n_bars]
        known = whole[: theirs.size] & ~np.isnan(theirs)
        differ = np.flatnonzero(known & (made.columns[name][: theirs.size] != theirs))
        assert known.sum() > 30_000
        assert {instant_text(made.start_ms + int(bar) * HOUR) for bar in differ} <= WRONG_IN_THE_FILES, name
