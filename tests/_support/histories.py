"""Histories that hypothesis makes, as the oracle's rows and as the package's `PriceHistory`."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from backtest.data.history import PRICES, PriceHistory, from_rows
from tests.oracles.walk import Rows

HOUR = 3_600_000
EXTRA = ("funding_rate", "maintenance_scale")


def history_of(rows: Rows, symbol: str = "TEST") -> PriceHistory:
    """The same history for the package: null is NaN."""
    columns = {}
    for name in (*PRICES, *EXTRA):
        values = getattr(rows, name)
        if values is not None:
            columns[name] = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    return from_rows(symbol, rows.interval_ms, np.array(rows.open_time_ms, dtype=np.int64), columns)


@st.composite
def bars(draw: st.DrawFn, n: int, level: float, holes: bool) -> dict[str, list[float | None]]:
    """Four price columns of `n` bars around `level`: few distinct moves, so that ties are common."""
    moves = draw(st.lists(st.sampled_from([0, 0, 1, -1, 2, -3, 8, -12, 30]), min_size=n, max_size=n))
    wicks = draw(st.lists(st.tuples(*[st.sampled_from([0, 0, 1, 5, 20])] * 2), min_size=n, max_size=n))
    lost = draw(st.lists(st.booleans() if holes else st.just(False), min_size=n, max_size=n))
    hidden = st.sampled_from([(), ("open", "high", "low", "close"), ("low",), ("high",), ("close",), ("open",)])
    nulls = draw(st.lists(hidden, min_size=n, max_size=n))  # one price alone may be missing
    out: dict[str, list[float | None]] = {name: [] for name in ("open", "high", "low", "close")}
    last = level
    for move, (up, down), gone, null in zip(moves, wicks, lost, nulls, strict=True):
        open_, close = last, last * (1 + move / 100)
        last = close
        values = {
            "open": open_,
            "close": close,
            "high": max(open_, close) * (1 + up / 100),
            "low": min(open_, close) * (1 - down / 100),
        }
        for name, value in values.items():
            out[name].append(None if gone and name in null else value)
    return out


@st.composite
def rows(draw: st.DrawFn, max_bars: int = 24) -> Rows:
    """A history: last and/or mark, missing bars, null prices, funding of both signs."""
    n = draw(st.integers(1, max_bars))
    level = draw(st.sampled_from([1e-8, 0.37, 100.0, 1e8]))
    start = draw(st.integers(0, 400)) * HOUR
    skipped = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 4]), min_size=n, max_size=n))
    times = [start + (sum(skipped[: i + 1]) - skipped[0]) * HOUR for i in range(n)]
    kinds = draw(st.sampled_from([("last",), ("mark",), ("last", "mark"), ("last", "mark")]))
    columns: dict[str, list[float | None]] = {}
    for kind in kinds:
        made = draw(bars(n, level, holes=draw(st.booleans())))
        columns |= {("mark_" if kind == "mark" else "") + name: values for name, values in made.items()}
    if draw(st.booleans()):
        rate = st.sampled_from([None, None, 0.0, 0.0001, -0.0003, 0.01, -0.02])
        columns["funding_rate"] = draw(st.lists(rate, min_size=n, max_size=n))
    return Rows(HOUR, times, **columns)


def random_rows(seed: int, n: int, *, gaps: bool = True, level: float = 100.0, funding: bool = True) -> Rows:
    """A longer history from a seed: fat tails, gaps, last and mark, funding every eight hours."""
    rng = np.random.default_rng(seed)
    close = level * np.exp(np.cumsum(rng.standard_t(3, n) * 0.004))
    mark = close * np.exp(rng.normal(0, 0.0005, n))
    columns: dict[str, list[float | None]] = {}
    for prefix, base in (("", close), ("mark_", mark)):
        opened = np.concatenate(([base[0]], base[:-1]))
        top = np.maximum(opened, base) * (1 + np.abs(rng.normal(0, 0.003, n)))
        bottom = np.minimum(opened, base) * (1 - np.abs(rng.normal(0, 0.003, n)))
        made = {"open": opened, "high": top, "low": bottom, "close": base}
        columns |= {prefix + name: [float(v) for v in values] for name, values in made.items()}
    keep = np.ones(n, dtype=bool)
    if gaps:
        for at in rng.integers(1, n - 10, 4):
            keep[at : at + rng.integers(1, 9)] = False
    if funding:
        rates = rng.normal(0, 0.0006, n)
        columns["funding_rate"] = [float(r) if t % 8 == 0 else None for t, r in enumerate(rates)]
    kept = np.flatnonzero(keep)
    return Rows(HOUR, [int(t) * HOUR for t in kept], **{k: [v[t] for t in kept] for k, v in columns.items()})
