"""Count positions: bars → adverse series → thresholds → counts per cohort. Four ways, each exact:

* by threshold (`count_by_threshold`): positions of one leverage share their margin rule; the default, and the fastest
* by entry (`count_by_entry`): they differ by entry (own trades, weights, maintenance over time, tiers in coin, spot)
* policies (`policy_simulation`): what happens on the way changes the position, event by event
* portfolio (`count_portfolio`): several symbols on one wallet
In: `Grid`, `Work` (entries and cohorts), scenarios. Out: `SurvivalTable`. `kernels/` holds the compiled loops.
"""
