"""Survival of the run's scenarios, packed into the page for its leverage slider and pickers.

Numbers are kept as they are shown: shares in hundredths of a percent, counts as whole numbers. A column over the
leverages is a string of differences, one or two bytes each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.arrays import Float
from backtest.report.labels import COIN, UNFUNDED, axis_columns, axis_words, scenario_axes
from backtest.report.number_format import percent_text, rate_text
from backtest.report.scenario_selection import horizons, matching, spread

if TYPE_CHECKING:
    import pandas as pd


MOST_BYTES = 1_000_000
FEWEST_HORIZONS = 13
TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SHARES = ("survival", "survival_low", "survival_high")
COUNTS = ("entries", "liquidations", "rejected", "few_blocks")

Columns = list[str | list[int]]


@dataclass(frozen=True)
class Axis:
    """An axis of the run, and the words of its values that the page holds."""

    head: str
    words: list[str]


@dataclass(frozen=True)
class Explorer:
    """The scenarios in the page.

    Attributes
    ----------
    axes : list of Axis
        Of the scenarios; one with a single value needs no picker.
    horizons, targets : list of str
    horizon, target, leverage : int
        Where the controls stand at first.
    data : dict
        For the script: ``leverages``; ``scenarios``, each with its place ``at`` on every axis and, per horizon, the
        columns `SHARES` and `COUNTS` as `packed` and the leverages that meet each target with all lower ones, counted.
    run_scenarios, run_horizons : int
        How many the run has.
    """

    axes: list[Axis]
    horizons: list[str]
    targets: list[str]
    horizon: int
    target: int
    leverage: int
    data: dict[str, Any]
    run_scenarios: int
    run_horizons: int

    @property
    def fixed(self) -> str:
        """The values of the axes that have one, in words."""
        one = (axis for axis in self.axes if len(axis.words) == 1 and axis.words != ["–"])
        return " · ".join(f"{axis.head} {axis.words[0]}" for axis in one)

    @property
    def left_out(self) -> str:
        """A sentence where the page holds less than the run."""
        scenarios, shown = len(self.data["scenarios"]), len(self.horizons)
        if (scenarios, shown) == (self.run_scenarios, self.run_horizons):
            return ""
        parts = []
        if scenarios < self.run_scenarios:
            parts.append(
                f"{scenarios:,} of the run's {self.run_scenarios:,} scenarios, those that differ from the first in the "
                "fewest settings"
            )
        if shown < self.run_horizons:
            parts.append(f"{shown} of its {self.run_horizons} holding times")
        return f"To keep the page small this part holds {' at '.join(parts)}; survival.parquet has all of them."


def explorer(
    table: pd.DataFrame, target: float, start: tuple[str, float | None], most_bytes: int = MOST_BYTES
) -> Explorer:
    """As much of a run as fits: first the scenarios that differ from the first one in few axes besides symbol and side.

    Parameters
    ----------
    table : DataFrame
        The columns of ``survival.parquet``.
    target : float
        The page's target of survival; it is offered among `TARGETS`.
    start : (str, float or None)
        Horizon and leverage at which the controls stand first.
    most_bytes : int
        How large the data may become. One scenario is held in any case.
    """
    columns = axis_columns(table)
    of_row = table.groupby(scenario_axes(table), sort=False, dropna=False).ngroup().to_numpy()
    first = table.iloc[np.unique(of_row, return_index=True)[1]]
    places = np.stack(
        [first.groupby(names, sort=False, dropna=False).ngroup().to_numpy() for names in columns.values()], axis=1
    )
    counted = [head not in ("symbol", "side") for head in columns]
    order = np.argsort((places != places[0])[:, counted].sum(axis=1), kind="stable")
    rows = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    every, targets = list(horizons(table)), sorted({*TARGETS, target})
    grid = np.unique(table["leverage"].dropna().to_numpy(float))
    shown, held = _held((table.iloc[rows[k]] for k in order), order.size, every, grid, targets, most_bytes)
    kept, coin = order[: len(held)], table.attrs.get(COIN, ())
    unfunded = table.attrs.get(UNFUNDED, False) or str(first.iloc[0]["maintenance"]).startswith("ltv=")
    axes = []
    for k, (head, names) in enumerate(columns.items()):
        _, examples, places[kept, k] = np.unique(places[kept, k], return_index=True, return_inverse=True)
        words = [axis_words(first.iloc[kept[at]].to_dict(), names, coin) for at in examples]
        axes.append(
            Axis(head.replace("_", " "), ["–"] if head == "funding" and unfunded and len(words) == 1 else words)
        )
    scenarios = [{"at": places[n].tolist(), "rows": part} for n, part in zip(kept, held, strict=True)]
    horizon, leverage = start
    return Explorer(
        axes,
        shown,
        [rate_text(each) for each in targets],
        shown.index(horizon) if horizon in shown else len(shown) - 1,
        targets.index(target),
        int(np.searchsorted(grid, np.median(grid) if leverage is None else leverage)) if grid.size else 0,
        {"leverages": grid.tolist(), "scenarios": scenarios},
        len(order),
        len(every),
    )


def packed(values: Sequence[int]) -> str:
    """Differences from one value to the next, the first from 0; those after the last change are left out.

    Each is twice its size, plus 1 if it is negative, in base 32, the smallest digit first; all but the last digit of
    a difference have 32 added.

    Examples
    --------
    >>> packed([5, 5, 4, 1004, 1004])
    'KADw-B'
    """
    return "".join(_digits(b - a) for a, b in zip([0, *values], values, strict=False)).rstrip("A")


def _digits(difference: int) -> str:
    rest = 2 * abs(difference) + (difference < 0)
    text = ""
    while rest >= 32:
        text += DIGITS[32 + rest % 32]
        rest //= 32
    return text + DIGITS[rest]


def _held(
    scenarios: Iterator[pd.DataFrame], count: int, every: list[str], grid: Float, targets: list[float], most_bytes: int
) -> tuple[list[str], list[list[Columns]]]:
    """The horizons that are shown, and the columns of as many scenarios as fit.

    Horizons are thinned before scenarios are left out, not below `FEWEST_HORIZONS` unless one is too large.
    """
    first = _scenario(next(scenarios), every, grid, targets)
    room = most_bytes * len(every) // _size(first)  # horizons of any scenario
    shown = spread(every, max(1, min(room, max(FEWEST_HORIZONS, room // count))))
    held = [[part for text, part in zip(every, first, strict=True) if text in shown]]
    room = most_bytes - _size(held[0])
    for rows in scenarios:
        part = _scenario(rows, shown, grid, targets)
        room -= _size(part)
        if room < 0:
            break
        held.append(part)
    return shown, held


def _size(part: list[Columns]) -> int:
    return len(json.dumps(part))


def _scenario(rows: pd.DataFrame, shown: list[str], grid: Float, targets: list[float]) -> list[Columns]:
    return [_at_horizon(matching(rows, "horizon", text), grid, targets) for text in shown]


def _at_horizon(rows: pd.DataFrame, grid: Float, targets: list[float]) -> Columns:
    """`SHARES` and `COUNTS` over the leverages of the run, then per target how many leverages meet it."""
    place = np.searchsorted(grid, rows["leverage"].to_numpy(float)) if grid.size else np.zeros(len(rows), np.int64)
    shares = np.full((len(SHARES), max(1, grid.size)), np.nan)
    counts = np.zeros((len(COUNTS), shares.shape[1]), np.int64)
    shares[:, place] = rows[[*SHARES]].to_numpy(float).T
    counts[:, place] = rows[[*COUNTS]].to_numpy(np.int64).T
    low, entered = shares[SHARES.index("survival_low")], counts[COUNTS.index("entries")] > 0
    meets = [int(((low >= target) & entered).cumprod().sum()) for target in targets]
    return [*(packed(_hundredths(values)) for values in shares), *(packed(values.tolist()) for values in counts), meets]


def _hundredths(shares: Float) -> list[int]:
    """Of a percent, as `percent_text` rounds; −1 where it is null."""
    different, which = np.unique(shares, return_inverse=True)
    texts = [percent_text(float(share)) for share in different]
    codes = np.array([-1 if text == "–" else round(100 * float(text.removesuffix(" %"))) for text in texts])
    found: list[int] = codes[which].tolist()
    return found
