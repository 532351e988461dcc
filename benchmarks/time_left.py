"""Whether the progress bar is right about the time left, over runs of several kinds.

Run: ``python benchmarks/time_left.py [--years 2]``. Each run is made once and watched: whenever the bar moves, what it
says is held against what the run then took. Prints, per kind, how far off it was at a tenth of the work, and at most
from there to nine tenths; after that seconds are few, and the error is given in seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import backtest as bt
from backtest.data.synthetic import demo_history
from backtest.progress import Progress

LEVERAGE = range(1, 126)
HORIZON = ["1h", "4h", "8h", "1d", "3d", "7d", "14d", "30d"]
RATES = [0.004, 0.005, 0.01, 0.02, 0.05]
KINDS: dict[str, tuple[int, bt.Sweep, bt.Statistics]] = {
    "one symbol": (1, bt.Sweep(leverage=LEVERAGE, horizon=HORIZON, maintenance=RATES), bt.Statistics()),
    "six symbols": (6, bt.Sweep(leverage=LEVERAGE, horizon=HORIZON, maintenance=RATES), bt.Statistics()),
    "regimes": (
        2,
        bt.Sweep(leverage=LEVERAGE, horizon=HORIZON, maintenance=RATES),
        bt.Statistics(regimes=["month", "volatility"]),
    ),
    "outcomes": (
        2,
        bt.Sweep(leverage=[3, 10, 25], horizon=["1d", "7d"], maintenance=RATES),
        bt.Statistics(outcomes=True),
    ),
    "policies": (
        2,
        bt.Sweep(
            leverage=[3, 10, 25],
            horizon=["1d", "7d"],
            maintenance=[0.004],
            policy=[{}, {"stop_loss": {"distance": 0.05}}, {"confirm_bars": 3}],
        ),
        bt.Statistics(),
    ),
}


def watched(data: Path, symbols: list[str], sweep: bt.Sweep, statistics: bt.Statistics) -> list[tuple[float, ...]]:
    """(seconds since the run began, share done, seconds left as it was said) of each move; last, when it was over."""
    seen: list[tuple[float, ...]] = []
    advance, begun = Progress.advance, time.perf_counter()

    def watching(self: Progress, by: float) -> None:
        advance(self, by)
        left = self.seconds_left()
        if left is not None:
            seen.append((time.perf_counter() - begun, self.done / self.total, left))

    Progress.advance = watching  # type: ignore[method-assign]
    try:
        bt.run(data, sweep, data=bt.Data(symbols=symbols), statistics=statistics)
    finally:
        Progress.advance = advance  # type: ignore[method-assign]
    return [*seen, (time.perf_counter() - begun, 1.0, 0.0)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=float, default=2.0)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        names = [f"S{n}USDT" for n in range(6)]
        for n, name in enumerate(names):  # of unlike length
            bt.write_history(demo_history(n, asked.years * (1 - n / 10), symbol=name), data)
        bt.run(data, bt.Sweep(leverage=[5], horizon=["1h"], maintenance=[0.01]), data=bt.Data(symbols=names[:1]))
        print(f"{'run':14}{'seconds':>9}{'at a tenth':>12}{'worst to 90 %':>15}{'worst after':>13}")
        for kind, (count, sweep, statistics) in KINDS.items():
            seen = watched(data, names[:count], sweep, statistics)
            end = seen[-1][0]
            off = [(share, (left - (end - at)) / (end - at), left - (end - at)) for at, share, left in seen[:-1]]
            middle = [error for share, error, _ in off if 0.1 <= share <= 0.9]
            late = [seconds for share, _, seconds in off if share > 0.9] or [0.0]
            print(
                f"{kind:14}{end:9.1f}{middle[0]:+12.0%}{max(middle, key=abs):+15.0%}{max(late, key=abs):+11.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
