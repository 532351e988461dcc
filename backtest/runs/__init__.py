"""Execute a sweep and keep it: plan, tasks, scheduling, checkpoints, run directory, `Result`.

In: a configuration or histories with a sweep (`run`). Out: a run directory, whole or not at all, and its `Result`
(`load`).
"""
