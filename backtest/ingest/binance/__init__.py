"""Binance's public archive: names, rows and overlaps of its files → dataset."""
