"""The named margin rules, read from the rule files beside this module."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from functools import cache
from importlib import resources
from typing import Literal, TypeVar, get_args

from backtest.errors import RuleError

T = TypeVar("T")
Contract = Literal["linear", "inverse"]
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
        As in a config, and for people.
    contract : {"linear", "inverse"}
        Whether margin and profit are in quote, or in coin.
    basis : {"mark", "entry"}
        Whether maintenance is taken of the notional at the mark price or at entry.
    close_reserve : float
        Closing fee kept inside the maintenance margin, fraction of the notional that maintenance is taken of.
    taker_fee : float or None
        Default fee to close, fraction of the notional; None where the rule keeps none.
    fee_to_close : {"none", "maintenance", "posted"}
        Where the fee to close stands: nowhere; inside the maintenance margin (then it is the close reserve); or, taken
        of the value at the bankruptcy price, both posted on top of the margin and inside maintenance (Bybit UTA).
    deductions : bool
        Whether the exchange's tier tables have deductions: then the tier is the one at the price, and maintenance does
        not jump; else it is the one of the size at entry.
    slope : float or None
        What one coin of position size adds to the maintenance rate and to the initial rate; None where nothing does.
    mmr, initial_rate : float or None
        Default maintenance and initial rate, fraction of the notional (with a slope, those of a size of 0); None where
        they are the market's own.
    maintenance_share : float or None
        The maintenance rate as a share of the initial rate, the one of the market's largest leverage where none is
        given; None where the two are published apart.
    source : str
        Where the formula is published.
    read : datetime.date
        When it was read there.
    formula : str
        The formula in short, in the exchange's words.
    unsure : str or None
        What of the rule was not seen published, or is known to differ; None where nothing.
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
        If there is none; the message lists the names there are, and the closest.

    Examples
    --------
    >>> rule("binance-usdm").basis
    'mark'
    """
    known = _packaged()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f" (did you mean {' or '.join(repr(match) for match in close)}?)" if close else ""
        raise RuleError(f"unknown rule {name!r}{hint}; the rules are {', '.join(known)}")
    return known[name]


@cache
def _packaged() -> dict[str, Rule]:
    files = [
        file for file in resources.files(__package__).joinpath("exchanges").iterdir() if file.name.endswith(".toml")
    ]
    found = [parse_rule(file.name, file.read_text(encoding="utf-8")) for file in files]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def parse_rule(file: str, text: str) -> Rule:
    """Read the text of one rule file.

    Parameters
    ----------
    file : str
        Its name, ``<rule>.toml``: the rule must be called as its file is.
    text : str
        TOML; keys are the attributes of `Rule`, those that may be None may be left out.

    Raises
    ------
    RuleError
        With file, key, value and rule, if a key is missing, unknown, of the wrong type or impossible.
    """
    try:
        keys = _Keys(file, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"{file}: is not TOML: {error}") from error
    names = [field.name for field in fields(Rule)]
    unknown = sorted(set(keys.values) - set(names))
    if unknown:
        raise RuleError(f"{file}: unknown key {unknown[0]!r}; a rule has {', '.join(names)}")
    found = Rule(
        name=keys.choice("name", (file.removesuffix(".toml"),)),
        title=keys.string("title"),
        contract=keys.choice("contract", CONTRACTS),
        basis=keys.choice("basis", BASES),
        close_reserve=keys.rate("close_reserve"),
        taker_fee=keys.rate_or_none("taker_fee"),
        fee_to_close=keys.choice("fee_to_close", FEES_TO_CLOSE),
        deductions=keys.choice("deductions", (True, False)),
        slope=keys.rate_or_none("slope"),
        mmr=keys.rate_or_none("mmr"),
        initial_rate=keys.rate_or_none("initial_rate"),
        maintenance_share=keys.rate_or_none("maintenance_share"),
        source=keys.string("source"),
        read=keys.date("read"),
        formula=keys.string("formula"),
        unsure=keys.string("unsure") if "unsure" in keys.values else None,
    )
    _check_fees(keys, found)
    return found


def _check_fees(keys: _Keys, found: Rule) -> None:
    if (found.taker_fee is None) != (found.fee_to_close == "none"):
        raise keys.fail("taker_fee", f"given where fee_to_close is not 'none'; fee_to_close is {found.fee_to_close!r}")
    if found.fee_to_close == "maintenance" and found.close_reserve != found.taker_fee:
        raise keys.fail("close_reserve", f"the taker_fee that stands inside maintenance, {found.taker_fee}")
    if found.slope is not None and (found.mmr is None or found.initial_rate is None):
        raise keys.fail("slope", "given together with mmr and initial_rate, the rates that it rises from")


@dataclass(frozen=True)
class _Keys:
    """The keys of one rule file, each read as what it must be."""

    file: str
    values: Mapping[str, object]

    def fail(self, key: str, allowed: str) -> RuleError:
        if key not in self.values:
            return RuleError(f"{self.file}: key {key!r} is missing; it must be {allowed}")
        return RuleError(f"{self.file}: {key} must be {allowed}; got {self.values[key]!r}")

    def choice(self, key: str, allowed: tuple[T, ...]) -> T:
        value = self.values.get(key)
        for each in allowed:
            if type(value) is type(each) and value == each:
                return each
        raise self.fail(key, " or ".join(repr(each) for each in allowed))

    def string(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, "a text")
        return value.strip()

    def rate(self, key: str) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise self.fail(key, "a fraction of the notional, at least 0 and below 1")
        return float(value)

    def rate_or_none(self, key: str) -> float | None:
        return self.rate(key) if key in self.values else None

    def date(self, key: str) -> date:
        value = self.values.get(key)
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.fail(key, "a date, such as 2026-01-31")
        return value
