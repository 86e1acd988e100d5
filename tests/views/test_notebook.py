"""What notebooks show below a cell: figures without scripts, titles and texts in full."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from helpers.sample_runs import change_table
from lpr_lab.runs.run import Run
from lpr_lab.views import theme
from lpr_lab.views.figures.retention import before_and_after
from lpr_lab.views.figures.titles import TITLE_CHARACTERS, with_wrapped_title
from lpr_lab.views.notebook import in_full, show, show_claims, show_settings

LONG = (
    "Expanded languages need 11.4% fewer bits (-14.0% to -9.1%); original languages need 2.9% fewer bits (-3.3% to "
    "-2.5%)"
)


def test_showing_a_figure_keeps_its_json_in_the_run_and_shows_no_script(tmp_path, monkeypatch):
    shown: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    run = Run.create(tmp_path, kind="test", slug="x", title="x", config={})
    show(before_and_after(change_table().query("dataset == 'heldout'")), run, "retention")
    assert set(shown[0]) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert run.figures.read()["retention"]["data"]


def test_settings_are_folded_and_all_there(tmp_path, monkeypatch):
    shown: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    config = {"base": "<tiny>", "stage1": {"tokens": 2048, "max_minutes": None}}
    show_settings(Run.create(tmp_path, kind="test", slug="x", title="x", config=config))
    (page,) = (bundle["text/html"] for bundle in shown)
    assert page.index("<details>") < page.index("&lt;tiny&gt;") < page.index("</details>") and "<tiny>" not in page
    assert "stage1.tokens" in page and "None" not in page


def titled(text: str, **layout) -> dict:
    return go.Figure(go.Bar(y=[1]), {"title": {"text": text}, **layout}).to_plotly_json()


def test_a_long_title_stands_on_several_lines_and_the_figure_grows_by_them():
    wrapped = with_wrapped_title(titled(LONG, height=300))["layout"]
    lines = wrapped["title"]["text"].split("<br>")
    assert len(lines) == 2 and " ".join(lines) == LONG
    assert all(len(line) <= TITLE_CHARACTERS for line in lines)
    assert wrapped["height"] - 300 == wrapped["margin"]["t"] - theme.TOP > 0


def test_a_short_title_and_one_with_lines_of_its_own_stay():
    for text in ("Short", LONG.replace("; ", "<br>"), ""):
        given = titled(text)
        assert with_wrapped_title(given) is given


def test_exact_claims_must_hold_and_measured_ones_where_asked(tmp_path):
    run = Run.create(tmp_path, kind="test", slug="x", title="x", config={})
    claim = {"text": "It is small.", "measured": 2.0, "target": 1.0, "holds": False, "is_exact": False}
    run.documents.write("results", {"claims": []})
    show_claims(run).to_html()
    run.documents.write("results", {"claims": [claim]})
    assert "It is small." in show_claims(run).to_html()
    with pytest.raises(AssertionError, match="It is small"):
        show_claims(run, all_must_hold=True)
    run.documents.write("results", {"claims": [{**claim, "is_exact": True, "group": "G1"}]})
    with pytest.raises(AssertionError, match="It is small"):
        show_claims(run)


def test_texts_are_whole_and_begin_at_their_own_side_and_numbers_are_short():
    table = pd.DataFrame({"text": [LONG, "كان يا ما كان"], "measured": [0.000064529, None], "holds": [True, False]})
    html = in_full(table, ["text", "measured", "holds"]).to_html()
    assert LONG in html and "unicode-bidi: plaintext" in html and "text-align: start" in html
    assert "6.4529e-05" in html and "–" in html and ">0</th>" not in html


def test_a_table_of_numbers_alone_and_an_empty_one_can_be_shown():
    assert "1.5" in in_full(pd.DataFrame({"a": [1.5]})).to_html()
    in_full(pd.DataFrame({"a": []})).to_html()
