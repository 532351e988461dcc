"""Survival by regime: the counts of a run's cells, label by label, with intervals of their own.

A label is worth as many independent trials as follow each other without overlap from its entries; its calendar blocks
are those from its first entry to its last, empty ones included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from backtest.cells import Cells
from backtest.errors import ConfigError, DataError
from backtest.intervals import attainable_low, trial_bars
from backtest.survival import Estimates, Span, SurvivalTable, estimate

Float = NDArray[np.float64]
Int = NDArray[np.int64]

MOST_LETTERS = 100
"""Of a symbol in the name of a file: portfolios may be long, and file systems end at 255 bytes."""


@dataclass(frozen=True)
class RegimeLabel:
    """What became of the entries of one label, arrays of (1, n_horizons, n_leverages)."""

    name: str
    found: Estimates
    attainable: Float


def stem_of(symbol: str) -> str:
    """What the files of a symbol or portfolio are called: its name where a file may have it.

    Examples
    --------
    >>> stem_of("BTC/USDT:USDT")
    'BTC%2FUSDT%3AUSDT'
    """
    name = quote(symbol, safe="")
    return (
        name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    )


def file_of(blocks: str, regime: str) -> str:
    """The file of a regime beside that of the calendar blocks of the same scenarios."""
    return f"{blocks.removesuffix('.parquet')}.{quote(regime, safe='')}.parquet"


def write_cells(folder: Path, symbol: str, regimes: Sequence[Cells]) -> Path:
    """Write which block and label each cell of a symbol's regimes is; return the file."""
    document = {
        cells.regime: {
            "labels": list(cells.labels),
            "block": cells.block.tolist(),
            "label": cells.label.tolist(),
            "trials": cells.trials.tolist(),
        }
        for cells in regimes
    }
    file = folder / _cells_file(symbol)
    file.write_text(json.dumps(document, ensure_ascii=False))
    return file


def read_cells(folder: Path, symbol: str, regime: str) -> Cells:
    """One regime of a symbol, without the places of the entries."""
    file = folder / _cells_file(symbol)
    try:
        read = json.loads(file.read_text())[regime]
        block, label, trials = (np.array(read[name], np.int64) for name in ("block", "label", "trials"))
        return Cells(regime, tuple(read["labels"]), np.empty(0, np.int64), block, label, trials)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: cannot be read ({type(error).__name__}); run again") from None


def _cells_file(symbol: str) -> str:
    return f"{stem_of(symbol)}.regimes.json"


def regime_names(info: dict[str, Any]) -> list[str]:
    """The regimes of a run."""
    return [str(r["name"] or r["column"] or r["by"]) for r in info["config"]["statistics"].get("regimes", [])]


def regime_named(info: dict[str, Any], by: str | None) -> str:
    """The regime that is meant; ConfigError with those of the run."""
    names = regime_names(info)
    if not names:
        raise ConfigError(
            "no regimes were counted; ask for them with statistics.regimes, such as ['year', 'volatility']"
        )
    if by is None and len(names) == 1:
        return names[0]
    if by not in names:
        raise ConfigError(f"by must be one of the regimes of the run: {', '.join(names)}; got {by!r}")
    return by


def labels_of(table: SurvivalTable, cells: Cells, span: Span, confidence: float) -> Iterator[RegimeLabel]:
    """Each label of a regime, in order.

    table : counts of one scenario by cell
    span : of the whole symbol
    """
    first = int(cells.block.min())
    for number, name in enumerate(cells.labels):
        mine = np.flatnonzero(cells.label == number)
        n_blocks = int(np.ptp(cells.block[mine])) + 1 if mine.size else 1
        counts = np.zeros((*table.counts.shape[:-1], n_blocks), np.int64)
        if mine.size:
            first = int(cells.block[mine[0]])
            counts[..., cells.block[mine] - first] = table.counts[..., mine - table.first_block]
        lengths = np.array([trial_bars(h, span.day) for h in span.horizons])
        present = np.minimum(cells.trials[number] * lengths, span.present)
        own = Span(span.horizons, span.block, present, span.day)
        found = estimate(SurvivalTable(counts, first), own, confidence)
        most = found.counts["entries"].max(axis=(0, 2))
        best = [
            attainable_low(int(n), h, span.block, int(bars), span.day, confidence)
            for n, h, bars in zip(most, span.horizons, present, strict=True)
        ]
        attainable = np.broadcast_to(np.array(best)[None, :, None], found.survival.shape)
        yield RegimeLabel(name, found, attainable)
