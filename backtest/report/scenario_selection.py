"""One scenario of a run's table: picking it, its horizons and its leverages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, TypedDict, TypeVar

from backtest.errors import ConfigError
from backtest.report.labels import COIN, OWN_LEVERAGE, axis_columns, axis_words, listed, scenario_axes
from backtest.report.number_format import is_null, times_text
from backtest.units import duration_ms, number_text

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd

Value = TypeVar("Value")
USUAL_LEVERAGES = (2.0, 3.0, 5.0, 10.0, 20.0, 50.0)

Funding = float | Mapping[str, float]
"""A scale of the funding charged, or ``{"scale": 2.0, "shift": 0.0001}`` as in the config."""


class ScenarioKeys(TypedDict, total=False):
    """Which scenario: a value per axis; the first one where it is left out, and where it is None.

    Attributes
    ----------
    symbol, side : str
    maintenance : float or str
        A flat rate, a rule's name or a tier table's stem.
    open_fee : float
        Fraction of notional.
    funding : float or mapping
        A scale, or ``{"scale": …, "shift": …}``.
    size, weight, policy : str
        As the table writes it: ``"notional=10000"``, ``"stop_loss(distance=0.05)"``.
    verdict : str
        Of a portfolio: ``"worst"`` or ``"close"``.
    """

    symbol: str | None
    side: str | None
    maintenance: float | str | None
    open_fee: float | None
    funding: Funding | None
    size: str | None
    weight: str | None
    policy: str | None
    verdict: str | None


def select(table: pd.DataFrame, *, every: Collection[str] = (), **scenario: Unpack[ScenarioKeys]) -> pd.DataFrame:
    """Rows of one scenario: every horizon and leverage of it, and the first value of each axis that is not named.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``, or of ``outcomes.parquet``.
    every : collection of str
        Axes of which every value is kept, unless one is named.
    **scenario
        As `ScenarioKeys`.

    Raises
    ------
    ConfigError
        The table has no rows, or none with that value; the choices are listed.
    TypeError
        A keyword is no axis.
    """
    if unknown := sorted(set(scenario) - set(ScenarioKeys.__annotations__)):
        raise TypeError(f"{unknown[0]!r} is no axis of a run; there are {', '.join(ScenarioKeys.__annotations__)}")
    if table.empty:
        raise ConfigError("table must have at least one row to be shown; got none (has the run finished?)")
    asked = _asked(scenario)
    axes = scenario_axes(table)
    if absent := [axis for axis in asked if axis not in axes and asked[axis] is not None]:
        raise ConfigError(f"{absent[0]} is no axis of this run; got {asked[absent[0]]!r}")
    rows = table
    for axis in axes:
        wanted = asked.get(axis)
        if wanted is None and axis in every:
            continue
        present = list(rows[axis].unique())
        if wanted is not None and wanted not in present:
            raise ConfigError(f"{axis} must be one of {listed(present)} in this run; got {wanted!r}")
        rows = matching(rows, axis, present[0] if wanted is None else wanted)
    return rows


def _asked(scenario: ScenarioKeys) -> dict[str, object]:
    """The values asked for, by column."""
    funding, rate = scenario.get("funding"), scenario.get("maintenance")
    parts = dict(funding) if isinstance(funding, Mapping) else {} if funding is None else {"scale": float(funding)}
    if unknown := sorted(set(parts) - {"scale", "shift"}):
        raise ConfigError(f"funding must be a scale or hold only 'scale' and 'shift'; got {unknown[0]!r}")
    plain = {axis: value for axis, value in scenario.items() if axis not in ("funding", "maintenance")}
    return {
        **plain,
        "maintenance": rate if rate is None or isinstance(rate, str) else number_text(rate),
        "funding_scale": parts.get("scale"),
        "funding_shift": parts.get("shift"),
    }


def matching(rows: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """Rows that hold a value, null being one like any other."""
    return rows[rows[column].isna() if is_null(value) else rows[column] == value]


def varying(table: pd.DataFrame) -> dict[str, list[tuple[str, dict[str, object]]]]:
    """Axes with more than one value, funding as one: axis → its values, in words and as what their columns hold.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"side": ["long", "short"], "open_fee": [0.0002, 0.0002], "horizon": ["1d", "1d"]})
    >>> varying(table)
    {'side': [('long', {'side': 'long'}), ('short', {'side': 'short'})]}
    """
    found: dict[str, list[tuple[str, dict[str, object]]]] = {}
    coin = table.attrs.get(COIN, ())
    for axis, columns in axis_columns(table).items():
        first = table[~table[columns].duplicated()].to_dict("records")
        if len(first) > 1:
            found[axis] = [
                (
                    axis_words(row, columns, coin),
                    {name: None if is_null(row[name]) else row[name] for name in columns},
                )
                for row in first
            ]
    return found


def select_part(rows: pd.DataFrame, part: Mapping[str, object]) -> pd.DataFrame:
    """Rows that hold the values of some columns, as `varying` gives them."""
    for column, value in part.items():
        rows = matching(rows, column, value)
    return rows


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
                f"horizon must be one of {listed([name for name, _ in present])} in this run; got {text!r}"
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
            raise ConfigError(f"leverage must be one of {listed(present)} in this run; got {number_text(value)}")
    return wanted


def usual_leverages(rows: pd.DataFrame, usual: Sequence[float] = USUAL_LEVERAGES) -> list[float]:
    """The usual leverages that the rows have; if hardly any, as many spread evenly over the grid."""
    present = leverages(rows)
    found = [value for value in usual if value in present]
    if len(found) >= min(3, len(present)):
        return found
    return spread(present, len(usual))


def spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most so many of the values, evenly apart, the first and the last of them.

    Examples
    --------
    >>> spread([1, 2, 3, 4, 5, 6, 7], 3)
    [1, 4, 7]
    """
    count = min(most, len(values))
    step = (len(values) - 1) / max(1, count - 1)
    return [values[round(k * step)] for k in range(count)]


def curves_by_horizon(rows: pd.DataFrame, asked: str | Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
    """Rows of each horizon asked for (all by default), smallest leverage first; horizon → rows."""
    return {text: matching(rows, "horizon", text).sort_values("leverage") for text in horizons(rows, asked)}


def curves_by_leverage(rows: pd.DataFrame, asked: float | Sequence[float] | None = None) -> dict[str, pd.DataFrame]:
    """Rows of each leverage asked for (the usual ones by default), shortest horizon first; label → rows."""
    rows = rows.sort_values("after_ms")
    if rows["leverage"].isna().all() and asked is None:
        return {OWN_LEVERAGE: rows}
    chosen = usual_leverages(rows) if asked is None else leverages(rows, asked)
    return {times_text(value): rows[rows["leverage"] == value] for value in chosen}
