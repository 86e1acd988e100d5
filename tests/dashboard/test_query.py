"""An address is read leniently, written exactly, and never trusted."""

from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.dashboard.query import Query

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{2,40}\Z")
numbers = st.none() | st.integers(0, 10**8)


@given(run=names, lang=names, text=names, layer=numbers, tok=numbers, mode=st.sampled_from(["", "tokens"]))
def test_what_is_written_reads_back(run, lang, text, layer, tok, mode):
    view = Query(run=run, lang=lang, text=text, layer=layer, tok=tok, mode=mode)
    query = dict(pair.split("=") for pair in view.urlencode().split("&"))
    assert Query.parse(query) == view


@given(st.dictionaries(st.sampled_from(["run", "lang", "text", "layer", "tok", "seed", "x"]), st.text(max_size=100)))
def test_any_query_is_read_and_no_path_survives(query):
    view = Query.parse(query)
    for value in (view.run, view.lang, view.text, view.data):
        assert "/" not in value and "\\" not in value and ".." not in value[:2]


def test_malformed_values_are_as_if_they_were_not_there():
    view = Query.parse({"run": "../../etc/passwd", "layer": "-1", "tok": "1e9", "text": "<b>", "unknown": "1"})
    assert view == Query()


def test_links_leave_out_what_is_empty():
    assert Query(run="abc", layer=0).link("/routing", lang="el") == "/routing?run=abc&lang=el&layer=0"
    assert Query().link("/") == "/"
