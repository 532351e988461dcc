"""Statistics on counts: survival, intervals, Kaplan–Meier, bootstrap, choice of leverage.

In: counts (`SurvivalTable`, or the tables of a run). Out: rates, intervals, curves, the largest leverage that meets a
target. This room knows no configuration and no file.
"""
