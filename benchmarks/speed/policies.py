"""How much slower are followed positions with a policy, against the same positions without one?

Run: ``python -m benchmarks.speed.policies``, single thread. Half a year of generated 1-minute bars, an entry every
hour, a horizon of 30 days, 6 leverages. Without a policy a position is followed to its liquidation or to the horizon.
"""

from __future__ import annotations

import time
from dataclasses import replace

import backtest as bt
from backtest.config.models import Config, Size
from backtest.config.policies import Deleverage, Exit, Ladder, Policy, ScaleIn, TopUp
from backtest.config.scenarios import Scenario, expand_scenarios
from backtest.data.synthetic import demo_history
from backtest.engine.bars import build_grid
from backtest.engine.cohorts import Population
from backtest.engine.count import count_entries
from backtest.engine.prepare import prepare_entries
from backtest.margin.packaged_tiers import packaged_tables
from benchmarks.common import in_turn

POLICIES = (
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
BANKROLL = 0.1


def count_all(population: Population, scenario: Scenario) -> None:
    """Follow every position."""
    for chunk in population.chunks():
        count_entries(population, [scenario], chunk, BANKROLL)


def main() -> None:
    """Print microseconds and ratios: a flat rate where no tiers are needed, and the tiers of BTCUSDT."""
    sweep = bt.Sweep(side=["long"], leverage=[2, 3, 5, 10, 15, 25], horizon=["30d"], maintenance=[0.004])
    config = Config(sweep=sweep, entries=bt.Entries(every="1h"))
    population = prepare_entries(config, build_grid(demo_history(years=0.5)))
    flat = expand_scenarios(config)[0]
    tables = (replace(packaged_tables("binance-usdm", "BTCUSDT")[-1], effective_from_ms=None),)
    maintenance = replace(flat.maintenance, label="tiers", flat=0.0, tables=tables)
    tiered = replace(flat, maintenance=maintenance, size=Size(notional=2_000_000.0))
    positions = population.bars.size * population.leverages.size
    print(f"{positions:,} positions\n{'policy':100} {'µs':>7} {'ratio':>6}")
    for name, plain in (("flat", flat), ("tiers", tiered)):
        for policy in POLICIES:
            if policy.ladder is not None and name == "flat":
                continue
            calls = [lambda s=s: count_all(population, s) for s in (plain, replace(plain, policy=policy))]
            without, seconds = in_turn(*calls, repeat=3, clock=time.process_time)
            label = f"{name}, {policy.label}"
            print(f"{label[:100]:100} {seconds / positions * 1e6:7.2f} {seconds / without:6.2f}")


if __name__ == "__main__":
    main()
