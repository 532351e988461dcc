"""Running a sweep and keeping it: tasks, scheduling, checkpoints, run directory, result.

In: a configuration, or histories with a sweep (`run`). Out: a run directory, whole or not at all, and its `Result`
(`load`).
"""
