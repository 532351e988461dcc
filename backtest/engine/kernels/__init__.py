"""The compiled loops, and nothing else: numpy and numba only; arguments are trusted, nothing is raised or printed."""
