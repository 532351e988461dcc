"""Questions to a finished run or to its histories: events, returns, required margin, worst days, comparison.

In: a `Result`, or price histories with a sweep. Out: a DataFrame or an events file. A new question becomes a module
here and a command in `backtest.cli`.
"""
