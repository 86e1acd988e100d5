"""Titles of figures, which say the finding: taken out for pages that set them as headings, wrapped for notebooks."""

import textwrap
from typing import TYPE_CHECKING, Any

from lpr_lab.views import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE_CHARACTERS = 80
"""That many fit beside one another in a page as narrow as nbconvert's."""

TITLE_LINE = 21
"""Pixels."""


def take_title(figure: "go.Figure") -> str:
    """Remove the title from a figure and return it, for pages that set it as a heading that can wrap."""
    title = figure.layout.title.text or ""
    figure.update_layout(title=None, margin={"t": 40})
    return title


def with_wrapped_title(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure as JSON whose long title stands on several lines, which plotly does not see to itself."""
    layout = figure["layout"]
    text = layout.get("title", {}).get("text") or ""
    lines = textwrap.wrap(text, TITLE_CHARACTERS)
    if len(lines) < 2 or "<br>" in text:
        return figure
    more = TITLE_LINE * (len(lines) - 1)
    margin = {**layout.get("margin", {}), "t": layout.get("margin", {}).get("t", theme.TOP) + more}
    title = {**layout["title"], "text": "<br>".join(lines)}
    taller = {"height": layout["height"] + more} if "height" in layout else {}
    return {**figure, "layout": {**layout, "title": title, "margin": margin, **taller}}
