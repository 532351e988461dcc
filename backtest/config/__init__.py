"""Configuration: every key with its rule, and the scenarios that the axes span.

In: a TOML file, or the models `Sweep`, `Data`, `Entries`, `Margin`, `Statistics`. Out: a checked `Config`, the list of
its scenarios, and the user's own trades as their file holds them.
"""
