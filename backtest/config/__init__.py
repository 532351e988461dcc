"""Configuration: every key and its rule, and the scenarios that its axes span.

In: a TOML file or the models `Sweep`, `Data`, `Entries`, `Margin`, `Statistics`. Out: a checked `Config`, its
`Scenario` grid (`scenarios`, `portfolio_scenarios`) and the user's own trades as the file holds them (`trades_file`).
"""
