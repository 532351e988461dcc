"""Margins, liquidation price and bankruptcy price of one position (docs/semantics.md §2, §4, §5, §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from backtest.arrays import Float
from backtest.margin.position import Position, Side, unit_value
from backtest.margin.position_input import read_position
from backtest.margin.rules import Basis, Contract
from backtest.margin.spot import SpotPosition, owed_and_owned, prices_at_ltv

ZERO = 1e-12  # share of the unit value at entry: a root this near to 0 is a rounded 0


class PriceAnswer(TypedDict):
    """The output of ``backtest price`` (docs/interface.md): prices in quote per base, amounts in quote or coin.

    `initial_margin` is null with a wallet and no initial rate, which do not say what the position needs;
    `liquidation_price` and `bankruptcy_price` are null where no price above 0 is one; `margin_ratio` is null where
    the margin balance is 0 or below; `tier` is null under spot margin, which has no tiers.
    """

    initial_margin: float | None
    maintenance_margin: float
    margin_ratio: float | None
    liquidation_price: float | None
    bankruptcy_price: float | None
    tier: int | None
    fee_to_close: float


def price(position: Mapping[str, object] | Position | SpotPosition) -> PriceAnswer:
    """Margins, liquidation price and bankruptcy price of one position.

    Parameters
    ----------
    position : mapping, Position or SpotPosition
        As a mapping, the input keys of ``backtest price --json``: see `backtest.margin.position_input.read_position`.

    Returns
    -------
    dict
        `initial_margin` : the margin that `leverage` gives, the fee to close included; else what the initial rate
        asks for; else the margin given.
        `maintenance_margin`, `tier` (from 1) : of the notional at the mark price, else at entry; always at entry with
        basis "entry". `tier` is the one at entry for a table without deductions.
        `fee_to_close` : the part of the maintenance margin that is the close reserve or the fee paid in advance.
        `margin_ratio` : maintenance margin over margin balance, both of the whole wallet under cross margin.
        `liquidation_price` : null means never where the ratio is below 1; it means at every price where the ratio is
        1 or more, or null itself.
        `bankruptcy_price` : where the initial balance is lost, fees and funding aside.

    Raises
    ------
    ConfigError, RuleError
        With key, value and rule, if a key is unknown, missing or impossible, or the rule does not allow the position.

    Notes
    -----
    The initial balance is the margin, the extra margin and the profit of the wallet's other positions. With the margin
    alone the bankruptcy price is ``p·(1 − s/L)``, inverse ``p/(1 + s/L)``.

    Of spot margin the initial margin is the own funds. The maintenance margin is ``(1 − liquidation_ltv)·assets``:
    equity (assets less debt) equals it where the debt is that share of the assets. There is no fee to close.

    Examples
    --------
    >>> document = {"rules": "binance-usdm", "side": "short", "entry_price": 10, "quantity": 1, "leverage": 5}
    >>> round(price({**document, "mmr": 0.01, "deduction": 0.01})["liquidation_price"], 6)
    11.891089
    >>> classic = Position(side="long", entry_price=20_000.0, quantity=1.0, leverage=50.0, mmr=0.005, basis="entry")
    >>> [price(classic)[key] for key in ("initial_margin", "maintenance_margin", "liquidation_price")]
    [400.0, 100.0, 19700.0]
    """
    if isinstance(position, Mapping):
        position = read_position(position)
    return _price_spot(position) if isinstance(position, SpotPosition) else _price_derivative(position)


def _price_derivative(position: Position) -> PriceAnswer:
    at = position.entry_price if position.basis == "entry" else position.price_now
    notional = position.notional_at(at)
    fee = position.close_reserve * notional + position.fee_to_close
    mmr, deduction = position.lines
    maintenance = float(((mmr + position.slope * position.coins_at(at)) * notional - deduction).max()) + fee
    initial = position.initial_balance + position.other_unrealized
    balance = initial - position.funding_paid
    now, entry = (unit_value(position.contract, each) for each in (position.price_now, position.entry_price))
    equity = balance + position.fee_to_close + position.lean * position.quantity * (now - entry)
    liquidation = liquidation_prices(
        position.side,
        position.entry_price,
        position.quantity,
        balance - position.other_maintenance,
        position.lines,
        contract=position.contract,
        basis=position.basis,
        close_reserve=position.close_reserve,
        slope=position.slope,
    )
    bankruptcy = unit_value(position.contract, entry - position.lean * initial / position.quantity)
    return PriceAnswer(
        initial_margin=_initial_margin(position),
        maintenance_margin=maintenance,
        margin_ratio=(maintenance + position.other_maintenance) / equity if equity > 0 else None,
        liquidation_price=_positive(float(liquidation), position.entry_price, position.contract),
        bankruptcy_price=_positive(bankruptcy, position.entry_price, position.contract),
        tier=_tier(position, notional),
        fee_to_close=fee,
    )


def _price_spot(position: SpotPosition) -> PriceAnswer:
    debt, assets = position.loan
    owed, owned = owed_and_owned(position.side, position.price_now, debt, assets, position.growth)
    equity, maintenance = float(owned - owed), float(owned - position.liquidation_ltv * owned)
    liquidation = prices_at_ltv(position.side, debt, assets, position.liquidation_ltv, position.growth)
    bankruptcy = prices_at_ltv(position.side, debt, assets, 1.0)
    return PriceAnswer(
        initial_margin=position.own_margin,
        maintenance_margin=maintenance,
        margin_ratio=maintenance / equity if equity > 0 else None,
        liquidation_price=_positive(float(liquidation), position.entry_price),
        bankruptcy_price=_positive(float(bankruptcy), position.entry_price),
        tier=None,
        fee_to_close=0.0,
    )


def _initial_margin(position: Position) -> float | None:
    if position.leverage is None and position.initial_rate is not None:
        rate = position.initial_rate + position.slope * position.coins_at(position.entry_price)
        return rate * position.notional + position.fee_to_close
    return None if position.wallet is not None else position.own_margin + position.fee_to_close


def _positive(level: float, entry_price: float, contract: Contract = "linear") -> float | None:
    """The price, or None where its unit value is 0 (but for rounding) or infinite: there is no such price."""
    share = unit_value(contract, level) / unit_value(contract, entry_price)
    return level if ZERO < share < math.inf else None


def _tier(position: Position, notional: float) -> int:
    if position.tiers is None:
        return 1
    return int(position.tiers.tier_index(notional if position.tiers.has_deductions else position.notional)) + 1


def liquidation_prices(
    side: Side,
    entry_price: float | Float,
    quantity: float | Float,
    margin: float | Float,
    lines: tuple[Float, Float],
    *,
    contract: Contract = "linear",
    basis: Basis = "mark",
    close_reserve: float = 0.0,
    slope: float = 0.0,
) -> Float:
    """Prices at which the margin balance equals the maintenance margin, for positions with the same tier lines.

    Parameters
    ----------
    side : {"long", "short"}
    entry_price, quantity, margin : float or array, broadcast together
        Quote per base; base (inverse: quote); quote (inverse: coin). `margin` is the margin balance at entry, less
        fees and funding paid; under cross margin plus unrealized profit and less maintenance of the wallet's other
        positions.
    lines : (mmr, deduction), (n_lines,) float64 each
        Maintenance is the largest of ``mmr·n − deduction``, as `TierTable.lines` gives them.
    contract : {"linear", "inverse"}
    basis : {"mark", "entry"}
        Whether n is the notional at the price or at entry.
    close_reserve : float
        Fraction of n added to the maintenance margin.
    slope : float
        What a coin of size adds to the rate, on mark basis: the quantity of a linear contract, n of an inverse one.

    Returns
    -------
    (...) float64
        Quote per base, 0 and inf included. A long is liquidated at and below its price, a short at and above.

    Notes
    -----
    Written in v, the unit value (the price; 1/price of an inverse contract), with the sign σ of the profit in v
    (mirrored where inverse): ``M + σ·q·(v − v_p) = q·v·(mmr + slope·q·v) − D``. Each line has one root. The largest
    line is in force at every price, so a long is liquidated at the highest root and a short at the lowest. That is the
    root of the tier that holds the notional there. Binance:
    ``LP = (WB − TMM + UPNL + D − s·q·p) / (q·m − s·q)``, COIN-M ``LP = Q·(m + s) / (WB − TMM + UPNL + D + s·Q/p)``.
    An inverse short under a slope has two roots; the result is the one that a rising price meets.

    Examples
    --------
    >>> liquidation_prices("long", 10.0, 1.0, np.array([2.0, 1.0]), (np.array([0.01]), np.array([0.01]))).round(4)
    array([8.0707, 9.0808])
    """
    linear = contract == "linear"
    lean = (1 if side == "long" else -1) * (1 if linear else -1)
    price, size, held = (np.asarray(value, dtype=np.float64) for value in (entry_price, quantity, margin))
    entry = price if linear else 1 / price
    first = np.maximum if lean > 0 else np.minimum
    level = np.full(np.broadcast_shapes(entry.shape, size.shape, held.shape), -lean * np.inf)
    for mmr, deduction in zip(*lines, strict=True):
        rate = mmr + close_reserve + (slope * size if linear else 0.0)
        if basis == "mark":
            broke = entry - lean * (held + deduction) / size
            level = first(level, _root(broke, 1 - lean * rate, 0.0 if linear else lean * slope * size))
        else:
            level = first(level, entry - lean * (held + deduction - rate * size * entry) / size)
    if linear:
        return np.asarray(level)
    return np.asarray(np.where(level > 0, 1 / np.where(level > 0, level, 1.0), np.inf))


def _root(constant: Float, linear: float | Float, square: float | Float) -> Float:
    """Root of ``linear·v − square·v² = constant`` that tends to ``constant/linear`` as square tends to 0; else inf."""
    inside = linear * linear - 4 * square * constant
    with np.errstate(divide="ignore", invalid="ignore"):  # a rate above the whole notional: there is no such price
        root = 2 * constant / (linear + np.sqrt(np.maximum(inside, 0.0)))
    return np.asarray(np.where(inside >= 0, root, np.inf))
