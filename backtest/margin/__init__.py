"""Margin rules: tier tables, the named rule files, and the liquidation price of one position (docs/semantics.md §2, §5,
§6).

A rule file (``*.toml``) is data, never code: adding an exchange whose formula is known adds one file.
"""
