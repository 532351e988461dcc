"""A sample history to try the package on: five invented years of a volatile market, the same for the same seed."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np

from backtest.arrays import Float
from backtest.data.history import PriceHistory
from backtest.errors import ConfigError
from backtest.units import duration_ms, instant_ms

START = "2020-01-01"
LEVEL = 50_000.0
TICKS = 10
"""Ticks of 0.1 in a unit of price."""
VOLATILITY = 0.55
"""Annual volatility, crashes aside."""
MINUTES_PER_YEAR = 365.25 * 1440
FUNDING_MS = 8 * 3_600_000


def demo_history(
    seed: int = 7, years: float = 5, interval: str = "1m", *, symbol: str = "DEMOUSDT", own: float = 0.0
) -> PriceHistory:
    """Invented bars of a perpetual swap: last and mark price, funding, crashes, wicks and a few gaps.

    Parameters
    ----------
    seed : int
        The same seed gives the same history.
    years : float
        From 2020-01-01 on; 5 years of minutes are 2.63 million bars and take about two seconds.
    interval : str
        Length of a bar, 1m to 1d.
    symbol : str
        The name it goes by.
    own : float
        Share of the variance of everyday moves that this symbol does not have in common with others of the same seed,
        0 to 1; crashes and the level of volatility are those of the market. Above 0 another symbol has other bars.

    Returns
    -------
    PriceHistory
        Prices in quote per base on a tick of 0.1, funding every 8 hours.

    Raises
    ------
    ConfigError
        If `years`, `interval` or `own` is out of range.

    Notes
    -----
    Log returns are Student-t with 4 degrees of freedom times a volatility of two scales, one forgotten in weeks and
    one in hours; the level reverts to 50,000 over months. Highs and lows are those of a Brownian bridge between open
    and close. The mark price is a running mean of minutes, so that a wick of the last price hardly moves it.

    Examples
    --------
    >>> demo_history(years=0.1, interval="1h").n_bars
    876
    """
    step = duration_ms(interval)
    if not 60_000 <= step <= 86_400_000:
        raise ConfigError(f"interval must be 1m to 1d; got {interval!r}")
    minutes = step / 60_000
    n_bars = int(years * MINUTES_PER_YEAR / minutes)
    if not n_bars * minutes >= 10 * 1440 or years > 50:
        raise ConfigError(f"years must be within 0.03 … 50; got {years:g}")
    if not 0 <= own <= 1:
        raise ConfigError(f"own must be a share within 0 … 1; got {own:g}")
    rng = np.random.default_rng(seed)
    push, stir = _crashes(rng, n_bars, minutes, years)
    volatility = _volatility(rng, n_bars, minutes, stir)
    shocks = _shocks(rng, n_bars)
    if own:
        rng = np.random.default_rng([seed, crc32(symbol.encode())])
        shocks = math.sqrt(1 - own) * shocks + math.sqrt(own) * _shocks(rng, n_bars)
    path = _ar1(volatility * shocks + push, half_life=90 * 1440 / minutes)  # log of close / LEVEL
    smooth = _running_mean(path, 3 / minutes)  # three minutes
    columns: dict[str, Float] = {}
    for prefix, line, roughness in (("", path, 1.0), ("mark_", smooth, 0.6)):
        columns |= {prefix + name: values for name, values in _bars(rng, line, volatility * roughness).items()}
    _wicks(rng, columns, years)
    start = instant_ms(START)
    for name, values in columns.items():
        columns[name] = np.round(values * TICKS) / TICKS
    funding = _funding(rng, path, start, step)
    for gap in _gaps(rng, n_bars, start, step):
        for values in columns.values():
            values[gap] = np.nan
    return PriceHistory(symbol, step, start, columns | {"funding_rate": funding})


def _shocks(rng: np.random.Generator, n_bars: int) -> Float:
    """Independent, of variance 1, with fat tails."""
    return np.clip(rng.standard_t(4, n_bars) / math.sqrt(2), -25, 25)


def _ar1(noise: Float, half_life: float) -> Float:
    """``x_t = a·x_{t−1} + noise_t`` that forgets half in `half_life` steps."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], [1.0, -math.pow(0.5, 1 / half_life)], noise), dtype=np.float64)


def _running_mean(line: Float, half_life: float) -> Float:
    decay = math.pow(0.5, 1 / half_life)
    mean: Float = _ar1((1 - decay) * (line - line[0]), half_life) + line[0]
    return mean


def _volatility(rng: np.random.Generator, n_bars: int, minutes: float, stir: Float) -> Float:
    """Standard deviation of the log return of each bar."""
    log = stir
    for half_life, spread in ((20 * 1440, 0.40), (4 * 60, 0.30)):
        bars = half_life / minutes
        scale = spread * math.sqrt(max(0.0, 1 - 0.25 ** (1 / bars)))
        log = log + _ar1(rng.standard_normal(n_bars) * scale, bars)
    relative: Float = np.exp(log)
    relative *= VOLATILITY * math.sqrt(minutes / MINUTES_PER_YEAR / float(np.mean(relative**2)))
    return relative


def _crashes(rng: np.random.Generator, n_bars: int, minutes: float, years: float) -> tuple[Float, Float]:
    """Log returns of falls within one or two hours and of half their recovery; and by how much log volatility rises."""
    push, stir = np.zeros(n_bars), np.zeros(n_bars)
    count = max(2, round(1.6 * years))
    width = n_bars // (count + 1)
    for number in range(count):
        size = math.log1p(-0.24) if number == count // 2 else math.log1p(-rng.uniform(0.09, 0.20))
        if number % 4 == 3:
            size = -0.6 * size  # a squeeze
        first = int((number + 0.5) * width + rng.uniform(0, width))
        fall = max(1, round(rng.uniform(50, 120) / minutes))
        push[first : first + fall] += _shares(rng, n_bars, first, fall) * size
        back = max(1, round(rng.uniform(1, 4) * 1440 / minutes))
        after = first + fall
        push[after : after + back] -= _shares(rng, n_bars, after, back) * size * rng.uniform(0.3, 0.6)
        age = np.arange(n_bars - first) * minutes / 1440
        near = age < 6
        stir[first:][near] += 1.1 * np.exp(-age[near] / 0.8)
    return push, stir


def _shares(rng: np.random.Generator, n_bars: int, first: int, count: int) -> Float:
    """Uneven positive shares of a move over `count` bars, cut at the end of the history."""
    shares: Float = rng.gamma(0.7, size=count) + 1e-9
    shares /= shares.sum()
    return shares[: max(0, n_bars - first)]


def _bars(rng: np.random.Generator, line: Float, volatility: Float) -> dict[str, Float]:
    """Open, high, low and close around a line of log closes; extremes of a Brownian bridge."""
    before = np.concatenate((line[:1], line[:-1]))
    middle = (before + line) / 2
    half = (line - before) ** 2 / 4
    bars = {"open": before, "close": line}
    for name, sign in (("high", 1.0), ("low", -1.0)):
        reach = half + volatility**2 / 2 * rng.standard_exponential(line.size)
        bars[name] = middle + sign * np.sqrt(reach)
    return {name: LEVEL * np.exp(bars[name]) for name in ("open", "high", "low", "close")}


def _wicks(rng: np.random.Generator, columns: dict[str, Float], years: float) -> None:
    """Single bars whose last price runs off and comes back; the mark price follows a third of the way."""
    n_bars = columns["close"].size
    for name, sign, count in (("low", -1.0, round(8 * years)), ("high", 1.0, round(5 * years))):
        bars = rng.integers(0, n_bars, max(1, count))
        depth = rng.uniform(0.015, 0.09, bars.size)
        further = np.minimum if sign < 0 else np.maximum
        for prefix, share in (("", 1.0), ("mark_", 0.33)):
            tip = columns[prefix + "close"][bars] * (1 + sign * share * depth)
            columns[prefix + name][bars] = further(columns[prefix + name][bars], tip)


def _funding(rng: np.random.Generator, path: Float, start: int, step: int) -> Float:
    """Rates charged every 8 hours, leaning to the trend of the last three days, within ±0.3 %."""
    stamps = np.arange(start + FUNDING_MS, start + path.size * step, FUNDING_MS)
    bars = (stamps - start) // step
    earlier = np.maximum(bars - 1 - 3 * 86_400_000 // step, 0)
    trend = path[np.maximum(bars - 1, 0)] - path[earlier]
    rates = np.round(np.clip(1e-4 + 4e-3 * trend + 5e-5 * rng.standard_normal(bars.size), -3e-3, 3e-3), 8)
    funding = np.bincount(bars, weights=rates, minlength=path.size).astype(np.float64)
    funding[np.bincount(bars, minlength=path.size) == 0] = np.nan
    return funding


def _gaps(rng: np.random.Generator, n_bars: int, start: int, step: int) -> list[slice]:
    """Outages of minutes to hours; one lies over a funding charge."""
    gaps = []
    for first in rng.integers(n_bars // 20, n_bars - n_bars // 20, 5):
        gaps.append(slice(int(first), int(first) + max(1, int(rng.uniform(3, 150) * 60_000 / step))))
    charge = ((start + n_bars * step // 3) // FUNDING_MS * FUNDING_MS - start) // step
    gaps.append(slice(charge - 1, charge + 1 + max(1, 10 * 60_000 // step)))
    return gaps
