"""The columns of the tables of a run: scenario axes, counts, rates, outcomes, events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from backtest.stats.survival_table import COUNTS, OUTCOMES

TIME = pa.timestamp("ms", tz="UTC")
SCENARIO = (
    *(pa.field(name, pa.string()) for name in ("symbol", "side", "maintenance")),
    *(pa.field(name, pa.float64()) for name in ("open_fee", "funding_scale", "funding_shift")),
    pa.field("size", pa.string()),
)
FURTHER = ("weight", "policy", "verdict", "regime")
"""Axes that stand in the results only where a configuration has them, before ``horizon``."""
POINT = (pa.field("horizon", pa.string()), pa.field("leverage", pa.float64()))


def axes_fields(present: Iterable[str]) -> list[pa.Field]:
    """Symbol and scenario columns, with those of `FURTHER` that are present."""
    names = set(present)
    return [*SCENARIO, *(pa.field(name, pa.string()) for name in FURTHER if name in names)]


def axis_names(present: Iterable[str]) -> list[str]:
    """Names of `axes_fields`."""
    return [field.name for field in axes_fields(present)]


def survival_schema(present: Iterable[str] = ()) -> pa.Schema:
    """Columns of ``survival.parquet``."""
    return pa.schema(
        [
            *axes_fields(present),
            *POINT,
            *((name, pa.int64()) for name in COUNTS[:5]),
            *((name, pa.float64()) for name in ("survival", "survival_low", "survival_high", "survival_km")),
            ("few_blocks", pa.bool_()),
        ]
    )


def outcome_schema(present: Iterable[str] = ()) -> pa.Schema:
    """Columns of ``outcomes.parquet``: positions and events, then amounts in initial margins, totals over entries."""
    whole = [name for name in OUTCOMES[: OUTCOMES.index("equity")] if not name.startswith("prior_")]
    return pa.schema(
        [
            *axes_fields(present),
            *POINT,
            *((name, pa.int64()) for name in ("entries", "liquidations", "survived", *whole)),
            *((name, pa.float64()) for name in OUTCOMES[OUTCOMES.index("equity") :]),
            ("return_mean", pa.float64()),
            ("growth_mean", pa.float64()),
            ("policy_cost", pa.float64()),
        ]
    )


def event_schema(present: Iterable[str] = (), *, lives: bool = False, trades: bool = False) -> pa.Schema:
    """Columns of the events; of path-dependent policies how they ended, of the user's trades the row in the file."""
    return pa.schema(
        [
            *axes_fields(present),
            *POINT,
            ("entry_time", TIME),
            ("entry_price", pa.float64()),
            ("rejected", pa.bool_()),
            ("liquidation_price", pa.float64()),
            ("bankruptcy_price", pa.float64()),
            ("margin_call_time", TIME),
            ("liquidation_time", TIME),
            ("bars_to_liquidation", pa.int64()),
            ("fill_price", pa.float64()),
            ("residual", pa.float64()),
            ("recovered", pa.bool_()),
            ("insurance", pa.float64()),
            *(LIFE_FIELDS if lives else ()),
            *((("trade", pa.int64()), ("critical_leverage", pa.float64())) if trades else ()),
        ]
    )


LIFE_COUNTS = ("partial_liquidations", "top_ups", "deleverages", "scale_ins")
LIFE_FIELDS = (
    pa.field("outcome", pa.string()),
    pa.field("end_time", TIME),
    *(pa.field(name, pa.float64()) for name in ("equity", "fees", "added")),
    *(pa.field(name, pa.int64()) for name in LIFE_COUNTS),
)


def repeated(fields: Iterable[pa.Field], labels: Mapping[str, str | float | None], n: int) -> list[pa.Array]:
    """Columns that hold one value each."""
    return [pa.repeat(pa.scalar(labels[field.name], field.type), n) for field in fields]
