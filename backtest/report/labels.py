"""Scenarios in words: the columns of a run's tables as every output (terminal, plots, page, notebook) writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from backtest.config.labels import parse_label
from backtest.errors import ConfigError
from backtest.report.number_format import is_null, rate_text, times_text
from backtest.report.policy_labels import policy_words
from backtest.units import number_text

if TYPE_CHECKING:
    import pandas as pd

COIN, UNFUNDED = "coin", "unfunded"
"""Keys of a table's ``attrs`` that `noted` sets: labels of maintenance rules in coin; whether no funding is charged."""

OWN_LEVERAGE = "each its own"
FUNDING = ("funding_scale", "funding_shift")


def own_leverage(rows: pd.DataFrame) -> bool:
    """Whether trades bring leverages of their own, in survival or choices: it is null where survival is known."""
    return bool(rows["leverage"].isna().all() and rows["survival"].notna().any())


def leverage_words(leverage: float) -> str:
    """``12×``; null: each trade has its own."""
    return OWN_LEVERAGE if is_null(leverage) else times_text(leverage)


def noted(table: pd.DataFrame, info: Mapping[str, Any]) -> pd.DataFrame:
    """A copy of the table whose ``attrs`` hold what its words need and its columns lack, from ``run.json``."""
    config = info.get("config") or {}
    coin = [label for label, contract in contracts(config).items() if contract == "inverse"]
    unfunded = bool((config.get("margin") or {}).get("expiry"))
    out = table.copy(deep=False)
    out.attrs = {**table.attrs, COIN: coin, UNFUNDED: unfunded}
    return out


def contracts(config: Mapping[str, Any]) -> dict[str, str]:
    """Label of each maintenance rule of a configuration → its contract. A named rule has a contract of its own."""
    from backtest.margin.rules import rules

    own = str((config.get("margin") or {}).get("contract") or "linear")
    known = {rule.name: rule.contract for rule in rules()}
    found = {}
    for item in (config.get("sweep") or {}).get("maintenance") or ():
        if isinstance(item, Mapping):
            found[PurePath(str(item["tiers"])).stem] = str(known.get(str(item["rule"]), own))
        elif isinstance(item, str):
            found[item if item in known else PurePath(item).stem] = str(known.get(item, own))
        else:
            found[number_text(item)] = own
    return found


def scenario_words(rows: pd.DataFrame, leave_out: Collection[str] = ()) -> str:
    """Which scenario the rows show: ``BTCUSDT long · maintenance 0.4 % · fee 0.02 % · funding as charged``.

    Parameters
    ----------
    leave_out : collection of str
        Axes that are left out.
    """
    row = rows.iloc[0]
    spot = str(row["maintenance"]).startswith("ltv=")
    coin = row["maintenance"] in rows.attrs.get(COIN, ())
    words = [_whose(row["symbol"], row["side"], leave_out)]
    if "maintenance" not in leave_out:
        words.append(("" if spot else "maintenance ") + value_words("maintenance", row["maintenance"]))
    if "open_fee" not in leave_out:
        words.append(f"fee {value_words('open_fee', row['open_fee'])}")
    if not spot and not rows.attrs.get(UNFUNDED) and "funding_scale" not in leave_out:
        words.append(funding_words(float(row["funding_scale"]), float(row["funding_shift"])))
    known = {"symbol", "side", "maintenance", "open_fee", *FUNDING, *leave_out}
    for axis in scenario_axes(rows):
        if axis not in known and not is_null(row[axis]):
            name = "" if axis in ("size", "weight") else f"{axis} "
            words.append(name + value_words(axis, row[axis], coin=coin))
    return " · ".join(words)


def axis_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """Name of each axis of a table → its columns; the two of funding are one axis."""
    found: dict[str, list[str]] = {}
    for column in scenario_axes(table):
        found.setdefault("funding" if column in FUNDING else column, []).append(column)
    return found


def axis_words(row: Mapping[Hashable, Any], columns: Sequence[str], coin: Collection[str] = ()) -> str:
    """The value of an axis in a row of a run's table, as a picker or a cell of a table shows it.

    Parameters
    ----------
    row : mapping
        A row of a run's table.
    columns : sequence of str
        Those of the axis, as `axis_columns` gives them.
    coin : collection of str
        Labels of the maintenance rules whose margins are in coin: ``attrs[COIN]`` of the table.
    """
    if columns[0] in FUNDING:
        text = funding_words(float(row.get("funding_scale", 1)), float(row.get("funding_shift", 0)))
        return text.removeprefix("funding ").replace("no funding", "none")
    return value_words(columns[0], row[columns[0]], coin=row.get("maintenance") in coin)


def value_words(axis: str, value: object, *, coin: bool = False) -> str:
    """One value of an axis: a rate in percent, a size with its thousands, ``–`` for null.

    Parameters
    ----------
    coin : bool
        Whether margins are in coin; a notional then is a face value.
    """
    if is_null(value):
        return "–"
    try:
        if axis == "size":
            return _size_words(str(value), coin)
        if axis in WORDS:
            return WORDS[axis](str(value))
    except ValueError:
        return str(value)
    return number_text(value) if isinstance(value, float) else str(value)


def subject(symbol: object, side: object) -> str:
    """Whose survival it is: ``BTCUSDT long``; without a side a portfolio, or trades of either."""
    name = "all symbols" if is_null(symbol) else str(symbol)
    if not is_null(side):
        return f"{name} {side}"
    legs = portfolio_words(name)
    return f"portfolio {legs}" if legs else f"trades on {name}"


def _whose(symbol: object, side: object, leave_out: Collection[str]) -> str:
    """The subject of a scenario, or what it has in common with others where they differ in symbol or side."""
    if "side" in leave_out and not is_null(side):
        return value_words("symbol", symbol)
    if "symbol" not in leave_out:
        return subject(symbol, side)
    return str(side) if not is_null(side) else "portfolios" if portfolio_words(str(symbol)) else "trades"


def portfolio_words(label: str) -> str:
    """``BTCUSDT=0.6 ETHUSDT=-0.4`` as ``BTCUSDT 60 % long, ETHUSDT 40 % short``; empty where it is no portfolio."""
    legs = []
    for part in label.split(" "):
        symbol, _, share = part.rpartition("=")
        try:
            weight = float(share)
        except ValueError:
            return ""
        if not symbol or not math.isfinite(weight):
            return ""
        legs.append(f"{symbol} {rate_text(abs(weight))} {'long' if weight > 0 else 'short'}")
    return ", ".join(legs)


def _size_words(label: str, coin: bool) -> str:
    """``margin=90 extra=40`` as ``margin 90 + 40 of wallet``."""
    try:
        amounts = {kind: f"{float(amount):,.10g}" for kind, amount in parse_label(label).items()}
    except ValueError:
        return label
    extra = amounts.pop("extra", None)
    unit = " coin" if coin else ""
    words = [
        f"face value {amount}" if coin and kind == "notional" else f"{kind} {amount}{unit if kind == 'margin' else ''}"
        for kind, amount in amounts.items()
    ]
    return ", ".join(words) + (f" + {extra}{unit} of wallet" if extra else "")


def _weight_words(label: str) -> str:
    """``target=0.6 window=30d cap=2`` as a factor of the leverage."""
    if label == "1":
        return "leverage × 1"
    parts = parse_label(label)
    if set(parts) != {"target", "window", "cap"}:
        return label
    target = rate_text(float(parts["target"]))
    return f"leverage × {target} / volatility of {parts['window']}, at most × {parts['cap']}"


def funding_words(scale: float, shift: float) -> str:
    """``funding as charged``, ``no funding``, ``funding × 2 + 0.01 % per charge``."""
    if scale == 0 and shift == 0:
        return "no funding"
    charged = "funding as charged" if scale == 1 else f"funding × {number_text(scale)}"
    return charged if shift == 0 else f"{charged} {'+' if shift > 0 else '−'} {rate_text(abs(shift))} per charge"


def listed(values: Sequence[object], most: int = 12) -> str:
    """Values of an axis for an error, the middle left out where they are many."""
    words = [
        number_text(value) if isinstance(value, float) else "null" if is_null(value) else repr(value)
        for value in values
    ]
    return ", ".join(words if len(words) <= most else [*words[: most - 1], "…", words[-1]])


def scenario_axes(table: pd.DataFrame) -> list[str]:
    """The columns that make a scenario: all that stand before `horizon`."""
    columns = list(table.columns)
    if "horizon" not in columns:
        raise ConfigError(f"table must have the columns of survival.parquet, 'horizon' among them; got {columns}")
    return columns[: columns.index("horizon")]


def _maintenance_words(label: str) -> str:
    """A rate in percent, a loan-to-value in words; names of rules and tier tables raise ValueError."""
    if label.startswith("ltv="):
        return f"liquidated at loan-to-value {rate_text(float(label[4:]))}"
    return rate_text(float(label))


WORDS: dict[str, Callable[[str], str]] = {
    "symbol": lambda label: portfolio_words(label) or label,
    "maintenance": _maintenance_words,
    "open_fee": lambda text: rate_text(float(text)),
    "funding_shift": lambda text: rate_text(float(text)),
    "policy": policy_words,
    "weight": _weight_words,
}
"""Axis → the words of one of its values; ValueError where the label stays as it is."""
