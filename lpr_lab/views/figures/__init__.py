"""Tidy tables to Plotly figures, all in the one theme. Begin with `retention`."""
