"""Runs made of counts per calendar block alone, as tables worked by hand need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backtest.runs.count_files import point_axes, write_blocks
from backtest.runs.result import Result
from backtest.stats.survival_table import COUNTS, SurvivalTable
from backtest.units import duration_ms

HOUR = 3_600_000


def block_run(
    folder: Path,
    entries: ArrayLike,
    liquidations: ArrayLike,
    *,
    first_block: int = 0,
    horizon: str = "1d",
    leverage: tuple[float, ...] | None = None,
    symbol: str = "COIN",
    block: str = "7d",
    own: bool = False,
    margin: dict[str, Any] | None = None,
    **scenario: Any,
) -> Result:
    """A run of one scenario and horizon; counts are (n_leverages, n_blocks), or (n_blocks,) of leverage 1."""
    opened, dead = (np.atleast_2d(np.asarray(values, np.int64)) for values in (entries, liquidations))
    grid = leverage or tuple(float(n + 1) for n in range(len(dead)))
    counts = np.zeros((len(COUNTS), 1, 1, len(grid), dead.shape[-1]), np.int64)
    counts[COUNTS.index("entries"), 0, 0] = opened
    counts[COUNTS.index("liquidations"), 0, 0] = dead
    labels: dict[str, Any] = {"side": "long", "maintenance": "0.004", "open_fee": 0.0, "funding_scale": 1.0}
    labels |= {"funding_shift": 0.0, "size": None, **scenario}
    bars = dead.shape[-1] * duration_ms(block) // HOUR
    info: dict[str, Any] = {
        "config": {
            "sweep": {"horizon": [horizon], "leverage": list(grid)},
            "statistics": {"confidence": 0.95, "block": block, "replications": 400, "seed": 7},
            "margin": margin or {},
        },
        "interval_ms": HOUR,
        "own_leverage": own,
        "coverage": [{"symbol": symbol, "bars": bars, "present_bars": bars}],
        "blocks": [{"symbol": symbol, "scenario": labels, "file": "one.parquet", "row_group": 0}],
    }
    (folder / "blocks").mkdir(parents=True)
    table = SurvivalTable(counts, first_block)
    write_blocks(folder / "blocks" / "one.parquet", table, [{"symbol": symbol, **labels}], point_axes(info),
                 duration_ms(block))  # fmt: skip
    return Result(folder, info)
