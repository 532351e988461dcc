"""The scenario grid: what the axes of a configuration span, rules and tier tables resolved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from backtest.arrays import Float
from backtest.config.keys import Basis, Contract, Side
from backtest.config.models import Config, Funding, Margin, RuleTiers, Size, Sweep
from backtest.config.policies import Policy, VolatilityTarget
from backtest.config.trades_file import read_trades
from backtest.errors import ConfigError, RuleError
from backtest.margin.packaged_tiers import packaged_symbols, packaged_tables
from backtest.margin.rules import Rule, rule, rules
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
    """A maintenance rule of the sweep, resolved: a flat rate, one that slopes with size, or a tier table.

    `basis` and `close_reserve` come from the rule where it is named, else from ``[margin]``. Tables are in the order
    of their dates.

    Attributes
    ----------
    slope, initial_rate : float, float or None
        What a coin of size adds to the maintenance and the initial rate, and the initial rate of a size of 0.
    posted_fee : float
        Taker fee c of a fee to close that is posted on top of the margin (Bybit UTA); 0: none.
    taker_fee : float or None
        What a market order pays; None: as much as the opening.
    """

    label: str
    contract: Contract
    basis: Basis
    close_reserve: float
    flat: float = 0.0
    tables: tuple[DatedTable, ...] = ()
    packaged: str | None = None  # rule whose packaged tables are taken, the symbol's own
    slope: float = 0.0
    initial_rate: float | None = None
    posted_fee: float = 0.0
    taker_fee: float | None = None
    spot: Spot | None = None

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
        """What the position gains per unit of worth: +sign in P for linear, −sign in 1/P for inverse contracts."""
        return -self.sign if self.inverse else self.sign

    def worth(self, price: Float) -> Float:
        """What the value of a position moves with: P, for inverse contracts 1/P; applied twice it is the price."""
        return 1.0 / price if self.inverse else price

    def notionals(self, leverage: Float, entry_price: Float) -> Float:
        """(n,) entry notionals, quote or coin; 1 where no size is given (flat rates do not depend on it)."""
        if self.size is None:
            return np.ones(leverage.size)
        if self.size.margin is not None:
            return self.size.margin * leverage
        fixed = np.full(leverage.size, self.size.notional)
        return fixed / entry_price if self.inverse else fixed

    @property
    def face(self) -> float | None:
        """Face value Q in quote of an inverse position sized by notional: its notional in coin is Q/p."""
        return self.size.notional if self.inverse and self.size else None

    def columns(self) -> dict[str, str | float | None]:
        """The scenario columns of the results, in their order."""
        return {
            "side": None if self.own_side else self.side,
            "maintenance": self.maintenance.label,
            "open_fee": self.open_fee,
            "funding_scale": self.funding.scale,
            "funding_shift": self.funding.shift,
            "size": self.size.label if self.size else None,
            **({"weight": self.weight.label} if self.weight else {}),
            **({"policy": self.policy.label} if self.policy else {}),
        }

    @property
    def extra(self) -> float:
        """Wallet balance behind the position beside its margin."""
        return self.size.extra if self.size else 0.0

    @property
    def counted_extra(self) -> float:
        """`extra` as it counts in every margin: ``A/(1 − lean·c)`` under a posted fee (docs/semantics.md §5)."""
        return self.extra / (1 - self.lean * self.maintenance.posted_fee)

    @property
    def taker_fee(self) -> float:
        """What closing or adding at the market costs, fraction of the notional."""
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
    """The scenario, or both sides of it where trades have their own."""
    if not scenario.own_side:
        return (scenario,)
    return replace(scenario, side="long"), replace(scenario, side="short")


def resolve_maintenance(config: Config) -> list[Maintenance]:
    """The axis of maintenance rules, resolved; labels are unique."""
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
    """A policy needs what its rules act on."""
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
    found = {id(s.maintenance): s.maintenance.of_symbol(symbol) for s in scenarios}
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
    """What a named rule fixes; its own taker fee unless another one is given."""
    taker = bound.taker_fee if margin.taker_fee is None else margin.taker_fee
    reserve = (taker or 0.0) if bound.fee_to_close == "maintenance" else bound.close_reserve
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
        posted_fee=(taker or 0.0) if bound.fee_to_close == "posted" else 0.0,
        taker_fee=taker,
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


def group_scenarios(scenarios: Sequence[Scenario]) -> Iterator[list[int]]:
    """Indices of scenarios that share one adverse series (side, maintenance and funding), in order of appearance."""
    found: dict[tuple[str, str, float, float], list[int]] = {}
    for i, s in enumerate(scenarios):
        found.setdefault((s.side, s.maintenance.label, s.funding.scale, s.funding.shift), []).append(i)
    yield from found.values()
