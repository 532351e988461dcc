"""Margins, liquidation price and bankruptcy price of one linear position (semantics.md §2, §5, §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from backtest.errors import RuleError
from backtest.rules.catalog import Basis
from backtest.rules.position import Position, Side, read_position
from backtest.rules.tiers import Float

ZERO = 1e-12  # share of the entry price: a root this near to 0 is a 0 that was rounded


class PriceAnswer(TypedDict):
    """The output of ``backtest price`` (interface.md): amounts in quote, prices in quote per base.

    `initial_margin` is null with a wallet, which does not say what the position had to post; `liquidation_price` and
    `bankruptcy_price` are null where there is none above 0; `margin_ratio` is null where nothing of the margin
    balance is left.
    """

    initial_margin: float | None
    maintenance_margin: float
    margin_ratio: float | None
    liquidation_price: float | None
    bankruptcy_price: float | None
    tier: int
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


def price(position: Position) -> PriceAnswer:
    """Margins, liquidation and bankruptcy price of a position.

    Parameters
    ----------
    position : Position

    Returns
    -------
    dict
        `maintenance_margin` (the close reserve included), `tier` (from 1) and `fee_to_close` (the close reserve) are
        of the notional at the mark price, else at entry; always at entry where that is the basis. `tier` is the
        one at entry for a table without deductions. `margin_ratio` is maintenance over margin balance, both of the
        whole wallet under cross margin.

    Raises
    ------
    RuleError
        If a short would be liquidated at every price above 0, so that null would read as never.

    Notes
    -----
    ``bankruptcy_price`` is the price at which what was posted (extra margin, and the profit of the wallet's other
    positions included) is lost, fees and funding aside: ``p·(1 − s/L)`` where nothing but the initial margin is.

    Examples
    --------
    >>> classic = Position(side="long", entry_price=20_000.0, quantity=1.0, leverage=50.0, mmr=0.005, basis="entry")
    >>> [price(classic)[key] for key in ("initial_margin", "maintenance_margin", "liquidation_price")]
    [400.0, 100.0, 19700.0]
    """
    sign, quantity, entry = position.sign, position.quantity, position.entry_price
    mmr, deduction = position.lines
    size = position.notional if position.basis == "entry" else quantity * position.price_now
    reserve = position.close_reserve * size
    maintenance = float((mmr * size - deduction).max()) + reserve
    posted = position.posted_margin + position.other_unrealized
    balance = posted - position.funding_paid
    equity = balance + sign * quantity * (position.price_now - entry)
    free = balance - position.other_maintenance
    levels = liquidation_prices(
        position.side, entry, quantity, free, position.lines, basis=position.basis, close_reserve=position.close_reserve
    )
    level = float(levels)
    if sign < 0 and not level > ZERO * entry:
        raise RuleError(
            f"the short is liquidated at every price above 0: {free:.10g} stands against losses, the entry notional is "
            f"{position.notional:.10g}"
        )
    return PriceAnswer(
        initial_margin=None if position.wallet is not None else position.own_margin,
        maintenance_margin=maintenance,
        margin_ratio=(maintenance + position.other_maintenance) / equity if equity > 0 else None,
        liquidation_price=_above_0(level, entry),
        bankruptcy_price=_above_0(entry - sign * posted / quantity, entry),
        tier=_tier(position, size),
        fee_to_close=reserve,
    )


def _above_0(price: float, entry: float) -> float | None:
    return price if ZERO * entry < price < math.inf else None


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
    basis: Basis = "mark",
    close_reserve: float = 0.0,
) -> Float:
    """Prices at which margin balance equals maintenance margin, for linear positions under one set of lines.

    Parameters
    ----------
    side : {"long", "short"}
    entry_price, quantity, margin : float or array, broadcast together
        Quote per base; base; quote. `margin` is what stands against losses: the posted margin, less fees and funding
        paid; under cross margin plus unrealized profit and less maintenance of the wallet's other positions.
    lines : (mmr, deduction), (n_lines,) float64 each
        Maintenance is the largest of ``mmr·n − deduction``, as `TierTable.lines` gives them.
    basis : {"mark", "entry"}
        What n is: the notional at the price, or at entry.
    close_reserve : float
        Fraction of n kept on top.

    Returns
    -------
    (...) float64
        Quote per base. At or below 0 a long is never liquidated, and a short always.

    Notes
    -----
    One root per line, and the first that the price meets: with the largest line in force at every price a long is
    liquidated at the highest root and a short at the lowest, which is the root of the tier that holds the notional
    there. Binance: ``LP = (WB − TMM + UPNL + D − s·q·p) / (q·m − s·q)``.

    Examples
    --------
    >>> liquidation_prices("long", 10.0, 1.0, np.array([2.0, 1.0]), (np.array([0.01]), np.array([0.01]))).round(4)
    array([8.0707, 9.0808])
    """
    sign = 1 if side == "long" else -1
    entry, size, held = (np.asarray(value, dtype=np.float64) for value in (entry_price, quantity, margin))
    first = np.maximum if side == "long" else np.minimum
    level = np.full(np.broadcast_shapes(entry.shape, size.shape, held.shape), -sign * np.inf)
    for mmr, deduction in zip(*lines, strict=True):
        rate = mmr + close_reserve
        if basis == "mark":
            root = (entry - sign * (held + deduction) / size) / (1 - sign * rate)
        else:
            root = entry - sign * (held + deduction - rate * size * entry) / size
        level = first(level, root)
    return np.asarray(level)
