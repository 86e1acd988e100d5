"""What is drawn, the same in dashboard, notebooks and reports: figures, HTML, tables, reports, one theme.

Begin with `figures.plots` for a figure, `html.tokens` for coloured text, `notebook` for what a cell shows.
"""
