"""Where a change comes from: the parts of the page follow the address, and say what runs without scores cannot show."""

import pytest

from helpers.cells import last_value
from helpers.sample_runs import make_run
from helpers.sample_scores import write_scores, write_slices
from helpers.words import words
from lpr_lab.dashboard import page_data, shell
from lpr_lab.dashboard.pages.retention import compose as retention
from lpr_lab.dashboard.pages.retention.causes import shown_language
from lpr_lab.dashboard.query import Query
from lpr_lab.runs.compare.paired_scores import compare
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run


@pytest.fixture
def sliced(run) -> Run:
    """The run of the tests, with scores by stage, document and slice."""
    write_scores(run)
    write_slices(run)
    return run


def page(runs_dir, **query) -> dict:
    return retention.compose(shell.page_context(runs_dir, query), runs_dir)


def test_it_begins_with_the_original_language_that_rose_most_and_the_address_asks_for_another(runs_dir, sliced):
    rows = compare(ModelRef(sliced, "base"), ModelRef(sliced, ""), "heldout").rows
    original = rows[rows["role"] == "original"]
    worst = original.loc[original["change_percent"].idxmax(), "language"]
    assert page(runs_dir)["lang"]["value"] == shown_language(rows, Query()) == worst
    assert page(runs_dir, lang="tr")["lang"]["value"] == "tr"
    assert page(runs_dir, lang="xx")["lang"]["value"] == worst


@pytest.mark.parametrize("language", ["en", "el"])
def test_documents_to_choose_from_stand_in_the_order_of_what_they_add(runs_dir, sliced, language):
    shown = page(runs_dir, lang=language)["doc"]
    documents = compare(ModelRef(sliced, "base"), ModelRef(sliced, ""), "heldout").documents
    of_language = documents[documents["language"] == language].reset_index(drop=True)
    sign = 1 if of_language["points"].sum() > 0 else -1
    ranked = (sign * of_language["points"]).sort_values(ascending=False).index.tolist()
    assert [number for _, number in shown["choices"][1:]] == ranked
    assert shown["value"] == ""


def test_a_document_of_the_address_is_chosen_where_there_is_one(runs_dir, sliced):
    assert page(runs_dir, lang="en", doc="3")["doc"]["value"] == 3
    assert page(runs_dir, lang="en", doc="3")["causes"].count('aria-current="true"') <= 1
    assert page(runs_dir, lang="en", doc="999")["doc"]["value"] == ""


def test_without_weights_documents_and_slices_are_there_and_tokens_say_what_they_need(runs_dir, sliced):
    shown = page(runs_dir, lang="en", doc="3")
    assert "Rare tokens" in shown["causes"] and not shown["read"]["visible"]
    assert "weights" in words(shown["why_not"])
    assert "None in this test set" in words(shown["causes"])  # made-up scores have no code-switched spans


def test_runs_of_before_slices_say_how_to_get_them(runs_dir, run):
    write_scores(run)
    assert f"06_eval_retention -p after={run.id}" in page(runs_dir)["causes"]
    other = make_run(runs_dir, title="No documents")
    write_scores(other, documents=False)
    shown = page(runs_dir, run=other.id)
    assert "not kept" in words(shown["causes"]) and not shown["doc"]["visible"]


def test_the_cell_of_the_view_gives_the_slices_of_the_view(runs_dir, sliced):
    for query in ({"lang": "en"}, {"lang": "el", "data": "dev", "stage2": "G1 expand"}):
        found = page_data.data_of("retention", runs_dir, {"run": sliced.id, **query})
        again = last_value(found.cell + "slices\n")
        assert again.equals(found.tables["slices"]())
        documents = found.tables["documents_by_change"]()
        assert set(documents["language"]) == {query["lang"]}
