"""What the first screen says of itself, and the concepts as a document that needs nothing else."""

import re

import httpx
import pytest

from lpr_lab.dashboard import about, shell


@pytest.fixture(scope="module")
def config(address):
    return httpx.get(f"{address}/config", timeout=60).text


@pytest.mark.parametrize("path", shell.PAGES.values())
def test_every_page_says_what_this_is_and_leads_to_concepts_and_papers(address, config, path):
    pages = httpx.get(f"{address}{path}", timeout=60).text + config
    for link in (about.PATH, *about.PAPERS.values()):
        assert link in pages
    assert about.SENTENCE[:40] in pages


def test_the_concepts_are_served_with_tables_and_no_script(address):
    answer = httpx.get(f"{address}{about.PATH}", timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "<script" not in answer.text and "<table>" in answer.text and 'id="glossary"' in answer.text


def test_no_link_of_the_concepts_leads_nowhere():
    html = about.render_concepts()
    for link in re.findall(r'href="([^"]*)"', html):
        assert link == "/" or link.startswith("https://") or f'id="{link.removeprefix("#")}"' in html, link


def test_an_installation_without_the_checkout_has_its_own_copy(monkeypatch, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("concepts", "glossary"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# The {name}\n", encoding="utf-8")
    monkeypatch.setattr(about, "folder_of", lambda name: tmp_path / name)
    about.render_concepts.cache_clear()
    assert "<h1>The concepts</h1>" in about.render_concepts()
    about.render_concepts.cache_clear()
