"""One position and the rule it is margined by, checked once (docs/semantics.md §2, §4, §5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from backtest.arrays import Float
from backtest.errors import ConfigError, RuleError
from backtest.margin.rules import BASES, CONTRACTS, Basis, Contract
from backtest.margin.tiers import CAP_SLACK, TierTable
from backtest.units import number_text

T = TypeVar("T", bound=str)
Side = Literal["long", "short"]
SIDES: tuple[Side, ...] = get_args(Side)

RATE = "a fraction of the notional, at least 0 and below 1"
ALLOWED: dict[str, tuple[str, Callable[[float], bool]]] = {
    **dict.fromkeys(("entry_price", "quantity", "mark_price"), ("> 0", lambda value: value > 0)),
    **dict.fromkeys(("leverage", "margin", "wallet", "max_leverage"), ("> 0", lambda value: value > 0)),
    **dict.fromkeys(("extra_margin", "deduction", "other_maintenance"), ("≥ 0", lambda value: value >= 0)),
    **dict.fromkeys(("funding_paid", "other_unrealized"), ("finite", math.isfinite)),
    **dict.fromkeys(("mmr", "close_reserve", "taker_fee"), (RATE, lambda value: 0 <= value < 1)),
    "initial_rate": ("a fraction of the notional, above 0 and below 1", lambda value: 0 < value < 1),
    "slope": ("a rate per coin of size, ≥ 0", lambda value: value >= 0),
}


def unit_value(contract: Contract, price: float) -> float:
    """Value of one unit of quantity at a price, in the margin currency; applied twice it gives the price back.

    Notes
    -----
    Linear: quote per base, the price. Inverse: coin per quote, 1/price. Margin balance and maintenance margin are
    written with it once for both contracts: an inverse long is a linear short of quote against coin.

    Examples
    --------
    >>> unit_value("linear", 4.0), unit_value("inverse", 4.0)
    (4.0, 0.25)
    """
    if contract == "linear":
        return price
    return 1 / price if price else math.inf


@dataclass(frozen=True, kw_only=True)
class OpenPosition:
    """What every kind of position has, and who pays for it.

    Attributes
    ----------
    side : {"long", "short"}
    entry_price : float
        Quote per base.
    quantity : float
        > 0 on both sides, base; quote (contracts times face value) of an inverse contract.
    leverage, margin, wallet : float or None
        Exactly one. `leverage` gives the margin ``entry notional / leverage``, `margin` is the margin itself, `wallet`
        is the balance of a cross margin wallet. Amounts are in the margin currency: quote, or coin (inverse).
    mark_price : float or None
        Where maintenance margin and margin ratio are taken, quote per base; None: at entry.
    """

    side: Side
    entry_price: float
    quantity: float
    leverage: float | None = None
    margin: float | None = None
    wallet: float | None = None
    mark_price: float | None = None

    @property
    def notional(self) -> float:
        """At entry, in the margin currency."""
        return self.quantity * self.entry_price

    @property
    def price_now(self) -> float:
        """The mark price, else the entry price."""
        return self.entry_price if self.mark_price is None else self.mark_price

    @property
    def own_margin(self) -> float:
        """``notional / leverage``, or the margin or wallet given, in the margin currency."""
        if self.leverage is not None:
            return self.notional / self.leverage
        return self.margin or self.wallet or 0.0


@dataclass(frozen=True, kw_only=True)
class Position(OpenPosition):
    """One open perpetual or futures position and the terms it is margined by; further attributes in `OpenPosition`.

    Attributes
    ----------
    extra_margin : float
        Added to the margin.
    funding_paid : float
        Funding paid from the margin so far; below 0 where it was received.
    max_leverage : float or None
        The largest `leverage` the exchange allows.
    tiers : TierTable or None
    mmr, deduction : float or None, float
        Instead of a table: one maintenance rate (fraction of the notional) and the amount subtracted.
    other_maintenance, other_unrealized : float
        Maintenance margin and unrealized profit of the wallet's other positions; only with `wallet`.
    contract : {"linear", "inverse"}
    basis : {"mark", "entry"}
        Whether maintenance is a fraction of the notional at the mark price or at entry.
    close_reserve : float
        Closing fee that is part of the maintenance margin, fraction of the notional.
    taker_fee : float
        Where not 0, a fee to close is added to the margin and to maintenance: this fraction of the notional at the
        bankruptcy price (Bybit's unified account). Not with `wallet`.
    slope : float
        What one coin of size adds to `mmr` and `initial_rate`. The size is the quantity of a linear contract and the
        notional of an inverse one. Only with `mmr` and basis "mark".
    initial_rate : float or None
        Initial margin rate, fraction of the notional; it bounds `leverage`.

    Raises
    ------
    ConfigError
        With key, value and rule, if a value is impossible or keys exclude each other.
    RuleError
        If leverage, notional or maintenance rate exceeds what the rule or its tiers allow.

    Examples
    --------
    >>> Position(side="long", entry_price=20_000.0, quantity=1.0, leverage=50.0, mmr=0.005).initial_balance
    400.0
    """

    extra_margin: float = 0.0
    funding_paid: float = 0.0
    max_leverage: float | None = None
    tiers: TierTable | None = None
    mmr: float | None = None
    deduction: float = 0.0
    other_maintenance: float = 0.0
    other_unrealized: float = 0.0
    contract: Contract = "linear"
    basis: Basis = "mark"
    close_reserve: float = 0.0
    taker_fee: float = 0.0
    slope: float = 0.0
    initial_rate: float | None = None

    def __post_init__(self) -> None:
        check_position(self, ALLOWED)
        check_choice("contract", self.contract, CONTRACTS)
        check_choice("basis", self.basis, BASES)
        check_exactly_one(self, "tiers", "mmr")
        if self.mmr is None and self.deduction:
            raise ConfigError(f"deduction goes with mmr, tiers have their own; got {number_text(self.deduction)}")
        for key in ("other_maintenance", "other_unrealized"):
            if self.wallet is None and getattr(self, key):
                raise ConfigError(f"{key} goes with wallet (cross margin); got {number_text(getattr(self, key))}")
        if self.wallet is not None and self.taker_fee:
            raise ConfigError(
                "taker_fee adds a fee to close that follows from leverage or margin; with wallet, give the fee as "
                f"close_reserve; got {number_text(self.taker_fee)}"
            )
        if self.slope and (self.tiers is not None or self.basis == "entry"):
            raise ConfigError(f"slope goes with mmr and basis 'mark'; got {number_text(self.slope)}")
        if not math.isfinite(self.notional + self.initial_balance + self.notional_at(self.price_now)):
            raise ConfigError(
                "quantity · price and the margin must be finite amounts: they overflow a float64; give smaller numbers"
            )
        self._check_limits()

    def _check_limits(self) -> None:
        """Refuse more leverage or notional than the terms allow, and a maintenance margin of the whole notional."""
        most, whose = math.inf if self.max_leverage is None else self.max_leverage, "max_leverage"
        if self.tiers is not None:
            if self.notional > self.tiers.last_cap * (1 + CAP_SLACK):
                raise RuleError(
                    f"notional must be at most {self.tiers.last_cap:,.10g}, the last cap of {self.tiers.name}; "
                    f"got {self.notional:,.10g}"
                )
            tier_most = float(self.tiers.max_leverage_at(self.notional))
            if tier_most < most:
                most, whose = tier_most, f"{self.tiers.name}, notional {self.notional:,.10g}"
        if self.initial_rate is not None:
            rate = self.initial_rate + self.slope * self.coins_at(self.entry_price)
            if 1 / rate < most:
                most, whose = 1 / rate, f"initial rate {rate:.10g}"
        if self.leverage is not None and self.leverage > most * (1 + CAP_SLACK):
            raise RuleError(f"leverage must be at most {number_text(most)} ({whose}); got {number_text(self.leverage)}")
        highest = float(self.lines[0].max()) + self.slope * self.coins_at(self.entry_price)
        if not highest + self.close_reserve < 1:
            raise RuleError(
                f"mmr + close_reserve must be below 1, the whole notional; got {number_text(highest)} + "
                f"{number_text(self.close_reserve)}"
            )

    @property
    def sign(self) -> int:
        """+1 long, −1 short."""
        return 1 if self.side == "long" else -1

    @property
    def lean(self) -> int:
        """+1 where the position gains as `unit_value` rises (linear long, inverse short), else −1."""
        return self.sign if self.contract == "linear" else -self.sign

    def notional_at(self, price: float) -> float:
        """The notional at a price, quote (linear) or coin (inverse)."""
        return self.quantity * unit_value(self.contract, price)

    def coins_at(self, price: float) -> float:
        """The size in coin, at a price; a linear position's is its quantity."""
        return self.quantity if self.contract == "linear" else self.notional_at(price)

    @property
    def notional(self) -> float:
        """At entry, quote (linear) or coin (inverse)."""
        return self.notional_at(self.entry_price)

    @property
    def fee_to_close(self) -> float:
        """The fee to close at the bankruptcy price, paid in advance: ``N·(1 ∓ 1/L)·c``, units of the notional."""
        return (self.notional - self.lean * self.own_margin) * self.taker_fee

    @property
    def initial_balance(self) -> float:
        """The margin balance right after entry, fees aside: own margin and extra margin.

        Notes
        -----
        The fee to close is part of balance and of maintenance and cancels. Extra margin A moves the bankruptcy price,
        and the fee with it, so it counts as ``A/(1 − lean·c)``.
        """
        return self.own_margin + self.extra_margin / (1 - self.lean * self.taker_fee)

    @property
    def lines(self) -> tuple[Float, Float]:
        """``(mmr, deduction)``, (n_lines,) each: maintenance is the largest of ``mmr·n − deduction``."""
        if self.tiers is not None:
            return self.tiers.lines(self.notional)
        return np.array([self.mmr], dtype=np.float64), np.array([self.deduction])


def check_position(position: OpenPosition, allowed: Mapping[str, tuple[str, Callable[[float], bool]]]) -> None:
    """Refuse an unknown side, more or less than one source of margin, and numbers that are not allowed."""
    for key, (words, holds) in allowed.items():
        value = getattr(position, key)
        if value is not None and not (math.isfinite(value) and holds(value)):
            raise ConfigError(f"{key} must be {words}; got {number_text(value)}")
    check_choice("side", position.side, SIDES)
    check_exactly_one(position, "leverage", "margin", "wallet")


def check_exactly_one(position: OpenPosition, *keys: str) -> None:
    """Refuse a position unless exactly one of these attributes is given (not None)."""
    given = [key for key in keys if getattr(position, key) is not None]
    if len(given) != 1:
        raise ConfigError(f"a position has exactly one of {', '.join(keys)}; got {' and '.join(given) or 'none'}")


def check_choice(key: str, value: object, allowed: tuple[T, ...]) -> T:
    """Return the element of `allowed` that equals the value; refuse any other value."""
    for each in allowed:
        if value == each:
            return each
    raise ConfigError(f"{key} must be {' or '.join(repr(each) for each in allowed)}; got {value!r}")
