"""The named margin rules of the exchanges, read from the rule files in ``exchanges/``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from functools import cache
from importlib import resources
from typing import Literal, get_args

from backtest.errors import RuleError, did_you_mean

Contract = Literal["linear", "inverse"]
AnyContract = Literal[Contract, "spot"]
Basis = Literal["mark", "entry"]
FeeToClose = Literal["none", "maintenance", "posted"]
CONTRACTS: tuple[Contract, ...] = get_args(Contract)
BASES: tuple[Basis, ...] = get_args(Basis)
FEES_TO_CLOSE: tuple[FeeToClose, ...] = get_args(FeeToClose)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one exchange margins one kind of contract.

    Attributes
    ----------
    name, title : str
        The name in a configuration, and a title for people.
    contract : {"linear", "inverse"}
        Whether margin and profit are in quote or in coin.
    basis : {"mark", "entry"}
        Whether maintenance is a fraction of the notional at the mark price or at entry.
    close_reserve : float
        Closing fee that is part of the maintenance margin, fraction of the same notional.
    taker_fee : float or None
        Default fee to close, fraction of the notional; None where the rule has none.
    fee_to_close : {"none", "maintenance", "posted"}
        What the fee to close is part of: nothing; the maintenance margin (it is then the close reserve); or both the
        margin and the maintenance margin, as a fraction of the notional at the bankruptcy price (Bybit UTA).
    deductions : bool
        Whether the exchange's tier tables have deductions. With them the tier follows the price and maintenance does
        not jump; without them the size at entry decides the tier.
    slope : float or None
        What one coin of size adds to the maintenance rate and to the initial rate; None where they do not depend on
        size.
    mmr, initial_rate : float or None
        Default maintenance and initial margin rate, fraction of the notional (with a slope: at a size of 0); None
        where each market has its own.
    maintenance_share : float or None
        The maintenance rate as a share of the initial rate (default: 1 / the market's largest leverage); None where
        the exchange publishes the two separately.
    source : str
        Where the formula is published.
    read : datetime.date
        When it was read there.
    formula : str
        The formula in short, in the exchange's words.
    unsure : str or None
        What was not found published, or is known to differ; None where nothing is.
    """

    name: str
    title: str
    contract: Contract
    basis: Basis
    close_reserve: float
    taker_fee: float | None
    fee_to_close: FeeToClose
    deductions: bool
    slope: float | None
    mmr: float | None
    initial_rate: float | None
    maintenance_share: float | None
    source: str
    read: date
    formula: str
    unsure: str | None

    def fees(self, taker_fee: float | None = None) -> tuple[float, float]:
        """Close reserve, and fee to close that is also added to the margin: fractions of the notional.

        Parameters
        ----------
        taker_fee : float, optional
            The account's own; default: the rule's.

        Examples
        --------
        >>> rule("okx-linear").fees(), rule("bybit-linear").fees(0.001)
        ((0.0005, 0.0), (0.0, 0.001))
        """
        fee = (self.taker_fee if taker_fee is None else taker_fee) or 0.0
        reserve = fee if self.fee_to_close == "maintenance" else self.close_reserve
        return reserve, fee if self.fee_to_close == "posted" else 0.0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _is_date(value: object) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


TEXTS = ("title", "source", "formula", "unsure")
RATES = ("close_reserve", "taker_fee", "slope", "mmr", "initial_rate", "maintenance_share")
OPTIONAL = (*RATES[1:], "unsure")
ALLOWED: dict[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(TEXTS, ("a text", _is_text)),
    "contract": ("'linear' or 'inverse'", lambda value: value in CONTRACTS),
    "basis": ("'mark' or 'entry'", lambda value: value in BASES),
    "fee_to_close": ("'none' or 'maintenance' or 'posted'", lambda value: value in FEES_TO_CLOSE),
    "deductions": ("True or False", lambda value: isinstance(value, bool)),
    **dict.fromkeys(RATES, ("a fraction of the notional, at least 0 and below 1", _is_rate)),
    "read": ("a date, such as 2026-01-31", _is_date),
}
"""What each key of a rule file must be."""


def rules() -> list[Rule]:
    """Every named rule, in the order of names.

    Examples
    --------
    >>> "binance-usdm" in [rule.name for rule in rules()]
    True
    """
    return list(_packaged().values())


def rule(name: str) -> Rule:
    """The rule of this name.

    Raises
    ------
    RuleError
        If no rule has this name; the message lists all names and the closest ones.

    Examples
    --------
    >>> rule("binance-usdm").basis
    'mark'
    """
    known = _packaged()
    if name not in known:
        raise RuleError(f"unknown rule {name!r}{did_you_mean(name, known)}; the rules are {', '.join(known)}")
    return known[name]


@cache
def _packaged() -> dict[str, Rule]:
    folder = resources.files(__package__).joinpath("exchanges")
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    found = [parse_rule(file.name, file.read_text(encoding="utf-8")) for file in files]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def parse_rule(file: str, text: str) -> Rule:
    """Read the text of one rule file.

    Parameters
    ----------
    file : str
        Its name, ``<rule>.toml``; the rule must have the same name.
    text : str
        TOML; the keys are the attributes of `Rule`. Those that may be None may be left out.

    Raises
    ------
    RuleError
        With file, key, value and rule, if a key is missing, unknown, of the wrong type or impossible.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"{file}: is not TOML: {error}") from error
    names = [field.name for field in fields(Rule)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise RuleError(f"{file}: unknown key {unknown[0]!r}; a rule has {', '.join(names)}")
    if values.get("name") != file.removesuffix(".toml"):
        raise _refusal(file, "name", repr(file.removesuffix(".toml")), values)
    for key, (words, holds) in ALLOWED.items():
        if (key in values or key not in OPTIONAL) and not holds(values.get(key)):
            raise _refusal(file, key, words, values)
    _check_fees(file, values)
    rates = {key: float(values[key]) for key in RATES if key in values}
    texts = {key: values[key].strip() for key in TEXTS if key in values}
    make: Callable[..., Rule] = Rule
    return make(**dict.fromkeys(OPTIONAL) | values | rates | texts)


def _check_fees(file: str, values: Mapping[str, object]) -> None:
    """Refuse a fee, a reserve or a slope that contradicts another key."""
    kind, fee = values["fee_to_close"], values.get("taker_fee")
    if (fee is None) != (kind == "none"):
        raise _refusal(file, "taker_fee", f"given where fee_to_close is not 'none'; fee_to_close is {kind!r}", values)
    if kind == "maintenance" and values["close_reserve"] != fee:
        raise _refusal(file, "close_reserve", f"the taker_fee, {fee}, which is part of maintenance", values)
    if "slope" in values and not {"mmr", "initial_rate"} <= set(values):
        raise _refusal(file, "slope", "given together with mmr and initial_rate, the rates at a size of 0", values)


def _refusal(file: str, key: str, allowed: str, values: Mapping[str, object]) -> RuleError:
    if key not in values:
        return RuleError(f"{file}: key {key!r} is missing; it must be {allowed}")
    return RuleError(f"{file}: {key} must be {allowed}; got {values[key]!r}")
