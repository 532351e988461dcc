"""Positions of one scenario and leverage as arrays: equity, liquidation and bankruptcy price, fill.

Amounts are per unit of entry notional, in the currency of the margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float, Int
from backtest.config.scenarios import Scenario
from backtest.margin.liquidation import liquidation_prices
from backtest.margin.spot import loans, owed_and_owned, prices_at_ltv


@dataclass(frozen=True)
class Positions:
    """Opened at `entry_price` : (n,) with `leverage` : (n,), each entry's own.

    Attributes
    ----------
    fee : float
        Share of the notional taken from the margin at entry.
    """

    scenario: Scenario
    leverage: Float
    fee: float
    entry_price: Float

    def growth(self, price: Float) -> Float:
        """Notional at a price over that at entry."""
        return self.scenario.worth(price) / self.scenario.worth(self.entry_price)

    @property
    def notional(self) -> Float:
        """(n,) at entry, quote or coin; 1 where the scenario has no size."""
        return self.scenario.notionals(self.leverage, self.entry_price)

    @property
    def margin(self) -> Float:
        """(n,) what stands against losses: the posted margin, and wallet balance beside it."""
        extra = self.scenario.counted_extra
        return 1 / self.leverage + (extra / self.notional if extra else 0.0)

    def equity(self, price: Float, cost: Float) -> Float:
        """Margin balance at a price; `cost` is the funding paid since entry, in the unit of worth."""
        entry = self.scenario.worth(self.entry_price)
        gain = self.scenario.lean * (self.scenario.worth(price) - entry) - self.scenario.sign * cost
        return self.margin - self.fee + gain / entry

    def liquidation_price(self, cost: Float, when_ms: Int, scale: Float) -> Float:
        """Price at which equity equals maintenance, the tier being the one at that price; ≤ 0 where there is none.

        Parameters
        ----------
        cost : (n,)
            Funding since entry, in the unit of worth.
        when_ms : (n,)
            Open time of the bar whose tier table is in force.
        scale : (n,)
            Multiplier of the maintenance margin in that bar.
        """
        rule = self.scenario.maintenance
        dates = [-np.inf if dated.effective_from_ms is None else dated.effective_from_ms for dated in rule.tables]
        place = np.maximum(0, np.searchsorted(dates, when_ms, side="right") - 1) if dates else np.zeros(cost.size, int)
        entry, notional = self.scenario.worth(self.entry_price), self.notional
        price = np.empty(cost.size)
        for k in np.unique(place):
            who = place == k
            if not dates:
                mmr, deduction = np.array([[rule.flat]]), np.zeros((1, 1))
            elif (table := rule.tables[k].table).deduction is not None:
                mmr, deduction = table.mmr[:, None], table.deduction[:, None]
            else:
                mmr, deduction = table.mmr[table.tier_index(notional[who])][None], np.zeros((1, 1))
            left = (self.margin - self.fee - self.scenario.sign * cost / entry) * notional
            price[who] = liquidation_prices(
                self.scenario.side,
                self.entry_price[who],
                (notional / entry)[who],
                left[who],
                (scale[who] * mmr, scale[who] * deduction),
                contract="inverse" if self.scenario.inverse else "linear",
                basis=rule.basis,
                close_reserve=rule.close_reserve,
                slope=rule.slope * scale[who],
            )
        level = np.isfinite(price) & (price > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Rounding leaves a worth of 1e-17 of that at entry where there is none.
            level &= self.scenario.worth(price) > 1e-12 * entry
        return np.where(level, price, -1.0)

    def bankruptcy_price(self) -> Float:
        """Price at which the margin is gone, fees and funding aside; not within (0, ∞) where there is none."""
        with np.errstate(divide="ignore"):
            return self.scenario.worth(self.scenario.worth(self.entry_price) * (1 - self.scenario.lean * self.margin))


@dataclass(frozen=True)
class Loans(Positions):
    """Spot margin: what was borrowed, against what it bought; `cost` is the growth of the debt since entry."""

    @property
    def _loan(self) -> tuple[Float, Float]:
        """Debt and assets per unit of notional: a quantity of 1/p."""
        ones = np.ones(self.leverage.size)
        return loans(self.scenario.side, 1 / self.entry_price, ones, 1 / self.leverage, self.fee * ones)

    def equity(self, price: Float, cost: Float) -> Float:
        """Assets less debt at a price."""
        owed, owned = owed_and_owned(self.scenario.side, price, *self._loan, cost)
        return owned - owed

    def liquidation_price(self, cost: Float, when_ms: Int, scale: Float) -> Float:
        """Price at which the loan to value reaches that of liquidation; ≤ 0 where there is none."""
        spot = self.scenario.maintenance.spot
        assert spot is not None
        price = prices_at_ltv(self.scenario.side, *self._loan, spot.liquidation_ltv, cost)
        return np.where(price > 0, price, -1.0)

    def bankruptcy_price(self) -> Float:
        """Price at which debt equals assets, interest aside; 0 where there is none."""
        return prices_at_ltv(self.scenario.side, *self._loan, 1.0)


def positions_of(scenario: Scenario, leverage: Float, fee: float, entry_price: Float) -> Positions:
    """Positions under the scenario's contract."""
    kind = Positions if scenario.maintenance.spot is None else Loans
    return kind(scenario, leverage, fee, entry_price)


def fill_price(price: Float, trigger_open: Float, sign: float, slippage: float) -> Float:
    """The worse of the liquidation price and the bar's open (a gap is not filled at the level), then slipped."""
    level = np.where(price > 0, price, np.nan)
    worse = np.fmin(level, trigger_open) if sign > 0 else np.fmax(level, trigger_open)
    return worse * (1 - sign * slippage)
