"""Importers and downloaders: files of exchanges and tools → dataset.

In: files or archives; `formats/` has one module per format, whose ``open_table`` reads a file as columns; `download/`
takes the network. Out: a dataset that passes `backtest.data.quality.check`, written by `backtest.data.writer`. What
cannot be used is refused with file, row, column, value and rule; what cannot be told is asked for.
"""
