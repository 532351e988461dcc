"""Presentation: labels, number formats, terminal tables, plots, the HTML page, the notebook.

In: tables of a run, and its run.json. Out: text, figures, `report.html`. Computes no statistic and reads no history.
"""
