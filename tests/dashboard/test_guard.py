"""Only this machine and only this page get in."""

import pytest

from lpr_lab.dashboard.guard import Guard

HOSTS = ("127.0.0.1", "localhost", "::1")
HERE = {"host": "127.0.0.1:7860"}


def refusal(method="GET", path="/", **headers):
    given = {**HERE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    found = Guard(None, HOSTS).refusal(method, path, given)
    return found and found[0]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:7860"])
def test_this_machine_gets_in(host):
    assert refusal(host=host) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[", "0.0.0.0"])
def test_a_rebound_name_is_refused(host):
    assert refusal(host=host) == 421


def test_other_sites_may_link_here_but_not_act_here():
    assert refusal(sec_fetch_site="cross-site", sec_fetch_mode="navigate") is None
    assert refusal("POST", "/gradio_api/queue/join", sec_fetch_site="cross-site", sec_fetch_mode="cors") == 403
    assert refusal("POST", "/gradio_api/queue/join", origin="https://evil.example") == 403
    assert (
        refusal("POST", "/gradio_api/queue/join", origin="http://127.0.0.1:7860", sec_fetch_site="same-origin") is None
    )


@pytest.mark.parametrize("path", ["upload", "upload_progress", "proxy=http://x", "file=http://x", "component_server"])
def test_doors_that_the_pages_do_not_use_are_shut(path):
    assert refusal("POST", f"/gradio_api/{path}") == 404


@pytest.mark.parametrize(("length", "status"), [("1000", None), ("1000001", 413), ("-5", 413), ("a lot", 413)])
def test_large_bodies_are_refused(length, status):
    assert refusal("POST", "/gradio_api/run/predict", content_length=length) == status
