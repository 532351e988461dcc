"""The scenario grid, from Python or TOML: every key of a configuration, and the scenarios that it spans."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
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

from backtest.errors import ConfigError, RuleError
from backtest.rules.catalog import rule, rules
from backtest.rules.packaged import packaged_symbols, packaged_tables
from backtest.rules.tiers import DatedTable, read_tier_tables
from backtest.units import duration_ms, duration_text, instant_ms, number_text

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


@dataclass(frozen=True)
class Maintenance:
    """A maintenance rule of the sweep, resolved: a flat rate, or a tier table.

    `basis` and `close_reserve` come from the rule where it is named, else from ``[margin]``. Tables are in the order
    of their dates.
    """

    label: str
    contract: Contract
    basis: Basis
    close_reserve: float
    flat: float = 0.0
    tables: tuple[DatedTable, ...] = ()
    packaged: str | None = None  # rule whose packaged tables are taken, the symbol's own

    def of_symbol(self, symbol: str) -> Maintenance:
        """With the symbol's packaged tables, where it stands for a rule and no file was bound."""
        if self.packaged is None:
            return self
        return replace(self, tables=packaged_tables(self.packaged, symbol), packaged=None)


@dataclass(frozen=True)
class Scenario:
    """One point of the grid, horizons and leverages left open."""

    side: Side
    maintenance: Maintenance
    open_fee: float
    funding: Funding
    size: Size | None

    @property
    def sign(self) -> float:
        """+1 long, −1 short."""
        return 1.0 if self.side == "long" else -1.0

    @property
    def inverse(self) -> bool:
        """Whether amounts are in coin and prices count as 1/P."""
        return self.maintenance.contract == "inverse"

    @property
    def lean(self) -> float:
        """What the position gains per unit of worth: +sign in P for linear, −sign in 1/P for inverse contracts."""
        return -self.sign if self.inverse else self.sign

    @property
    def face(self) -> float | None:
        """Face value Q in quote of an inverse position sized by notional: its notional in coin is Q/p."""
        return self.size.notional if self.inverse and self.size else None

    def columns(self) -> dict[str, str | float | None]:
        """The scenario columns of the results, in their order."""
        return {
            "side": self.side,
            "maintenance": self.maintenance.label,
            "open_fee": self.open_fee,
            "funding_scale": self.funding.scale,
            "funding_shift": self.funding.shift,
            "size": self.size.label if self.size else None,
        }


def scenarios_of(config: Config) -> list[Scenario]:
    """The product of the axes but horizon and leverage, in the order of the rows of ``survival.parquet``."""
    sweep = config.sweep
    maintenance = [_maintenance(item, config.margin, bool(sweep.size)) for item in sweep.maintenance]
    labels = [m.label for m in maintenance]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise ConfigError(f"sweep.maintenance: two scenarios read {label!r}; rename one of the files")
    sizes: Sequence[Size | None] = sweep.size or (None,)
    axes = product(sweep.side, maintenance, sweep.open_fee, sweep.funding, sizes)
    scenarios = [Scenario(*point) for point in axes]
    for scenario in scenarios:
        rule_of = scenario.maintenance
        if scenario.face is not None and (rule_of.tables or rule_of.packaged):
            raise ConfigError(
                f"sweep.size: a notional of {scenario.face:g} with the tier table {rule_of.label!r} of an inverse "
                "contract: its notional in coin differs by entry, which this version does not sweep; "
                "size it by margin, in coin"
            )
    return scenarios


def scenarios_at(scenarios: Sequence[Scenario], symbol: str) -> list[Scenario]:
    """The scenarios with the symbol's own tier tables."""
    found = {id(s.maintenance): s.maintenance.of_symbol(symbol) for s in scenarios}
    return [replace(s, maintenance=found[id(s.maintenance)]) for s in scenarios]


def _maintenance(item: float | str | RuleTiers, margin: Margin, sized: bool) -> Maintenance:
    if isinstance(item, float | int):
        return Maintenance(number_text(item), margin.contract, margin.basis, margin.close_reserve, flat=float(item))
    named = item.rule if isinstance(item, RuleTiers) else item
    file = Path(item.tiers if isinstance(item, RuleTiers) else item)
    contract, basis, reserve = margin.contract, margin.basis, margin.close_reserve
    known = {entry.name for entry in rules()}
    if isinstance(item, RuleTiers) or named in known:
        bound = rule(named)
        contract, basis, reserve = bound.contract, bound.basis, bound.close_reserve
        _refuse_contradiction(margin, named, {"contract": contract, "basis": basis, "close_reserve": reserve})
        if bound.slope is not None or bound.fee_to_close == "posted":
            raise ConfigError(
                f"sweep.maintenance: rule {named!r} ({bound.contract}, fee {bound.fee_to_close}) is not one that "
                "this version sweeps; `backtest price` answers for single positions"
            )
    packaged = isinstance(item, str) and named in known
    if packaged and not packaged_symbols(named):
        raise ConfigError(
            f"sweep.maintenance: no tier table is packaged for {named!r}; bind one with "
            f'{{ rule = "{named}", tiers = "FILE.csv" }}'
        )
    if not packaged and not file.is_file():
        raise ConfigError(
            f"sweep.maintenance: {file} is neither a tier-table file nor a rule name ({', '.join(sorted(known))})"
        )
    if not sized:
        raise ConfigError(
            f"sweep.maintenance: the tier table {file.name} needs the axis sweep.size, such as "
            "size = [{ notional = 10000 }]: without it the tier would be a guess"
        )
    if packaged:
        return Maintenance(named, contract, basis, reserve, packaged=named)
    tables = read_tier_tables(file)
    if isinstance(item, RuleTiers) and any(t.table.has_deductions != rule(named).deductions for t in tables):
        has = "has" if rule(named).deductions else "has no"
        raise RuleError(f"{file}: rule {named!r} {has} deductions, the table differs; see `backtest import tiers`")
    if len({dated.table.has_deductions for dated in tables}) > 1:
        raise RuleError(f"{file}: some of its dated tables have deductions and some have none; split the file")
    return Maintenance(file.stem, contract, basis, reserve, tables=tables)


def _refuse_contradiction(margin: Margin, name: str, fixed: dict[str, str | float]) -> None:
    for key in sorted(margin.model_fields_set & set(fixed)):
        if getattr(margin, key) != fixed[key]:
            raise ConfigError(f"margin.{key}: rule {name!r} fixes it to {fixed[key]!r}; got {getattr(margin, key)!r}")


def horizon_bars(sweep: Sweep, interval_ms: int) -> list[int]:
    """The horizons in bars.

    Raises
    ------
    ConfigError
        If one is not a multiple of the bars' length.
    """
    return [bars_of("sweep.horizon", duration_ms(text), interval_ms) for text in sweep.horizon]


def bars_of(what: str, ms: int, interval_ms: int) -> int:
    """A duration in bars; `what` names it in the error where it is not a multiple of a bar."""
    if ms % interval_ms:
        bars = duration_text(interval_ms)
        raise ConfigError(f"{what} must be a multiple of the bars' {bars}; got {duration_text(ms)}")
    return ms // interval_ms


def groups_of(scenarios: Sequence[Scenario]) -> Iterator[list[int]]:
    """Indices of scenarios that share one adverse series (side, maintenance and funding), in order of appearance."""
    found: dict[tuple[str, str, float, float], list[int]] = {}
    for i, s in enumerate(scenarios):
        found.setdefault((s.side, s.maintenance.label, s.funding.scale, s.funding.shift), []).append(i)
    yield from found.values()
