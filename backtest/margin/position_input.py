"""Reads the input keys of ``backtest price`` into a position and completes it by its rule (docs/interface.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import get_args

import numpy as np

from backtest.errors import ConfigError, RuleError, did_you_mean
from backtest.margin.packaged_tiers import packaged_rules, packaged_tables
from backtest.margin.position import ALLOWED, Position, check_choice
from backtest.margin.rules import AnyContract, Rule, rule
from backtest.margin.spot import ALLOWED_IN_SPOT, SpotPosition
from backtest.margin.tiers import CAP_SLACK, TierTable
from backtest.units import number_text

SPOT_KEYS = tuple(field.name for field in fields(SpotPosition))
SPOT_ONLY = tuple(key for key in ALLOWED_IN_SPOT if key not in ALLOWED)
KEYS = ("rules", *(field.name for field in fields(Position)), "symbol", *SPOT_ONLY)
UNREAD = {
    "slope": "its maintenance rate does not slope with size",
    "taker_fee": "it adds no fee to close to the margin; a fee inside the maintenance margin is close_reserve",
    **dict.fromkeys(SPOT_ONLY, "it goes with contract 'spot' (spot margin), whose limit is the loan to value"),
}
"""Keys that some rules do not use, and why. They are refused: an ignored key would make a wrong answer look right."""


def read_position(document: Mapping[str, object]) -> Position | SpotPosition:
    """Read a position from the input keys of ``backtest price`` (docs/interface.md); null counts as not given.

    Parameters
    ----------
    document : mapping
        ``rules`` (a name) or ``contract`` [``basis``, ``close_reserve``], and the attributes of `Position`. ``tiers``
        is ``[[floor, mmr, deduction], …]`` or a `TierTable`; ``symbol`` takes the latest table packaged for it under
        the rule. With ``contract`` ``"spot"``, the attributes of `SpotPosition`.

    Raises
    ------
    ConfigError
        With key, value and what is allowed, if a key is unknown or missing, of the wrong type or impossible.
    RuleError
        If the rule is unknown, is contradicted, does not use a key, has no table of the symbol, or its tiers are
        impossible.

    Examples
    --------
    >>> document = {"rules": "binance-usdm", "side": "long", "entry_price": 100, "quantity": 1, "margin": 5}
    >>> read_position({**document, "tiers": [[0, 0.01, 0], [1000, 0.02, 10]]}).notional
    100.0
    """
    given = {key: value for key, value in document.items() if value is not None}
    for key in given:
        if key not in KEYS:
            raise ConfigError(f"unknown key {key!r}{did_you_mean(str(key), KEYS, 1)}; a position has {', '.join(KEYS)}")
    _require(given, "side", "entry_price", "quantity")
    numbers = {key: _number(key, given[key]) for key in (*ALLOWED, *SPOT_ONLY) if key in given}
    named = _named_rule(given, numbers)
    contract = named.contract if named else check_choice("contract", given["contract"], get_args(AnyContract))
    if contract == "spot":
        return _spot_position(given, numbers)
    _refuse_unread(given, named)
    tiers = _tiers(given, named)
    if named:
        numbers = _with_defaults(named, numbers, tiers is not None)
    basis = named.basis if named else given.get("basis", "mark")
    make: Callable[..., Position] = Position  # it checks every value itself
    return make(side=given["side"], contract=contract, basis=basis, tiers=tiers, **numbers)


def _spot_position(given: Mapping[str, object], numbers: Mapping[str, float]) -> SpotPosition:
    for key in given:
        if key not in ("contract", *SPOT_KEYS):
            raise RuleError(
                f"{key} is not read under contract 'spot': spot margin has no tiers, maintenance rate, fee to close or "
                f"funding; it has {', '.join(SPOT_KEYS)}"
            )
    _require(given, "liquidation_ltv")
    make: Callable[..., SpotPosition] = SpotPosition
    return make(side=given["side"], **numbers)


def _require(given: Mapping[str, object], *keys: str) -> None:
    known = SPOT_KEYS if given.get("contract") == "spot" else KEYS
    for key in keys:
        if key not in given:
            raise ConfigError(f"key {key!r} is missing; a position has {', '.join(known)}")


def _refuse_unread(given: Mapping[str, object], named: Rule | None) -> None:
    unread = {*SPOT_ONLY} | ({"taker_fee"} if named is None or named.fee_to_close == "none" else set())
    if named is not None and named.slope is None:
        unread.add("slope")
    called = named.name if named else "the contract and basis given"
    for key, why in UNREAD.items():
        if key in given and key in unread:
            raise RuleError(f"{key} is not read under {called}: {why}")
    if named is not None and "wallet" in given and named.fee_to_close == "posted":
        raise RuleError(
            f"wallet is not read under {named.name}: its fee to close follows from the leverage; give leverage or "
            "margin, or contract, basis and close_reserve (the fee) instead of rules"
        )


def _with_defaults(named: Rule, given: Mapping[str, float], tiered: bool) -> dict[str, float]:
    """The numbers given, and the rule's defaults for the others."""
    reserve, added = named.fees(given.get("taker_fee"))
    numbers = {**given, "close_reserve": reserve, "taker_fee": added}
    for key, value in (("slope", named.slope), ("initial_rate", named.initial_rate)):
        if value is not None:
            numbers.setdefault(key, value)
    if tiered:
        return numbers
    if named.mmr is not None:
        numbers.setdefault("mmr", named.mmr)
    most, initial = numbers.get("max_leverage"), numbers.get("initial_rate")
    if initial is None and most:
        initial = 1 / most
    if named.maintenance_share is not None and initial is not None:
        share = named.maintenance_share * initial
        if not math.isclose(numbers.setdefault("mmr", share), share, rel_tol=CAP_SLACK):
            raise RuleError(
                f"mmr under {named.name} is {number_text(named.maintenance_share)} of the initial rate, "
                f"{number_text(share)}; got {number_text(numbers['mmr'])}"
            )
    return numbers


def _named_rule(given: Mapping[str, object], numbers: Mapping[str, float]) -> Rule | None:
    if "rules" not in given:
        if "contract" not in given:
            raise ConfigError("a position has rules (a name), or contract, basis and close_reserve; got neither")
        return None
    name = given["rules"]
    if not isinstance(name, str):
        raise ConfigError(f"rules must be the name of a rule; got {name!r}")
    named = rule(name)
    reserve, _ = named.fees(numbers.get("taker_fee"))
    fixed = {"contract": named.contract, "basis": named.basis, "close_reserve": reserve}
    for key, value in fixed.items():
        if key in given and numbers.get(key, given[key]) != value:
            raise RuleError(f"{key} is {value!r} under {named.name}; got {given[key]!r}: leave it out, or rules")
    return named


def _tiers(given: Mapping[str, object], named: Rule | None) -> TierTable | None:
    """The table given, or the one packaged for the symbol; None where there is neither."""
    if "symbol" in given:
        return _packaged(given, named)
    if "tiers" not in given:
        return None
    tiers = _table(given["tiers"])
    if named is not None and named.slope is not None:
        raise RuleError(f"tiers are not read under {named.name}: its rates slope with size; give mmr and slope")
    if named is not None and named.deductions != tiers.has_deductions:
        raise RuleError(
            f"tiers under {named.name} {'have' if named.deductions else 'have no'} deductions; "
            f"give [floor, mmr{', deduction' if named.deductions else ''}] in every row"
        )
    return tiers


def _packaged(given: Mapping[str, object], named: Rule | None) -> TierTable:
    """The latest packaged table of the symbol, under the rule."""
    symbol = given["symbol"]
    if not isinstance(symbol, str):
        raise ConfigError(f"symbol must be a name, such as 'BTCUSDT'; got {symbol!r}")
    for key in ("tiers", "mmr", "deduction"):
        if key in given:
            raise ConfigError(f"symbol takes the packaged tier table, which excludes {key}; got symbol {symbol!r}")
    if named is None:
        raise RuleError(
            f"symbol takes the tier table packaged for a rule, and no rule is named; got symbol {symbol!r}: give rules "
            f"({', '.join(packaged_rules())}), or tiers or mmr"
        )
    return packaged_tables(named.name, symbol)[-1].table


def _table(value: object) -> TierTable:
    if isinstance(value, TierTable):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(row, list | tuple) for row in value):
        raise ConfigError(f"tiers must be [[floor, mmr, deduction], …]; got {value!r}")
    rows = [
        [None if cell is None else _number(f"tiers[{i}][{j}]", cell) for j, cell in enumerate(row)]
        for i, row in enumerate(value)
    ]
    return TierTable.from_rows(rows)


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigError(f"{key} must be a number; got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{key} must be a number that a float64 holds; got one of {len(str(value))} digits") from None
