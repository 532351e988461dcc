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
Contract = Literal["linear"]
Basis = Literal["mark", "entry"]
CONTRACTS: tuple[Contract, ...] = get_args(Contract)
BASES: tuple[Basis, ...] = get_args(Basis)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one exchange margins one kind of contract.

    Attributes
    ----------
    name, title : str
        As in a config, and for people.
    contract : {"linear"}
    basis : {"mark", "entry"}
        Whether maintenance is taken of the notional at the mark price or at entry.
    close_reserve : float
        Closing fee kept inside the maintenance margin, fraction of the notional.
    taker_fee : float or None
        Default fee to close, fraction of the notional; None where the rule keeps none.
    deductions : bool
        Whether the exchange's tier tables have deductions.
    source : str
        Where the formula is published.
    read : datetime.date
        When it was read there.
    formula : str
        The formula in short, in the exchange's words.
    """

    name: str
    title: str
    contract: Contract
    basis: Basis
    close_reserve: float
    taker_fee: float | None
    deductions: bool
    source: str
    read: date
    formula: str


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
    files = [file for file in resources.files(__package__).iterdir() if file.name.endswith(".toml")]
    found = [parse_rule(file.name, file.read_text(encoding="utf-8")) for file in files]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def parse_rule(file: str, text: str) -> Rule:
    """Read the text of one rule file.

    Parameters
    ----------
    file : str
        Its name, ``<rule>.toml``: the rule must be called as its file is.
    text : str
        TOML; keys are the attributes of `Rule`, `taker_fee` may be left out.

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
    return Rule(
        name=keys.choice("name", (file.removesuffix(".toml"),)),
        title=keys.string("title"),
        contract=keys.choice("contract", CONTRACTS),
        basis=keys.choice("basis", BASES),
        close_reserve=keys.rate("close_reserve"),
        taker_fee=keys.rate("taker_fee") if "taker_fee" in keys.values else None,
        deductions=keys.choice("deductions", (True, False)),
        source=keys.string("source"),
        read=keys.date("read"),
        formula=keys.string("formula"),
    )


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

    def date(self, key: str) -> date:
        value = self.values.get(key)
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.fail(key, "a date, such as 2026-01-31")
        return value
