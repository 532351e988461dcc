"""§6 of docs/semantics.md: the liquidation price, the bankruptcy price and the fill."""

import math

from tests.oracles.position import Position, Scenario


def linear_liquidation_price(position: Position, paid: float, g: float) -> float | None:
    """§6: solved in P; None where there is none above 0."""
    s, q, p, reserve = position.s, position.q, position.p, position.close_reserve
    if position.basis == "entry":  # MM does not move with P
        needed = position.maintenance_of(position.N, g)
        price = p + paid + (needed - position.M + position.fee) / (s * q)
        return price if price > 0 else None
    roots: list[float] = []
    for flat, deduction in position.lines:
        # M − fee + s·q·(P − p) − s·q·paid = g·(mmr·q·P − D) + reserve·q·P
        mmr = flat + position.slope * q  # §5: the size in coin is q at any price
        slope = q * (g * mmr + reserve - s)
        if slope == 0:
            continue
        price = (position.M - position.fee - s * q * p - s * q * paid + g * deduction) / slope
        if price <= 0:
            continue
        own = g * (mmr * q * price - deduction) + reserve * q * price
        if position.maintenance(price, g) - own <= 1e-12 * (position.N + q * price):
            roots.append(price)
    # Several only where two tiers meet, or where a tier's g·mmr + reserve exceeds 1 for a long: the lower one
    # is then the level that a falling price meets.
    return min(roots) if roots else None


def sloped_sizes(a: float, b: float, c: float) -> list[float]:
    """§6, inverse with a slope: the sizes n = Q·u > 0 where c − s·n = g·(mmr_0 + slope·n)·n + reserve·n.

    That is a·n² + b·n = c with a = g·slope and b = g·mmr_0 + reserve + s, solved without cancellation.
    """
    root = b * b + 4 * a * c
    if root < 0:
        return []
    half = -(b + math.copysign(math.sqrt(root), b)) / 2
    sizes = [half / a, -c / half] if half else [0.0]
    return [n for n in sizes if n > 0]


def inverse_liquidation_price(position: Position, paid: float, g: float) -> float | None:
    """§4, §6: solved in u = 1/P; None where P is not in (0, ∞)."""
    s, face, reserve = position.s, position.q, position.close_reserve
    # Q·u_p is N: with M = N a short's E at u = 0 is then exactly 0, and not a rounding error above or below it.
    at_zero = position.M - position.fee + s * position.N - s * face * paid  # E at u = 0
    roots: list[float] = []
    if position.basis == "entry":  # MM does not move with u: at_zero − s·Q·u = MM
        roots.append((at_zero - position.maintenance_of(position.N, g)) / (s * face))
    elif position.slope and g:
        rate = g * position.lines[0][0] + reserve + s
        sizes = sloped_sizes(g * position.slope, rate, at_zero)
        # A short's level is the smaller size, that of a rise; alone, a root is that of a fall, which no high reaches.
        roots.extend(n / face for n in sizes if s > 0 or len(sizes) > 1)
    else:
        for mmr, deduction in position.lines:
            # at_zero − s·Q·u = g·(mmr·Q·u − D) + reserve·Q·u
            slope = face * (g * mmr + reserve + s)
            if slope == 0:
                continue
            u = (at_zero + g * deduction) / slope
            own = g * (mmr * face * u - deduction) + reserve * face * u
            if u > 0 and position.maintenance_of(face * u, g) - own <= 1e-12 * (position.N + face * u):
                roots.append(u)
    prices = [1 / u for u in roots if u > 0 and 1 / u < math.inf]
    # Several only where two tiers meet, or where a tier's g·mmr + reserve exceeds 1 for a short: the higher
    # price is then the level that a rising price meets.
    return max(prices) if prices else None


def liquidation_price(position: Position, paid: float, g: float) -> float | None:
    """§6: the P at which E = MM, the tier being the one at that price; None outside (0, ∞)."""
    if position.contract == "inverse":
        return inverse_liquidation_price(position, paid, g)
    return linear_liquidation_price(position, paid, g)


def bankruptcy_price(position: Position) -> float | None:
    """§6: the P at which E = 0, fees and funding aside: p·(1 − s·M/N), inverse p/(1 + s·M/N); None outside (0, ∞).

    Without extra margin M/N is 1/L. The posted fee to close pays for closing there and leaves it where it is.
    """
    share = position.s * position.M / position.N
    if position.contract == "inverse":
        return position.p / (1 + share) if 1 + share > 0 and position.p / (1 + share) < math.inf else None
    price = position.p * (1 - share)
    return price if 0 < price < math.inf else None


def fill_of(scenario: Scenario, level: float | None, trigger_open: float | None) -> float | None:
    """§6: the worse of the liquidation price and the bar's trigger open, then slipped."""
    # With no level above 0 (any price liquidates) the open is all there is; a null open leaves the level.
    known = [price for price in (level, trigger_open) if price is not None]
    if not known:
        return None
    worse = min(known) if scenario.side > 0 else max(known)
    return worse * (1 - scenario.side * scenario.liquidation_slippage)
