"""Policies: path-dependent rules such as stop-losses, ladders and top-ups (docs/semantics.md §7)."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from backtest.config.keys import Count, Duration, Model, NotNegative, Positive, Rate, Share, Whole
from backtest.config.labels import Value, write_label


class Ladder(Model):
    """Partial liquidation: by `step` tiers at a time, or by a `fraction` while the notional is `above` a limit."""

    step: Count | None = Field(None, description="Tiers cut at a time: 1 (Bybit), 2 (OKX). In the lowest: all.")
    fraction: Share | None = Field(None, description="Share of the position that is closed (Hyperliquid 0.2).")
    above: NotNegative = Field(0.0, description="Notional up to which the whole position is closed.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.step is None) == (self.fraction is None):
            raise ValueError("exactly one of step and fraction must be given")
        if self.above and self.step is not None:
            raise ValueError(f"above goes with fraction, not with step; got {self.above:g}")
        if self.fraction is not None and not self.above:
            raise ValueError(
                f"above must be > 0 with fraction, else a bankrupt position stays open; got {self.above:g}"
            )
        return self


class TopUp(Model):
    """Margin added from a reserve after a margin call, at the close `delay_bars` later."""

    target_ratio: Share = Field(description="Margin ratio that the added margin restores.")
    reserve: Positive = Field(description="Total of all top-ups, as a multiple of the initial margin.")
    max_times: Count = 1
    delay_bars: Whole = 0


class Deleverage(Model):
    """A fraction closed after a margin call, at the close `delay_bars` later, at the taker fee."""

    fraction: Share
    max_times: Count = 1
    delay_bars: Whole = 0


class Exit(Model):
    """A stop-loss or take-profit at a distance from the average entry."""

    distance: Positive = Field(description="Fraction of the entry price, or of the margin.")
    of: Literal["price", "margin"] = "price"
    on: Literal["trigger", "last"] = Field("trigger", description="The price that is watched.")
    slippage: Rate = Field(0.0, description="Of the fill of a stop-loss, against the position.")


class ScaleIn(Model):
    """Averaging down: a multiple of the first quantity is added at each adverse distance from the first entry."""

    distance: tuple[Share, ...] = Field(min_length=1, description="Fractions of the first entry price, ascending.")
    multiple: tuple[Positive, ...] = Field(min_length=1, description="Of the first quantity, one per distance.")

    @model_validator(mode="after")
    def _ladder(self) -> Self:
        if len(self.distance) != len(self.multiple):
            raise ValueError(f"distance and multiple must be of one length; got {self.distance} and {self.multiple}")
        if any(b <= a for a, b in zip(self.distance, self.distance[1:], strict=False)):
            raise ValueError(f"distances must ascend; got {self.distance}")
        return self


class Policy(Model):
    """Rules for an open position; ``{}`` holds it until the horizon or the liquidation."""

    confirm_bars: Whole = Field(
        0,
        description="Liquidation needs this many closes in a row beyond the level; 0: the bar's extreme suffices.",
    )
    ladder: Ladder | None = None
    top_up: TopUp | None = None
    deleverage: Deleverage | None = None
    stop_loss: Exit | None = None
    take_profit: Exit | None = None
    scale_in: ScaleIn | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_up and self.deleverage:
            raise ValueError("top_up and deleverage both answer a margin call; give one of them")
        if self.stop_loss and self.scale_in and (far := _never_added(self.scale_in, self.stop_loss)):
            raise ValueError(
                f"scale_in at {far:g} lies beyond stop_loss at {self.stop_loss.distance:g} from the average entry: it "
                "is never reached; give a smaller distance"
            )
        if self.take_profit and self.take_profit.slippage:
            raise ValueError("take_profit is filled at its level; slippage goes with stop_loss")
        return self

    @property
    def label(self) -> str:
        """As in the results: ``confirm_bars=3 stop_loss(distance=0.05)``; ``none`` for a policy without rules."""
        return write_label(_given(self)) or "none"


def _never_added(ladder: ScaleIn, stop: Exit) -> float | None:
    """The first distance beyond a stop-loss on every side and contract; None where each can be reached.

    An addition moves the average entry, and the stop with it. A stop of margin depends on the leverage, and a stop on
    the last price on another series: neither is known here.
    """
    if stop.of == "margin" or stop.on == "last":
        return None
    reached = []
    for side, power in product((1.0, -1.0), (1, -1)):  # the average of prices; of 1/P for inverse
        quantity, value, n = 1.0, 1.0, 0
        for distance, multiple in zip(ladder.distance, ladder.multiple, strict=True):
            price = 1 - side * distance
            if side * (price - (value / quantity) ** power * (1 - side * stop.distance)) <= 0:
                break
            quantity, value, n = quantity + multiple, value + multiple * price**power, n + 1
        reached.append(n)
    return (*ladder.distance, None)[max(reached)]


def _given(part: Model) -> dict[str, Value]:
    """The values that are not the defaults, nested parts included."""
    found: dict[str, Value] = {}
    for key, field in type(part).model_fields.items():
        value = getattr(part, key)
        if value is not None and value != field.default:
            found[key] = _given(value) if isinstance(value, Model) else value
    return found


class VolatilityTarget(Model):
    """Leverage of each entry times ``min(cap, target / realised volatility)``; ``{}``: times 1.

    The volatility is that of the closes over `window` up to the entry, per year.
    """

    target: Positive | None = Field(None, description="Annual volatility at which the weight is 1, such as 0.6.")
    window: Duration | None = None
    cap: Positive = Field(1.0, description="Largest weight.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.target is None) != (self.window is None):
            raise ValueError("target and window go together")
        if self.target is None and self.cap != 1:
            raise ValueError(f"cap goes with target and window; got {self.cap:g} alone")
        return self

    @property
    def label(self) -> str:
        """As in the results: ``target=0.6 window=30d cap=2``; ``1`` for a constant leverage."""
        if self.target is None or self.window is None:
            return "1"
        return write_label({"target": self.target, "window": self.window, "cap": self.cap})


class VolatilityScale(Model):
    """Maintenance times ``min(cap, max(1, volatility / reference))``, the volatility known before the bar."""

    window: Duration
    reference: Positive = Field(description="Annual volatility up to which nothing is raised.")
    cap: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1)]
