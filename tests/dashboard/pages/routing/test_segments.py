"""One segment in many languages on page `/routing`: what can be chosen, what is computed, kept and taken along."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest

from helpers.cells import last_value
from helpers.sample_segments import make_comparison
from helpers.small_expansion import make_expansion
from helpers.tiny_corpus import write_corpus
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing import as_data
from lpr_lab.dashboard.pages.routing import page as routing
from lpr_lab.dashboard.pages.routing.segments import show, work
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.segments import SEGMENTS, Listing, Segments
from lpr_lab.dashboard.server.unsaved_texts import trace_of
from lpr_lab.errors import UsageError
from lpr_lab.measure.segments.aligned import Segment

LINES = "en: I heard the sea.\nel: Άκουσα τη θάλασσα.\nhu:\nar: سمعت البحر."


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, sentences):
    """A run with a model, and its corpus: a file whose held-out documents are aligned; one is not there in Turkish."""
    folder = tmp_path_factory.mktemp("segments")
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, sentences, ("en", "el", "tr"))
    records = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    for one in records:
        if one["split"] == "heldout":  # short enough for the model's context
            one["text"] = " ".join(one["text"].split()[:8])
    kept = [json.dumps(one) for one in records if (one["id"], one["language"]) != ("5", "tr")]
    corpus.write_text("\n".join(kept), encoding="utf-8")
    settings = {"corpus": str(corpus), "expanded": ["el", "tr"]}
    run, model = make_expansion(folder, tiny_model("llama"), tiny_tokenizer, **settings)
    return folder / "runs", run, model


def last(steps) -> tuple:
    return list(steps)[-1]


def parts_of(runs_dir, **query):
    return routing.compose(shell.page_context(runs_dir, query), runs_dir)


def address(view: str) -> dict[str, str]:
    query = re.search(r'data-query="([^"]*)"', view)
    assert query
    return dict(pair.split("=") for pair in query[1].replace("&amp;", "&").split("&"))


def test_a_pasted_segment_is_compared_held_at_its_address_and_taken_along_to_the_last_digit(world, tiny_tokenizer):
    import lpr_lab as lab

    runs_dir, run, model = world
    line, view, *_ = last(work.compare_typed(runs_dir, LINES, {"run": run.id}))
    assert "Done in" in line
    expected = lab.compare_languages(model, tiny_tokenizer, work.read_lines(LINES))
    query = address(view)
    parts = parts_of(runs_dir, **query)
    said = words(parts["segment_view"])
    for code, name in (("el", "Greek"), ("ar", "Arabic")):
        one = expected.summary(code)
        assert f"{name} {one.num_tokens} {one.divergence:.3f} {one.chance:.3f}" in said
    assert parts["segment_bits"]["visible"] and parts["segment_alike"]["visible"]
    np.testing.assert_allclose(parts["segment_bits"]["value"].data[0].y, expected.divergence[1], atol=1e-6)
    data = as_data.as_data(shell.page_context(runs_dir, query), run, runs_dir)
    table = data.tables["segment"]()
    pd.testing.assert_frame_equal(table, expected.to_frame(), atol=1e-6)
    again = pd.read_csv(io.StringIO(last_value(data.cell).to_csv(index=False)))
    pd.testing.assert_frame_equal(again, pd.read_csv(io.StringIO(table.to_csv(index=False))), check_exact=True)
    assert data.documents["segment"]()["texts"]["ar"] == "سمعت البحر."
    # In the box it stands again, and every language's full trace is at its link, with all stages.
    assert "ar: سمعت البحر." in show.lines_of(run, Query.parse(query))
    links = re.findall(r'href="/routing\?run=[^"]*?text=(own-[0-9a-f]+)', parts["segment_view"])
    full = [trace_of(run, name) for name in dict.fromkeys(links)]
    assert [trace.language for trace in full if trace] == ["en", "el", "ar"]
    assert all(trace.stage_names == ["G1 expand", "G1 review"] for trace in full if trace)


def test_segments_of_the_corpus_are_found_and_say_which_language_they_lack(world):
    runs_dir, run, _ = world
    line, pick, why = last(work.find_segments(runs_dir, {"run": run.id}))
    assert "13 segments" in line and "heldout text" in why and "same id" in why
    labels = [label for label, _ in pick["choices"]]
    assert labels[0] == "Our own sample text" and labels[-1].endswith("without Turkish")
    assert len(labels) == 14 and not any("without" in label for label in labels[:-1])
    key = pick["choices"][-1][1]
    line, view, *_ = last(work.compare_chosen(runs_dir, key, {"run": run.id}))
    assert "Done in" in line and address(view)["segment"] == key
    assert "Greek" in words(view) and "Turkish" not in words(view)
    parts = parts_of(runs_dir, run=run.id, segment=key)
    assert parts["segment_pick"]["value"] == key and "same id" in parts["segment_why"]


def test_an_address_whose_segment_is_no_longer_held_can_be_compared_again(world):
    runs_dir, run, _ = world
    parts = parts_of(runs_dir, run=run.id, segment="sample", stage="G1 expand")
    assert "compare it to see it again" in words(parts["segment_view"])
    params = {"run": run.id, "segment": "sample", "stage": "G1 expand"}
    line, view, *_ = last(work.compare_chosen(runs_dir, None, params))
    assert "Done in" in line and "Stage G1 expand" in words(view)
    assert "Turkish" in words(parts_of(runs_dir, **params)["segment_view"])
    gone = last(work.compare_chosen(runs_dir, None, {"run": run.id, "segment": "own-" + "0" * 32}))
    assert "paste them again" in gone[0]


def test_a_corpus_without_aligned_text_offers_pasting_only_and_says_why(world, monkeypatch):
    runs_dir, run, _ = world
    from lpr_lab.measure.segments import aligned

    monkeypatch.setattr(aligned, "aligned_segments", lambda *_: [])
    monkeypatch.setattr(work, "SEGMENTS", Segments())
    line, _, why = last(work.find_segments(runs_dir, {"run": run.id}))
    assert "None was found" in line and "no aligned text" in why and "Paste" in why


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("en: One.\nTwo.", "Line 2, “Two.”"),
        ("en: One.\nxx: Two.", "'xx'"),
        ("en: One.\nel: Ένα.\neng: Two.", "second text in English"),
        ("en: One.\nel:", "1 of the lines"),
        (f"en: {'x' * 4001}\nel: y", "The text in English has 4,001 characters"),
        ("", "0 of the lines"),
    ],
)
def test_lines_that_cannot_be_read_are_refused_with_what_is_wrong(typed, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        work.read_lines(typed)


def test_lines_hold_any_script_colons_within_and_any_label_of_a_language():
    assert work.read_lines("eng: At 7:30.\nar：مرحبا: نعم\n\nzh: 你好") == {
        "en": "At 7:30.",
        "ar": "مرحبا: نعم",
        "zh": "你好",
    }


def test_the_box_has_a_line_for_every_language_of_the_run(run):
    assert show.lines_of(run, Query()) == "en: \nes: \nel: \nhu: \ntr: "


def test_a_run_without_weights_offers_nothing(runs_dir, run):
    assert not parts_of(runs_dir)["segment"]["visible"]


def test_the_oldest_comparison_gives_way_and_another_model_has_none(run):
    held, compared = Segments(most=2), make_comparison()
    for key in ("a", "b", "c"):
        held.put(run, key, "", compared)
    assert held.get(run, "a", "") is None and held.get(run, "c", "") is compared
    assert held.get(run, "c", "G1 expand") is None
    assert held.texts(run, "b") == {code: trace.text for code, trace in compared.traces.items()}


def test_a_label_shows_the_beginning_in_the_reference_language(run, monkeypatch):
    held = Segments()
    monkeypatch.setattr(show, "SEGMENTS", held)
    texts = {"el": "Καλημέρα.", "en": "Good morning " * 9, "es": "Buenos", "hu": "Jó", "tr": "İyi"}
    held.put_list(run, Listing((Segment("x", "heldout", texts),), "Why."))
    (_, sample), (label, _) = show.segment_choices(run)
    assert sample == "sample" and label.startswith("Good morning") and label.endswith("…")
    assert SEGMENTS.get_list(run) is None
