"""Page `/routing`: the headline against the prior, stages and runs side by side, what-ifs in sentences."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.sample_runs import HOSTILE, SENTENCES, make_run, make_trace
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing import own_texts as routing_own
from lpr_lab.dashboard.pages.routing import page as routing
from lpr_lab.dashboard.pages.routing import render, what_if
from lpr_lab.dashboard.pages.routing import texts as routing_texts
from lpr_lab.dashboard.pages.routing.own_texts import Called
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED, UnsavedTexts
from lpr_lab.measure.trace import layers_in
from lpr_lab.runs.people.own_texts import add_texts, delete_text, keep_text, new_id, own_texts
from lpr_lab.runs.run import Run


def parts_of(runs_dir, **query):
    return routing.compose(shell.page_context(runs_dir, query), runs_dir)


def staged(text: str, language: str, seed: int = 0, num_experts: int = 2):
    """A trace of a reviewed model: before the review, half of the choices of original languages went astray."""
    trace = make_trace(text, language, seed=seed, num_layers=6, num_experts=num_experts)
    early = make_trace(text, language, seed=seed, num_layers=6, num_experts=num_experts)
    early.token_ids = trace.token_ids
    swap = np.arange(trace.num_tokens) % 2 == 1
    early.expert_ids[:, swap] = early.expert_ids[:, swap][..., ::-1]
    early.original_weight = np.where(early.expert_ids[..., 0] == 0, 0.9, 0.1).astype(np.float32)
    trace.model["stage"], early.model["stage"] = "G1 review", "G1 expand"
    trace.stages = {"G1 expand": early}
    return trace


# ------------------------------------------------------------------------------------------ against the prior


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("en", r"English .*original language : 100% .*reached the original expert.* target .*100%"),
        ("el", r"Greek .*expanded language : 100% .*new expert, 0% .*original"),
        ("ar", r"Arabic .*neither"),
    ],
)
def test_the_headline_says_how_many_tokens_reached_the_original_expert_and_how_many_should(
    runs_dir, run, code, sentence
):
    parts = parts_of(runs_dir, text=code)
    assert re.search(sentence, words(parts["top"]))
    assert f'lang="{code}"' in parts["strip"]


def test_a_text_that_missed_the_target_is_told_so(run):
    trace = make_trace("Hello.", "el")
    trace.language = "en"
    assert "less than the 90% that counts as kept" in render.finding(trace, "original")
    trace = make_trace("Hello.", "en")
    assert "less than half" in render.finding(trace, "expanded")


def test_the_first_text_shown_is_of_an_expanded_language(runs_dir, run):
    assert parts_of(runs_dir)["picker"]["value"] == "el"


def test_the_plot_over_documents_has_a_table_that_says_the_same(runs_dir, run):
    assert re.search(r"Layer English Spanish Greek Hungarian Turkish 0 \S+% ", words(parts_of(runs_dir)["table"]))


def test_examples_come_in_the_order_of_the_runs_languages(run):
    names = [name for _, name in routing_texts.examples(run)]
    assert names[:5] == ["en", "es", "el", "hu", "tr"] and set(names[5:]) == {"ar", "bn", "zh", "mixed"}


def test_every_language_of_the_run_has_a_row_with_its_target(runs_dir, run):
    table = words(parts_of(runs_dir)["languages"])
    assert re.search(r"100% .*original languages .*\b0% .*expanded languages", table)
    assert re.search(r"English 100% 100% .* Greek at most half 0%", table)


# ------------------------------------------------------------------------------------------ before and after


def test_a_trace_with_stages_offers_them_and_each_has_its_own_headline(runs_dir, run):
    run.traces.write("en", staged(SENTENCES["en"], "en"))
    newest = parts_of(runs_dir, text="en")
    assert newest["stage"]["choices"] == ["G1 expand", "G1 review"] and newest["stage"]["value"] == "G1 review"
    assert "100% of its tokens reached" in words(newest["top"])
    before = parts_of(runs_dir, text="en", stage="G1 expand")
    assert before["stage"]["value"] == "G1 expand" and "less than the 90%" in words(before["top"])
    assert "stage=G1+expand" in before["top"]
    assert "G1 expand G1 review" in words(newest["languages"])


def test_a_stage_that_is_not_there_is_said_and_the_newest_shown(runs_dir, run):
    run.traces.write("en", staged(SENTENCES["en"], "en"))
    parts = parts_of(runs_dir, text="en", stage="G7 review")
    assert "G7 review" in words(parts["top"]) and "Showing the newest" in words(parts["top"])


def test_what_the_review_moved_is_counted_by_direction_and_layer_and_can_be_coloured(runs_dir, run):
    trace = staged(SENTENCES["en"], "en")
    run.traces.write("en", trace)
    parts = parts_of(runs_dir, text="en", stage2="G1 expand", view="change")
    swapped = int((trace.is_text & (np.arange(trace.num_tokens) % 2 == 1)).sum())
    text = int(trace.is_text.sum())
    said = words(parts["strip"])
    assert f"{6 * swapped} of {6 * text} choices moved" in said and f"{6 * swapped} to the original expert" in said
    assert 'data-colour="change"' in parts["strip"]
    assert f'<td class="lpr-moved">{swapped}</td>' in parts["strip"]
    assert parts["other"]["value"] == "stage:G1 expand"
    assert "stage2=G1+expand" in parts["top"]


def test_a_second_run_is_compared_on_the_same_text_and_refused_on_another(runs_dir, run):
    other = make_run(runs_dir, title="Another seed")
    mine = make_trace(SENTENCES["en"], "en")
    theirs = make_trace(SENTENCES["en"], "en")
    theirs.expert_ids = theirs.expert_ids[..., ::-1].copy()
    run.traces.write("en", mine)
    other.traces.write("en", theirs)
    query = {"run": run.id, "text": "en", "run2": other.id, "view": "change"}
    said = words(parts_of(runs_dir, **query)["strip"])
    assert "In Another seed" in said and "choices moved (100%)" in said
    other.traces.write("en", make_trace("Another text.", "en"))
    refused = parts_of(runs_dir, **query)
    assert "traces of two texts" in words(refused["strip"]) and 'data-colour="original"' in refused["strip"]


def test_a_second_run_that_is_gone_or_has_nothing_to_show_is_a_sentence(runs_dir, run):
    gone = words(parts_of(runs_dir, text="en", run2="20200101-000000Z-gone-0000")["strip"])
    assert "nothing to compare with" in gone
    bare = Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config=run.config)
    said = words(parts_of(runs_dir, run=run.id, text="en", run2=bare.id)["strip"])
    assert "has not traced this text." in said and "weights" in said


def test_only_runs_from_the_same_base_are_offered(runs_dir, run):
    same = make_run(runs_dir, title="Same base")
    make_run(runs_dir, title="Other base", config=run.config | {"base": "another"})
    labels = [label for label, _ in parts_of(runs_dir, run=run.id, text="en")["other"]["choices"]]
    assert labels == ["Nothing", f"Run Same base ({same.id[-4:]})"]


# ---------------------------------------------------------------------------------------- address and states


def test_the_address_is_restored_and_written_back(runs_dir, run):
    query = {"run": run.id, "text": "el", "layer": "7", "expert": "1", "tok": "3", "mode": "tokens", "view": "expert"}
    parts = parts_of(runs_dir, **query)
    state = 'data-layer="7" data-expert="1" data-token="3" data-mode="tokens" data-colour="expert"'
    assert state in parts["strip"]
    written = f"run={run.id}&amp;lang=el&amp;text=el&amp;layer=7&amp;expert=1&amp;tok=3&amp;mode=tokens&amp;view=expert"
    assert written in parts["top"]


def test_without_weights_own_texts_and_changes_are_refused_with_reason_and_command(runs_dir, run):
    parts = parts_of(runs_dir, text="own")
    assert parts["go"]["interactive"] is False
    assert "no weights" in words(parts["why"]) and "lpr-lab demo" in words(parts["why"])
    assert parts_of(runs_dir, text="en")["what_if"]["visible"] is False
    *_, (line, _, _) = routing_own.trace_own(runs_dir, "Καλημέρα.", "el", {"run": run.id})
    assert "no weights" in words(line)
    *_, (line, _) = what_if.try_change(runs_dir, "force", 0, "all", {"run": run.id, "text": "el"})
    assert "no weights" in words(line)


@pytest.mark.parametrize(
    ("text", "said"), [("", "The text is empty"), (" \n ", "The text is empty"), ("x" * 5000, "at most 4,000")]
)
def test_texts_that_cannot_be_traced_are_refused_before_any_model_is_touched(runs_dir, run, text, said):
    ((line, _, _),) = routing_own.trace_own(runs_dir, text, None, {"run": run.id})
    assert said in words(line)


def test_a_run_without_traces_says_so(runs_dir):
    Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    assert "No text was traced in this run" in words(parts_of(runs_dir)["strip"])


def test_hostile_text_stays_text(runs_dir, run):
    run.traces.write("hostile", make_trace(HOSTILE))
    strip = parts_of(runs_dir, text="hostile")["strip"]
    assert "<script" not in strip and "<img" not in strip and "�" not in strip


# ----------------------------------------------------------------------------------------- texts of readers


def typed(run, text: str = "A typed text.", edited: str = "") -> str:
    text_id = new_id()
    UNSAVED.put(run, text_id, make_trace(text, "en", num_layers=3), edited)
    return text_id


def test_a_typed_text_is_shown_under_its_address_and_nothing_is_written(runs_dir, run):
    before = sorted((run.path / "traces").iterdir())
    text_id = typed(run)
    parts = parts_of(runs_dir, run=run.id, text=text_id)
    assert parts["text"]["value"] == "A typed text." and f"text={text_id}" in parts["top"]
    assert 'lang="en"' in parts["strip"]
    assert parts["picker"]["value"] == "own" and parts["keeping"]["visible"] and parts["keep"]["visible"]
    assert not parts["rename"]["visible"] and not parts["delete"]["visible"] and "Not kept" in parts["note"]
    assert text_id not in str(parts_of(runs_dir, run=run.id, text="el")["kept"])
    assert sorted((run.path / "traces").iterdir()) == before


def test_keeping_renaming_editing_and_deleting_a_text(runs_dir, run):
    text_id = typed(run)
    query = {"run": run.id, "text": text_id}
    said, query = routing_own.keep_own(runs_dir, Called("Morning", "Letters"), query)
    assert "Kept" in said and query["text"] == text_id and UNSAVED.get(run, text_id) is None
    parts = parts_of(runs_dir, **query)
    assert parts["kept"]["choices"] == [("Letters: Morning", text_id)] and parts["kept"]["value"] == text_id
    assert parts["text"]["value"] == "A typed text." and parts["delete"]["visible"] and not parts["keep"]["visible"]
    routing_own.rename_own(runs_dir, Called("Evening", "Letters"), query)
    assert parts_of(runs_dir, **query)["name"]["value"] == "Evening"
    edited = {**query, "text": typed(run, "An edited text.", edited=text_id)}
    parts = parts_of(runs_dir, **edited)
    assert parts["replace"]["visible"] and "Evening" in parts["replace"]["value"]
    _, query = routing_own.keep_own(runs_dir, Called("Evening", "Letters"), edited, replace=True)
    assert query["text"] == text_id and run.traces.read(text_id).text == "An edited text."
    said, query = routing_own.delete_own(runs_dir, query)
    assert "Deleted" in said and text_id not in run.traces.names()
    assert not parts_of(runs_dir, **query)["kept"]["visible"]


def test_a_whole_group_is_deleted_and_other_texts_stay(runs_dir, run):
    query = {"run": run.id, "text": "own"}
    said, query = routing_own.import_own(runs_dir, "One.\nTwo.", "Letters", "en", query)
    alone, _ = add_texts(run, ["Three."], "Other"), add_texts(run, ["Four."])
    assert routing_own.group_of_shown(runs_dir, query) == ("Letters", 2)
    said, query = routing_own.delete_shown_group(runs_dir, query)
    assert "2 texts of “Letters” deleted" in said and query["text"] == ""
    assert [text.text for text in own_texts(run)] == ["Four.", "Three."]
    for text in own_texts(run):
        delete_text(run, text.id)
    said, _ = routing_own.delete_shown_group(runs_dir, {"run": run.id, "text": alone[0].id})
    assert "Not deleted" in said


def test_every_kept_text_is_offered_and_its_address_outlives_the_others(runs_dir, run):
    ids = [f"own-{number:032x}" for number in range(40)]
    for number, text_id in enumerate(ids):
        keep_text(run, text_id, f"Text {number}", make_trace(f"Number {number}.", "en", num_layers=2))
    assert len(parts_of(runs_dir)["kept"]["choices"]) == 40
    delete_text(run, ids[0])
    assert "Number 7." in parts_of(runs_dir, text=ids[7])["text"]["value"]
    assert parts_of(runs_dir, text=ids[7])["kept"]["value"] == ids[7]


@pytest.mark.parametrize("text", ["own-0123456789abcdef", "own-0123abcd", "hu2", "../../etc", "<b>x</b>", "zz"])
def test_a_text_that_is_not_there_is_said_whatever_is_shown_instead(runs_dir, run, text):
    query = {"run": run.id, "text": text}
    context = routing_texts.say_unreadable(shell.page_context(runs_dir, query), query)
    parts = routing.compose(context, runs_dir)
    assert "Notice." in words(parts["top"]) and "<b>x" not in parts["top"] and "text=el" in parts["top"]


@pytest.mark.parametrize("act", ["keep", "rename", "delete"])
def test_what_cannot_be_done_with_a_text_is_a_sentence_and_changes_nothing(runs_dir, run, act):
    gone, query = "own-0123456789abcdef", {"run": run.id, "text": "own-0123456789abcdef"}
    given = {"keep": (Called("x"),), "rename": (Called("x"),), "delete": ()}[act]
    said, after = getattr(routing_own, f"{act}_own")(runs_dir, *given, query)
    assert "lpr-bad-line" in said and after == query and gone not in run.traces.names()
    said, _ = getattr(routing_own, f"{act}_own")(runs_dir, *given, {"run": run.id, "text": "el"})
    assert "lpr-bad-line" in said and "el" in run.traces.names()


def test_imported_texts_are_listed_by_group_edited_and_take_their_trace(runs_dir, run):
    query = {"run": run.id, "text": "own"}
    said, query = routing_own.import_own(runs_dir, "One sea.\r\n\nΔύο θάλασσες.\nOne sea.\n", "Seas", "el", query)
    assert "2 texts kept" in said and "1 that the group has already was left out" in said
    parts = parts_of(runs_dir, **query)
    labels = [label for label, _ in parts["kept"]["choices"]]
    assert labels == ["Seas: One sea. (not traced)", "Seas: Δύο θάλασσες. (not traced)"]
    assert (
        parts["text"]["value"] == "One sea." and parts["language"]["value"] == "el" and "not traced yet" in parts["top"]
    )
    assert parts["picker"]["value"] == "own" and parts["rename"]["visible"] and parts["strip"] == ""
    said, _ = routing_own.rename_own(runs_dir, Called("Sea", "Waters", "A sea."), query)
    parts = parts_of(runs_dir, **query)
    assert "Saved" in said and parts["text"]["value"] == "A sea." and parts["group"]["value"] == "Waters"
    edited = {**query, "text": typed(run, "A sea.", edited=query["text"])}
    _, after = routing_own.keep_own(runs_dir, Called("Sea", "Waters"), edited, replace=True)
    assert after["text"] == query["text"] and run.traces.read(query["text"]).text == "A sea."
    assert [label for label, _ in parts_of(runs_dir, **after)["kept"]["choices"]][-1] == "Waters: Sea"
    for wrong in ("", "x" * 4001, "a\0b"):
        said, after = routing_own.import_own(runs_dir, wrong, "Seas", "", query)
        assert "Nothing was imported" in said and after == query


def test_an_example_keeps_nothing(runs_dir, run, monkeypatch):
    monkeypatch.setattr(Run, "is_example", property(lambda self: True, lambda self, value: None), raising=False)
    text_id = typed(run)
    assert parts_of(runs_dir, run=run.id, text=text_id)["keeping"]["visible"] is False
    said, _ = routing_own.keep_own(runs_dir, Called("x"), {"run": run.id, "text": text_id})
    assert "read only" in said and text_id not in run.traces.names()


def test_typed_texts_give_way_to_newer_ones_and_are_found_under_their_own_run_only(runs_dir, run):
    held = UnsavedTexts(most=2)
    for name in ("own-00000001", "own-00000002", "own-00000003"):
        held.put(run, name, make_trace("x", num_layers=1))
    assert held.get(run, "own-00000001") is None and held.get(run, "own-00000003") is not None
    other = make_run(runs_dir)
    assert held.get(other, "own-00000003") is None
    before = held.stamp("own-00000003")
    held.put(run, "own-00000003", make_trace("y", num_layers=1))
    assert held.stamp("own-00000003") != before


# ---------------------------------------------------------------------------------------------------- what if


def changed_run(loss_nats: float, text: str = HOSTILE):
    changed = make_trace(text, num_layers=2)
    assert changed.log_prob is not None
    changed.base_log_prob = changed.log_prob + loss_nats
    changed.model["changed"] = True
    return changed


def test_a_change_is_told_in_bits_and_tokens_and_marked_as_not_saved():
    changed = changed_run(loss_nats=float(np.log(2)))
    text = int(changed.is_text.sum())
    said = words(what_if.render_change(changed, make_trace(HOSTILE, num_layers=2), "Expert 0 forced in all 2 layers"))
    assert f"The text costs {text}.0 bits more" in said and "changed run, not saved" in said
    assert re.search(rf"{text} of {text} tokens .*less likely, 0 more likely, 0 ", said)


def test_a_change_that_changes_nothing_says_so():
    assert "Nothing changes" in render.cost_of_change(changed_run(0.0), "Expert 1 banned in layer 3")


def test_a_change_that_gives_the_base_back_says_so():
    changed = changed_run(1.0)
    known = make_trace(HOSTILE, num_layers=2)
    known.base_log_prob = changed.log_prob
    assert "the base is still in there" in words(what_if.render_change(changed, known, "Expert 0 forced"))
    known.base_log_prob = np.asarray(changed.log_prob) - 0.1
    assert "the base is still in there" not in words(what_if.render_change(changed, known, "Expert 0 forced"))


def test_the_table_of_a_changed_run_escapes_what_tokens_say():
    table = render.change_table(changed_run(0.5, "<b>x</b> <script>boom()</script>"))
    assert "<b>" not in table and "<script" not in table and "−" not in table


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", [0, 1, 2, 5]), ("", [0, 1, 2, 5]), ("1", [1]), ("0-2, 5", [0, 1, 2, 5]), ("2;5", [2, 5]), ("0–1", [0, 1])],
)
def test_layers_are_read_as_people_write_them(text, layers):
    assert layers_in(text, [0, 1, 2, 5]) == layers


@pytest.mark.parametrize(
    ("text", "said"), [("x", "cannot be read"), ("3", "Layer 3 has no router.*0-2, 5"), ("2-1", "no range")]
)
def test_layers_that_cannot_be_are_refused_in_a_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        layers_in(text, [0, 1, 2, 5])


@given(st.sets(st.integers(0, 60), min_size=1))
def test_what_is_said_of_layers_reads_back(chosen):
    known = list(range(61))
    said = render.layers_said(sorted(chosen), known)
    wanted = "all" if said.startswith("all") else re.sub("layers? ", "", said)
    assert layers_in(wanted, known) == sorted(chosen)
