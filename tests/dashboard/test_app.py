"""What each page says, for every state a run can be in."""

import re
from pathlib import Path

import pytest

from helpers.sample_runs import make_run, results
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import page as compare
from lpr_lab.dashboard.pages.retention import compose as retention
from lpr_lab.dashboard.pages.routing import page as routing
from lpr_lab.dashboard.pages.runs import page as runs
from lpr_lab.dashboard.pages.runs.compare import render_comparison
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.dashboard.pages.runs.live import render_live
from lpr_lab.runs.housekeeping import tag
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text

PAGES = {"routing": routing, "retention": retention, "compare": compare}


def everything(page, context, folder: Path) -> str:
    return " ".join(str(value) for value in page.compose(context, folder).values())


# ----------------------------------------------------------------------------------------------- which run


def test_the_address_picks_the_run_and_without_one_it_is_the_newest(runs_dir):
    first, second = make_run(runs_dir), make_run(runs_dir)
    assert shell.page_context(runs_dir, {"run": first.id}).run.id == first.id
    newest = shell.page_context(runs_dir, {})
    assert newest.run.id in (first.id, second.id) and not newest.notice


@pytest.mark.parametrize("asked", ["20200101-000000Z-gone-0000", "../../etc/passwd", "a/b", "<script>boom()</script>"])
def test_an_unknown_run_is_said_and_the_newest_shown(runs_dir, run, asked):
    context = shell.page_context(runs_dir, {"run": asked})
    assert context.run.id == run.id
    assert re.search(r"isn.t in .*newest", words(context.notice))
    assert "<script" not in context.notice


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_an_empty_or_absent_folder_teaches_how_to_make_a_run(runs_dir, page):
    said = words(everything(page, shell.page_context(runs_dir, {}), runs_dir))
    assert "No runs yet" in said and "lpr-lab demo" in said


def test_a_run_that_cannot_be_read_is_a_row_with_the_reason_and_the_others_work(runs_dir, run):
    broken = make_run(runs_dir)
    write_text(broken.path / "run.json", "{")
    context = shell.page_context(runs_dir, {"run": broken.id})
    assert context.run.id == run.id
    assert "not readable as JSON" in words(context.notice)
    listing = words(runs.render_list(context))
    assert "unreadable" in listing and run.title in listing


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("file", ["tables/change.csv", "traces/en.npz", "generations/pairs.jsonl", "results.json"])
def test_a_damaged_file_is_a_sentence_and_not_a_crash(runs_dir, run, page, file):
    write_text(run.path / file, '"\x00{{{\n{"')
    assert "<h1>" in everything(page, shell.page_context(runs_dir, {"text": "en"}), runs_dir)
    context = shell.page_context(runs_dir, {})
    assert runs.render_list(context) and runs.finding(context) and render_detail(run, [run])


# ------------------------------------------------------------------------------------------------ runs


def test_the_list_shows_state_languages_and_both_headlines(runs_dir, run):
    listing = words(runs.render_list(shell.page_context(runs_dir, {})))
    for part in ("finished", "English", "Greek", "−14.9%", "−0.4%", "below zero is better"):
        assert part in listing
    assert "learned Greek, Hungarian and Turkish" in words(runs.finding(shell.page_context(runs_dir, {})))


def test_an_unmeasured_run_shows_a_dash_and_never_a_zero(runs_dir):
    make_run(runs_dir, finished=False)
    listing = runs.render_list(shell.page_context(runs_dir, {}))
    assert listing.count('title="not measured">–') == 2 and "0.0%" not in listing


def test_an_example_carries_its_badge(runs_dir):
    make_run(runs_dir / "examples")
    assert "example" in words(runs.render_list(shell.page_context(runs_dir, {})))
    assert "1 example that came with the code" in words(runs.finding(shell.page_context(runs_dir, {})))


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


def test_a_run_at_work_has_a_card_of_its_own_and_an_interrupted_one_says_where_it_stood(runs_dir):
    run = make_run(runs_dir, finished=False)
    with run.working("expand"):
        assert "Running: expand" in words(render_live(run)) and "Running" not in words(render_detail(run, [run]))
    run.stop("interrupted")
    assert "Interrupted at expand, step 59, 60 416 tokens" in words(render_detail(run, [run]))
    assert render_live(run) == ""


def test_curves_start_with_the_language_model_loss(run):
    card, number, title, figure = runs.curves(run, None)
    assert card["visible"] and number["value"] == "lm_loss" and "lm_loss: expand" in title and figure.data
    assert runs.curves(None, None)[0]["visible"] is False


def test_tags_are_shown_and_choose_runs(runs_dir, run):
    other = make_run(runs_dir, title="The other one")
    tag(other, ["βραβείο"])
    listing = runs.render_list(shell.page_context(runs_dir, {}))
    assert "βραβείο 1" in words(listing) and run.title in listing
    chosen = runs.render_list(shell.page_context(runs_dir, {"tag": "βραβείο"}))
    assert "The other one" in chosen and run.title not in chosen
    assert "βραβείο" in render_detail(other, [other])


def test_runs_side_by_side_show_what_differs_and_no_result_on_other_documents(runs_dir, run):
    other = make_run(runs_dir, finished=False, title="The other one", config={**run.config, "seed": 7})
    found = results()
    found["change"][0]["test_set"] = "other"
    other.finish(found)
    compared = words(render_comparison(shell.page_context(runs_dir, {"runs": f"{run.id},{other.id}"})))
    assert "1 of " in compared and "seed 0 7" in compared
    dataset = found["change"][0]["dataset"]
    assert "Their test sets hold different documents" in compared and f"languages, {dataset}" not in compared
