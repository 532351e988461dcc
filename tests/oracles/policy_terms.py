"""§7 of docs/semantics.md: the words of a policy, and a holding that is cut, added to and paid into."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tests.oracles.history import Column, Grid, Rows, at
from tests.oracles.position import TIE, Position, Scenario, Tier, lines_of, size_of, tier_holding

NEAR = 1e-12  # slack on levels that are given as prices: stop, take-profit, scale-in


@dataclass(frozen=True)
class Step:
    """§7: cut to the cap of the tier `step` below; 1 Bybit, 2 OKX."""

    step: int = 1


@dataclass(frozen=True)
class Fraction:
    """§7: above a notional this fraction of the position is cut; Hyperliquid 20 %."""

    fraction: float
    above: float


@dataclass(frozen=True)
class TopUp:
    """§7: margin added at a call, from a reserve of `reserve` × initial margin."""

    target_ratio: float
    reserve: float
    max_times: int = 1
    delay_bars: int = 0


@dataclass(frozen=True)
class Deleverage:
    """§7: a fraction closed at a call, at the close."""

    fraction: float
    max_times: int = 1
    delay_bars: int = 0


@dataclass(frozen=True)
class Exit:
    """§7: stop-loss or take-profit at a distance from entry: of the price, or of the margin."""

    distance: float
    of: str = "price"
    on: str = "trigger"
    slippage: float = 0.0


@dataclass(frozen=True)
class ScaleIn:
    """§7: at adverse distance d_j from the first entry, multiple_j × the first quantity is added."""

    distance: tuple[float, ...]
    multiple: tuple[float, ...]


@dataclass(frozen=True)
class Policy:
    """§7: the path-dependent rules of one position; without any it is the static walk."""

    confirm_bars: int = 0
    ladder: Step | Fraction | None = None
    top_up: TopUp | None = None
    deleverage: Deleverage | None = None
    stop_loss: Exit | None = None
    take_profit: Exit | None = None
    scale_in: ScaleIn | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        whole = (self.deleverage, self.ladder if isinstance(self.ladder, Fraction) else None)
        grid = self.scale_in
        wrong = {
            "confirm_bars": self.confirm_bars < 0,
            "a call has one answer": self.top_up is not None and self.deleverage is not None,
            "fraction in (0, 1)": any(part is not None and not 0 < part.fraction < 1 for part in whole),
            "above > 0": isinstance(self.ladder, Fraction) and self.ladder.above <= 0,
            "step ≥ 1": isinstance(self.ladder, Step) and self.ladder.step < 1,
            "take-profit is filled at its level": self.take_profit is not None and self.take_profit.slippage != 0,
            "scale-in": grid is not None
            and (
                len(grid.distance) != len(grid.multiple)
                or list(grid.distance) != sorted(set(grid.distance))
                or min(*grid.distance, *grid.multiple) <= 0
            ),
        }
        if any(wrong.values()):
            raise ValueError(", ".join(name for name, is_wrong in wrong.items() if is_wrong))
        for exit_ in (self.stop_loss, self.take_profit):
            if exit_ is not None and (exit_.of not in ("price", "margin") or exit_.on not in ("trigger", "last")):
                raise ValueError(f"of {exit_.of!r}, on {exit_.on!r}")


@dataclass(frozen=True)
class Last:
    """§7: the last prices, aligned with the grid, for an exit on `last`."""

    open: list[float | None]
    high: list[float | None]
    low: list[float | None]


def last_of(rows: Rows, grid: Grid) -> Last:
    """§1: the last prices of the rows, each in its bar of the grid."""
    row_at = {time: row for row, time in enumerate(rows.open_time_ms)}

    def placed(column: Column) -> list[float | None]:
        return [at(column, row_at.get(time)) for time in grid.open_time_ms]

    return Last(placed(rows.open), placed(rows.high), placed(rows.low))


@dataclass(frozen=True)
class Holding:
    """What is held now: q at the average worth v_p (a worth: P, inverse 1/P), balance B, margin M posted so far.

    `value` is q·v_p, at the opening the configured N; `paid` is the funding per unit not yet in B. `tied` is the M of
    1e-9·M: without the extra margin under a posted fee. `posted` is f, in no amount but the call's and the top-up's.
    `rung` is the tier that the ladder last cut to, None before that and after a scale-in.
    """

    s: int
    inverse: bool
    basis: str
    close_reserve: float
    table: float | tuple[Tier, ...]
    q: float
    v_p: float
    value: float
    B: float
    M: float
    tied: float
    posted: float
    paid: float = 0.0
    rung: int | None = None

    @property
    def lean(self) -> int:
        """A position gains lean·q·(v − v_p): s for linear, −s for inverse."""
        return -self.s if self.inverse else self.s

    def worth(self, price: float) -> float:
        """What one unit is worth in the margin currency at a price; its own inverse."""
        return 1 / price if self.inverse else price

    def equity(self, price: float) -> float:
        """§2: E at a price, the funding so far paid."""
        return self.B + self.lean * self.q * (self.worth(price) - self.v_p) - self.s * self.q * self.paid

    def size(self, price: float) -> float:
        """§2: n, the notional that maintenance is taken of."""
        return self.value if self.basis == "entry" else self.q * self.worth(price)

    def ladder_size(self, price: float) -> float:
        """§7: n, the notional that the ladder looks at: the entry value also where a table has no deductions."""
        if isinstance(self.table, tuple) and all(tier.deduction is None for tier in self.table):
            return self.value
        return self.size(price)

    def maintenance(self, price: float) -> float:
        """§2, §5: MM at a price: the largest line of the table in force, plus the close reserve."""
        n = self.size(price)
        return max(mmr * n - d for mmr, d in lines_of(self.table, self.value)) + self.close_reserve * n

    def is_breached(self, price: float, ratio: float = 1.0) -> bool:
        """§2, §5: E + f − (MM + f)/ratio ≤ 1e-9·M; f cancels in the liquidation test."""
        f = 0.0 if ratio == 1 else self.posted
        return self.equity(price) + f - (self.maintenance(price) + f) / ratio <= TIE * self.tied

    def level(self, ratio: float = 1.0) -> float | None:
        """§6: the price where E + f = (MM + f)/ratio, solved in the worth; None where there is none in (0, ∞)."""
        lines, reserve = lines_of(self.table, self.value), self.close_reserve
        at_zero = self.B - self.lean * self.value - self.s * self.q * self.paid  # E at a worth of 0
        at_zero -= self.posted * (1 / ratio - 1)  # what the fee to close asks for: f/ratio − f
        worths = []
        if self.basis == "entry":  # MM does not move with the price
            worths.append((self.maintenance(1.0) / ratio - at_zero) / (self.lean * self.q))
        else:
            for mmr, d in lines:
                # at_zero + lean·q·v = (mmr·q·v − D + reserve·q·v) / ratio
                slope = self.q * ((mmr + reserve) / ratio - self.lean)
                v = (at_zero + d / ratio) / slope if slope != 0 else -1.0
                n = self.q * v
                if v > 0 and max(m * n - e for m, e in lines) - (mmr * n - d) <= 1e-12 * (self.value + n):
                    worths.append(v)
        prices = [self.worth(v) for v in worths if v > 0 and self.worth(v) < math.inf]
        return (max(prices) if self.inverse else min(prices)) if prices else None

    def folded(self) -> Holding:
        """The same with the funding so far taken from B."""
        return replace(self, B=self.B - self.s * self.q * self.paid, paid=0.0)

    def cut(self, keep: float, price: float, fee_rate: float) -> Holding:
        """§7: only `keep` of it left (of f too), the rest realised at a price, the fee on what is cut."""
        gone, v = self.q - keep * self.q, self.worth(price)
        gain = self.lean * gone * (v - self.v_p) - fee_rate * gone * v
        now = self.folded()
        return replace(now, q=keep * self.q, value=keep * self.value, B=now.B + gain, posted=keep * self.posted)

    def given(self, amount: float) -> Holding:
        """§7: margin added."""
        now = self.folded()
        return replace(now, B=now.B + amount, M=now.M + amount, tied=now.tied + amount)

    def increased(self, more: float, price: float, own: float, fee: float, posted: float) -> Holding:
        """§7: `more` bought at a price, with its own margin and fee to close, the taker fee from B."""
        now = self.given(own)
        q, value = self.q + more, self.value + more * self.worth(price)
        return replace(now, q=q, value=value, v_p=value / q, B=now.B - fee, posted=self.posted + posted, rung=None)

    def exit_level(self, exit_: Exit, sign: int) -> float | None:
        """§7: the price at a distance from the average entry, sign −1 stop, +1 take-profit; None if never met."""
        if exit_.of == "price":
            price = self.worth(self.v_p) * (1 + sign * self.s * exit_.distance)
        else:  # lean·q·(v − v_p) = ±d·M
            v = self.v_p + sign * exit_.distance * self.M / (self.lean * self.q)
            price = self.worth(v) if v > 0 else -1.0
        return price if 0 < price < math.inf else None


def holding_of(position: Position, scenario: Scenario, table: float | tuple[Tier, ...]) -> Holding:
    """§2: a position just opened."""
    inverse = scenario.contract == "inverse"
    return Holding(
        s=scenario.side,
        inverse=inverse,
        basis=scenario.basis,
        close_reserve=scenario.close_reserve,
        table=table,
        q=position.q,
        v_p=1 / position.p if inverse else position.p,
        value=position.N,
        B=position.M - position.fee,
        M=position.M,
        tied=size_of(scenario, position.p)[2] if scenario.posted_fee else position.M,
        posted=position.posted,
    )


def kept(ladder: Step | Fraction | None, holding: Holding, fill: float) -> tuple[float, int | None]:
    """§7: the share left after a breach filled at a price (0 is nothing), and the tier whose cap it was cut to.

    A ladder goes down: the tier is that of n, but no higher than the one that the latest step cut to.
    """
    n = holding.ladder_size(fill)
    if isinstance(ladder, Fraction):
        return (1 - ladder.fraction if n > ladder.above * (1 + TIE) else 0.0), None
    if ladder is None or not isinstance(holding.table, tuple):
        return 0.0, None
    k = holding.table.index(tier_holding(holding.table, n)) + 1
    if holding.rung is not None:
        k = min(k, holding.rung)
    j = k - ladder.step
    return (holding.table[j - 1].cap / n, j) if j >= 1 else (0.0, None)


def worse(s: int, *prices: float | None) -> float | None:
    """§6: the worst of the known prices; None if none is known."""
    known = [price for price in prices if price is not None]
    if not known:
        return None
    return min(known) if s > 0 else max(known)


def reaches(direction: int, extreme: float, level: float) -> bool:
    """§7: whether a bar that goes as far as `extreme`, up (+1) or down (−1), reaches a level."""
    return extreme >= level * (1 - NEAR) if direction > 0 else extreme <= level * (1 + NEAR)
