"""Digests of what was read."""

from __future__ import annotations

import numpy as np
from xxhash import xxh3_128

from backtest.grids import Grid

OF_BARS = (
    *("entry_price", "open", "high", "low", "close", "scale"),
    *("last_open", "last_high", "last_low"),
)
"""What a grid holds of each bar."""


class Fingerprint:
    """Digest of every number of a grid that a verdict can depend on, taken stretch by stretch.

    A change is found, not an attack: XXH3, of 128 bits, at the speed of memory.
    """

    def __init__(self) -> None:
        self._head = ""
        self._bars = 0
        self._columns: dict[str, xxh3_128] = {}

    def add(self, grid: Grid, own_bars: int) -> None:
        """Take the first bars of a grid, which follow those that were taken."""
        self._head = self._head or f"{grid.symbol} {grid.interval_ms} {grid.start_ms} {grid.trigger}"
        charges = slice(0, int(np.searchsorted(grid.charge_bar, own_bars)))
        parts = {name: getattr(grid, name)[:own_bars] for name in OF_BARS if getattr(grid, name) is not None}
        parts |= {name: getattr(grid, name)[charges] for name in ("charge_rate", "charge_price")}
        parts["charge_bar"] = grid.charge_bar[charges] + self._bars
        for name, values in parts.items():
            self._columns.setdefault(name, xxh3_128()).update(np.ascontiguousarray(values).data)
        self._bars += own_bars

    def hexdigest(self) -> str:
        """Of all that was taken."""
        parts = [self._head, *(f"{name} {found.hexdigest()}" for name, found in sorted(self._columns.items()))]
        return xxh3_128("\n".join(parts).encode()).hexdigest()


def fingerprint(grid: Grid) -> str:
    """As `Fingerprint`, of a whole grid."""
    found = Fingerprint()
    found.add(grid, grid.n_bars)
    return found.hexdigest()
