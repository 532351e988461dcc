"""Every key of a configuration, from Python or TOML: its type, default, rule and description."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic import field_validator as check

from backtest.arrays import Float
from backtest.config.keys import (
    Duration,
    Fee,
    Instant,
    Leverage,
    Model,
    NotNegative,
    Number,
    PathText,
    Portion,
    Positive,
    Rate,
    Share,
    Whole,
    explain,
)
from backtest.config.labels import write_label
from backtest.config.policies import Policy, VolatilityScale, VolatilityTarget
from backtest.config.regimes import Regimes, uses_market
from backtest.errors import ConfigError
from backtest.filesystem import resolved
from backtest.margin.position import Side
from backtest.margin.rules import AnyContract, Basis, rules
from backtest.units import duration_ms, instant_ms, number_text

MAX_POINTS = 10_000


class Data(Model):
    """Which histories, and which part of them."""

    path: PathText | None = Field(None, description="Dataset or Parquet file, relative to the configuration file.")
    interval: Duration | None = Field(None, description="Only needed where the dataset holds several.")
    symbols: tuple[str, ...] | None = Field(None, min_length=1, description="Default: all of the dataset.")
    start: Instant | None = Field(None, description="Inclusive, UTC.")
    end: Instant | None = Field(None, description="Exclusive, UTC.")
    trigger: Literal["mark", "last"] | None = Field(None, description="Default: mark where the history has it.")
    max_gap: Duration | None = Field(None, description="Leave out entries whose window holds a longer gap.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start and self.end and instant_ms(self.start) >= instant_ms(self.end):
            raise ValueError(f"start must lie before end; got {self.start} and {self.end}")
        if self.symbols and len(set(self.symbols)) < len(self.symbols):
            raise ValueError("symbols holds one symbol twice")
        return self


class Entries(Model):
    """When positions are opened."""

    every: Duration | None = Field(None, description="Bars whose open_time is a multiple of it. Default: every bar.")
    file: PathText | None = Field(
        None,
        description="Your own trades: entry_time[, exit_time, side, leverage, entry_price, symbol], Parquet or CSV.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.every is not None and self.file is not None:
            raise ValueError("every and file exclude each other: entries are bars, or your own trades")
        return self


class Funding(Model):
    """Funding rates as charged, times `scale`, plus `shift` at each charge."""

    scale: Number = 1.0
    shift: Number = 0.0


class Size(Model):
    """Size of a position: a fixed entry notional, or a fixed margin (the notional is then margin × leverage).

    `extra` is further wallet balance behind the position (cross margin with one position).
    """

    notional: Positive | None = None
    margin: Positive | None = None
    extra: NotNegative = Field(0.0, description="Further wallet balance behind the position, in its margin's currency.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.notional is None) == (self.margin is None):
            raise ValueError("exactly one of notional and margin must be given")
        return self

    @property
    def label(self) -> str:
        """As in the results: ``notional=10000``."""
        return write_label({key: value for key, value in self if value})

    def entry_notional(self, leverage: Float) -> Float:
        """Entry notional of each leverage: fixed, or margin × leverage."""
        if self.margin is not None:
            return self.margin * leverage
        return np.full(leverage.shape, self.notional)


class RuleTiers(Model):
    """A named rule with another tier table."""

    rule: str
    tiers: str


def _kind(item: object) -> str | None:
    if isinstance(item, dict | RuleTiers):
        return "rule and tiers"
    return "a name" if isinstance(item, str) else None if isinstance(item, bool) else "a rate"


MaintenanceItem = Annotated[
    Annotated[Rate, Tag("a rate")] | Annotated[str, Tag("a name")] | Annotated[RuleTiers, Tag("rule and tiers")],
    Discriminator(
        _kind,
        custom_error_type="maintenance",
        custom_error_message="must be a flat rate, a rule name, a tier-table file or { rule = …, tiers = … }",
    ),
]


class LeverageRange(Model):
    """``from``, ``to`` (inclusive) and ``step``."""

    start: Leverage = Field(alias="from")
    stop: Leverage = Field(alias="to")
    step: Positive = 1.0


def _leverages(value: object) -> object:
    if isinstance(value, dict):
        span = LeverageRange(**value)
        count = int((span.stop - span.start) / span.step * (1 + 1e-12)) + 1
        if not 1 <= count <= MAX_POINTS:
            span_text = f"from {span.start:g} to {span.stop:g} by {span.step:g}"
            raise ValueError(f"{span_text} is not 1 to {MAX_POINTS} leverages")
        return tuple(span.start + i * span.step for i in range(count))
    return tuple(value) if isinstance(value, range) else value


Leverages = Annotated[
    tuple[Leverage, ...], BeforeValidator(_leverages, json_schema_input_type=tuple[Leverage, ...] | LeverageRange)
]


def _weights(value: dict[str, float]) -> dict[str, float]:
    if any(w == 0 for w in value.values()) or not math.isclose(sum(map(abs, value.values())), 1, rel_tol=1e-9):
        total = sum(map(abs, value.values()))
        raise ValueError(f"weights must not be 0 and their absolute values must add up to 1; got a sum of {total:.10g}")
    return value


Portfolio = Annotated[dict[str, Number], Field(min_length=1), AfterValidator(_weights)]


class Sweep(Model):
    """The axes; the scenarios are their product.

    Parameters
    ----------
    horizon : sequence of str
        Durations such as ``"7d"``; two of one duration are refused.
    maintenance : sequence
        Flat rates, rule names, tier-table files, or ``{"rule": …, "tiers": …}``.
    side, leverage, open_fee, funding, size : sequence
        Leverages may be a ``range`` or ``{"from": 1, "to": 125}``; ``open_fee`` is a fraction of the notional.
    weight : sequence
        Leverage that follows volatility: ``{"target": 0.6, "window": "30d", "cap": 2.0}``; ``{}`` is weight 1.
    policy : sequence
        Path-dependent rules, such as ``{"stop_loss": {"distance": 0.05}}``; ``{}`` is none.
    portfolio : sequence
        Cross margin: ``{"BTCUSDT": 0.6, "ETHUSDT": -0.4}``, signed shares of the notional, instead of `side`.

    Examples
    --------
    >>> sweep = Sweep(leverage=range(1, 126), horizon=["1d", "7d"], maintenance=[0.004])
    >>> len(sweep.leverage), sweep.side
    (125, ('long', 'short'))
    """

    horizon: tuple[Duration, ...] = Field(min_length=1)
    maintenance: tuple[MaintenanceItem, ...] = Field((), description="Required, except for spot margin.")
    side: tuple[Side, ...] = Field(("long", "short"), min_length=1)
    leverage: Leverages = Field(tuple(float(x) for x in range(1, 126)), min_length=1, max_length=MAX_POINTS)
    open_fee: tuple[Fee, ...] = Field((0.0,), min_length=1)
    funding: tuple[Funding, ...] = Field((Funding(),), min_length=1)
    size: tuple[Size, ...] = ()
    weight: tuple[VolatilityTarget, ...] = ()
    policy: tuple[Policy, ...] = ()
    portfolio: tuple[Portfolio, ...] = ()

    @check("side", "leverage", "maintenance", "open_fee", "funding", "size", "weight", "policy", "portfolio")
    @classmethod
    def _distinct(cls, values: tuple[object, ...], info: ValidationInfo) -> tuple[object, ...]:
        for i, value in enumerate(values):
            if value in values[:i]:
                raise ValueError(f"{info.field_name} holds {value} twice")
        return values

    @check("horizon")
    @classmethod
    def _durations_differ(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        seen: dict[int, str] = {}
        for text in values:
            other = seen.setdefault(duration_ms(text), text)
            if other is not text:
                raise ValueError(f"horizons {other!r} and {text!r} are the same duration")
        return values


class Margin(Model):
    """Terms of margin where a named rule does not fix them."""

    contract: AnyContract = Field("linear", description="Inverse: margin, tiers and sizes by margin are in coin.")
    expiry: Instant | None = Field(
        None, description="Dated futures: no funding; positions are closed at the last close before it."
    )
    basis: Basis = Field("mark", description="Whether maintenance is of the notional at the mark price or at entry.")
    close_reserve: Rate = Field(0.0, description="Closing fee that is part of the maintenance margin.")
    fees_from_margin: Annotated[bool, Field(strict=True)] = True
    margin_call_ratio: Portion = 0.8
    liquidation_slippage: Rate = Field(0.0, description="Of the fill price, against the position. Events only.")
    liquidation_fee: Rate = Field(0.0, description="Fraction of the notional at the fill. Events only.")
    surplus: Literal["trader", "fund"] = Field("trader", description="Who keeps the margin left after a liquidation.")
    taker_fee: Fee | None = Field(
        None, description="For rules and policies that need it; default: the rule's, else open_fee."
    )
    maintenance_scale: VolatilityScale | None = Field(None, description="Maintenance that rises with volatility.")
    liquidation_ltv: Portion | None = Field(None, description="Spot margin: debt over assets at liquidation.")
    margin_call_ltv: Portion | None = Field(None, description="Spot margin: debt over assets at the margin call.")
    borrow_rate: Rate = Field(0.0, description="Spot margin: interest per hour begun, compounding.")

    @model_validator(mode="after")
    def _spot(self) -> Self:
        spot = self.contract == "spot"
        named = ("liquidation_ltv", "margin_call_ltv", "borrow_rate")
        if not spot and (given := sorted(set(named) & self.model_fields_set)):
            raise ValueError(f"{given[0]} goes with contract 'spot'; got {getattr(self, given[0])!r}")
        if not spot:
            return self
        if self.liquidation_ltv is None or self.margin_call_ltv is None:
            raise ValueError("contract 'spot' needs liquidation_ltv and margin_call_ltv")
        if self.margin_call_ltv > self.liquidation_ltv:
            raise ValueError(f"margin_call_ltv must be at most liquidation_ltv; got {self.margin_call_ltv:g}")
        perpetual = ("expiry", "basis", "close_reserve", "margin_call_ratio", "taker_fee", "maintenance_scale")
        if given := sorted(set(perpetual) & self.model_fields_set):
            raise ValueError(f"{given[0]} has no meaning for contract 'spot'; got {getattr(self, given[0])!r}")
        return self


class Statistics(Model):
    """Confidence intervals, and the groups by which entries are counted."""

    confidence: Share = 0.95
    block: Duration = Field("7d", description="Length of the calendar blocks by which entries are counted.")
    replications: Annotated[int, Field(strict=True, ge=100)] = Field(
        1000, description="Bootstrap replications, for intervals without closed form."
    )
    seed: Whole = 0
    regimes: Regimes = Field((), description="Labels of entries by which counts are grouped too: 'year', 'hour' …")
    outcomes: Annotated[bool, Field(strict=True)] = Field(
        False, description="Also count outcomes of positions in money; always with policies."
    )
    bankroll_fraction: Portion = Field(
        0.1, description="Share of a bankroll used as margin: for the log growth among the outcomes."
    )


class Config(Model):
    """One run."""

    sweep: Sweep
    data: Data = Data()
    entries: Entries = Entries()
    margin: Margin = Margin()
    statistics: Statistics = Statistics()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sweep, margin = self.sweep, self.margin
        spot = margin.contract == "spot"
        if not spot and not sweep.maintenance:
            raise ValueError("sweep.maintenance: is missing")
        unread = ("maintenance", "funding", "policy", "portfolio")
        if spot and (given := [key for key in unread if key in sweep.model_fields_set and getattr(sweep, key)]):
            raise ValueError(f"sweep.{given[0]} has no meaning for contract 'spot'")
        if any(size.extra for size in sweep.size) and (spot or sweep.portfolio):
            raise ValueError(
                "sweep.size: extra is wallet balance behind one perpetual; give the whole wallet as margin"
            )
        for policy in sweep.policy:
            if policy.top_up and policy.top_up.target_ratio >= margin.margin_call_ratio:
                most, found = margin.margin_call_ratio, policy.top_up.target_ratio
                raise ValueError(
                    f"sweep.policy: top_up.target_ratio must lie below margin.margin_call_ratio {most:g}; got {found:g}"
                )
        if margin.expiry is not None:
            self._check_expiry(margin.expiry)
        if sweep.portfolio:
            self._check_portfolio()
        return self

    def _check_expiry(self, expiry: str) -> None:
        """Refuse an expiry before the start, and funding of dated futures."""
        start = self.data.start
        if start is not None and instant_ms(expiry) <= instant_ms(start):
            raise ValueError(f"margin.expiry must lie after data.start, {start}; got {expiry}")
        for funding in self.sweep.funding:
            if funding.shift or funding.scale not in (0, 1):
                raise ValueError(
                    f"sweep.funding has no meaning with margin.expiry: dated futures pay none; got scale = "
                    f"{number_text(funding.scale)}, shift = {number_text(funding.shift)}"
                )

    def _check_portfolio(self) -> None:
        """Refuse keys that a portfolio (own sides and symbols, one wallet in one currency) does not use."""
        for key in ("side", "weight", "policy"):
            if key in self.sweep.model_fields_set and getattr(self.sweep, key):
                raise ValueError(f"sweep.{key} has no place beside sweep.portfolio, whose weights are signed")
        for name, given in (
            ("data.symbols", self.data.symbols),
            ("entries.file", self.entries.file),
            ("margin.expiry", self.margin.expiry),
            ("margin.maintenance_scale", self.margin.maintenance_scale),
            ("statistics.outcomes", self.statistics.outcomes or None),
        ):
            if given is not None:
                raise ValueError(f"{name} has no place beside sweep.portfolio")
        for regime in self.statistics.regimes:
            if uses_market(regime):
                raise ValueError(f"statistics.regimes: {regime.by!r} is of one symbol, and sweep.portfolio has several")
        if self.margin.contract != "linear":
            raise ValueError(
                f"sweep.portfolio is margined in one quote currency: contract 'linear'; got {self.margin.contract!r}"
            )


def load_config(path: str | Path) -> Config:
    """Read a TOML file; paths in it are relative to it.

    Raises
    ------
    ConfigError
        Naming every unknown key, wrong type and impossible value, each with its path.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML ({error})") from None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{file}:\n" + explain(error)) from None
    if config.data.path is None:
        raise ConfigError(f"{file}: data.path must name a dataset or a Parquet file")
    return with_base(config, file.parent)


def with_base(config: Config, base: Path) -> Config:
    """Resolve the paths of a configuration against a folder."""

    def resolve(item: float | str | RuleTiers) -> float | str | RuleTiers:
        if isinstance(item, RuleTiers):
            return RuleTiers(rule=item.rule, tiers=str(base / item.tiers))
        if isinstance(item, str) and item not in {known.name for known in rules()}:
            return str(base / item)
        return item

    sweep = config.sweep.model_copy(update={"maintenance": tuple(resolve(m) for m in config.sweep.maintenance)})
    data = config.data.model_copy(update={"path": resolved(base, config.data.path or "")})
    entries = config.entries.model_copy(update={"file": config.entries.file and str(base / config.entries.file)})
    regimes = [regime.at(base) for regime in config.statistics.regimes]
    statistics = config.statistics.model_copy(update={"regimes": tuple(regimes)})
    return config.model_copy(update={"sweep": sweep, "data": data, "entries": entries, "statistics": statistics})
