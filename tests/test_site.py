"""The documentation site: links that hold on a page hold in the site, and nothing is loaded from elsewhere."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from lpr_lab.runs.environment import CHECKOUT

pytest.importorskip("mkdocs", reason="the site needs mkdocs (pip install -e '.[docs]')")


@pytest.fixture
def hook(monkeypatch):
    """Return a function that imports one of the site's hooks, as mkdocs does."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "docs" / "hooks"))
    before = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(CHECKOUT / "docs")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("html", "elsewhere"),
    [
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link rel="stylesheet" href="//fonts.example/css">', 1),
        ('<img src="http://example.org/a.png">', 1),
        ('<script src="assets/x.js"></script><img src="data:image/png;base64,AA">', 0),
        ('<a href="https://arxiv.org/abs/2408.11396">paper</a><link rel="canonical" href="https://example.org">', 0),
    ],
)
def test_what_a_browser_would_load_from_elsewhere_is_noticed_and_links_to_follow_are_not(hook, html, elsewhere):
    assert len(hook("offline").loads(html)) == elsewhere


def test_a_site_that_loads_from_elsewhere_is_not_built(hook, tmp_path):
    from mkdocs.exceptions import PluginError

    config = SimpleNamespace(site_dir=str(tmp_path))
    (tmp_path / "index.html").write_text('<script src="https://cdn.example/x.js"></script>')
    with pytest.raises(PluginError, match=r"index.html loads https://cdn\.example"):
        hook("offline").on_post_build(config)
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.example/a.woff2') }")
    with pytest.raises(PluginError, match=r"a.css loads https://fonts\.example"):
        hook("offline").on_post_build(config)


@pytest.mark.parametrize(
    ("written", "linked"),
    [
        ("[the log](log.md)", "[the log](log.md)"),
        ("[a notebook](../notebooks/00_quickstart.ipynb)", "[a notebook](tutorials/00_quickstart.md)"),
        ("[settings](../lpr_lab/experiments/config.py#x)", "[settings](api/experiments/config.md#x)"),
        ("[paper](https://arxiv.org/abs/2408.11396)", "[paper](https://arxiv.org/abs/2408.11396)"),
        ("see `lpr_lab/model/router.py`", "see [`lpr_lab/model/router.py`](api/model/router.md)"),
        (
            "see `model/formats/test_save_load.py`",
            "see [`model/formats/test_save_load.py`](code/tests/model/formats/test_save_load.py.md)",
        ),
        ("`lpr_lab/model/router.py:Router.forward`", "[`lpr_lab/model/router.py:Router.forward`](api/model/router.md)"),
        ("see `no/such_file.py`", "see `no/such_file.py`"),
        ("    [code](log.md) `lpr_lab/model/router.py`", "    [code](log.md) `lpr_lab/model/router.py`"),
        ("[gone](gone.md)", "[gone](gone.md)"),  # for the strict build to refuse
    ],
)
def test_links_of_a_page_lead_to_the_sites_page_for_that_file(hook, written, linked):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="concepts.md"))
    assert hook("links").on_page_markdown(written, page) == linked


def test_a_page_from_outside_docs_keeps_its_links(hook):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="tutorials/index.md", origin="notebooks/README.md"))
    assert hook("links").on_page_markdown("[first](00_quickstart.ipynb)", page) == "[first](00_quickstart.md)"


def test_the_quickstarts_page_shows_the_figures_and_the_result_of_the_committed_run(hook):
    page = hook("tutorials").page(CHECKOUT / "notebooks" / "00_quickstart.ipynb")
    for name in ("training", "retention", "load", "layers"):
        assert f'Plotly.newPlot("figure-{name}"' in page
    assert "was taught Greek, Hungarian and Turkish" in page and 'class="lpr-strip' in page
