"""Histories from elsewhere: one module per source, whose ``open_table`` reads a file; ``fetch_*`` takes the network.

`merging` lays prices, mark prices and funding over each other by bar. The result must pass `backtest.checks` and is
written by `backtest.adding`. What cannot be used is refused with file, row, column, value and rule, never repaired;
what cannot be told is asked for; what looks wrong is said.
"""
