"""Regimes: labels of entries by which counts are grouped, as a configuration names them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from backtest.config.keys import Duration, Model, Number, PathText

Kind = Literal["year", "month", "hour", "weekday", "volatility", "funding", "drawdown", "column"]
Quantiles = Annotated[int, Field(strict=True, ge=2, le=20)]
MEASURED = ("volatility", "funding", "drawdown", "column")
DEFAULT_QUANTILES = 5
VOLATILITY_WINDOW = "7d"
DRAWDOWN_EDGES = (0.05, 0.1, 0.2, 0.4)


class Regime(Model):
    """One label per entry: from its time, from market data known at that time, or from a column of a file."""

    by: Kind = "column"
    name: str | None = Field(None, min_length=1, description="Default: the column, or the value of by.")
    window: Duration | None = Field(
        None, description=f"Of volatility (default {VOLATILITY_WINDOW}) and drawdown (default: all of the past)."
    )
    quantiles: Quantiles | None = Field(None, description="Number of bands of equally many entries of the history.")
    edges: tuple[Number, ...] | None = Field(None, min_length=1, description="Ascending edges of bands, instead.")
    file: PathText | None = Field(
        None, description="Parquet or CSV: time and column. The last row up to the entry counts."
    )
    column: str | None = Field(None, description="A column of the file: text, or numbers that are cut into bands.")

    @property
    def label(self) -> str:
        """The name of the regime in results."""
        return self.name or self.column or self.by

    def at(self, base: Path) -> Regime:
        """The regime with its file resolved against a folder."""
        return self if self.file is None else self.model_copy(update={"file": str(base / self.file)})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.by == "column") != (self.file is not None) or (self.file is None) != (self.column is None):
            raise ValueError("file and column go together, and with by = 'column' only")
        if self.window is not None and self.by not in ("volatility", "drawdown"):
            raise ValueError(f"window goes with volatility and drawdown; got {self.window!r} for {self.by!r}")
        if self.by not in MEASURED and (self.quantiles is not None or self.edges is not None):
            raise ValueError(f"quantiles and edges go with {', '.join(MEASURED)}; got them for {self.by!r}")
        if self.quantiles is not None and self.edges is not None:
            raise ValueError("one of quantiles and edges, not both")
        if self.edges is not None and any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges must ascend; got {list(self.edges)}")
        return self


def _named(value: object) -> object:
    return {"by": value} if isinstance(value, str) else value


def uses_market(regime: Regime) -> bool:
    """Whether the label follows from prices or funding of one symbol."""
    return regime.by in ("volatility", "funding", "drawdown")


def _distinct(regimes: tuple[Regime, ...]) -> tuple[Regime, ...]:
    """Refuse regimes with the same name or one that cannot be a file name."""
    names = [regime.label for regime in regimes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two regimes are called {name!r}; give one of them a name")
        if not re.fullmatch(r"[\w .+-]{1,60}", name):
            raise ValueError(f"a regime's name is 1 to 60 letters, digits, blanks and any of _.+-; got {name!r}")
    return regimes


Regimes = Annotated[
    tuple[Annotated[Regime, BeforeValidator(_named, json_schema_input_type=Kind | Regime)], ...],
    AfterValidator(_distinct),
]
"""Regimes, each as a name or as a table of keys."""
