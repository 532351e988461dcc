"""Configuration: every key and its rule, and the scenarios that its axes span.

In: a TOML file or the models `Sweep`, `Data`, `Entries`, `Margin`, `Statistics` (`models`). Out: a checked `Config`,
its scenario grid (`scenarios`, `portfolio_scenarios`) with the labels of results (`labels`), and the user's own trades
(`trades_file`).
"""
