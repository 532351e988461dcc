"""The types of configuration keys, and the text of validation errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from backtest.errors import ConfigError
from backtest.filesystem import is_uri, refuse_credentials, scrubbed
from backtest.units import duration_ms, instant_ms

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
Fee = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-0.01, lt=1)]
"""Negative is a maker's rebate."""
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
NotNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, lt=1)]
Portion = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Leverage = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1000)]


class Model(BaseModel):
    """A part of the configuration: unknown keys are refused, values are immutable."""

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
    text = str(value) if isinstance(value, Path) else value
    if isinstance(text, str) and is_uri(text):
        refuse_credentials(text)
    return text


Duration = Annotated[str, Field(strict=True, pattern=r"^\d+\s*[smhdw]$"), BeforeValidator(_duration)]
Instant = Annotated[str, BeforeValidator(_instant, json_schema_input_type=str)]
PathText = Annotated[str, BeforeValidator(_path, json_schema_input_type=str)]


WORDS = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
}


def explain(error: ValidationError, root: str = "") -> str:
    """Every problem of a configuration on its own line: path of the key, rule and value."""
    lines = []
    for problem in error.errors():
        path = root
        for part in problem["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif str(part).isidentifier():
                path += f".{part}" if path else str(part)
        inner = getattr(problem.get("ctx", {}).get("error"), "__context__", None)
        if isinstance(inner, ValidationError):  # raised by the part itself
            lines.append(explain(inner, path))
            continue
        value = problem["input"]
        if problem["type"] == "too_short" and value:  # its items are refused one by one
            continue
        rule_text = WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        rule_text = rule_text.replace("Input should be", "must be")
        told = problem["type"] == "missing" or isinstance(value, dict) or "; got " in rule_text
        shown = "" if told else f"; got {value!r}"
        whole = not path and problem["type"] == "value_error"  # about several tables; the text names the keys
        place = "" if whole else f"{path or 'configuration'}: "
        lines.append(f"{place}{rule_text}{shown if len(shown) < 200 else ''}")
    return scrubbed("\n".join(dict.fromkeys(lines)))
