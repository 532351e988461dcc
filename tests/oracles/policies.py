"""§7 of docs/semantics.md: path-dependent rules, one position walked bar by bar, level by level."""

from dataclasses import dataclass, field, replace

from tests.oracles.history import Grid
from tests.oracles.policy_terms import (
    Deleverage,
    Exit,
    Fraction,
    Holding,
    Last,
    Policy,
    ScaleIn,
    Step,
    TopUp,
    holding_of,
    kept,
    last_of,
    reaches,
    worse,
)
from tests.oracles.position import TIE, Scenario, fee_to_close, is_rejected, open_position, table_of
from tests.oracles.walk import charge

__all__ = [
    "Deleverage",
    "Exit",
    "Fraction",
    "Last",
    "Life",
    "Policy",
    "ScaleIn",
    "Step",
    "TopUp",
    "last_of",
    "live",
]


@dataclass(frozen=True)
class Life:
    """What became of one position; amounts are fractions of the initial margin M0, bars are grid indices."""

    entry_bar: int
    rejected: bool
    outcome: str | None = None  # survived, liquidated, stopped, took_profit; None if rejected
    end_bar: int | None = None
    margin_call_bar: int | None = None
    liquidation_bar: int | None = None
    fill_price: float | None = None  # of the closing fill
    equity_end: float | None = None
    residual: float | None = None  # None unless liquidated
    insurance: float = 0.0
    fees: float = 0.0
    added: float = 0.0
    partial_liquidations: int = 0
    top_ups: int = 0
    deleverages: int = 0
    scale_ins: int = 0
    recovered: bool = False
    steps: tuple[tuple[int, str, float, float], ...] = ()  # bar, kind, price, quantity (top_up: the amount)


@dataclass
class Run:
    """A position on its way."""

    grid: Grid
    scenario: Scenario
    policy: Policy
    taker_fee: float
    last: Last | None
    holding: Holding
    p0: float
    q0: float
    M0: float
    fees: float
    reserve_left: float
    known_price: float  # the last known trigger close, before the first the entry price
    known_paid: float = 0.0  # the funding since the last event, up to the end of that close's bar
    has_close: bool = False
    pending: int | None = None  # the bar for whose close an answer is pending
    confirmed: int = 0
    margin_call_bar: int | None = None
    outcome: str | None = None
    end_bar: int | None = None
    fill_price: float | None = None
    left: float = 0.0  # what is left at the end, before it is shared out
    added: float = 0.0
    partial_liquidations: int = 0
    top_ups: int = 0
    deleverages: int = 0
    scale_ins: int = 0
    steps: list[tuple[int, str, float, float]] = field(default_factory=list)

    # ------------------------------------------------------------ what can happen

    def becomes(self, after: Holding, t: int, kind: str, price: float, quantity: float) -> None:
        """An event: the holding changes, and with it the funding so far has gone into B."""
        self.holding, self.known_paid = after, 0.0
        self.steps.append((t, kind, price, quantity))

    def has_answer(self) -> bool:
        """§7: whether a call would be answered: configured, and times and reserve left."""
        if self.policy.top_up is not None:
            return self.top_ups < self.policy.top_up.max_times and self.reserve_left > 0
        return self.policy.deleverage is not None and self.deleverages < self.policy.deleverage.max_times

    def call(self, t: int, place: float) -> None:
        """§7: a margin call; the first is recorded, and the answer comes after delay_bars."""
        answer = self.policy.top_up or self.policy.deleverage
        if answer is not None and self.has_answer():
            self.pending = t + answer.delay_bars
        if self.margin_call_bar is None:
            self.margin_call_bar = t
        self.steps.append((t, "margin_call", place, 0.0))

    def breach(self, t: int, place: float) -> None:
        """§6, §7: liquidation at a place, or one step of the ladder."""
        fill = place * (1 - self.scenario.liquidation_slippage * self.scenario.side)
        keep, rung = kept(self.policy.ladder, self.holding, fill)
        if keep == 0.0:
            self.close(t, "liquidated", fill, self.scenario.liquidation_fee)
        else:
            self.partial_liquidations += 1
            self.cut(t, "partial_liquidation", keep, fill, self.scenario.liquidation_fee)
            self.holding = replace(self.holding, rung=rung)

    def cut(self, t: int, kind: str, keep: float, fill: float, fee_rate: float) -> None:
        """§7: part of the position goes, the fee on what is cut."""
        gone = self.holding.q - keep * self.holding.q
        self.fees += fee_rate * gone * self.holding.worth(fill)
        self.becomes(self.holding.cut(keep, fill, fee_rate), t, kind, fill, gone)

    def add(self, t: int, place: float) -> None:
        """§7: the next scale-in."""
        assert self.policy.scale_in is not None
        more = self.policy.scale_in.multiple[self.scale_ins] * self.q0
        notional = more * self.holding.worth(place)
        own, fee = notional / self.scenario.leverage, self.taker_fee * notional
        self.fees += fee
        self.added += own
        self.scale_ins += 1
        after = self.holding.increased(more, place, own, fee, fee_to_close(self.scenario, notional))
        self.becomes(after, t, "scale_in", place, more)

    def close(self, t: int, outcome: str, fill: float, fee_rate: float) -> None:
        """§6, §7: everything goes; the holding stays as it stood, for `recovered`."""
        held = self.holding
        fee = fee_rate * held.q * held.worth(fill)
        self.outcome, self.end_bar, self.fill_price = outcome, t, fill
        self.left = held.equity(fill) - fee
        self.fees += fee
        self.steps.append((t, outcome, fill, held.q))

    def answer(self, t: int, close: float) -> None:
        """§7: the pending answer to a call, at a close."""
        held = self.holding
        self.pending = None
        if self.policy.top_up is not None:
            # (MM + f)/(E + f) = target, f the posted fee to close
            required = (held.maintenance(close) + held.posted) / self.policy.top_up.target_ratio
            needed = required - held.posted - held.equity(close)
            amount = min(needed, self.reserve_left)
            if amount > 0:
                self.reserve_left -= amount
                self.added += amount
                self.top_ups += 1
                self.becomes(held.given(amount), t, "top_up", close, amount)
        elif self.policy.deleverage is not None:
            self.deleverages += 1
            self.cut(t, "deleverage", 1 - self.policy.deleverage.fraction, close, self.taker_fee)

    # ------------------------------------------------------------ inside a bar

    def extremes(self, t: int, on: str) -> tuple[float | None, float | None, float | None]:
        """§7: open, adverse and favourable extreme of a bar, of the trigger or of the last price."""
        source = (self.grid.trigger_open, self.grid.trigger_high, self.grid.trigger_low)
        if on == "last":
            assert self.last is not None
            source = (self.last.open, self.last.high, self.last.low)
        opened, high, low = (column[t] for column in source)
        if high is None or low is None:
            return None, None, None
        return (opened, low, high) if self.scenario.side > 0 else (opened, high, low)

    def levels_met(self, t: int, stood: float | None) -> list[tuple[str, float]]:
        """§7: the levels that bar t meets and where, in the order that counts at equal places.

        `stood` is the place of the latest event of this bar, None before the first.
        """
        s, held, policy, ratio = self.scenario.side, self.holding, self.policy, self.scenario.margin_call_ratio
        opened, extreme, _ = self.extremes(t, "trigger")
        assert extreme is not None
        path = opened if stood is None else stood

        def place(level: float | None) -> float:
            where = worse(s, level, path)
            return extreme if where is None else where

        met: list[tuple[str, float]] = []
        is_wanted = self.pending is None and (self.margin_call_bar is None or self.has_answer())
        if is_wanted and held.is_breached(extreme, ratio):
            met.append(("margin_call", place(held.level(ratio))))
        is_open_liquidation = False
        if policy.confirm_bars == 0 and held.is_breached(extreme):
            met.append(("liquidation", place(held.level())))
            is_open_liquidation = met[-1][1] == opened
        stop = None if policy.stop_loss is None else held.exit_level(policy.stop_loss, -1)
        if policy.stop_loss is not None and stop is not None and not is_open_liquidation:
            own_open, own_extreme, _ = self.extremes(t, policy.stop_loss.on)
            if own_extreme is not None and reaches(-s, own_extreme, stop):
                where = worse(s, stop, own_open, stood)
                assert where is not None
                met.append(("stop_loss", where))
        if policy.scale_in is not None and self.scale_ins < len(policy.scale_in.distance):
            level = self.p0 * (1 - s * policy.scale_in.distance[self.scale_ins])
            if level > 0 and reaches(-s, extreme, level):
                met.append(("scale_in", place(level)))
        return met

    def go_down(self, t: int) -> bool:
        """§7: from the open to the adverse extreme, the nearest level first; whether anything but calls happened."""
        s, stood, is_hurt = self.scenario.side, None, False
        while self.outcome is None:
            met = self.levels_met(t, stood)
            if not met:
                break
            kind, stood = max(met, key=lambda level: s * level[1])  # the first of the nearest
            if kind == "margin_call":
                self.call(t, stood)
                continue
            is_hurt = True
            if kind == "liquidation":
                self.breach(t, stood)
            elif kind == "scale_in":
                self.add(t, stood)
            else:
                assert self.policy.stop_loss is not None
                self.close(t, "stopped", stood * (1 - s * self.policy.stop_loss.slippage), self.taker_fee)
        return is_hurt

    def take_profit(self, t: int) -> None:
        """§7: filled exactly at its level."""
        exit_ = self.policy.take_profit
        if exit_ is None:
            return
        level, favourable = self.holding.exit_level(exit_, 1), self.extremes(t, exit_.on)[2]
        if level is not None and favourable is not None and reaches(self.scenario.side, favourable, level):
            self.close(t, "took_profit", level, self.taker_fee)

    def at_close(self, t: int) -> None:
        """§7: the confirmation at the close, then the answer whose time has come."""
        close = self.grid.trigger_close[t]
        if close is None or not self.grid.has_trigger(t):
            self.confirmed = 0
            return
        if self.policy.confirm_bars > 0:
            self.confirmed = self.confirmed + 1 if self.holding.is_breached(close) else 0
            if self.confirmed == self.policy.confirm_bars:
                self.confirmed = 0
                place = worse(self.scenario.side, self.holding.level(), close)
                assert place is not None
                self.breach(t, place)
        if self.outcome is None and self.pending is not None and t >= self.pending:
            self.answer(t, close)

    def bar(self, t: int) -> None:
        """§7: one bar: funding, the way to the adverse extreme, the take-profit, the close."""
        self.holding = replace(self.holding, paid=self.holding.paid + charge(self.grid, self.scenario, t))
        if self.outcome is None:
            self.holding = replace(self.holding, table=table_of(self.scenario, self.grid.open_time_ms[t]))
            if self.grid.has_trigger(t):
                is_hurt = self.go_down(t)
                if not is_hurt:
                    self.take_profit(t)
            if self.outcome is None:
                self.at_close(t)
        close = self.grid.trigger_close[t]
        if close is not None:
            self.known_price, self.known_paid, self.has_close = close, self.holding.paid, True

    # ------------------------------------------------------------ at the end

    def life(self, i: int) -> Life:
        """§6, §7: who gets what is left."""
        known = replace(self.holding, paid=self.known_paid).equity(self.known_price)
        residual: float | None = None
        if self.outcome == "liquidated":
            equity = residual = 0.0 if self.scenario.surplus == "fund" else max(0.0, self.left)
            insurance = self.left - residual
        elif self.outcome is None:
            equity, insurance = known, 0.0
        else:
            equity, insurance = max(0.0, self.left), min(0.0, self.left)
        is_liquidated = self.outcome == "liquidated"
        return Life(
            entry_bar=i,
            rejected=False,
            outcome=self.outcome or "survived",
            end_bar=self.end_bar,
            margin_call_bar=self.margin_call_bar,
            liquidation_bar=self.end_bar if is_liquidated else None,
            fill_price=self.fill_price,
            equity_end=equity / self.M0,
            residual=None if residual is None else residual / self.M0,
            insurance=insurance / self.M0,
            fees=self.fees / self.M0,
            added=self.added / self.M0,
            partial_liquidations=self.partial_liquidations,
            top_ups=self.top_ups,
            deleverages=self.deleverages,
            scale_ins=self.scale_ins,
            recovered=is_liquidated and self.has_close and known > self.holding.M * (1 + TIE),
            steps=tuple(self.steps),
        )


def live(
    grid: Grid,
    scenario: Scenario,
    policy: Policy,
    entry_bar: int,
    horizon_bars: int,
    *,
    taker_fee: float,
    surplus: str | None = None,
    extra: float | None = None,
    weight: float | None = None,
    last: Last | None = None,
) -> Life:
    """§7: open at the close of bar i, at risk in bars i+1 … i+h, under a policy.

    surplus and extra stand for those of the scenario; without a weight leverage is compared exactly.
    """
    i, p, end = entry_bar, grid.entry_price[entry_bar], grid.last_bar(entry_bar, horizon_bars)
    if p is None or not grid.is_entry(i):
        raise ValueError(f"bar {i} is no entry")
    if horizon_bars < 1 or end is None:
        raise ValueError(f"the window of bar {i} reaches past the grid")
    if any(g != 1 for g in grid.scale[i : end + 1]) or scenario.slope:
        raise ValueError("maintenance scale and slope are not part of this oracle")
    if last is None and any(e is not None and e.on == "last" for e in (policy.stop_loss, policy.take_profit)):
        raise ValueError("an exit on last needs the last prices")
    table_of(scenario, grid.open_time_ms[0])  # a range that starts before the first dated table is refused

    scenario = replace(
        scenario,
        leverage=scenario.leverage * (1.0 if weight is None else weight),
        surplus=scenario.surplus if surplus is None else surplus,
        extra=scenario.extra if extra is None else extra,
    )
    time = grid.open_time_ms[i]
    position = open_position(scenario, p, time)
    if is_rejected(scenario, position, 1.0, time, 0.0 if weight is None else TIE):
        return Life(i, rejected=True)
    holding = holding_of(position, scenario, table_of(scenario, time))
    run = Run(
        grid, scenario, policy, taker_fee, last, holding,
        p0=p,
        q0=holding.q,
        M0=holding.M,
        fees=position.fee,
        reserve_left=0.0 if policy.top_up is None else policy.top_up.reserve * holding.M,
        known_price=p,
    )  # fmt: skip
    for t in range(i + 1, end + 1):
        run.bar(t)
    return run.life(i)
