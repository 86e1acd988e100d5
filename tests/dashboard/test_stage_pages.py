"""Runs of single stages on the pages: what each is, what it goes on from, and what it was not made to say."""

import re

import pytest

from helpers.sample_runs import change_table, log_training
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.experts import page as experts
from lpr_lab.dashboard.pages.retention import compose as retention
from lpr_lab.dashboard.pages.runs import page as runs
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.runs.run import Run


@pytest.fixture
def made(runs_dir) -> dict[str, Run]:
    config = {"base": "tiny", "original": ["en"], "expanded": ["el"], "corpus": "demo"}
    found: dict[str, Run] = {}
    for kind, before in (("text", ""), ("upcycle", ""), ("stage1", "upcycle"), ("stage2", "stage1")):
        parents = [found[before].id] if before else []
        given = {"base": "tiny"} if kind == "upcycle" else config
        run = Run.create(runs_dir, kind=kind, slug="el", title=f"tiny: {kind}", config=given, parents=parents)
        if kind == "stage1":
            log_training(run)
        if kind == "stage2":
            run.tables.write("change", change_table())
        run.finish({"schema_version": 1, "base": "tiny"})
        found[kind] = run
    return found


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "read by the tokenizer of tiny"),
        ("upcycle", "was given new experts"),
        ("stage1", "nothing was measured"),
    ],
)
def test_the_list_says_what_a_run_of_one_stage_is(runs_dir, made, kind, said):
    context = shell.page_context(runs_dir, {"run": made[kind].id})
    assert said in words(runs.finding(context))
    listed = words(runs.render_list(context))
    assert all(f"tiny: {other}" in listed for other in made)


def test_the_whole_line_of_stages_is_linked(runs_dir, made):
    detail = words(render_detail(made["stage2"], shell.page_context(runs_dir, {}).runs))
    assert "tiny: upcycle → tiny: stage1 → tiny: stage2" in detail


def test_pages_that_a_kind_has_nothing_for_are_not_offered(runs_dir, made):
    links = re.compile(r'class="lpr-button" href="(/\w+)[^"]*">')  # the report for download is always there
    offered = {kind: links.findall(render_detail(run, [])) for kind, run in made.items()}
    assert offered["text"] == [] and offered["upcycle"] == ["/routing", "/plan"]
    assert "/retention" in offered["stage1"] and offered["stage1"] == offered["stage2"]


def test_what_a_stage_was_not_made_to_say_is_said_so(runs_dir, made):
    context = shell.page_context(runs_dir, {"run": made["stage1"].id})
    shown = retention.compose(context, runs_dir)
    assert "Not measured" in words(shown.values())
    shown = experts.compose(context, runs_dir)
    assert "Not counted yet" in words(shown.values()) or "Not measured" in words(shown.values())
    measured = retention.compose(shell.page_context(runs_dir, {"run": made["stage2"].id}), runs_dir)
    assert "Not measured" not in words(measured.values())
