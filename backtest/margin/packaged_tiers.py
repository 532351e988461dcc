"""The dated tier tables that come with the package, one file per symbol under ``tables/<rule>/``.

``tables/<rule>/source.toml`` says where each table was read. A date is when a public repository recorded the table: the
exchange may have put it into force earlier, never later.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from backtest.errors import RuleError, did_you_mean
from backtest.margin.tiers import DatedTable, read_tier_tables

SUFFIX = ".csv"


@cache
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
        If no table is packaged for the rule or the symbol; the message lists what is.

    Notes
    -----
    A table took effect at its date or earlier: the date is when a public repository recorded it. Before the first
    recorded table of a symbol nothing is packaged.

    Examples
    --------
    >>> newest = packaged_tables("binance-usdm", "BTCUSDT")[-1].table
    >>> newest.name, float(newest.mmr[0]), float(newest.max_leverage[0])
    ('BTCUSDT', 0.004, 150.0)
    """
    found = packaged_symbols(rule)
    if not found:
        raise RuleError(f"no tier table is packaged for rule {rule!r}; some are for {', '.join(packaged_rules())}")
    if symbol not in found:
        raise RuleError(
            f"no tier table of {symbol!r} is packaged for rule {rule!r}{did_you_mean(symbol, found)}; packaged are "
            f"{', '.join(found)}"
        )
    with resources.as_file(resources.files(__package__).joinpath("tables", rule, symbol + SUFFIX)) as file:
        return read_tier_tables(file)


@cache
def packaged_symbols(rule: str) -> tuple[str, ...]:
    """Symbols with packaged tables, in the order of names; none for a rule without any.

    Examples
    --------
    >>> "BTCUSDT" in packaged_symbols("binance-usdm")
    True
    """
    if rule not in packaged_rules():  # a name, never a path
        return ()
    files = resources.files(__package__).joinpath("tables", rule).iterdir()
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)))


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
