"""The cost model of a run: what seconds, memory and bytes are made of, and constants fitted to measurements.

    seconds = START_S + rows · WRITE_S_PER_ROW + cells · WRITE_S_PER_CELL
              + (bars · READ_S_PER_BAR + passes · (bars seen · SWEEP_S + entries · horizons · COUNT_S)
                 + entries · horizons · leverages · scenarios followed · FOLLOW_S) / workers

where a pass is a group of scenarios of one side, maintenance rule and funding that are counted together, the bars it
sees are those of its chunks and their entries' windows, a row is a scenario × horizon × leverage of a symbol, and a
cell a row × calendar block. Histories are read ahead: where reading takes longer than counting, counting is hidden
behind it instead (see `Size.amounts`). Plans (`backtest.runs.memory`) do without SWEEP_S and WRITE_S_PER_CELL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backtest.engine.cohorts import CHUNK_BARS
from backtest.runs.chunked_input import own_bars
from backtest.runs.memory import PARTS, make_budget
from backtest.runs.tasks import CELLS_PER_TASK
from backtest.stats.survival_table import COUNTS, OUTCOMES

Float = NDArray[np.float64]
Constants = Mapping[str, float]

SECONDS = ("START_S", "READ_S_PER_BAR", "SWEEP_S", "COUNT_S", "FOLLOW_S", "WRITE_S_PER_ROW", "WRITE_S_PER_CELL")
PLANNED = ("START_S", "READ_S_PER_BAR", "COUNT_S", "FOLLOW_S", "WRITE_S_PER_ROW")
MEMORY = ("BASE_BYTES", "BYTES_PER_WORKER", "BYTES_PER_HELD_BAR", "TABLES_AT_ONCE")
DISK = ("DISK_BYTES_PER_ROW", "DISK_BYTES_PER_CELL")


@dataclass(frozen=True)
class Size:
    """How large a run is.

    Attributes
    ----------
    symbols : int
    bars : float
        Of each symbol.
    every : int
        An entry each so many bars.
    side_rules, fees : int
        Sides × maintenance rules × fundings, each a pass over the entries; and fees, which share one where their tables
        are small.
    horizons, leverages : int
    longest : float
        The longest horizon in bars.
    blocks : float
        Calendar blocks of a symbol.
    workers : int
    memory : float
        Bytes that it may take.
    followed : bool
        Whether positions are followed to what became of them.
    whole : bool
        Whether histories are read whole, whatever the memory.
    """

    symbols: int = 2
    bars: float = 1e6
    every: int = 1
    side_rules: int = 10
    fees: int = 1
    horizons: int = 8
    leverages: int = 125
    longest: float = 43_200
    blocks: float = 100
    workers: int = 2
    memory: float = 6 << 30
    followed: bool = False
    whole: bool = False

    @property
    def rows(self) -> float:
        """Of ``survival.parquet``."""
        return self.symbols * self.side_rules * self.fees * self.horizons * self.leverages

    @property
    def cells(self) -> float:
        """Rows × calendar blocks."""
        return self.rows * self.blocks

    @property
    def verdicts(self) -> float:
        """Entries × scenarios × horizons × leverages."""
        return self.rows * self.bars / self.every

    @property
    def numbers(self) -> int:
        """In a cell."""
        return len(COUNTS) + len(OUTCOMES) * self.followed

    @property
    def together(self) -> float:
        """Scenarios that are counted together: those of a pass, cut where their tables are large."""
        allowed = max(1, CELLS_PER_TASK // (self.horizons * self.leverages * self.blocks * self.numbers))
        return min(self.fees, allowed)

    @property
    def passes(self) -> float:
        """Groups of scenarios of each symbol."""
        return self.side_rules * -(-self.fees // self.together)

    @property
    def table_bytes(self) -> float:
        """Of the numbers of a group of scenarios."""
        return 8 * self.numbers * self.together * self.horizons * self.leverages * self.blocks

    @property
    def parts(self) -> float:
        """Stretches that each history is read in."""
        own = own_bars(make_budget(int(self.memory), self.workers).most_bars, int(self.longest))
        return 1 if self.whole or self.bars <= own else -(-self.bars // own)

    @property
    def batches(self) -> float:
        """How often the stretches are gone through: as many groups at a time as fit half of the room for tables."""
        fit = max(1, make_budget(int(self.memory), self.workers).table_bytes // (2 * self.table_bytes))
        return -(-self.passes // fit) if self.parts > 1 else 1

    @property
    def summed_bytes(self) -> float:
        """Of tables that are added up at once."""
        return self.table_bytes * (2 if self.parts == 1 else -(-self.passes // self.batches))

    @property
    def swept(self) -> float:
        """How often a pass sees a bar: in its own chunk, and in each whose windows reach it."""
        after = self.bars - np.arange(CHUNK_BARS, self.bars, CHUNK_BARS)
        return float(1 + np.minimum(self.longest, after).sum() / self.bars)

    @property
    def reads(self) -> float:
        """How often a bar is read: for each batch, and again where the windows of the stretch before reach it."""
        return self.batches * (1 + (self.parts - 1) * min(self.longest, self.bars) / self.bars)

    def amounts(self, longer: float = 0.0) -> Float:
        """What each of `SECONDS` is multiplied by.

        longer : how many times as long as all other work, shared by the workers, reading takes on one thread: up to 1
            it takes its share of the workers, above 1 it is all there is to wait for.
        """
        bars, share = self.symbols * self.bars, 1 / self.workers
        entries = bars / self.every
        read = bars * self.reads * (1.0 if longer > 1 else share)
        work = 0.0 if longer > 1 else share
        seen, counted = bars * self.passes * self.swept, entries * self.passes * self.horizons
        followed = entries * self.horizons * self.leverages * self.side_rules * self.fees * self.followed
        return np.array([1.0, read, seen * work, counted * work, followed * work, self.rows, self.cells])

    def held(self) -> Float:
        """What each of `MEMORY` is multiplied by."""
        bars = self.bars / self.parts + (self.longest if self.parts > 1 else 0)
        return np.array([1.0, self.workers, min(PARTS, self.symbols * self.parts) * bars, self.summed_bytes])

    def written(self) -> Float:
        """What each of `DISK` is multiplied by; cells as a plan counts them."""
        return np.array([self.rows, self.cells * self.numbers])


def fit(amounts: Float, measured: Float) -> Float:
    """Constants ≥ 0 with the least squared relative error.

    Parameters
    ----------
    amounts : (n_runs, n_constants)
    measured : (n_runs,) > 0

    Examples
    --------
    >>> fit(np.array([[1.0, 10.0], [1.0, 30.0]]), np.array([7.0, 17.0])).round(6).tolist()
    [2.0, 0.5]
    """
    from scipy.optimize import nnls

    relative = amounts / measured[:, None]
    scale = np.linalg.norm(relative, axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(relative / scale, np.ones(measured.size))
    return np.asarray(found / scale)


def reading_over_rest(size: Size, constants: Float) -> float:
    """How many times as long as the other work reading takes: see `Size.amounts`."""
    spent = size.amounts() * constants
    rest = float(spent[1:5].sum())  # reading's own share is work too
    return float(spent[1]) * size.workers / rest if rest else 0.0


def fit_seconds(sizes: Sequence[Size], seconds: Float) -> Float:
    """Constants of `SECONDS`: fitted again until it is settled which runs wait for their reading."""
    found = fit(np.array([size.amounts() for size in sizes]), seconds)
    for _ in range(8):
        found = fit(np.array([size.amounts(reading_over_rest(size, found)) for size in sizes]), seconds)
    return found


def fit_planned(sizes: Sequence[Size], seconds: Float) -> Float:
    """Constants of `PLANNED`, as plans add them up."""
    kept = [SECONDS.index(name) for name in PLANNED]
    return fit(np.array([size.amounts()[kept] for size in sizes]), seconds)


def predicted(sizes: Sequence[Size], constants: Float) -> Float:
    """(n_sizes,) seconds."""
    return np.array([size.amounts(reading_over_rest(size, constants)) @ constants for size in sizes])


def planned(sizes: Sequence[Size], constants: Float) -> Float:
    """(n_sizes,) seconds by constants of `PLANNED`."""
    kept = [SECONDS.index(name) for name in PLANNED]
    return np.array([size.amounts()[kept] @ constants for size in sizes])


def core_seconds(size: Size, constants: Float) -> float:
    """CPU seconds, by constants fitted to those: what one worker would take, nothing overlapping."""
    return float(replace(size, workers=1).amounts() @ constants)


def named(names: Sequence[str], values: Float) -> dict[str, float]:
    """Constants by name, with as many digits as they are worth."""
    return {name: float(f"{value:.3g}") for name, value in zip(names, values, strict=True)}


def values_of(names: Sequence[str], constants: Constants) -> Float:
    """The other way round."""
    return np.array([constants[name] for name in names])
