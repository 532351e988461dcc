"""Small histories for the examples worked by hand."""

from dataclasses import replace

from tests.oracles.walk import Rows, Scenario, Verdict, grid_of, walk_one

HOUR = 3_600_000
Bar = tuple[float, float, float, float]


def rows_of(*bars: Bar | None, funding: dict[int, float] | None = None, **columns: object) -> Rows:
    """Hourly last prices as (open, high, low, close); None leaves the prices of a bar null."""
    opens, highs, lows, closes = ([None if bar is None else bar[k] for bar in bars] for k in range(4))
    rates = [None if funding is None else funding.get(t) for t in range(len(bars))]
    times = [t * HOUR for t in range(len(bars))]
    rows = Rows(HOUR, times, opens, highs, lows, closes, funding_rate=rates)
    return replace(rows, **columns)  # type: ignore[arg-type]


def flat(price: float = 100.0) -> Bar:
    return (price, price, price, price)


def first(scenario: Scenario, *bars: Bar | None, funding: dict[int, float] | None = None) -> Verdict:
    """The entry at the first bar's close, held to the last bar."""
    return walk_one(grid_of(rows_of(*bars, funding=funding)), scenario, 0, len(bars) - 1)
