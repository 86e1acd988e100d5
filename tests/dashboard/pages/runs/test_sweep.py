"""What the page Runs shows of a sweep and of its points."""

import html
import re

import pandas as pd
import pytest

from helpers.sample_runs import make_run
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs import page
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.dashboard.pages.runs.sweep import command_of, render_sweep
from lpr_lab.experiments.sweep.tables import differences
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run


@pytest.fixture
def sweep(runs_dir) -> Run:
    """A failed sweep of two recipes and two seeds; its last point failed and left no run."""
    config = {
        "notebook": "00_quickstart",
        "grid": {"recipe": ["a", "<b>"], "seed": [0, 1]},
        "fixed": {"original": ["en"], "base": "tiny"},
        "metrics": ["weight"],
    }
    run = Run.create(runs_dir, kind="sweep", slug="x", title="A sweep", config=config)
    points = [make_run(runs_dir, title=f"point {number}", parents=[run.id]) for number in range(3)]
    summary = pd.DataFrame(
        {
            "recipe": ["a", "a", "<b>", "<b>"],
            "seed": [0, 1, 0, 1],
            "run_id": [*(point.id for point in points), ""],
            "run_state": ["finished"] * 3 + ["failed"],
            "run_error": ["", "", "", "seven"],
            "weight": [0.9, 0.91, -0.5, None],
        }
    )
    run.tables.write("summary", summary)
    run.tables.write("differences", differences(summary, ["recipe", "seed"], ["weight"]))
    run.stop("failed", error_tail="1 of 4 points failed.")
    return Run(run.path)


def test_a_sweep_shows_what_differs_every_point_with_its_run_and_how_to_go_on(runs_dir, sweep):
    detail = render_detail(sweep, list_runs(runs_dir))
    said = words(detail)
    assert "4 points, 1 of them failed" in said and "seven" in said and "−0.5" in said
    assert re.search(r"One seed.* noise", said)
    assert detail.count('title="point ') == 3 and "<td>&lt;b&gt;</td>" in detail and "<td><b>" not in detail
    assert "→ 3 runs of this sweep" in said
    assert "-g 'seed=[0, 1]'" in html.unescape(detail) and "-p base=tiny" in detail and "-m weight" in detail
    assert command_of(sweep).startswith("lpr-lab sweep 00_quickstart -g ")


def test_its_points_do_not_drown_other_runs_until_they_are_asked_for(runs_dir, sweep):
    other = make_run(runs_dir, title="Another one")
    context = shell.page_context(runs_dir, {"run": other.id})
    shown = page.render_list(context)
    assert "A sweep" in shown and "Another one" in shown and "point 1" not in shown
    assert "3 runs of sweeps" in words(shown)
    every = page.render_list(shell.page_context(runs_dir, {"run": other.id, "kind": other.kind}))
    assert "point 1" in every and "runs of sweeps" not in words(every)
    point = next(run for run in list_runs(runs_dir) if run.title == "point 1")
    assert "point 1" in page.render_list(shell.page_context(runs_dir, {"run": point.id}))


def test_a_sweep_is_drawn_where_other_runs_have_their_curves(runs_dir, sweep):
    card, number, title, figure = page.curves(sweep, None)
    assert card["visible"] and not number["visible"]
    assert "One seed" in title and [trace.name for trace in figure.data].count("one seed") == 1
    assert "A sweep of 00_quickstart" in words(page.finding(shell.page_context(runs_dir, {"run": sweep.id})))


def test_a_run_that_is_no_sweep_and_a_sweep_without_a_point_yet_show_nothing_of_it(runs_dir, run):
    assert render_sweep(run, [run]) == ""
    begun = Run.create(runs_dir, kind="sweep", slug="x", title="x", config={"notebook": "n", "grid": {"seed": [0]}})
    assert render_sweep(begun, [begun]) == "" and page.curves(begun, None)[0]["visible"] is False
