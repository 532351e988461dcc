"""Counting: bars → adverse series → thresholds → counts. `count.count_entries` chooses one of four exact ways:

* by threshold: positions of one leverage share their margin rule (the default, and the fastest)
* by entry: positions differ by entry: own trades, weights, maintenance over time, tiers in coin, spot margin
* policies: events between entry and end change the position
* portfolio: several symbols on one wallet. `kernels/` holds the compiled loops.
"""
