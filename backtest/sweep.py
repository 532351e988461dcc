"""The scenario grid: what the axes of a configuration span, rules and tier tables resolved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from backtest.config import Basis, Config, Contract, Funding, Margin, RuleTiers, Side, Size, Sweep
from backtest.errors import ConfigError, RuleError
from backtest.rules.catalog import rule, rules
from backtest.rules.packaged import packaged_symbols, packaged_tables
from backtest.rules.tiers import DatedTable, read_tier_tables
from backtest.units import duration_ms, duration_text, number_text


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
