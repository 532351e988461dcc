"""One linear position and the rule it is margined by, checked once (semantics.md §2, §5)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeVar, get_args

import numpy as np

from backtest.errors import ConfigError, RuleError
from backtest.rules.catalog import BASES, CONTRACTS, Basis, Contract, Rule, rule
from backtest.rules.tiers import CAP_SLACK, Float, TierTable
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
    **dict.fromkeys(("mmr", "close_reserve"), (RATE, lambda value: 0 <= value < 1)),
}
# Keys of `backtest price` that would move nothing: reading over them would make a wrong answer look right.
UNREAD = {
    "symbol": "no tier table is packaged; give tiers, or mmr and deduction",
    "slope": "its maintenance rate does not slope with size",
    "initial_rate": "its initial margin follows from leverage or margin",
    "taker_fee": "it posts no fee to close; one inside the maintenance margin is close_reserve",
}


@dataclass(frozen=True, kw_only=True)
class Position:
    """One open position.

    Attributes
    ----------
    side : {"long", "short"}
    entry_price : float
        Quote per base.
    quantity : float
        Base, > 0 on both sides.
    leverage, margin, wallet : float or None
        Exactly one. `leverage` posts ``entry notional / leverage``, `margin` is posted as it is (quote), `wallet` is
        the balance of a cross margin wallet (quote).
    extra_margin : float
        Posted on top, quote.
    funding_paid : float
        Funding taken out of the margin so far, quote; below 0 where it was received.
    max_leverage : float or None
        The largest `leverage` the exchange allows.
    tiers : TierTable or None
    mmr, deduction : float or None, float
        Instead of a table, one rate (fraction of the notional) and what is taken off (quote).
    mark_price : float or None
        Where maintenance margin and margin ratio are taken, quote per base; None: at entry.
    other_maintenance, other_unrealized : float
        Of the wallet's other positions, quote; only with `wallet`.
    contract : {"linear"}
    basis : {"mark", "entry"}
        Whether maintenance is taken of the notional at the mark price or at entry.
    close_reserve : float
        Closing fee kept inside the maintenance margin, fraction of the notional.

    Raises
    ------
    ConfigError
        With key, value and rule, if a value is impossible or keys exclude each other.
    RuleError
        If leverage, notional or maintenance rate is more than the rule or its tiers allow.

    Examples
    --------
    >>> Position(side="long", entry_price=20_000.0, quantity=1.0, leverage=50.0, mmr=0.005).posted_margin
    400.0
    """

    side: Side
    entry_price: float
    quantity: float
    leverage: float | None = None
    margin: float | None = None
    wallet: float | None = None
    extra_margin: float = 0.0
    funding_paid: float = 0.0
    max_leverage: float | None = None
    tiers: TierTable | None = None
    mmr: float | None = None
    deduction: float = 0.0
    mark_price: float | None = None
    other_maintenance: float = 0.0
    other_unrealized: float = 0.0
    contract: Contract = "linear"
    basis: Basis = "mark"
    close_reserve: float = 0.0

    def __post_init__(self) -> None:
        for key, (allowed, holds) in ALLOWED.items():
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and holds(value)):
                raise ConfigError(f"{key} must be {allowed}; got {number_text(value)}")
        _choice("side", self.side, SIDES)
        _choice("contract", self.contract, CONTRACTS)
        _choice("basis", self.basis, BASES)
        self._exactly_one("leverage", "margin", "wallet")
        self._exactly_one("tiers", "mmr")
        if self.mmr is None and self.deduction:
            raise ConfigError(f"deduction goes with mmr, tiers have their own; got {number_text(self.deduction)}")
        for key in ("other_maintenance", "other_unrealized"):
            if self.wallet is None and getattr(self, key):
                raise ConfigError(f"{key} goes with wallet (cross margin); got {number_text(getattr(self, key))}")
        if not math.isfinite(self.notional + self.posted_margin + self.quantity * self.price_now):
            raise ConfigError("quantity · price and the margin must be finite amounts; they overflow")
        self._check_limits()

    def _exactly_one(self, *keys: str) -> None:
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            raise ConfigError(f"a position has exactly one of {', '.join(keys)}; got {' and '.join(given) or 'none'}")

    def _check_limits(self) -> None:
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
        if self.leverage is not None and self.leverage > most:
            raise RuleError(f"leverage must be at most {number_text(most)} ({whose}); got {number_text(self.leverage)}")
        highest = float(self.lines[0].max())
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
    def notional(self) -> float:
        """At entry, quote."""
        return self.quantity * self.entry_price

    @property
    def price_now(self) -> float:
        """The mark price, else the entry price."""
        return self.entry_price if self.mark_price is None else self.mark_price

    @property
    def own_margin(self) -> float:
        """``notional / leverage``, or the margin or wallet given; quote."""
        if self.leverage is not None:
            return self.notional / self.leverage
        return self.margin or self.wallet or 0.0

    @property
    def posted_margin(self) -> float:
        """What stands against losses when nothing has happened yet: the own margin and the extra one, quote."""
        return self.own_margin + self.extra_margin

    @property
    def lines(self) -> tuple[Float, Float]:
        """``(mmr, deduction)``, (n_lines,) each: maintenance is the largest of ``mmr·n − deduction``."""
        if self.tiers is not None:
            return self.tiers.lines(self.notional)
        return np.array([self.mmr], dtype=np.float64), np.array([self.deduction])


def read_position(document: Mapping[str, object]) -> Position:
    """A position from the input keys of ``backtest price`` (interface.md); null is as good as not given.

    Parameters
    ----------
    document : mapping
        ``rules`` (a name) or ``contract`` [``basis``, ``close_reserve``], and the attributes of `Position`; ``tiers``
        as ``[[floor, mmr, deduction], …]`` or a `TierTable`.

    Raises
    ------
    ConfigError
        With key, value and what is allowed, if a key is unknown or missing, of the wrong type or impossible.
    RuleError
        If the rule is unknown, is contradicted, reads no such key, or its tiers are impossible.

    Examples
    --------
    >>> document = {"rules": "binance-usdm", "side": "long", "entry_price": 100, "quantity": 1, "margin": 5}
    >>> read_position({**document, "tiers": [[0, 0.01, 0], [1000, 0.02, 10]]}).notional
    100.0
    """
    given = {key: value for key, value in document.items() if value is not None}
    known = ["rules", *(field.name for field in fields(Position)), *UNREAD]
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"unknown key {key!r}{hint}; a position has {', '.join(known)}")
    for key in ("side", "entry_price", "quantity"):
        if key not in given:
            raise ConfigError(f"key {key!r} is missing; a position has {', '.join(known)}")
    numbers = {key: _number(key, given[key]) for key in ALLOWED if key in given}
    named = _rule_of(given, numbers)
    called = named.name if named else "the contract and basis given"
    for key, why in UNREAD.items():
        if key in given:
            raise RuleError(f"{key} is not read under {called}: {why}")
    tiers = _tiers(given["tiers"]) if "tiers" in given else None
    if named and tiers and named.deductions != tiers.has_deductions:
        raise RuleError(
            f"tiers under {named.name} {'have' if named.deductions else 'have no'} deductions; "
            f"give [floor, mmr{', deduction' if named.deductions else ''}] in every row"
        )
    return Position(
        side=_choice("side", given["side"], SIDES),
        entry_price=numbers["entry_price"],
        quantity=numbers["quantity"],
        leverage=numbers.get("leverage"),
        margin=numbers.get("margin"),
        wallet=numbers.get("wallet"),
        extra_margin=numbers.get("extra_margin", 0.0),
        funding_paid=numbers.get("funding_paid", 0.0),
        max_leverage=numbers.get("max_leverage"),
        tiers=tiers,
        mmr=numbers.get("mmr"),
        deduction=numbers.get("deduction", 0.0),
        mark_price=numbers.get("mark_price"),
        other_maintenance=numbers.get("other_maintenance", 0.0),
        other_unrealized=numbers.get("other_unrealized", 0.0),
        contract=named.contract if named else _choice("contract", given["contract"], CONTRACTS),
        basis=named.basis if named else _choice("basis", given.get("basis", "mark"), BASES),
        close_reserve=named.close_reserve if named else numbers.get("close_reserve", 0.0),
    )


def _rule_of(given: Mapping[str, object], numbers: Mapping[str, float]) -> Rule | None:
    if "rules" not in given:
        if "contract" not in given:
            raise ConfigError("a position has rules (a name), or contract, basis and close_reserve; got neither")
        return None
    name = given["rules"]
    if not isinstance(name, str):
        raise ConfigError(f"rules must be the name of a rule; got {name!r}")
    named = rule(name)
    for key, value in (("contract", named.contract), ("basis", named.basis), ("close_reserve", named.close_reserve)):
        if key in given and numbers.get(key, given[key]) != value:
            raise RuleError(f"{key} is {value!r} under {named.name}; got {given[key]!r}: leave it out, or rules")
    return named


def _tiers(value: object) -> TierTable:
    if isinstance(value, TierTable):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(row, list | tuple) for row in value):
        raise ConfigError(f"tiers must be [[floor, mmr, deduction], …]; got {value!r}")
    rows = [
        [None if cell is None else _number(f"tiers[{i}][{j}]", cell) for j, cell in enumerate(row)]
        for i, row in enumerate(value)
    ]
    return TierTable.of(rows)


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigError(f"{key} must be a number; got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{key} must be a number that a float64 holds; got one of {len(str(value))} digits") from None


def _choice(key: str, value: object, allowed: tuple[T, ...]) -> T:
    for each in allowed:
        if value == each:
            return each
    raise ConfigError(f"{key} must be {' or '.join(repr(each) for each in allowed)}; got {value!r}")
