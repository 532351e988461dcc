"""The sample history is deterministic, sound, and looks like a market with crashes."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.data.history import PriceHistory
from backtest.data.quality.check import check_history
from backtest.data.synthetic import demo_history
from backtest.engine.bars import build_grid
from backtest.errors import ConfigError

DAY = 86_400_000


@pytest.fixture(scope="module")
def demo() -> PriceHistory:
    return demo_history()


def test_it_is_five_years_of_minutes(demo: PriceHistory) -> None:
    assert (demo.symbol, demo.interval_ms, demo.n_bars) == ("DEMOUSDT", 60_000, 2_629_800)
    assert demo.start_ms == 1_577_836_800_000
    assert demo.series == {"last", "mark"}


def test_it_passes_the_check_and_has_a_few_short_gaps(demo: PriceHistory) -> None:
    report = check_history(demo)
    assert report.ok, report.text()
    (one,) = report.coverage
    assert 3 <= one.gaps <= 6
    assert one.longest_gap <= 300
    assert one.trigger == "mark"


def test_a_seed_says_it_all() -> None:
    one, two, other = (demo_history(seed, years=0.2, interval="5m") for seed in (3, 3, 4))
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name])
    assert not np.array_equal(one.columns["close"], other.columns["close"], equal_nan=True)


def test_level_and_volatility_are_those_of_a_large_coin(demo: PriceHistory) -> None:
    close = demo.columns["close"]
    assert 18_000 < np.nanmin(demo.columns["low"]) < 30_000
    assert 60_000 < np.nanmax(demo.columns["high"]) < 110_000
    daily = np.diff(np.log(close[::1440]))
    assert 0.5 < np.nanstd(daily) * np.sqrt(365.25) < 0.7
    assert np.nanmean(daily**4) / np.nanmean(daily**2) ** 2 > 4  # fat tails
    size = np.abs(daily[~np.isnan(daily)])
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.05  # calm and wild days cluster


def test_it_crashes_by_a_quarter_within_two_hours(demo: PriceHistory) -> None:
    log = np.log(demo.columns["close"])
    two_hours = np.expm1(log[120:] - log[:-120])
    assert -0.30 < np.nanmin(two_hours) < -0.20


def test_prices_are_on_the_tick(demo: PriceHistory) -> None:
    for name in ("open", "mark_low"):
        values = demo.columns[name][~np.isnan(demo.columns[name])]
        np.testing.assert_array_equal(values, np.round(values, 1))


def test_wicks_of_the_last_price_spare_the_mark(demo: PriceHistory) -> None:
    deeper = 1 - demo.columns["low"] / demo.columns["mark_low"]
    assert np.nanmax(deeper) > 0.03
    assert np.nanstd(np.log(demo.columns["mark_close"] / demo.columns["close"])) < 0.003
    moves = {name: np.nanstd(np.diff(np.log(demo.columns[name]))) for name in ("close", "mark_close")}
    assert moves["mark_close"] < 0.7 * moves["close"]


def test_funding_is_charged_every_eight_hours_in_both_directions(demo: PriceHistory) -> None:
    funding = demo.columns["funding_rate"]
    charged = np.flatnonzero(~np.isnan(funding))
    assert set(np.diff(charged)) == {480}
    assert charged[0] == 480
    rates = funding[charged]
    assert np.abs(rates).max() <= 0.003
    assert 0.1 < (rates < 0).mean() < 0.5
    known = charged[charged > 4320]
    trend = np.log(demo.columns["close"][known - 1] / demo.columns["close"][known - 4321])
    sound = ~np.isnan(trend)
    assert np.corrcoef(trend[sound], funding[known][sound])[0, 1] > 0.8


def test_one_charge_falls_into_a_gap(demo: PriceHistory) -> None:
    charged = ~np.isnan(demo.columns["funding_rate"])
    assert (charged & np.isnan(demo.columns["mark_open"]) & np.isnan(demo.columns["open"])).any()
    assert np.isfinite(build_grid(demo).charge_price).all()


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "4h", "1d"])
@pytest.mark.parametrize("seed", range(3))
def test_every_interval_and_seed_is_sound(interval: str, seed: int) -> None:
    report = check_history(demo_history(seed, years=0.5, interval=interval))
    assert report.ok, report.text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"years": 0.0}, "years must be within 0.03 … 50; got 0"),
        ({"years": -1.0}, "years must be within 0.03 … 50; got -1"),
        ({"years": 51.0, "interval": "1d"}, "years must be within 0.03 … 50; got 51"),
        ({"years": 1.0, "interval": "30s"}, "interval must be 1m to 1d; got '30s'"),
        ({"years": 1.0, "interval": "1w"}, "interval must be 1m to 1d; got '1w'"),
        ({"years": 1.0, "interval": "often"}, "a duration is a whole number"),
        ({"years": 1.0, "interval": "1h", "own": 1.5}, r"own must be a share within 0 … 1; got 1\.5"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        demo_history(**arguments)


def test_symbols_of_one_seed_are_of_one_market() -> None:
    """Without a share of its own only the name differs; with one, √(1 − own) · √(1 − own) = 0.6 of the moves agree."""
    made = [("A", 0.0), ("B", 0.0), ("B", 0.4), ("C", 0.4)]
    one, same, other, apart = (demo_history(5, 1, "1h", symbol=name, own=own) for name, own in made)
    assert (one.symbol, same.symbol) == ("A", "B")
    np.testing.assert_array_equal(one.columns["low"], same.columns["low"])
    moves = [np.diff(np.log(history.columns["close"])) for history in (other, apart)]
    known = ~np.isnan(moves[0]) & ~np.isnan(moves[1])
    assert 0.5 < np.corrcoef(moves[0][known], moves[1][known])[0, 1] < 0.75  # crashes are shared whole
