"""One scenario of a run's table: picking it, and saying in words which one it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING

from backtest.errors import ConfigError
from backtest.units import duration_ms, number_text

if TYPE_CHECKING:
    import pandas as pd

USUAL_LEVERAGES = (2.0, 3.0, 5.0, 10.0, 20.0, 50.0)

Funding = float | Mapping[str, float]
"""A scale of the funding charged, or ``{"scale": 2.0, "shift": 0.0001}`` as in the config."""


def select(
    table: pd.DataFrame,
    *,
    symbol: str | None = None,
    side: str | None = None,
    maintenance: float | str | None = None,
    open_fee: float | None = None,
    funding: Funding | None = None,
    size: str | None = None,
) -> pd.DataFrame:
    """Rows of one scenario: every horizon and leverage of it, and the first value of each axis that is not named.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    symbol, side : str, optional
    maintenance : float or str, optional
        A flat rate, a rule's name or a tier table's stem.
    open_fee : float, optional
        Fraction of notional.
    funding : float or mapping, optional
        A scale, or ``{"scale": …, "shift": …}``.
    size : str, optional
        As the table writes it: ``"notional=10000"``.

    Raises
    ------
    ConfigError
        The table has no rows, or none with that value; the choices are listed.
    """
    if table.empty:
        raise ConfigError("table must have at least one row to be shown; got none (has the run finished?)")
    parts = dict(funding) if isinstance(funding, Mapping) else {} if funding is None else {"scale": float(funding)}
    if unknown := sorted(set(parts) - {"scale", "shift"}):
        raise ConfigError(f"funding must be a scale or hold only 'scale' and 'shift'; got {unknown[0]!r}")
    asked: dict[str, object] = {
        "symbol": symbol,
        "side": side,
        "maintenance": maintenance if maintenance is None or isinstance(maintenance, str) else number_text(maintenance),
        "open_fee": open_fee,
        "funding_scale": parts.get("scale"),
        "funding_shift": parts.get("shift"),
        "size": size,
    }
    rows = table
    for axis in scenario_axes(table):
        present = list(rows[axis].unique())
        wanted = asked.get(axis)
        if wanted is not None and wanted not in present:
            raise ConfigError(f"{axis} must be one of {_listed(present)} in this run; got {wanted!r}")
        value = present[0] if wanted is None else wanted
        rows = matching(rows, axis, value)
    return rows


def matching(rows: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """Rows that hold a value, null being one like any other."""
    return rows[rows[column].isna() if is_null(value) else rows[column] == value]


def scenario_axes(table: pd.DataFrame) -> list[str]:
    """The columns that make a scenario: all that stand before `horizon`."""
    columns = list(table.columns)
    if "horizon" not in columns:
        raise ConfigError(f"table must have the columns of survival.parquet, 'horizon' among them; got {columns}")
    return columns[: columns.index("horizon")]


def scenario_words(rows: pd.DataFrame) -> str:
    """Which scenario the rows show: ``BTCUSDT long · maintenance 0.4 % · fee 0.02 % · funding as charged``."""
    row = rows.iloc[0]
    known = {"symbol", "side", "maintenance", "open_fee", "funding_scale", "funding_shift", "size"}
    words = [subject(row["symbol"], row["side"]), f"maintenance {value_words('maintenance', row['maintenance'])}"]
    words.append(f"fee {value_words('open_fee', row['open_fee'])}")
    words.append(funding_words(float(row["funding_scale"]), float(row["funding_shift"])))
    words += [] if is_null(row["size"]) else [value_words("size", row["size"])]
    words += [f"{axis} {row[axis]}" for axis in scenario_axes(rows) if axis not in known and not is_null(row[axis])]
    return " · ".join(words)


def value_words(axis: str, value: object) -> str:
    """One value of an axis as people write it: a rate in percent, a size with its thousands, ``–`` for null."""
    if is_null(value):
        return "–"
    if axis == "maintenance":
        return _rate_or_name(value)
    if axis in ("open_fee", "funding_shift"):
        return rate_text(float(str(value)))
    if axis == "size" and "=" in str(value):
        kind, _, amount = str(value).partition("=")
        return f"{kind} {float(amount):,.10g}"
    return number_text(value) if isinstance(value, float) else str(value)


def subject(symbol: object, side: object) -> str:
    """Whose survival it is: ``BTCUSDT long``."""
    return f"{'all symbols' if is_null(symbol) else symbol} {'sides of the trades' if is_null(side) else side}"


def horizons(rows: pd.DataFrame, asked: str | Sequence[str] | None = None) -> dict[str, int]:
    """Horizons of the rows that were asked for (all by default), matched by duration: text → ms, shortest first."""
    present = sorted(
        ((str(text), duration_ms(str(text))) for text in rows["horizon"].unique()), key=lambda pair: pair[1]
    )
    if asked is None:
        return dict(present)
    texts = [asked] if isinstance(asked, str) else list(asked)
    durations = [duration_ms(text) for text in texts]
    for text, ms in zip(texts, durations, strict=True):
        if ms not in dict(present).values():
            raise ConfigError(
                f"horizon must be one of {_listed([name for name, _ in present])} in this run; got {text!r}"
            )
    return {text: ms for text, ms in present if ms in durations}


def leverages(rows: pd.DataFrame, asked: float | Sequence[float] | None = None) -> list[float]:
    """Leverages of the rows that were asked for (all by default), smallest first."""
    present = sorted(float(value) for value in rows["leverage"].dropna().unique())
    if not present:
        raise ConfigError(
            "leverage must be an axis of the run; here each trade of entries.file has its own: use curves"
        )
    if asked is None:
        return present
    wanted = sorted({float(asked)} if isinstance(asked, Real | float) else {float(value) for value in asked})
    for value in wanted:
        if value not in present:
            raise ConfigError(f"leverage must be one of {_listed(present)} in this run; got {number_text(value)}")
    return wanted


def usual_leverages(rows: pd.DataFrame, usual: Sequence[float] = USUAL_LEVERAGES) -> list[float]:
    """The usual leverages that the rows have; if hardly any, as many spread evenly over the grid."""
    present = leverages(rows)
    found = [value for value in usual if value in present]
    if len(found) >= min(3, len(present)):
        return found
    step = (len(present) - 1) / max(1, min(len(usual), len(present)) - 1)
    return sorted({present[round(k * step)] for k in range(min(len(usual), len(present)))})


def curves_by_leverage(rows: pd.DataFrame, asked: float | Sequence[float] | None = None) -> dict[str, pd.DataFrame]:
    """Rows of each leverage asked for (the usual ones by default), shortest horizon first; label → rows."""
    rows = rows.sort_values("after_ms")
    if rows["leverage"].isna().all() and asked is None:
        return {"each its own": rows}
    chosen = usual_leverages(rows) if asked is None else leverages(rows, asked)
    return {times_text(value): rows[rows["leverage"] == value] for value in chosen}


def percent_text(share: float) -> str:
    """A share as percent: one decimal, two near either end, and an end itself only where it is exact; ``–`` for null.

    Examples
    --------
    >>> percent_text(0.9917), percent_text(0.99987), percent_text(0.999999), percent_text(1.0)
    ('99.2 %', '99.99 %', '99.99 %', '100 %')
    """
    if math.isnan(share):
        return "–"
    if share in (0.0, 1.0):
        return f"{100 * share:g} %"
    if 0.0005 <= share < 0.9995:
        return f"{100 * share:.1f} %"
    return f"{min(99.99, max(0.01, 100 * share)):.2f} %"


def rate_text(rate: float) -> str:
    """A rate or level as percent with the digits it has: ``rate_text(0.0002) == "0.02 %"``."""
    return f"{100 * rate:.6g} %".replace("-", "−")


def times_text(leverage: float) -> str:
    """A leverage as people write it: ``12×``."""
    return f"{number_text(leverage)}×"


def funding_words(scale: float, shift: float) -> str:
    """``funding as charged``, ``no funding``, ``funding × 2 + 0.01 % per charge``."""
    if scale == 0 and shift == 0:
        return "no funding"
    charged = "funding as charged" if scale == 1 else f"funding × {number_text(scale)}"
    return charged if shift == 0 else f"{charged} {'+' if shift > 0 else '−'} {rate_text(abs(shift))} per charge"


def is_null(value: object) -> bool:
    """None, NaN or NA: a value that the run does not have."""
    import pandas as pd

    return bool(pd.isna(value))  # type: ignore[call-overload]


def _rate_or_name(label: object) -> str:
    try:
        return rate_text(float(str(label)))
    except ValueError:
        return str(label)


def _listed(values: Sequence[object], most: int = 12) -> str:
    words = [
        number_text(value) if isinstance(value, float) else "null" if is_null(value) else repr(value)
        for value in values
    ]
    return ", ".join(words if len(words) <= most else [*words[: most - 1], "…", words[-1]])
