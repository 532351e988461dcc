"""Statistics on count tables: survival, intervals, Kaplan–Meier, bootstrap, choice of leverage.

In: counts (`SurvivalTable`, frames of a run). Out: rates, their intervals, curves, the largest leverage that meets a
target. Nothing here knows a configuration or a file.
"""
