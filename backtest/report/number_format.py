"""Numbers as people read them: shares, rates, signs, multiples."""

from __future__ import annotations

import math

from backtest.units import number_text


def percent_text(share: float) -> str:
    """A share as percent: one decimal, two near either end, and an end itself only where it is exact; ``–`` for null.

    Examples
    --------
    >>> percent_text(0.9917), percent_text(0.99987), percent_text(0.999999), percent_text(1.0)
    ('99.2 %', '99.99 %', '99.99 %', '100 %')
    """
    if math.isnan(share):
        return "–"
    if share in (0.0, 1.0):
        return f"{100 * share:g} %"
    if 0.0005 <= share < 0.9995:
        return f"{100 * share:.1f} %"
    return f"{min(99.99, max(0.01, 100 * share)):.2f} %"


def signed_text(share: float) -> str:
    """A gain or loss as percent with its sign; ``–`` for null.

    Examples
    --------
    >>> signed_text(0.0123), signed_text(-0.5), signed_text(0.0)
    ('+1.23 %', '−50.00 %', '0 %')
    """
    if math.isnan(share):
        return "–"
    if abs(share) < 0.00005:
        return "0 %" if share == 0 else "0.00 %"
    return f"{100 * share:+.2f} %".replace("-", "−")


def rate_text(rate: float) -> str:
    """A rate or level as percent with the digits it has: ``rate_text(0.0002) == "0.02 %"``."""
    return f"{100 * rate:.6g} %".replace("-", "−")


def times_text(leverage: float) -> str:
    """A leverage as people write it: ``12×``."""
    return f"{number_text(leverage)}×"


def is_null(value: object) -> bool:
    """None, NaN or NA: a value that the run does not have."""
    import pandas as pd

    return bool(pd.isna(value))  # type: ignore[call-overload]
