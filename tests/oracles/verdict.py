"""What became of one entry, for every contract."""

from dataclasses import dataclass

from tests.oracles.position import Scenario


@dataclass(frozen=True)
class Verdict:
    """What became of one entry; bars are grid indices, residual and insurance fractions of the posted margin."""

    entry_bar: int
    entry_time_ms: int
    entry_price: float
    rejected: bool
    margin_call_bar: int | None = None
    liquidation_bar: int | None = None
    liquidation_price: float | None = None
    bankruptcy_price: float | None = None
    fill_price: float | None = None
    residual: float | None = None
    recovered: bool = False
    insurance: float | None = None


def shares_of(scenario: Scenario, left: float, margin: float) -> tuple[float, float]:
    """§6: residual and insurance, of what a liquidation leaves after its fee."""
    if scenario.surplus == "fund":
        return 0.0, left / margin
    if left >= 0:
        return left / margin, 0.0
    return 0.0, left / margin
