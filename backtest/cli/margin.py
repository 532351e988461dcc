"""The commands `price`, `rules` and `schema`, which need no data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import click

from backtest.cli._options import cli, emit, json_option, say
from backtest.errors import ConfigError

F = TypeVar("F", bound=Callable[..., object])
NUMBERS = (
    *("entry_price", "quantity", "leverage", "margin", "wallet", "extra_margin", "funding_paid", "max_leverage"),
    *("mmr", "deduction", "slope", "initial_rate", "taker_fee", "close_reserve", "mark_price"),
    *("other_maintenance", "other_unrealized", "liquidation_ltv", "margin_call_ltv", "interest"),
)


def position_options(function: F) -> F:
    """One option per key of a position."""
    for name in reversed(NUMBERS):
        function = click.option("--" + name.replace("_", "-"), name, type=float)(function)
    for name, help_text in (
        ("tiers", "JSON: [[floor, mmr, deduction], …]."),
        ("symbol", "Takes its latest packaged tier table under the rule."),
        ("basis", "mark or entry."),
        ("contract", "linear, inverse or spot (with the ltv options)."),
        ("side", "long or short."),
        ("rules", "A rule name; see `backtest rules`."),
    ):
        function = click.option("--" + name, name, help=help_text)(function)
    return function


@cli.command("price")
@position_options
@click.option("--json", "document", help="The position as a JSON object; the answer is then JSON.")
def price_command(document: str | None, **given: str | float | None) -> None:
    """Margins, liquidation and bankruptcy price of one position."""
    from backtest.margin.liquidation import price

    options: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if document is not None:
        if options:
            raise ConfigError(f"--json takes the whole position; put {next(iter(options))!r} into it")
        found = _json("--json", document)
        if not isinstance(found, dict):
            raise ConfigError(f"--json must be a JSON object; got {document!r}")
        emit(price(found))
        return
    if "tiers" in options:
        options["tiers"] = _json("--tiers", str(options["tiers"]))
    for key, value in price(options).items():
        say(f"{key:20s} {'—' if value is None else value}")


def _json(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} is not JSON ({error}); got {text!r}") from None


@cli.command()
@json_option
def rules(as_json: bool) -> None:
    """The named margin rules, with date and source of each formula."""
    from dataclasses import asdict

    from backtest.margin.rules import rules as known

    if as_json:
        emit([json.loads(json.dumps(asdict(rule), default=str)) for rule in known()])
        return
    for rule in known():
        say(f"{rule.name:16s} {rule.contract:8s} {rule.basis:6s} read {rule.read}  {rule.source}")


@cli.command()
def schema() -> None:
    """The JSON Schema of the configuration."""
    from backtest.config.models import Config

    emit(Config.model_json_schema())
