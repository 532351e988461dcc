"""Coarser bars: of a history and of a dataset, year by year as in one piece, and what the exchange itself printed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import backtest as bt
from backtest.cli import cli
from backtest.data import resample as resampling
from backtest.data.dataset import list_series, read_history, write_history
from backtest.data.history import PRICES, PriceHistory
from backtest.data.resample import resample, resample_dataset
from backtest.data.writer import adding
from backtest.errors import ConfigError
from backtest.units import instant_ms, instant_text
from tests._support.histories import HOUR, history_of, random_rows

WRONG_IN_THE_FILES = {"2024-10-28T20:00Z", "2024-10-28T21:00Z", "2025-01-14T15:00Z"}
"""Two hours of the 15-minute files are flat, and one low is missing from them."""
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "binance_um"


def test_bars_are_made_of_the_known_bars_inside_them() -> None:
    nan = np.nan
    columns = {
        "open": np.array([9.0, nan, 2.0, 3.0, 5.0, 7.0, 8.0]),
        "high": np.array([9.0, nan, 4.0, 3.5, 5.5, 7.0, 9.0]),
        "low": np.array([8.0, nan, 1.0, 2.5, 4.5, 6.0, 8.0]),
        "close": np.array([8.5, nan, 3.0, 3.0, 5.0, 6.5, 9.0]),
        "funding_rate": np.array([0.1, nan, 0.01, 0.02, nan, nan, nan]),
        "volume": np.array([1.0, nan, 2.0, 3.0, 4.0, 5.0, 6.0]),
        "maintenance_scale": np.array([1.0, nan, 2.0, 1.0, 0.5, 0.5, 1.0]),
    }
    # Bars of an hour from 02:00: the first whole three-hour bar opens at 03:00, the last hour is left out.
    found = resample(bt.PriceHistory("COIN", HOUR, 2 * HOUR, columns), "3h")
    assert found.start_ms == 3 * HOUR and found.before == {"close": 8.5}
    assert found.columns["open"].tolist() == [2.0, 5.0]
    assert found.columns["high"].tolist() == [4.0, 9.0]
    assert found.columns["low"].tolist() == [1.0, 4.5]
    assert found.columns["close"].tolist() == [3.0, 9.0]
    assert found.columns["funding_rate"][0] == 0.03 and np.isnan(found.columns["funding_rate"][1])
    assert found.columns["volume"].tolist() == [5.0, 15.0]
    assert found.columns["maintenance_scale"].tolist() == [2.0, 1.0]


def test_in_two_steps_as_in_one() -> None:
    history = history_of(random_rows(5, 500))
    once, twice = resample(history, "12h"), resample(resample(history, "4h"), "12h")
    for name in once.columns:
        np.testing.assert_allclose(once.columns[name], twice.columns[name], rtol=1e-15)  # sums of funding


@pytest.mark.parametrize(("interval", "message"), [("90m", "multiple of the history's 1h"), ("52w", "longer than")])
def test_impossible_intervals_are_refused(interval, message) -> None:
    with pytest.raises(bt.ConfigError, match=message):
        resample(history_of(random_rows(5, 500)), interval)


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


def hours_of(history: PriceHistory, name: str, start_ms: int, stop_ms: int) -> np.ndarray:
    """A column within a range, a row per hour."""
    ends = ((instant - history.start_ms) // history.interval_ms for instant in (start_ms, stop_ms))
    return history.columns[name][slice(*ends)].reshape((stop_ms - start_ms) // HOUR, -1)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared histories are not there")
@pytest.mark.parametrize(
    ("symbol", "interval", "least"), [("BTCUSDT", "15m", 10_000), ("ETHUSDT", "15m", 10_000), ("BTCUSDT", "5m", 30_000)]
)
def test_equal_to_the_independent_hourly_file(symbol: str, interval: str, least: int, tmp_path: Path) -> None:
    """Every hour that both have; of the bars of 5 minutes, some of which are missing, every hour with all of them."""
    for name in (interval, "1h"):
        bt.import_generic(symbol, name, DATA / f"{symbol}-{name}.parquet", out=tmp_path / name)
    assert len(list(resample_dataset(tmp_path / interval, ["1h"], tmp_path / "made"))) == 1
    fine, made, truth = (read_history(tmp_path / name, symbol) for name in (interval, "made", "1h"))
    start = max(made.start_ms, truth.start_ms)
    stop = min(history.start_ms + history.n_bars * HOUR for history in (made, truth))
    known = np.full((stop - start) // HOUR, True)
    if interval == "5m":
        known = ~np.isnan(hours_of(fine, "close", start, stop)).any(axis=1)
    for name in (name for name in PRICES if name in made.columns and name in truth.columns):
        one, two = (hours_of(history, name, start, stop)[:, 0] for history in (made, truth))
        assert (known & ~np.isnan(two)).sum() > least
        unknown = np.isnan(two) if interval == "5m" else np.isnan(one) & np.isnan(two)
        differ = np.flatnonzero(known & (one != two) & ~unknown)
        assert {instant_text(start + int(bar) * HOUR) for bar in differ} <= WRONG_IN_THE_FILES, name
