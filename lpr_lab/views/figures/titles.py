"""Titles of figures, which say the finding: taken out for pages that set them as headings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


def take_title(figure: "go.Figure") -> str:
    """Remove the title from a figure and return it, for pages that set it as a heading that can wrap."""
    title = figure.layout.title.text or ""
    figure.update_layout(title=None, margin={"t": 40})
    return title
