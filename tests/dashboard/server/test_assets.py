"""What browsers fetch of gradio is compressed once, whole, kept by them, and nothing but gradio's own files."""

import mimetypes

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lpr_lab.dashboard.server import assets


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=[assets.assets_route()]))


def middling(ending: str) -> str:
    found = sorted(assets.FOLDER.glob(f"*.{ending}"), key=lambda path: (path.stat().st_size, path.name))
    return found[len(found) // 2].name


@pytest.mark.parametrize("ending", ["js", "css", "woff2"])
@pytest.mark.parametrize("accepts", ["gzip, deflate, br", "identity"])
def test_a_file_arrives_as_it_is_and_is_never_asked_for_again(client, ending, accepts, monkeypatch):
    monkeypatch.setitem(mimetypes.types_map, ".js", "application/javascript")  # as gradio may set it
    name = middling(ending)
    answer = client.get(f"/assets/{name}", headers={"accept-encoding": accepts})
    assert answer.status_code == 200 and answer.content == (assets.FOLDER / name).read_bytes()
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in accepts and ending != "woff2" else None)
    assert answer.headers["content-type"].startswith({"js": "text/javascript", "css": "text/css"}.get(ending, "font/"))


def test_a_file_is_compressed_for_the_first_visitor_only(client):
    before = assets._compressed.cache_info().misses
    name = middling("css")
    for _ in range(3):
        client.get(f"/assets/{name}")
    assert assets._compressed.cache_info().misses <= before + 1


@pytest.mark.parametrize("name", ["none-12345678.js", "../index.html", "..%2Findex.html", "%2e%2e/index.html", ""])
def test_what_is_no_such_file_is_not_there(client, name):
    assert client.get(f"/assets/{name}").status_code == 404
