"""Scenarios with path-dependent rules, for the package and for the oracle, and the comparison of their lives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from hypothesis import strategies as st

from backtest.config.models import Funding, Size
from backtest.config.policies import Deleverage, Exit, Ladder, Policy, ScaleIn, TopUp
from backtest.config.scenarios import Maintenance, Scenario
from backtest.engine.bars import build_grid
from backtest.engine.cohorts import Population
from backtest.engine.policy_simulation import SimulatedPositions, simulate_policy
from backtest.engine.thresholds import MarginTerms
from backtest.margin.tiers import DatedTable, TierTable
from tests._support import tiers
from tests._support.histories import HOUR, history_of
from tests._support.tiers import LATER, LATEST, TIMES_MS
from tests.oracles import policies as oracle
from tests.oracles.history import Grid, Rows
from tests.oracles.history import grid_of as oracle_grid
from tests.oracles.position import Dated, Tier
from tests.oracles.position import Scenario as Terms

FUNDING, NO_FUNDING = Funding(), Funding(scale=0.0)
OUTCOMES = ("survived", "liquidated", "stopped", "took_profit")
LADDER = [*tiers.LADDER[:2], (10_000.0, 60_000.0, 0.1, 580.0, 9.0)]
BANDS = [(0.01, 50.0), (0.016, 40.0), (0.025, 30.0), (0.04, 20.0), (0.06, 12.0), (0.09, 8.0)]
"""Rates and largest leverages of narrow tiers: from 150 on each reaches twice as far as the one before."""

POLICIES = {
    "none": Policy(),
    "confirm 1": Policy(confirm_bars=1),
    "confirm 3": Policy(confirm_bars=3),
    "step 1": Policy(ladder=Ladder(step=1)),
    "step 2": Policy(ladder=Ladder(step=2)),
    "fraction": Policy(ladder=Ladder(fraction=0.2, above=900.0)),
    "confirmed steps": Policy(confirm_bars=2, ladder=Ladder(step=1)),
    "top-up": Policy(top_up=TopUp(target_ratio=0.5, reserve=0.5, max_times=3)),
    "late top-up": Policy(top_up=TopUp(target_ratio=0.3, reserve=2.0, max_times=2, delay_bars=2)),
    "deleverage": Policy(deleverage=Deleverage(fraction=0.5, max_times=3)),
    "late deleverage": Policy(deleverage=Deleverage(fraction=0.25, max_times=2, delay_bars=3)),
    "stop": Policy(stop_loss=Exit(distance=0.05, slippage=0.001)),
    "stop of margin": Policy(stop_loss=Exit(distance=0.5, of="margin")),
    "stop on last": Policy(stop_loss=Exit(distance=0.03, on="last", slippage=0.002)),
    "take": Policy(take_profit=Exit(distance=0.03)),
    "take of margin on last": Policy(take_profit=Exit(distance=0.8, of="margin", on="last")),
    "bracket": Policy(stop_loss=Exit(distance=0.02), take_profit=Exit(distance=0.04)),
    "scale-in": Policy(scale_in=ScaleIn(distance=(0.01, 0.03, 0.08), multiple=(1.0, 2.0, 0.5))),
    "martingale": Policy(
        scale_in=ScaleIn(distance=(0.01, 0.05), multiple=(1.0, 4.0)),
        stop_loss=Exit(distance=0.1),
        take_profit=Exit(distance=0.02),
    ),
    "everything": Policy(
        confirm_bars=2,
        ladder=Ladder(step=1),
        top_up=TopUp(target_ratio=0.4, reserve=1.0, max_times=2, delay_bars=1),
        stop_loss=Exit(distance=0.9, of="margin", on="last", slippage=0.001),
        take_profit=Exit(distance=0.5, of="margin"),
        scale_in=ScaleIn(distance=(0.02, 0.06), multiple=(0.5, 1.0)),
    ),
    "ladder and all": Policy(
        ladder=Ladder(fraction=0.5, above=300.0),
        deleverage=Deleverage(fraction=0.3, max_times=2, delay_bars=0),
        stop_loss=Exit(distance=0.15, on="last"),
        take_profit=Exit(distance=0.06),
        scale_in=ScaleIn(distance=(0.02, 0.06), multiple=(1.0, 1.0)),
    ),
}


@dataclass(frozen=True)
class Case:
    """One scenario, for the package and for the oracle."""

    side: str = "long"
    contract: str = "linear"
    basis: str = "mark"
    rule: str = "flat"  # or one of TABLES
    rate: float = 0.004
    size: Size | None = None
    open_fee: float = 0.0005
    taker_fee: float = 0.0007
    close_reserve: float = 0.0
    funding: Funding = FUNDING
    fees_from_margin: bool = True
    ratio: float = 0.8
    slippage: float = 0.0
    liquidation_fee: float = 0.0
    surplus: Literal["trader", "fund"] = "trader"
    posted_fee: float = 0.0

    def terms(self) -> MarginTerms:
        return MarginTerms(self.fees_from_margin, self.ratio, self.slippage, self.liquidation_fee, self.surplus)

    def scenario(self, policy: Policy | None) -> Scenario:
        tables = tuple(DatedTable(d, table_of(x, self.rule)) for d, x in tables_of(self.rule))
        rule = Maintenance(
            self.rule,
            self.contract,
            self.basis,
            self.close_reserve,
            flat=self.rate,
            tables=tables,
            posted_fee=self.posted_fee,
            taker_fee=self.taker_fee,
        )
        return Scenario(self.side, rule, self.open_fee, self.funding, self.size, policy=policy)

    def oracle(self, leverage: float) -> Terms:
        held: float | tuple[Tier, ...] | Dated = self.rate
        if dated := tuple((d, tiers_of(x, self.rule)) for d, x in tables_of(self.rule)):
            held = Dated(dated) if len(dated) > 1 else dated[0][1]
        size = self.size or Size(notional=1.0)
        return Terms(
            side=1 if self.side == "long" else -1,
            leverage=leverage,
            maintenance=held,
            basis=self.basis,
            close_reserve=self.close_reserve,
            open_fee=self.open_fee,
            fees_from_margin=self.fees_from_margin,
            funding_scale=self.funding.scale,
            funding_shift=self.funding.shift,
            notional=size.notional if self.size else None,
            margin=size.margin,
            margin_call_ratio=self.ratio,
            liquidation_slippage=self.slippage,
            liquidation_fee=self.liquidation_fee,
            contract=self.contract,
            extra=size.extra,
            surplus=self.surplus,
            posted_fee=self.posted_fee,
        )


TABLES = ["with", "without", "dated with", "dated without", "narrow with", "narrow without"]


def tables_of(rule: str) -> list[tuple[int | None, list[tuple[float, ...]]]]:
    """Dates and tiers of one of `TABLES`: floor, cap, rate, deduction, largest leverage."""
    if rule == "flat":
        return []
    if rule.startswith("dated"):
        return list(zip(TIMES_MS, (LADDER, LATER, LATEST), strict=True))
    return [(None, narrow() if rule.startswith("narrow") else LADDER)]


def narrow() -> list[tuple[float, ...]]:
    """`BANDS`, with the deductions that join them."""
    out: list[tuple[float, ...]] = []
    floor = deduction = before = 0.0
    for k, (rate, most) in enumerate(BANDS):
        deduction += floor * (rate - before)
        cap = 150.0 * 2**k if k < len(BANDS) - 1 else 60_000.0
        out.append((floor, cap, rate, deduction, most))
        floor, before = cap, rate
    return out


def table_of(ladder: list[tuple[float, ...]], rule: str) -> TierTable:
    floor, cap, mmr, deduction, most = (np.array(column) for column in zip(*ladder, strict=True))
    return TierTable(rule, floor, cap, mmr, most, None if rule.endswith("without") else deduction)


def tiers_of(ladder: list[tuple[float, ...]], rule: str) -> tuple[Tier, ...]:
    return tuple(Tier(f, c, m, None if rule.endswith("without") else d, x) for f, c, m, d, x in ladder)


def oracle_policy(policy: Policy) -> oracle.Policy:
    ladder = policy.ladder
    made = {
        name: getattr(oracle, kind)(**getattr(policy, name).model_dump())
        for name, kind in (
            ("top_up", "TopUp"),
            ("deleverage", "Deleverage"),
            ("stop_loss", "Exit"),
            ("take_profit", "Exit"),
            ("scale_in", "ScaleIn"),
        )
        if getattr(policy, name)
    }
    if ladder:
        made["ladder"] = oracle.Step(ladder.step) if ladder.step else oracle.Fraction(ladder.fraction, ladder.above)
    return oracle.Policy(confirm_bars=policy.confirm_bars, **made)


def work_of(made: Rows, case: Case, horizons: list[int], leverages: list[float], every: int = 1) -> Population:
    grid = build_grid(history_of(made))
    bars = grid.entry_bars()[::every]
    return Population(grid, bars, tuple(horizons), np.array(leverages), 24 * HOUR, case.terms())


def last_of(work: Population) -> oracle.Last:
    """Last prices of the grid, for an exit on `last`."""
    columns = (work.grid.last_open, work.grid.last_high, work.grid.last_low)
    return oracle.Last(*([None if math.isnan(v) else float(v) for v in column] for column in columns))


def close_to(got: float, want: float | None) -> bool:
    """Null is NaN; 1e-9 relative to the price or to the initial margin."""
    return math.isnan(got) if want is None else abs(got - want) <= 1e-9 * max(1.0, abs(want))


def assert_same(
    work: Population,
    grid: Grid,
    case: Case,
    policy: Policy,
    leverage: float,
    lives: SimulatedPositions,
    every: int,
    weight: float | None = None,
) -> int:
    """Each life of a chunk against the literal walk; how many had an event."""
    events = 0
    for j, bar in enumerate(work.bars[::every]):
        n = j * every
        for k, h in enumerate(work.horizons):
            if bar + h >= work.grid.n_bars:
                continue
            want = oracle.live(
                grid,
                case.oracle(leverage),
                oracle_policy(policy),
                int(bar),
                h,
                taker_fee=case.taker_fee,
                last=last_of(work),
                weight=weight,
            )
            where = (case, policy.label, leverage, int(bar), h, want)
            assert lives.rejected[n] == want.rejected, where
            if want.rejected:
                continue
            assert OUTCOMES[lives.outcome[n, k]] == want.outcome, where
            assert lives.end[n, k] == (want.end_bar - bar if want.outcome != "survived" else 0), where
            assert lives.margin_call[n, k] == (0 if want.margin_call_bar is None else want.margin_call_bar - bar), where
            for name in ("partial_liquidations", "top_ups", "deleverages", "scale_ins", "recovered"):
                assert getattr(lives, name)[n, k] == getattr(want, name), (name, where)
            amounts = {"equity": want.equity_end, "residual": want.residual, "insurance": want.insurance}
            amounts |= {"fees": want.fees, "added": want.added, "fill_price": want.fill_price}
            for name, value in amounts.items():
                scale = work.grid.entry_price[bar] if name == "fill_price" else 1.0
                got = getattr(lives, name)[n, k] / scale
                assert close_to(got, None if value is None else value / scale), (name, got, where)
            events += want.outcome != "survived" or want.margin_call_bar is not None
    return events


SIZES = {
    "linear": [Size(notional=1_500.0), Size(notional=9_000.0), Size(margin=700.0), Size(margin=300.0, extra=200.0)],
    "inverse": [Size(margin=700.0), Size(margin=90.0, extra=30.0), Size(notional=200_000.0), Size(margin=5_000.0)],
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A scenario of any contract, basis, table and fee."""
    contract = draw(st.sampled_from(["linear", "inverse"]))
    rule = draw(st.sampled_from(["flat", *TABLES]))
    return Case(
        side=draw(st.sampled_from(["long", "short"])),
        contract=contract,
        basis=draw(st.sampled_from(["mark", "entry"])),
        rule=rule,
        rate=draw(st.sampled_from([0.0, 0.004, 0.03])),
        size=draw(st.sampled_from(SIZES[contract])),
        open_fee=draw(st.sampled_from([0.0, 0.002])),
        taker_fee=draw(st.sampled_from([0.0, 0.0007, 0.01])),
        close_reserve=draw(st.sampled_from([0.0, 0.0006])),
        funding=draw(st.sampled_from([Funding(), Funding(scale=0.0), Funding(scale=-3.0, shift=0.0004)])),
        fees_from_margin=draw(st.booleans()),
        ratio=draw(st.sampled_from([0.6, 0.8, 1.0])),
        slippage=draw(st.sampled_from([0.0, 0.002])),
        liquidation_fee=draw(st.sampled_from([0.0, 0.01])),
        surplus=draw(st.sampled_from(["trader", "fund"])),
        posted_fee=draw(st.sampled_from([0.0, 0.00055, 0.02])),
    )


def check(made: Rows, case: Case, policy: Policy, leverage: float, horizons: list[int], every: int = 1) -> int:
    """Lives of a history against the walk; how many positions had an event."""
    work = work_of(made, case, horizons, [leverage])
    scenario = case.scenario(policy)
    lives = simulate_policy(work, scenario, slice(0, work.bars.size), leverage)
    return assert_same(work, oracle_grid(made), case, policy, leverage, lives, every)


def enterable(made: Rows) -> bool:
    """Whether the package and the oracle both find a grid with an entry in it."""
    try:
        return oracle_grid(made) is not None and build_grid(history_of(made)).entry_bars().size > 0
    except ValueError:
        return False


def random_case(seed: int) -> Case:
    """A scenario from a seed: the hypothesis strategy's choices, but cheap to repeat."""
    rng = np.random.default_rng(seed)

    def pick(*choices: object) -> object:
        return choices[int(rng.integers(len(choices)))]

    contract = pick("linear", "inverse")
    return Case(
        side=pick("long", "short"),
        contract=contract,
        basis=pick("mark", "mark", "entry"),
        rule=pick("flat", "flat", "with", "without", "dated with", "dated without"),
        size=pick(*SIZES[contract]),
        close_reserve=pick(0.0, 0.0006),
        funding=pick(Funding(), Funding(scale=-3.0, shift=0.0004)),
        fees_from_margin=pick(True, True, False),
        ratio=pick(0.8, 0.6, 1.0),
        slippage=pick(0.0, 0.002),
        liquidation_fee=pick(0.0, 0.01),
        surplus=pick("trader", "fund"),
        posted_fee=pick(0.0, 0.00055, 0.02),
    )


def assert_equal(one: SimulatedPositions, other: SimulatedPositions) -> None:
    for name, values in vars(one).items():
        assert np.array_equal(values, getattr(other, name), equal_nan=values.dtype.kind == "f"), name
