"""Histories from elsewhere: one module per source; ``read_*`` takes files, ``fetch_*`` the network.

Each lays its source out as a `backtest.history.PriceHistory`, which must pass `backtest.checks`, and writes it with
`backtest.store.write_history`. What cannot be used is refused with file, row, column, value and rule, never repaired.
"""
