"""The configuration of a run as TOML without the defaults, from which the run can be repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SECTIONS = ("data", "entries", "sweep", "margin", "statistics")


def configuration(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a run's configuration says beyond the defaults, section by section; empty where none was recorded.

    Parameters
    ----------
    info : mapping
        ``run.json``. Its `config` has every key, and some go with some contracts only.
    """
    from backtest.config.models import Config, Sweep

    recorded = info.get("config") or {}
    if not recorded:
        return {}
    usual = Config(sweep=Sweep(leverage=(1.0,), horizon=("1h",), maintenance=(0.0,))).model_dump(
        mode="json", by_alias=True
    )
    for name in ("leverage", "horizon", "maintenance"):
        del usual["sweep"][name]
    if info.get("own_leverage"):  # it stands in the file of trades
        usual["sweep"]["leverage"] = [1.0]
    found = {}
    for section in SECTIONS:
        own, given = usual[section], recorded.get(section) or {}
        kept = {name: value for name, value in given.items() if name not in own or value != own[name]}
        if kept:
            found[section] = kept
    return found


def toml_text(config: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of scalars, lists and mappings as TOML; what is null is left out.

    Examples
    --------
    >>> print(toml_text({"data": {"path": "data/btc"}, "sweep": {"leverage": [1.0, 2.5], "funding": [{"scale": 2.0}]}}))
    [data]
    path = "data/btc"
    <BLANKLINE>
    [sweep]
    leverage = [1, 2.5]
    funding = [{ "scale" = 2 }]
    """
    parts = []
    for section, keys in config.items():
        lines = [f"{name} = {_value(value)}" for name, value in keys.items() if value is not None]
        parts.append("\n".join([f"[{section}]", *lines]))
    return "\n\n".join(parts)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_value(str(name))} = {_value(one)}" for name, one in value.items() if one is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
