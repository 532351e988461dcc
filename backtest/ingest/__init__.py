"""Importers and downloaders: files of exchanges and tools → dataset.

In: files, archives or the network; `formats/` has one module per format. Out: a dataset that passes
`backtest.check`. Values that cannot be used are refused with file, row, column and rule. A unit, time zone or column
that the file does not tell is asked for.
"""
