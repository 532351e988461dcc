"""§2, §5 of docs/semantics.md: realised volatility, leverage weights that aim at one, maintenance raised by it."""

import math
from dataclasses import replace

from tests.oracles.history import Grid

YEAR_MS = 365 * 86_400_000


def volatility_at(grid: Grid, t: int, window_bars: int) -> float | None:
    """§2: sqrt(mean r²) over the known returns of the bars t−W+1 … t, per year; None where too few are known."""
    if t < window_bars:
        return None
    total = 0.0
    known = 0
    for u in range(t - window_bars + 1, t + 1):
        close, before = grid.entry_price[u], grid.entry_price[u - 1]
        if close is None or before is None:
            continue
        total += math.log(close / before) ** 2
        known += 1
    if known < 1 or 2 * known < window_bars:
        return None
    return math.sqrt(total / known) * math.sqrt(YEAR_MS / grid.interval_ms)


def realised_volatility(grid: Grid, window_bars: int) -> list[float | None]:
    """§2: vol_t of every bar, from the entry prices of the grid."""
    if window_bars < 1:
        raise ValueError(f"a window of {window_bars} bars")
    return [volatility_at(grid, t, window_bars) for t in range(len(grid.open_time_ms))]


def target_weights(grid: Grid, window_bars: int, target: float, cap: float) -> list[float | None]:
    """§2: w_i = min(cap, target / vol_i), the cap where vol_i is 0; None, no entry, where it is not known."""
    weights: list[float | None] = []
    for vol in realised_volatility(grid, window_bars):
        if vol is None:
            weights.append(None)
        else:
            weights.append(cap if vol == 0 else min(cap, target / vol))
    return weights


def scaled(grid: Grid, window_bars: int, reference: float, cap: float) -> Grid:
    """§5: g_t times min(cap, max(1, vol_{t−1}/reference)); unchanged where vol_{t−1} is not known."""
    if cap < 1 or reference <= 0:
        raise ValueError(f"cap {cap}, reference {reference}")
    volatility = realised_volatility(grid, window_bars)
    scale: list[float] = []
    for t, g in enumerate(grid.scale):
        before = volatility[t - 1] if t > 0 else None  # what is known before the bar
        scale.append(g if before is None else g * min(cap, max(1.0, before / reference)))
    return replace(grid, scale=scale)
