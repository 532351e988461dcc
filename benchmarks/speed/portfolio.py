"""How fast is cross margin counted, against plain scans?

Run: ``python -m benchmarks.speed.portfolio [--every 1h]``, single thread. Five symbols of generated 1-minute bars that
share most of their moves, of mixed signs; horizons up to 30 days. A plain scan looks at every bar of every entry's
window, all horizons nested, and is timed on a sample of the entries: written plainly, and with the sums of many bars
taken together, which the compiler turns into vector instructions. Both are compared with the whole block of entries:
series, trees, searches and counts of 125 leverages.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numba
import numpy as np

import backtest as bt
from backtest.config.models import Config
from backtest.config.portfolio_scenarios import expand_portfolios
from backtest.data.history import PRICES, PriceHistory
from backtest.data.synthetic import LEVEL, demo_history
from backtest.engine.count_portfolio import Local, count_portfolio, slice_legs
from backtest.engine.portfolio import PortfolioPopulation, prepare_portfolio
from backtest.engine.thresholds import TIE
from backtest.runs.inputs import checked_sources, read_portfolio_grids
from benchmarks.common import best

WEIGHTS = {"A": 0.30, "B": 0.20, "C": -0.25, "D": 0.10, "E": -0.15}
BETA = {"A": 1.0, "B": 1.2, "C": 0.9, "D": 1.5, "E": 1.1}
OWN = 0.5
"""Power of a symbol's own path beside the common one: correlations of hourly returns of about 0.8."""
HORIZONS = ("1h", "8h", "1d", "7d", "30d")
MAINTENANCE = 0.005


def histories(years: float) -> list[PriceHistory]:
    """Symbols that share a path, each to its own power."""
    common = demo_history(seed=1, years=years)
    out = []
    for number, (symbol, beta) in enumerate(BETA.items()):
        own = demo_history(seed=10 + number, years=years)
        columns = {
            name: LEVEL * (common.columns[name] / LEVEL) ** beta * (own.columns[name] / LEVEL) ** OWN
            for name in PRICES
            if name in common.columns
        }
        columns["funding_rate"] = own.columns["funding_rate"]
        out.append(PriceHistory(symbol, own.interval_ms, own.start_ms, columns))
    return out


@numba.njit(nogil=True, error_model="numpy")
def plain_scan(value, bar, weight, horizon, out):
    """Every bar of every window, its sum over the legs, the largest so far."""
    for j in range(bar.size):
        best = -np.inf
        t = bar[j] + 1
        for h in range(horizon.size):
            stop = min(bar[j] + horizon[h] + 1, value.shape[1])
            while t < stop:
                x = 0.0
                for k in range(weight.shape[1]):
                    x += weight[j, k] * value[k, t]
                best = max(best, x)
                t += 1
            out[j, h] = best


@numba.njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
def vector_scan(value, bar, weight, horizon, out):
    """The same, 1024 bars of one leg after the other."""
    total = np.empty(1024)
    for j in range(bar.size):
        best = -np.inf
        t = bar[j] + 1
        for h in range(horizon.size):
            stop = min(bar[j] + horizon[h] + 1, value.shape[1])
            while t < stop:
                n = np.uint64(min(1024, stop - t))
                begin = np.uint64(t)
                total[:n] = 0.0
                for k in range(weight.shape[1]):
                    a = weight[j, k]
                    for u in range(n):
                        total[u] += a * value[k, begin + u]
                for u in range(n):
                    best = max(best, total[u])
                t += 1024 if stop - t > 1024 else stop - t
            out[j, h] = best


def adverse_series(local: Local) -> np.ndarray:
    """(n_legs, n_bars), a number below all others where a bar has no prices."""
    rows = [(MAINTENANCE - leg.sign) * leg.price + leg.sign * leg.paid for leg in local.legs]
    return np.nan_to_num(np.array(rows), nan=-1e300)


def counted(rates: np.ndarray, population: PortfolioPopulation, local: Local, weight: np.ndarray) -> np.ndarray:
    """Liquidations per horizon and leverage of the entries whose windows lie inside the grid."""
    offset = sum(leg.sign * (leg.weight - a * leg.paid[local.bar]) for leg, a in zip(local.legs, weight.T, strict=True))
    dead = (1 - TIE) / population.base.leverages <= (rates + offset[:, None])[..., None]
    inside = local.start + local.bar[:, None] + np.array(population.base.horizons) < population.base.grid.n_bars
    return (dead & inside[..., None]).sum(axis=0)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", default="1h")
    parser.add_argument("--years", type=float, default=0.55)
    parser.add_argument("--sample", type=int, default=200, help="entries that the plain scans look at")
    given = parser.parse_args()
    # At a call ratio of 1 the margin call is the liquidation: one question per entry, horizon and leverage.
    config = Config(
        sweep=bt.Sweep(portfolio=[WEIGHTS], leverage=range(1, 126), horizon=HORIZONS, maintenance=[MAINTENANCE]),
        entries=bt.Entries(every=given.every),
        margin=bt.Margin(margin_call_ratio=1.0),
    )
    scenario = expand_portfolios(config)[0]
    sources = checked_sources(histories(given.years), config)
    population = prepare_portfolio(config, read_portfolio_grids(config, sources, [scenario]), [scenario])
    n_entries, chunks = population.base.bars.size, population.chunks()
    seconds = best(lambda: [count_portfolio(population, [scenario], chunk) for chunk in chunks]) / n_entries
    print(f"{len(WEIGHTS)} symbols, {population.base.grid.n_bars:,} bars in common, {n_entries:,} entries")
    print(f"block of entries    {seconds * 1e6:9.2f} µs per entry")
    every_nth = max(1, n_entries // given.sample)
    thin = replace(population, base=replace(population.base, bars=population.base.bars[::every_nth]))
    local = slice_legs(thin, scenario, slice(0, thin.base.bars.size))
    value, horizon = adverse_series(local), np.array(population.base.horizons)
    weight = np.column_stack([leg.weight / leg.entry for leg in local.legs])
    rates = np.empty((local.bar.size, horizon.size))
    want = count_portfolio(thin, [scenario], slice(0, local.bar.size))[0]["liquidations"][0].sum(axis=-1)
    for name, scan in (("plain scan", plain_scan), ("vector scan", vector_scan)):
        took = best(lambda scan=scan: scan(value, local.bar, weight, horizon, rates), 2) / local.bar.size
        same = "same counts" if (counted(rates, thin, local, weight) == want).all() else "COUNTS DIFFER"
        print(f"{name:16} {took * 1e6:9.2f} µs per entry   {took / seconds:6.1f}×   {same}")


if __name__ == "__main__":
    main()
