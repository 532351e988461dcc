"""Price histories: in memory (`PriceHistory`) and as datasets on disk or in an object store.

In: columns of bars. Out: a dataset written in one step (`write_history`), read by range (`read_history`), listed,
resampled and checked (`quality/`).
"""
