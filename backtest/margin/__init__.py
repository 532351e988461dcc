"""Margin rules: tier tables, named exchange rules, and the margins and prices of one position (docs/semantics.md §2–6).

In: the keys of a position (`position_input`) or a `Position`; a rule name (`rules`); tables of tiers (`tiers`,
`packaged_tiers`). Out: maintenance margin, liquidation price and bankruptcy price (`liquidation.price`; for arrays
`liquidation.liquidation_prices`, of spot margin `spot`). A rule file in ``exchanges/`` is data, never code: adding an
exchange whose formula is known adds one file.
"""
