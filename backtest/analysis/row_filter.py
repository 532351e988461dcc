"""Conditions on rows, as in SQL: ``leverage = 20 and side = 'long'``; the argument `where` of several functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest.arrays import Bool
from backtest.config.models import Config
from backtest.config.resolve import has_own_leverage
from backtest.config.scenarios import Scenario
from backtest.errors import ConfigError
from backtest.stats.schema import POINT, axes_fields, repeated

TOKENS = re.compile(
    r"(?P<text>'(?:[^']|'')*'|\"[^\"]*\")|(?P<op><>|!=|>=|<=|==|=|<|>)|(?P<word>[A-Za-z_]\w*)|(?P<rest>\s+|[^\s'\"]+?)"
)
WORDS = {"and", "or", "not", "in", "is", "null", "true", "false"}
PYTHON = {"null": "None", "true": "True", "false": "False"}
COMPARE = {ast.Eq: pc.equal, ast.NotEq: pc.not_equal, ast.Lt: pc.less, ast.LtE: pc.less_equal} | {
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}


class RowFilter:
    """A parsed condition.

    Parameters
    ----------
    text : str
        Comparisons of a column with a number, text or time, ``in (…)``, ``is null``, joined by and, or, not.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"leverage": [10.0, 20.0], "side": ["long", "long"]})
    >>> RowFilter("leverage = 20 and side = 'long'").mask(table).to_pylist()
    [False, True]
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = []
        for token in TOKENS.finditer(text):
            piece = token.group()
            if token.lastgroup == "op":
                piece = {"=": "==", "<>": "!="}.get(piece, piece)
            elif token.lastgroup == "word" and piece.lower() in WORDS:
                piece = PYTHON.get(piece.lower(), piece.lower())
            elif token.lastgroup == "text":
                piece = repr(piece[1:-1].replace("''", "'"))
            parts.append(piece)
        try:
            self._tree = ast.parse("".join(parts).strip(), mode="eval").body
        except SyntaxError:
            raise self._error("is not a condition") from None
        self._check(self._tree)
        self.columns = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}

    def conjuncts(self) -> list[RowFilter]:
        """The conditions that must all hold."""
        if isinstance(self._tree, ast.BoolOp) and isinstance(self._tree.op, ast.And):
            return [part for node in self._tree.values for part in self._part(node).conjuncts()]
        return [self]

    def _part(self, node: ast.expr) -> RowFilter:
        part = RowFilter.__new__(RowFilter)
        part.text, part._tree = self.text, node
        part.columns = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        return part

    def require(self, columns: Iterable[str]) -> None:
        """Refuse columns that do not exist."""
        known = list(columns)
        for name in sorted(self.columns - set(known)):
            raise self._error(f"names no column {name!r}; there are {', '.join(known)}")

    def mask(self, table: pa.Table | pa.RecordBatch) -> pa.Array:
        """Which rows satisfy the condition; a comparison with null does not."""
        try:
            return pc.fill_null(self._evaluate(self._tree, table), False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise self._error(f"compares what cannot be compared ({error})") from None

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"--where {problem}: {self.text!r}; such as \"leverage = 20 and side = 'long'\"")

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand)
            case ast.Compare(left=ast.Name(), ops=[op], comparators=[right]):
                if isinstance(op, ast.In | ast.NotIn):
                    items = right.elts if isinstance(right, ast.Tuple | ast.List) else [right]
                    if all(self._is_value(item) for item in items):
                        return
                elif isinstance(op, ast.Is | ast.IsNot):
                    if isinstance(right, ast.Constant) and right.value is None:
                        return
                    if isinstance(right, ast.UnaryOp) and isinstance(right.op, ast.Not):  # is not null
                        return
                elif self._is_value(right):
                    return
                raise self._error("compares with something that is not a value")
            case ast.Name():
                return
            case _:
                raise self._error("is not a comparison of a column with a value")

    @staticmethod
    def _is_value(node: ast.expr) -> bool:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node = node.operand
        return isinstance(node, ast.Constant) and node.value is not None

    def _evaluate(self, node: ast.expr, table: pa.Table | pa.RecordBatch) -> pa.Array:
        match node:
            case ast.BoolOp(op=op, values=values):
                join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                out = self._evaluate(values[0], table)
                for value in values[1:]:
                    out = join(out, self._evaluate(value, table))
                return out
            case ast.UnaryOp(operand=operand):
                return pc.invert(self._evaluate(operand, table))
            case ast.Name(id=name):
                if not pa.types.is_boolean(table.schema.field(name).type):
                    raise self._error(f"needs a comparison of {name}")
                return table[name]
            case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
                column = table[name]
                if isinstance(op, ast.Is | ast.IsNot):
                    null = pc.is_null(column)
                    return pc.invert(null) if isinstance(op, ast.IsNot) else null
                if isinstance(op, ast.In | ast.NotIn):
                    values_in = ast.literal_eval(right)
                    listed = values_in if isinstance(values_in, tuple | list) else [values_in]
                    found = pc.is_in(column, value_set=pa.array(listed).cast(column.type))
                    return pc.invert(found) if isinstance(op, ast.NotIn) else found
                scalar = pa.scalar(ast.literal_eval(right))
                if pa.types.is_timestamp(column.type):
                    scalar = scalar.cast(pa.timestamp("ms")).cast(column.type)
                return COMPARE[type(op)](column, scalar)
        raise self._error("is not a condition")


def scenario_mask(conditions: Sequence[RowFilter], config: Config, symbol: str, scenario: Scenario) -> Bool:
    """(n_horizons, n_leverages) combinations of a scenario that satisfy conditions on its columns."""
    horizons, leverages = config.sweep.horizon, config.sweep.leverage
    labels = {"symbol": symbol, **scenario.columns()}
    n = len(horizons) * len(leverages)
    fields = axes_fields(labels)
    shown = [None] * len(leverages) if has_own_leverage(config) else list(leverages)
    columns = [
        *repeated(fields, labels, n),
        pa.array([horizon for horizon in horizons for _ in leverages], pa.string()),
        pa.array(shown * len(horizons), pa.float64()),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema([*fields, *POINT]))
    out = np.ones(n, dtype=np.bool_)
    for condition in conditions:
        out &= condition.mask(batch).to_numpy(zero_copy_only=False)
    return out.reshape(len(horizons), len(leverages))
