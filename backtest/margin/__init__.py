"""Margin rules: tier tables, named rules of exchanges, liquidation price of one position.

In: a rule name, a tier table or a position. Out: maintenance margin, liquidation price, bankruptcy price
(docs/semantics.md §2, §5, §6). A rule is a data file in `exchanges/`, not code: a known formula needs one new file.
"""
