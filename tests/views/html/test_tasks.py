"""Tasks as a table: chance beside every share, verdicts the right way round, and what was not asked."""

import math

from helpers.sample_scores import STAGES
from helpers.sample_tasks import answers
from helpers.words import words
from lpr_lab.measure.tasks.scores import change_rows, left_out_rows
from lpr_lab.views.html.tasks import render_tasks, tasks_finding


def test_every_task_says_what_it_asks_and_its_chance_level():
    changes = change_rows(answers(), "base", STAGES[0])
    said = words(render_tasks(changes, "base", "stage one", left_out_rows([("inflection", "el", "no <b>table</b>")])))
    assert "25%" in said and "among 4" in said
    assert "▲ better" in said and "▼ worse" in said
    assert "Greek: no <b>table</b>" in said  # as text
    assert "own script" in said.lower()


def test_a_share_is_never_shown_without_its_interval_and_a_task_without_margin_has_none():
    changes = change_rows(answers(), "base", STAGES[0])
    assert changes[changes["task"] == "script"]["margin_change"].isna().all()
    assert all(math.isfinite(value) for value in changes["ci_low"])
    assert "nan" not in words(render_tasks(changes, "base", "stage one")).split()


def test_the_finding_counts_what_is_clear_and_what_is_not():
    changes = change_rows(answers(), "base", STAGES[0])
    assert "4 differences" in tasks_finding(changes) and "better" in tasks_finding(changes)


def test_where_nothing_was_asked_nothing_is_shown():
    assert not render_tasks(None, "base", "expanded")
    assert not render_tasks(change_rows([], "base", "expanded"), "base", "expanded")
