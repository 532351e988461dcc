"""The scenario grid: the product of a configuration's axes, with rules and tier tables resolved."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from backtest.arrays import Float
from backtest.config.models import Config, Funding, Margin, RuleTiers, Size, Sweep
from backtest.config.policies import Policy, VolatilityTarget
from backtest.config.trades_file import read_trades
from backtest.errors import ConfigError, RuleError
from backtest.margin.packaged_tiers import packaged_symbols, packaged_tables
from backtest.margin.position import Side
from backtest.margin.rules import AnyContract, Basis, Rule, rule, rules
from backtest.margin.tiers import DatedTable, read_tier_tables
from backtest.units import duration_ms, duration_text, number_text


@dataclass(frozen=True)
class Spot:
    """Terms of borrowing: debt over assets at liquidation and at the margin call, interest per hour begun."""

    liquidation_ltv: float
    margin_call_ltv: float
    borrow_rate: float


@dataclass(frozen=True)
class Maintenance:
    """A resolved maintenance rule of the sweep: a flat rate, a rate that slopes with size, or a tier table.

    `basis` and `close_reserve` come from the named rule, else from ``[margin]``. Tables are in the order of their
    dates.

    Attributes
    ----------
    slope, initial_rate : float, float or None
        What one coin of size adds to the maintenance and the initial rate, and the initial rate at a size of 0.
    posted_fee : float
        Taker fee c of a fee to close that is added to the margin (Bybit UTA); 0: none.
    taker_fee : float or None
        Fee of a market order; None: the opening fee.
    """

    label: str
    contract: AnyContract
    basis: Basis
    close_reserve: float
    flat: float = 0.0
    tables: tuple[DatedTable, ...] = ()
    packaged: str | None = None  # the rule whose packaged tables each symbol takes
    slope: float = 0.0
    initial_rate: float | None = None
    posted_fee: float = 0.0
    taker_fee: float | None = None
    spot: Spot | None = None

    def for_symbol(self, symbol: str) -> Maintenance:
        """With the symbol's packaged tables, for a rule without a file of its own."""
        if self.packaged is None:
            return self
        return replace(self, tables=packaged_tables(self.packaged, symbol), packaged=None)


def scenario_columns(
    side: Side | None, maintenance: Maintenance, open_fee: float, funding: Funding, size: Size | None
) -> dict[str, str | float | None]:
    """The scenario columns that every run has, in the order of the results."""
    return {
        "side": side,
        "maintenance": maintenance.label,
        "open_fee": open_fee,
        "funding_scale": funding.scale,
        "funding_shift": funding.shift,
        "size": size.label if size else None,
    }


@dataclass(frozen=True)
class Scenario:
    """One point of the grid, for all horizons and leverages."""

    side: Side
    maintenance: Maintenance
    open_fee: float
    funding: Funding
    size: Size | None
    weight: VolatilityTarget | None = None
    policy: Policy | None = None
    own_side: bool = False  # trades have their own; `side` is then one of the two that are counted

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
        """Sign of the profit as P (linear) or 1/P (inverse) rises: the sign of the side, mirrored for inverse."""
        return -self.sign if self.inverse else self.sign

    def unit_value(self, price: Float) -> Float:
        """What the value of a position moves with: P, for inverse contracts 1/P; applied twice it is the price."""
        return 1.0 / price if self.inverse else price

    def notionals(self, leverage: Float, entry_price: Float) -> Float:
        """(n,) entry notionals, quote or coin; 1 where no size is given (flat rates do not depend on it)."""
        if self.size is None:
            return np.ones(leverage.size)
        notional = self.size.entry_notional(leverage)
        return notional / entry_price if self.face is not None else notional

    @property
    def face(self) -> float | None:
        """Face value Q in quote of an inverse position sized by notional: its notional in coin is Q/p."""
        return self.size.notional if self.inverse and self.size else None

    def columns(self) -> dict[str, str | float | None]:
        """The scenario columns of the results, in their order."""
        side = None if self.own_side else self.side
        return {
            **scenario_columns(side, self.maintenance, self.open_fee, self.funding, self.size),
            **({"weight": self.weight.label} if self.weight else {}),
            **({"policy": self.policy.label} if self.policy else {}),
        }

    @property
    def extra(self) -> float:
        """Further wallet balance behind the position."""
        return self.size.extra if self.size else 0.0

    @property
    def counted_extra(self) -> float:
        """`extra` as it counts in the margin: ``A/(1 − lean·c)`` with a fee to close (docs/semantics.md §5)."""
        return self.extra / (1 - self.lean * self.maintenance.posted_fee)

    @property
    def taker_fee(self) -> float:
        """Fee of closing or adding at the market, fraction of the notional."""
        rate = self.maintenance.taker_fee
        return self.open_fee if rate is None else rate


def expand_scenarios(config: Config) -> list[Scenario]:
    """The product of the axes but horizon and leverage, in the order of the rows of ``survival.parquet``."""
    sweep = config.sweep
    maintenance = resolve_maintenance(config)
    sizes: Sequence[Size | None] = sweep.size or (None,)
    weights: Sequence[VolatilityTarget | None] = sweep.weight or (None,)
    policies: Sequence[Policy | None] = sweep.policy or (None,)
    own = config.entries.file is not None and read_trades(config.entries.file).sign is not None
    sides: Sequence[Side] = ("long",) if own else sweep.side
    axes = product(sides, maintenance, sweep.open_fee, sweep.funding, sizes, weights, policies)
    scenarios = [Scenario(*point, own_side=own) for point in axes]
    for scenario in scenarios:
        _check_policy(scenario, config.margin)
    return scenarios


def split_sides(scenario: Scenario) -> tuple[Scenario, ...]:
    """The scenario, or one for each side if the trades have their own sides."""
    if not scenario.own_side:
        return (scenario,)
    return replace(scenario, side="long"), replace(scenario, side="short")


def resolve_maintenance(config: Config) -> list[Maintenance]:
    """The resolved axis of maintenance rules; labels are unique."""
    sweep = config.sweep
    if config.margin.contract == "spot":
        return [_spot(config.margin)]
    maintenance = [_maintenance(item, config.margin, bool(sweep.size)) for item in sweep.maintenance]
    labels = [m.label for m in maintenance]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise ConfigError(f"sweep.maintenance: two scenarios read {label!r}; rename one of the files")
    return maintenance


def _check_policy(scenario: Scenario, margin: Margin) -> None:
    """Refuse a policy that needs tiers or a size where there are none."""
    policy, rule_of = scenario.policy, scenario.maintenance
    if policy is None:
        return
    tiered = bool(rule_of.tables or rule_of.packaged)
    if policy.ladder and policy.ladder.step is not None and not tiered:
        raise ConfigError(
            f"sweep.policy: a ladder of {policy.ladder.step} tier(s) needs a tier table; maintenance "
            f"{rule_of.label!r} has no tiers"
        )
    if policy.ladder and policy.ladder.above and scenario.size is None:
        raise ConfigError("sweep.policy: ladder.above is an amount of notional and needs the axis sweep.size")
    if rule_of.slope or margin.maintenance_scale:
        what = "slopes with size" if rule_of.slope else "is scaled"
        raise ConfigError(f"sweep.policy: not under a maintenance that {what} ({rule_of.label!r})")


def scenarios_at(scenarios: Sequence[Scenario], symbol: str) -> list[Scenario]:
    """The scenarios with the symbol's own tier tables."""
    found = {id(s.maintenance): s.maintenance.for_symbol(symbol) for s in scenarios}
    return [replace(s, maintenance=found[id(s.maintenance)]) for s in scenarios]


def _spot(margin: Margin) -> Maintenance:
    liquidation, call = margin.liquidation_ltv or 0.0, margin.margin_call_ltv or 0.0
    terms = Spot(liquidation, call, margin.borrow_rate)
    return Maintenance(f"ltv={number_text(liquidation)}", "spot", "mark", 0.0, spot=terms)


def _maintenance(item: float | str | RuleTiers, margin: Margin, sized: bool) -> Maintenance:
    plain = Maintenance("", margin.contract, margin.basis, margin.close_reserve, taker_fee=margin.taker_fee)
    if isinstance(item, float | int):
        return replace(plain, label=number_text(item), flat=float(item))
    known = {entry.name for entry in rules()}
    named = item.rule if isinstance(item, RuleTiers) else item
    if isinstance(item, str) and item not in known:
        return replace(_with_tables(plain, Path(item), sized, sorted(known)), label=Path(item).stem)
    bound = rule(named)
    made = _under_rule(bound, margin)
    if isinstance(item, RuleTiers):
        file = Path(item.tiers)
        if bound.slope is not None:
            raise ConfigError(f"sweep.maintenance: the rates of {named!r} slope with size; it takes no tiers")
        made = replace(_with_tables(made, file, sized, sorted(known)), label=file.stem)
        if any(t.table.has_deductions != bound.deductions for t in made.tables):
            has = "has" if bound.deductions else "has no"
            raise RuleError(f"{file}: rule {named!r} {has} deductions, the table differs; see `backtest import tiers`")
        return made
    if packaged_symbols(named):
        _need_size(sized, f"tier table {named}")
        return replace(made, packaged=named)
    if bound.slope is not None:
        _need_size(sized, f"rule {named!r}, whose rates slope with size,")
    if bound.mmr is None:
        raise ConfigError(
            f"sweep.maintenance: no tier table is packaged for {named!r}; bind one with "
            f'{{ rule = "{named}", tiers = "FILE.csv" }}'
        )
    return replace(made, flat=bound.mmr)


def _under_rule(bound: Rule, margin: Margin) -> Maintenance:
    """The terms that a named rule fixes; its own taker fee unless another one is given."""
    reserve, added = bound.fees(margin.taker_fee)
    fixed: dict[str, str | float] = {"contract": bound.contract, "basis": bound.basis, "close_reserve": reserve}
    for key in sorted(margin.model_fields_set & set(fixed)):
        if getattr(margin, key) != fixed[key]:
            raise ConfigError(
                f"margin.{key}: rule {bound.name!r} fixes it to {fixed[key]!r}; got {getattr(margin, key)!r}"
            )
    return Maintenance(
        bound.name,
        bound.contract,
        bound.basis,
        reserve,
        slope=bound.slope or 0.0,
        initial_rate=None if bound.slope is None else bound.initial_rate,
        posted_fee=added,
        taker_fee=bound.taker_fee if margin.taker_fee is None else margin.taker_fee,
    )


def _with_tables(plain: Maintenance, file: Path, sized: bool, known: Sequence[str]) -> Maintenance:
    if not file.is_file():
        raise ConfigError(
            f"sweep.maintenance: {file} is neither a tier-table file nor a rule name ({', '.join(known)})"
        )
    _need_size(sized, f"tier table {file.name}")
    tables = read_tier_tables(file)
    if len({dated.table.has_deductions for dated in tables}) > 1:
        raise RuleError(f"{file}: some of its dated tables have deductions and some have none; split the file")
    return replace(plain, tables=tables)


def _need_size(sized: bool, what: str) -> None:
    if not sized:
        raise ConfigError(
            f"sweep.maintenance: the {what} needs the axis sweep.size, such as "
            "size = [{ notional = 10000 }]: without it the tier would be a guess"
        )


def horizon_bars(sweep: Sweep, interval_ms: int) -> list[int]:
    """The horizons in bars.

    Raises
    ------
    ConfigError
        If one is not a multiple of the bars' length.
    """
    return [whole_bars("sweep.horizon", duration_ms(text), interval_ms) for text in sweep.horizon]


def whole_bars(what: str, ms: int, interval_ms: int) -> int:
    """A duration in bars; `what` names it in the error where it is not a multiple of a bar."""
    if ms % interval_ms:
        bars = duration_text(interval_ms)
        raise ConfigError(f"{what} must be a multiple of the bars' {bars}; got {duration_text(ms)}")
    return ms // interval_ms


def group_scenarios(scenarios: Sequence[Scenario]) -> list[list[int]]:
    """Indices of scenarios that share one adverse series (side, maintenance and funding), in order of appearance."""
    return group_equal((s.side, s.maintenance.label, s.funding.scale, s.funding.shift) for s in scenarios)


def group_equal(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indices of equal keys, groups in order of appearance."""
    found: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return list(found.values())
