"""Questions asked of a finished run, or of the histories again.

In: a `Result`, or a history and a sweep. Out: frames: events, returns, required margin, days that liquidated,
comparison, walk-forward, sensitivity to bar length and trigger.
"""
