"""The dated tier tables that the package ships: facts of the exchanges, one file per symbol under ``tables/<rule>/``.

``tables/<rule>/source.toml`` says where each table was read. A date is when a public repository *recorded* the table:
the exchange may have put it into force earlier, never later.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources

from backtest.errors import RuleError
from backtest.margin.tiers import DatedTable, read_tier_tables

SUFFIX = ".csv"


def packaged_tables(rule: str, symbol: str) -> tuple[DatedTable, ...]:
    """The packaged tables of one symbol, in the order of their dates.

    Parameters
    ----------
    rule : str
        A rule name, such as ``"binance-usdm"``.
    symbol : str
        As the exchange writes it, such as ``"BTCUSDT"``.

    Returns
    -------
    tuple of DatedTable
        Never empty; floors, caps and deductions in the contract's unit (quote or coin).

    Raises
    ------
    RuleError
        If none is packaged; the message lists what is.

    Notes
    -----
    A date is an upper bound of when a table took effect: when a public repository recorded it. The first table of a
    symbol is the first one recorded, and nothing is packaged for the time before.

    Examples
    --------
    >>> newest = packaged_tables("binance-usdm", "BTCUSDT")[-1].table
    >>> newest.name, float(newest.mmr[0]), float(newest.max_leverage[0])
    ('BTCUSDT', 0.004, 150.0)
    """
    found = _symbols(rule)
    if not found:
        raise RuleError(f"no tier table is packaged for rule {rule!r}; some are for {', '.join(packaged_rules())}")
    if symbol not in found:
        close = difflib.get_close_matches(symbol, found, n=3)
        hint = f" (did you mean {' or '.join(repr(match) for match in close)}?)" if close else ""
        raise RuleError(
            f"no tier table of {symbol!r} is packaged for rule {rule!r}{hint}; packaged are {', '.join(found)}"
        )
    return _tables(rule, symbol)


def packaged_symbols(rule: str) -> tuple[str, ...]:
    """Symbols with packaged tables, in the order of names; none for a rule without any.

    Examples
    --------
    >>> "BTCUSDT" in packaged_symbols("binance-usdm")
    True
    """
    return _symbols(rule)


@cache
def packaged_rules() -> tuple[str, ...]:
    """Rules with packaged tables, in the order of names.

    Examples
    --------
    >>> "binance-usdm" in packaged_rules()
    True
    """
    folders = resources.files(__package__).joinpath("tables").iterdir()
    return tuple(sorted(folder.name for folder in folders if folder.is_dir()))


@cache
def _symbols(rule: str) -> tuple[str, ...]:
    if rule not in packaged_rules():  # a name, never a path
        return ()
    files = resources.files(__package__).joinpath("tables", rule).iterdir()
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)))


@cache
def _tables(rule: str, symbol: str) -> tuple[DatedTable, ...]:
    with resources.as_file(resources.files(__package__).joinpath("tables", rule, symbol + SUFFIX)) as file:
        return read_tier_tables(file)
