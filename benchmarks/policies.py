"""Path-dependent rules by events against a walk over every bar, from one run on one machine, single thread.

Run: ``python benchmarks/policies.py``. Half a year of generated 1-minute bars, an entry every hour, a horizon of
30 days. The walk keeps every level at hand until the position changes, tests nothing but its verdicts bar by bar, and
ends with the position. Both answer with the same lives, or the benchmark fails.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from backtest.arrays import Float
from backtest.config.models import Funding, Size
from backtest.config.policies import Deleverage, Exit, Ladder, Policy, ScaleIn, TopUp
from backtest.config.scenarios import Maintenance, Scenario
from backtest.data.synthetic import demo_history
from backtest.engine.bars import Grid, build_grid
from backtest.engine.cohorts import Population
from backtest.engine.kernels.jit import kernel
from backtest.engine.kernels.policy_loop import RESULT, Market, lines_between, reach, simulate, walk_bar, write_result
from backtest.engine.kernels.position import TIE, Records, exit_price, heeds_call, period_at, scale_in_price
from backtest.engine.policy_inputs import make_policy_inputs
from backtest.engine.policy_simulation import grid_openings, opening_records
from backtest.engine.thresholds import MarginTerms
from backtest.margin.packaged_tiers import packaged_tables

LEVERAGES = (2.0, 3.0, 5.0, 10.0, 15.0, 25.0)
MONTH = 30 * 1440
WATCHED = ("adverse", "stop_adverse", "favourable", "paid", "close")
DAY_MS = 86_400_000
POLICIES = (
    Policy(),
    Policy(confirm_bars=5),
    Policy(ladder=Ladder(step=1)),
    Policy(top_up=TopUp(target_ratio=0.5, reserve=1.0, max_times=3, delay_bars=5)),
    Policy(deleverage=Deleverage(fraction=0.5, max_times=3)),
    Policy(stop_loss=Exit(distance=0.15), take_profit=Exit(distance=0.3)),
    Policy(scale_in=ScaleIn(distance=(0.05, 0.1, 0.2), multiple=(1.0, 1.0, 2.0))),
    Policy(
        ladder=Ladder(step=1),
        top_up=TopUp(target_ratio=0.5, reserve=1.0, max_times=3),
        scale_in=ScaleIn(distance=(0.05, 0.1, 0.2), multiple=(1.0, 1.0, 2.0)),
        stop_loss=Exit(distance=0.9, of="margin"),
        take_profit=Exit(distance=2.0, of="margin"),
    ),
)


@kernel(fastmath=False)
def walk(market: Market, columns: Float, terms: Records, positions: Records, horizon: int, out: Records) -> None:
    """Every bar of every position: the same tests as `simulate`, none left out.

    columns : (5, n_bars) adverse price, what stop-loss and take-profit watch, funding paid, close
    """
    bars, periods, lines, additions, _, _ = market
    rules = terms[0]
    sign, lean, inverse, ratio, reserve = rules.sign, rules.lean, rules.inverse, rules.call_ratio, rules.close_reserve
    confirmed = rules.confirm_bars > 0
    for j in range(positions.size):
        p = positions[j]
        if p.rejected:
            continue
        end = min(p.bar + horizon, p.last)
        t = p.bar + 1
        while t <= end:  # what stays until the next event
            stop = reach(exit_price(rules, p, rules.stop_at, rules.stop_of_margin, -1.0), -sign)
            take = reach(exit_price(rules, p, rules.take_at, rules.take_of_margin, 1.0), sign)
            deeper = reach(scale_in_price(rules, p), -sign)
            heeds = heeds_call(rules, p)
            k = period_at(periods, t)
            until = min(end + 1, periods[k + 1].first)
            low, high = lines_between(rules, lines, p, periods[k])
            rate, deduction = lines[low].mmr, lines[low].deduction
            at_zero = p.balance - lean * p.quantity * p.entry + sign * p.quantity * p.paid - TIE * p.margin
            quantity, gain, owed, due = p.quantity, lean * p.quantity, sign * p.quantity, p.answer
            while t < until:
                price = columns[0, np.uint64(t)]
                v = 1.0 / price if inverse else price
                needed = (rate + reserve) * quantity * v - deduction
                if high > low:
                    needed = required(rules, lines, low, high, quantity * v)
                left = at_zero + gain * v - owed * columns[3, np.uint64(t)]
                called = heeds and left <= needed / ratio
                if confirmed:
                    v = 1.0 / columns[4, np.uint64(t)] if inverse else columns[4, np.uint64(t)]
                    needed = required(rules, lines, low, high, quantity * v)
                    left = at_zero + gain * v - owed * columns[3, np.uint64(t)]
                if (
                    called
                    or left <= needed
                    or -sign * columns[1, np.uint64(t)] >= stop
                    or sign * columns[2, np.uint64(t)] >= take
                    or -sign * price >= deeper
                    or due <= t
                ):
                    break
                t += 1
            if t < until:
                if walk_bar(bars, rules, periods, lines, additions, p, t):
                    break
                t += 1
        write_result(bars, rules, periods, lines, p, end, out[j, 0])


@kernel(fastmath=False)
def required(rules: np.record, lines: Records, low: int, high: int, size: float) -> float:
    """Maintenance on mark basis, of the lines that can be in force."""
    most = lines[low].mmr * size - lines[low].deduction
    for k in range(low + 1, high + 1):
        most = max(most, lines[k].mmr * size - lines[k].deduction)
    return float(most + rules.close_reserve * size)


def work_of(grid: Grid) -> Population:
    """Entries every hour."""
    terms = MarginTerms(liquidation_slippage=0.001, liquidation_fee=0.005)
    return Population(grid, grid.entry_bars(3_600_000), (MONTH,), np.array(LEVERAGES), 7 * DAY_MS, terms)


def scenarios() -> list[tuple[str, Scenario]]:
    """A flat rate for what needs no tiers, the tiers of BTCUSDT at a size of some tiers for the rest."""
    flat = Maintenance("0.004", "linear", "mark", 0.0, flat=0.004)
    tiers = replace(flat, label="tiers", tables=packaged_tables("binance-usdm", "BTCUSDT")[-1:])
    tiers = replace(tiers, tables=(replace(tiers.tables[0], effective_from_ms=None),))
    plain = Scenario("long", flat, 0.0005, Funding(), None)
    out = []
    for policy in POLICIES:
        if policy.ladder is None:
            out.append((f"{policy.label}, flat", replace(plain, policy=policy)))
        sized = replace(plain, maintenance=tiers, size=Size(notional=2_000_000.0), policy=policy)
        out.append((f"{policy.label}, tiers", sized))
    return out


def seconds_of(work: Population, scenario: Scenario, *, literal: bool) -> tuple[float, list[Records]]:
    """Time of all leverages, and their lives; the walk's is without what it does not need."""
    chunk = slice(0, work.bars.size)
    opened = [grid_openings(work, chunk, leverage) for leverage in LEVERAGES]
    started = time.perf_counter()
    inputs = make_policy_inputs(work, scenario, opened)
    if literal:
        columns = np.array([inputs.market.bars[name] for name in WATCHED])
        started = time.perf_counter()
    lives = []
    for entries in opened:
        positions = opening_records(work, scenario, entries, inputs)
        out = np.zeros((positions.size, 1), RESULT)
        if literal:
            walk(inputs.market, columns, inputs.terms, positions, MONTH, out)
        else:
            simulate(inputs.market, inputs.terms, positions, np.array([MONTH]), out)
        lives.append(out)
    return time.perf_counter() - started, lives


def main() -> None:
    """Print a table of ratios."""
    grid = build_grid(demo_history(years=0.5))
    work = work_of(grid)
    inside = work.bars + MONTH < grid.n_bars
    work = replace(work, bars=work.bars[inside])
    warm = replace(work, bars=work.bars[:2])
    n = work.bars.size * len(LEVERAGES)
    print(f"{work.bars.size} entries x {len(LEVERAGES)} leverages, horizon {MONTH:,} bars")
    print(f"{'policy':100} {'walk us':>9} {'events us':>9} {'ratio':>6}  survived")
    for label, scenario in scenarios():
        for literal in (True, False):
            seconds_of(warm, scenario, literal=literal)
        slow, want = seconds_of(work, scenario, literal=True)
        fast, got = min((seconds_of(work, scenario, literal=False) for _ in range(3)), key=lambda found: found[0])
        assert all((a == b).all() or same(a, b) for a, b in zip(want, got, strict=True)), label
        survived = np.mean([(lives["outcome"] == 0).mean() for lives in got])
        print(f"{label[:100]:100} {slow / n * 1e6:9.1f} {fast / n * 1e6:9.2f} {slow / fast:6.0f}  {survived:.0%}")


def same(one: Records, other: Records) -> bool:
    """Field by field, null being equal to null."""
    return all(np.array_equal(one[f], other[f], equal_nan=one[f].dtype.kind == "f") for f in one.dtype.names or ())


if __name__ == "__main__":
    main()
