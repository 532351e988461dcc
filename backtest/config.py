"""Every key of a configuration, from Python or TOML: its type, its rule, its place in the JSON Schema."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic import field_validator as check

from backtest.errors import ConfigError
from backtest.rules.catalog import rules
from backtest.units import duration_ms, instant_ms, number_text

Side = Literal["long", "short"]
Basis = Literal["mark", "entry"]
Contract = Literal["linear", "inverse"]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
Fee = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-0.01, lt=1)]
"""Negative is a maker's rebate."""
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
Leverage = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1000)]
MAX_POINTS = 10_000


class Model(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **values: object) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self).__name__.lower())) from None


def _duration(text: object) -> object:
    if isinstance(text, str):
        try:
            duration_ms(text)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return text


def _instant(text: object) -> str:
    try:
        instant_ms(str(text))
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return str(text)


def _path(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


Duration = Annotated[str, Field(strict=True, pattern=r"^\d+\s*[smhdw]$"), BeforeValidator(_duration)]
Instant = Annotated[str, BeforeValidator(_instant, json_schema_input_type=str)]


class Data(Model):
    """Which histories, and which part of them."""

    path: Annotated[str, BeforeValidator(_path, json_schema_input_type=str)] | None = Field(
        None, description="Dataset or Parquet file, relative to the configuration file."
    )
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


class Funding(Model):
    """Funding rates as charged, scaled, and shifted once per charge."""

    scale: Number = 1.0
    shift: Number = 0.0


class Size(Model):
    """Size of a position: a fixed entry notional, or a fixed margin (the notional is then margin × leverage)."""

    notional: Positive | None = None
    margin: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.notional is None) == (self.margin is None):
            raise ValueError("exactly one of notional and margin must be given")
        return self

    @property
    def label(self) -> str:
        """As in the results: ``notional=10000``."""
        if self.notional is not None:
            return f"notional={number_text(self.notional)}"
        return f"margin={number_text(self.margin or 0)}"


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
            raise ValueError(
                f"from {span.start:g} to {span.stop:g} by {span.step:g} is not 1 to {MAX_POINTS} leverages"
            )
        return tuple(span.start + i * span.step for i in range(count))
    return tuple(value) if isinstance(value, range) else value


Leverages = Annotated[
    tuple[Leverage, ...], BeforeValidator(_leverages, json_schema_input_type=tuple[Leverage, ...] | LeverageRange)
]


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

    Examples
    --------
    >>> sweep = Sweep(leverage=range(1, 126), horizon=["1d", "7d"], maintenance=[0.004])
    >>> len(sweep.leverage), sweep.side
    (125, ('long', 'short'))
    """

    horizon: tuple[Duration, ...] = Field(min_length=1)
    maintenance: tuple[MaintenanceItem, ...] = Field(min_length=1)
    side: tuple[Side, ...] = Field(("long", "short"), min_length=1)
    leverage: Leverages = Field(tuple(float(x) for x in range(1, 126)), min_length=1, max_length=MAX_POINTS)
    open_fee: tuple[Fee, ...] = Field((0.0,), min_length=1)
    funding: tuple[Funding, ...] = Field((Funding(),), min_length=1)
    size: tuple[Size, ...] = ()

    @check("side", "leverage", "maintenance", "open_fee", "funding", "size")
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
    """How margin is charged, where a rule does not say."""

    contract: Contract = Field("linear", description="Inverse: margin, tiers and sizes by margin are in coin.")
    basis: Basis = Field("mark", description="Maintenance on the notional at the mark price, or at entry.")
    close_reserve: Rate = Field(0.0, description="Closing fee kept inside the maintenance term.")
    fees_from_margin: Annotated[bool, Field(strict=True)] = True
    margin_call_ratio: Annotated[Number, Field(gt=0, le=1)] = 0.8
    liquidation_slippage: Rate = Field(0.0, description="Of the fill, against the position. Events only.")
    liquidation_fee: Rate = Field(0.0, description="Fraction of the notional at the fill. Events only.")


class Statistics(Model):
    """Intervals."""

    confidence: Annotated[Number, Field(gt=0, lt=1)] = 0.95
    block: Duration = Field("7d", description="Calendar blocks of entries that are counted apart.")
    replications: Annotated[int, Field(strict=True, ge=100)] = Field(
        1000, description="Bootstrap, where an interval has no closed form."
    )
    seed: Annotated[int, Field(strict=True, ge=0)] = 0


class Config(Model):
    """One run."""

    sweep: Sweep
    data: Data = Data()
    entries: Entries = Entries()
    margin: Margin = Margin()
    statistics: Statistics = Statistics()


WORDS = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
}


def explain(error: ValidationError, root: str = "") -> str:
    """Every problem of a configuration on a line of its own: key's path, rule and value."""
    lines = []
    for problem in error.errors():
        path = root
        for part in problem["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif str(part).isidentifier():
                path += f".{part}" if path else str(part)
        inner = getattr(problem.get("ctx", {}).get("error"), "__context__", None)
        if isinstance(inner, ValidationError):  # a part that refused itself
            lines.append(explain(inner, path))
            continue
        value = problem["input"]
        if problem["type"] == "too_short" and value:  # its items are refused one by one
            continue
        rule_text = WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        rule_text = rule_text.replace("Input should be", "must be")
        told = problem["type"] == "missing" or isinstance(value, dict) or "; got " in rule_text
        shown = "" if told else f"; got {value!r}"
        lines.append(f"{path or 'configuration'}: {rule_text}{shown if len(shown) < 200 else ''}")
    return "\n".join(dict.fromkeys(lines))


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
    return _with_base(config, file.parent)


def _with_base(config: Config, base: Path) -> Config:
    """Resolve the paths of a configuration against the folder of its file."""

    def resolve(item: float | str | RuleTiers) -> float | str | RuleTiers:
        if isinstance(item, RuleTiers):
            return RuleTiers(rule=item.rule, tiers=str(base / item.tiers))
        if isinstance(item, str) and item not in {known.name for known in rules()}:
            return str(base / item)
        return item

    sweep = config.sweep.model_copy(update={"maintenance": tuple(resolve(m) for m in config.sweep.maintenance)})
    data = config.data.model_copy(update={"path": str(base / (config.data.path or ""))})
    return config.model_copy(update={"sweep": sweep, "data": data})
