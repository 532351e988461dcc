"""Margins, liquidation price and bankruptcy price of one position (docs/semantics.md §2, §4, §5, §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from backtest.arrays import Float
from backtest.margin.position import Position, Side, worth
from backtest.margin.position_input import read_position
from backtest.margin.rules import Basis, Contract
from backtest.margin.spot import SpotPosition, bankruptcy_prices, owed_and_owned, prices_at_ltv

ZERO = 1e-12  # share of the worth at entry: a root this near to 0 is a 0 that was rounded


class PriceAnswer(TypedDict):
    """The output of ``backtest price`` (docs/interface.md): prices in quote per base, amounts in quote or, inverse, in
    coin.

    `initial_margin` is null with a wallet and no initial rate, which do not say what the position had to post;
    `liquidation_price` and `bankruptcy_price` are null where there is none above 0; `margin_ratio` is null where
    nothing of the margin balance is left; `tier` is null under spot margin, which has none.
    """

    initial_margin: float | None
    maintenance_margin: float
    margin_ratio: float | None
    liquidation_price: float | None
    bankruptcy_price: float | None
    tier: int | None
    fee_to_close: float


def price_position(document: Mapping[str, object]) -> PriceAnswer:
    """The answer of ``backtest price`` to its input keys: `read_position`, then `price`.

    Examples
    --------
    >>> document = {"rules": "binance-usdm", "side": "short", "entry_price": 10, "quantity": 1, "leverage": 5}
    >>> round(price_position({**document, "mmr": 0.01, "deduction": 0.01})["liquidation_price"], 6)
    11.891089
    """
    return price(read_position(document))


def price(position: Position | SpotPosition) -> PriceAnswer:
    """Margins, liquidation and bankruptcy price of a position.

    Parameters
    ----------
    position : Position or SpotPosition

    Returns
    -------
    dict
        `initial_margin` is what `leverage` posts, the fee to close included; else what the initial rate asks for; else
        the margin. `maintenance_margin` and `tier` (from 1) are of the notional at the mark price, else at entry;
        always at entry where that is the basis. `tier` is the one at entry for a table without deductions.
        `fee_to_close` is the part of the maintenance margin that is the close reserve or the posted fee.
        `margin_ratio` is maintenance over margin balance, both of the whole wallet under cross margin. A null
        `liquidation_price` means never where the ratio is below 1, and at every price where it is not, or null itself.

    Notes
    -----
    ``bankruptcy_price`` is the price at which what was posted (extra margin, and the profit of the wallet's other
    positions included) is lost, fees and funding aside: where nothing but the initial margin is, ``p·(1 − s/L)``,
    inverse ``p/(1 + s/L)``.

    Of a `SpotPosition` the initial margin is the own funds; the maintenance margin is ``(1 − liquidation_ltv)·assets``,
    which equity, assets less debt, reaches where the debt is that share of the assets; there is no fee to close.

    Examples
    --------
    >>> classic = Position(side="long", entry_price=20_000.0, quantity=1.0, leverage=50.0, mmr=0.005, basis="entry")
    >>> [price(classic)[key] for key in ("initial_margin", "maintenance_margin", "liquidation_price")]
    [400.0, 100.0, 19700.0]
    """
    if isinstance(position, SpotPosition):
        return _price_of_spot(position)
    now, entry = (worth(position.contract, at) for at in (position.price_now, position.entry_price))
    at = position.entry_price if position.basis == "entry" else position.price_now
    size = position.size_at(at)
    fee = position.close_reserve * size + position.fee_to_close
    mmr, deduction = position.lines
    maintenance = float(((mmr + position.slope * position.coins_at(at)) * size - deduction).max()) + fee
    posted = position.posted_margin + position.other_unrealized
    balance = posted - position.funding_paid
    equity = balance + position.fee_to_close + position.lean * position.quantity * (now - entry)
    return PriceAnswer(
        initial_margin=_initial_margin(position),
        maintenance_margin=maintenance,
        margin_ratio=(maintenance + position.other_maintenance) / equity if equity > 0 else None,
        liquidation_price=_liquidation_price(position, balance - position.other_maintenance),
        bankruptcy_price=_above_0(
            worth(position.contract, entry - position.lean * posted / position.quantity), position
        ),
        tier=_tier(position, size),
        fee_to_close=fee,
    )


def _price_of_spot(position: SpotPosition) -> PriceAnswer:
    debt, assets = position.loan
    owed, owned = owed_and_owned(position.side, position.price_now, debt, assets, position.growth)
    equity, maintenance = float(owned - owed), float(owned - position.liquidation_ltv * owned)
    level = float(prices_at_ltv(position.side, debt, assets, position.liquidation_ltv, position.growth))
    bankrupt = float(bankruptcy_prices(position.side, debt, assets))
    return PriceAnswer(
        initial_margin=position.own_funds,
        maintenance_margin=maintenance,
        margin_ratio=maintenance / equity if equity > 0 else None,
        liquidation_price=level if ZERO < level / position.entry_price < math.inf else None,
        bankruptcy_price=bankrupt if ZERO < bankrupt / position.entry_price < math.inf else None,
        tier=None,
        fee_to_close=0.0,
    )


def _liquidation_price(position: Position, free: float) -> float | None:
    level = float(
        liquidation_prices(
            position.side,
            position.entry_price,
            position.quantity,
            free,
            position.lines,
            contract=position.contract,
            basis=position.basis,
            close_reserve=position.close_reserve,
            slope=position.slope,
        )
    )
    return _above_0(level, position)


def _initial_margin(position: Position) -> float | None:
    if position.leverage is None and position.initial_rate is not None:
        rate = position.initial_rate + position.slope * position.coins_at(position.entry_price)
        return rate * position.notional + position.fee_to_close
    return None if position.wallet is not None else position.own_margin + position.fee_to_close


def _share(price: float, position: Position) -> float:
    """What a unit of quantity is worth at the price, as a share of its worth at entry."""
    return worth(position.contract, price) / worth(position.contract, position.entry_price)


def _above_0(price: float, position: Position) -> float | None:
    """None where the worth at the price is 0, but for rounding, or without bound: there is no such price."""
    return price if ZERO < _share(price, position) < math.inf else None


def _tier(position: Position, size: float) -> int:
    if position.tiers is None:
        return 1
    return int(position.tiers.tier_of(size if position.tiers.has_deductions else position.notional)) + 1


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
    """Prices at which margin balance equals maintenance margin, for positions under one set of lines.

    Parameters
    ----------
    side : {"long", "short"}
    entry_price, quantity, margin : float or array, broadcast together
        Quote per base; base (inverse: quote); quote (inverse: coin). `margin` is what stands against losses: the posted
        margin, less fees and funding paid; under cross margin plus unrealized profit and less maintenance of the
        wallet's other positions.
    lines : (mmr, deduction), (n_lines,) float64 each
        Maintenance is the largest of ``mmr·n − deduction``, as `TierTable.lines` gives them.
    contract : {"linear", "inverse"}
    basis : {"mark", "entry"}
        What n is: the notional at the price, or at entry.
    close_reserve : float
        Fraction of n kept on top.
    slope : float
        What a coin of size adds to the rate, on mark basis: the quantity of a linear contract, n of an inverse one.

    Returns
    -------
    (...) float64
        Quote per base, 0 and inf included. A long is liquidated at and below its price, a short at and above.

    Notes
    -----
    Written in v, what a unit of quantity is worth (the price, or 1/price of an inverse contract), with the sign σ of
    the profit in v (mirrored where inverse): ``M + σ·q·(v − v_p) = q·v·(mmr + slope·q·v) − D``. One root per line, and
    the first that the price meets: with the largest line in force at every price a long is liquidated at the highest
    root and a short at the lowest, which is the root of the tier that holds the notional there. Binance:
    ``LP = (WB − TMM + UPNL + D − s·q·p) / (q·m − s·q)``, COIN-M ``LP = Q·(m + s) / (WB − TMM + UPNL + D + s·Q/p)``.
    Of an inverse short's two roots under a slope it is the one of a rise.

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
    """v of ``linear·v − square·v² = constant``, the one that is ``constant/linear`` where square is 0; else inf."""
    inside = linear * linear - 4 * square * constant
    with np.errstate(divide="ignore", invalid="ignore"):  # a rate above the whole notional: no price is the level
        root = 2 * constant / (linear + np.sqrt(np.maximum(inside, 0.0)))
    return np.asarray(np.where(inside >= 0, root, np.inf))
