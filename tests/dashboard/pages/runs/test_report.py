"""The report for download, through the app that is served."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from helpers.sample_runs import make_run, make_trace
from lpr_lab.dashboard import serve, shell
from lpr_lab.dashboard.pages.runs import report as report_module
from lpr_lab.dashboard.pages.runs.compare import render_comparison
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.runs.people.continuations import Continuation, Pair
from lpr_lab.runs.people.own_texts import keep_text, new_id


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(folder):
    return serve(folder, port=None, open_browser=False, block=False)


@pytest.mark.slow
def test_a_run_and_a_comparison_lead_to_their_files(folder, address):
    first, second = make_run(folder), make_run(folder)
    assert f'href="/report.html?run={first.id}" download' in render_detail(first, [first])
    compared = render_comparison(shell.page_context(folder, {"runs": f"{first.id},{second.id}"}))
    assert f'href="/report.html?runs={first.id},{second.id}" download' in compared
    one = httpx.get(f"{address}/report.html?run={first.id}", timeout=60)
    assert one.status_code == 200 and "text/html" in one.headers["content-type"]
    assert one.headers["content-disposition"] == f'attachment; filename="{first.id}-report.html"'
    assert one.text.startswith("<!doctype html>") and first.id in one.text and len(one.content) < 8_000_000
    both = httpx.get(f"{address}/report.html?runs={first.id},{second.id}", timeout=60)
    assert 'id="side-by-side"' in both.text


@pytest.mark.slow
def test_what_readers_typed_is_offered_with_boxes_and_left_out_unless_they_are_ticked(folder, address):
    run = make_run(folder)
    keep_text(run, new_id(), "My letter", make_trace("Dearest cousin.", "en", num_layers=2))
    pair = Pair("My secret prompt", "en", Continuation("a"), Continuation("b"), seconds=1.0)
    run.generations.append(pair.to_record({"max_new_tokens": 4, "temperature": 0.0, "seed": 0}))
    other = make_run(folder)
    compared = render_comparison(shell.page_context(folder, {"runs": f"{run.id},{other.id}"}))
    for offered in (render_detail(run, [run]), compared):
        assert 'name="own_texts" value="1"> ' in offered and 'name="compare_pairs" value="1"> ' in offered
    for query, texts, pairs in (("", 0, 0), ("&own_texts=1", 1, 0), ("&compare_pairs=1", 0, 1), ("&own_texts=0", 0, 0)):
        text = re.sub("<[^>]*>", "", httpx.get(f"{address}/report.html?run={run.id}{query}", timeout=60).text)
        assert ("My letter" in text, "Dearest cousin" in text, "My secret prompt" in text) == (texts, texts, pairs)


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("run=../../etc/passwd", 400), ("run=20260101-000000Z-none-0000", 404), ("runs=a%2Fb", 400)],
)
def test_what_is_no_run_is_refused_in_words(address, query, status):
    answer = httpx.get(f"{address}/report.html?{query}")
    assert answer.status_code == status and "runs" in answer.text and "<" not in answer.text


def test_reports_are_made_one_at_a_time(folder, address, monkeypatch):
    at_once, most, guard = 0, 0, threading.Event()

    def slow(runs_dir, ids, **typed):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        guard.wait(0.05)
        at_once -= 1
        return "<!doctype html>"

    monkeypatch.setattr(report_module, "_render", slow)
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: httpx.get(f"{address}/report.html?run=abc").status_code, range(4)))
    assert codes == [200] * 4 and most == 1
