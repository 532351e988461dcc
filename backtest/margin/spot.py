"""Spot margin: debt, assets and prices of a position with borrowed funds (docs/semantics.md §4).

A long owes quote and owns base; a short owes base and owns quote. `debt` and `assets` are in those units. The functions
take arrays, broadcast together, so that `price` and the events of a sweep use the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backtest.arrays import Float
from backtest.errors import ConfigError
from backtest.margin.position import ALLOWED, OpenPosition, Side, check_position
from backtest.units import number_text

LTV = ("a share of the assets, above 0 and below 1", lambda value: 0 < value < 1)
ALLOWED_IN_SPOT: dict[str, tuple[str, Callable[[float], bool]]] = {
    **{key: ALLOWED[key] for key in ("entry_price", "quantity", "mark_price", "leverage", "margin", "wallet")},
    **dict.fromkeys(("liquidation_ltv", "margin_call_ltv"), LTV),
    "interest": ("the growth of the debt so far, ≥ 0", lambda value: value >= 0),
}


@dataclass(frozen=True, kw_only=True)
class SpotPosition(OpenPosition):
    """One open spot margin position; further attributes in `OpenPosition`, where the margin is the own funds.

    Attributes
    ----------
    liquidation_ltv : float
        Debt over assets at which the position is liquidated, a share.
    margin_call_ltv : float or None
        Debt over assets of the margin call; at most `liquidation_ltv`. It does not change the liquidation price.
    interest : float
        Growth of the debt so far, as a share of it: ``G − 1``.

    Raises
    ------
    ConfigError
        With key, value and rule, if a value is impossible or keys exclude each other.

    Examples
    --------
    >>> SpotPosition(side="short", entry_price=100.0, quantity=2.0, leverage=4.0, liquidation_ltv=0.9).loan
    (2.0, 250.0)
    """

    liquidation_ltv: float
    margin_call_ltv: float | None = None
    interest: float = 0.0

    def __post_init__(self) -> None:
        check_position(self, ALLOWED_IN_SPOT)
        if self.margin_call_ltv is not None and self.margin_call_ltv > self.liquidation_ltv:
            raise ConfigError(
                f"margin_call_ltv must be at most liquidation_ltv, {number_text(self.liquidation_ltv)}; got "
                f"{number_text(self.margin_call_ltv)}"
            )
        largest = max(self.entry_price, self.price_now)
        if not math.isfinite(self.own_margin + self.quantity * largest * self.growth / self.liquidation_ltv):
            raise ConfigError(
                "quantity · price, the own funds and the interest must be finite amounts: they overflow a float64"
            )

    @property
    def growth(self) -> float:
        """The debt now over the debt at entry, G."""
        return 1 + self.interest

    @property
    def loan(self) -> tuple[float, float]:
        """``(debt, assets)`` at entry, as `loans` gives them."""
        debt, assets = loans(self.side, self.quantity, self.notional, self.own_margin)
        return float(debt), float(assets)


def loans(
    side: Side,
    quantity: float | Float,
    notional: float | Float,
    own_funds: float | Float,
    open_fee: float | Float = 0.0,
) -> tuple[Float, Float]:
    """Debt and assets of a position after it is opened.

    Parameters
    ----------
    side : {"long", "short"}
    quantity : float or array
        Base bought or sold.
    notional, own_funds, open_fee : float or array
        Quote; `open_fee` is the amount that the own funds pay.

    Returns
    -------
    (debt, assets) : (...) float64 each
        Long: quote and base. Short: base and quote. The debt of a long is 0 or less where nothing is borrowed.

    Examples
    --------
    >>> debt, assets = loans("long", 2.0, 200.0, np.array([50.0, 200.0]))
    >>> debt.tolist(), assets.tolist()
    ([150.0, 0.0], [2.0, 2.0])
    """
    base, quote, own, fee = (np.asarray(v, dtype=np.float64) for v in (quantity, notional, own_funds, open_fee))
    owed, owned = (quote - own + fee, base) if side == "long" else (base, own + quote - fee)
    debt, assets = np.broadcast_arrays(owed, owned)
    return debt, assets


def owed_and_owned(
    side: Side,
    price: float | Float,
    debt: float | Float,
    assets: float | Float,
    growth: float | Float = 1.0,
) -> tuple[Float, Float]:
    """Debt with its interest, and assets, both valued in quote at a price.

    Parameters
    ----------
    side : {"long", "short"}
    price : float or array
        Quote per base.
    debt, assets : float or array
        As `loans` gives them. A debt below 0 is cash, which bears no interest.
    growth : float or array
        The debt now over the debt at entry, G.

    Returns
    -------
    (owed, owned) : (...) float64 each
        Quote. Equity is ``owned − owed``, the loan to value ``owed / owned``.

    Examples
    --------
    >>> owed, owned = owed_and_owned("short", 110.0, 2.0, 250.0, 1.01)
    >>> round(float(owed), 9), float(owned)
    (222.2, 250.0)
    """
    at, due, own = (np.asarray(v, dtype=np.float64) for v in (price, debt, assets))
    due = np.where(due > 0, due * growth, due)
    owed, owned = np.broadcast_arrays(*((due, own * at) if side == "long" else (due * at, own)))
    return owed, owned


def prices_at_ltv(
    side: Side,
    debt: float | Float,
    assets: float | Float,
    ltv: float | Float,
    growth: float | Float = 1.0,
) -> Float:
    """Prices at which the loan to value reaches a level: of liquidation, margin call or bankruptcy.

    Parameters
    ----------
    side : {"long", "short"}
    debt, assets : float or array
        As `loans` gives them.
    ltv : float or array
        `liquidation_ltv`, `margin_call_ltv`, or 1: with a `growth` of 1 that is the bankruptcy price.
    growth : float or array
        The debt then over the debt at entry, G.

    Returns
    -------
    (...) float64
        Quote per base: ``debt·G/(ltv·q)`` of a long, ``ltv·assets/(q·G)`` of a short. 0 for a long
        without debt, which no price liquidates, and for a short without assets, which every price liquidates.

    Examples
    --------
    >>> prices_at_ltv("long", np.array([150.0, 0.0]), 2.0, 0.9).round(4)
    array([83.3333,  0.    ])
    """
    due, own = np.asarray(debt, dtype=np.float64) * growth, np.asarray(assets, dtype=np.float64) * ltv
    return np.asarray(np.maximum(due / own if side == "long" else own / due, 0.0))
