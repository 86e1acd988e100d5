"""Drawing, the same in dashboard, notebooks and reports: figures, HTML, tables, reports, one theme.

Begin with `figures` for a figure, `html.tokens` for coloured text, `notebook` for what a cell shows.
"""

from typing import Any

Table = Any
"""A `pandas.DataFrame`; the type pandas declares for itself is lost at the first filter."""
