"""What each page says, for every state a run can be in."""

import json
import re
from pathlib import Path

import pytest
from sample_runs import HOSTILE, MIXED, make_run, make_trace

from lpr_lab.dashboard import compare, retention, routing, runs, shell
from lpr_lab.dashboard.compare import Pair, pair_id, render_pair, split_at_fork
from lpr_lab.dashboard.run_detail import render_detail
from lpr_lab.experiments.runs import Run
from lpr_lab.storage import write_text


def words(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", str(markup)))


PAGES = {"routing": routing, "retention": retention, "compare": compare}


def everything(page, scene, folder: Path) -> str:
    return " ".join(str(value) for value in page.compose(scene, folder).values())


# ----------------------------------------------------------------------------------------------- which run


def test_the_address_picks_the_run_and_without_one_it_is_the_newest(runs_dir):
    first, second = make_run(runs_dir), make_run(runs_dir)
    assert shell.look(runs_dir, {"run": first.id}).run.id == first.id
    newest = shell.look(runs_dir, {})
    assert newest.run.id in (first.id, second.id) and not newest.notice


@pytest.mark.parametrize("asked", ["20200101-000000Z-gone-0000", "../../etc/passwd", "a/b", "<script>boom()</script>"])
def test_an_unknown_run_is_said_and_the_newest_shown(runs_dir, run, asked):
    scene = shell.look(runs_dir, {"run": asked})
    assert scene.run.id == run.id
    assert "isn't in this folder. Showing the newest one instead." in words(scene.notice)
    assert "<script" not in scene.notice


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_an_empty_or_absent_folder_teaches_how_to_make_a_run(runs_dir, page):
    said = words(everything(page, shell.look(runs_dir, {}), runs_dir))
    assert "No runs yet" in said and "lpr-lab demo" in said


def test_a_run_that_cannot_be_read_is_a_row_with_the_reason_and_the_others_work(runs_dir, run):
    broken = make_run(runs_dir)
    write_text(broken.path / "run.json", "{")
    scene = shell.look(runs_dir, {"run": broken.id})
    assert scene.run.id == run.id
    assert "not readable as JSON" in words(scene.notice)
    listing = words(runs.render_list(scene))
    assert "unreadable" in listing and run.title in listing


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("file", ["tables/change.csv", "traces/en.npz", "generations/pairs.jsonl", "results.json"])
def test_a_damaged_file_is_a_sentence_and_not_a_crash(runs_dir, run, page, file):
    write_text(run.path / file, '"\x00{{{\n{"')
    assert "<h1>" in everything(page, shell.look(runs_dir, {"text": "en"}), runs_dir)
    scene = shell.look(runs_dir, {})
    assert runs.render_list(scene) and runs.finding(scene) and render_detail(run, [run])


# ------------------------------------------------------------------------------------------------ runs


def test_the_list_shows_state_languages_and_both_headlines(runs_dir, run):
    listing = words(runs.render_list(shell.look(runs_dir, {})))
    for part in ("finished", "English", "Greek", "−14.9%", "−0.4%", "below zero is better"):
        assert part in listing
    assert "learned Greek, Hungarian and Turkish" in words(runs.finding(shell.look(runs_dir, {})))


def test_an_unmeasured_run_shows_a_dash_and_never_a_zero(runs_dir):
    make_run(runs_dir, finished=False)
    listing = runs.render_list(shell.look(runs_dir, {}))
    assert listing.count('title="not measured">–') == 2 and "0.0%" not in listing


def test_an_example_carries_its_badge(runs_dir):
    make_run(runs_dir / "examples")
    assert "example" in words(runs.render_list(shell.look(runs_dir, {})))
    assert "1 example that came with the code" in words(runs.finding(shell.look(runs_dir, {})))


def test_the_detail_lists_promises_phases_settings_and_lineage(runs_dir, run):
    child = make_run(runs_dir, parents=[run.id], title="a second one")
    detail = words(render_detail(Run.open(runs_dir, run.id), [run, child]))
    for part in ("6 of 6 promises", "fit routers", "stage1.learning_rate", "Lineage", "a second one"):
        assert part in detail


def test_a_failed_run_shows_its_last_lines_and_how_to_go_on(runs_dir):
    run = make_run(runs_dir, finished=False)
    run.stop("failed", error_tail="Traceback\nRuntimeError: <b>no</b>")
    detail = render_detail(run, [run])
    assert "RuntimeError: &lt;b&gt;no&lt;/b&gt;" in detail and "lpr-lab demo" in detail


def test_a_running_run_shows_its_step_and_its_last_sign_of_life(runs_dir):
    run = make_run(runs_dir, finished=False)
    with run.working("expand"):
        detail = words(render_detail(run, [run]))
        assert re.search(r"Running, at expand, step 59, 60.416 tokens; last sign of life \d+ s ago", detail)
    run.stop("interrupted")
    assert "Interrupted at expand" in words(render_detail(run, [run]))


def test_curves_start_with_the_language_model_loss(run):
    card, number, title, figure = runs.curves(run, None)
    assert card["visible"] and number["value"] == "lm_loss" and "lm_loss: expand" in title and figure.data
    assert runs.curves(None, None)[0]["visible"] is False


# --------------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("en", r"English is an original language : 9\d% of the weight went to the original expert, as it should be."),
        ("el", r"Greek is an expanded language : 9\d% of the weight went to the new expert, \d% to the original one."),
        ("ar", r"Arabic is neither an original nor an expanded language of this run: "),
    ],
)
def test_the_routing_headline_says_where_the_weight_went_and_where_it_should(runs_dir, run, code, sentence):
    parts = routing.compose(shell.look(runs_dir, {"text": code}), runs_dir)
    assert re.search(sentence, words(parts["top"]))
    assert f'lang="{code}"' in parts["strip"]


def test_the_first_text_shown_is_of_an_expanded_language(runs_dir, run):
    assert routing.compose(shell.look(runs_dir, {}), runs_dir)["picker"]["value"] == "el"


def test_the_plot_over_documents_has_a_table_that_says_the_same(runs_dir, run):
    table = words(routing.compose(shell.look(runs_dir, {}), runs_dir)["table"])
    assert re.search(r"Layer English Spanish Greek Hungarian Turkish 0 \S+% ", table)


def test_a_text_that_missed_the_target_is_told_so(run):
    trace = make_trace("Hello.", "el")
    trace.language = "en"
    assert "less than the 90% it should be" in routing.finding(trace, "original")


def test_examples_come_in_the_order_of_the_runs_languages(run):
    names = [name for _, name in routing.examples(run)]
    assert names[:5] == ["en", "es", "el", "hu", "tr"] and set(names[5:]) == {"ar", "bn", "zh", "mixed"}


def test_the_address_is_restored_and_written_back(runs_dir, run):
    query = {"run": run.id, "text": "el", "layer": "7", "tok": "3", "mode": "tokens", "view": "expert"}
    parts = routing.compose(shell.look(runs_dir, query), runs_dir)
    assert 'data-layer="7" data-token="3" data-mode="tokens" data-colour="expert"' in parts["strip"]
    assert f"run={run.id}&amp;lang=el&amp;text=el&amp;layer=7&amp;tok=3&amp;mode=tokens&amp;view=expert" in parts["top"]


def test_without_weights_own_texts_are_refused_with_reason_and_command(runs_dir, run):
    parts = routing.compose(shell.look(runs_dir, {"text": "own"}), runs_dir)
    assert parts["go"]["interactive"] is False
    assert "This run has no weights in this folder." in words(parts["why"]) and "lpr-lab demo" in words(parts["why"])
    *_, (line, _, _) = routing.trace_own(runs_dir, "Καλημέρα.", "el", {"run": run.id})
    assert "no weights" in words(line)


@pytest.mark.parametrize(
    ("text", "said"), [("", "The text is empty"), (" \n ", "The text is empty"), ("x" * 5000, "at most 4,000")]
)
def test_texts_that_cannot_be_traced_are_refused_before_any_model_is_touched(runs_dir, run, text, said):
    ((line, _, _),) = routing.trace_own(runs_dir, text, None, {"run": run.id})
    assert said in words(line)


def test_a_run_without_traces_says_so(runs_dir):
    Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    parts = routing.compose(shell.look(runs_dir, {}), runs_dir)
    assert "No text was traced in this run" in words(parts["strip"])


def test_hostile_text_stays_text(runs_dir, run):
    run.write_trace("hostile", make_trace(HOSTILE))
    strip = routing.compose(shell.look(runs_dir, {"text": "hostile"}), runs_dir)["strip"]
    assert "<script" not in strip and "<img" not in strip and "�" not in strip


# -------------------------------------------------------------------------------------------- retention


def test_retention_starts_with_held_out_text_and_the_address_can_ask_for_another(runs_dir, run):
    first = retention.compose(shell.look(runs_dir, {}), runs_dir)
    assert first["picker"]["value"] == "heldout"
    assert "Expanded languages need 14.9% fewer bits per byte, all clearly better" in words(first["top"])
    assert "original languages 0.4% fewer, 1 better, 1 worse." in words(first["top"])
    dev = retention.compose(shell.look(runs_dir, {"data": "dev"}), runs_dir)
    assert dev["picker"]["value"] == "dev" and "2.103" in dev["table"]


def test_the_retention_table_has_original_languages_first_with_interval_and_verdict(runs_dir, run):
    table = words(retention.compose(shell.look(runs_dir, {}), runs_dir)["table"])
    assert table.index("English") < table.index("Expanded languages") < table.index("Greek")
    assert "+0.3% +0.1% to +0.6% ▲ worse" in table and "−21.8% −23.0% to −20.4% ▼ better" in table


def test_a_run_that_was_not_measured_says_so(runs_dir):
    Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    parts = retention.compose(shell.look(runs_dir, {}), runs_dir)
    assert "Not measured yet" in words(parts["table"]) and parts["plot"]["visible"] is False


# ---------------------------------------------------------------------------------------------- compare


def test_a_kept_pair_is_shown_and_the_place_where_they_part_is_marked(runs_dir, run):
    parts = compose = compare.compose(shell.look(runs_dir, {"lang": "el"}), runs_dir)
    assert "agree for 9 tokens, then part" in words(compose["top"])
    assert parts["pair"].count("they part here, at token 10") == 4  # title and words, in both panes
    assert "<b> χωριό" in parts["pair"] or "<b>χωριό" in parts["pair"]
    assert parts["prompt"]["value"] == "Μια φορά κι έναν καιρό"


def test_each_kept_pair_has_an_address(runs_dir, run):
    for record in run.generations():
        parts = compare.compose(shell.look(runs_dir, {"text": pair_id(record)}), runs_dir)
        assert parts["prompt"]["value"] == record["prompt"]
        assert f"text={pair_id(record)}" in parts["top"]


def test_the_same_text_is_said_to_be_the_same(runs_dir, run):
    top = compare.compose(shell.look(runs_dir, {"lang": "en"}), runs_dir)["top"]
    assert "say the same, token for token" in words(top)


def test_the_fork_lies_between_whole_characters():
    assert split_at_fork("a 👨‍👩‍👧", "a 👨‍👩‍👦") == ("a ", "👨‍👩‍👧")
    assert split_at_fork("নি", "না") == ("", "নি")
    assert split_at_fork("", "x") == ("", "")


def test_panes_carry_language_and_direction_and_escape_everything():
    pane = render_pair(Pair(HOSTILE, "ar", MIXED, "<b>x</b>", 0))
    assert pane.count('dir="rtl" lang="ar"') == 2
    assert "<script" not in pane and "&lt;b&gt;x" in pane


def test_an_empty_prompt_is_refused(runs_dir, run):
    ((line, _, _),) = compare.generate(runs_dir, "  ", "el", 8, 0, 0, {"run": run.id})
    assert "The prompt is empty" in words(line)


def test_pairs_written_by_an_earlier_form_still_show(runs_dir, run):
    path = run.path / "generations" / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "base": None}) + "\n", encoding="utf-8")
    assert "Hi" in compare.compose(shell.look(runs_dir, {}), runs_dir)["pair"]
