"""Executed notebooks as one HTML file that shows its figures without a network.

    jupyter nbconvert --to lpr_lab runs/…/notebook.ipynb

Figures in our notebooks are stored as plotly's JSON alone, which keeps them small and which JupyterLab draws. The HTML
that nbconvert makes by itself leaves them out and loads scripts from other servers. This exporter puts plotly.js into
the file, once, and loads nothing.
"""

import html
import json
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import Preprocessor

FIGURE = "application/vnd.plotly.v1+json"
_PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}<script>{{ resources.plotlyjs }}</script>{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}"""
_DRAWN = """<div id="{id}" role="img" aria-label="{label}"></div>
<script>Plotly.newPlot("{id}", {figure}, {{responsive: true, displayModeBar: false}});</script>"""


class FiguresAsHTML(Preprocessor):
    """Adds an HTML form to every plotly figure, and plotly.js to a page that has one."""

    def preprocess(self, nb: Any, resources: Any) -> Any:
        """Return the notebook with drawn figures, and what belongs to it."""
        from plotly.offline import get_plotlyjs

        outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
        figures = [output["data"] for output in outputs if FIGURE in output.get("data", {})]
        for number, data in enumerate(figures):
            data["text/html"] = drawn(data[FIGURE], f"figure-{number}")
        resources["plotlyjs"] = get_plotlyjs() if figures else ""
        return nb, resources


class OfflineHTMLExporter(HTMLExporter):
    """nbconvert's HTML with our figures, and without the scripts that it loads from elsewhere."""

    export_from_notebook = "HTML with figures, offline"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.raw_template = _PAGE
        self.register_preprocessor(FiguresAsHTML, enabled=True)


def drawn(figure: dict[str, Any], name: str, title: bool = True) -> str:
    """Return HTML that draws a figure, for a page that has plotly.js.

    Args:
        figure: plotly's JSON.
        name: an id that is its own on the page.
        title: draw the title too; a page that sets it as text, which can wrap, leaves it out.
    """
    layout = dict(figure.get("layout", {}))
    label = layout.get("title", {}).get("text") or "figure"
    if not title:
        layout |= {"title": None, "margin": {"t": 40}}
    # Inside a script a text must not be able to end it.
    written = json.dumps({"data": figure["data"], "layout": layout}).replace("<", "\\u003c")
    return _DRAWN.format(id=name, label=html.escape(label), figure=written)
