"""An executed notebook as one HTML file: its figures are in it, and it loads nothing."""

import re

import nbformat
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from lpr_lab.experiments.notebooks.html import OfflineHTMLExporter
from lpr_lab.views.notebook import show


def exported(*data) -> str:
    outputs = [nbformat.v4.new_output("display_data", data=dict(each)) for each in data]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show(figure)", outputs=outputs)])
    body, _ = OfflineHTMLExporter().from_notebook_node(book)
    return body


@pytest.fixture
def shown(monkeypatch) -> list[dict]:
    """Collect what `show` displays."""
    bundles: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.mark.slow
def test_figures_as_notebooks_store_them_are_drawn_by_one_copy_of_plotly_js(shown):
    for _ in range(2):
        show(go.Figure(go.Bar(y=[1, 2]), {"title": {"text": "Two & three"}}))
    page = exported(*shown)
    assert page.count(get_plotlyjs()) == 1
    assert page.replace(get_plotlyjs(), "").count("Plotly.newPlot(") == 2
    assert 'aria-label="Two &amp; three"' in page


def test_nothing_is_loaded_from_elsewhere(shown):
    show(go.Figure(go.Bar(y=[1])))
    page = exported(*shown).replace(get_plotlyjs(), "")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?http", page)
    assert "cdnjs" not in page and "unpkg" not in page


def test_a_text_in_a_figure_cannot_end_its_script(shown):
    show(go.Figure(go.Bar(y=[1], name="</script><img src=x onerror=boom()>")))
    assert "<img src=x" not in exported(*shown)


def test_a_notebook_without_figures_carries_no_plotly_js():
    assert len(exported({"text/plain": "1"})) < 1_000_000
