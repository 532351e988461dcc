"""Price histories: in memory, and as datasets on disk or in an object store.

In: columns of bars. Out: a `PriceHistory`, or a dataset that is written in one step, read by range, listed and
resampled. `quality/` checks datasets.
"""
