"""§2, §4, §5 of docs/semantics.md: the terms of a trade, the tier table of a bar, a position and its entry test.

Spot margin shares the terms (`Scenario`); its position is in spot.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.oracles.history import Grid

TIE = 1e-9  # §2: share of the margin within which a comparison counts as reached; also the slack on caps


@dataclass(frozen=True)
class Tier:
    """§2, §5: one row of a tier table; deduction None in every row makes a table without deductions."""

    floor: float
    cap: float
    mmr: float
    deduction: float | None
    max_leverage: float


@dataclass(frozen=True)
class Dated:
    """§5: tier tables with their effective_from in ms; None is from the beginning. The order does not matter."""

    tables: tuple[tuple[int | None, tuple[Tier, ...]], ...]

    def __post_init__(self) -> None:
        """Refuse what leaves a bar's table open, and tables with and without deductions in one history."""
        dates = [date for date, _ in self.tables]
        if not dates or len(set(dates)) < len(dates) or not all(table for _, table in self.tables):
            raise ValueError("dated tables are one table per date, none of them empty")
        without = [tier.deduction is None for _, table in self.tables for tier in table]
        if any(without) and not all(without):
            raise ValueError("dated tables all have deductions in every row, or none has any")

    def at(self, time_ms: int) -> tuple[Tier, ...]:
        """§5: the table with the latest effective_from ≤ the bar's open_time."""
        best: tuple[int | None, tuple[Tier, ...]] | None = None
        for date, table in self.tables:
            if date is not None and date > time_ms:
                continue
            if best is None or best[0] is None or (date is not None and date > best[0]):
                best = (date, table)
        if best is None:
            raise ValueError(f"no tier table is in force at {time_ms}")
        return best[1]


@dataclass(frozen=True)
class Scenario:
    """§2: the terms under which positions are opened; inverse: notional in quote, margin and tiers in coin.

    §5: posted_fee is the taker fee c of a rule that posts the fee to close on top (Bybit UTA); slope and
    initial_rate are Deribit's, the maintenance being mmr_0. §2: extra is A, in the margin currency; surplus says
    whose what is left at a liquidation is ("trader" or "fund"). §4: the last three are those of contract "spot".
    """

    side: int
    leverage: float
    maintenance: float | tuple[Tier, ...] | Dated
    basis: str = "mark"
    close_reserve: float = 0.0
    open_fee: float = 0.0
    fees_from_margin: bool = True
    funding_scale: float = 1.0
    funding_shift: float = 0.0
    notional: float | None = None
    margin: float | None = None
    margin_call_ratio: float = 0.8
    liquidation_slippage: float = 0.0
    liquidation_fee: float = 0.0
    contract: str = "linear"
    posted_fee: float = 0.0
    slope: float = 0.0
    initial_rate: float | None = None
    extra: float = 0.0
    surplus: str = "trader"
    liquidation_ltv: float | None = None
    margin_call_ltv: float | None = None
    borrow_rate: float = 0.0


@dataclass(frozen=True)
class Position:
    """§2: side s, entry price p, quantity q, entry notional N, posted margin M, the lines (mmr_k, D_k) in force.

    §4, inverse: q is Q, the face value in quote; N, M, the fee and D are in coin, and so are E and MM.
    M is N/L + A; the posted fee to close f is not in it. tie is what E − MM may be at most: 1e-9 of the margin.
    """

    s: int
    p: float
    q: float
    N: float
    M: float
    fee: float
    lines: tuple[tuple[float, float], ...]
    basis: str
    close_reserve: float
    contract: str
    tie: float
    posted: float = 0.0
    slope: float = 0.0

    def notional(self, price: float) -> float:
        """§2, §4: what the position is worth at a price: q·P, inverse Q·u."""
        return self.q / price if self.contract == "inverse" else self.q * price

    def equity(self, price: float, paid: float) -> float:
        """§2, §4: the margin balance E at a price, with paid = C_t − C_i."""
        if self.contract == "inverse":
            return self.M - self.fee + self.s * self.q * (1 / self.p - 1 / price) - self.s * self.q * paid
        return self.M - self.fee + self.s * self.q * (price - self.p) - self.s * self.q * paid

    def size(self, price: float) -> float:
        """§2: n, the notional that maintenance is taken of."""
        return self.notional(price) if self.basis == "mark" else self.N

    def coins(self, n: float) -> float:
        """§5: the size in coin that a rate slopes with: q, whatever it is worth; inverse n itself."""
        return n if self.contract == "inverse" else self.q

    def maintenance_of(self, n: float, g: float) -> float:
        """§2: MM at size n: g times the largest of the tiers' lines (with the slope), plus the close reserve."""
        sloped = self.slope * self.coins(n) if self.slope else 0.0
        return g * max((mmr + sloped) * n - d for mmr, d in self.lines) + self.close_reserve * n

    def maintenance(self, price: float, g: float) -> float:
        """§2: MM at a trigger price."""
        return self.maintenance_of(self.size(price), g)

    def is_liquidated(self, price: float, paid: float, g: float) -> bool:
        """§2: E − MM ≤ 1e-9·M. The posted fee to close stands in both E and MM (§5) and cancels."""
        return self.equity(price, paid) - self.maintenance(price, g) <= self.tie

    def is_called(self, price: float, paid: float, g: float, ratio: float) -> bool:
        """§2, §5: E + f − (MM + f)/ratio ≤ 1e-9·M."""
        balance = self.equity(price, paid) + self.posted
        return balance - (self.maintenance(price, g) + self.posted) / ratio <= self.tie


# ---------------------------------------------------------------- the table in force


def table_of(scenario: Scenario, time_ms: int | None) -> float | tuple[Tier, ...]:
    """§5: the rate or the tier table of the bar with this open_time; only dated tables need the time."""
    if not isinstance(scenario.maintenance, Dated):
        return scenario.maintenance
    if time_ms is None:
        raise ValueError("dated tables need the open time of the bar")
    return scenario.maintenance.at(time_ms)


def refuse_early(grid: Grid, scenario: Scenario) -> None:
    """§5: a range that starts before the first date is refused, whatever its entries are."""
    if isinstance(scenario.maintenance, Dated):
        scenario.maintenance.at(grid.open_time_ms[0])


def tier_holding(tiers: Sequence[Tier], notional: float) -> Tier:
    """§2: the tier with floor < N ≤ cap, caps read with the slack; beyond the last cap the last tier."""
    for tier in tiers:
        if notional <= tier.cap * (1 + TIE):
            return tier
    return tiers[-1]


def lines_of(maintenance: float | tuple[Tier, ...], notional: float) -> tuple[tuple[float, float], ...]:
    """§5: the lines mmr·n − D in force: all tiers with deductions, or the one tier of the size at entry."""
    if not isinstance(maintenance, tuple):
        return ((maintenance, 0.0),)
    without = [tier.deduction is None for tier in maintenance]
    if all(without):
        return ((tier_holding(maintenance, notional).mmr, 0.0),)
    if any(without):
        raise ValueError("a tier table has deductions in every row or in none")
    return tuple((tier.mmr, tier.deduction or 0.0) for tier in maintenance)


def under_table(scenario: Scenario, position: Position, time_ms: int) -> Position:
    """§5: an open position under the table of a later bar; without deductions, of it the tier that holds N."""
    if not isinstance(scenario.maintenance, Dated):
        return position
    return replace(position, lines=lines_of(table_of(scenario, time_ms), position.N))


# ---------------------------------------------------------------- opening


def check(scenario: Scenario) -> None:
    """Refuse what no rule describes."""
    if scenario.basis not in ("mark", "entry") or scenario.side not in (1, -1):
        raise ValueError(f"basis {scenario.basis!r}, side {scenario.side!r}")
    if scenario.contract not in ("linear", "inverse", "spot"):
        raise ValueError(f"contract {scenario.contract!r}")
    if scenario.surplus not in ("trader", "fund"):
        raise ValueError(f"surplus {scenario.surplus!r}")
    if scenario.notional is not None and scenario.margin is not None:
        raise ValueError("size is notional or margin, not both")
    if scenario.extra < 0:
        raise ValueError(f"extra {scenario.extra}")
    tabled = isinstance(scenario.maintenance, tuple | Dated)
    if scenario.slope and (tabled or scenario.basis == "entry"):
        raise ValueError("a slope goes with one rate, on mark basis")
    sized = scenario.notional is not None or scenario.margin is not None
    if not sized and scenario.contract != "spot" and (tabled or scenario.slope or scenario.extra):
        raise ValueError("a tier table, a slope or extra margin needs a size")


def counted_extra(scenario: Scenario) -> float:
    """§5: what the extra margin A counts as: A, with a posted fee A/(1 − s·c), inverse A/(1 + s·c)."""
    lean = -scenario.side if scenario.contract == "inverse" else scenario.side
    return scenario.extra / (1 - lean * scenario.posted_fee)


def fee_to_close(scenario: Scenario, notional: float) -> float:
    """§5: f = N·(1 − s/L)·c, inverse N·(1 + s/L)·c; negative for a long below 1× (inverse: a short)."""
    lean = -scenario.side if scenario.contract == "inverse" else scenario.side
    return notional * (1 - lean / scenario.leverage) * scenario.posted_fee


def size_of(scenario: Scenario, p: float) -> tuple[float, float, float]:
    """§2, §4: q (inverse Q), N and N/L; N is the configured number, M·L or Q/p, never recomputed from q."""
    leverage, inverse = scenario.leverage, scenario.contract == "inverse"
    if scenario.margin is not None:
        n = scenario.margin * leverage
        return n * p if inverse else n / p, n, scenario.margin
    face = p if scenario.notional is None else scenario.notional  # any size: flat verdicts do not depend on it
    if inverse:
        n = face / p
        return face, n, n / leverage
    return face / p, face, face / leverage


def open_position(scenario: Scenario, p: float, time_ms: int | None = None) -> Position:
    """§2: a position opened at price p in the bar with this open_time, under that bar's table."""
    check(scenario)
    if scenario.contract == "spot":
        raise ValueError("contract 'spot' has its own position")
    quantity, notional, initial = size_of(scenario, p)
    margin = initial + counted_extra(scenario)
    return Position(
        s=scenario.side,
        p=p,
        q=quantity,
        N=notional,
        M=margin,
        fee=scenario.open_fee * notional if scenario.fees_from_margin else 0.0,
        lines=lines_of(table_of(scenario, time_ms), notional),
        basis=scenario.basis,
        close_reserve=scenario.close_reserve,
        contract=scenario.contract,
        tie=TIE * (initial if scenario.posted_fee else margin),  # §5: with a posted fee M in 1e-9·M is N/L
        posted=fee_to_close(scenario, notional),
        slope=scenario.slope,
    )


def is_rejected(
    scenario: Scenario, position: Position, g: float, time_ms: int | None = None, slack: float = 0.0
) -> bool:
    """§2: leverage above its tier's maximum, N above a finite last cap, or under water at p, by bar i's table.

    §2: where leverage is weighted per entry or given by a trade, the maximum is read with a slack of 1e-9.
    """
    table = table_of(scenario, time_ms)
    if isinstance(table, tuple):
        if scenario.leverage > tier_holding(table, position.N).max_leverage * (1 + slack):
            return True
        if table[-1].cap * (1 + TIE) < position.N:
            return True
    if scenario.initial_rate is not None:  # §5: the initial rate slopes with the size at entry
        rate = scenario.initial_rate + scenario.slope * position.coins(position.N)
        if scenario.leverage * rate > 1 + TIE:
            return True
    # At entry n is N itself, on both bases. A posted fee is in E and MM here as well.
    balance = position.equity(position.p, 0.0)
    return balance - position.maintenance_of(position.N, g) <= position.tie
