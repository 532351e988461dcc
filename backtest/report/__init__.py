"""Presentation: labels, number formats, terminal tables, plots, the HTML page, notebook widgets.

In: tables of a run and its `run.json`. Out: text, figures, `report.html`. This room computes no statistic and reads no
history.
"""
